//! Which Gateway has which port: in a cluster each has an address of its own, here all share one.

use std::collections::{BTreeMap, BTreeSet};

use sluice_config::v1;
use sluice_controller::engine::GatewayRef;

/// A port, and whether it is UDP's.
type Port = (u32, bool);

/// The ports in use.
#[derive(Debug, Default)]
pub(super) struct Ports(BTreeMap<Port, (GatewayRef, BTreeSet<String>)>);

impl Ports {
    /// Claims the ports of a listener, HTTP/3's among them; gives the Gateway that has one of them if it is another.
    pub(super) fn claim(
        &mut self,
        gateway: &GatewayRef,
        key: &str,
        listener: &v1::Listener,
    ) -> Result<(), GatewayRef> {
        let ports = of(listener);
        // A listener that moves gives up its old ports.
        self.0.retain(|held, (owner, keys)| {
            if !ports.contains(held) && owner == gateway {
                keys.remove(key);
            }
            !keys.is_empty()
        });
        let mut owners = ports.iter().filter_map(|port| Some(&self.0.get(port)?.0));
        if let Some(other) = owners.find(|owner| *owner != gateway) {
            return Err(other.clone());
        }
        for port in ports {
            let (_, keys) = self
                .0
                .entry(port)
                .or_insert_with(|| (gateway.clone(), BTreeSet::new()));
            keys.insert(key.to_owned());
        }
        Ok(())
    }

    /// Gives up what a listener had.
    pub(super) fn release(&mut self, gateway: &GatewayRef, key: &str) {
        self.0.retain(|_, (owner, keys)| {
            if owner == gateway {
                keys.remove(key);
            }
            !keys.is_empty()
        });
    }
}

fn of(listener: &v1::Listener) -> BTreeSet<Port> {
    let own = (listener.bind_port, listener.protocol() == v1::Protocol::Udp);
    let has_http3 = listener.client.as_ref().is_some_and(|client| client.http3);
    let quic = match listener.http3_bind_port {
        0 => listener.bind_port,
        port => port,
    };
    let quic = has_http3.then_some((quic, true));
    [own].into_iter().chain(quic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_gateway() {
        let (a, b) = (GatewayRef::new("x", "a"), GatewayRef::new("x", "b"));
        let listener = |port| v1::Listener {
            bind_port: port,
            protocol: v1::Protocol::Http.into(),
            ..Default::default()
        };
        let udp = v1::Listener {
            bind_port: 80,
            protocol: v1::Protocol::Udp.into(),
            ..Default::default()
        };
        let mut ports = Ports::default();
        assert_eq!(ports.claim(&a, "one", &listener(80)), Ok(()));
        assert_eq!(ports.claim(&a, "two", &listener(80)), Ok(()));
        assert_eq!(ports.claim(&b, "one", &listener(80)), Err(a.clone()));
        assert_eq!(ports.claim(&b, "udp", &udp), Ok(()));
        ports.release(&a, "one");
        assert_eq!(ports.claim(&b, "one", &listener(80)), Err(a.clone()));
        assert_eq!(ports.claim(&a, "two", &listener(81)), Ok(()));
        assert_eq!(ports.claim(&b, "one", &listener(80)), Ok(()));
        // HTTP/3 has the UDP port.
        let http3 = v1::Listener {
            client: Some(v1::ClientSettings {
                http3: true,
                ..Default::default()
            }),
            ..listener(443)
        };
        let udp = v1::Listener {
            bind_port: 443,
            ..udp
        };
        assert_eq!(ports.claim(&a, "https", &http3), Ok(()));
        assert_eq!(ports.claim(&b, "dns", &udp), Err(a.clone()));
        assert_eq!(ports.claim(&a, "https", &listener(443)), Ok(()));
        assert_eq!(ports.claim(&b, "dns", &udp), Ok(()));
        assert_eq!(ports.claim(&a, "https", &http3), Err(b));
    }
}
