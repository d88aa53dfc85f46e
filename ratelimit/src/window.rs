//! Fixed windows: what is counted where, and what a count says. No I/O and no clock.
//!
//! Time is cut into windows of a unit's length, from 1970 on. A count is that of one window, so it begins anew with the
//! next one.

use sha2::{Digest, Sha256};
use sluice_dataplane::filter::rate_limit::proto::{
    Code, DescriptorStatus, Duration, Limit, RateLimitDescriptor, RateLimitRequest, RateLimitResponse,
    seconds,
};

/// Largest number of hits that one question adds, so that no count overflows.
const MOST_HITS: u64 = u32::MAX as u64;

/// Hits to add to one count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hits {
    /// Name of the count.
    pub key: String,
    /// How many.
    pub number: u64,
    /// Seconds after which nobody asks for the count any more.
    pub expires: u64,
    limit: Limit,
    /// Seconds until the window ends.
    reset: u64,
}

/// What has to be counted for a question; one a descriptor, `None` where nothing limits it.
///
/// # Errors
/// What is wrong with the question.
pub fn plan(question: &RateLimitRequest, prefix: &str, now: u64) -> Result<Vec<Option<Hits>>, &'static str> {
    if question.domain.is_empty() {
        return Err("the domain is empty");
    }
    if question.descriptors.is_empty() {
        return Err("there is no descriptor");
    }
    let each = |descriptor: &RateLimitDescriptor| {
        if descriptor.entries.is_empty() {
            return Err("a descriptor has no entries");
        }
        let Some(limit) = descriptor.limit else {
            return Ok(None);
        };
        let length = seconds(limit.unit).ok_or("a limit has an unknown unit")?;
        let common = u64::from(question.hits_addend.max(1));
        let hits = descriptor.hits_addend.map_or(common, |hits| hits.value);
        let passed = now % length;
        Ok(Some(Hits {
            key: key(prefix, &question.domain, descriptor, limit.unit, now - passed),
            number: hits.min(MOST_HITS),
            expires: length,
            limit,
            reset: length - passed,
        }))
    };
    question.descriptors.iter().map(each).collect()
}

/// Values may be long, and secret: keys hold a digest of them.
fn key(prefix: &str, domain: &str, descriptor: &RateLimitDescriptor, unit: i32, window: u64) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        // With their lengths no two lists of texts look alike.
        hash.update(text.len().to_be_bytes());
        hash.update(text);
    };
    add(domain);
    for entry in &descriptor.entries {
        add(&entry.key);
        add(&entry.value);
    }
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    format!("{prefix}{:032x}:{unit}:{window}", u128::from_be_bytes(half))
}

/// The answer to a question, by the counts after its hits were added: one for each [`Hits`] of the plan.
pub fn judge(plan: &[Option<Hits>], counts: &[u64]) -> RateLimitResponse {
    let mut counts = counts.iter();
    let statuses: Vec<_> = plan
        .iter()
        .map(|hits| match hits {
            None => DescriptorStatus {
                code: Code::Ok.into(),
                ..DescriptorStatus::default()
            },
            Some(hits) => hits.status(counts.next().copied().unwrap_or_default()),
        })
        .collect();
    let over = i32::from(Code::OverLimit);
    let overall = if statuses.iter().any(|status| status.code == over) {
        Code::OverLimit
    } else {
        Code::Ok
    };
    RateLimitResponse {
        overall_code: overall.into(),
        statuses,
    }
}

