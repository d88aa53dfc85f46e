//! The retry budget that an XBackendTrafficPolicy gives its targets.

use sluice_config::v1;
use sluice_crds::gateway::{Duration, RetryConstraint};

use crate::translate::route::millis;

/// The retry budget, with the API's defaults.
pub fn translate(from: &RetryConstraint) -> v1::RetryBudget {
    let budget = from.budget.unwrap_or_default();
    let rate = from.min_retry_rate.unwrap_or_default();
    let millis_or = |duration: Option<Duration>, default| duration.map_or(default, millis);
    v1::RetryBudget {
        percent: budget.percent.unwrap_or(20),
        interval_ms: millis_or(budget.interval, 10_000),
        min_retries: rate.count.unwrap_or(10),
        min_retries_interval_ms: millis_or(rate.interval, 1_000),
    }
}
