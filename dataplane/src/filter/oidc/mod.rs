//! Login by OpenID Connect: the settings of one login, and what of it needs nobody else: judging what a request
//! carries, and writing what the browser gets.
//!
//! Nothing of a session is kept here: it lives in sealed cookies ([`session`]), so any proxy with the same key honours
//! it. Asking the provider is the forwarder's business.

pub mod answer;
pub mod cookies;
pub mod login;
pub mod provider;
pub mod seal;
pub mod session;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Uri};
use jsonwebtoken::Validation;
use serde_json::Value;
use sluice_config::v1;

use self::answer::TokenAnswer;
use self::cookies::{Cookies, Holds};
use self::provider::{Fault, Provider};
use self::seal::Sealer;
use self::session::{Record, TokenSet};
use super::carrier::Carrier;
use super::format::{Format, Subject};
use super::jwt;
use super::secret::Derived;
use super::text::TextMatch;
use super::tokens::Claims;
use super::{Facts, Lookup, headers};

/// How long a login may take if the configuration does not say.
const LOGIN_TTL: Duration = Duration::from_mins(10);
/// Life of a refresh token if nobody says.
const REFRESH_TTL: Duration = Duration::from_hours(168);

/// A compiled login.
#[derive(Debug)]
pub struct Oidc {
    /// Who is asked.
    pub provider: Arc<Provider>,
    /// The proxy's name at the provider.
    pub client_id: Box<str>,
    /// The proxy's secret there. `None` while there is none.
    pub client_secret: Derived<Option<Box<str>>>,
    /// The cookies.
    pub cookies: Cookies,
    /// With spaces between them.
    pub scopes: Box<str>,
    /// Those that tokens are asked for.
    pub resources: Box<[Box<str>]>,
    /// True: sessions are prolonged.
    pub refreshes: bool,
    /// Seconds that a login may take.
    pub login_seconds: u64,
    sealer: Seals,
    redirect: Format,
    callback: Box<str>,
    logout: Box<str>,
    forward_access: bool,
    forward_id: Option<HeaderName>,
    default_seconds: u64,
    refresh_seconds: u64,
    deny_redirect: Box<[(HeaderName, TextMatch)]>,
    pass_through: Box<[Carrier]>,
    validation: Validation,
}

#[derive(Debug)]
enum Seals {
    Shared(Derived<Option<Arc<Sealer>>>),
    Own(Option<Arc<Sealer>>),
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// To be let through; another filter judges it.
    PassThrough,
    /// To end the session.
    Logout,
    /// To have a code spent that the provider has given.
    Callback,
    /// The backend.
    Backend,
}

