//! The log of health checks: a line of JSON an outcome, with the field names of Envoy's health check events.
//!
//! Owns the files; each is opened once. Who is healthy is not its business.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use sluice_config::v1;
use sluice_config::v1::active_health_check::Check;

use super::ask::{Cause, Verdict};
use crate::telemetry::{AccessLog, AccessLogTarget};
use crate::upstream::Endpoint;

/// Where standard output is.
const STDOUT: &str = "/dev/stdout";

/// Where all checks are logged.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// The files that are open, by path.
    open: Mutex<HashMap<String, AccessLog>>,
    /// For checks that say nothing of a log. It may change while they run.
    usual: ArcSwapOption<Target>,
}

/// A file, and what is written to it.
#[derive(Debug)]
struct Target {
    out: AccessLog,
    wanted: v1::HealthCheckLog,
}

/// Where the checks of one backend are logged.
#[derive(Debug)]
pub(super) struct Log {
    kind: &'static str,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The usual one.
    Usual(Arc<Logs>),
    /// One that the checks ask for; `None`: it cannot be had.
    Own(Option<Target>),
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
    /// Says where checks are logged that say nothing of it.
    pub(super) fn set_usual(&self, config: Option<&v1::HealthCheckLog>) {
        self.usual
            .store(config.and_then(|config| self.open(config.clone())).map(Arc::new));
    }

    /// The log of checks.
    pub(super) fn of(self: &Arc<Self>, config: &v1::ActiveHealthCheck) -> Log {
        Log {
            kind: match &config.check {
                Some(Check::Grpc(_)) => "GRPC",
                Some(Check::Tcp(_)) => "TCP",
                Some(Check::Http(_)) | None => "HTTP",
            },
            place: match &config.log {
                Some(log) => Place::Own(self.open(log.clone())),
                None => Place::Usual(Arc::clone(self)),
            },
        }
    }

    fn open(&self, mut wanted: v1::HealthCheckLog) -> Option<Target> {
        if !(wanted.failures || wanted.successes || wanted.failure_starts || wanted.recoveries) {
            (wanted.failures, wanted.successes) = (true, true);
        }
        let path = if wanted.path.is_empty() {
            STDOUT
        } else {
            &wanted.path
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
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
        Some(Target { out, wanted })
    }
}

impl Log {
    /// Writes what is wanted of an outcome.
    pub(super) fn write(&self, backend: &str, endpoint: &Endpoint, seen: Seen) {
        match &self.place {
            Place::Own(target) => self.tell(target.as_ref(), backend, endpoint, seen),
            Place::Usual(logs) => self.tell(logs.usual.load().as_deref(), backend, endpoint, seen),
        }
    }

    fn tell(&self, target: Option<&Target>, backend: &str, endpoint: &Endpoint, seen: Seen) {
        let Some(target) = target else { return };
        for (name, event) in target.events(seen) {
            let mut line = json!({
                "health_checker_type": self.kind,
                "host": host(endpoint),
                "cluster_name": backend,
                "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            });
            line[name] = event;
            let mut line = line.to_string();
            line.push('\n');
            target.out.append(line.as_bytes());
        }
    }
}

impl Target {
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
            let log = Logs::default().open(wanted).unwrap();
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
