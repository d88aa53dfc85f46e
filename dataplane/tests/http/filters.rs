//! Filters, redirects, weights and mirrors.

use bytes::Bytes;
use sluice_config::v1;
use v1::filter::Filter as F;

use super::support::backend::{Backend, Seen, response, sum};
use super::support::client::Http;
use super::support::{self, Proxy};
use super::{cfg, with_rule};

#[tokio::test]
async fn header_modifiers() {
    let backend = Backend::echo("b").await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![
        cfg::filter(F::RequestHeaders(v1::HeaderModifier {
            set: vec![cfg::header("X-Set", "new")],
            add: vec![cfg::header("X-Add", "2")],
            remove: vec!["X-Remove".into()],
            ..Default::default()
        })),
        cfg::filter(F::ResponseHeaders(v1::HeaderModifier {
            set: vec![cfg::header("X-Response", "set")],
            remove: vec!["backend".into()],
            ..Default::default()
        })),
    ];
    rule.backends[0].filters = vec![cfg::filter(F::RequestHeaders(v1::HeaderModifier {
        set: vec![cfg::header("X-Backend", "1")],
        ..Default::default()
    }))];
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    let got = Http::new(port)
        .get_with("/", &[("x-set", "old"), ("x-add", "1"), ("x-remove", "x")])
        .await;
    assert_eq!(got.header("x-response"), Some("set"));
    assert_eq!(got.header("backend"), None);
    let seen = got.seen();
    assert_eq!(seen.header("x-set"), Some("new"));
    assert_eq!(seen.header("x-remove"), None);
    assert_eq!(seen.header("x-backend"), Some("1"));
    let added: Vec<_> = seen
        .headers
        .iter()
        .filter(|(n, _)| n == "x-add")
        .map(|(_, v)| v.as_str())
        .collect();
    assert_eq!(added, ["1", "2"]);
}

#[tokio::test]
async fn redirects() {
    let backend = Backend::echo("b").await;
    let mut rule = cfg::rule("/old", &[]);
    rule.filters = vec![cfg::filter(F::Redirect(v1::Redirect {
        scheme: "https".into(),
        hostname: "new.example".into(),
        path: Some(cfg::replace_prefix("/new")),
        status: 301,
        ..Default::default()
    }))];
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    let got = Http::new(port).get("/old/page?q=1").await;
    assert_eq!(
        (got.status, got.header("location")),
        (301, Some("https://new.example/new/page?q=1"))
    );
    assert_eq!(Http::new(port).get("/oldest").await.status, 404);
}

#[tokio::test]
async fn a_redirect_without_scheme_names_the_listener_port() {
    let mut rule = cfg::rule("/", &[]);
    rule.filters = vec![cfg::filter(F::Redirect(v1::Redirect::default()))];
    let (_proxy, port) = with_rule(&[], rule).await;
    let got = Http::new(port)
        .get_with("/a", &[("host", "h.example:1234")])
        .await;
    assert_eq!(
        (got.status, got.header("location")),
        (302, Some(&*format!("http://h.example:{port}/a")))
    );
}

#[tokio::test]
async fn rewrites() {
    let backend = Backend::echo("b").await;
    let mut prefix = cfg::rule("/prefix", &["b"]);
    prefix.filters = vec![cfg::filter(F::UrlRewrite(v1::UrlRewrite {
        hostname: "inner.example".into(),
        path: Some(cfg::replace_prefix("/x")),
        ..Default::default()
    }))];
    let mut full = cfg::rule("/full", &["b"]);
    full.backends[0].filters = vec![cfg::filter(F::UrlRewrite(v1::UrlRewrite {
        path: Some(cfg::replace_full("/one")),
        ..Default::default()
    }))];
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![prefix, full]),
    ]);
    let _proxy = Proxy::start(resources).await;
    let client = Http::new(port);
    let seen = client.get("/prefix/a?b=c").await.seen();
    assert_eq!(
        (seen.uri.as_str(), seen.header("host")),
        ("/x/a?b=c", Some("inner.example"))
    );
    let seen = client.get("/full/a?b=c").await.seen();
    assert_eq!(seen.uri, "/one?b=c");
    assert_eq!(seen.header("x-envoy-original-path"), None);
}

