//! Which requests a limit counts.

use std::net::IpAddr;

use http::Method;
use http::header::HeaderName;
use http::request::Parts;
use ipnet::IpNet;
use regex::bytes::Regex;
use sluice_config::v1;

use crate::filter::authorization::{PathTest, network};
use crate::filter::{Facts, carrier, headers};
use crate::route::{header_value, whole};

/// What a value is of that has a count of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attribute<'a> {
    /// A header.
    Header(&'a HeaderName),
    /// The client's address.
    Source(IpAddr),
    /// A query parameter.
    Query(&'a str),
}

/// Takes the values that have counts of their own.
pub(super) trait Distinct {
    /// One of them. They come in the order of the selectors.
    fn add(&mut self, of: Attribute<'_>, value: &[u8]);
}

/// A digest's input: no two lists of values look alike. What they are of is the same for all requests that a rule
/// counts.
impl Distinct for Vec<u8> {
    fn add(&mut self, _: Attribute<'_>, value: &[u8]) {
        self.extend_from_slice(&value.len().to_ne_bytes());
        self.extend_from_slice(value);
    }
}

/// A compiled selector.
#[derive(Debug)]
pub(super) struct Selector {
    headers: Box<[(HeaderName, ValueTest)]>,
    methods: Box<[(Method, bool)]>,
    path: Option<PathTest>,
    source: Option<SourceTest>,
    query: Box<[(Box<str>, ValueTest)]>,
}

#[derive(Debug)]
enum ValueTest {
    Exact(Box<[u8]>, bool),
    Regex(Regex, bool),
    Distinct,
}

#[derive(Debug)]
struct SourceTest {
    network: IpNet,
    distinct: bool,
    invert: bool,
}

impl Selector {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub(super) fn compile(config: &v1::ClientSelector) -> Result<Self, String> {
        let header = |config: &v1::SelectorValue| {
            Ok::<_, String>((headers::name(&config.name)?, ValueTest::compile(config)?))
        };
        let parameter = |config: &v1::SelectorValue| {
            Ok::<_, String>((config.name.as_str().into(), ValueTest::compile(config)?))
        };
        let method = |config: &v1::MethodMatch| {
            let method = Method::from_bytes(config.method.as_bytes())
                .map_err(|_| format!("`{}` is not one", config.method))?;
            Ok::<_, String>((method, config.invert))
        };
        Ok(Self {
            headers: each("headers", &config.headers, header)?,
            methods: each("methods", &config.methods, method)?,
            path: config.path.as_ref().map(PathTest::compile).transpose()?,
            source: config.source.as_ref().map(SourceTest::compile).transpose()?,
            query: each("query", &config.query, parameter)?,
        })
    }

    /// True if it selects the request. Gives `distinct` the values that have counts of their own.
    pub(super) fn matches(&self, head: &Parts, facts: &Facts<'_>, distinct: &mut impl Distinct) -> bool {
        self.methods_match(&head.method)
            && self.path.as_ref().is_none_or(|path| path.accepts(facts.path))
            && self
                .source
                .as_ref()
                .is_none_or(|source| source.matches(facts.client, distinct))
            && self.headers.iter().all(|(name, test)| {
                let value = header_value(head, name);
                test.matches(value.as_deref(), Attribute::Header(name), distinct)
            })
            && self.query.iter().all(|(name, test)| {
                let value = carrier::query(head, name);
                let value = value.as_deref().map(str::as_bytes);
                test.matches(value, Attribute::Query(name), distinct)
            })
    }

    fn methods_match(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|(wanted, invert)| (wanted == method) != *invert)
    }
}

impl ValueTest {
    fn compile(config: &v1::SelectorValue) -> Result<Self, String> {
        use v1::selector_value::Kind;
        Ok(match config.kind() {
            Kind::Exact => Self::Exact(config.value.as_bytes().into(), config.invert),
            Kind::Regex => Self::Regex(whole(&config.value)?, config.invert),
            Kind::Distinct => Self::Distinct,
            Kind::Unspecified => return Err("kind: not set, or one that this version does not know".into()),
        })
    }

    fn matches(&self, value: Option<&[u8]>, of: Attribute<'_>, distinct: &mut impl Distinct) -> bool {
        match (self, value) {
            (Self::Exact(wanted, invert), value) => value.is_some_and(|v| *v == **wanted) != *invert,
            (Self::Regex(regex, invert), value) => value.is_some_and(|v| regex.is_match(v)) != *invert,
            (Self::Distinct, None) => false,
            (Self::Distinct, Some(value)) => {
                distinct.add(of, value);
                true
            }
        }
    }
}

impl SourceTest {
    fn compile(config: &v1::SourceMatch) -> Result<Self, String> {
        Ok(Self {
            network: network(&config.cidr).map_err(|e| format!("source.cidr: {e}"))?,
            distinct: config.distinct,
            invert: config.invert,
        })
    }

    fn matches(&self, client: IpAddr, distinct: &mut impl Distinct) -> bool {
        if self.network.contains(&client) == self.invert {
            return false;
        }
        if self.distinct {
            match client {
                IpAddr::V4(v4) => distinct.add(Attribute::Source(client), &v4.octets()),
                IpAddr::V6(v6) => distinct.add(Attribute::Source(client), &v6.octets()),
            }
        }
        true
    }
}

/// Compiles a list.
fn each<'c, C, T>(
    field: &str,
    config: &'c [C],
    compile: impl Fn(&'c C) -> Result<T, String>,
) -> Result<Box<[T]>, String> {
    let all: Result<_, String> = config.iter().map(compile).collect();
    all.map_err(|e| format!("{field}: {e}"))
}
