//! What a person sees while a task runs: one line when a step starts, a sign of life while it is long, its time at
//! the end.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const HEARTBEAT: Duration = Duration::from_secs(30);

/// Prints one line of progress to standard error, which is never buffered.
pub fn say(text: impl AsRef<str>) {
    eprintln!("xtask: {}", text.as_ref());
}

/// Runs `work`, saying every half minute that it still runs, and says how long it took.
pub fn long<T>(label: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(format!("{label} ..."));
    let start = Instant::now();
    let (done, waiting) = mpsc::channel::<()>();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(HEARTBEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(format!("{label}: {} s so far", start.elapsed().as_secs()));
            }
        });
        let result = work();
        drop(done);
        result
    });
    match &result {
        Ok(_) => say(format!("{label}: done in {:.1} s", start.elapsed().as_secs_f64())),
        Err(_) => say(format!(
            "{label}: FAILED after {:.1} s",
            start.elapsed().as_secs_f64()
        )),
    }
    result.with_context(|| label.to_owned())
}

/// Calls `probe` until it answers `Ok(Some(..))`; after `limit` it fails with `what` and the last reason.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(50);
    loop {
        let reason = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= deadline {
            anyhow::bail!("{what}: not within {} s ({reason})", limit.as_secs());
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_last_reason() {
        let error = wait_for::<()>("a thing", Duration::ZERO, || anyhow::bail!("it is broken")).unwrap_err();
        assert!(error.to_string().contains("it is broken"));
    }

    #[test]
    fn waiting_returns_the_first_value() {
        let mut calls = 0;
        let value = wait_for("a thing", Duration::from_mins(1), || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(value.unwrap(), 3);
    }
}
