//! What an update does: what is refused, what stays in effect, what requests see.

mod config_support;

use config_support::*;
use sluice_config::v1::resource::Body;
use sluice_config::v1::{self, Protocol};

#[tokio::test]
async fn a_bad_resource_is_refused_alone() {
    let (a, b) = (http_backend("a").await, http_backend("b").await);
    let (dataplane, port) = (start(), free_port());
    let mut first = [backend("a", a), backend("b", b)].concat();
    first.push(http_route("r", "1", &["web"], "/", "a"));
    first.push(listener("web", "1", port, Protocol::Http, ""));
    apply(&dataplane, first, &[]);
    assert_eq!(get(port, "example.com", "/").await, (200, "a".into()));

    let mut bad = http_route("r", "2", &["web"], "/", "b");
    let Some(Body::Route(route)) = &mut bad.body else {
        unreachable!()
    };
    let Some(v1::route::Rules::Http(rules)) = &mut route.rules else {
        unreachable!()
    };
    rules.rules[0].matches[0].headers.push(v1::ValueMatch {
        name: "no header".into(),
        ..Default::default()
    });
    let good = http_route("other", "1", &["web"], "/other", "b");
    let ack = dataplane.apply(&update(vec![bad, good], &[]));

    let [rejection] = ack.rejected.as_slice() else {
        panic!("{ack:?}")
    };
    assert_eq!(
        (rejection.key.as_str(), rejection.version.as_str()),
        ("route/HTTPRoute/default/r", "2")
    );
    assert!(
        rejection
            .reason
            .starts_with("http.rules[0].matches[0].headers[0].name: "),
        "{}",
        rejection.reason
    );
    assert_eq!(get(port, "example.com", "/").await, (200, "a".into()));
    assert_eq!(get(port, "example.com", "/other").await, (200, "b".into()));
    let known = dataplane.known();
    assert_eq!(known["route/HTTPRoute/default/r"], "1");
    assert_eq!(known["route/HTTPRoute/default/other"], "1");
}

#[tokio::test]
async fn a_backend_may_come_after_its_route() {
    let (dataplane, port) = (start(), free_port());
    let route = http_route("r", "1", &["web"], "/", "a");
    apply(
        &dataplane,
        vec![listener("web", "1", port, Protocol::Http, ""), route],
        &[],
    );
    assert_ne!(get(port, "h", "/").await.0, 200);
    apply(&dataplane, backend("a", http_backend("a").await), &[]);
    assert_eq!(get(port, "h", "/").await, (200, "a".into()));
    apply(&dataplane, Vec::new(), &["backend/a", "endpoints/a"]);
    assert_ne!(get(port, "h", "/").await.0, 200);
    apply(&dataplane, backend("a", http_backend("again").await), &[]);
    assert_eq!(get(port, "h", "/").await, (200, "again".into()));
}