impl Hits {
    fn status(&self, count: u64) -> DescriptorStatus {
        let limit = u64::from(self.limit.requests_per_unit);
        let code = if count > limit { Code::OverLimit } else { Code::Ok };
        DescriptorStatus {
            code: code.into(),
            current_limit: Some(self.limit),
            limit_remaining: u32::try_from(limit.saturating_sub(count)).unwrap_or(u32::MAX),
            duration_until_reset: Some(Duration {
                seconds: i64::try_from(self.reset).unwrap_or(i64::MAX),
                nanos: 0,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sluice_dataplane::filter::rate_limit::proto::{Entry, UInt64Value};

    use super::*;

    const MINUTE: i32 = 2;

    fn descriptor(entries: &[(&str, &str)], requests_per_unit: u32, unit: i32) -> RateLimitDescriptor {
        let entry = |(key, value): &(&str, &str)| Entry {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        RateLimitDescriptor {
            entries: entries.iter().map(entry).collect(),
            limit: Some(Limit {
                requests_per_unit,
                unit,
            }),
            hits_addend: None,
        }
    }

    fn question(descriptors: Vec<RateLimitDescriptor>) -> RateLimitRequest {
        RateLimitRequest {
            domain: "d".to_owned(),
            descriptors,
            hits_addend: 0,
        }
    }

    fn one(descriptor: RateLimitDescriptor, now: u64) -> Hits {
        let mut plan = plan(&question(vec![descriptor]), "p:", now).unwrap();
        plan.remove(0).unwrap()
    }

    #[test]
    fn a_window_is_as_long_as_its_unit() {
        let at = |now| one(descriptor(&[("a", "b")], 1, MINUTE), now);
        let (first, last, next) = (at(120), at(179), at(180));
        assert_eq!(first.key, last.key);
        assert_ne!(last.key, next.key);
        assert_eq!((first.reset, last.reset, next.reset), (60, 1, 60));
        assert!(first.key.starts_with("p:") && first.key.ends_with(":2:120"));
        assert_eq!(first.expires, 60);
        let week = one(descriptor(&[("a", "b")], 1, 7), 0);
        assert_eq!(week.expires, 604_800);
    }

    #[test]
    fn what_differs_is_counted_apart() {
        let lists: [&[(&str, &str)]; 5] = [
            &[("a", "b")],
            &[("a", "c")],
            &[("ab", "")],
            &[("a", "b"), ("a", "b")],
            &[("a", "bab")],
        ];
        let mut keys: Vec<_> = lists
            .iter()
            .map(|entries| one(descriptor(entries, 1, MINUTE), 0).key)
            .collect();
        keys.push(one(descriptor(lists[0], 1, 1), 0).key);
        // Another limit for the same is no new count.
        assert_eq!(one(descriptor(lists[0], 9, MINUTE), 0).key, keys[0]);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
        let secret = one(descriptor(&[("a", "secret")], 1, MINUTE), 0);
        assert!(!secret.key.contains("secret"));
    }

    #[test]
    fn the_limit_itself_is_within_the_limit() {
        let plan = vec![Some(one(descriptor(&[("a", "b")], 3, MINUTE), 130)), None];
        for (count, code, remaining) in [
            (0, Code::Ok, 3),
            (1, Code::Ok, 2),
            (3, Code::Ok, 0),
            (4, Code::OverLimit, 0),
            (u64::MAX, Code::OverLimit, 0),
        ] {
            let answer = judge(&plan, &[count]);
            let status = answer.statuses[0];
            assert_eq!(answer.overall_code, i32::from(code), "{count}");
            assert_eq!(
                (status.code, status.limit_remaining),
                (i32::from(code), remaining)
            );
            assert_eq!(status.duration_until_reset.unwrap().seconds, 50);
            assert_eq!(answer.statuses[1].current_limit, None);
        }
    }

    #[test]
    fn hits_are_of_the_descriptor_or_else_of_the_question() {
        let mut asked = question(vec![
            descriptor(&[("a", "b")], 3, MINUTE),
            descriptor(&[("a", "c")], 3, MINUTE),
        ]);
        asked.descriptors[1].hits_addend = Some(UInt64Value { value: 0 });
        let hits = |asked: &RateLimitRequest| -> Vec<u64> {
            let plan = plan(asked, "", 0).unwrap();
            plan.into_iter().flatten().map(|hits| hits.number).collect()
        };
        assert_eq!(hits(&asked), [1, 0]);
        asked.hits_addend = 5;
        asked.descriptors[1].hits_addend = Some(UInt64Value { value: u64::MAX });
        assert_eq!(hits(&asked), [5, u64::from(u32::MAX)]);
    }

    #[test]
    fn odd_questions_are_refused() {
        let good = descriptor(&[("a", "b")], 1, MINUTE);
        let refused = |asked: &RateLimitRequest| plan(asked, "", 0).is_err();
        assert!(!refused(&question(vec![good.clone()])));
        assert!(refused(&question(vec![])));
        assert!(refused(&question(vec![descriptor(&[], 1, MINUTE)])));
        assert!(refused(&question(vec![descriptor(&[("a", "b")], 1, 99)])));
        assert!(refused(&RateLimitRequest {
            domain: String::new(),
            ..question(vec![good])
        }));
    }
}
