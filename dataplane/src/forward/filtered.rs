//! Running filters over a request.
//!
//! Owns what waits for others on the way; what filters want of the response is kept by [`super::effects`].

use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, request};

use super::downstream::{Chunk, Downstream};
use super::effects::{Effects, End};
use super::ext_proc::Pipe;
use super::limits::{Limits, Stop};
use super::reply::Reply;
use super::source::Source;
use super::{Conn, auth, jwt, oidc, rate_limit};
use crate::filter::direct::DirectResponse;
use crate::filter::ext_proc::Processor;
use crate::filter::fault::{Abort, Fault};
use crate::filter::format::Subject;
use crate::filter::rate_limit::GlobalRateLimit;
use crate::filter::{ExternalAuth, Facts, Filter};
use crate::rule::Rule;

/// A request among filters.
pub(super) struct Filtered<'r, 'a> {
    pub(super) conn: &'r Conn,
    pub(super) head: &'r mut request::Parts,
    pub(super) facts: Facts<'r>,
    /// `None`: filters of a listener.
    pub(super) rule: Option<&'r Rule>,
    pub(super) effects: &'r mut Effects<'a>,
    pub(super) down: &'r mut Downstream,
    pub(super) source: &'r mut Source,
    pub(super) limits: &'r mut Limits,
}

