//! The tries of one request: choosing an endpoint, connecting, exchanging, and deciding whether to try again.
//!
//! A request is sent again only if nothing of its response has reached the client and its body is still at hand; and
//! only where the rule says so, or where the backend cannot have seen it.

mod failed;
mod progress;

use std::sync::Arc;
use std::time::Instant;

use http::header::{HeaderValue, SET_COOKIE};
use http::{HeaderMap, StatusCode, request, response};

use self::failed::{Failed, OVERFLOW};
pub(super) use self::progress::is_idempotent;
use self::progress::{Progress, connect_error};
use super::after::{Ending, Lanes};
use super::effects::{Effects, End};
use super::exchange::{Exchange, Flow};
use super::limits::{Deadline, Stop};
use super::record::Record;
use super::reply::Reply;
use super::upstream::{BodyKind, Failure, Upstream};
use super::{Conn, ahead, edge};
use crate::filter::path::UrlRewrite;
use crate::filter::policy::Tunnel;
use crate::filter::session::Session;
use crate::rule::{Retry, Rule};
use crate::telemetry::BackendMetrics;
use crate::upstream::breaker::Permit;
use crate::upstream::connect::{Version, Wants, connect};
use crate::upstream::hashing::Hashed;
use crate::upstream::{Active, Ask, Backend, Balancer, ConnectError, Ends, Outcome};

/// Tries on other endpoints where a connection was refused, if the rule does not speak of retries.
const FREE_RETRIES: u32 = 2;
/// Tries on a new connection where one from the pool turned out to be closed, or a stream was refused.
const STALE_RETRIES: u32 = 3;

/// What is the same for all tries.
pub(super) struct Tries<'a> {
    pub(super) conn: &'a Conn,
    pub(super) rule: &'a Rule,
    pub(super) backend: Arc<Backend>,
    pub(super) upgrade: Option<&'a HeaderValue>,
    /// Set for CONNECT.
    pub(super) tunnel: Option<Tunnel>,
    pub(super) body: BodyKind,
    pub(super) session: Option<Session>,
    /// What the backend hashes of the request.
    pub(super) hashed: Hashed,
    /// The version that the request came in with.
    pub(super) came_with: http::Version,
    /// True if the request may be repeated where it is not known whether it was carried out.
    pub(super) idempotent: bool,
    /// Set: the host becomes the name of the endpoint.
    pub(super) host_of_backend: Option<&'a UrlRewrite>,
}

/// Sends a request until it is answered.
pub(super) async fn run(
    tries: &mut Tries<'_>,
    head: &request::Parts,
    mut flow: Flow<'_>,
    effects: &Effects<'_>,
    record: &mut Record,
) -> Result<(), End> {
    let mut progress = Progress::default();
    if let Some(budget) = &tries.backend.retry_budget {
        budget.request();
    }
    loop {
        if progress.retries > progress.turned {
            progress.turned = progress.retries;
            tries.turn(progress.retries, record);
        }
        let active = tries.pick(&progress, Some(&head.headers))?;
        let _permit = tries.permit()?;
        let _ahead = ahead::look(&tries.conn.worker, &tries.backend, &active, tries.version());
        record.endpoint = Some(Arc::clone(active.endpoint()));
        flow.limits.attempt = tries.rule.backend_request_timeout.map(Deadline::after);
        let began = Instant::now();
        (record.sent, record.attempts) = (Some(began), record.attempts + 1);
        record.begin_try(began);
        let counted = tries.metrics().active();
        let outcome = tries
            .exchange(head, &active, progress.fresh, &mut flow, record)
            .await;
        match outcome {
            Ok((mut response, exchange)) => {
                record.upstream_time = Some(began.elapsed());
                record.note_answer(&response);
                let status = response.status;
                tries.backend.report(&active, Outcome::Status(status.as_u16()));
                if let Some(member) = active.member() {
                    tries.backend.take_load(member, &mut response.headers);
                }
                let again = tries
                    .rule
                    .retry
                    .as_ref()
                    .is_some_and(|retry| retry.covers(&response));
                let repeat = if again {
                    progress.may_repeat(tries, exchange.source)
                } else {
                    Ok(false)
                };
                if !matches!(repeat, Ok(false)) {
                    tries.metrics().request(status.as_u16(), began.elapsed());
                    drop((exchange, counted));
                    record.end_try(tries.conn, head, &flow);
                    repeat?;
                    Box::pin(progress.repeat(tries, &active, &mut flow)).await?;
                    continue;
                }
                tries.judge(Some(&response));
                if let Some(reply) = effects.override_response(&response, false) {
                    tries.metrics().request(status.as_u16(), began.elapsed());
                    drop(exchange);
                    record.end_try(tries.conn, head, &flow);
                    return Err(reply.into());
                }
                let ended = tries.deliver(response, exchange, &active, effects, record).await;
                tries.metrics().request(status.as_u16(), began.elapsed());
                if let Err(End::Stop(stop)) = &ended {
                    record.note_stop(stop);
                }
                record.end_try(tries.conn, head, &flow);
                return ended;
            }
            Err(failed) => {
                tries.metrics().request(0, began.elapsed());
                drop(counted);
                failed.note(record);
                record.end_try(tries.conn, head, &flow);
                if failed.is_of_backend() {
                    tries.backend.report(&active, Outcome::Failed);
                }
                let recovered = tries
                    .recover(failed, &active, &mut progress, &mut flow, record)
                    .await;
                if recovered.is_err() {
                    tries.judge(None);
                }
                recovered?;
            }
        }
    }
}

