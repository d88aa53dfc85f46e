//! Limits on the rate of requests: [`RateLimit`] counts in this process, [`GlobalRateLimit`] has a service count.
//!
//! Owns the settings, the counts of the former and what is said to the latter. Asking it is the forwarder's business.

mod amount;
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

use amount::Amount;
pub use bucket::Buckets;
use bucket::{Left, Quota};
pub use global::{Costs, GlobalRateLimit, Question, Service};
use selector::Selector;

use super::metadata::{Metadata, Place};
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
    quota_from: Option<Place>,
    cost: Amount,
    response_cost: Amount,
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
    /// Where metadata says it, in the end.
    from: Option<Place>,
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.cost > 0 {
            self.buckets.charge(&self.values, self.quota, self.cost);
        }
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

    /// Takes in what metadata says that the response costs.
    pub fn settle(&mut self, metadata: &Metadata) {
        for charge in &mut self.charges {
            if let Some(from) = &charge.from {
                charge.cost = metadata.number(from).unwrap_or_default();
            }
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
    pub fn check(
        &self,
        head: &Parts,
        facts: &Facts<'_>,
        metadata: &Metadata,
        tally: &mut Tally,
    ) -> Result<(), Box<Denial>> {
        let mut values = Vec::new();
        let mut strictest: Option<(&Rule, Quota, Left)> = None;
        // Only what passes has a response that could cost anything.
        let mut costly: Vec<(&Rule, Quota, Vec<u8>)> = Vec::new();
        for rule in &self.0 {
            values.clear();
            if !rule.selectors.iter().all(|s| s.matches(head, facts, &mut values)) {
                continue;
            }
            let quota = rule.quota(metadata);
            let left = rule.buckets.take(&values, quota, rule.cost.of(metadata));
            if !rule.response_cost.is_nothing() {
                costly.push((rule, quota, values.clone()));
            }
            if rule.shadow {
                continue;
            }
            if strictest.is_none_or(|(_, _, known)| left.remaining < known.remaining) || !left.allowed {
                strictest = Some((rule, quota, left));
            }
            if !left.allowed {
                break;
            }
        }
        if let Some((rule, quota, left)) = strictest {
            if rule.shows.unwrap_or(facts.shows_limits) {
                tally.note(shown(quota, left));
            }
            if !left.allowed {
                return Err(denial("local_rate_limited", "local_rate_limited"));
            }
        }
        let charges = costly
            .into_iter()
            .map(|(rule, quota, values)| rule.charge(quota, values));
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
            quota_from: config.limit_from.as_ref().map(Place::of),
            cost: Amount::of_request(config),
            response_cost: Amount::of_response(config),
            shadow: config.shadow,
            shows: shows(config.headers()),
        })
    }

    fn quota(&self, metadata: &Metadata) -> Quota {
        let said = self.quota_from.as_ref().and_then(|from| metadata.get(from));
        let Some((requests, seconds)) = said.as_ref().and_then(amount::limit) else {
            return self.quota;
        };
        match seconds {
            Some(seconds) => Quota::new(requests, Duration::from_secs(seconds)),
            None => self.quota.of(requests),
        }
    }

    fn charge(&self, quota: Quota, values: Vec<u8>) -> Charge {
        let (cost, from) = self.response_cost.parts();
        Charge {
            buckets: Arc::clone(&self.buckets),
            values,
            quota,
            cost,
            from: from.cloned(),
        }
    }
}

/// Seconds are rounded up.
fn shown(quota: Quota, left: Left) -> Shown {
    Shown {
        limit: quota.requests.into(),
        remaining: left.remaining,
        reset: left.full_in.as_secs() + u64::from(left.full_in.subsec_nanos() > 0),
        exceeded: !left.allowed,
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
