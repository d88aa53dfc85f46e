//! The cookies of a login: their names, how they are written, read and taken out of requests.
//!
//! Owns no secret: what stands in a cookie is the business of [`super::session`]. A value that is longer than browsers
//! take is spread over several cookies, `NAME`, `NAME-1`, `NAME-2` and so on.

use std::fmt::Write;

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::request::Parts;
use ring::digest;
use sluice_config::v1;

/// Longest value of one cookie. Browsers take 4096 bytes for name, value and attributes together.
const PIECE: usize = 3500;
/// Most cookies of one value.
const PIECES: usize = 8;

/// What a cookie holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// The session.
    Session,
    /// The access token.
    Access,
    /// The ID token.
    Id,
    /// The refresh token.
    Refresh,
    /// What binds a login to the browser that began it.
    Login,
}

const ALL: [Holds; 5] = [
    Holds::Session,
    Holds::Access,
    Holds::Id,
    Holds::Refresh,
    Holds::Login,
];

/// `SameSite` (RFC 6265bis).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SameSite {
    Unset,
    Lax,
    Strict,
    None,
}

/// Compiled settings.
#[derive(Debug)]
pub struct Cookies {
    names: [Box<str>; 5],
    /// Those whose tokens later filters and the backend see.
    shown: [bool; 5],
    domain: Box<str>,
    same_site: SameSite,
    /// True: access and ID token are written as they are.
    pub plain: bool,
}

