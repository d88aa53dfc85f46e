//! One request, from its head to its line in the access log: admit, choose the listener and run its filters, route,
//! filter, choose a backend, try, answer.

use std::sync::{Arc, OnceLock};

use http::header::HOST;
use http::{HeaderMap, Method, StatusCode, Uri, request};

use super::after::After;
use super::answer::{answer, cut_short, unserved};
use super::attempt::{self, Tries};
use super::downstream::Downstream;
use super::edge::{self, Admitted, Arrival, Refusal};
use super::effects::{Effects, End};
use super::exchange::Flow;
use super::filtered::Filtered;
use super::limits::{Deadline, Limits};
use super::record::Record;
use super::reply::Reply;
use super::source::Source;
use super::upstream::BodyKind;
use super::{Conn, mirror};
use crate::drain::Phase;
use crate::filter::order::Rank;
use crate::filter::policy::{Extras, Tunnel};
use crate::filter::session::Session;
use crate::filter::{Facts, Filter};
use crate::route::{Matched, Miss, Site};
use crate::rule::{Rule, WeightedBackend};
use crate::upstream::dynamic::{Dynamic, Refused};
use crate::upstream::{Backend, Balancer};

/// How often a request's route may be chosen anew: once after each of the two stages that may ask for it.
const REROUTES: usize = 2;

/// Serves one request.
pub(super) async fn serve(conn: &Conn, down: &mut Downstream, mut head: request::Parts) {
    let mut record = Record::begin(&head);
    record.client.clone_from(&conn.client);
    let is_grpc = is_grpc(&head);
    if conn
        .client
        .as_ref()
        .is_some_and(|client| client.asks_for_health(&head))
    {
        record.look(conn, &head);
        let reply = health(conn);
        answer(down, &mut record, reply, false, None);
        return record.end(conn, down);
    }
    match admit(conn, &mut head) {
        Err(refusal) => {
            record.look(conn, &head);
            let reply = refuse(refusal);
            answer(down, &mut record, reply, is_grpc, None);
        }
        Ok(admitted) => {
            record.note_head(&head);
            record.look(conn, &head);
            route(conn, down, &mut head, &admitted, &mut record, is_grpc).await;
        }
    }
    record.end(conn, down);
}

fn admit(conn: &Conn, head: &mut request::Parts) -> Result<Admitted, Refusal> {
    let arrival = Arrival {
        peer: conn.wire.peer().ip(),
        https: conn.tls.is_some(),
        trusted_hops: conn.worker.shared.settings.load().xff_trusted_hops,
        client: conn.client.as_deref(),
        certificate: conn.tls.as_ref().and_then(|tls| tls.certificate.as_ref()),
        fingerprints: conn.fingerprints(),
    };
    edge::admit(head, arrival)
}

/// What is said of the proxy's own health.
fn health(conn: &Conn) -> Reply {
    let status = if conn.worker.shared.drain.phase() == Phase::Serving {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut reply = Reply::direct(status, HeaderMap::new());
    reply.details = "health_check_ok";
    reply
}

fn refuse(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Invalid(reason) => {
            tracing::debug!(reason, "invalid request");
            Reply::error(StatusCode::BAD_REQUEST, "Bad Request", "DPE", "http1.codec_error")
        }
        Refusal::Connect => unserved(Miss::NoRoute),
        Refusal::Old => Reply::error(
            StatusCode::UPGRADE_REQUIRED,
            "Upgrade Required",
            "DPE",
            "low_version",
        ),
        Refusal::Unknown => Reply::error(
            StatusCode::FORBIDDEN,
            "",
            "",
            "rejecting_because_detection_failed",
        ),
        Refusal::Elsewhere(location) => Reply::redirect(
            StatusCode::TEMPORARY_REDIRECT,
            location,
            "path_normalization_redirect",
        ),
    }
}

async fn route(
    conn: &Conn,
    down: &mut Downstream,
    head: &mut request::Parts,
    admitted: &Admitted,
    record: &mut Record,
    is_grpc: bool,
) {
    let site = match conn.port.locate(&admitted.host, conn.tls.as_deref()) {
        Ok(site) => site,
        Err(miss) => return answer(down, record, unserved(miss), is_grpc, None),
    };
    // They outlive the effects, which borrow from them.
    let matched;
    let anew: [OnceLock<Matched>; REROUTES] = Default::default();
    let mut effects = Effects::default();
    let mut source = Source::new(down.body_is_empty(), true);
    let mut end = before_routing(conn, down, head, &site, admitted, &mut effects, &mut source).await;
    let mut is_grpc = is_grpc;
    if end.is_ok() {
        let Some(found) = site.matched(&admitted.host, head) else {
            record.received = source.received();
            record.trace(head);
            return answer(down, record, unserved(Miss::NoRoute), is_grpc, Some(&effects));
        };
        matched = found;
        record.note_host(&site, &admitted.host, head);
        let mut request = Request {
            conn,
            down,
            matched: &matched,
            effects: &mut effects,
            source: &mut source,
            record,
        };
        end = request.run(head, admitted, None).await;
        for place in &anew {
            let Err(End::Reroute(at)) = end else { break };
            let done = request.matched.rule.chain.rank(at);
            let Some(found) = site.matched(&admitted.host, head) else {
                end = Err(unserved(Miss::NoRoute).into());
                break;
            };
            request.matched = place.get_or_init(|| found);
            // Boxed, so that requests that are routed once carry no room for it.
            end = Box::pin(request.run(head, admitted, done)).await;
        }
        is_grpc |= request.matched.rule.grpc;
    }
    record.received = source.received();
    record.know(effects.settle(source.pipe()));
    // Also if it met no rule.
    record.trace(head);
    match end {
        Ok(()) => {}
        Err(End::Reply(reply)) => answer(down, record, *reply, is_grpc, Some(&effects)),
        Err(End::Stop(stop)) => cut_short(down, record, stop, is_grpc, &effects),
        Err(End::Reroute(_)) => answer(down, record, unserved(Miss::NoRoute), is_grpc, Some(&effects)),
    }
}

