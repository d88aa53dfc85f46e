//! Byte streams inside TLS: terminated here, and encrypted anew towards the backend.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

mod config_support;

use config_support::{
    Authority, apply, backend, free_port, hear, l4_route, listener_with, start, stream_backend, terminate,
    tls,
};
use sluice_config::v1;
use sluice_config::v1::resource::Body;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The backend `name` with TLS towards it.
fn encrypted(name: &str, version: &str, hostname: &str, ca: &str) -> v1::Resource {
    let body = v1::Backend {
        name: format!("default/{name}"),
        endpoints: format!("endpoints/{name}"),
        tls: Some(v1::UpstreamTls {
            hostname: hostname.into(),
            ca_secrets: vec![format!("secret/{ca}")],
            ..Default::default()
        }),
        ..Default::default()
    };
    config_support::resource(&format!("backend/{name}"), version, Body::Backend(body))
}

#[tokio::test]
async fn tls_ends_here_and_begins_anew() {
    let (front, back, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let (dataplane, port) = (start(), free_port());
    let address = stream_backend("hello", Some(&back.issue("backend.test"))).await;
    let mut resources = vec![
        front.issue("a.test").secret("a", "1"),
        back.secret("ca", "1"),
        stranger.secret("stranger", "1"),
    ];
    resources.extend(backend("b", address).into_iter().take(1));
    resources.push(encrypted("b", "1", "backend.test", "ca"));
    resources.push(l4_route("r", "1", &["l"], &["a.test"], "b"));
    resources.push(listener_with(
        "l",
        "1",
        port,
        v1::Protocol::Tls,
        "",
        terminate(&["a"]),
    ));
    apply(&dataplane, resources, &[]);
    let mut stream = tls(port, "a.test", &front, None).await.unwrap();
    assert_eq!(hear(&mut stream).await, "hello");

    // A backend with another name, or from another authority, gets nothing, and the client no quiet end.
    for (version, hostname, ca) in [("2", "other.test", "ca"), ("3", "backend.test", "stranger")] {
        apply(&dataplane, vec![encrypted("b", version, hostname, ca)], &[]);
        let mut stream = tls(port, "a.test", &front, None).await.unwrap();
        let mut text = String::new();
        let read = config_support::soon(stream.read_to_string(&mut text)).await;
        assert!(read.is_err(), "{hostname} {ca}: {text:?}");
    }
}

#[tokio::test]
async fn plain_tcp_to_an_encrypted_backend() {
    let back = Authority::new();
    let (dataplane, port) = (start(), free_port());
    let address = stream_backend("hello", Some(&back.issue("backend.test"))).await;
    let mut resources = vec![back.secret("ca", "1")];
    resources.extend(backend("b", address).into_iter().take(1));
    resources.push(encrypted("b", "1", "backend.test", "ca"));
    resources.push(l4_route("r", "1", &["l"], &[], "b"));
    resources.push(listener_with("l", "1", port, v1::Protocol::Tcp, "", None));
    apply(&dataplane, resources, &[]);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    assert_eq!(hear(&mut stream).await, "hello");
}