#[tokio::test]
async fn fixed_responses_and_missing_backends() {
    let mut fixed = cfg::rule("/fixed", &[]);
    fixed.filters = vec![cfg::filter(F::FixedResponse(v1::FixedResponse { status: 418 }))];
    let mut half = cfg::rule("/half", &["b", ""]);
    half.backends[0].weight = 1;
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend(cfg::backend("empty", &[]));
    let rules = vec![
        fixed,
        half,
        cfg::rule("/none", &[]),
        cfg::rule("/empty", &["empty"]),
    ];
    resources.extend([cfg::http_listener("l", port), cfg::route("r", "l", rules)]);
    let _proxy = Proxy::start(resources).await;
    let client = Http::new(port);
    assert_eq!(client.get("/fixed").await.status, 418);
    assert_eq!(client.get("/none").await.status, 500);
    let got = client.get("/empty").await;
    assert_eq!((got.status, &got.body[..]), (503, &b"no healthy upstream"[..]));
    assert_eq!(client.get("/nowhere").await.status, 404);
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..100 {
        statuses.insert(client.get("/half").await.status);
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [200, 500]);
}

#[tokio::test]
async fn weights() {
    let (a, b, c) = (
        Backend::echo("a").await,
        Backend::echo("b").await,
        Backend::echo("c").await,
    );
    let mut rule = cfg::rule("/", &["a", "b", "c"]);
    for (backend, weight) in rule.backends.iter_mut().zip([70, 30, 0]) {
        backend.weight = weight;
    }
    let (_proxy, port) = with_rule(&[("a", &a), ("b", &b), ("c", &c)], rule).await;
    let client = Http::new(port);
    for _ in 0..500 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(c.hits(), 0);
    // More than five standard deviations to either side.
    assert!((290..=410).contains(&a.hits()), "{} of 500", a.hits());
}

/// A backend that remembers what it was sent.
async fn recorder() -> (Backend, std::sync::Arc<std::sync::Mutex<Vec<Seen>>>) {
    let seen = std::sync::Arc::<std::sync::Mutex<Vec<Seen>>>::default();
    let kept = std::sync::Arc::clone(&seen);
    let backend = Backend::start(move |request| {
        let kept = std::sync::Arc::clone(&kept);
        async move {
            use http_body_util::BodyExt;
            let description = support::backend::describe("mirror", request).await;
            let body = description.into_body().collect().await.unwrap().to_bytes();
            kept.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            response(500, "nobody reads this")
        }
    })
    .await;
    (backend, seen)
}

#[tokio::test]
async fn mirrors() {
    let backend = Backend::echo("b").await;
    let (one, seen_one) = recorder().await;
    let (two, seen_two) = recorder().await;
    let never = Backend::echo("never").await;
    let mut rule = cfg::rule("/", &["b"]);
    let mirror = |name: &str, numerator, denominator| {
        cfg::filter(F::Mirror(v1::Mirror {
            backend: format!("backend/{name}"),
            numerator,
            denominator,
        }))
    };
    rule.filters = vec![
        mirror("one", 0, 0),
        mirror("two", 100, 100),
        mirror("never", 0, 100),
        mirror("missing", 0, 0),
        cfg::filter(F::RequestHeaders(v1::HeaderModifier {
            set: vec![cfg::header("X-Set", "1")],
            ..Default::default()
        })),
    ];
    let backends = [("b", &backend), ("one", &one), ("two", &two), ("never", &never)];
    let (_proxy, port) = with_rule(&backends, rule).await;
    let body: Bytes = (0..=255).cycle().take(300_000).collect::<Vec<u8>>().into();
    let client = Http::new(port);
    let seen = client
        .send(client.request("POST", "/m?x=1"), body.clone())
        .await
        .seen();
    assert_eq!(seen.body_len, body.len());
    support::eventually("both mirrors have it", || one.hits() == 1 && two.hits() == 1).await;
    for seen in [seen_one, seen_two] {
        support::eventually("the mirror has read it", || seen.lock().unwrap().len() == 1).await;
        let seen = seen.lock().unwrap();
        assert_eq!(
            (seen[0].method.as_str(), seen[0].uri.as_str()),
            ("POST", "/m?x=1")
        );
        assert_eq!((seen[0].body_len, seen[0].body_sum), (body.len(), sum(&body)));
        assert_eq!(seen[0].header("x-set"), Some("1"));
    }
    assert_eq!(never.hits(), 0);
}

