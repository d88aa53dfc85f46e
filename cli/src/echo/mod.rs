//! `sluice echo`: a backend that answers with what it was asked, in the form of the echo server of the Gateway API
//! conformance tests. For trying things out; never part of a proxy.

mod answer;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};

use crate::{args, signals};
use answer::Identity;

/// Serves until told to stop.
pub(crate) async fn run(args: args::Echo) -> anyhow::Result<ExitCode> {
    let listener = bind(args.address).await?;
    tracing::info!(address = %listener.local_addr()?, "echo backend started");
    tokio::select! {
        () = serve(listener) => {}
        stopped = signals::stop() => { stopped?; }
    }
    Ok(ExitCode::SUCCESS)
}

/// Binds the address.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("echo backend: {address}"))
}

/// Answers HTTP/1.1 and HTTP/2 with prior knowledge until the future is dropped.
pub(crate) async fn serve(listener: TcpListener) {
    let port = listener
        .local_addr()
        .map(|address| address.port())
        .unwrap_or_default();
    let identity = Arc::new(Identity::from_environment(port));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&identity)))),
            Err(error) => {
                tracing::debug!(%error, "echo: accept");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, identity: Arc<Identity>) {
    // Only speed depends on it.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: http::Request<Incoming>| {
        let identity = Arc::clone(&identity);
        async move { Ok::<_, Infallible>(answer::answer(request, &identity).await) }
    });
    // A client that goes away is its own affair.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