impl<'a> Filtered<'_, 'a> {
    /// Runs filters in their order; of those before `from`, only those that take note of something. What waits for somebody
    /// is boxed, so that requests that wait for nobody do not move room for it around.
    pub(super) async fn run(&mut self, filters: &'a [Filter], from: usize) -> Result<(), End> {
        for (at, filter) in filters.iter().enumerate() {
            if at < from && !filter.only_notes() {
                continue;
            }
            match filter {
                Filter::RequestHeaders(modifier) => {
                    modifier.apply_with(&mut self.head.headers, self.conn.fingerprints());
                }
                Filter::ResponseHeaders(modifier) => self.effects.modifiers.push(modifier),
                Filter::UrlRewrite(rewrite) => {
                    rewrite.apply(self.head, self.facts.path, self.facts.prefix);
                    self.effects.host_of_backend = Some(rewrite).filter(|rewrite| rewrite.host_of_backend);
                }
                Filter::Mirror(mirror) => self.effects.mirrors.extend(mirror.draw().map(|slot| &**slot)),
                Filter::FixedResponse(status) => return Err(Reply::direct(*status, HeaderMap::new()).into()),
                Filter::Redirect(redirect) => {
                    let answer = redirect.answer(self.head, &self.facts);
                    let (status, location) = answer.ok_or_else(|| {
                        Reply::error(StatusCode::BAD_REQUEST, "", "", "redirect_location_invalid")
                    })?;
                    return Err(Reply::redirect(status, location, "direct_response").into());
                }
                Filter::Cors(cors) => {
                    if let Some(headers) = cors.preflight(self.head) {
                        return Err(Reply::direct(StatusCode::OK, headers).into());
                    }
                    self.effects.share(cors, cors.allowed_origin(self.head));
                }
                Filter::ExternalAuth(auth) => {
                    Box::pin(self.authorize(auth)).await?;
                    if auth.recompute_route {
                        return Err(End::Reroute(at));
                    }
                }
                Filter::DirectResponse(response) => return Err(self.direct(response).into()),
                Filter::CredentialInjection(credential) => credential.apply(self.head)?,
                Filter::Fault(fault) => Box::pin(self.disturb(fault)).await?,
                Filter::Csrf(csrf) => csrf.check(self.head)?,
                Filter::ApiKeyAuth(auth) => auth.check(self.head)?,
                Filter::BasicAuth(auth) => auth.check(self.head, &self.facts)?,
                Filter::Oidc(login) => {
                    let asking = oidc::authenticate(&self.conn.worker, login, self.head, &self.facts);
                    let added = Box::pin(self.limits.bound(self.down, asking)).await??;
                    self.effects.changes.added.extend(added);
                }
                Filter::Jwt(jwt) => {
                    let asking = jwt::authenticate(
                        &self.conn.worker,
                        jwt,
                        self.head,
                        &mut self.effects.metadata.tokens,
                    );
                    let asked = Box::pin(self.limits.bound(self.down, asking)).await?;
                    if asked.map_err(|fault| fault.denial(self.head, &self.facts))? {
                        return Err(End::Reroute(at));
                    }
                }
                Filter::ExtProc(processors) => {
                    if Box::pin(self.process(processors)).await? {
                        return Err(End::Reroute(at));
                    }
                }
                Filter::RequestBuffer(limit) => self.buffer(*limit).await?,
                Filter::RateLimit(limit) => {
                    let Effects {
                        metadata, changes, ..
                    } = &mut *self.effects;
                    limit.check(self.head, &self.facts, metadata, &mut changes.limits)?;
                }
                Filter::GlobalRateLimit(limit) => Box::pin(self.limit(limit)).await?,
                Filter::ResponseOverrides => {
                    self.effects.begin_overrides(self.head, &self.facts, at < from);
                }
                Filter::Compression => self.effects.choose_coding(self.head, at < from),
                Filter::Session => {
                    let persistence = self.rule.and_then(|rule| rule.persistence.as_ref());
                    self.effects.session = persistence.and_then(|of| of.read(&self.head.headers));
                }
                Filter::Authorization(rules) => {
                    let around = self.conn.around();
                    if !rules.allows(self.head, &self.facts, &self.effects.metadata.tokens, around) {
                        return Err(Reply::error(
                            StatusCode::FORBIDDEN,
                            "RBAC: access denied",
                            "",
                            "rbac_access_denied",
                        )
                        .into());
                    }
                }
            }
        }
        Ok(())
    }

    fn direct(&self, response: &DirectResponse) -> Reply {
        let subject = response
            .needs_subject()
            .then(|| Subject::new(self.head, &self.facts));
        let (status, headers, body) = response.render(subject.as_ref(), self.facts.route, StatusCode::OK);
        let mut reply = Reply::direct(status, headers);
        reply.body = body;
        reply
    }

    async fn disturb(&mut self, fault: &Fault) -> Result<(), End> {
        if let Some(delay) = fault.delay() {
            self.limits.bound(self.down, tokio::time::sleep(delay)).await?;
        }
        match fault.abort() {
            None => Ok(()),
            Some(Abort::Http(status)) => {
                Err(Reply::error(status, "fault filter abort", "FI", "fault_filter_abort").into())
            }
            Some(Abort::Grpc(code)) => {
                Err(Reply::grpc(code, "fault filter abort", "FI", "fault_filter_abort").into())
            }
        }
    }

    async fn authorize(&mut self, filter: &ExternalAuth) -> Result<(), End> {
        let body = if filter.max_body_bytes == 0 {
            Bytes::new()
        } else {
            self.read_body(filter.max_body_bytes).await?
        };
        let asked = auth::Asked {
            conn: self.conn,
            facts: &self.facts,
            rule: self.rule,
        };
        let metadata = &mut self.effects.metadata;
        let asking = auth::check(&asked, filter, self.head, body, metadata);
        let added = self.limits.bound(self.down, asking).await??;
        self.effects.changes.added.extend(added);
        Ok(())
    }

    async fn limit(&mut self, limit: &GlobalRateLimit) -> Result<(), End> {
        let Effects {
            metadata, changes, ..
        } = &mut *self.effects;
        let (worker, tally) = (&self.conn.worker, &mut changes.limits);
        let asking = rate_limit::check(worker, limit, self.head, &self.facts, metadata, tally);
        let charge = self.limits.bound(self.down, asking).await??;
        self.effects.charges.extend(charge);
        Ok(())
    }

    /// Lets processors see the request. True: its route is to be chosen anew.
    async fn process(&mut self, processors: &[Arc<Processor>]) -> Result<bool, End> {
        self.effects.meet_processors();
        self.source
            .process(|backlog, ended| Pipe::new(processors, backlog, ended));
        let mut anew = false;
        for at in 0..processors.len() {
            let Self {
                conn,
                head,
                facts,
                effects,
                down,
                source,
                limits,
                ..
            } = self;
            let Some(pipe) = source.pipe() else { break };
            pipe.show_request(at, conn, head, facts, &effects.metadata)
                .await?;
            anew |= std::future::poll_fn(|cx| {
                let polled = pipe.poll_request_head(at, head, down, cx);
                if polled.is_pending() {
                    limits.check(cx)?;
                    if down.body_is_empty()
                        && let Poll::Ready(gone) = down.poll_gone(cx)
                    {
                        return Poll::Ready(Err(Stop::Client(gone)));
                    }
                }
                polled
            })
            .await?;
            pipe.tell(&mut effects.metadata);
        }
        Ok(anew)
    }

    /// Reads the whole body, to be sent on later.
    async fn read_body(&mut self, limit: usize) -> Result<Bytes, End> {
        self.buffer(limit).await?;
        let mut body = BytesMut::new();
        for chunk in self.source.held() {
            if let Chunk::Data(data) = chunk {
                body.extend_from_slice(data);
            }
        }
        Ok(body.freeze())
    }

    /// Waits until the whole body is held here.
    async fn buffer(&mut self, limit: usize) -> Result<(), End> {
        let complete = std::future::poll_fn(|cx| self.source.poll_fill(limit, self.down, cx)).await?;
        if complete && self.source.held_bytes() <= limit {
            return Ok(());
        }
        Err(Reply::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
            "",
            "request_payload_too_large",
        )
        .into())
    }
}
