//! Which hostnames a route serves on a listener.
//!
//! Owns the intersection of a listener's hostname with a route's. A wildcard stands for one or more labels.

use std::cmp::Reverse;

/// A hostname that a route serves on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// What both the listener and the route match.
    pub hostname: String,
    /// The route's own hostname that this comes from.
    pub origin: String,
}

/// The hostnames of a route that a listener serves, in the route's order. Empty: all that the listener serves.
/// `None`: there is no common hostname.
pub fn intersect(listener: Option<&str>, route: &[String]) -> Option<Vec<Served>> {
    let mut all = Vec::<Served>::new();
    for hostname in route {
        let origin = hostname.to_ascii_lowercase();
        let Some(common) = common(listener, &origin) else {
            continue;
        };
        match all.iter_mut().find(|served| served.hostname == common) {
            // Two hostnames of the route come to the same here: the more specific one counts.
            Some(served) => {
                if specificity(&origin) > specificity(&served.origin) {
                    served.origin = origin;
                }
            }
            None => all.push(Served {
                hostname: common.to_owned(),
                origin,
            }),
        }
    }
    (route.is_empty() || !all.is_empty()).then_some(all)
}

fn common<'h>(listener: Option<&'h str>, route: &'h str) -> Option<&'h str> {
    let Some(listener) = listener else {
        return Some(route);
    };
    if matches(listener, route) {
        Some(route)
    } else if matches(route, listener) {
        Some(listener)
    } else {
        None
    }
}

/// Whether every host that `narrow` matches is matched by `wide`.
fn matches(wide: &str, narrow: &str) -> bool {
    match wide.strip_prefix('*') {
        // With the dot, so that `*.example.com` takes in `a.example.com` and `*.a.example.com`, not `example.com`.
        Some(suffix) => wide == narrow || (narrow.len() > suffix.len() && narrow.ends_with(suffix)),
        None => wide == narrow,
    }
}

fn specificity(hostname: &str) -> (bool, usize, Reverse<&str>) {
    (!hostname.starts_with('*'), hostname.len(), Reverse(hostname))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The common hostnames, with a space between each.
    fn hostnames(listener: &str, route: &[&str]) -> Option<String> {
        let route: Vec<_> = route.iter().map(|&h| h.to_owned()).collect();
        let listener = Some(listener).filter(|l| !l.is_empty());
        let served = intersect(listener, &route)?;
        Some(
            served
                .into_iter()
                .map(|s| s.hostname)
                .collect::<Vec<_>>()
                .join(" "),
        )
    }

    #[test]
    fn an_exact_listener_takes_itself_and_wildcards_over_it() {
        for (route, expected) in [
            (&[][..], Some("")),
            (&["a.example.com"], Some("a.example.com")),
            (&["*.example.com", "b.example.com"], Some("a.example.com")),
            (&["*.com"], Some("a.example.com")),
            (&["b.example.com", "*.a.example.com", "example.com"], None),
        ] {
            assert_eq!(
                hostnames("a.example.com", route).as_deref(),
                expected,
                "{route:?}"
            );
        }
    }

    #[test]
    fn a_wildcard_listener_takes_what_lies_below_it() {
        for (route, expected) in [
            (
                &["a.example.com", "b.a.example.com"][..],
                Some("a.example.com b.a.example.com"),
            ),
            (&["*.a.example.com"], Some("*.a.example.com")),
            (&["*.com"], Some("*.example.com")),
            (
                &["example.com", "a.example.net", "*.example.net", "badexample.com"],
                None,
            ),
        ] {
            assert_eq!(
                hostnames("*.example.com", route).as_deref(),
                expected,
                "{route:?}"
            );
        }
    }

    #[test]
    fn a_listener_without_hostname_takes_all() {
        assert_eq!(
            hostnames("", &["A.example.com", "*.b.org"]).as_deref(),
            Some("a.example.com *.b.org")
        );
        assert_eq!(hostnames("", &[]).as_deref(), Some(""));
    }

    #[test]
    fn the_most_specific_origin_counts() {
        let route = [
            "*.com".to_owned(),
            "a.example.com".to_owned(),
            "*.example.com".to_owned(),
        ];
        let expected = Served {
            hostname: "a.example.com".to_owned(),
            origin: "a.example.com".to_owned(),
        };
        assert_eq!(intersect(Some("a.example.com"), &route), Some(vec![expected]));
    }
}