impl Tries<'_> {
    /// What counts the requests.
    fn metrics(&self) -> &Arc<BackendMetrics> {
        self.rule
            .backend_metrics
            .as_ref()
            .unwrap_or(&self.backend.metrics)
    }

    /// False if the head is not needed a second time, whatever happens.
    fn may_retry(&self) -> bool {
        self.rule.retry.as_ref().is_none_or(|retry| retry.attempts > 0)
    }

    /// Turns to backends of another priority after so many retries, if the rule asks for that.
    fn turn(&mut self, retries: u32, record: &mut Record) {
        let every = self.rule.retry.as_ref().map_or(0, |retry| retry.per_priority);
        if every != 0
            && retries.is_multiple_of(every)
            && let Some(backend) = self.rule.backends.beyond(&self.backend)
        {
            record.backend = Some(Arc::clone(&backend));
            self.backend = backend;
        }
    }

    /// Tells the rule's admission control how the request has ended; `None`: without a response.
    fn judge(&self, response: Option<&response::Parts>) {
        let Some(admission) = self
            .rule
            .extras
            .as_ref()
            .and_then(|extras| extras.admission.as_ref())
        else {
            return;
        };
        let status = response.map_or(StatusCode::SERVICE_UNAVAILABLE, |response| response.status);
        let grpc = response
            .and_then(|response| response.headers.get("grpc-status"))
            .and_then(|status| status.to_str().ok()?.parse().ok());
        admission.report(status, grpc);
    }

    /// True if the rule's word on retries covers something.
    fn covers(&self, what: impl Fn(&Retry) -> bool) -> bool {
        self.rule.retry.as_ref().is_some_and(what)
    }

    fn pick(&self, progress: &Progress, headers: Option<&HeaderMap>) -> Result<Active, Box<Reply>> {
        let bound = self
            .session
            .filter(|_| progress.tried.is_empty())
            .and_then(|session| self.backend.claim(session.endpoint));
        if let Some(active) = bound {
            return Ok(active);
        }
        let ask = Ask {
            tried: &progress.tried,
            hash: self.hashed.key,
            headers,
        };
        self.backend.pick(ask).ok_or_else(|| {
            Reply::error(
                StatusCode::SERVICE_UNAVAILABLE,
                "no healthy upstream",
                "UH",
                "no_healthy_upstream",
            )
            .into()
        })
    }

    /// Room for one more request to the backend, if that is bounded.
    fn permit(&self) -> Result<Option<Permit>, Box<Reply>> {
        let Some(breaker) = &self.backend.breaker else {
            return Ok(None);
        };
        breaker.request().map(Some).map_err(|_| self.overflow().into())
    }

    /// Both ends of the client's connection.
    fn client(&self) -> Ends {
        (self.conn.wire.peer(), self.conn.wire.local())
    }

    /// What the client is told if there is no room.
    fn overflow(&self) -> Reply {
        self.metrics().overflow();
        let mut reply = Reply::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream connect error or disconnect/reset before headers. reset reason: overflow",
            "UO",
            OVERFLOW,
        );
        reply
            .headers
            .insert("x-envoy-overloaded", HeaderValue::from_static("true"));
        reply
    }

    /// The HTTP version that the request needs.
    fn version(&self) -> Version {
        let as_client = self.backend.use_client_protocol;
        // CONNECT goes on over any version; an upgrade, and what a tunnel holds, over HTTP/1.1 and bare TCP.
        let bare = self.upgrade.is_some() || self.tunnel == Some(Tunnel::Terminate);
        match (bare, self.rule.grpc) {
            (true, _) => Version::Http1,
            (false, true) => Version::Http2,
            (false, false)
                if as_client && matches!(self.came_with, http::Version::HTTP_2 | http::Version::HTTP_3) =>
            {
                Version::Http2
            }
            (false, false) if as_client => Version::Http1,
            (false, false) => Version::Any,
        }
    }

    async fn exchange<'e>(
        &self,
        head: &request::Parts,
        active: &Active,
        fresh: bool,
        flow: &'e mut Flow<'_>,
        record: &mut Record,
    ) -> Result<(response::Parts, Exchange<'e>), Failed> {
        let connecting = connect(
            &self.conn.worker.pool,
            &self.backend,
            active,
            Wants {
                fresh,
                version: self.version(),
                raw: self.tunnel == Some(Tunnel::Terminate),
                client: Some(self.client()),
            },
        );
        let connected = flow
            .limits
            .bound(flow.down, connecting)
            .await
            .map_err(Failed::Stop)?
            .map_err(Failed::Connect)?;
        let tls = match &self.conn.client {
            Some(client) if !client.scheme_matches_backend => self.conn.tls.is_some(),
            _ => self.backend.tls.is_some(),
        };
        let renamed = self.host_of_backend.map(|rewrite| {
            let mut head = head.clone();
            rewrite.apply_backend(&mut head, active.endpoint().hostname());
            head
        });
        let head = renamed.as_ref().unwrap_or(head);
        let up = match self.tunnel {
            Some(Tunnel::Terminate) => Upstream::tunnel(connected),
            _ => Upstream::start(connected, head, self.body, self.upgrade, tls),
        };
        let up = up.map_err(|failure| Failed::Unseen(Stop::Upstream(failure)))?;
        record.note_upstream(&up);
        let mut exchange = Exchange::new(flow, up, self.body == BodyKind::Empty);
        if let Some(extras) = &self.rule.extras {
            exchange.lanes = Lanes::new(extras.bandwidth.as_ref());
        }
        match exchange.head().await {
            Ok(response) => Ok((response, exchange)),
            Err(stop @ Stop::Upstream(Failure::Refused(_))) => Err(Failed::Unseen(stop)),
            Err(stop @ Stop::Upstream(Failure::Closed(_)))
                if exchange.up.may_be_stale() && self.idempotent =>
            {
                Err(Failed::Unseen(stop))
            }
            Err(stop) => Err(Failed::Stop(stop)),
        }
    }

    /// Passes the response on.
    async fn deliver(
        &self,
        mut response: response::Parts,
        mut exchange: Exchange<'_>,
        active: &Active,
        effects: &Effects<'_>,
        record: &mut Record,
    ) -> Result<(), End> {
        let upgraded = response.status == StatusCode::SWITCHING_PROTOCOLS;
        let switched = upgraded || (self.tunnel.is_some() && response.status.is_success());
        let upgrade = response.headers.get(http::header::UPGRADE).cloned();
        edge::strip_response(&mut response.headers);
        effects.apply_before_processors(&mut response.headers);
        let end = if switched {
            false
        } else {
            let known = exchange.up.body_is_empty();
            exchange.compress(effects.compress(&mut response, known, false));
            exchange.process(self.conn, &mut response).await?
        };
        if let Some(reply) = effects.override_response(&response, true) {
            return Err(reply.into());
        }
        effects.apply_after_processors(&mut response.headers);
        if let Some(persistence) = &self.rule.persistence {
            persistence.write(self.session, active.endpoint().address(), &mut response.headers);
        }
        if let Some(cookie) = &self.hashed.cookie {
            response.headers.append(SET_COOKIE, cookie.clone());
        }
        if let Some(client) = &self.conn.client {
            client.account(&mut response.headers, record.upstream_time);
            client.finish_response(&mut response.headers);
        }
        record.status = response.status.as_u16();
        record.note_response(&response.headers);
        record.details = "via_upstream".into();
        if self.conn.worker.shared.drain.is_draining() {
            exchange.down.close_after();
        }
        if switched {
            if !exchange.switch_protocols() {
                return Err(Stop::Upstream(Failure::Protocol("no upgrade".into())).into());
            }
            if upgraded {
                response
                    .headers
                    .insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
                if let Some(upgrade) = upgrade.or_else(|| self.upgrade.cloned()) {
                    response.headers.insert(http::header::UPGRADE, upgrade);
                }
            }
            exchange.down.switch_protocols(response).map_err(Stop::Client)?;
        } else {
            exchange.source.commit();
            exchange.compress_processed(effects.compress(&mut response, end, true));
            exchange.ending = self.ending(active, record.keeps_trailers());
            exchange.down.respond(response, end).map_err(Stop::Client)?;
        }
        exchange.body().await?;
        if let Some(ending) = exchange.ending.as_mut().filter(|ending| ending.keeps) {
            record.note_trailers(ending.kept.take());
        }
        exchange.into_upstream().recycle(
            &self.conn.worker.pool,
            self.backend.pool_key(active.endpoint(), Some(self.client())),
        );
        Ok(())
    }

    /// What the response's trailers are looked at for, if for anything.
    fn ending(&self, active: &Active, keeps: bool) -> Option<Box<Ending>> {
        let by_load = self.backend.balancer.as_ref().and_then(Balancer::by_load);
        let bandwidth = self
            .rule
            .extras
            .as_ref()
            .and_then(|extras| extras.bandwidth.as_ref());
        let reports = by_load.and(active.member());
        let delays = bandwidth.and_then(|bandwidth| bandwidth.delays.as_ref());
        (reports.is_some() || delays.is_some() || keeps).then(|| {
            Box::new(Ending {
                reports: reports.map(|member| (Arc::clone(&self.backend), Arc::clone(member))),
                delays: delays.cloned(),
                keeps,
                kept: None,
            })
        })
    }

    /// After a failed try: makes ready for the next one, or says how the request ends.
    async fn recover(
        &self,
        failed: Failed,
        active: &Active,
        progress: &mut Progress,
        flow: &mut Flow<'_>,
        record: &mut Record,
    ) -> Result<(), End> {
        match failed {
            Failed::Connect(ConnectError::Overflow) => Err(self.overflow().into()),
            Failed::Connect(error) => {
                active.endpoint().eject();
                record.transport_failure = Some(error.to_string());
                if self.rule.retry.is_none() {
                    let elsewhere = self
                        .backend
                        .endpoints
                        .load()
                        .has_other(active.endpoint(), &progress.tried);
                    if elsewhere && progress.retries < FREE_RETRIES && flow.source.rewind() {
                        progress.retries += 1;
                        progress.tried.push(active.endpoint().address());
                        return Ok(());
                    }
                } else if self.covers(Retry::covers_connect_failure)
                    && progress.may_repeat(self, flow.source)?
                {
                    return Box::pin(progress.repeat(self, active, flow)).await;
                }
                Err(connect_error(&error).into())
            }
            Failed::Unseen(stop) => {
                if self.may_retry() && progress.stale < STALE_RETRIES && flow.source.rewind() {
                    progress.stale += 1;
                    progress.fresh = true;
                    return Ok(());
                }
                Err(stop.into())
            }
            Failed::Stop(stop @ (Stop::TryTimeout | Stop::Upstream(_))) => {
                let covered = match stop {
                    Stop::TryTimeout => self.covers(Retry::covers_timeout),
                    _ => self.covers(Retry::covers_reset),
                };
                if !covered || !progress.may_repeat(self, flow.source)? {
                    return Err(stop.into());
                }
                tracing::debug!("try timed out or was broken off");
                Box::pin(progress.repeat(self, active, flow)).await
            }
            Failed::Stop(stop) => Err(stop.into()),
        }
    }
}
