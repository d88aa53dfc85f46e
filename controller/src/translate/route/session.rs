//! Session persistence, of a rule or of what its backends' policies ask for.
//!
//! Owns the defaults: names of cookies and their paths.

use std::fmt;

use sha2::{Digest, Sha256};
use sluice_config::v1;
use sluice_config::v1::session_persistence::Kind as SessionKind;
use sluice_crds::gateway::{CookieLifetimeType, Duration, SessionPersistence, SessionPersistenceType};

use crate::translate::fault::Fault;

/// Translates session persistence. `owner` names what it belongs to: the default name of the cookie is made of it.
pub fn translate(
    from: &SessionPersistence,
    owner: fmt::Arguments<'_>,
    field: fmt::Arguments<'_>,
) -> Result<v1::SessionPersistence, Fault> {
    let absolute_timeout_ms = from.absolute_timeout.map(millis).unwrap_or_default();
    let (kind, name) = match from.type_.as_ref().unwrap_or(&SessionPersistenceType::Cookie) {
        SessionPersistenceType::Cookie => {
            let given = from.cookie.as_ref().and_then(|cookie| cookie.name.clone());
            (SessionKind::Cookie, given.unwrap_or_else(|| cookie_name(owner)))
        }
        SessionPersistenceType::Header => match &from.header {
            Some(header) => (SessionKind::Header, header.name.to_ascii_lowercase()),
            None => {
                return Err(Fault::unsupported(
                    format_args!("{field}.header"),
                    "type Header needs it",
                ));
            }
        },
        SessionPersistenceType::Other(kind) => {
            let why = format_args!("{kind:?} is not a type of session persistence");
            return Err(Fault::unsupported(format_args!("{field}.type"), why));
        }
    };
    // Cookie names have the syntax of header names (RFC 6265, section 4.1.1).
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(Fault::unsupported(
            field,
            format_args!("{name:?} is not the name of a header or cookie"),
        ));
    }
    let permanent = match from
        .cookie
        .as_ref()
        .and_then(|cookie| cookie.lifetime_type.as_ref())
    {
        None | Some(CookieLifetimeType::Session) => false,
        Some(CookieLifetimeType::Permanent) => true,
        Some(CookieLifetimeType::Other(kind)) => {
            let why = format_args!("{kind:?} is not a lifetime of cookies");
            return Err(Fault::unsupported(
                format_args!("{field}.cookie.lifetimeType"),
                why,
            ));
        }
    };
    if permanent && absolute_timeout_ms == 0 {
        let why = "a permanent cookie needs it";
        return Err(Fault::unsupported(format_args!("{field}.absoluteTimeout"), why));
    }
    let path = from
        .cookie
        .as_ref()
        .and_then(|cookie| cookie.path.clone())
        .unwrap_or_else(|| "/".to_owned());
    if path.bytes().any(|b| b == b';' || b.is_ascii_control()) {
        let why = format_args!("{path:?} is not a path");
        return Err(Fault::unsupported(format_args!("{field}.cookie.path"), why));
    }
    Ok(v1::SessionPersistence {
        kind: kind.into(),
        name,
        absolute_timeout_ms,
        idle_timeout_ms: 0,
        permanent,
        cookie_path: if kind == SessionKind::Cookie {
            path
        } else {
            String::new()
        },
    })
}

/// Milliseconds of a duration.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.get().as_millis()).unwrap_or(u64::MAX)
}

/// Unique for the owner, the same after a restart, and without a word of what is behind it.
fn cookie_name(owner: fmt::Arguments<'_>) -> String {
    let digest = Sha256::digest(owner.to_string());
    digest
        .iter()
        .take(8)
        .fold("sluice-session-".to_owned(), |mut name, byte| {
            use fmt::Write;
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
            name
        })
}
