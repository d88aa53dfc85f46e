//! Limits on the rate of requests: [`RateLimit`] counts in this process, [`GlobalRateLimit`] has a service count.
//!
//! Owns the settings, the counts of the former and what is said to the latter. Asking it is the forwarder's business.

mod bucket;
mod global;
pub mod proto;
mod selector;

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use sluice_config::v1;
use sluice_config::v1::rate_limit_rule::Headers;

pub use bucket::Buckets;
use bucket::{Left, Quota};
pub use global::{GlobalRateLimit, Question, Service};
use selector::Selector;

use super::{Denial, Facts, Lookup};

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
    response_cost: u64,
    shadow: bool,
    /// `None`: as the listener says.
    shows: Option<bool>,
}

/// What limits have come to for a request.
#[derive(Debug, Default)]
pub struct Tally {
    /// What the client is told.
    shown: Option<Shown>,
    /// What the response costs. Each is paid when it is dropped: when the response has ended, or the request has been
    /// given up.
    charges: Vec<Charge>,
}

/// What a response says of the strictest limit (draft-polli-ratelimit-headers-03).
#[derive(Debug)]
struct Shown {
    limit: HeaderValue,
    remaining: u64,
    /// Seconds.
    reset: u64,
    /// The request was one too many.
    exceeded: bool,
}

/// Tokens that a response costs in this process.
#[derive(Debug)]
struct Charge {
    buckets: Arc<Buckets>,
    values: Vec<u8>,
    quota: Quota,
    cost: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.buckets.charge(&self.values, self.quota, self.cost);
    }
}

impl Tally {
    /// Tells the client.
    pub fn show(&self, headers: &mut HeaderMap) {
        if let Some(shown) = &self.shown {
            headers.append(LIMIT, shown.limit.clone());
            headers.append(REMAINING, shown.remaining.into());
            headers.append(RESET, shown.reset.into());
        }
    }

    /// Takes note of a limit, which is shown if it is the strictest so far.
    fn note(&mut self, new: Shown) {
        let stricter = |known: &Shown| new.exceeded || (!known.exceeded && new.remaining < known.remaining);
        if self.shown.as_ref().is_none_or(stricter) {
            self.shown = Some(new);
        }
    }
}

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
    pub fn check(&self, head: &Parts, facts: &Facts<'_>, tally: &mut Tally) -> Result<(), Box<Denial>> {
        let mut values = Vec::new();
        let mut strictest: Option<(&Rule, Left)> = None;
        // Only what passes has a response that could cost anything.
        let mut costly: Vec<(&Rule, Vec<u8>)> = Vec::new();
        for rule in &self.0 {
            values.clear();
            if !rule.selectors.iter().all(|s| s.matches(head, facts, &mut values)) {
                continue;
            }
            let left = rule.buckets.take(&values, rule.quota, rule.cost);
            if rule.response_cost > 0 {
                costly.push((rule, values.clone()));
            }
            if rule.shadow {
                continue;
            }
            if strictest.is_none_or(|(_, known)| left.remaining < known.remaining) || !left.allowed {
                strictest = Some((rule, left));
            }
            if !left.allowed {
                break;
            }
        }
        if let Some((rule, left)) = strictest {
            if rule.shows.unwrap_or(facts.shows_limits) {
                tally.note(rule.shown(left));
            }
            if !left.allowed {
                return Err(denial("local_rate_limited", "local_rate_limited"));
            }
        }
        let charges = costly.into_iter().map(|(rule, values)| rule.charge(values));
        tally.charges.extend(charges);
        Ok(())
    }
}

impl Rule {
    fn compile(config: &v1::RateLimitRule, lookup: &mut dyn Lookup) -> Result<Self, String> {
        if config.bucket.is_empty() {
            return Err("bucket: not named".into());
        }
        if config.unit_seconds == 0 {
            return Err("unit_seconds: is zero".into());
        }
        Ok(Self {
            selectors: selectors(config)?,
            buckets: lookup.store().buckets(&config.bucket),
            quota: Quota::new(config.requests, Duration::from_secs(config.unit_seconds)),
            cost: config.cost.unwrap_or(1),
            response_cost: config.response_cost,
            shadow: config.shadow,
            shows: shows(config.headers()),
        })
    }

    fn charge(&self, values: Vec<u8>) -> Charge {
        Charge {
            buckets: Arc::clone(&self.buckets),
            values,
            quota: self.quota,
            cost: self.response_cost,
        }
    }

    /// Seconds are rounded up.
    fn shown(&self, left: Left) -> Shown {
        Shown {
            limit: self.quota.requests.into(),
            remaining: left.remaining,
            reset: left.full_in.as_secs() + u64::from(left.full_in.subsec_nanos() > 0),
            exceeded: !left.allowed,
        }
    }
}

fn selectors(config: &v1::RateLimitRule) -> Result<Box<[Selector]>, String> {
    let selector = |(i, selector)| Selector::compile(selector).map_err(|e| format!("selectors[{i}].{e}"));
    config.selectors.iter().enumerate().map(selector).collect()
}

fn shows(config: Headers) -> Option<bool> {
    match config {
        Headers::Unspecified => None,
        Headers::Off => Some(false),
        Headers::Draft03 => Some(true),
    }
}

fn denial(body: &'static str, details: &'static str) -> Box<Denial> {
    Box::new(Denial {
        status: StatusCode::TOO_MANY_REQUESTS,
        headers: HeaderMap::from_iter([(RATE_LIMITED, HeaderValue::from_static("true"))]),
        body: body.into(),
        flags: "RL",
        details,
    })
}
