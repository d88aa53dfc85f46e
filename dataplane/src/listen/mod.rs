//! Sockets towards clients. (Skeleton.)

use std::net::IpAddr;
use std::sync::Arc;

use crate::route;
use crate::wire::Wire;
use crate::worker::{Worker, WorkerHandle};

/// A connection that speaks HTTP, ready to be served.
pub struct Connection {
    /// The stream.
    pub wire: Wire,
    /// True if TLS agreed on HTTP/2.
    pub alpn_h2: bool,
    /// Set if the client spoke TLS.
    pub tls: Option<Arc<TlsSession>>,
    /// Where it came in.
    pub port: Arc<route::Port>,
    /// Who serves it.
    pub worker: Arc<Worker>,
}

/// What TLS says about a connection.
#[derive(Debug)]
pub struct TlsSession {
    /// The name that the client asked for, lower case.
    pub sni: Option<Box<str>>,
    /// The listener whose certificate was served.
    pub listener: Arc<route::Listener>,
}

/// Opens sockets.
pub struct Sockets;

impl Sockets {
    /// Opens sockets on these workers.
    pub fn new(_bind: IpAddr, _workers: Vec<WorkerHandle>) -> Self {
        Self
    }
}

impl crate::state::Bind for Sockets {}
