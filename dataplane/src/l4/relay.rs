//! Copies bytes both ways between two streams until both have ended, one has failed, or nothing has moved for long.
//!
//! Owns half-close and the bound on buffered bytes. An idle connection holds no buffer: reads go into one scratch
//! buffer a thread, and only what the other side does not take at once is kept.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// Bytes read at once, and with that the most that is held for a slow receiver, in each direction.
const CHUNK: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// How a connection went.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Bytes from the client to the backend.
    pub(super) from_client: u64,
    /// Bytes from the backend to the client.
    pub(super) from_backend: u64,
    /// Why it ended.
    pub(super) end: End,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides have finished.
    Closed,
    /// Nothing moved for the idle timeout.
    Idle,
    /// The client's side failed.
    Client(io::Error),
    /// The backend's side failed.
    Backend(io::Error),
}

/// Relays until the end. Neither stream is closed on failure: that is the caller's, who may want to reset them.
pub(super) async fn relay<C, B>(client: &mut C, backend: &mut B, idle: Duration) -> Outcome
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut last = Instant::now();
    let mut timer = pin!(sleep_until(last + idle));
    let end = std::future::poll_fn(|cx| {
        let before = up.moved + down.moved;
        let sending = up.poll(cx, client, backend);
        if let Poll::Ready(Err(Side::From(error))) = sending {
            return Poll::Ready(End::Client(error));
        }
        let receiving = down.poll(cx, backend, client);
        match (sending, receiving) {
            // A backend that takes no more may still have something to say: that ends when the other direction does.
            (_, Poll::Ready(Err(Side::From(error))))
            | (Poll::Ready(Err(Side::To(error))), Poll::Ready(_)) => {
                return Poll::Ready(End::Backend(error));
            }
            (Poll::Ready(_), Poll::Ready(Err(Side::To(error)))) => return Poll::Ready(End::Client(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Closed),
            _ => {}
        }
        if up.moved + down.moved != before {
            last = Instant::now();
        }
        while timer.as_mut().poll(cx).is_ready() {
            if last.elapsed() >= idle {
                return Poll::Ready(End::Idle);
            }
            timer.as_mut().reset(last + idle);
        }
        Poll::Pending
    })
    .await;
    Outcome {
        from_client: up.moved,
        from_backend: down.moved,
        end,
    }
}

/// The side of a direction that failed.
enum Side {
    From(io::Error),
    To(io::Error),
}

#[derive(Default)]
enum State {
    #[default]
    Copying,
    /// The sender has finished; the receiver is to be told.
    Finishing,
    Finished,
    /// The receiver takes no more.
    Broken(io::ErrorKind),
}

