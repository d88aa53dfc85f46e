//! The access log: one JSON object a line for each request, with the field names of Envoy Gateway's default format.
//!
//! A request only appends its line to a bounded buffer in memory; a thread of its own writes. When the reader of the
//! log is too slow, lines are dropped and counted; requests never wait for it.

mod entry;
pub mod logger;
mod operator;
mod sink;
pub mod template;
mod written;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use entry::Entry;

/// Bytes of log lines that may wait to be written.
const CAPACITY: usize = 4 << 20;
/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLogTarget {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, which is appended to.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// A handle on the access log; clones share it.
#[derive(Debug, Clone)]
pub struct AccessLog(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Vec<u8>>,
    wake: Condvar,
    /// True while the writer waits to be woken.
    asleep: AtomicBool,
    /// True while lines that have left `pending` are being written.
    writing: AtomicBool,
    dropped: AtomicU64,
}

impl AccessLog {
    /// Opens the target and starts the thread that writes to it.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub fn start(target: &AccessLogTarget) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            AccessLogTarget::Off => return Ok(Self(None)),
            AccessLogTarget::Stdout => Box::new(io::stdout()),
            AccessLogTarget::File(path) => Box::new(File::options().create(true).append(true).open(path)?),
        };
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(out))?;
        Ok(Self(Some(shared)))
    }

    /// True if lines go anywhere.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Appends a line.
    pub fn write(&self, entry: &Entry<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
        }
        let Some(shared) = &self.0 else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            entry.encode(line);
            shared.append(line);
        });
    }

    /// Appends a line that is written already, with its end.
    pub fn append(&self, line: &[u8]) {
        if let Some(shared) = &self.0 {
            shared.append(line);
        }
    }

    /// Waits, for a second at most, until all lines so far are written.
    pub async fn flush(&self) {
        let Some(shared) = &self.0 else { return };
        for _ in 0..200 {
            if shared.lock().is_empty() && !shared.writing.load(Ordering::Acquire) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lines that could not be kept.
    pub fn dropped(&self) -> u64 {
        self.0
            .as_ref()
            .map_or(0, |shared| shared.dropped.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &[u8]) {
        let mut pending = self.lock();
        if pending.len() + line.len() > CAPACITY {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        pending.extend_from_slice(line);
        drop(pending);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    fn run(self: &Arc<Self>, mut out: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        loop {
            let mut pending = self.lock();
            while pending.is_empty() {
                // Only this thread is left.
                if Arc::strong_count(self) == 1 {
                    return;
                }
                self.asleep.store(true, Ordering::Relaxed);
                pending = self
                    .wake
                    .wait_timeout(pending, Duration::from_secs(1))
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            self.asleep.store(false, Ordering::Relaxed);
            std::mem::swap(&mut *pending, &mut batch);
            self.writing.store(true, Ordering::Release);
            drop(pending);
            if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            batch.clear();
            self.writing.store(false, Ordering::Release);
            std::thread::sleep(GATHER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::entry::tests::entry;
    use super::*;

    #[test]
    fn lines_reach_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = AccessLog::start(&AccessLogTarget::File(path.clone())).unwrap();
        (0..10).for_each(|_| log.write(&entry(b"/")));
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&path).unwrap().lines().count() < 10 {
            assert!(std::time::Instant::now() < deadline, "the lines never arrived");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[tokio::test]
    async fn a_flush_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = AccessLog::start(&AccessLogTarget::File(path.clone())).unwrap();
        for n in 1..4 {
            log.write(&entry(b"/"));
            log.flush().await;
            assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), n);
        }
    }

    #[test]
    fn a_full_buffer_drops() {
        let shared = Arc::new(Shared::default());
        let log = AccessLog(Some(Arc::clone(&shared)));
        let long = vec![b'a'; CAPACITY / 2];
        (0..3).for_each(|_| log.write(&entry(&long)));
        assert_eq!(log.dropped(), 2);
        assert!(shared.lock().len() <= CAPACITY);
    }
}