impl Oidc {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Oidc, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let provider = config.provider.as_ref().ok_or("provider: not set")?;
        let provider = Provider::new(provider, lookup).map_err(|e| format!("provider.{e}"))?;
        let provider = lookup.store().oidc_provider(provider);
        if config.client_id.is_empty() {
            return Err("client_id: empty".into());
        }
        // A session at one provider, or of one client, is none at another.
        let login = format!("{}\n{}\n{}", config.name, provider.issuer, config.client_id);
        let cookies = config.cookies.clone().unwrap_or_default();
        let seconds = |ms: u64, default: Duration| match ms {
            0 => default.as_secs(),
            ms => ms.div_ceil(1000),
        };
        let mut deny_redirect = Vec::with_capacity(config.deny_redirect.len());
        for (i, matches) in config.deny_redirect.iter().enumerate() {
            let at = |e: String| format!("deny_redirect[{i}]: {e}");
            let name = headers::name(&matches.name).map_err(at)?;
            let value = matches
                .value
                .as_ref()
                .ok_or_else(|| at("value: not set".into()))?;
            deny_redirect.push((name, TextMatch::compile(value).map_err(at)?));
        }
        let mut pass_through = Vec::with_capacity(config.pass_through.len());
        for (i, bearer) in config.pass_through.iter().enumerate() {
            let name = headers::name(&bearer.name).map_err(|e| format!("pass_through[{i}]: {e}"))?;
            pass_through.push(Carrier::Header(name, bearer.prefix.as_str().into()));
        }
        Ok(Self {
            client_id: config.client_id.as_str().into(),
            client_secret: Derived::of_entry(config.client_secret.as_ref(), lookup, |entry| {
                let text = std::str::from_utf8(entry?).ok()?.trim_end_matches(['\r', '\n']);
                (!text.is_empty()).then(|| text.into())
            })
            .map_err(|e| format!("client_secret: {e}"))?,
            cookies: Cookies::compile(&cookies, &config.name).map_err(|e| format!("cookies.{e}"))?,
            scopes: config.scopes.join(" ").into(),
            resources: config.resources.iter().map(|one| one.as_str().into()).collect(),
            refreshes: config.refresh,
            login_seconds: seconds(config.login_ttl_ms, LOGIN_TTL),
            sealer: Seals::compile(config.cookie_key.as_ref(), &login, lookup)?,
            redirect: Format::compile(config.redirect_url.as_bytes()),
            callback: path_of(&config.redirect_url).map_err(|e| format!("redirect_url: {e}"))?,
            logout: path(&config.logout_path).map_err(|e| format!("logout_path: {e}"))?,
            forward_access: config.forward_access_token,
            forward_id: match config.forward_id_token_header.as_str() {
                "" => None,
                name => Some(headers::name(name).map_err(|e| format!("forward_id_token_header: {e}"))?),
            },
            default_seconds: config.default_token_ttl_ms.div_ceil(1000),
            refresh_seconds: seconds(config.default_refresh_token_ttl_ms, REFRESH_TTL),
            deny_redirect: deny_redirect.into(),
            pass_through: pass_through.into(),
            validation: validation(&provider.issuer, &config.client_id),
            provider,
        })
    }

    /// What seals this login's cookies. `None`: there is no key.
    pub fn sealer(&self) -> Option<Arc<Sealer>> {
        match &self.sealer {
            Seals::Shared(derived) => (*derived.get()).clone(),
            Seals::Own(sealer) => sealer.clone(),
        }
    }

    /// What a request is about. Takes what only the proxy may say out of it.
    pub fn receive(&self, head: &mut Parts) -> Asks {
        let passes = self.pass_through.iter().any(|bearer| bearer.read(head).is_some());
        if let Some(header) = &self.forward_id {
            head.headers.remove(header);
        }
        match head.uri.path() {
            _ if passes => Asks::PassThrough,
            path if path == &*self.logout => Asks::Logout,
            path if path == &*self.callback => Asks::Callback,
            _ => Asks::Backend,
        }
    }

    /// True if the request is not sent to the provider when it has no session.
    pub fn denies_redirect(&self, head: &Parts) -> bool {
        self.deny_redirect.iter().any(|(name, wanted)| {
            let mut values = head.headers.get_all(name).iter();
            values.any(|value| value.to_str().is_ok_and(|value| wanted.accepts(value)))
        })
    }

    /// Scheme and authority that a request is for.
    pub fn origin(head: &Parts, facts: &Facts<'_>) -> String {
        let header = |name: &HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        let scheme = header(&HeaderName::from_static("x-forwarded-proto"));
        let scheme = scheme.unwrap_or(if facts.https { "https" } else { "http" });
        // A list has no place in an address; the first is the client's own.
        let scheme = scheme.split(',').next().unwrap_or_default().trim();
        let scheme = if scheme == "https" { scheme } else { "http" };
        format!("{scheme}://{}", header(&HOST).unwrap_or(facts.host))
    }

    /// Where the provider sends the browser back to.
    pub fn redirect_url(&self, head: &Parts, facts: &Facts<'_>) -> String {
        let subject = (!self.redirect.is_plain()).then(|| Subject::new(head, facts));
        let url = self
            .redirect
            .render(subject.as_ref(), facts.route, StatusCode::OK);
        String::from_utf8_lossy(&url).into_owned()
    }

    /// Where a login ends that began at `origin`, seen from the request that ends it: never at a host that does not get
    /// the session's cookies.
    pub fn landing(&self, state: &login::State, head: &Parts, facts: &Facts<'_>) -> Option<HeaderValue> {
        let here = Self::origin(head, facts);
        let host = state.origin.split_once("://").map_or("", |(_, host)| host);
        let origin = if state.origin == here || self.cookies.covers(host) {
            &state.origin
        } else {
            &here
        };
        let target = if state.target.starts_with('/') {
            &*state.target
        } else {
            "/"
        };
        HeaderValue::try_from(format!("{origin}{target}")).ok()
    }

    /// Lets a request of a session pass. False: it lacks a token that somebody is to see.
    pub fn admit(&self, record: &Record, sealer: &Sealer, head: &mut Parts) -> bool {
        let token = |holds: Holds, wanted: bool| {
            let wanted = wanted || self.cookies.shows(holds);
            wanted.then(|| record.token(sealer, &self.cookies, &head.headers, holds))
        };
        let access = token(Holds::Access, self.forward_access);
        let id = token(Holds::Id, self.forward_id.is_some());
        if access == Some(None) || id == Some(None) {
            return false;
        }
        let tokens = TokenSet {
            access: access.flatten().unwrap_or_default(),
            id: id.flatten().unwrap_or_default(),
            refresh: String::new(),
        };
        self.forward(&tokens, head);
        true
    }

    /// Shows tokens to those who are to see them; the session's cookies go no further.
    pub fn forward(&self, tokens: &TokenSet, head: &mut Parts) {
        let mut shown = Vec::with_capacity(2);
        for (holds, token) in [(Holds::Access, &tokens.access), (Holds::Id, &tokens.id)] {
            if !token.is_empty() {
                shown.push((holds, token.as_str()));
            }
        }
        self.cookies.replace(head, &shown);
        if self.forward_access {
            put(head, &AUTHORIZATION, &format!("Bearer {}", tokens.access));
        }
        match &self.forward_id {
            Some(header) if *header == AUTHORIZATION => put(head, header, &format!("Bearer {}", tokens.id)),
            Some(header) => put(head, header, &tokens.id),
            None => {}
        }
    }

    /// Takes the session's cookies out of a request that passes without it.
    pub fn strip(&self, head: &mut Parts) {
        self.cookies.replace(head, &[]);
    }

    /// Seconds for which an access token is good.
    ///
    /// # Errors
    /// If nobody says.
    pub fn seconds(&self, answer: &TokenAnswer) -> Result<u64, Fault> {
        match answer.seconds().unwrap_or(self.default_seconds) {
            0 => {
                let issuer = &self.provider.issuer;
                tracing::warn!(%issuer, "the provider's tokens have no lifetime, and defaultTokenTTL is not set");
                Err(Fault::Refused)
            }
            seconds => Ok(seconds),
        }
    }

    /// Seconds for which a refresh token is good: until its own end, if it is a JWT that has one.
    pub fn refresh_seconds(&self, token: &str) -> u64 {
        let end = token
            .split('.')
            .nth(1)
            .and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok())
            .and_then(|claims| serde_json::from_slice::<Value>(&claims).ok())
            .and_then(|claims| claims.get("exp").and_then(Value::as_u64));
        end.map_or(self.refresh_seconds, |end| end.saturating_sub(session::now()))
    }

    /// Judges an ID token (OpenID Connect Core 1.0 section 3.1.3.7); returns the user's identifier.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(
        &self,
        token: &str,
        keys: &jwt::keys::KeySet,
        nonce: Option<&str>,
    ) -> Result<String, Cow<'static, str>> {
        let claims =
            jwt::verify(token, keys, &self.validation).map_err(|fault| Cow::Borrowed(fault.text()))?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if nonce.is_some_and(|wanted| text("nonce") != Some(wanted)) {
            return Err("the nonce is another".into());
        }
        if !is_for(&claims, &self.client_id) {
            return Err("the authorized party is another".into());
        }
        let subject = text("sub").filter(|subject| !subject.is_empty());
        subject
            .map(str::to_owned)
            .ok_or_else(|| "there is no subject".into())
    }
}