#[tokio::test]
async fn routes_come_move_and_go() {
    let (a, b) = (http_backend("a").await, http_backend("b").await);
    let (dataplane, port) = (start(), free_port());
    let mut first = [backend("a", a), backend("b", b)].concat();
    first.push(listener("one", "1", port, Protocol::Http, "one.example.com"));
    first.push(listener("two", "1", port, Protocol::Http, "*.example.com"));
    apply(&dataplane, first, &[]);
    let mut client = Http::connect(port).await;
    assert_eq!(client.get("one.example.com", "/").await.0, 404);
    apply(&dataplane, vec![http_route("r", "1", &["one"], "/", "a")], &[]);
    assert_eq!(client.get("one.example.com", "/").await, (200, "a".into()));
    assert_eq!(client.get("two.example.com", "/").await.0, 404);
    apply(&dataplane, vec![http_route("r", "2", &["two"], "/x", "b")], &[]);
    // The request belongs to the more specific listener, whether that has routes or not.
    assert_eq!(client.get("one.example.com", "/x").await.0, 404);
    assert_eq!(client.get("two.example.com", "/x").await, (200, "b".into()));
    assert_eq!(client.get("two.example.com:8080", "/").await.0, 404);
    apply(&dataplane, Vec::new(), &["route/HTTPRoute/default/r"]);
    assert_eq!(client.get("two.example.com", "/x").await.0, 404);
    assert!(!dataplane.known().contains_key("route/HTTPRoute/default/r"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let dataplane = start();
    let secret = |body| Body::Secret(v1::Secret { body });
    let garbage = v1::CertificateKeyPair {
        certificate_chain_pem: "x".into(),
        private_key_pem: "x".into(),
    };
    let ack = dataplane.apply(&update(
        vec![
            v1::Resource {
                key: "route/x".into(),
                version: "1".into(),
                body: None,
            },
            resource("route/x", "2", Body::Settings(v1::Settings::default())),
            resource("secret/x", "3", secret(None)),
            resource(
                "secret/x",
                "4",
                secret(Some(v1::secret::Body::CertificateKeyPair(garbage))),
            ),
            resource(
                "secret/x",
                "5",
                secret(Some(v1::secret::Body::TrustBundle("x".into()))),
            ),
            resource("listener/x", "6", Body::Listener(v1::Listener::default())),
        ],
        &[
            "nonsense",
            "route/unknown",
            "listener/unknown",
            "secret/unknown",
            "",
        ],
    ));
    let reasons: Vec<_> = ack
        .rejected
        .iter()
        .map(|r| (r.version.as_str(), r.reason.split(':').next().unwrap()))
        .collect();
    let wanted = [
        ("1", "body"),
        ("2", "key"),
        ("3", "body"),
        ("4", "certificate_key_pair.private_key_pem"),
        ("5", "trust_bundle"),
        ("6", "protocol"),
    ];
    assert_eq!(reasons, wanted);
    assert!(dataplane.known().is_empty());
}

#[test]
fn a_backend_waits_for_its_secret() {
    let (dataplane, authority) = (start(), Authority::new());
    let tls = v1::UpstreamTls {
        hostname: "example.com".into(),
        ca_secrets: vec!["secret/ca".into()],
        ..Default::default()
    };
    let body = v1::Backend {
        name: "default/a".into(),
        endpoints: "endpoints/a".into(),
        tls: Some(tls),
        ..Default::default()
    };
    let ack = dataplane.apply(&update(
        vec![resource("backend/a", "1", Body::Backend(body))],
        &[],
    ));
    assert!(
        ack.rejected[0].reason.starts_with("tls.ca_secrets[0]: "),
        "{ack:?}"
    );
    assert!(!dataplane.known().contains_key("backend/a"));
    apply(&dataplane, vec![authority.secret("ca", "1")], &[]);
    assert_eq!(dataplane.known()["backend/a"], "1");
}

#[test]
fn the_dump_shows_everything_but_keys() {
    let (dataplane, authority) = (start(), Authority::new());
    let issued = authority.issue("example.com");
    let mut resources = backend("a", "127.0.0.1:1".parse().unwrap());
    resources.extend([
        issued.secret("cert", "7"),
        http_route("r", "8", &["web"], "/dumped", "a"),
    ]);
    apply(&dataplane, resources, &[]);
    let dump = dataplane.dump();
    assert_eq!(dump["secret/cert"]["version"], "7");
    let text = dump.to_string();
    assert!(text.contains("/dumped") && text.contains("127.0.0.1"), "{text}");
    let key = issued.key.lines().nth(1).unwrap();
    assert!(!text.contains("PRIVATE KEY") && !text.contains(key), "{text}");
}

#[tokio::test]
async fn listeners_change_places_in_one_update() {
    let (a, b) = (http_backend("a").await, http_backend("b").await);
    let (dataplane, port) = (start(), free_port());
    let mut first = [backend("a", a), backend("b", b)].concat();
    first.extend([
        http_route("a", "1", &["one"], "/", "a"),
        http_route("b", "1", &["two"], "/", "b"),
    ]);
    first.push(listener("one", "1", port, Protocol::Http, "x.io"));
    first.push(listener("two", "1", port, Protocol::Http, "y.io"));
    apply(&dataplane, first, &[]);
    let mut client = Http::connect(port).await;
    assert_eq!(client.get("x.io", "/").await.1, "a");
    let swapped = vec![
        listener("one", "2", port, Protocol::Http, "y.io"),
        listener("two", "2", port, Protocol::Http, "x.io"),
    ];
    apply(&dataplane, swapped, &[]);
    assert_eq!(client.get("x.io", "/").await.1, "b");
    assert_eq!(client.get("y.io", "/").await.1, "a");
    // A new name for the same listener: the old one goes in the same update.
    let renamed = vec![
        listener("three", "1", port, Protocol::Http, "x.io"),
        http_route("c", "1", &["three"], "/", "a"),
    ];
    apply(&dataplane, renamed, &["listener/two"]);
    assert_eq!(client.get("x.io", "/").await.1, "a");
}

#[tokio::test]
async fn a_listener_in_anothers_place_is_refused() {
    let (dataplane, port, other) = (start(), free_port(), free_port());
    let mut first = backend("a", http_backend("a").await);
    first.push(http_route("a", "1", &["one", "two"], "/", "a"));
    first.push(listener("one", "1", port, Protocol::Http, "x.io"));
    apply(&dataplane, first, &[]);
    let reason = |resource| {
        let ack = dataplane.apply(&update(vec![resource], &[]));
        assert_eq!(ack.rejected.len(), 1);
        ack.rejected[0].reason.clone()
    };
    let twice = reason(listener("two", "1", port, Protocol::Http, "X.io"));
    assert_eq!(
        twice,
        "hostname: `x.io` is served by listener default/gw/one on this port already"
    );
    assert!(reason(listener("two", "1", port, Protocol::Tcp, "")).starts_with("protocol: "));
    let mut elsewhere = listener("two", "1", other, Protocol::Http, "z.io");
    let Some(Body::Listener(config)) = &mut elsewhere.body else {
        unreachable!()
    };
    config.bind_port = port.into();
    assert!(reason(elsewhere).starts_with("bind_port: "));

    // The last good version of one that cannot move goes on.
    apply(
        &dataplane,
        vec![listener("two", "2", port, Protocol::Http, "z.io")],
        &[],
    );
    assert!(reason(listener("two", "3", port, Protocol::Http, "x.io")).starts_with("hostname: "));
    assert_eq!(get(port, "z.io", "/").await.1, "a");
    assert_eq!(get(port, "x.io", "/").await.1, "a");
    assert_eq!(dataplane.known()["listener/two"], "2");
}

#[tokio::test]
async fn a_port_in_use_is_taken_when_it_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dataplane = start();
    let mut resources = backend("a", http_backend("a").await);
    resources.push(http_route("a", "1", &["web"], "/", "a"));
    resources.push(listener("web", "1", port, Protocol::Http, ""));
    let ack = dataplane.apply(&update(resources, &[]));
    assert!(ack.rejected[0].reason.starts_with("bind_port: "), "{ack:?}");
    assert!(!dataplane.is_ready());
    assert!(!dataplane.known().contains_key("listener/web"));
    drop(taken);
    eventually("the listener is bound", || dataplane.is_ready()).await;
    assert_eq!(get(port, "h", "/").await, (200, "a".into()));
    assert_eq!(dataplane.known()["listener/web"], "1");
}
