//! The connection to a processor: messages there, messages back.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::StatusCode;
use prost::Message;

use super::super::downstream::Chunk;
use super::super::subrequest::{self, Begun, Call, Failed};
use super::super::upstream::Upstream;
use super::super::{Conn, grpc};
use crate::filter::ext_proc::{Processor, proto};
use crate::upstream::connect::Version;

/// Largest answer.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// One call of the processor.
pub(super) struct Stream {
    call: Begun,
    inbox: BytesMut,
    headed: bool,
}

/// How a stream ended.
pub(super) enum Ended {
    /// The processor wants to see no more.
    Well,
    Failed(String),
}

impl Stream {
    /// Calls it.
    pub(super) async fn connect(processor: &Processor, conn: &Conn) -> Result<Self, Failed> {
        let (head, _) = grpc::request(proto::PROCESS, "ext-proc", &()).into_parts();
        let how = Call {
            version: Version::Http2,
            timeout: processor.timeout,
            client: Some(conn.wire.peer().ip()),
        };
        Ok(Self {
            call: subrequest::stream(&conn.worker, &processor.backend, &head, how).await?,
            inbox: BytesMut::new(),
            headed: false,
        })
    }

    /// How long nothing may be said.
    pub(super) fn idle(&self) -> Option<Duration> {
        self.call.idle
    }

    /// The processor's side.
    pub(super) fn up(&mut self) -> &mut Upstream {
        &mut self.call.up
    }

    /// The next message.
    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<proto::ProcessingResponse, Ended>> {
        let failed = |reason: String| Poll::Ready(Err(Ended::Failed(reason)));
        loop {
            if let Some(message) = self.parse() {
                return Poll::Ready(message.map_err(Ended::Failed));
            }
            if !self.headed {
                match self.call.up.poll_head(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(failure)) => {
                        self.call.report(None);
                        return failed(failure.to_string());
                    }
                    Poll::Ready(Ok(head)) if head.status.is_informational() => continue,
                    Poll::Ready(Ok(head)) if head.status != StatusCode::OK => {
                        self.call.report(Some(head.status.as_u16()));
                        return failed(format!("status {}", head.status));
                    }
                    Poll::Ready(Ok(head)) => {
                        self.headed = true;
                        self.call.report(Some(head.status.as_u16()));
                        if let Some(status) = head.headers.get("grpc-status") {
                            return Poll::Ready(Err(ended(Some(status))));
                        }
                    }
                }
            }
            match self.call.up.poll_body(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(failure)) => return failed(failure.to_string()),
                Poll::Ready(Ok(Some(Chunk::Data(data)))) => self.inbox.extend_from_slice(&data),
                Poll::Ready(Ok(Some(Chunk::Trailers(trailers)))) => {
                    return Poll::Ready(Err(ended(trailers.get("grpc-status"))));
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Err(ended(None))),
            }
        }
    }

    /// The next message, if it has come as a whole.
    fn parse(&mut self) -> Option<Result<proto::ProcessingResponse, String>> {
        let [compressed, length @ ..] = *self.inbox.first_chunk::<5>()?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if compressed != 0 || length > MAX_ANSWER {
            return Some(Err("an answer is compressed or too long".into()));
        }
        if self.inbox.len() - 5 < length {
            return None;
        }
        self.inbox.advance(5);
        let message = self.inbox.split_to(length).freeze();
        Some(proto::ProcessingResponse::decode(message).map_err(|e| e.to_string()))
    }
}

fn ended(status: Option<&http::HeaderValue>) -> Ended {
    if status.is_some_and(|status| status == "0") {
        Ended::Well
    } else {
        Ended::Failed(format!("grpc-status {status:?}"))
    }
}
