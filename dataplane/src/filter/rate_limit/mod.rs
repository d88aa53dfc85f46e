//! Limits on the rate of requests, counted in this process.

mod bucket;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use ipnet::IpNet;
use regex::bytes::Regex;
use sluice_config::v1;

pub use bucket::Buckets;
use bucket::{Left, Quota};

use super::authorization::{PathTest, network};
use super::{Denial, Facts, Lookup, carrier, headers};
use crate::route::{header_value, whole};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// A compiled filter.
#[derive(Debug)]
pub struct RateLimit(Box<[Rule]>);

#[derive(Debug)]
struct Rule {
    buckets: Arc<Buckets>,
    selectors: Box<[Selector]>,
    quota: Quota,
    cost: u64,
    /// `None`: as the listener says.
    shows: Option<bool>,
}

#[derive(Debug)]
struct Selector {
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

/// What a response says of the strictest limit.
type Shown = Vec<(HeaderName, HeaderValue)>;

impl RateLimit {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::RateLimit, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let mut rules = Vec::with_capacity(config.rules.len());
        for (i, rule) in config.rules.iter().enumerate() {
            rules.push(Rule::compile(rule, lookup).map_err(|e| format!("rules[{i}].{e}"))?);
        }
        Ok(Self(rules.into()))
    }

    /// Counts a request.
    ///
    /// # Errors
    /// What the client is told if it is one too many.
    pub fn check(&self, head: &Parts, facts: &Facts<'_>) -> Result<Shown, Box<Denial>> {
        let mut strictest: Option<(&Rule, Left)> = None;
        let mut distinct = Vec::new();
        for rule in &self.0 {
            distinct.clear();
            if !rule
                .selectors
                .iter()
                .all(|s| s.matches(head, facts, &mut distinct))
            {
                continue;
            }
            let left = if distinct.is_empty() {
                rule.buckets.take(rule.quota, rule.cost)
            } else {
                rule.buckets.take_distinct(&distinct, rule.quota, rule.cost)
            };
            if strictest.is_none_or(|(_, known)| left.remaining < known.remaining) || !left.allowed {
                strictest = Some((rule, left));
            }
            if !left.allowed {
                break;
            }
        }
        let Some((rule, left)) = strictest else {
            return Ok(Vec::new());
        };
        let shown = if rule.shows.unwrap_or(facts.shows_limits) {
            show(rule.quota, left)
        } else {
            Vec::new()
        };
        if left.allowed {
            return Ok(shown);
        }
        let mut headers = HeaderMap::new();
        headers.insert(RATE_LIMITED, HeaderValue::from_static("true"));
        headers.extend(shown);
        Err(Box::new(Denial {
            status: StatusCode::TOO_MANY_REQUESTS,
            headers,
            body: "local_rate_limited".into(),
            flags: "RL",
            details: "local_rate_limited",
        }))
    }
}

/// draft-polli-ratelimit-headers-03; seconds are rounded up.
fn show(quota: Quota, left: Left) -> Shown {
    let seconds = left.full_in.as_secs() + u64::from(left.full_in.subsec_nanos() > 0);
    vec![
        (LIMIT, quota.requests.into()),
        (REMAINING, left.remaining.into()),
        (RESET, seconds.into()),
    ]
}

impl Rule {
    fn compile(config: &v1::RateLimitRule, lookup: &mut dyn Lookup) -> Result<Self, String> {
        use v1::rate_limit_rule::Headers;
        if config.bucket.is_empty() {
            return Err("bucket: not named".into());
        }
        if config.unit_seconds == 0 {
            return Err("unit_seconds: is zero".into());
        }
        let selector = |(i, selector)| Selector::compile(selector).map_err(|e| format!("selectors[{i}].{e}"));
        Ok(Self {
            selectors: config
                .selectors
                .iter()
                .enumerate()
                .map(selector)
                .collect::<Result<_, _>>()?,
            buckets: lookup.store().buckets(&config.bucket),
            quota: Quota::new(config.requests, Duration::from_secs(config.unit_seconds)),
            cost: config.cost.unwrap_or(1),
            shows: match config.headers() {
                Headers::Unspecified => None,
                Headers::Off => Some(false),
                Headers::Draft03 => Some(true),
            },
        })
    }
}

impl Selector {
    fn compile(config: &v1::ClientSelector) -> Result<Self, String> {
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

    /// Appends to `distinct` the values that have buckets of their own.
    fn matches(&self, head: &Parts, facts: &Facts<'_>, distinct: &mut Vec<u8>) -> bool {
        self.methods_match(&head.method)
            && self.path.as_ref().is_none_or(|path| path.accepts(facts.path))
            && self
                .source
                .as_ref()
                .is_none_or(|source| source.matches(facts.client, distinct))
            && self
                .headers
                .iter()
                .all(|(name, test)| test.matches(header_value(head, name).as_deref(), distinct))
            && self.query.iter().all(|(name, test)| {
                let value = carrier::query(head, name);
                test.matches(value.as_deref().map(str::as_bytes), distinct)
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

    fn matches(&self, value: Option<&[u8]>, distinct: &mut Vec<u8>) -> bool {
        match (self, value) {
            (Self::Exact(wanted, invert), value) => value.is_some_and(|v| *v == **wanted) != *invert,
            (Self::Regex(regex, invert), value) => value.is_some_and(|v| regex.is_match(v)) != *invert,
            (Self::Distinct, None) => false,
            (Self::Distinct, Some(value)) => {
                separate(value, distinct);
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

    fn matches(&self, client: IpAddr, distinct: &mut Vec<u8>) -> bool {
        if self.network.contains(&client) == self.invert {
            return false;
        }
        if self.distinct {
            match client {
                IpAddr::V4(v4) => separate(&v4.octets(), distinct),
                IpAddr::V6(v6) => separate(&v6.octets(), distinct),
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

/// Appends a value so that no two lists of values look alike.
fn separate(value: &[u8], distinct: &mut Vec<u8>) {
    distinct.extend_from_slice(&value.len().to_ne_bytes());
    distinct.extend_from_slice(value);
}
