//! Logging clients in: sends browsers to the provider and takes them back, prolongs sessions, ends them.
//!
//! Owns the order of a login's steps; the questions to the provider are [`asking`]'s. Whoever is in doubt does not pass: without the
//! provider's word there is no session, and a provider that cannot be asked is an error of the proxy's side.

mod asking;

use std::sync::Arc;

use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method, StatusCode, request};

use super::reply::Reply;
use crate::filter::Facts;
use crate::filter::carrier::query;
use crate::filter::oidc::cookies::Holds;
use crate::filter::oidc::login::{Seed, State, with_parameters};
use crate::filter::oidc::provider::{Endpoints, Fault, Granted};
use crate::filter::oidc::seal::Sealer;
use crate::filter::oidc::session::{Record, hash};
use crate::filter::oidc::{Asks, Oidc};
use crate::worker::Worker;
use asking::{endpoints, grant};

/// Headers that the response to the client gets.
pub(super) type ResponseHeaders = Vec<(HeaderName, HeaderValue)>;
type Outcome = Result<ResponseHeaders, Box<Reply>>;

/// A request that is judged.
struct Login<'r> {
    worker: &'r Arc<Worker>,
    oidc: &'r Arc<Oidc>,
    sealer: Arc<Sealer>,
    head: &'r mut request::Parts,
    facts: &'r Facts<'r>,
}

/// Lets a request pass that has a session; others are answered.
pub(super) async fn authenticate(
    worker: &Arc<Worker>,
    oidc: &Arc<Oidc>,
    head: &mut request::Parts,
    facts: &Facts<'_>,
) -> Outcome {
    let asks = oidc.receive(head);
    if asks == Asks::PassThrough {
        oidc.strip(head);
        return Ok(Vec::new());
    }
    let Some(sealer) = oidc.sealer() else {
        tracing::warn!(issuer = %oidc.provider.issuer, "there is no key for the cookies of logins");
        return Err(fault(Fault::Unready));
    };
    let mut login = Login {
        worker,
        oidc,
        sealer,
        head,
        facts,
    };
    if asks == Asks::Logout {
        return Err(login.end().await);
    }
    let record = Record::read(&login.sealer, &oidc.cookies, &login.head.headers);
    let current = record.as_ref().filter(|record| record.is_current());
    if asks == Asks::Callback {
        return Err(login.finish(current.is_some()).await);
    }
    if let Some(record) = current
        && oidc.admit(record, &login.sealer, login.head)
    {
        return Ok(Vec::new());
    }
    if let Some(record) = &record
        && let Some(outcome) = login.prolong(record).await
    {
        return outcome;
    }
    Err(login.begin().await)
}