impl Seals {
    fn compile(
        config: Option<&v1::SecretEntry>,
        login: &str,
        lookup: &mut dyn Lookup,
    ) -> Result<Self, String> {
        let Some(entry) = config else {
            return Ok(Self::Own(Sealer::of_process(login).map(Arc::new)));
        };
        let login = login.to_owned();
        let derived = Derived::of_entry(Some(entry), lookup, move |secret| {
            Sealer::new(secret?, &login).map(Arc::new)
        });
        derived.map(Self::Shared).map_err(|e| format!("cookie_key: {e}"))
    }
}

/// A token for several parties names the one that asked for it.
fn is_for(claims: &Claims, client: &str) -> bool {
    match (claims.get("azp"), claims.get("aud")) {
        (Some(party), _) => party.as_str() == Some(client),
        (None, Some(Value::Array(audience))) => audience.len() == 1,
        (None, _) => true,
    }
}

fn validation(issuer: &str, client: &str) -> Validation {
    // Some providers write a slash at the end in one place and not in the other.
    let bare = issuer.trim_end_matches('/');
    let mut validation = jwt::expectations(&[bare, &format!("{bare}/")], &[client]);
    validation.required_spec_claims.insert("exp".into());
    validation
}

fn put(head: &mut Parts, name: &HeaderName, value: &str) {
    match HeaderValue::try_from(value) {
        Ok(mut value) => {
            value.set_sensitive(true);
            head.headers.insert(name, value);
        }
        // What the client said in its place must not pass for it.
        Err(_) => drop(head.headers.remove(name)),
    }
}

fn path(text: &str) -> Result<Box<str>, String> {
    let uri: Result<Uri, _> = text.parse();
    match uri {
        Ok(uri) if text.starts_with('/') && uri.query().is_none() => Ok(text.into()),
        _ => Err(format!("`{}` is not a path", text.escape_debug())),
    }
}

/// The path of a URL that may have operators in its scheme and authority.
fn path_of(url: &str) -> Result<Box<str>, String> {
    let none = || format!("`{}` is not a URL with a path", url.escape_debug());
    let (scheme, rest) = url.split_once("://").ok_or_else(none)?;
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(none());
    }
    let at = rest.find('/').filter(|at| *at > 0).ok_or_else(none)?;
    path(&rest[at..]).map_err(|_| none())
}

#[cfg(test)]
mod tests;
