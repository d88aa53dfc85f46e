//! What costs how much, and limits that metadata says.

use serde_json::Value;
use sluice_config::v1;

use super::super::metadata::{Metadata, Place, whole};

const DAY: u64 = 24 * 60 * 60;

/// How much a request or a response costs.
#[derive(Debug, Clone)]
pub struct Amount {
    /// If metadata says nothing.
    number: u64,
    from: Option<Place>,
}

impl Amount {
    /// What requests cost: 1, if nothing is said.
    pub fn of_request(config: &v1::RateLimitRule) -> Self {
        Self {
            number: config.cost.unwrap_or(1),
            from: config.cost_from.as_ref().map(Place::of),
        }
    }

    /// What responses cost: nothing, if nothing is said.
    pub fn of_response(config: &v1::RateLimitRule) -> Self {
        Self {
            number: config.response_cost,
            from: config.response_cost_from.as_ref().map(Place::of),
        }
    }

    /// True if it cannot be anything.
    pub fn is_nothing(&self) -> bool {
        self.number == 0 && self.from.is_none()
    }

    /// How much it is.
    pub fn of(&self, metadata: &Metadata) -> u64 {
        let said = self.from.as_ref().and_then(|from| metadata.number(from));
        said.unwrap_or(self.number)
    }

    /// The number, and where metadata may say another.
    pub fn parts(&self) -> (u64, Option<&Place>) {
        (self.number, self.from.as_ref())
    }
}

/// A limit as metadata says it: requests, and the seconds of their unit if that is said too. `None`: it is none.
pub fn limit(said: &Value) -> Option<(u64, Option<u64>)> {
    let Value::Object(limit) = said else {
        return Some((whole(said)?, None));
    };
    let requests = whole(limit.get("requests_per_unit")?)?;
    let seconds = match limit.get("unit")?.as_str()? {
        "SECOND" => 1,
        "MINUTE" => 60,
        "HOUR" => 60 * 60,
        "DAY" => DAY,
        "WEEK" => 7 * DAY,
        "MONTH" => 30 * DAY,
        "YEAR" => 365 * DAY,
        _ => return None,
    };
    Some((requests, Some(seconds)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_that_are_said() {
        assert_eq!(limit(&json!(5)), Some((5, None)));
        let whole = json!({ "requests_per_unit": 7, "unit": "HOUR" });
        assert_eq!(limit(&whole), Some((7, Some(3600))));
        for other in [
            json!({ "requests_per_unit": 7 }),
            json!({ "requests_per_unit": -7, "unit": "HOUR" }),
            json!({ "requests_per_unit": 7, "unit": "FORTNIGHT" }),
            json!("x"),
            json!(null),
        ] {
            assert_eq!(limit(&other), None, "{other}");
        }
    }
}
