//! One stream of an HTTP/2 connection.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{DATE, EXPECT};
use http::{HeaderMap, Method, StatusCode, Version, request, response};
use pingora_core::protocols::http::date::get_cached_date;

use super::{Chunk, Gone};
use crate::forward::encode;

/// The client's side of one stream.
pub struct H2 {
    recv: RecvStream,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    data_done: bool,
    request_done: bool,
    /// Extended CONNECT (RFC 8441): the stream is a tunnel and carries no body before that is agreed.
    is_tunnel: bool,
    expects_continue: bool,
    pub(super) responded: bool,
    ended: bool,
    is_head: bool,
    pub(super) sent: u64,
}

impl H2 {
    /// A stream as the connection gave it.
    pub fn new(recv: RecvStream, respond: SendResponse<Bytes>, head: &request::Parts) -> Self {
        let request_done = recv.is_end_stream();
        let expects = head.headers.get(EXPECT);
        Self {
            recv,
            respond,
            send: None,
            data_done: request_done,
            request_done,
            is_tunnel: head.method == Method::CONNECT,
            expects_continue: expects.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue")),
            responded: false,
            ended: false,
            is_head: head.method == Method::HEAD,
            sent: 0,
        }
    }

    pub(super) fn body_is_empty(&self) -> bool {
        self.request_done || self.is_tunnel
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Chunk>, Gone>> {
        if self.request_done {
            return Poll::Ready(Ok(None));
        }
        if std::mem::take(&mut self.expects_continue) {
            let mut head = http::Response::new(()).into_parts().0;
            head.status = StatusCode::CONTINUE;
            self.inform(head);
        }
        if !self.data_done {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Only fails on a closed stream, which the next poll reports.
                    let _ = self.recv.flow_control().release_capacity(data.len());
                    return Poll::Ready(Ok(Some(Chunk::Data(data))));
                }
                Some(Err(e)) => return Poll::Ready(Err(Gone(e.to_string()))),
                None => self.data_done = true,
            }
        }
        let trailers = ready!(self.recv.poll_trailers(cx)).map_err(|e| Gone(e.to_string()))?;
        self.request_done = true;
        Poll::Ready(Ok(trailers.map(Chunk::Trailers)))
    }

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        if self.ended {
            return Poll::Pending;
        }
        let reset = match self.send.as_mut() {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        match ready!(reset) {
            Ok(reason) => Poll::Ready(Gone(format!("stream reset: {reason}"))),
            Err(e) => Poll::Ready(Gone(e.to_string())),
        }
    }

    pub(super) fn inform(&mut self, mut head: response::Parts) {
        if !self.responded {
            head.version = Version::HTTP_2;
            // A stream that is closed says so with the next write that matters.
            let _ = self
                .respond
                .send_informational(http::Response::from_parts(head, ()));
        }
    }

    pub(super) fn respond(&mut self, mut head: response::Parts, end: bool) -> Result<(), Gone> {
        head.version = Version::HTTP_2;
        if !head.headers.contains_key(DATE) {
            head.headers.insert(DATE, get_cached_date());
        }
        let end = end || self.is_head || encode::is_bodiless(head.status);
        self.responded = true;
        let response = http::Response::from_parts(head, ());
        let send = self
            .respond
            .send_response(response, end)
            .map_err(|e| Gone(e.to_string()))?;
        self.send = Some(send);
        self.ended = end;
        Ok(())
    }

    pub(super) fn switch_protocols(&mut self, head: response::Parts) -> Result<(), Gone> {
        self.is_tunnel = false;
        self.respond(super::agreement(head), false)
    }

    pub(super) fn push(&mut self, data: Bytes) -> Result<(), Gone> {
        if data.is_empty() || self.ended {
            return Ok(());
        }
        let Some(send) = self.send.as_mut() else {
            return Ok(());
        };
        self.sent += data.len() as u64;
        send.send_data(data, false).map_err(|e| Gone(e.to_string()))
    }

    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), Gone> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let Some(send) = self.send.as_mut() else {
            return Ok(());
        };
        // A client that is still sending is told to stop (RFC 9113 section 8.1) by h2 once this stream is dropped.
        match trailers {
            Some(trailers) => send.send_trailers(trailers),
            None => send.send_data(Bytes::new(), true),
        }
        .map_err(|e| Gone(e.to_string()))
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match self.send.as_mut() {
            Some(send) if !self.ended => poll_capacity(send, cx).map_err(|e| Gone(e.to_string())),
            _ => Poll::Ready(Ok(())),
        }
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        match self.send.as_mut() {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
        self.ended = true;
    }
}

/// Ready when the stream's window has room for at least one byte beyond what is queued already.
pub(in crate::forward) fn poll_capacity(
    send: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    if send.capacity() > 0 {
        return Poll::Ready(Ok(()));
    }
    send.reserve_capacity(1);
    loop {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(0)) => {}
            // None: the stream is closed for sending; the next write says so.
            None | Some(Ok(_)) => return Poll::Ready(Ok(())),
            Some(Err(e)) => return Poll::Ready(Err(e)),
        }
    }
}
