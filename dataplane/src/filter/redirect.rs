//! Redirects (Gateway API's HTTPRequestRedirectFilter).

use http::StatusCode;
use http::header::HeaderValue;
use http::request::Parts;
use sluice_config::v1;

use super::path::PathModifier;
use super::{Facts, status};

/// A compiled redirect.
#[derive(Debug)]
pub struct Redirect {
    scheme: Option<Box<str>>,
    host: Option<Box<str>>,
    path: Option<PathModifier>,
    port: Option<u16>,
    status: StatusCode,
}

impl Redirect {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Redirect) -> Result<Self, String> {
        let optional = |text: &str| (!text.is_empty()).then(|| text.into());
        let port = match config.port {
            0 => None,
            port => Some(u16::try_from(port).map_err(|_| format!("port: {port} is not a port"))?),
        };
        let status = match config.status {
            0 => StatusCode::FOUND,
            code => status(code).map_err(|e| format!("status: {e}"))?,
        };
        if !status.is_redirection() {
            return Err(format!("status: {status} does not redirect"));
        }
        Ok(Self {
            scheme: optional(&config.scheme),
            host: optional(&config.hostname),
            path: config
                .path
                .as_ref()
                .map(PathModifier::compile)
                .transpose()?
                .flatten(),
            port,
            status,
        })
    }

    /// Status and Location of the answer to this request; `None` if the request's own host or path cannot stand in
    /// a header.
    pub fn answer(&self, head: &Parts, facts: &Facts<'_>) -> Option<(StatusCode, HeaderValue)> {
        let own_scheme = if facts.https { "https" } else { "http" };
        let scheme = self.scheme.as_deref().unwrap_or(own_scheme);
        let well_known = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let port = match (self.port, &self.scheme) {
            (Some(port), _) => port,
            (None, Some(_)) => well_known.unwrap_or(facts.listener_port),
            (None, None) => facts.listener_port,
        };
        let host = self.host.as_deref().unwrap_or(facts.host);
        let mut location = format!("{scheme}://{host}");
        if Some(port) != well_known {
            location.push(':');
            location.push_str(&port.to_string());
        }
        match &self.path {
            Some(modifier) => location.push_str(&modifier.apply(facts.path, facts.prefix)),
            None => location.push_str(head.uri.path()),
        }
        if let Some(query) = head.uri.query() {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::try_from(location)
            .ok()
            .map(|value| (self.status, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(config: &v1::Redirect, https: bool, listener_port: u16) -> (u16, String) {
        let (head, ()) = http::Request::get("/a/b?c=d").body(()).unwrap().into_parts();
        let facts = Facts {
            host: "own.example",
            client: std::net::Ipv4Addr::LOCALHOST.into(),
            route: "",
            shows_limits: true,
            path: "/a/b",
            https,
            listener_port,
            prefix: Some(2),
        };
        let (status, location) = Redirect::compile(config).unwrap().answer(&head, &facts).unwrap();
        (status.as_u16(), location.to_str().unwrap().to_owned())
    }

    #[test]
    fn ports_follow_scheme_and_listener() {
        let redirect = |scheme: &str, port| v1::Redirect {
            scheme: scheme.into(),
            port,
            ..Default::default()
        };
        for (scheme, port, https, listener, expected) in [
            ("", 0, false, 80, "http://own.example/a/b?c=d"),
            ("", 0, false, 8080, "http://own.example:8080/a/b?c=d"),
            ("", 0, true, 443, "https://own.example/a/b?c=d"),
            ("https", 0, false, 8080, "https://own.example/a/b?c=d"),
            ("http", 0, true, 8443, "http://own.example/a/b?c=d"),
            ("https", 8443, false, 80, "https://own.example:8443/a/b?c=d"),
            ("", 443, true, 8443, "https://own.example/a/b?c=d"),
            ("", 80, true, 443, "https://own.example:80/a/b?c=d"),
        ] {
            assert_eq!(
                location(&redirect(scheme, port), https, listener),
                (302, expected.to_owned())
            );
        }
    }

    #[test]
    fn host_path_and_status() {
        let config = v1::Redirect {
            hostname: "other.example".into(),
            path: Some(v1::PathModifier {
                modifier: Some(v1::path_modifier::Modifier::ReplacePrefixMatch("/x".into())),
            }),
            status: 308,
            ..Default::default()
        };
        assert_eq!(
            location(&config, false, 80),
            (308, "http://other.example/x/b?c=d".to_owned())
        );
        assert!(
            Redirect::compile(&v1::Redirect {
                status: 200,
                ..Default::default()
            })
            .is_err()
        );
    }
}
