//! Reads kube-proxy's rules as the kernel would follow them for a node port.

use anyhow::{Context, Result, bail};

/// The rules that a connection to `port` takes, in order, and where it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    pub rules: Vec<String>,
    /// `ADDRESS:PORT` of each pod that it may be sent to.
    pub targets: Vec<String>,
}

/// Follows the nat table (`iptables-save -t nat`) from KUBE-NODEPORTS to the pods.
pub fn node_port(nat: &str, port: u16) -> Result<Path> {
    let mut path = Path {
        rules: Vec::new(),
        targets: Vec::new(),
    };
    let wanted = port.to_string();
    let entry = nat
        .lines()
        .filter(|rule| rule.starts_with("-A KUBE-NODEPORTS ") && option(rule, "--dport") == Some(&wanted))
        // kube-proxy keeps a rule of its own for the node's loopback addresses.
        .find(|rule| !option(rule, "-d").is_some_and(|address| address.starts_with("127.")))
        .with_context(|| format!("no rule for node port {port} in the node's nat table"))?;
    follow(nat, entry, &mut path, 0)?;
    if path.targets.is_empty() {
        bail!("the rules for node port {port} lead to no pod: {:#?}", path.rules);
    }
    Ok(path)
}

fn follow(nat: &str, rule: &str, path: &mut Path, depth: usize) -> Result<()> {
    if depth > 8 {
        bail!("kube-proxy's chains go in a circle: {:#?}", path.rules);
    }
    path.rules.push(rule.to_owned());
    match option(rule, "-j").unwrap_or_default() {
        "DNAT" => {
            let target =
                option(rule, "--to-destination").with_context(|| format!("DNAT to nowhere: {rule}"))?;
            path.targets.push(target.to_owned());
        }
        chain if chain.starts_with("KUBE-") && chain != "KUBE-MARK-MASQ" => {
            let start = format!("-A {chain} ");
            // The rules for traffic from inside the cluster do not concern an outside client.
            let internal = |rule: &str| rule.contains("-s 10.42.") || rule.contains("--src-type LOCAL");
            for next in nat
                .lines()
                .filter(|rule| rule.starts_with(&start) && !internal(rule))
            {
                follow(nat, next, path, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The word behind an option.
fn option<'a>(rule: &'a str, name: &str) -> Option<&'a str> {
    let mut words = rule.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAT: &str = "\
-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp -m comment --comment \"a/b:other\" -m tcp --dport 30081 -j KUBE-EXT-A
-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp -m comment --comment \"a/b:http\" -m tcp --dport 30080 -j KUBE-EXT-A
-A KUBE-NODEPORTS -p tcp -m comment --comment \"a/b:more\" -m tcp --dport 30082 -j KUBE-EXT-O
-A KUBE-NODEPORTS -p tcp -m comment --comment \"a/b:http\" -m tcp --dport 30080 -j KUBE-EXT-A
-A KUBE-EXT-A -s 10.42.0.0/16 -m comment --comment \"pod traffic\" -j KUBE-SVC-A
-A KUBE-EXT-A -m addrtype --src-type LOCAL -j KUBE-SVC-A
-A KUBE-EXT-A -j KUBE-SVL-A
-A KUBE-SVL-A -m comment --comment \"a/b:http -> 10.42.0.9:10080\" -j KUBE-SEP-A
-A KUBE-SEP-A -s 10.42.0.9/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.42.0.9:10080
";

    #[test]
    fn the_path_of_an_outside_client_ends_at_the_pod() {
        let path = node_port(NAT, 30080).unwrap();
        assert_eq!(path.targets, ["10.42.0.9:10080"]);
        assert_eq!(path.rules.len(), 4, "{:#?}", path.rules);
        assert!(
            !path
                .rules
                .iter()
                .any(|rule| rule.contains("KUBE-SVC-A") || rule.contains("127.0.0.0"))
        );
    }

    #[test]
    fn a_missing_port_and_a_dead_end_are_errors() {
        assert!(node_port(NAT, 30090).is_err());
        // For the node itself alone.
        assert!(node_port(NAT, 30081).is_err());
        assert!(node_port(NAT, 30082).is_err());
    }
}