/// Runs the listener's filters. They may change what routes match on, except the host: it has chosen the listener
/// (Gateway API, `ListenerFilters.requests`).
async fn before_routing<'a>(
    conn: &Conn,
    down: &mut Downstream,
    head: &mut request::Parts,
    site: &'a Site,
    admitted: &Admitted,
    effects: &mut Effects<'a>,
    source: &mut Source,
) -> Result<(), End> {
    let filters = &site.listener.filters;
    if filters.is_empty() {
        return Ok(());
    }
    let target = head.uri.clone();
    let host = head.headers.get(HOST).cloned();
    let mut filtered = Filtered {
        conn,
        facts: Facts {
            host: &admitted.host,
            client: admitted.client,
            route: "",
            shows_limits: true,
            path: target.path(),
            https: conn.tls.is_some(),
            listener_port: site.listener.port,
            prefix: None,
        },
        rule: None,
        head: &mut *head,
        effects,
        down,
        source,
        limits: &mut Limits::default(),
    };
    filtered.run(filters, 0).await?;
    match host {
        Some(host) => drop(head.headers.insert(HOST, host)),
        None => drop(head.headers.remove(HOST)),
    }
    Ok(())
}

struct Request<'r, 'a> {
    conn: &'r Conn,
    down: &'r mut Downstream,
    matched: &'a Matched,
    effects: &'r mut Effects<'a>,
    source: &'r mut Source,
    record: &'r mut Record,
}

