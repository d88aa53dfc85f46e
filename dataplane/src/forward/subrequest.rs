//! Calls of the proxy's own: to authorizers, key sets, identity providers, rate limit services, processors, collectors; and
//! the beginning of mirrored requests.
//!
//! Owns the choice of whom to ask, the tries and their bounds. What a backend asks of connections (how endpoints are chosen,
//! how many there may be at once, what their failures say of their health) holds for these calls as for any.

mod exchange;
mod failed;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, request};
use tokio::time::Instant;

pub(super) use self::exchange::Answer;
use self::exchange::finish;
pub(super) use self::failed::Failed;
use super::ahead;
use super::upstream::{BodyKind, Upstream};
use crate::own_calls::OwnCalls;
use crate::retry::Retry;
use crate::telemetry::metrics::BackendActive;
use crate::upstream::ahead::Counted;
use crate::upstream::breaker::Permit;
use crate::upstream::connect::{Version, Wants, connect};
use crate::upstream::{Active, Ask, Backend, Balancer, ConnectError, Outcome, Slot};
use crate::worker::Worker;

/// How a call is made.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// The HTTP version.
    pub(crate) version: Version,
    /// Bound on all tries together.
    pub(crate) timeout: Duration,
    /// Whose request it is made for, if a backend chooses endpoints by that.
    pub(crate) client: Option<IpAddr>,
}

/// A try that has begun.
pub(super) struct Begun {
    pub(super) up: Upstream,
    /// Counts as under way until it is dropped.
    pub(super) active: Active,
    /// How long nothing of the answer may come.
    pub(super) idle: Option<Duration>,
    backend: Arc<Backend>,
    at: std::time::Instant,
    _permit: Option<Permit>,
    _counted: BackendActive,
    _ahead: Option<Box<Counted>>,
}

impl Begun {
    /// Notes the status of the answer; `None`: there is none.
    pub(super) fn report(&self, status: Option<u16>) {
        let outcome = status.map_or(Outcome::Failed, Outcome::Status);
        self.backend.report(&self.active, outcome);
        let metrics = &self.backend.metrics;
        metrics.request(status.unwrap_or_default(), self.at.elapsed());
    }
}

/// Sends a request and reads the response.
pub(super) async fn call(
    worker: &Arc<Worker>,
    slot: &Slot,
    request: http::Request<Bytes>,
    how: Call,
) -> Result<Answer, String> {
    let (head, body) = request.into_parts();
    let kind = if body.is_empty() {
        BodyKind::Empty
    } else {
        BodyKind::Length
    };
    let mut tries = Tries::new(worker, slot, &head, kind, how).map_err(|e| e.to_string())?;
    loop {
        let until = tries.until();
        let answered = match tries.begin(until).await {
            Ok(begun) => finish(worker, begun, &body, until).await,
            Err(failed) => Err(failed),
        };
        let worth = |retry: &Retry| match &answered {
            Ok(answer) => retry.covers(&answer.head),
            Err(failed) => failed.is_covered(retry),
        };
        if !tries.again(worth).await {
            return answered.map_err(|failed| failed.to_string());
        }
    }
}

/// Begins a call whose messages come and go one by one.
pub(super) async fn stream(
    worker: &Arc<Worker>,
    slot: &Slot,
    head: &request::Parts,
    how: Call,
) -> Result<Begun, Failed> {
    let mut tries = Tries::new(worker, slot, head, BodyKind::Stream, how)?;
    loop {
        let begun = tries.begin(tries.until()).await;
        let worth = |retry: &Retry| begun.as_ref().is_err_and(|failed| failed.is_covered(retry));
        if !tries.again(worth).await {
            return begun;
        }
    }
}

/// The tries of one call.
struct Tries<'c> {
    worker: &'c Arc<Worker>,
    named: Arc<Backend>,
    head: &'c request::Parts,
    body: BodyKind,
    how: Call,
    deadline: Instant,
    retries: u32,
    tried: Vec<SocketAddr>,
    /// Where the last try went.
    backend: Option<Arc<Backend>>,
    /// Where tries go since they have turned to another priority.
    beyond: Option<Arc<Backend>>,
    /// Held by a retry if retries are bounded.
    permit: Option<Permit>,
}

impl<'c> Tries<'c> {
    fn new(
        worker: &'c Arc<Worker>,
        slot: &Slot,
        head: &'c request::Parts,
        body: BodyKind,
        how: Call,
    ) -> Result<Self, Failed> {
        Ok(Self {
            worker,
            named: slot.load().ok_or(Failed::NoBackend)?,
            head,
            body,
            how,
            deadline: Instant::now() + how.timeout,
            retries: 0,
            tried: Vec::new(),
            backend: None,
            beyond: None,
            permit: None,
        })
    }

    fn own(&self) -> Option<&OwnCalls> {
        self.named.own_calls.as_deref()
    }

    fn retry(&self) -> Option<&Retry> {
        self.own()?.retry.as_ref()
    }

    fn idle(&self) -> Option<Duration> {
        self.own()?.idle
    }

    /// When the try that begins now has to be over.
    fn until(&self) -> Instant {
        let bound = self.retry().and_then(|retry| retry.per_try_timeout);
        bound.map_or(self.deadline, |bound| self.deadline.min(Instant::now() + bound))
    }

