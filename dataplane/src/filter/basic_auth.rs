//! Names and passwords (RFC 7617), against a file of users as htpasswd writes it with `{SHA}`.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use sluice_config::v1;
use subtle::ConstantTimeEq;

use super::secret::Derived;
use super::{Denial, Facts, Lookup, headers};

/// Length of a SHA-1 digest in bytes.
const SHA1_LEN: usize = 20;

/// A compiled filter.
#[derive(Debug)]
pub struct BasicAuth {
    users: Derived<Users>,
    forward: Option<HeaderName>,
}

/// Digests of passwords by user.
struct Users(HashMap<Box<str>, [u8; SHA1_LEN]>);

impl BasicAuth {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::BasicAuth, lookup: &mut dyn Lookup) -> Result<Self, String> {
        Ok(Self {
            users: Derived::of_entry(config.users.as_ref(), lookup, Users::parse)
                .map_err(|e| format!("users: {e}"))?,
            forward: headers::optional_name(&config.forward_username_header)
                .map_err(|e| format!("forward_username_header: {e}"))?,
        })
    }

    /// Lets the request of a known user pass.
    ///
    /// # Errors
    /// What the client is told otherwise.
    pub fn check(&self, head: &mut Parts, facts: &Facts<'_>) -> Result<(), Box<Denial>> {
        let name = self
            .user(head)
            .map_err(|(body, details)| denied(body, details, head, facts))?;
        if let Some(header) = &self.forward {
            head.headers.remove(header);
            if let Ok(name) = HeaderValue::try_from(name) {
                head.headers.insert(header, name);
            }
        }
        Ok(())
    }

    fn user(&self, head: &Parts) -> Result<String, (&'static str, &'static str)> {
        const MISSING: &str = "User authentication failed. Missing username and password.";
        const INVALID: &str = "User authentication failed. Invalid username/password combination.";
        let Some(given) = head.headers.get(AUTHORIZATION) else {
            return Err((MISSING, "no_credential_found_for_basic_auth"));
        };
        let encoded = given
            .to_str()
            .ok()
            .and_then(|text| text.split_at_checked(6))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic "))
            .ok_or((INVALID, "invalid_scheme_for_basic_auth"))?
            .1;
        let decoded = STANDARD.decode(encoded.trim()).ok();
        let (name, password) = decoded
            .as_deref()
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| pair.split_once(':'))
            .ok_or((INVALID, "invalid_format_for_basic_auth"))?;
        if self.users.get().holds(name, password) {
            Ok(name.to_owned())
        } else {
            Err((INVALID, "invalid_credential_for_basic_auth"))
        }
    }
}

impl Users {
    /// Lines that are not understood are left out: their users cannot log in, the others can.
    fn parse(file: Option<&[u8]>) -> Self {
        let text = String::from_utf8_lossy(file.unwrap_or_default());
        let mut users = HashMap::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some((name, sum)) = parse_line(line) {
                users.insert(name.into(), sum);
            } else {
                tracing::warn!(line = number + 1, "users: not `name:{{SHA}}digest`");
            }
        }
        Self(users)
    }

    fn holds(&self, name: &str, password: &str) -> bool {
        let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        // An unknown name takes as long as a wrong password.
        let unknown = [0; SHA1_LEN];
        let (wanted, known) = match self.0.get(name) {
            Some(wanted) => (wanted, true),
            None => (&unknown, false),
        };
        bool::from(sum.as_ref().ct_eq(wanted)) && known
    }
}

fn parse_line(line: &str) -> Option<(&str, [u8; SHA1_LEN])> {
    let (name, sum) = line.split_once(':')?;
    let sum = STANDARD.decode(sum.strip_prefix("{SHA}")?).ok()?;
    Some((name, sum.try_into().ok()?)).filter(|(name, _)| !name.is_empty())
}

fn denied(body: &'static str, details: &'static str, head: &Parts, facts: &Facts<'_>) -> Box<Denial> {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::try_from(format!("Basic realm=\"{}\"", realm(head, facts))) {
        headers.insert(WWW_AUTHENTICATE, value);
    }
    Box::new(Denial {
        status: StatusCode::UNAUTHORIZED,
        headers,
        body: body.into(),
        flags: "UAEX",
        details,
    })
}

/// What was asked for, without the query, as a quoted string may hold it.
pub(super) fn realm(head: &Parts, facts: &Facts<'_>) -> String {
    let scheme = if facts.https { "https" } else { "http" };
    let host = head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let escaped = |text: &str| text.replace('\\', "%5C").replace('"', "%22");
    format!("{scheme}://{}{}", escaped(host), escaped(facts.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_compared() {
        // `printf password | openssl sha1 -binary | base64`
        let file = b"# users\nalice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n\nbob:$apr1$x\n:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\nzed:{SHA}AAAA\n";
        let users = Users::parse(Some(file));
        assert_eq!(users.0.len(), 1);
        assert!(users.holds("alice", "password"));
        assert!(!users.holds("alice", "passwords"));
        assert!(!users.holds("bob", "password"));
        assert!(!users.holds("", "password"));
        assert!(!Users::parse(None).holds("alice", "password"));
        assert!(!Users::parse(Some(b"\xff\xfe")).holds("", ""));
    }
}
