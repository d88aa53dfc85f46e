//! Running filters over a request, and what they want done to its response.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, request};

use super::downstream::{Chunk, Downstream};
use super::exchange::{Limits, Stop};
use super::reply::Reply;
use super::source::Source;
use super::{Conn, auth, jwt};
use crate::filter::direct::DirectResponse;
use crate::filter::fault::{Abort, Fault};
use crate::filter::format::Subject;
use crate::filter::tokens::Tokens;
use crate::filter::{Cors, Denial, ExternalAuth, Facts, Filter, HeaderModifier};
use crate::upstream::Slot;

/// Why a request does not go on.
pub(super) enum End {
    /// It has an answer.
    Reply(Box<Reply>),
    /// It was cut short.
    Stop(Stop),
}

impl From<Reply> for End {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply.into())
    }
}

impl From<Box<Reply>> for End {
    fn from(reply: Box<Reply>) -> Self {
        Self::Reply(reply)
    }
}

impl From<Denial> for End {
    fn from(denial: Denial) -> Self {
        Reply::from(denial).into()
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// What filters have asked for.
#[derive(Default)]
pub(super) struct Effects<'a> {
    modifiers: Vec<&'a HeaderModifier>,
    cors: Option<(&'a Cors, HeaderValue)>,
    added: Vec<(HeaderName, HeaderValue)>,
    pub(super) mirrors: Vec<&'a Slot>,
    tokens: Tokens,
}

impl Effects<'_> {
    /// Changes a response's headers.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for modifier in &self.modifiers {
            modifier.apply(headers);
        }
        if let Some((cors, origin)) = &self.cors {
            cors.grant(origin, headers);
        }
        for (name, value) in &self.added {
            headers.append(name, value.clone());
        }
    }
}

/// A request among filters.
pub(super) struct Filtered<'r, 'a> {
    pub(super) conn: &'r Conn,
    pub(super) head: &'r mut request::Parts,
    pub(super) facts: Facts<'r>,
    pub(super) effects: &'r mut Effects<'a>,
    pub(super) down: &'r mut Downstream,
    pub(super) source: &'r mut Source,
    pub(super) limits: &'r mut Limits,
}

impl<'a> Filtered<'_, 'a> {
    /// Runs filters in their order.
    pub(super) async fn run(&mut self, filters: &'a [Filter]) -> Result<(), End> {
        for filter in filters {
            match filter {
                Filter::RequestHeaders(modifier) => modifier.apply(&mut self.head.headers),
                Filter::ResponseHeaders(modifier) => self.effects.modifiers.push(modifier),
                Filter::UrlRewrite(rewrite) => rewrite.apply(self.head, self.facts.path, self.facts.prefix),
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
                    self.effects.cors = cors.allowed_origin(self.head).map(|origin| (&**cors, origin));
                }
                Filter::ExternalAuth(auth) => self.authorize(auth).await?,
                Filter::DirectResponse(response) => return Err(self.direct(response).into()),
                Filter::CredentialInjection(credential) => credential.apply(self.head)?,
                Filter::Fault(fault) => self.disturb(fault).await?,
                Filter::ApiKeyAuth(auth) => auth.check(self.head)?,
                Filter::BasicAuth(auth) => auth.check(self.head, &self.facts)?,
                Filter::Jwt(jwt) => {
                    let asking =
                        jwt::authenticate(&self.conn.worker, jwt, self.head, &mut self.effects.tokens);
                    let asked = self.limits.bound(self.down, asking).await?;
                    asked.map_err(|fault| fault.denial(self.head, &self.facts))?;
                }
                Filter::RateLimit(limit) => {
                    let shown = limit.check(self.head, &self.facts, true)?;
                    self.effects.added.extend(shown);
                }
                Filter::Authorization(rules) => {
                    if !rules.allows(self.head, &self.facts, &self.effects.tokens) {
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
        let asking = auth::check(self.conn, filter, self.head, body);
        let added = self.limits.bound(self.down, asking).await??;
        self.effects.added.extend(added);
        Ok(())
    }

    /// Reads the whole body, to be sent on later.
    async fn read_body(&mut self, limit: usize) -> Result<Bytes, End> {
        let too_large = || {
            Reply::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Payload Too Large",
                "",
                "request_payload_too_large",
            )
        };
        let complete = std::future::poll_fn(|cx| self.source.poll_fill(limit, self.down, cx))
            .await
            .map_err(Stop::Client)?;
        let mut body = BytesMut::new();
        for chunk in self.source.held() {
            if let Chunk::Data(data) = chunk {
                body.extend_from_slice(data);
            }
        }
        if complete && body.len() <= limit {
            Ok(body.freeze())
        } else {
            Err(too_large().into())
        }
    }
}
