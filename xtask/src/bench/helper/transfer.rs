//! Large bodies, one after the other on each of some connections.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backend::{BLOCK, read_head};
use super::{Direction, tell};
use crate::bench::peer::HOST;

/// What goes over each connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub port: u16,
    pub direction: Direction,
    pub bytes: u64,
    /// The receiver stops reading after a little.
    pub stall: bool,
}

/// Says `start`, moves bodies for some seconds, and says `end` and how many bytes have moved.
pub(super) async fn run(transfer: Transfer, connections: u32, seconds: u32) -> Result<()> {
    let moved = Rc::new(Cell::new(0));
    let local = tokio::task::LocalSet::new();
    tell("start")?;
    let mut workers: Vec<_> = (0..connections)
        .map(|_| local.spawn_local(transfer.repeat(Rc::clone(&moved))))
        .collect();
    local
        .run_until(async {
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
            // None ends by itself unless it fails.
            for worker in &mut workers {
                if worker.is_finished() {
                    worker.await??;
                }
            }
            anyhow::Ok(())
        })
        .await?;
    tell(&format!("end {}", moved.get()))
}

impl Transfer {
    async fn repeat(self, moved: Rc<Cell<u64>>) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let mut block = vec![0; BLOCK];
        loop {
            match self.direction {
                Direction::Download => self.download(&mut stream, &mut block, &moved).await?,
                Direction::Upload => self.upload(&mut stream, &mut block, &moved).await?,
            }
        }
    }

    async fn download(self, stream: &mut TcpStream, block: &mut [u8], moved: &Cell<u64>) -> Result<()> {
        let head = format!("GET /bytes/{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", self.bytes);
        stream.write_all(head.as_bytes()).await?;
        let rest = ok(stream).await?;
        if self.stall {
            std::future::pending::<()>().await;
        }
        let mut left = self.bytes - rest as u64;
        while left > 0 {
            let read = stream.read(block).await?;
            if read == 0 {
                bail!("the body ended too early");
            }
            left = left.checked_sub(read as u64).context("more than was asked for")?;
            moved.set(moved.get() + read as u64);
        }
        Ok(())
    }

    async fn upload(self, stream: &mut TcpStream, block: &mut [u8], moved: &Cell<u64>) -> Result<()> {
        let path = if self.stall { "/stall" } else { "/upload" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n",
            self.bytes
        );
        stream.write_all(head.as_bytes()).await?;
        let mut left = self.bytes;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            let written = stream.write(&block[..part]).await?;
            left -= written as u64;
            moved.set(moved.get() + written as u64);
        }
        // Its answer has no body.
        ok(stream).await.map(drop)
    }
}

/// Reads the head of an answer, which has to be good; gives how much of its body came along.
async fn ok(stream: &mut TcpStream) -> Result<usize> {
    let (head, rest) = read_head(stream).await?.context("no answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("answered with {head:?}");
    }
    Ok(rest.len())
}
