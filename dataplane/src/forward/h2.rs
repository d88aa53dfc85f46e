//! An HTTP/2 connection from a client: one task a stream.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;

use super::downstream::{Downstream, H2, adopt};
use super::limits::Deadline;
use super::{Conn, ping, request};
use crate::wire::Wire;

/// Requests that a client may have under way at once; Envoy Gateway's default.
const MAX_STREAMS: u32 = 100;
/// Bytes of one request's body that may be on their way to us unread.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all requests of the connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Largest window.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Largest head.
const MAX_HEAD: u32 = 64 * 1024;
/// Bytes of one response that may wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves the connection until its end.
pub(super) async fn serve(conn: Arc<Conn>, wire: Wire) {
    let settings = conn
        .client
        .as_ref()
        .map(|client| client.http2)
        .unwrap_or_default();
    let or = |setting: u32, default: u32| match setting {
        0 => default,
        // The largest that there is (RFC 9113 section 6.9.1).
        setting => setting.min(MAX_WINDOW),
    };
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(or(settings.max_concurrent_streams, MAX_STREAMS))
        .initial_window_size(or(settings.initial_stream_window, STREAM_WINDOW))
        .initial_connection_window_size(or(settings.initial_connection_window, CONNECTION_WINDOW))
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    let wire = wire.unbuffered();
    let pinged = ping::is_wanted(&settings).then(|| wire.clone());
    let handshake = builder.handshake::<_, Bytes>(wire);
    let mut connection = match tokio::time::timeout(conn.head_timeout(), handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/2 handshake"),
        Err(_) => return,
    };
    let mut pings = pinged.and_then(|wire| {
        Some(Box::pin(ping::unanswered(
            connection.ping_pong()?,
            settings,
            wire,
        )))
    });
    let drain = conn.worker.shared.drain.clone();
    let mut draining = std::pin::pin!(drain.draining());
    let mut leaving = false;
    let (age, most) = conn.life();
    let mut aged = age.map(Deadline::after);
    let mut served: u64 = 0;
    let mut idle = Deadline::after(conn.idle());
    loop {
        let accepted = std::future::poll_fn(|cx| {
            if pings.as_mut().is_some_and(|pings| pings.as_mut().poll(cx).is_ready()) {
                tracing::debug!(peer = %conn.wire.peer(), "HTTP/2 connection: a ping was not answered in time");
                return Poll::Ready(None);
            }
            if !leaving
                && (draining.as_mut().poll(cx).is_ready()
                    || idle.has_passed(cx)
                    || most.is_some_and(|most| served >= most)
                    || aged.as_mut().is_some_and(|aged| aged.has_passed(cx)))
            {
                leaving = true;
                connection.graceful_shutdown();
            }
            match connection.poll_accept(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(accepted) => Poll::Ready(accepted),
            }
        })
        .await;
        match accepted {
            Some(Ok((request, respond))) => {
                idle.reset(conn.idle());
                served += 1;
                tokio::spawn(stream(Arc::clone(&conn), request, respond));
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "HTTP/2 connection");
                return;
            }
            None => return,
        }
    }
}

async fn stream(conn: Arc<Conn>, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (mut head, body) = request.into_parts();
    let down = Downstream::H2(H2::new(body, respond, &head));
    let mut down = adopt(down, conn.client.as_deref(), &mut head);
    request::serve(&conn, &mut down, head).await;
}