impl Cookies {
    /// Reads the resource; `login` is what names are made from that it does not give.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::OidcCookies, login: &str) -> Result<Self, String> {
        use v1::oidc_cookies::SameSite as S;
        let hash = digest::digest(&digest::SHA256, login.as_bytes());
        let mut suffix = String::new();
        for byte in &hash.as_ref()[..4] {
            // Writing to memory cannot fail.
            let _ = write!(suffix, "{byte:02x}");
        }
        let made = [
            "OauthSession",
            "AccessToken",
            "IdToken",
            "RefreshToken",
            "OauthNonce",
        ]
        .map(|name| format!("{name}-{suffix}"));
        let mut names = made.map(String::into_boxed_str);
        let mut shown = [false; 5];
        for (holds, name) in [
            (Holds::Access, &config.access_token),
            (Holds::Id, &config.id_token),
        ] {
            if name.is_empty() {
                continue;
            }
            if !name.bytes().all(is_token) {
                return Err(format!("`{}` is not the name of a cookie", name.escape_debug()));
            }
            names[holds as usize] = name.as_str().into();
            shown[holds as usize] = true;
        }
        if names[Holds::Access as usize] == names[Holds::Id as usize] {
            return Err("access and ID token have one name".into());
        }
        if !config
            .domain
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
        {
            return Err(format!("domain: `{}` is none", config.domain.escape_debug()));
        }
        Ok(Self {
            names,
            shown,
            domain: config.domain.as_str().into(),
            same_site: match config.same_site() {
                S::Unspecified => SameSite::Unset,
                S::Lax => SameSite::Lax,
                S::Strict => SameSite::Strict,
                S::None => SameSite::None,
            },
            plain: config.plain,
        })
    }

    /// True if browsers send cookies only with requests that a page of the same site makes.
    pub fn is_strict(&self) -> bool {
        self.same_site == SameSite::Strict
    }

    /// True if a host may be sent back to after a login at another: it gets the same cookies.
    pub fn covers(&self, host: &str) -> bool {
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        !self.domain.is_empty()
            && (bare.eq_ignore_ascii_case(&self.domain)
                || bare
                    .to_ascii_lowercase()
                    .strip_suffix(&*self.domain)
                    .is_some_and(|rest| rest.ends_with('.')))
    }

    /// True if the token is to be shown to later filters and to the backend.
    pub fn shows(&self, holds: Holds) -> bool {
        self.shown[holds as usize]
    }

    /// The value that a request carries.
    pub fn read(&self, headers: &HeaderMap, holds: Holds) -> Option<String> {
        let name = &*self.names[holds as usize];
        let mut pieces: [Option<&str>; PIECES] = [None; PIECES];
        for (key, value) in pairs(headers) {
            if let Some(at) = piece(key, name)
                && let Some(place) = pieces.get_mut(at)
            {
                // The first holds: browsers put the one with the closest path first.
                place.get_or_insert(value);
            }
        }
        pieces[0]?;
        Some(pieces.iter().map_while(|piece| *piece).collect())
    }

    /// Sets a cookie for so many seconds; what the request carries beyond it is taken away. `None`: it is too long.
    pub fn set(
        &self,
        request: &HeaderMap,
        holds: Holds,
        value: &str,
        seconds: u64,
        into: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Option<()> {
        let name = &self.names[holds as usize];
        let count = value.len().div_ceil(PIECE);
        if count > PIECES || !value.bytes().all(is_cookie_octet) {
            return None;
        }
        for at in 0..count {
            let piece = &value[at * PIECE..value.len().min((at + 1) * PIECE)];
            self.write(&numbered(name, at), piece, holds, seconds, into)?;
        }
        self.clear_from(request, holds, count, into);
        Some(())
    }

    /// Takes the cookies of the session away, and of a login that is under way.
    pub fn clear(&self, request: &HeaderMap, into: &mut Vec<(HeaderName, HeaderValue)>) {
        for holds in ALL {
            self.clear_from(request, holds, 0, into);
        }
    }

    /// Takes away the cookies of this name that a request carries, from piece `first` on.
    pub fn clear_from(
        &self,
        request: &HeaderMap,
        holds: Holds,
        first: usize,
        into: &mut Vec<(HeaderName, HeaderValue)>,
    ) {
        let name = &self.names[holds as usize];
        let mut carried: Vec<_> = pairs(request)
            .filter_map(|(key, _)| piece(key, name).filter(|at| (first..PIECES).contains(at)))
            .collect();
        carried.sort_unstable();
        carried.dedup();
        for at in carried {
            let _ = self.write(&numbered(name, at), "deleted", holds, 0, into);
        }
    }

    fn write(
        &self,
        name: &str,
        value: &str,
        holds: Holds,
        seconds: u64,
        into: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Option<()> {
        let mut cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; Secure");
        if !self.domain.is_empty() {
            let _ = write!(cookie, "; Domain={}", self.domain);
        }
        cookie.push_str(match (self.same_site, holds) {
            (SameSite::Unset, _) => "",
            // The provider's page sends the client back: a strict cookie would not be there.
            (SameSite::Lax, _) | (SameSite::Strict, Holds::Login) => "; SameSite=Lax",
            (SameSite::Strict, _) => "; SameSite=Strict",
            (SameSite::None, _) => "; SameSite=None",
        });
        into.push((SET_COOKIE, HeaderValue::try_from(cookie).ok()?));
        Some(())
    }

    /// Takes the login's cookies out of a request on its way to the backend, and puts tokens into those that are shown.
    pub fn replace(&self, head: &mut Parts, tokens: &[(Holds, &str)]) {
        let mut line = String::new();
        let mut add = |key: &str, value: &str| {
            if !line.is_empty() {
                line.push_str("; ");
            }
            line.push_str(key);
            line.push('=');
            line.push_str(value);
        };
        let mut found = false;
        for (key, value) in pairs(&head.headers) {
            if self.names.iter().any(|name| piece(key, name).is_some()) {
                found = true;
            } else {
                add(key, value);
            }
        }
        for (holds, token) in tokens {
            if self.shows(*holds) && token.bytes().all(is_cookie_octet) {
                add(&self.names[*holds as usize], token);
                found = true;
            }
        }
        if !found {
            return;
        }
        head.headers.remove(COOKIE);
        if let Ok(line) = HeaderValue::try_from(line)
            && !line.is_empty()
        {
            head.headers.insert(COOKIE, line);
        }
    }
}

/// The cookies of a request (RFC 6265 section 5.4).
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.trim(), value.trim()))
}

