//! Limits that a service counts for all proxies together.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::request::Parts;
use sluice_config::v1;

use super::amount::{self, Amount};
use super::proto::{
    Code, DescriptorStatus, Entry, Limit, RateLimitDescriptor, RateLimitRequest, RateLimitResponse,
    UInt64Value, unit,
};
use super::selector::{Attribute, Distinct, Selector};
use super::{Denial, Facts, Lookup, Shown, Tally, denial, selectors, shows};
use crate::filter::metadata::{Metadata, Place};
use crate::upstream::Slot;

/// Whose limits they are, as the service is told.
const DOMAIN: &str = "sluice";
/// How long the service may take if the configuration does not say; Envoy Gateway's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(20);

/// A compiled filter.
#[derive(Debug)]
pub struct GlobalRateLimit {
    rules: Box<[Rule]>,
    /// Where it is counted.
    pub service: Arc<Service>,
    /// True: a request that the service cannot be asked about does not pass.
    pub fail_closed: bool,
}

/// Who counts.
#[derive(Debug)]
pub struct Service {
    /// Where it is.
    pub backend: Arc<Slot>,
    /// How long it may take.
    pub timeout: Duration,
}

#[derive(Debug)]
struct Rule {
    name: Box<str>,
    selectors: Box<[Selector]>,
    limit: Limit,
    limit_from: Option<Place>,
    unit_seconds: u64,
    cost: Amount,
    response_cost: Amount,
    shadow: bool,
    /// `None`: as the listener says.
    shows: Option<bool>,
}

/// What the service is asked about a request: the rules that count it, each with its descriptor.
#[derive(Debug)]
pub struct Question<'a> {
    rules: Vec<&'a Rule>,
    descriptors: Vec<RateLimitDescriptor>,
}

/// What a response costs: each descriptor perhaps with the place where metadata says how much, in the end.
#[derive(Debug)]
pub struct Costs(Vec<(RateLimitDescriptor, Option<Place>)>);

impl Costs {
    /// Takes in what metadata says.
    pub fn settle(&mut self, metadata: &Metadata) {
        for (descriptor, from) in &mut self.0 {
            if let Some(from) = from {
                let value = metadata.number(from).unwrap_or_default();
                descriptor.hits_addend = Some(UInt64Value { value });
            }
        }
    }

    /// What is sent to the service; `None`: it costs nothing.
    pub fn request(&self) -> Option<RateLimitRequest> {
        let costly = self.0.iter().map(|(descriptor, _)| descriptor);
        let costly: Vec<_> = costly
            .filter(|d| d.hits_addend != Some(UInt64Value { value: 0 }))
            .collect();
        (!costly.is_empty()).then(|| request(costly.into_iter().cloned().collect()))
    }
}

impl Distinct for Vec<Entry> {
    fn add(&mut self, of: Attribute<'_>, value: &[u8]) {
        let text = || String::from_utf8_lossy(value).into_owned();
        let (key, value) = match of {
            Attribute::Header(name) => (format!("header:{name}"), text()),
            Attribute::Query(name) => (format!("query:{name}"), text()),
            Attribute::Source(client) => ("source".to_owned(), client.to_canonical().to_string()),
        };
        self.push(Entry { key, value });
    }
}

impl GlobalRateLimit {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::GlobalRateLimit, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let rule = |(i, rule)| Rule::compile(rule).map_err(|e| format!("rules[{i}].{e}"));
        if config.backend.is_empty() {
            return Err("backend: not named".into());
        }
        Ok(Self {
            rules: config
                .rules
                .iter()
                .enumerate()
                .map(rule)
                .collect::<Result<_, _>>()?,
            service: Arc::new(Service {
                backend: lookup.backend(&config.backend),
                timeout: match config.timeout_ms {
                    0 => DEFAULT_TIMEOUT,
                    millis => Duration::from_millis(millis),
                },
            }),
            fail_closed: config.fail_closed,
        })
    }

    /// What the service is to be asked; `None`: no rule counts the request.
    pub fn question(&self, head: &Parts, facts: &Facts<'_>, metadata: &Metadata) -> Option<Question<'_>> {
        let mut question = Question {
            rules: Vec::new(),
            descriptors: Vec::new(),
        };
        for rule in &self.rules {
            let mut entries = vec![Entry {
                key: "rule".to_owned(),
                value: (*rule.name).to_owned(),
            }];
            if rule
                .selectors
                .iter()
                .all(|s| s.matches(head, facts, &mut entries))
            {
                question.rules.push(rule);
                let limit = rule.limit(metadata);
                let cost = rule.cost.of(metadata);
                question.descriptors.push(descriptor(entries, limit, cost));
            }
        }
        (!question.rules.is_empty()).then_some(question)
    }
}

