//! Session persistence.

use sluice_config::v1;

use super::cfg;
use super::support::backend::Backend;
use super::support::client::Http;
use super::support::{self, Proxy};

async fn proxy(kind: v1::session_persistence::Kind) -> (Proxy, u16, Vec<Backend>) {
    let backends = vec![
        Backend::echo("a").await,
        Backend::echo("b").await,
        Backend::echo("c").await,
    ];
    let port = support::free_port();
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    let mut resources = cfg::backend("one", &addresses[..2]);
    resources.extend(cfg::backend("two", &addresses[2..]));
    let rule = v1::HttpRule {
        session_persistence: Some(v1::SessionPersistence {
            kind: kind.into(),
            name: "sticky".into(),
            ..Default::default()
        }),
        ..cfg::rule("/", &["one", "two"])
    };
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])]);
    (Proxy::start(resources).await, port, backends)
}

#[tokio::test]
async fn by_cookie() {
    let (proxy, port, backends) = proxy(v1::session_persistence::Kind::Cookie).await;
    let client = Http::new(port);
    for _ in 0..5 {
        let first = client.get("/").await;
        let cookie = first
            .header("set-cookie")
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        assert!(cookie.starts_with("sticky="));
        let bound = first.seen().backend;
        for _ in 0..20 {
            let again = client
                .get_with("/", &[("cookie", &format!("x=y; {cookie}"))])
                .await;
            assert_eq!(again.header("set-cookie"), None);
            assert_eq!(again.seen().backend, bound);
        }
    }
    // A session whose endpoint is gone starts anew elsewhere.
    let first = client.get("/").await;
    let cookie = first
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let bound = first.seen().backend;
    let left: Vec<_> = ["a", "b"]
        .iter()
        .zip(&backends)
        .filter(|(name, _)| **name != bound)
        .map(|(_, b)| b.address)
        .collect();
    if bound != "c" {
        proxy.apply(vec![cfg::endpoints("one", &left)]);
        let again = client.get_with("/", &[("cookie", &cookie)]).await;
        assert!(again.header("set-cookie").is_some());
        assert_ne!(again.seen().backend, bound);
    }
}

#[tokio::test]
async fn by_header() {
    let (_proxy, port, _backends) = proxy(v1::session_persistence::Kind::Header).await;
    let client = Http::new(port);
    let first = client.get("/").await;
    let token = first.header("sticky").unwrap().to_owned();
    let bound = first.seen().backend;
    for _ in 0..20 {
        assert_eq!(
            client.get_with("/", &[("sticky", &token)]).await.seen().backend,
            bound
        );
    }
}
