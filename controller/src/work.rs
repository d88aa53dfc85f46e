//! A queue of things to bring about, by key: what is put in again before it was taken replaces what was there, one key
//! is worked on by one worker at a time, and what failed comes back after a pause that grows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The queue.
pub(crate) struct Work<K, V> {
    state: Mutex<State<K, V>>,
    wake: Notify,
}

struct State<K, V> {
    waiting: BTreeMap<K, Waiting<V>>,
    running: BTreeSet<K>,
    /// Counts [`Work::clear`]: what was taken before does not come back.
    epoch: u64,
}

struct Waiting<V> {
    value: V,
    failures: u32,
    due: Instant,
}

/// One thing taken from the queue; must be given back by [`Work::done`] or [`Work::failed`].
pub(crate) struct Job<K, V> {
    pub key: K,
    pub value: V,
    failures: u32,
    epoch: u64,
}

impl<K, V> Job<K, V> {
    /// Whether nobody has been told yet that this does not work.
    pub fn is_first_try(&self) -> bool {
        self.failures == 0
    }
}

impl<K: Ord + Clone, V> Default for Work<K, V> {
    fn default() -> Self {
        let state = State {
            waiting: BTreeMap::new(),
            running: BTreeSet::new(),
            epoch: 0,
        };
        Self {
            state: Mutex::new(state),
            wake: Notify::new(),
        }
    }
}

impl<K: Ord + Clone, V> Work<K, V> {
    /// Puts something in, to be done at once.
    pub fn put(&self, key: K, value: V) {
        self.lock().waiting.insert(
            key,
            Waiting {
                value,
                failures: 0,
                due: Instant::now(),
            },
        );
        self.wake.notify_one();
    }

    /// Forgets everything that waits, and everything taken that would come back.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.epoch += 1;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Waits for something that is due.
    pub async fn next(&self) -> Job<K, V> {
        loop {
            let pause = match self.take() {
                Ok(job) => {
                    // Others may be due as well, and a wake-up reaches one worker.
                    self.wake.notify_one();
                    return job;
                }
                Err(pause) => pause,
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(pause.unwrap_or_else(|| Instant::now() + LONGEST_PAUSE)) => {}
            }
        }
    }

    fn take(&self) -> Result<Job<K, V>, Option<Instant>> {
        let mut state = self.lock();
        let now = Instant::now();
        let free = || {
            state
                .waiting
                .iter()
                .filter(|(key, _)| !state.running.contains(*key))
        };
        let Some(key) = free().find(|(_, w)| w.due <= now).map(|(key, _)| key.clone()) else {
            return Err(free().map(|(_, w)| w.due).min());
        };
        let Some(Waiting { value, failures, .. }) = state.waiting.remove(&key) else {
            return Err(None);
        };
        state.running.insert(key.clone());
        Ok(Job {
            key,
            value,
            failures,
            epoch: state.epoch,
        })
    }

    /// Gives back what has been done.
    pub fn done(&self, key: &K) {
        self.lock().running.remove(key);
        self.wake.notify_one();
    }

    /// Gives back what did not work; it comes again after a pause unless something newer waits.
    pub fn failed(&self, job: Job<K, V>) {
        let pause = pause(FIRST_PAUSE, job.failures).min(LONGEST_PAUSE);
        self.back(job, pause);
    }

    /// Gives back what has been done and is to be looked at again, after a pause that doubles each time; unless something
    /// newer waits.
    pub fn revisit(&self, job: Job<K, V>, first: Duration) {
        let pause = pause(first, job.failures);
        self.back(job, pause);
    }

    fn back(&self, job: Job<K, V>, pause: Duration) {
        let mut state = self.lock();
        state.running.remove(&job.key);
        if state.epoch == job.epoch {
            let again = Waiting {
                value: job.value,
                failures: job.failures + 1,
                due: Instant::now() + pause,
            };
            state.waiting.entry(job.key).or_insert(again);
        }
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pause(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn newest_value_wins_and_failures_pause() {
        let work = Work::<&str, u32>::default();
        work.put("a", 1);
        work.put("a", 2);
        let job = work.next().await;
        assert_eq!((job.key, job.value), ("a", 2));
        let before = Instant::now();
        work.failed(job);
        let again = work.next().await;
        assert!(!again.is_first_try());
        assert!(Instant::now() - before >= FIRST_PAUSE);
        work.done(&again.key);
        assert_eq!(work.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_look_comes_later_and_gives_way_to_what_is_newer() {
        let first = Duration::from_secs(3);
        let work = Work::<&str, u32>::default();
        work.put("a", 1);
        let before = Instant::now();
        work.revisit(work.next().await, first);
        let again = work.next().await;
        assert_eq!((again.value, Instant::now() - before), (1, first));
        work.revisit(again, first);
        work.put("a", 2);
        assert_eq!(work.next().await.value, 2);
        work.done(&"a");
        assert_eq!(work.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_worker_a_key_and_newer_replaces_failed() {
        let work = Work::<&str, u32>::default();
        work.put("a", 1);
        let job = work.next().await;
        work.put("a", 2);
        assert!(work.take().is_err(), "the key is being worked on");
        work.failed(job);
        assert_eq!(work.next().await.value, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn cleared_work_does_not_come_back() {
        let work = Work::<&str, u32>::default();
        work.put("a", 1);
        let job = work.next().await;
        work.clear();
        work.failed(job);
        assert_eq!(work.len(), 0);
    }
}
