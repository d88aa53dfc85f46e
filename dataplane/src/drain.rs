//! The end of service, in phases.
//!
//! Owns the phase and the count of open connections. It closes nothing itself: who serves a connection watches the
//! phase and ends the connection as its protocol wants it (`Connection: close`, GOAWAY).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// How far the end of service has come. Only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Service goes on.
    Serving,
    /// Readiness has failed; connections are still taken, because not everyone has heard of it.
    Leaving,
    /// No connection is taken any more; those that stand end as soon as they can.
    Draining,
    /// The wait is over.
    Ended,
}

/// A handle on the phase; clones share it.
#[derive(Debug, Clone)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    /// The phase again, to be read on every request without a lock.
    fast: Arc<AtomicUsize>,
    open: watch::Sender<usize>,
    count: Arc<AtomicUsize>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// Service goes on.
    pub fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            fast: Arc::default(),
            open: watch::Sender::new(0),
            count: Arc::default(),
        }
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// True if connections should end as soon as they can. Costs one read of memory.
    pub fn is_draining(&self) -> bool {
        self.fast.load(Ordering::Relaxed) >= Phase::Draining as usize
    }

    /// True if nothing of the end has begun. Costs one read of memory.
    pub fn is_serving(&self) -> bool {
        self.fast.load(Ordering::Relaxed) == Phase::Serving as usize
    }

    /// Waits until connections should end as soon as they can.
    pub async fn draining(&self) {
        // The sender is part of `self`, so the channel cannot close.
        let _ = self
            .phase
            .subscribe()
            .wait_for(|phase| *phase >= Phase::Draining)
            .await;
    }

    /// Goes on to a phase, unless it has come further already.
    pub fn enter(&self, phase: Phase) {
        self.fast.fetch_max(phase as usize, Ordering::Relaxed);
        self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            *current = phase.max(*current);
            forward
        });
        self.open.send_replace(self.open());
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn guard(&self) -> Guard {
        self.count.fetch_add(1, Ordering::Relaxed);
        Guard(self.clone())
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until no connection is open. Only to be called while draining.
    pub async fn idle(&self) {
        let _ = self.open.subscribe().wait_for(|_| self.open() == 0).await;
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Guard(Drain);

impl Drop for Guard {
    fn drop(&mut self) {
        let before = self.0.count.fetch_sub(1, Ordering::AcqRel);
        if before == 1 && self.0.is_draining() {
            self.0.open.send_replace(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_go_forward() {
        let drain = Drain::new();
        drain.enter(Phase::Draining);
        drain.enter(Phase::Leaving);
        assert_eq!(drain.phase(), Phase::Draining);
        assert!(drain.is_draining());
        drain.draining().await;
    }

    #[tokio::test]
    async fn waits_for_the_last_connection() {
        let drain = Drain::new();
        let (first, second) = (drain.guard(), drain.guard());
        drain.enter(Phase::Draining);
        drop(first);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
        assert_eq!(drain.open(), 0);
    }
}