impl Rule {
    fn compile(config: &v1::RateLimitRule) -> Result<Self, String> {
        if config.bucket.is_empty() {
            return Err("bucket: not named".into());
        }
        Ok(Self {
            name: config.bucket.as_str().into(),
            selectors: selectors(config)?,
            limit: Limit {
                requests_per_unit: u32::try_from(config.requests).map_err(|_| "requests: too many")?,
                unit: unit(config.unit_seconds).ok_or("unit_seconds: not one that services know")?,
            },
            limit_from: config.limit_from.as_ref().map(Place::of),
            unit_seconds: config.unit_seconds,
            cost: Amount::of_request(config),
            response_cost: Amount::of_response(config),
            shadow: config.shadow,
            shows: shows(config.headers()),
        })
    }

    fn limit(&self, metadata: &Metadata) -> Limit {
        let said = self.limit_from.as_ref().and_then(|from| metadata.get(from));
        let Some((requests, seconds)) = said.as_ref().and_then(amount::limit) else {
            return self.limit;
        };
        Limit {
            requests_per_unit: u32::try_from(requests).unwrap_or(u32::MAX),
            unit: seconds.and_then(unit).unwrap_or(self.limit.unit),
        }
    }
}

fn descriptor(entries: Vec<Entry>, limit: Limit, cost: u64) -> RateLimitDescriptor {
    RateLimitDescriptor {
        entries,
        limit: Some(limit),
        // Not said is 1.
        hits_addend: (cost != 1).then_some(UInt64Value { value: cost }),
    }
}

impl Question<'_> {
    /// What is sent to the service before the request passes.
    pub fn of_request(&self) -> RateLimitRequest {
        request(self.descriptors.clone())
    }

    /// What is sent to it once the response has ended, if that may cost anything.
    pub fn of_response(self) -> Option<Costs> {
        let both = self.rules.into_iter().zip(self.descriptors);
        let costly: Vec<_> = both
            .filter(|(rule, _)| !rule.response_cost.is_nothing())
            .map(|(rule, asked)| {
                let (cost, from) = rule.response_cost.parts();
                let limit = asked.limit.unwrap_or(rule.limit);
                (descriptor(asked.entries, limit, cost), from.cloned())
            })
            .collect();
        (!costly.is_empty()).then_some(Costs(costly))
    }

    /// Judges the request by the service's answer. A service that does not know of rules which only watch says that
    /// these are over their limit as well: that is passed over.
    ///
    /// # Errors
    /// What the client is told if it is one too many.
    pub fn judge(
        &self,
        answer: &RateLimitResponse,
        facts: &Facts<'_>,
        tally: &mut Tally,
    ) -> Result<(), Box<Denial>> {
        let over = answer.overall_code == i32::from(Code::OverLimit);
        let mut is_limited = over && self.rules.iter().any(|rule| !rule.shadow);
        if answer.statuses.len() == self.rules.len() {
            let mut both = self.rules.iter().zip(&answer.statuses);
            let by_a_rule = both.any(|(rule, status)| exceeded(status) && !rule.shadow);
            // It may have reasons that are no rule's.
            let none_says_so = !answer.statuses.iter().any(exceeded);
            is_limited = by_a_rule || (is_limited && none_says_so);
            if let Some(shown) = self.shown(&answer.statuses, facts) {
                tally.note(shown);
            }
        }
        if is_limited {
            return Err(denial("", "request_rate_limited"));
        }
        Ok(())
    }

    /// The strictest of the limits that are enforced, with the policies of all of them.
    fn shown(&self, statuses: &[DescriptorStatus], facts: &Facts<'_>) -> Option<Shown> {
        let told = self.rules.iter().zip(statuses).filter(|(rule, status)| {
            status.current_limit.is_some() && !rule.shadow && rule.shows.unwrap_or(facts.shows_limits)
        });
        let told: Vec<_> = told.collect();
        let (_, strictest) = told
            .iter()
            .min_by_key(|(_, status)| (!exceeded(status), status.limit_remaining))?;
        let requests =
            |status: &DescriptorStatus| status.current_limit.map_or(0, |limit| limit.requests_per_unit);
        let mut limit = requests(strictest).to_string();
        for (rule, status) in &told {
            // Writing to a String cannot fail.
            let _ = write!(limit, ", {};w={}", requests(status), rule.unit_seconds);
        }
        let reset = strictest.duration_until_reset.unwrap_or_default();
        Some(Shown {
            limit: HeaderValue::try_from(limit).ok()?,
            remaining: strictest.limit_remaining.into(),
            reset: u64::try_from(reset.seconds).unwrap_or_default() + u64::from(reset.nanos > 0),
            exceeded: exceeded(strictest),
        })
    }
}

fn exceeded(status: &DescriptorStatus) -> bool {
    status.code == i32::from(Code::OverLimit)
}

fn request(descriptors: Vec<RateLimitDescriptor>) -> RateLimitRequest {
    RateLimitRequest {
        domain: DOMAIN.to_owned(),
        descriptors,
        hits_addend: 0,
    }
}
