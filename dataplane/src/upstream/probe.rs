//! Active health checks: asks the endpoints of a backend, one task a backend for the whole process. Asks for their load, too,
//! where a backend wants to know it.
//!
//! Owns the schedule and what counts as an answer. What follows from it is the balancer's business. A task ends with its
//! handle or its backend.

mod ask;
mod load;
mod log;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use rand::Rng;
use sluice_config::v1;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use self::ask::{Cause, Check, Verdict, ask};
use self::log::{Log, Logs, Seen};
use super::Backend;

/// Checks of one backend under way at once.
const AT_ONCE: usize = 32;

/// Starts checks.
#[derive(Debug, Clone)]
pub struct Prober {
    runtime: Handle,
    logs: Arc<Logs>,
}

/// Checks that go on until this is dropped.
#[derive(Debug)]
pub struct Watch(#[allow(dead_code, reason = "held for their drop")] Vec<AbortOnDropHandle<()>>);

#[derive(Debug)]
struct Plan {
    check: Check,
    timeout: Duration,
    interval: Duration,
    jitter: Duration,
    unhealthy: u32,
    healthy: u32,
    port: Option<u16>,
}

impl Prober {
    /// Checks run on this runtime.
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            logs: Arc::default(),
        }
    }

    /// Says where outcomes of checks are written that say nothing of it; `None`: nowhere.
    pub fn log_to(&self, config: Option<&v1::HealthCheckLog>) {
        self.logs.set_usual(config);
    }

    /// Checks the endpoints of a backend, and asks for their load, as it wants; `None` if it does not.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn watch(&self, config: &v1::Backend, backend: &Arc<Backend>) -> Result<Option<Watch>, String> {
        let mut tasks = Vec::new();
        let health = config.health_check.as_ref();
        if let Some(active) = health.and_then(|health| health.active.as_ref()) {
            let plan = Plan::compile(active).map_err(|e| format!("health_check.active.{e}"))?;
            let log = self.logs.of(active);
            let task = self.runtime.spawn(run(Arc::downgrade(backend), plan, log));
            tasks.push(AbortOnDropHandle::new(task));
        }
        if let Some(plan) =
            load::Plan::compile(config).map_err(|e| format!("load_balancer.utilization.out_of_band.{e}"))?
        {
            let task = self.runtime.spawn(load::run(Arc::downgrade(backend), plan));
            tasks.push(AbortOnDropHandle::new(task));
        }
        Ok((!tasks.is_empty()).then_some(Watch(tasks)))
    }
}

impl Plan {
    fn compile(config: &v1::ActiveHealthCheck) -> Result<Self, String> {
        let port = match config.port {
            0 => None,
            port => Some(u16::try_from(port).map_err(|_| format!("port: {port} is not a port"))?),
        };
        Ok(Self {
            check: Check::compile(config)?,
            timeout: Duration::from_millis(config.timeout_ms.max(1)),
            interval: Duration::from_millis(config.interval_ms.max(10)),
            jitter: Duration::from_millis(config.initial_jitter_ms),
            unhealthy: config.unhealthy_threshold.max(1),
            healthy: config.healthy_threshold.max(1),
            port,
        })
    }
}

/// How checks of one endpoint have gone: failures or successes in a row.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Run {
    failed: u32,
    passed: u32,
}

async fn run(backend: Weak<Backend>, plan: Plan, log: Log) {
    if !plan.jitter.is_zero() {
        let pause = plan.jitter.mul_f64(rand::rng().random_range(0.0..1.0));
        tokio::time::sleep(pause).await;
    }
    let mut tick = tokio::time::interval(plan.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut runs: HashMap<SocketAddr, Run> = HashMap::new();
    loop {
        tick.tick().await;
        let Some(backend) = backend.upgrade() else { return };
        let Some(balancer) = &backend.balancer else { return };
        let members = balancer.members(&backend.endpoints);
        runs.retain(|address, _| members.iter().any(|m| m.endpoint().address() == *address));
        let checks = members.into_iter().map(|member| {
            let (plan, backend) = (&plan, &backend);
            async move {
                let asked = ask(backend, member.endpoint(), plan.port, &plan.check);
                let checked = tokio::time::timeout(plan.timeout, asked).await;
                (member, checked.unwrap_or(Verdict::Failed(Cause::Timeout)))
            }
        });
        let mut checks = futures::stream::iter(checks).buffer_unordered(AT_ONCE);
        while let Some((member, verdict)) = checks.next().await {
            let run = runs.entry(member.endpoint().address()).or_default();
            let first_check = *run == Run::default();
            let news = judge(run, verdict, &plan).filter(|failing| balancer.set_failing(&member, *failing));
            let seen = Seen {
                verdict,
                first_check,
                first_of_run: run.failed.max(run.passed) == 1,
                news,
            };
            log.write(&backend.name, member.endpoint(), seen);
        }
    }
}

/// Whether the endpoint is failing now, if the check settles it.
fn judge(run: &mut Run, verdict: Verdict, plan: &Plan) -> Option<bool> {
    match verdict {
        Verdict::Healthy => {
            *run = Run {
                failed: 0,
                passed: run.passed.saturating_add(1),
            };
            (run.passed >= plan.healthy).then_some(false)
        }
        Verdict::Failed(_) | Verdict::Down => {
            *run = Run {
                failed: run.failed.saturating_add(1),
                passed: 0,
            };
            (verdict == Verdict::Down || run.failed >= plan.unhealthy).then_some(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(change: impl FnOnce(&mut v1::ActiveHealthCheck)) -> Result<Plan, String> {
        let mut config = v1::ActiveHealthCheck {
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            check: Some(v1::active_health_check::Check::Http(
                v1::active_health_check::Http::default(),
            )),
            ..Default::default()
        };
        change(&mut config);
        Plan::compile(&config)
    }

    #[test]
    fn thresholds_are_runs() {
        let plan = plan(|_| {}).unwrap();
        let mut run = Run::default();
        let mut see = |verdict| judge(&mut run, verdict, &plan);
        assert_eq!(
            [
                see(Verdict::Failed(Cause::Answer)),
                see(Verdict::Failed(Cause::Answer)),
                see(Verdict::Failed(Cause::Answer))
            ],
            [None, None, Some(true)]
        );
        assert_eq!(
            [see(Verdict::Healthy), see(Verdict::Healthy)],
            [None, Some(false)]
        );
        assert_eq!(see(Verdict::Down), Some(true));
    }

    #[test]
    fn reasons_name_the_field() {
        use v1::active_health_check::{Check as C, Http};
        let http = |path: &str, method: &str| {
            let http = Http {
                path: path.into(),
                method: method.into(),
                ..Default::default()
            };
            plan(|config| config.check = Some(C::Http(http))).unwrap_err()
        };
        assert!(http("no path", "").starts_with("http.path: "));
        assert!(http("/", "G T").starts_with("http.method: "));
        assert!(plan(|c| c.check = None).unwrap_err().starts_with("check: "));
        assert!(plan(|c| c.port = 70_000).unwrap_err().starts_with("port: "));
    }
}
