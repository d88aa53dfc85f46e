//! An HTTP/3 connection from a client: one task a stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::server::RequestResolver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::downstream::{Downstream, H3};
use super::{Conn, request};

/// Largest head.
const MAX_HEAD: u64 = 64 * 1024;
/// How long a response that is complete may take to leave.
const SEND_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a client that was asked to leave has for what is on its way to it.
const LINGER: Duration = Duration::from_secs(5);
/// H3_NO_ERROR (RFC 9114 section 8.1).
const NO_ERROR: u32 = 0x100;

/// Serves the connection until its end; `stop` asks it to end.
pub(super) async fn serve(conn: Arc<Conn>, quic: quinn::Connection, stop: CancellationToken) {
    let mut builder = h3::server::builder();
    builder.max_field_section_size(MAX_HEAD);
    let built = builder.build::<_, Bytes>(h3_quinn::Connection::new(quic.clone()));
    let mut connection = match tokio::time::timeout(conn.head_timeout(), built).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/3 connection"),
        Err(_) => return,
    };
    let drain = conn.worker.shared.drain.clone();
    let mut draining = std::pin::pin!(drain.draining());
    let (age, most) = conn.life();
    let end = age.and_then(|age| Instant::now().checked_add(age));
    let mut served: u64 = 0;
    let mut idle = std::pin::pin!(tokio::time::sleep(conn.idle()));
    let mut leaving = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => Some(accepted),
            () = &mut draining, if !leaving => None,
            () = stop.cancelled(), if !leaving => None,
            () = &mut idle, if !leaving => None,
            () = until(end), if !leaving => None,
        };
        match accepted {
            Some(Ok(Some(resolver))) => {
                idle.as_mut().reset(Instant::now() + conn.idle());
                served += 1;
                tokio::spawn(stream(Arc::clone(&conn), resolver));
                if leaving || most.is_none_or(|most| served < most) {
                    continue;
                }
            }
            Some(Ok(None)) => break,
            Some(Err(error)) => return tracing::debug!(%error, "HTTP/3 connection"),
            None => {}
        }
        leaving = true;
        if let Err(error) = connection.shutdown(0).await {
            return tracing::debug!(%error, "HTTP/3 connection");
        }
    }
    // The last bytes are not with the client yet.
    let _ = tokio::time::timeout(LINGER, quic.closed()).await;
    quic.close(NO_ERROR.into(), b"");
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn stream(conn: Arc<Conn>, resolver: RequestResolver<h3_quinn::Connection, Bytes>) {
    let resolved = tokio::time::timeout(conn.head_timeout(), resolver.resolve_request()).await;
    let (request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/3 request"),
        Err(_) => return,
    };
    let mut head = request.into_parts().0;
    head.version = http::Version::HTTP_3;
    let Some(h3) = H3::new(stream, &head) else {
        return tracing::debug!("HTTP/3 request whose body is not as long as it says");
    };
    let mut down = Downstream::H3(Box::new(h3));
    request::serve(&conn, &mut down, head).await;
    if let Downstream::H3(h3) = down {
        let _ = tokio::time::timeout(SEND_TIMEOUT, h3.end()).await;
    }
}
