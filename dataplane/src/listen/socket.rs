//! Listening sockets: their options, and nothing of what comes in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps until they are accepted; it cuts this down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Bytes of datagrams that the kernel keeps in each direction; it cuts this down to its limits.
const DATAGRAMS: usize = 1 << 20;

/// A listening TCP socket. Several may be bound to one port: the kernel spreads connections over them.
pub(super) fn tcp(bind: IpAddr, port: u16) -> io::Result<std::net::TcpListener> {
    let socket = open(bind, port, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A UDP socket. Several may be bound to one port: the kernel gives each client's datagrams to the same one.
pub(super) fn udp(bind: IpAddr, port: u16) -> io::Result<std::net::UdpSocket> {
    let socket = open(bind, port, Type::DGRAM, Protocol::UDP)?;
    // Only a matter of loss under load.
    let _ = socket.set_recv_buffer_size(DATAGRAMS);
    let _ = socket.set_send_buffer_size(DATAGRAMS);
    Ok(socket.into())
}

fn open(bind: IpAddr, port: u16, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    match bound(bind, port, kind, protocol) {
        // A host without IPv6 still has "any address".
        Err(error) if bind.is_unspecified() && bind.is_ipv6() && no_ipv6(&error) => {
            bound(Ipv4Addr::UNSPECIFIED.into(), port, kind, protocol)
        }
        other => other,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT, EADDRNOTAVAIL
    matches!(error.raw_os_error(), Some(97 | 99))
}

fn bound(bind: IpAddr, port: u16, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let address = SocketAddr::new(bind, port);
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