impl Login<'_> {
    /// Sends the browser to the provider.
    async fn begin(&self) -> Box<Reply> {
        if self.oidc.denies_redirect(self.head) {
            return error(StatusCode::UNAUTHORIZED, "Unauthorized", "oauth_denied_redirect");
        }
        let endpoints = match endpoints(self.worker, &self.oidc.provider).await {
            Ok(endpoints) => endpoints,
            Err(why) => return fault(why),
        };
        self.to_provider(&endpoints)
            .unwrap_or_else(|| fault(Fault::Unready))
    }

    fn to_provider(&self, endpoints: &Endpoints) -> Option<Box<Reply>> {
        let Self {
            oidc,
            sealer,
            head,
            facts,
            ..
        } = self;
        let seed = Seed::read(sealer, &oidc.cookies, &head.headers).or_else(Seed::new)?;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let state = seed.begin(Oidc::origin(head, facts), target, oidc.login_seconds)?;
        let sealed = state.seal(sealer)?;
        let (redirect, nonce) = (oidc.redirect_url(head, facts), seed.nonce(&state));
        let challenge = seed.challenge(&state);
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", &*oidc.client_id),
            ("redirect_uri", &redirect),
            ("scope", &oidc.scopes),
            ("state", &sealed),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        parameters.extend(oidc.resources.iter().map(|resource| ("resource", &**resource)));
        let location = with_parameters(&endpoints.authorization, &parameters);
        let mut set = Vec::new();
        seed.write(sealer, &oidc.cookies, &head.headers, oidc.login_seconds, &mut set)?;
        let location = HeaderValue::try_from(location).ok()?;
        Some(redirect_to(location, set, "oauth_redirect"))
    }

    /// Takes the browser back.
    async fn finish(&self, has_session: bool) -> Box<Reply> {
        let refused = || {
            error(
                StatusCode::UNAUTHORIZED,
                "OAuth flow failed.",
                "oauth_flow_failed",
            )
        };
        let Some(state) = query(self.head, "state").and_then(|sealed| State::open(&self.sealer, &sealed))
        else {
            return refused();
        };
        if has_session {
            // The browser has logged in meanwhile, in another tab perhaps.
            return self.land(&state, Vec::new());
        }
        let seed = Seed::read(&self.sealer, &self.oidc.cookies, &self.head.headers);
        let Some(seed) = seed.filter(|seed| self.head.method == Method::GET && seed.began(&state)) else {
            return refused();
        };
        if state.is_over() {
            return self.land(&state, Vec::new());
        }
        let Some(code) = query(self.head, "code").filter(|_| query(self.head, "error").is_none()) else {
            return refused();
        };
        match self.spend(&code, &seed, &state).await {
            Ok(granted) => {
                let mut set = Vec::new();
                let subject = granted.subject.as_deref().unwrap_or_default();
                match self.write(&granted, subject, &mut set) {
                    Some(()) => self.land(&state, set),
                    None => fault(Fault::Unready),
                }
            }
            Err(Fault::Refused) => refused(),
            Err(why) => fault(why),
        }
    }

    /// Spends a code for tokens.
    async fn spend(&self, code: &str, seed: &Seed, state: &State) -> Result<Granted, Fault> {
        let redirect = self.oidc.redirect_url(self.head, self.facts);
        let verifier = seed.verifier(state);
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect),
            ("code_verifier", &verifier),
        ];
        let nonce = seed.nonce(state);
        let granted = grant(self.worker, self.oidc, &parameters, Some(&nonce)).await?;
        granted.subject.is_some().then_some(granted).ok_or_else(|| {
            tracing::warn!(issuer = %self.oidc.provider.issuer, "the provider has given no ID token");
            Fault::Refused
        })
    }

    fn write(&self, granted: &Granted, subject: &str, into: &mut ResponseHeaders) -> Option<()> {
        let oidc = self.oidc;
        let refresh = oidc.refresh_seconds(&granted.tokens.refresh);
        let record = Record::new(&granted.tokens, subject, granted.seconds, refresh);
        let request = &self.head.headers;
        record.write(&self.sealer, &oidc.cookies, request, &granted.tokens, into)
    }

    /// Sends the browser to where it wanted to go.
    fn land(&self, state: &State, set: ResponseHeaders) -> Box<Reply> {
        let Some(location) = self.oidc.landing(state, self.head, self.facts) else {
            return fault(Fault::Unready);
        };
        if !self.oidc.cookies.is_strict() {
            return redirect_to(location, set, "oauth_logged_in");
        }
        // A redirect would still be the provider's page sending the browser: it would leave strict cookies out.
        let location = escaped(location.to_str().unwrap_or("/"));
        let page = format!(
            "<!doctype html><meta http-equiv=\"refresh\" content=\"0;url={location}\"><a href=\"{location}\">Continue</a>"
        );
        let mut reply = Reply::direct(StatusCode::OK, HeaderMap::new());
        reply.body = page.into();
        reply.details = "oauth_logged_in";
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        reply.headers.insert(CONTENT_TYPE, html);
        with_cookies(reply, set)
    }

    /// Prolongs a session whose access token has ended, or is about to. `None`: the user has to log in again.
    async fn prolong(&mut self, record: &Record) -> Option<Outcome> {
        let oidc = self.oidc;
        let token = oidc
            .refreshes
            .then(|| record.token(&self.sealer, &oidc.cookies, &self.head.headers, Holds::Refresh))
            .flatten();
        let refreshed = match &token {
            Some(token) => self.refresh(token).await,
            None => Err(Fault::Refused),
        };
        match refreshed {
            Ok(granted) => self.go_on(record, &granted),
            // It has been refreshed too early; what there is will do until the end.
            Err(_) if record.is_valid() && oidc.admit(record, &self.sealer, self.head) => {
                Some(Ok(Vec::new()))
            }
            Err(Fault::Refused) => None,
            Err(why) => Some(Err(fault(why))),
        }
    }

    fn go_on(&mut self, record: &Record, granted: &Granted) -> Option<Outcome> {
        let mut granted = granted.clone();
        let subject = match granted.subject.take() {
            // OpenID Connect Core 1.0 section 12.2: it must not be another user's all of a sudden.
            Some(subject) if !record.is_of(&subject) => return None,
            other => other,
        };
        if subject.is_none() {
            let id = record.token(&self.sealer, &self.oidc.cookies, &self.head.headers, Holds::Id);
            granted.tokens.id = id?;
        }
        let refresh = self.oidc.refresh_seconds(&granted.tokens.refresh);
        let next = record.prolonged(&granted.tokens, granted.seconds, refresh);
        let mut set = Vec::new();
        let request = &self.head.headers;
        let cookies = &self.oidc.cookies;
        if next
            .write(&self.sealer, cookies, request, &granted.tokens, &mut set)
            .is_none()
        {
            return Some(Err(fault(Fault::Unready)));
        }
        self.oidc.forward(&granted.tokens, self.head);
        Some(Ok(set))
    }

    /// Gets tokens for a refresh token. Requests that come with the same one share the answer: a provider that gives
    /// out new refresh tokens takes the second use of an old one for a theft. It goes on if the client goes away.
    async fn refresh(&self, token: &str) -> Result<Arc<Granted>, Fault> {
        let digest = hash(token);
        let provider = &self.oidc.provider;
        let refreshing = provider.refresh(&digest, || {
            let (worker, oidc) = (Arc::clone(self.worker), Arc::clone(self.oidc));
            let token = token.to_owned();
            let asked = tokio::spawn(async move {
                let parameters = [("grant_type", "refresh_token"), ("refresh_token", &token)];
                let mut granted = grant(&worker, &oidc, &parameters, None).await?;
                if granted.tokens.refresh.is_empty() {
                    granted.tokens.refresh = token;
                }
                Ok(Arc::new(granted))
            });
            let outcome = asked.map(|ended| ended.unwrap_or(Err(Fault::Unavailable)));
            outcome.boxed().shared()
        });
        let outcome = refreshing.await;
        if matches!(outcome, Err(Fault::Unavailable | Fault::Unready)) {
            provider.forget_refresh(&digest);
        }
        outcome
    }

    /// Ends the session, at the provider as well if that is possible.
    async fn end(&self) -> Box<Reply> {
        let Self {
            oidc, sealer, head, ..
        } = self;
        let mut set = Vec::new();
        oidc.cookies.clear(&head.headers, &mut set);
        let home = format!("{}/", Oidc::origin(head, self.facts));
        // Whoever wants to go is let go, whatever the provider does.
        let endpoints = endpoints(self.worker, &oidc.provider).await.ok();
        let address = endpoints.and_then(|endpoints| endpoints.end_session.clone());
        let location = address.map_or(home.clone(), |address| {
            let id = Record::read(sealer, &oidc.cookies, &head.headers)
                .and_then(|record| record.token(sealer, &oidc.cookies, &head.headers, Holds::Id));
            let mut parameters = vec![
                ("client_id", &*oidc.client_id),
                ("post_logout_redirect_uri", &home),
            ];
            if let Some(id) = &id {
                parameters.push(("id_token_hint", id));
            }
            with_parameters(&address, &parameters)
        });
        match HeaderValue::try_from(location) {
            Ok(location) => redirect_to(location, set, "oauth_logged_out"),
            Err(_) => with_cookies(Reply::direct(StatusCode::OK, HeaderMap::new()), set),
        }
    }
}

fn redirect_to(location: HeaderValue, set: ResponseHeaders, details: &'static str) -> Box<Reply> {
    let mut reply = Reply::direct(StatusCode::FOUND, HeaderMap::new());
    reply.headers.insert(LOCATION, location);
    reply.details = details;
    with_cookies(reply, set)
}

fn with_cookies(mut reply: Reply, set: ResponseHeaders) -> Box<Reply> {
    reply
        .headers
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in set {
        reply.headers.append(name, value);
    }
    reply.into()
}

fn error(status: StatusCode, body: &'static str, details: &'static str) -> Box<Reply> {
    let mut reply = Reply::error(status, body, "UAEX", details);
    reply
        .headers
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply.into()
}

fn fault(why: Fault) -> Box<Reply> {
    match why {
        Fault::Refused => error(
            StatusCode::UNAUTHORIZED,
            "OAuth flow failed.",
            "oauth_flow_failed",
        ),
        Fault::Unavailable => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "identity provider unavailable",
            "oauth_provider_unavailable",
        ),
        Fault::Unready => error(StatusCode::INTERNAL_SERVER_ERROR, "", "oauth_not_ready"),
    }
}

/// For an attribute of HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}
