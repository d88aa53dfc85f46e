//! Which port of the pod each listener's port is bound as.

use std::collections::{BTreeMap, BTreeSet};

/// The proxy's own port for probes and metrics.
const ADMIN: u16 = 19001;
/// Ports below are privileged.
const UNPRIVILEGED: u16 = 1024;
/// What is added, as often as needed, to a port that cannot be bound as it is.
const STEP: u16 = 10_000;

/// A port of one transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// As clients know it.
    pub number: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// The port that each is bound as: its own, but 10000 above it (20000 and so on if that is taken) for privileged ports
/// and for the proxy's own one. Ports that find no place are missing.
pub fn bind(ports: &BTreeSet<Port>) -> BTreeMap<Port, u16> {
    let as_is = |port: &Port| port.number >= UNPRIVILEGED && (port.udp || port.number != ADMIN);
    let mut bound: BTreeMap<Port, u16> = ports
        .iter()
        .filter(|port| as_is(port))
        .map(|port| (*port, port.number))
        .collect();
    let mut taken: BTreeSet<(bool, u16)> = bound.iter().map(|(port, number)| (port.udp, *number)).collect();
    taken.insert((false, ADMIN));
    for port in ports.iter().filter(|port| !as_is(port)) {
        let mut candidates = (1..=6).filter_map(|times| port.number.checked_add(STEP * times));
        if let Some(number) = candidates.find(|number| !taken.contains(&(port.udp, *number))) {
            taken.insert((port.udp, number));
            bound.insert(*port, number);
        }
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(ports: &[(u16, bool)]) -> Vec<(u16, u16)> {
        let ports = ports
            .iter()
            .map(|(number, udp)| Port {
                number: *number,
                udp: *udp,
            })
            .collect();
        bind(&ports)
            .into_iter()
            .map(|(port, number)| (port.number, number))
            .collect()
    }

    #[test]
    fn privileged_ports_move_up() {
        assert_eq!(bound(&[(80, false), (8080, false)]), [(80, 10080), (8080, 8080)]);
    }

    #[test]
    fn what_is_taken_is_left_alone() {
        assert_eq!(
            bound(&[(80, false), (10080, false)]),
            [(80, 20080), (10080, 10080)]
        );
        assert_eq!(
            bound(&[(80, false), (10080, true)]),
            [(80, 10080), (10080, 10080)]
        );
        assert_eq!(bound(&[(ADMIN, false)]), [(ADMIN, 29001)]);
    }
}
