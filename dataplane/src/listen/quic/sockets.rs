//! The UDP sockets of a port, one a worker, opened together: the kernel spreads clients over the sockets that there are,
//! and one that comes later is given datagrams of connections that others have.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};

use crate::listen::socket;

/// The sockets of one port.
pub(in crate::listen) struct Sockets {
    bind: IpAddr,
    /// By worker.
    slots: Mutex<Vec<Slot>>,
}

enum Slot {
    Closed,
    /// Open at this port; its worker has not come for it yet. Until then the kernel keeps what arrives.
    Spare(u16, UdpSocket),
    /// Its worker has it.
    Held,
}

impl Sockets {
    /// None is open.
    pub(in crate::listen) fn new(bind: IpAddr, workers: usize) -> Self {
        let slots = (0..workers).map(|_| Slot::Closed).collect();
        Self {
            bind,
            slots: Mutex::new(slots),
        }
    }

    /// The socket of a worker at this port. The first that comes opens those of the others as well.
    ///
    /// # Errors
    /// If one cannot be had.
    pub(super) fn acquire(&self, worker: usize, port: u16) -> io::Result<UdpSocket> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = None;
        for (of, slot) in slots.iter_mut().enumerate() {
            match slot {
                Slot::Held if of != worker => continue,
                Slot::Spare(at, _) if *at == port => {}
                _ => *slot = Slot::Spare(port, socket::udp(self.bind, port)?),
            }
            if of == worker
                && let Slot::Spare(_, socket) = std::mem::replace(slot, Slot::Held)
            {
                own = Some(socket);
            }
        }
        own.ok_or_else(|| io::Error::other("no such worker"))
    }

    /// Notes that a worker has closed its socket.
    pub(super) fn release(&self, worker: usize) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(worker) {
            *slot = Slot::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn local() -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    #[test]
    fn they_are_opened_together() {
        // Held, so that nobody else is given the port.
        let held = socket::udp(local(), 0).unwrap();
        let port = held.local_addr().unwrap().port();
        let sockets = Sockets::new(local(), 3);
        let first = sockets.acquire(1, port).unwrap();
        assert_eq!(first.local_addr().unwrap().port(), port);
        let states = |sockets: &Sockets| -> Vec<&'static str> {
            let slots = sockets.slots.lock().unwrap();
            let state = |slot: &Slot| match slot {
                Slot::Closed => "closed",
                Slot::Spare(..) => "spare",
                Slot::Held => "held",
            };
            slots.iter().map(state).collect()
        };
        assert_eq!(states(&sockets), ["spare", "held", "spare"]);
        let _second = sockets.acquire(2, port).unwrap();
        assert_eq!(states(&sockets), ["spare", "held", "held"]);
        sockets.release(2);
        sockets.release(0);
        assert_eq!(states(&sockets), ["closed", "held", "closed"]);
        let _again = sockets.acquire(2, port).unwrap();
        assert_eq!(states(&sockets), ["spare", "held", "held"]);
        assert!(sockets.acquire(3, port).is_err());
    }
}
