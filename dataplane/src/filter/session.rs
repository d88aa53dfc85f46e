//! Session persistence: requests of one session go to one endpoint.
//!
//! The session is a token in a cookie or a header that names the endpoint and when the session began and was last
//! used. The proxy itself remembers nothing, so every replica honours every token. A token is only ever a wish: an
//! endpoint that is not in the backend's set is not chosen because a client names it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{COOKIE, HeaderName, HeaderValue, SET_COOKIE};
use sluice_config::v1;

use super::headers;

/// Compiled session persistence of a rule.
#[derive(Debug)]
pub struct Persistence {
    carrier: Carrier,
    absolute: Option<Duration>,
    idle: Option<Duration>,
}

#[derive(Debug)]
enum Carrier {
    Cookie {
        name: Box<str>,
        /// What follows the value.
        attributes: Box<str>,
    },
    Header(HeaderName),
}

/// A session as a request carried it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The endpoint that the session is bound to.
    pub endpoint: SocketAddr,
    began_ms: u64,
    used_ms: u64,
}

impl Persistence {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::SessionPersistence) -> Result<Self, String> {
        let duration = |ms: u64| (ms != 0).then(|| Duration::from_millis(ms));
        let absolute = duration(config.absolute_timeout_ms);
        let carrier = match config.kind() {
            v1::session_persistence::Kind::Header => {
                Carrier::Header(headers::name(&config.name).map_err(|e| format!("name: {e}"))?)
            }
            _ => cookie(config, absolute)?,
        };
        Ok(Self {
            carrier,
            absolute,
            idle: duration(config.idle_timeout_ms),
        })
    }

    /// The request's session, if it has one that is still valid.
    pub fn read(&self, headers: &HeaderMap) -> Option<Session> {
        let session = match &self.carrier {
            Carrier::Header(name) => decode(headers.get(name)?.to_str().ok()?)?,
            Carrier::Cookie { name, .. } => headers
                .get_all(COOKIE)
                .iter()
                .filter_map(|line| line.to_str().ok())
                .flat_map(|line| line.split(';'))
                .filter_map(|pair| pair.trim().split_once('='))
                .find(|(key, _)| *key == &**name)
                .and_then(|(_, value)| decode(value.trim_matches('"')))?,
        };
        let now = now_ms();
        let within = |limit: Option<Duration>, since: u64| {
            limit.is_none_or(|limit| Duration::from_millis(now.saturating_sub(since)) <= limit)
        };
        (within(self.absolute, session.began_ms) && within(self.idle, session.used_ms)).then_some(session)
    }

    /// Tells the client its session, if it does not know it yet or if using it prolongs it.
    pub fn write(&self, known: Option<Session>, endpoint: SocketAddr, headers: &mut HeaderMap) {
        let now = now_ms();
        let session = match known.filter(|session| session.endpoint == endpoint) {
            Some(session) if self.idle.is_none() => {
                // A header has no memory of its own on the client: it is repeated on every response.
                if matches!(self.carrier, Carrier::Cookie { .. }) {
                    return;
                }
                session
            }
            Some(session) => Session {
                used_ms: now,
                ..session
            },
            None => Session {
                endpoint,
                began_ms: now,
                used_ms: now,
            },
        };
        let token = encode(&session);
        match &self.carrier {
            Carrier::Header(name) => {
                if let Ok(value) = HeaderValue::try_from(token) {
                    headers.insert(name, value);
                }
            }
            Carrier::Cookie { name, attributes } => {
                if let Ok(value) = HeaderValue::try_from(format!("{name}={token}{attributes}")) {
                    headers.append(SET_COOKIE, value);
                }
            }
        }
    }
}

fn cookie(config: &v1::SessionPersistence, absolute: Option<Duration>) -> Result<Carrier, String> {
    let name = config.name.as_str();
    if name.is_empty()
        || !name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
    {
        return Err(format!("name: `{name}` is not a cookie name"));
    }
    let path = if config.cookie_path.is_empty() {
        "/"
    } else {
        &config.cookie_path
    };
    if path.bytes().any(|b| b == b';' || b.is_ascii_control()) {
        return Err(format!("cookie_path: `{}` is not a path", path.escape_debug()));
    }
    let mut attributes = format!("; Path={path}; HttpOnly");
    if config.permanent {
        let age = absolute.ok_or("absolute_timeout_ms: a permanent cookie needs it")?;
        attributes.push_str("; Max-Age=");
        attributes.push_str(&age.as_secs().to_string());
    }
    Ok(Carrier::Cookie {
        name: name.into(),
        attributes: attributes.into(),
    })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn encode(session: &Session) -> String {
    URL_SAFE_NO_PAD.encode(format!(
        "{};{};{}",
        session.endpoint, session.began_ms, session.used_ms
    ))
}

fn decode(token: &str) -> Option<Session> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let mut parts = text.split(';');
    let session = Session {
        endpoint: parts.next()?.parse().ok()?,
        began_ms: parts.next()?.parse().ok()?,
        used_ms: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persistence(kind: v1::session_persistence::Kind) -> Persistence {
        Persistence::compile(&v1::SessionPersistence {
            kind: kind.into(),
            name: "sticky".into(),
            absolute_timeout_ms: 60_000,
            permanent: true,
            ..Default::default()
        })
        .unwrap()
    }

    #[test]
    fn a_cookie_comes_back() {
        let persistence = persistence(v1::session_persistence::Kind::Cookie);
        let endpoint = "10.1.2.3:80".parse().unwrap();
        let mut response = HeaderMap::new();
        persistence.write(None, endpoint, &mut response);
        let cookie = response[SET_COOKIE].to_str().unwrap();
        assert!(cookie.ends_with("; Path=/; HttpOnly; Max-Age=60"), "{cookie}");
        let mut request = HeaderMap::new();
        let pair = cookie.split(';').next().unwrap();
        request.insert(COOKIE, format!("a=b; {pair}; c=d").parse().unwrap());
        let session = persistence.read(&request).unwrap();
        assert_eq!(session.endpoint, endpoint);
        let mut again = HeaderMap::new();
        persistence.write(Some(session), endpoint, &mut again);
        assert!(again.is_empty());
        persistence.write(Some(session), "10.1.2.4:80".parse().unwrap(), &mut again);
        assert!(again.contains_key(SET_COOKIE));
    }

    #[test]
    fn old_and_broken_tokens_are_ignored() {
        let persistence = persistence(v1::session_persistence::Kind::Header);
        let mut request = HeaderMap::new();
        for token in [
            "",
            "!!!",
            "MTAuMS4yLjM",
            &encode(&Session {
                endpoint: "10.1.2.3:80".parse().unwrap(),
                began_ms: now_ms() - 61_000,
                used_ms: now_ms(),
            }),
        ] {
            request.insert("sticky", token.parse().unwrap());
            assert_eq!(persistence.read(&request), None, "{token}");
        }
    }
}
