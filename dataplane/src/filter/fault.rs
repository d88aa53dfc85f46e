//! Faults on purpose: delays and errors for a share of the requests.

use std::time::Duration;

use http::StatusCode;
use rand::Rng;
use sluice_config::v1;

use super::status;

/// Shares are millionths.
const WHOLE: u32 = 1_000_000;

/// What a request is aborted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(StatusCode),
    /// A gRPC status, with HTTP 200.
    Grpc(u32),
}

/// A compiled filter.
#[derive(Debug)]
pub struct Fault {
    delay: Option<(Duration, u32)>,
    abort: Option<(Abort, u32)>,
}

impl Fault {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::FaultInjection) -> Result<Self, String> {
        let abort = |config: &v1::fault_injection::Abort| {
            let abort = match config.grpc_status {
                Some(code) => Abort::Grpc(code),
                None => {
                    Abort::Http(status(config.http_status).map_err(|e| format!("abort.http_status: {e}"))?)
                }
            };
            Ok::<_, String>((abort, config.share))
        };
        Ok(Self {
            delay: config
                .delay
                .map(|delay| (Duration::from_millis(delay.duration_ms), delay.share)),
            abort: config.abort.as_ref().map(abort).transpose()?,
        })
    }

    /// How long this request is held back, if it is.
    pub fn delay(&self) -> Option<Duration> {
        drawn(self.delay)
    }

    /// How this request ends here, if it does.
    pub fn abort(&self) -> Option<Abort> {
        drawn(self.abort)
    }
}

fn drawn<T>(part: Option<(T, u32)>) -> Option<T> {
    part.filter(|(_, share)| rand::rng().random_range(0..WHOLE) < *share)
        .map(|(what, _)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_drawn() {
        let fault = |share| {
            Fault::compile(&v1::FaultInjection {
                delay: None,
                abort: Some(v1::fault_injection::Abort {
                    http_status: 503,
                    share,
                    ..Default::default()
                }),
            })
            .unwrap()
        };
        let count = |share| {
            let fault = fault(share);
            (0..2000).filter(|_| fault.abort().is_some()).count()
        };
        assert_eq!((count(0), count(WHOLE)), (0, 2000));
        // More than nine standard deviations to either side.
        assert!((300..700).contains(&count(WHOLE / 4)), "{}", count(WHOLE / 4));
    }
}