/// Which piece of the value of `name` the cookie `key` is.
fn piece(key: &str, name: &str) -> Option<usize> {
    match key.strip_prefix(name)? {
        "" => Some(0),
        rest => rest
            .strip_prefix('-')?
            .parse()
            .ok()
            .filter(|at| (1..PIECES).contains(at)),
    }
}

fn numbered(name: &str, at: usize) -> String {
    match at {
        0 => name.to_owned(),
        at => format!("{name}-{at}"),
    }
}

/// RFC 6265 section 4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(change: impl FnOnce(&mut v1::OidcCookies)) -> Cookies {
        let mut config = v1::OidcCookies::default();
        change(&mut config);
        Cookies::compile(&config, "ns/policy").unwrap()
    }

    /// What a browser sends after a response that sets these cookies.
    fn browser(set: &[(HeaderName, HeaderValue)]) -> HeaderMap {
        let line: Vec<_> = set
            .iter()
            .map(|(_, value)| value.to_str().unwrap().split(';').next().unwrap())
            .collect();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("a=b; {}", line.join("; ")).parse().unwrap());
        headers
    }

    #[test]
    fn long_values_are_spread() {
        let cookies = cookies(|_| {});
        let long: String = (0..9000u32).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        let mut set = Vec::new();
        cookies
            .set(&HeaderMap::new(), Holds::Access, &long, 60, &mut set)
            .unwrap();
        assert_eq!(set.len(), 3);
        assert!(set.iter().all(|(_, value)| value.len() < 4096));
        let request = browser(&set);
        assert_eq!(cookies.read(&request, Holds::Access), Some(long));
        assert_eq!(cookies.read(&request, Holds::Id), None);
        // A shorter one takes the rest away.
        let mut set = Vec::new();
        cookies
            .set(&request, Holds::Access, "short", 60, &mut set)
            .unwrap();
        let gone = set
            .iter()
            .filter(|(_, value)| value.to_str().unwrap().contains("Max-Age=0"));
        assert_eq!(gone.count(), 2);
        let too_long = "x".repeat(PIECE * PIECES + 1);
        assert_eq!(
            cookies.set(&request, Holds::Access, &too_long, 60, &mut set),
            None
        );
        assert_eq!(cookies.set(&request, Holds::Access, "a;b", 60, &mut set), None);
    }

    #[test]
    fn attributes_are_as_configured() {
        let strict = cookies(|config| {
            config.domain = "example.com".into();
            config.set_same_site(v1::oidc_cookies::SameSite::Strict);
            config.access_token = "at".into();
        });
        let mut set = Vec::new();
        strict
            .set(&HeaderMap::new(), Holds::Access, "v", 9, &mut set)
            .unwrap();
        strict
            .set(&HeaderMap::new(), Holds::Login, "v", 9, &mut set)
            .unwrap();
        assert_eq!(
            set[0].1,
            "at=v; Path=/; Max-Age=9; HttpOnly; Secure; Domain=example.com; SameSite=Strict"
        );
        assert!(set[1].1.to_str().unwrap().ends_with("SameSite=Lax"));
        assert!(strict.covers("example.com") && strict.covers("App.example.com:8443"));
        assert!(!strict.covers("notexample.com") && !strict.covers("example.com.evil"));
        for broken in ["a;b", "a b", "a="] {
            let config = v1::OidcCookies {
                id_token: broken.into(),
                ..Default::default()
            };
            assert!(Cookies::compile(&config, "x").is_err(), "{broken}");
        }
    }

    #[test]
    fn backends_see_only_what_is_shown() {
        let cookies = cookies(|config| config.id_token = "id".into());
        let mut set = Vec::new();
        for holds in ALL {
            cookies
                .set(&HeaderMap::new(), holds, "sealed", 60, &mut set)
                .unwrap();
        }
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.headers = browser(&set);
        cookies.replace(&mut head, &[(Holds::Access, "secret"), (Holds::Id, "a.b.c")]);
        assert_eq!(head.headers[COOKIE], "a=b; id=a.b.c");
        cookies.replace(&mut head, &[]);
        assert_eq!(head.headers[COOKIE], "a=b");
    }
}
