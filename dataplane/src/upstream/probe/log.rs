//! The log of health checks: a line of JSON an outcome, with the field names of Envoy's health check events.
//!
//! Owns the files; each is opened once. Who is healthy is not its business.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use sluice_config::v1;
use sluice_config::v1::active_health_check::Check;

use super::ask::{Cause, Verdict};
use crate::telemetry::{AccessLog, AccessLogTarget};
use crate::upstream::Endpoint;

/// Where standard output is.
const STDOUT: &str = "/dev/stdout";

/// The files that are open, by path.
#[derive(Debug, Default)]
pub(super) struct Logs(Mutex<HashMap<String, AccessLog>>);

/// Where the checks of one backend are logged.
#[derive(Debug)]
pub(super) struct Log {
    out: AccessLog,
    kind: &'static str,
    wanted: v1::HealthCheckLog,
}

/// An outcome.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) verdict: Verdict,
    /// The endpoint has not been checked before.
    pub(super) first_check: bool,
    /// The one before was another.
    pub(super) first_of_run: bool,
    /// Whether the endpoint is failing from now on, if that is news.
    pub(super) news: Option<bool>,
}

impl Logs {
    /// The log that checks ask for, if they ask for one that can be had.
    pub(super) fn open(&self, config: &v1::ActiveHealthCheck) -> Option<Log> {
        let mut wanted = config.log.clone()?;
        if !(wanted.failures || wanted.successes || wanted.failure_starts || wanted.recoveries) {
            (wanted.failures, wanted.successes) = (true, true);
        }
        let kind = match config.check.as_ref()? {
            Check::Http(_) => "HTTP",
            Check::Tcp(_) => "TCP",
            Check::Grpc(_) => "GRPC",
        };
        let path = if wanted.path.is_empty() {
            STDOUT
        } else {
            &wanted.path
        };
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let out = if let Some(out) = open.get(path) {
            out.clone()
        } else {
            let target = if path == STDOUT {
                AccessLogTarget::Stdout
            } else {
                AccessLogTarget::File(PathBuf::from(path))
            };
            match AccessLog::start(&target) {
                Ok(out) => open.entry(path.to_owned()).or_insert(out).clone(),
                Err(error) => {
                    tracing::warn!(path, %error, "the log of health checks cannot be opened");
                    return None;
                }
            }
        };
        Some(Log { out, kind, wanted })
    }
}

impl Log {
    /// Writes what is wanted of an outcome.
    pub(super) fn write(&self, backend: &str, endpoint: &Endpoint, seen: Seen) {
        for (name, event) in self.events(seen) {
            let mut line = json!({
                "health_checker_type": self.kind,
                "host": host(endpoint),
                "cluster_name": backend,
                "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            });
            line[name] = event;
            let mut line = line.to_string();
            line.push('\n');
            self.out.append(line.as_bytes());
        }
    }

    fn events(&self, seen: Seen) -> Vec<(&'static str, Value)> {
        let wanted = &self.wanted;
        let mut events = Vec::new();
        let failure_type = match seen.verdict {
            Verdict::Healthy => {
                if seen.news == Some(false) && (wanted.successes || wanted.recoveries) {
                    events.push(("add_healthy_event", json!({ "first_check": seen.first_check })));
                } else if wanted.successes || (wanted.recoveries && seen.first_of_run) {
                    events.push(("successful_health_check_event", json!({})));
                }
                return events;
            }
            Verdict::Failed(Cause::Answer) | Verdict::Down => "ACTIVE",
            Verdict::Failed(Cause::Network) => "NETWORK",
            Verdict::Failed(Cause::Timeout) => "NETWORK_TIMEOUT",
        };
        if wanted.failures || (wanted.failure_starts && seen.first_of_run) {
            let event = json!({ "failure_type": failure_type, "first_check": seen.first_check });
            events.push(("health_check_failure_event", event));
        }
        if seen.news == Some(true) && (wanted.failures || wanted.failure_starts) {
            events.push(("eject_unhealthy_event", json!({ "failure_type": failure_type })));
        }
        events
    }
}

fn host(endpoint: &Endpoint) -> Value {
    if let Some(path) = endpoint.path() {
        return json!({ "pipe": { "path": path } });
    }
    let address = endpoint.address();
    json!({
        "socket_address": {
            "protocol": "TCP",
            "address": address.ip().to_string(),
            "port_value": address.port(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_written() {
        let names = |wanted: v1::HealthCheckLog| {
            let config = v1::ActiveHealthCheck {
                log: Some(wanted),
                check: Some(Check::Tcp(v1::active_health_check::Tcp::default())),
                ..Default::default()
            };
            let log = Logs::default().open(&config).unwrap();
            let failed = Verdict::Failed(Cause::Timeout);
            let outcomes = [
                (failed, true, None),
                (failed, false, Some(true)),
                (Verdict::Healthy, true, None),
                (Verdict::Healthy, false, Some(false)),
                (Verdict::Healthy, false, None),
            ];
            outcomes
                .iter()
                .map(|(verdict, first_of_run, news)| {
                    let events = log.events(Seen {
                        verdict: *verdict,
                        first_check: false,
                        first_of_run: *first_of_run,
                        news: *news,
                    });
                    events.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("+")
                })
                .collect::<Vec<_>>()
        };
        let (failed, out) = (
            "health_check_failure_event",
            "health_check_failure_event+eject_unhealthy_event",
        );
        let (passed, back) = ("successful_health_check_event", "add_healthy_event");
        assert_eq!(
            names(v1::HealthCheckLog::default()),
            [failed, out, passed, back, passed]
        );
        let changes = v1::HealthCheckLog {
            failure_starts: true,
            recoveries: true,
            ..Default::default()
        };
        assert_eq!(
            names(changes),
            [failed, "eject_unhealthy_event", passed, back, ""]
        );
        let failures = v1::HealthCheckLog {
            failures: true,
            ..Default::default()
        };
        assert_eq!(names(failures), [failed, out, "", "", ""]);
    }
}