#[tokio::test]
async fn a_mirror_that_hangs_hurts_nobody() {
    let backend = Backend::echo("b").await;
    let hangs = Backend::start(|_| std::future::pending()).await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![cfg::filter(F::Mirror(v1::Mirror {
        backend: "backend/hangs".into(),
        ..Default::default()
    }))];
    let (_proxy, port) = with_rule(&[("b", &backend), ("hangs", &hangs)], rule).await;
    let client = Http::new(port);
    let body = vec![b'x'; 8_000_000];
    let seen = client.send(client.request("POST", "/"), body).await.seen();
    assert_eq!(seen.body_len, 8_000_000);
}

#[tokio::test]
async fn cors() {
    let backend = Backend::echo("b").await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![cfg::filter(F::Cors(v1::Cors {
        allow_origins: vec!["https://*.example.com".into()],
        allow_credentials: true,
        allow_methods: vec!["GET".into(), "PUT".into()],
        allow_headers: vec!["x-one".into()],
        expose_headers: vec!["x-two".into()],
        max_age: 60,
    }))];
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    let client = Http::new(port);
    let preflight = |origin: &'static str| [("origin", origin), ("access-control-request-method", "PUT")];
    let got = client
        .send_with("OPTIONS", "/", &preflight("https://a.example.com"), "")
        .await;
    assert_eq!(got.status, 200);
    for (name, value) in [
        ("access-control-allow-origin", "https://a.example.com"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-one"),
        ("access-control-expose-headers", "x-two"),
        ("access-control-max-age", "60"),
    ] {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    let got = client
        .send_with("OPTIONS", "/", &preflight("https://a.example.org"), "")
        .await;
    assert_eq!(
        (got.status, got.header("access-control-allow-origin")),
        (200, None)
    );
    assert_eq!(backend.hits(), 0);
    let got = client.get_with("/", &[("origin", "https://a.example.com")]).await;
    assert_eq!(
        got.header("access-control-allow-origin"),
        Some("https://a.example.com")
    );
    assert_eq!(got.header("access-control-max-age"), None);
    let got = client.get_with("/", &[("origin", "https://a.example.org")]).await;
    assert_eq!(
        (got.status, got.header("access-control-allow-origin")),
        (200, None)
    );
}

#[tokio::test]
async fn listener_filters_come_first() {
    let backend = Backend::echo("b").await;
    let port = support::free_port();
    let set = |value: &str| {
        cfg::filter(F::RequestHeaders(v1::HeaderModifier {
            set: vec![cfg::header("X-By", value)],
            add: vec![cfg::header("X-All", value)],
            ..Default::default()
        }))
    };
    let listener = v1::Listener {
        port: u32::from(port),
        bind_port: u32::from(port),
        protocol: v1::Protocol::Http.into(),
        filters: vec![set("listener")],
        ..Default::default()
    };
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![set("route")];
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.extend([cfg::listener("l", listener), cfg::route("r", "l", vec![rule])]);
    let _proxy = Proxy::start(resources).await;
    let seen = Http::new(port).get("/").await.seen();
    assert_eq!(seen.header("x-by"), Some("route"));
    let all: Vec<_> = seen
        .headers
        .iter()
        .filter(|(n, _)| n == "x-all")
        .map(|(_, v)| v.as_str())
        .collect();
    assert_eq!(all, ["listener", "route"]);
}
