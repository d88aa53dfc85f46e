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
    /// Claims the port of a listener; gives the Gateway that has it if it is another.
    pub(super) fn claim(
        &mut self,
        gateway: &GatewayRef,
        key: &str,
        listener: &v1::Listener,
    ) -> Result<(), GatewayRef> {
        let port = (listener.bind_port, listener.protocol() == v1::Protocol::Udp);
        // A listener that moves gives up its old port.
        self.0.retain(|held, (owner, keys)| {
            if *held != port && owner == gateway {
                keys.remove(key);
            }
            !keys.is_empty()
        });
        let (owner, keys) = self
            .0
            .entry(port)
            .or_insert_with(|| (gateway.clone(), BTreeSet::new()));
        if owner != gateway {
            return Err(owner.clone());
        }
        keys.insert(key.to_owned());
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
    }
}
