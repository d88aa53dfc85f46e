//! Routes that keep the order of their rules.

use sluice_config::v1;
use v1::filter::Filter as F;

use super::cfg;
use super::support::backend::Backend;
use super::support::client::Http;
use super::support::{self, Proxy};

/// A route whose first rule takes everything below `/a` and whose second takes `/a/b`, exactly.
fn route(name: &str, in_order: bool) -> v1::Resource {
    let mut wide = cfg::rule("/a", &["wide"]);
    wide.filters = vec![cfg::filter(F::UrlRewrite(v1::UrlRewrite {
        path: Some(cfg::replace_prefix("/x")),
        ..Default::default()
    }))];
    let mut narrow = cfg::rule("/a/b", &["narrow"]);
    narrow.matches[0].path = Some(v1::PathMatch {
        kind: v1::path_match::Kind::Exact.into(),
        value: "/a/b".into(),
    });
    let mut resource = cfg::route(name, "l", vec![wide, narrow]);
    let Some(v1::resource::Body::Route(route)) = &mut resource.body else {
        unreachable!("it is a route")
    };
    route.in_order = in_order;
    resource
}

#[tokio::test]
async fn the_first_rule_counts_where_the_order_does() {
    let (wide, narrow) = (Backend::echo("wide").await, Backend::echo("narrow").await);
    let port = support::free_port();
    let mut resources = vec![cfg::http_listener("l", port), route("r", true)];
    resources.extend(cfg::backend("wide", &[wide.address]));
    resources.extend(cfg::backend("narrow", &[narrow.address]));
    let proxy = Proxy::start(resources).await;
    let http = Http::new(port);
    let seen = http.get("/a/b").await.seen();
    assert_eq!((seen.backend.as_str(), seen.uri.as_str()), ("wide", "/x/b"));
    assert_eq!(http.get("/ab").await.status, 404);
    // Gateway API's precedence, once the route does not ask for its own order any more.
    proxy.apply(vec![route("r", false)]);
    assert_eq!(http.get("/a/b").await.seen().backend, "narrow");
    assert_eq!(http.get("/a/c").await.seen().backend, "wide");
}