impl<'a> Request<'_, 'a> {
    /// Takes a request through its rule; `done` is the rank up to which another rule's filters have run.
    async fn run(
        &mut self,
        head: &mut request::Parts,
        admitted: &Admitted,
        done: Option<Rank>,
    ) -> Result<(), End> {
        let matched = self.matched;
        let rule = &*matched.rule;
        self.record.rule = Some(Arc::clone(&matched.rule));
        self.record.listener = Some(Arc::clone(&matched.listener));
        self.record.trace(head);
        (self.effects.after, self.effects.session) = (None, None);
        let tunnel = match head.method {
            Method::CONNECT => Some(tunnel(rule).ok_or_else(|| unserved(Miss::NoRoute))?),
            _ => None,
        };
        let mut limits = Limits {
            request: rule.request_timeout.map(Deadline::after),
            ..Limits::default()
        };
        if let Some(extras) = rule.extras.as_deref() {
            self.begin(extras, admitted, &mut limits)?;
        }
        if let Some(client) = self.conn.client.as_deref() {
            limits.adopt(client, self.down.body_is_empty());
            client.announce(&mut head.headers, rule.request_timeout);
        }
        let body = body_kind(self.down, &head.headers);
        // Filters change the head; what was routed on stays.
        let target = head.uri.clone();
        let from = done.map_or(0, |done| rule.chain.after(done));
        let filters = (&rule.chain.filters[..], from);
        self.filter(head, admitted, &target, &mut limits, filters).await?;
        let session = self.effects.session;
        let invalid = || Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "", "", "direct_response");
        let weighted = choose(rule, session).ok_or_else(invalid)?;
        let slot = weighted.slot.as_ref().ok_or_else(invalid)?;
        self.filter(head, admitted, &target, &mut limits, (&weighted.filters[..], 0))
            .await?;
        if let Some(client) = self.conn.client.as_deref() {
            client.mention(&mut head.headers, &target, &head.uri);
        }
        let body = match self.source.pipe() {
            Some(pipe) => pipe.body_kind(body, &mut head.headers),
            None => body,
        };
        let backend = slot
            .load()
            .ok_or_else(|| Reply::error(StatusCode::SERVICE_UNAVAILABLE, "", "NC", "cluster_not_found"))?;
        let backend = match &backend.dynamic {
            None => backend,
            Some(dynamic) => Box::pin(destination(dynamic, &backend, head)).await?,
        };
        let admission = rule.extras.as_ref().and_then(|extras| extras.admission.as_ref());
        if admission.is_some_and(|admission| !admission.admits()) {
            let details = "denied_by_admission_control";
            return Err(Reply::error(StatusCode::SERVICE_UNAVAILABLE, "", "", details).into());
        }
        for slot in self.effects.mirrors.drain(..).filter(|_| tunnel.is_none()) {
            if let Some(feed) = mirror::start(&self.conn.worker, slot, head.clone(), body, rule.grpc) {
                self.source.mirror_to(feed);
            }
        }
        let hashing = backend.balancer.as_ref().and_then(Balancer::hashing);
        let hashed = hashing.map(|hashing| hashing.hash(head, admitted.client));
        self.record.backend = Some(Arc::clone(&backend));
        let mut tries = Tries {
            conn: self.conn,
            rule,
            backend,
            upgrade: admitted.upgrade.as_ref(),
            tunnel,
            body,
            session,
            hashed: hashed.unwrap_or_default(),
            came_with: head.version,
            idempotent: attempt::is_idempotent(&head.method),
            host_of_backend: self.effects.host_of_backend,
        };
        let flow = Flow {
            down: self.down,
            source: self.source,
            limits: &mut limits,
        };
        attempt::run(&mut tries, head, flow, self.effects, self.record).await
    }

    /// What a policy asks for besides filters.
    fn begin(&mut self, extras: &'a Extras, admitted: &Admitted, limits: &mut Limits) -> Result<(), End> {
        limits.stream = extras.max_duration.map(Deadline::after);
        limits.idle = extras.idle.or(limits.idle);
        let route = &*self.matched.rule.route_name;
        self.effects.after = Some(Box::new(After::new(extras, route)));
        match &admitted.upgrade {
            Some(protocol) if !extras.allows_upgrade(protocol.as_bytes()) => {
                Err(Reply::error(StatusCode::FORBIDDEN, "", "", "upgrade_failed").into())
            }
            _ => Ok(()),
        }
    }

    fn facts<'f>(&self, admitted: &'f Admitted, path: &'f str) -> Facts<'f>
    where
        'a: 'f,
    {
        let matched = self.matched;
        Facts {
            host: &admitted.host,
            client: admitted.client,
            route: &matched.rule.route_name,
            shows_limits: matched
                .listener
                .client
                .as_ref()
                .is_none_or(|client| !client.headers.no_rate_limit),
            path,
            https: self.conn.tls.is_some(),
            listener_port: matched.listener.port,
            prefix: matched.prefix,
        }
    }

    /// Runs filters, from a place on.
    async fn filter(
        &mut self,
        head: &mut request::Parts,
        admitted: &Admitted,
        target: &Uri,
        limits: &mut Limits,
        (filters, from): (&'a [Filter], usize),
    ) -> Result<(), End> {
        if filters.is_empty() {
            return Ok(());
        }
        let facts = self.facts(admitted, target.path());
        let mut filtered = Filtered {
            conn: self.conn,
            head,
            facts,
            rule: Some(&self.matched.rule),
            effects: self.effects,
            down: self.down,
            source: self.source,
            limits,
        };
        filtered.run(filters, from).await
    }
}

/// How a rule serves CONNECT, if it does.
fn tunnel(rule: &Rule) -> Option<Tunnel> {
    rule.extras.as_ref()?.tunnel
}

/// Where a request goes that names its own destination.
async fn destination(
    dynamic: &Dynamic,
    backend: &Backend,
    head: &request::Parts,
) -> Result<Arc<Backend>, Reply> {
    let host = head.headers.get(HOST).map_or(&b""[..], |host| host.as_bytes());
    let found = dynamic.destination(backend, host).await;
    found.map_err(|refused| match refused {
        Refused::Invalid => Reply::error(StatusCode::BAD_REQUEST, "", "DPE", "dynamic_host_invalid"),
        Refused::Forbidden => Reply::error(StatusCode::FORBIDDEN, "", "", "dynamic_host_forbidden"),
        Refused::Unresolved => Reply::error(
            StatusCode::SERVICE_UNAVAILABLE,
            "",
            "DF",
            "dns_resolution_failure",
        ),
    })
}

/// The backend that the session is bound to, or one drawn by weight.
fn choose(rule: &Rule, session: Option<Session>) -> Option<&WeightedBackend> {
    let bound = session.and_then(|session| {
        rule.backends.iter().find(|weighted| {
            let backend = weighted.slot.as_ref().and_then(|slot| slot.load());
            backend.is_some_and(|backend| backend.endpoints.load().find(session.endpoint).is_some())
        })
    });
    bound.or_else(|| rule.backends.pick())
}

fn body_kind(down: &Downstream, headers: &HeaderMap) -> BodyKind {
    if down.body_is_empty() {
        BodyKind::Empty
    } else if headers.contains_key(http::header::CONTENT_LENGTH) {
        BodyKind::Length
    } else {
        BodyKind::Stream
    }
}

fn is_grpc(head: &request::Parts) -> bool {
    let content_type = head
        .headers
        .get(http::header::CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes);
    content_type
        .and_then(|value| value.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
