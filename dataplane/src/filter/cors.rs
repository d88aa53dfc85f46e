//! Cross-origin resource sharing (the Fetch standard's CORS protocol, Gateway API's HTTPCORSFilter).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN,
};
use http::{HeaderMap, Method, request};
use sluice_config::v1;

use super::headers;

/// A compiled CORS policy.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
    methods: Names,
    request_headers: Names,
    expose: Names,
    max_age: HeaderValue,
}

/// One entry of `allow_origins`.
#[derive(Debug)]
enum Origin {
    Any,
    Exact(Box<str>),
    /// What stands before and after the `*`, which matches any number of characters.
    Wildcard(Box<str>, Box<str>),
}

/// A list that a response header carries.
#[derive(Debug)]
enum Names {
    Empty,
    Any,
    List(HeaderValue),
}

impl Names {
    fn compile(names: &[String]) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(Self::Empty);
        }
        if names.iter().any(|name| name == "*") {
            return Ok(Self::Any);
        }
        headers::value(&names.join(", ")).map(Self::List)
    }

    /// The header's value. With credentials `*` would be taken literally by browsers, so the request's own wish is
    /// repeated instead.
    fn value(&self, credentials: bool, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::Empty => None,
            Self::List(value) => Some(value.clone()),
            Self::Any if credentials => asked.cloned(),
            Self::Any => Some(HeaderValue::from_static("*")),
        }
    }
}

impl Cors {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Cors) -> Result<Self, String> {
        let names =
            |field: &str, names: &[String]| Names::compile(names).map_err(|e| format!("{field}: {e}"));
        Ok(Self {
            origins: config.allow_origins.iter().map(|o| Origin::compile(o)).collect(),
            credentials: config.allow_credentials,
            methods: names("allow_methods", &config.allow_methods)?,
            request_headers: names("allow_headers", &config.allow_headers)?,
            expose: names("expose_headers", &config.expose_headers)?,
            max_age: HeaderValue::from(if config.max_age == 0 { 5 } else { config.max_age }),
        })
    }

    /// The headers of the answer to a preflight; `None` if the request is none.
    pub fn preflight(&self, head: &request::Parts) -> Option<HeaderMap> {
        let origin = head.headers.get(ORIGIN)?;
        let method = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        if head.method != Method::OPTIONS {
            return None;
        }
        let mut out = HeaderMap::new();
        if !self.allows(origin) {
            return Some(out);
        }
        self.grant(origin, &mut out);
        let asked_headers = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(value) = self.methods.value(self.credentials, Some(method)) {
            out.insert(ACCESS_CONTROL_ALLOW_METHODS, value);
        }
        if let Some(value) = self.request_headers.value(self.credentials, asked_headers) {
            out.insert(ACCESS_CONTROL_ALLOW_HEADERS, value);
        }
        out.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        Some(out)
    }

    /// The request's origin, if the response is to be shared with it.
    pub fn allowed_origin(&self, head: &request::Parts) -> Option<HeaderValue> {
        head.headers
            .get(ORIGIN)
            .filter(|origin| self.allows(origin))
            .cloned()
    }

    /// Lets `origin` read the response.
    pub fn grant(&self, origin: &HeaderValue, out: &mut HeaderMap) {
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            out.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(value) = self.expose.value(self.credentials, None) {
            out.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = normal(origin);
        self.origins.iter().any(|allowed| match allowed {
            Origin::Any => true,
            Origin::Exact(text) => **text == *origin,
            Origin::Wildcard(before, after) => {
                origin.len() > before.len() + after.len()
                    && origin.starts_with(&**before)
                    && origin.ends_with(&**after)
            }
        })
    }
}

impl Origin {
    fn compile(text: &str) -> Self {
        if text == "*" {
            return Self::Any;
        }
        let text = normal(text);
        match text.split_once('*') {
            None => Self::Exact(text.into()),
            Some((before, after)) => Self::Wildcard(before.into(), after.into()),
        }
    }
}

/// Lower case, without the scheme's own port.
fn normal(origin: &str) -> String {
    let lower = origin.to_ascii_lowercase();
    let port = if lower.starts_with("https://") {
        ":443"
    } else {
        ":80"
    };
    match lower.strip_suffix(port) {
        Some(bare) => bare.to_owned(),
        None => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str], credentials: bool, methods: &[&str], headers: &[&str]) -> Cors {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Cors::compile(&v1::Cors {
            allow_origins: owned(origins),
            allow_credentials: credentials,
            allow_methods: owned(methods),
            allow_headers: owned(headers),
            expose_headers: owned(&["x-a", "x-b"]),
            max_age: 0,
        })
        .unwrap()
    }

    fn preflight(cors: &Cors, origin: &str) -> HeaderMap {
        let request = http::Request::options("/")
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "PUT")
            .header(ACCESS_CONTROL_REQUEST_HEADERS, "x-1, x-2")
            .body(())
            .unwrap();
        cors.preflight(&request.into_parts().0).unwrap()
    }

    #[test]
    fn origins() {
        let cors = cors(
            &[
                "https://www.foo.com",
                "https://*.bar.com",
                "http://*.qux.com:8080",
            ],
            false,
            &[],
            &[],
        );
        for (origin, allowed) in [
            ("https://www.foo.com", true),
            ("https://www.foo.com:443", true),
            ("http://www.foo.com", false),
            ("https://a.b.bar.com", true),
            ("https://bar.com", false),
            ("https://.bar.com", false),
            ("http://a.qux.com:8080", true),
            ("http://a.qux.com", false),
            ("https://www.foo.com.evil.example", false),
        ] {
            assert_eq!(
                preflight(&cors, origin).contains_key(ACCESS_CONTROL_ALLOW_ORIGIN),
                allowed,
                "{origin}"
            );
        }
    }

    #[test]
    fn a_wildcard_is_never_sent_with_credentials() {
        let out = preflight(&cors(&["*"], true, &["*"], &["*"]), "https://a.example");
        assert_eq!(out[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(out[ACCESS_CONTROL_ALLOW_METHODS], "PUT");
        assert_eq!(out[ACCESS_CONTROL_ALLOW_HEADERS], "x-1, x-2");
        assert_eq!(out[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(out[ACCESS_CONTROL_MAX_AGE], "5");
        let out = preflight(&cors(&["*"], false, &["GET", "PUT"], &["*"]), "https://a.example");
        assert_eq!(out[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        assert_eq!(out[ACCESS_CONTROL_ALLOW_HEADERS], "*");
        assert_eq!(out[ACCESS_CONTROL_EXPOSE_HEADERS], "x-a, x-b");
        assert!(!out.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn an_ordinary_options_request_is_no_preflight() {
        let request = http::Request::options("/")
            .header(ORIGIN, "https://a.example")
            .body(())
            .unwrap();
        assert!(
            cors(&["*"], false, &[], &[])
                .preflight(&request.into_parts().0)
                .is_none()
        );
    }
}
