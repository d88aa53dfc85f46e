//! Which listener, and which rule, a request belongs to. (Skeleton.)

use std::sync::Arc;

use crate::filter::Filter;
use crate::listen::TlsSession;
use crate::rule::Rule;

/// One listener, as requests see it.
#[derive(Debug)]
pub struct Listener {
    /// `namespace/parent/listener`.
    pub name: Arc<str>,
    /// True if it terminates TLS for HTTP.
    pub https: bool,
    /// The port as clients know it.
    pub port: u16,
    /// Lower case; empty: any; `*.example.com`: any below.
    pub hostname: Box<str>,
    /// Filters of the listener itself; they run before those of a route.
    pub filters: Vec<Filter>,
}

/// One port and what is served on it; stable while its content changes.
#[derive(Debug)]
pub struct Port {
    number: u16,
}

impl Port {
    /// As clients know it.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Finds the rule for a request. `host` is lower case and without port.
    pub fn find(&self, host: &str, head: &http::request::Parts, tls: Option<&TlsSession>) -> Outcome {
        let _ = (host, head, tls);
        Outcome::NoRoute(None)
    }
}

/// What was found for a request.
#[derive(Debug)]
pub enum Outcome {
    /// A rule.
    Matched(Matched),
    /// Nothing: 404.
    NoRoute(Option<Arc<Listener>>),
    /// The host belongs to another listener than the connection: 421.
    Misdirected,
}

/// A rule, and how it was matched.
#[derive(Debug)]
pub struct Matched {
    /// The listener that the request belongs to.
    pub listener: Arc<Listener>,
    /// The rule.
    pub rule: Arc<Rule>,
    /// Length of the path prefix that matched.
    pub prefix: Option<usize>,
}