#[derive(Default)]
struct Direction {
    state: State,
    /// Read and not taken by the receiver yet.
    pending: BytesMut,
    /// Written and perhaps not flushed.
    dirty: bool,
    moved: u64,
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Side>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            let step = match self.state {
                State::Finished => return Poll::Ready(Ok(())),
                State::Broken(kind) => return Poll::Ready(Err(Side::To(kind.into()))),
                State::Finishing => ready!(self.poll_finish(cx, to)),
                State::Copying => ready!(self.poll_copy(cx, from, to)),
            };
            match step {
                Ok(()) => {}
                Err(Side::To(error)) => {
                    self.state = State::Broken(error.kind());
                    self.pending = BytesMut::new();
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_finish<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<Result<(), Side>> {
        ready!(Pin::new(to).poll_shutdown(cx)).map_err(Side::To)?;
        self.state = State::Finished;
        Poll::Ready(Ok(()))
    }

    /// Takes one step: sends what is pending, or reads a chunk and sends it.
    fn poll_copy<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Side>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if !self.pending.is_empty() {
            while !self.pending.is_empty() {
                let n = ready!(write(cx, to, &self.pending)).map_err(Side::To)?;
                self.pending.advance(n);
            }
            self.pending = BytesMut::new();
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match Pin::new(from).poll_read(cx, &mut buf) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Side::From(error))),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    if self.dirty {
                        ready!(Pin::new(to).poll_flush(cx)).map_err(Side::To)?;
                        self.dirty = false;
                    }
                    return Poll::Pending;
                }
            }
            let mut rest = buf.filled();
            if rest.is_empty() {
                self.state = State::Finishing;
                return Poll::Ready(Ok(()));
            }
            self.moved += rest.len() as u64;
            self.dirty = true;
            while !rest.is_empty() {
                match write(cx, to, rest) {
                    Poll::Ready(n) => rest = &rest[n.map_err(Side::To)?..],
                    Poll::Pending => {
                        self.pending.extend_from_slice(rest);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

fn write<W: AsyncWrite + Unpin>(cx: &mut Context<'_>, to: &mut W, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        n => Poll::Ready(Ok(n)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const IDLE: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn each_side_ends_by_itself() {
        let (mut client, mut ours) = duplex(1024);
        let (mut theirs, mut backend) = duplex(1024);
        let relayed = tokio::spawn(async move { relay(&mut ours, &mut theirs, IDLE).await });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        backend.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        backend.write_all(b"the answer").await.unwrap();
        backend.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "the answer");
        let outcome = relayed.await.unwrap();
        assert!(matches!(outcome.end, End::Closed), "{outcome:?}");
        assert_eq!((outcome.from_client, outcome.from_backend), (8, 10));
    }

    #[tokio::test]
    async fn a_slow_receiver_holds_the_sender_back() {
        let (mut client, mut ours) = duplex(1024);
        let (mut theirs, mut backend) = duplex(16);
        tokio::spawn(async move { relay(&mut ours, &mut theirs, IDLE).await });
        let sender = tokio::spawn(async move {
            let chunk = vec![7; 1024];
            for _ in 0..1024 {
                client.write_all(&chunk).await.unwrap();
            }
            client
        });
        tokio::task::yield_now().await;
        let mut sum = 0_u64;
        let mut buf = vec![0; 4096];
        while sum < 1 << 20 {
            // What is underway never exceeds a chunk and the two pipes, so the sender cannot have finished early.
            if sum + (CHUNK as u64) + 4096 < 1 << 20 {
                assert!(!sender.is_finished());
            }
            sum += backend.read(&mut buf).await.unwrap() as u64;
        }
        drop(sender.await.unwrap());
        assert_eq!(sum, 1 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_end() {
        let (mut client, mut ours) = duplex(64);
        let (mut theirs, backend) = duplex(64);
        let began = Instant::now();
        let relayed =
            tokio::spawn(async move { relay(&mut ours, &mut theirs, Duration::from_mins(1)).await });
        tokio::time::sleep(Duration::from_secs(50)).await;
        client.write_all(b"x").await.unwrap();
        let outcome = relayed.await.unwrap();
        assert!(matches!(outcome.end, End::Idle), "{outcome:?}");
        assert_eq!(began.elapsed().as_secs(), 110);
        drop((client, backend));
    }

    /// Reads fail, or writes do.
    struct Broken {
        read: bool,
        data: &'static [u8],
    }

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.read {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            buf.put_slice(std::mem::take(&mut self.data));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_failed_read_ends_both() {
        let (_client, mut ours) = duplex(64);
        let outcome = relay(
            &mut ours,
            &mut Broken {
                read: true,
                data: b"",
            },
            IDLE,
        )
        .await;
        assert!(matches!(outcome.end, End::Backend(_)), "{outcome:?}");
    }

    #[tokio::test]
    async fn an_answer_survives_a_refused_question() {
        let (mut client, mut ours) = duplex(64);
        client.write_all(b"too long a question").await.unwrap();
        let outcome = relay(
            &mut ours,
            &mut Broken {
                read: false,
                data: b"go away",
            },
            IDLE,
        )
        .await;
        assert!(matches!(outcome.end, End::Backend(_)), "{outcome:?}");
        drop(ours);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "go away");
    }
}
