//! UDP: datagrams of one client go to one endpoint through a socket of their own, so that the answers find back.
//!
//! A datagram that cannot be sent at once is dropped, as any network would; no session waits for another.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use socket2::SockRef;
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::sessions::Sessions;
use super::{L4Route, log};
use crate::telemetry::ListenerMetrics;
use crate::telemetry::metrics::{BackendActive, ListenerConnection};
use crate::upstream::{Active, Ask, Backend, Balancer, Endpoint, EndpointSet, Slot};
use crate::worker::Worker;

/// A session on which nothing moves for this long is ended; Envoy's default.
const IDLE: Duration = Duration::from_mins(1);
/// Sessions of one listener on one worker. Each takes a socket.
const SESSIONS: usize = 10_000;
/// The largest datagram.
const DATAGRAM: usize = 65_535;
/// Datagrams that are taken from one socket before others have their turn.
const BURST: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM]);
}

/// Serves a listener's socket until `stop`. Without a route datagrams are dropped.
pub async fn udp(
    socket: Arc<UdpSocket>,
    listener: Arc<str>,
    route: Arc<ArcSwapOption<L4Route>>,
    worker: Arc<Worker>,
    stop: CancellationToken,
) {
    let metrics = worker.shared.metrics.listener(&listener);
    let (ended, mut endings) = mpsc::unbounded_channel();
    let mut server = Server {
        socket,
        listener,
        metrics,
        worker,
        sessions: Sessions::new(SESSIONS),
        ended,
        exhausted: false,
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // The server holds a sender itself, so there is always one.
            Some((client, id)) = endings.recv() => server.sessions.remove(client, id),
            readable = server.socket.readable() => match readable {
                Ok(()) => server.receive(route.load_full().as_ref()),
                Err(error) => {
                    tracing::warn!(listener = %server.listener, %error, "UDP socket failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

struct Server {
    socket: Arc<UdpSocket>,
    listener: Arc<str>,
    metrics: Arc<ListenerMetrics>,
    worker: Arc<Worker>,
    sessions: Sessions<Session>,
    /// How the task of a session says that it has ended.
    ended: mpsc::UnboundedSender<(SocketAddr, u64)>,
    /// No socket could be had for the last new session; said once.
    exhausted: bool,
}

/// The way to a session's endpoint. Dropping it ends the session.
struct Session {
    flow: Arc<Flow>,
    endpoint: Arc<Endpoint>,
    slot: Arc<Slot>,
    route: Arc<L4Route>,
    endpoints: Arc<EndpointSet>,
    _stop: tokio_util::sync::DropGuard,
}

/// What a session's two directions share.
struct Flow {
    upstream: UdpSocket,
    client: SocketAddr,
    endpoint: SocketAddr,
    began: Instant,
    /// Milliseconds after `began` at which the client last sent something.
    last: AtomicU64,
    from_client: AtomicU64,
}

impl Server {
    /// Takes the datagrams that are there.
    fn receive(&mut self, route: Option<&Arc<L4Route>>) {
        let socket = Arc::clone(&self.socket);
        SCRATCH.with_borrow_mut(|scratch| {
            for _ in 0..BURST {
                // An error of an earlier send may be reported here; the next try has the next datagram.
                match socket.try_recv_from(scratch) {
                    Ok((n, client)) => self.forward(route, client, &scratch[..n]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    Err(_) => {}
                }
            }
        });
    }

    fn forward(&mut self, route: Option<&Arc<L4Route>>, client: SocketAddr, datagram: &[u8]) {
        self.metrics.received(datagram.len() as u64);
        let Some(route) = route else {
            self.sessions.end(client);
            return self.metrics.dropped();
        };
        if self
            .sessions
            .touch(client)
            .is_some_and(|session| !session.is_current(route))
        {
            self.sessions.end(client);
        }
        if self.sessions.touch(client).is_none() && !self.open(route, client) {
            return self.metrics.dropped();
        }
        let Some(session) = self.sessions.touch(client) else {
            return;
        };
        let sent = match session.send(datagram) {
            // Nobody was there for an earlier datagram; this one has not been sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                session.endpoint.eject();
                self.sessions.end(client);
                let again = self
                    .open(route, client)
                    .then(|| self.sessions.touch(client))
                    .flatten();
                again.map_or(Err(error), |session| session.send(datagram))
            }
            sent => sent,
        };
        if sent.is_err() {
            self.metrics.dropped();
        }
    }

    /// Opens a session; false if there is nobody to talk to, or no socket for it.
    fn open(&mut self, route: &Arc<L4Route>, client: SocketAddr) -> bool {
        if !route.admits(client.ip()) {
            return false;
        }
        let Some(slot) = route.pick() else { return false };
        let Some(backend) = slot.load() else { return false };
        let endpoints = backend.endpoints.load_full();
        let hashing = backend.balancer.as_ref().and_then(Balancer::hashing);
        let ask = Ask {
            hash: hashing.and_then(|hashing| hashing.hash_connection(client.ip())),
            ..Ask::default()
        };
        let Some(active) = backend.pick(ask) else {
            return false;
        };
        let endpoint = Arc::clone(active.endpoint());
        let upstream = match connect(endpoint.address()) {
            Ok(upstream) => upstream,
            Err(error) => {
                backend.metrics.connect_failure();
                self.no_socket(endpoint.address(), &error);
                return false;
            }
        };
        self.exhausted = false;
        route.metrics.connection();
        backend.metrics.connected();
        let flow = Arc::new(Flow {
            upstream,
            client,
            endpoint: endpoint.address(),
            began: Instant::now(),
            last: AtomicU64::new(0),
            from_client: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let back = Back {
            flow: Arc::clone(&flow),
            socket: Arc::clone(&self.socket),
            route: Arc::clone(route),
            counted: backend.metrics.active(),
            connection: self.metrics.connection(),
            backend,
            active,
            worker: Arc::clone(&self.worker),
            began: SystemTime::now(),
        };
        let (ended, id) = (self.ended.clone(), self.sessions.next_id());
        tokio::spawn(back.run(stop.clone(), move || {
            // Nobody listens any more once the listener is gone.
            let _ = ended.send((client, id));
        }));
        self.sessions.insert(
            client,
            Session {
                flow,
                endpoint,
                slot: Arc::clone(slot),
                route: Arc::clone(route),
                endpoints,
                _stop: stop.drop_guard(),
            },
        );
        true
    }

    fn no_socket(&mut self, endpoint: SocketAddr, error: &io::Error) {
        if !std::mem::replace(&mut self.exhausted, true) {
            tracing::warn!(
                listener = %self.listener, %endpoint, %error,
                "no socket for a new UDP session: its datagrams are dropped"
            );
        }
        self.sessions.evict();
    }
}

impl Session {
    /// False if the endpoint is gone, or the route does not lead to the backend any more.
    fn is_current(&mut self, route: &Arc<L4Route>) -> bool {
        if !Arc::ptr_eq(&self.route, route) && !route.contains(&self.slot) {
            return false;
        }
        let Some(backend) = self.slot.load() else {
            return false;
        };
        let now = backend.endpoints.load_full();
        if Arc::ptr_eq(&self.endpoints, &now) {
            return true;
        }
        let found = now.find(self.flow.endpoint).is_some();
        self.endpoints = now;
        found
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let flow = &self.flow;
        flow.touch();
        flow.from_client
            .fetch_add(datagram.len() as u64, Ordering::Relaxed);
        // Straight to the kernel: a socket that the runtime has not polled yet counts as not writable there.
        SockRef::from(&flow.upstream).send(datagram).map(drop)
    }
}

impl Flow {
    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn idle_at(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed)) + IDLE
    }
}

/// The way back to the client, a task for each session.
struct Back {
    flow: Arc<Flow>,
    socket: Arc<UdpSocket>,
    route: Arc<L4Route>,
    backend: Arc<Backend>,
    active: Active,
    counted: BackendActive,
    connection: ListenerConnection,
    worker: Arc<Worker>,
    began: SystemTime,
}

impl Back {
    async fn run(self, stop: CancellationToken, ended: impl FnOnce() + Send) {
        let mut sent = 0;
        let (flags, error) = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break ("", None),
                ready = self.flow.upstream.ready(Interest::READABLE | Interest::ERROR) => {
                    match ready.and_then(|ready| self.receive(ready)) {
                        Ok(bytes) => {
                            sent += bytes;
                            self.flow.touch();
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => {
                            // Nobody is there: the next datagram of this client looks for another endpoint.
                            self.active.endpoint().eject();
                            self.backend.metrics.connect_failure();
                            break ("UF", Some(error.to_string()));
                        }
                    }
                    tokio::task::yield_now().await;
                }
                () = sleep_until(self.flow.idle_at()) => {
                    if Instant::now() >= self.flow.idle_at() {
                        break ("", None);
                    }
                }
            }
        };
        ended();
        self.log(sent, flags, error.as_deref());
        drop((self.counted, self.connection));
    }

    /// Passes on the datagrams that are there; gives their bytes.
    fn receive(&self, ready: Ready) -> io::Result<u64> {
        let upstream = &self.flow.upstream;
        if ready.is_error() {
            // The kernel says so on its own, not by way of a read, that nobody is there.
            if let Some(error) = SockRef::from(upstream).take_error()? {
                return Err(error);
            }
            // A send was told already. Wait for the next error.
            let _ = upstream.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut bytes = 0;
            for i in 0..BURST {
                let n = match upstream.try_recv(scratch) {
                    Ok(n) => n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && i > 0 => break,
                    Err(error) => return Err(error),
                };
                if SockRef::from(&*self.socket)
                    .send_to(&scratch[..n], &self.flow.client.into())
                    .is_err()
                {
                    self.connection.listener().dropped();
                }
                self.connection.listener().sent(n as u64);
                bytes += n as u64;
            }
            Ok(bytes)
        })
    }

    fn log(&self, sent: u64, flags: &'static str, error: Option<&str>) {
        let Ok(downstream_local) = self.socket.local_addr() else {
            return;
        };
        log::write(
            &self.worker,
            &log::Line {
                route: &self.route,
                began: self.began,
                flags,
                details: "",
                transport_failure: error,
                from_client: self.flow.from_client.load(Ordering::Relaxed),
                from_backend: sent,
                endpoint: Some(self.flow.endpoint),
                backend: Some(&self.backend.name),
                upstream_local: self.flow.upstream.local_addr().ok(),
                downstream_local,
                peer: self.flow.client,
                server_name: None,
            },
        );
    }
}

/// A socket that sends to `endpoint` and hears only it.
fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match endpoint {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(endpoint)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
