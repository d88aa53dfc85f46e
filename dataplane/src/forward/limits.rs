//! Bounds in time on a request, and why it is cut short.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::downstream::{Downstream, Gone};
use super::reply::Reply;
use super::upstream::{Broken, Failure};
use crate::listen::Client;

/// Why an exchange ended early.
pub enum Stop {
    /// The client went away.
    Client(Gone),
    /// The backend failed.
    Upstream(Failure),
    /// The route's request timeout.
    RequestTimeout,
    /// The route's backend request timeout.
    TryTimeout,
    /// Nothing moved for long.
    Stalled,
    /// The bound on request and response together.
    StreamTimeout,
    /// The client takes too long to send its request.
    ReceiveTimeout,
    /// A processor has answered in the backend's place, or cannot be asked.
    Answer(Box<Reply>),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Upstream(failure) => Self::Upstream(failure),
            Broken::Downstream(gone) => Self::Client(gone),
        }
    }
}

/// A point in time that can be polled.
pub struct Deadline(Pin<Box<Sleep>>);

impl Deadline {
    /// After this long.
    pub fn after(duration: Duration) -> Self {
        Self(Box::pin(tokio::time::sleep(duration)))
    }

    /// Starts anew.
    pub fn reset(&mut self, duration: Duration) {
        // A deadline beyond what the clock can say is none.
        if let Some(at) = Instant::now().checked_add(duration) {
            self.0.as_mut().reset(at);
        }
    }

    /// True once the time has come.
    pub fn has_passed(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.as_mut().poll(cx).is_ready()
    }
}

/// Bounds on an exchange.
#[derive(Default)]
pub struct Limits {
    /// For all tries together.
    pub request: Option<Deadline>,
    /// For this try.
    pub attempt: Option<Deadline>,
    /// For request and response together, tunnels included.
    pub stream: Option<Deadline>,
    /// How long nothing may move; `None`: the default, zero: no bound.
    pub idle: Option<Duration>,
    /// For the client to have sent its request.
    pub received: Option<Deadline>,
}

impl Limits {
    /// Takes over what a listener asks for, where the rule has said nothing; `empty` says that the request has no body.
    pub fn adopt(&mut self, client: &Client, empty: bool) {
        let life = client.connections.max_stream_duration_ms;
        if life != 0 && self.stream.is_none() {
            self.stream = Some(Deadline::after(Duration::from_millis(life)));
        }
        self.idle = self.idle.or(client.timeouts.stream_idle);
        let received = client.timeouts.request_received.filter(|bound| !bound.is_zero());
        self.received = received.filter(|_| !empty).map(Deadline::after);
    }

    /// Says which bound has been reached, if one has.
    ///
    /// # Errors
    /// That one.
    pub fn check(&mut self, cx: &mut Context<'_>) -> Result<(), Stop> {
        if self
            .request
            .as_mut()
            .is_some_and(|deadline| deadline.has_passed(cx))
        {
            return Err(Stop::RequestTimeout);
        }
        if self
            .attempt
            .as_mut()
            .is_some_and(|deadline| deadline.has_passed(cx))
        {
            return Err(Stop::TryTimeout);
        }
        if self
            .stream
            .as_mut()
            .is_some_and(|deadline| deadline.has_passed(cx))
        {
            return Err(Stop::StreamTimeout);
        }
        if self
            .received
            .as_mut()
            .is_some_and(|deadline| deadline.has_passed(cx))
        {
            return Err(Stop::ReceiveTimeout);
        }
        Ok(())
    }

    /// Runs `future` within the bounds, and only while the client is there.
    pub async fn bound<T>(
        &mut self,
        down: &mut Downstream,
        future: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.check(cx)?;
            if down.body_is_empty()
                && let Poll::Ready(gone) = down.poll_gone(cx)
            {
                return Poll::Ready(Err(Stop::Client(gone)));
            }
            Poll::Pending
        })
        .await
    }
}
