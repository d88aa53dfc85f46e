//! When and how a request is tried again. Owns the settings; the forwarder acts on them.

use std::time::Duration;

use http::response;
use rand::Rng;
use sluice_config::v1;
use v1::retry::Trigger;

/// Smallest pause before a retry if the rule names none, as Envoy has it.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// A rule's word on retries.
#[derive(Debug)]
pub struct Retry {
    codes: Vec<u16>,
    /// `None`: connection errors and timeouts of a try.
    triggers: Option<Triggers>,
    /// Tries after the first; 0: there is no second.
    pub attempts: u32,
    /// Tries after which the backends of another priority are turned to; 0: never.
    pub per_priority: u32,
    /// Bound on each try.
    pub per_try_timeout: Option<Duration>,
    backoff: Duration,
    max_backoff: Duration,
}

/// A set of triggers.
#[derive(Debug, Clone, Copy)]
struct Triggers(u32);

impl Triggers {
    fn any(self, of: &[Trigger]) -> bool {
        of.iter().any(|trigger| self.0 & (1 << *trigger as u32) != 0)
    }
}

impl Retry {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Retry) -> Result<Self, String> {
        let backoff = match config.backoff_ms {
            0 => DEFAULT_BACKOFF,
            ms => Duration::from_millis(ms),
        };
        let max_backoff = match config.max_backoff_ms {
            0 => backoff.saturating_mul(10),
            ms => Duration::from_millis(ms).max(backoff),
        };
        let mut triggers = 0;
        for number in &config.triggers {
            let trigger = Trigger::try_from(*number).unwrap_or(Trigger::Unspecified);
            if trigger == Trigger::Unspecified {
                return Err("triggers: one is not set, or not known to this version".into());
            }
            triggers |= 1 << trigger as u32;
        }
        Ok(Self {
            codes: config
                .codes
                .iter()
                .filter_map(|code| u16::try_from(*code).ok())
                .collect(),
            triggers: (triggers != 0).then_some(Triggers(triggers)),
            attempts: config.attempts,
            per_priority: config.attempts_per_priority,
            per_try_timeout: (config.per_try_timeout_ms != 0)
                .then(|| Duration::from_millis(config.per_try_timeout_ms)),
            backoff,
            max_backoff,
        })
    }

    /// True if this response is not the last word.
    pub fn covers(&self, response: &response::Parts) -> bool {
        let status = response.status.as_u16();
        self.codes.contains(&status)
            || self
                .triggers
                .is_some_and(|triggers| by_status(triggers, status) || by_grpc_status(triggers, response))
    }

    /// True if another try follows a connection that could not be made.
    pub fn covers_connect_failure(&self) -> bool {
        self.triggers.is_none_or(|triggers| {
            triggers.any(&[
                Trigger::Trigger5xx,
                Trigger::GatewayError,
                Trigger::Reset,
                Trigger::ResetBeforeRequest,
                Trigger::ConnectFailure,
            ])
        })
    }

    /// True if another try follows one that took too long.
    pub fn covers_timeout(&self) -> bool {
        self.triggers.is_none() || self.covers_reset()
    }

    /// True if another try follows one that was broken off, whatever the backend has done with it.
    pub fn covers_reset(&self) -> bool {
        self.triggers.is_some_and(|triggers| {
            triggers.any(&[Trigger::Trigger5xx, Trigger::GatewayError, Trigger::Reset])
        })
    }

    /// The pause before retry number `retry` (from 1): between the base and the base doubled with each retry, up to the
    /// longest, so that clients that failed together do not come back together.
    pub fn pause(&self, retry: u32) -> Duration {
        let most = self
            .backoff
            .saturating_mul(2u32.saturating_pow(retry.min(16)))
            .min(self.max_backoff);
        let spread = most.saturating_sub(self.backoff);
        self.backoff + spread.mul_f64(rand::rng().random_range(0.0..1.0))
    }
}

fn by_status(triggers: Triggers, status: u16) -> bool {
    triggers.any(match status {
        409 => &[Trigger::Retriable4xx],
        502..=504 => &[Trigger::Trigger5xx, Trigger::GatewayError],
        500..=599 => &[Trigger::Trigger5xx],
        _ => &[],
    })
}

/// Only a response without a body says its gRPC status in its head.
fn by_grpc_status(triggers: Triggers, response: &response::Parts) -> bool {
    let Some(status) = response.headers.get("grpc-status") else {
        return false;
    };
    triggers.any(match status.as_bytes() {
        b"1" => &[Trigger::GrpcCancelled],
        b"4" => &[Trigger::GrpcDeadlineExceeded],
        b"8" => &[Trigger::GrpcResourceExhausted],
        b"13" => &[Trigger::GrpcInternal],
        b"14" => &[Trigger::GrpcUnavailable],
        _ => &[],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(triggers: &[Trigger], codes: &[u32]) -> Retry {
        Retry::compile(&v1::Retry {
            codes: codes.to_vec(),
            attempts: 3,
            backoff_ms: 100,
            triggers: triggers.iter().map(|trigger| *trigger as i32).collect(),
            ..Default::default()
        })
        .unwrap()
    }

    fn response(status: u16, grpc: Option<&str>) -> response::Parts {
        let mut response = http::Response::builder().status(status);
        if let Some(grpc) = grpc {
            response = response.header("grpc-status", grpc);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn pauses_grow_within_bounds() {
        let mut retry = retry(&[], &[503]);
        for n in [1, 2, 3, 100] {
            let pause = retry.pause(n);
            assert!(
                pause >= Duration::from_millis(100) && pause <= Duration::from_secs(1),
                "{n}: {pause:?}"
            );
        }
        assert!(retry.pause(1) <= Duration::from_millis(200));
        retry.max_backoff = Duration::from_millis(100);
        assert_eq!(retry.pause(9), Duration::from_millis(100));
    }

    #[test]
    fn without_triggers_codes_and_connections_count() {
        let retry = retry(&[], &[503]);
        assert!(retry.covers(&response(503, None)));
        assert!(!retry.covers(&response(502, None)));
        assert!(!retry.covers(&response(200, Some("14"))));
        assert!(retry.covers_connect_failure() && retry.covers_timeout() && !retry.covers_reset());
    }

    #[test]
    fn triggers_say_what_counts() {
        let five = retry(&[Trigger::Trigger5xx], &[]);
        assert!(five.covers(&response(500, None)) && five.covers(&response(599, None)));
        assert!(!five.covers(&response(499, None)));
        assert!(five.covers_connect_failure() && five.covers_timeout() && five.covers_reset());
        let gateway = retry(&[Trigger::GatewayError], &[429]);
        assert!(gateway.covers(&response(504, None)) && gateway.covers(&response(429, None)));
        assert!(!gateway.covers(&response(500, None)));
        let connect = retry(&[Trigger::ConnectFailure, Trigger::Retriable4xx], &[]);
        assert!(connect.covers(&response(409, None)) && !connect.covers(&response(404, None)));
        assert!(connect.covers_connect_failure() && !connect.covers_timeout() && !connect.covers_reset());
        let grpc = retry(&[Trigger::GrpcUnavailable, Trigger::GrpcCancelled], &[]);
        assert!(grpc.covers(&response(200, Some("14"))) && grpc.covers(&response(200, Some("1"))));
        assert!(!grpc.covers(&response(200, Some("13"))) && !grpc.covers(&response(200, None)));
        assert!(!grpc.covers_connect_failure());
    }
}