    /// Connects to an endpoint and sends the head.
    async fn begin(&mut self, until: Instant) -> Result<Begun, Failed> {
        let backend = tokio::time::timeout_at(until, self.destination()).await;
        let backend = backend.unwrap_or(Err(Failed::Timeout))?;
        self.backend = Some(Arc::clone(&backend));
        let active = self.pick(&backend).ok_or(Failed::NoEndpoint)?;
        self.tried.push(active.endpoint().address());
        let permit = backend.breaker.as_ref().map(|breaker| breaker.request());
        let permit = permit.transpose().map_err(|_| {
            backend.metrics.overflow();
            Failed::Overflow
        })?;
        let (at, counted) = (std::time::Instant::now(), backend.metrics.active());
        let ahead = ahead::look(self.worker, &backend, &active, self.how.version);
        let opening = open(
            self.worker,
            &backend,
            &active,
            self.head,
            self.body,
            self.how.version,
        );
        match tokio::time::timeout_at(until, opening).await {
            Ok(Ok(up)) => Ok(Begun {
                up,
                active,
                idle: self.idle(),
                backend,
                at,
                _permit: permit,
                _counted: counted,
                _ahead: ahead,
            }),
            outcome => {
                let failed =
                    outcome.map_or(Failed::Timeout, |opened| opened.err().unwrap_or(Failed::Timeout));
                backend.metrics.request(0, at.elapsed());
                match &failed {
                    Failed::Connect(ConnectError::Overflow) => backend.metrics.overflow(),
                    Failed::Connect(_) => {
                        active.endpoint().eject();
                        backend.report(&active, Outcome::Failed);
                    }
                    _ => backend.report(&active, Outcome::Failed),
                }
                Err(failed)
            }
        }
    }

    /// The backend that the next try goes to.
    async fn destination(&self) -> Result<Arc<Backend>, Failed> {
        let chosen = match (&self.beyond, self.own()) {
            (Some(beyond), _) => Arc::clone(beyond),
            (None, Some(own)) => own.draw(&self.named).ok_or(Failed::NoBackend)?,
            (None, None) => Arc::clone(&self.named),
        };
        let Some(dynamic) = &chosen.dynamic else {
            return Ok(chosen);
        };
        let host = self
            .head
            .headers
            .get(HOST)
            .map_or(&b""[..], HeaderValue::as_bytes);
        let found = Box::pin(dynamic.destination(&chosen, host)).await;
        found.map_err(|refused| Failed::Destination(refused.to_string()))
    }

    fn pick(&self, backend: &Backend) -> Option<Active> {
        let hashing = backend.balancer.as_ref().and_then(Balancer::hashing);
        backend.pick(Ask {
            tried: &self.tried,
            hash: hashing.and_then(|hashing| hashing.hash_call(self.head, self.how.client)),
            headers: Some(&self.head.headers),
        })
    }

    /// After a try: pauses if there is to be another one, which is so if `worth` says of the settings that they ask for it.
    async fn again(&mut self, worth: impl FnOnce(&Retry) -> bool) -> bool {
        let retries = self.retries;
        let Some(retry) = self
            .retry()
            .filter(|retry| retries < retry.attempts && worth(retry))
        else {
            return false;
        };
        let at = Instant::now() + retry.pause(retries + 1);
        if at >= self.deadline {
            return false;
        }
        let turns = retry.per_priority != 0 && (retries + 1).is_multiple_of(retry.per_priority);
        let other = self.own().zip(self.backend.as_ref().filter(|_| turns));
        if let Some(other) = other.and_then(|(own, backend)| own.beyond(backend)) {
            self.beyond = Some(other);
        }
        if let Some(backend) = self.backend.take() {
            self.permit = None;
            if let Some(breaker) = &backend.breaker {
                let Ok(permit) = breaker.retry() else {
                    backend.metrics.overflow();
                    return false;
                };
                self.permit = Some(permit);
            }
            backend.metrics.retry();
        }
        self.retries += 1;
        tokio::time::sleep_until(at).await;
        true
    }
}

async fn open(
    worker: &Worker,
    backend: &Backend,
    active: &Active,
    head: &request::Parts,
    body: BodyKind,
    version: Version,
) -> Result<Upstream, Failed> {
    let wants = Wants {
        fresh: false,
        raw: false,
        version,
        client: None,
    };
    let connected = connect(&worker.pool, backend, active, wants)
        .await
        .map_err(Failed::Connect)?;
    let tls = backend.tls.is_some();
    Ok(Upstream::start(connected, head, body, None::<&HeaderValue>, tls)?)
}

/// Connects and begins a mirrored request: nobody waits for it as a client does, so there is no upgrade and no retry.
pub(super) async fn mirror(
    worker: &Worker,
    backend: &Backend,
    active: &Active,
    head: &request::Parts,
    body: BodyKind,
    version: Version,
) -> Result<Upstream, String> {
    open(worker, backend, active, head, body, version)
        .await
        .map_err(|failed| failed.to_string())
}

/// Tells a collector something; it has to say that it has taken it.
pub(crate) async fn tell(
    worker: &Arc<Worker>,
    slot: &Slot,
    request: http::Request<Bytes>,
    how: Call,
) -> Result<(), String> {
    let grpc = how.version == Version::Http2;
    let answer = call(worker, slot, request, how).await?;
    if !answer.head.status.is_success() {
        return Err(format!("status {}", answer.head.status));
    }
    let status = answer
        .trailers
        .get("grpc-status")
        .or_else(|| answer.head.headers.get("grpc-status"));
    match status {
        Some(status) if status != "0" => Err(format!("grpc-status {status:?}")),
        None if grpc => Err("no grpc-status".into()),
        _ => Ok(()),
    }
}
