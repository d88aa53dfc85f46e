//! Retry budgets of XBackendTrafficPolicy.

use anyhow::Result;

use super::{Check, World};

pub const CHECKS: [Check; 2] = [
    Check {
        name: "XBackendTrafficPolicyAccepted",
        run: |world| world.wait_policy("xbackendtrafficpolicy", "retry-budget", &["Accepted"]),
    },
    Check {
        name: "XBackendTrafficPolicyRetryBudget",
        run: budget,
    },
];

/// Without a budget a request may be repeated three times, as its rule says. The budget allows one retry in the hour, and
/// when it is used up the client is told 503, whatever the backend said.
fn budget(world: &World) -> Result<()> {
    // The backend fails the first requests of each id. All that is asked for is the retry, so a new id for each request.
    let path = |rule: &str, failures: u8| {
        let id = uuid::Uuid::new_v4();
        format!("/retry/{rule}?uuid={id}&succeedAfter={failures}&responseCode=500")
    };
    for rule in ["free", "budget"] {
        world.wait_status(&path(rule, 0), &[], 200)?;
    }
    for (rule, failures, status) in [
        ("free", 3, 200),
        ("free", 4, 500),
        ("budget", 1, 200),
        ("budget", 1, 503),
    ] {
        let answer = world.get(&path(rule, failures), &[])?;
        anyhow::ensure!(
            answer.status == status,
            "/retry/{rule}, {failures} failures: status {} instead of {status}",
            answer.status
        );
    }
    Ok(())
}
