//! A process without file descriptors goes on as soon as it has some again. Alone in its process, whose limit it lowers.

mod config_support;

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use config_support::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice_config::v1::Protocol;

#[tokio::test]
async fn accepting_goes_on_when_there_are_descriptors_again() {
    let (dataplane, port) = (start(), free_port());
    let mut resources = backend("a", http_backend("a").await);
    resources.push(http_route("a", "1", &["web"], "/", "a"));
    resources.push(listener("web", "1", port, Protocol::Http, ""));
    apply(&dataplane, resources, &[]);
    assert_eq!(get(port, "h", "/").await.0, 200);

    let before = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(128),
            maximum: before.maximum,
        },
    )
    .unwrap();
    // Both ends are in this process, so the accepting side runs out with the connecting one.
    let mut clients = Vec::new();
    let error = loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
        assert!(clients.len() < 128, "the limit holds nobody back");
    };
    assert_eq!(error.raw_os_error(), Some(24), "{error}");
    // One end too few: the kernel holds a connection that cannot be accepted.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(clients);
    eventually("there are descriptors", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    })
    .await;
    assert_eq!(get(port, "h", "/").await, (200, "a".into()));
}
