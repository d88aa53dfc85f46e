//! What responses say of how long limits on bandwidth have held bodies back.

use sluice_config::v1;

use super::cfg;
use super::support::backend::{Backend, response};
use super::support::client::Http;
use super::support::{self, Proxy};

/// Bytes that pass at once, and some more.
const BODY: usize = 30_000;

fn limited(trailer_prefix: Option<&str>) -> v1::Policy {
    v1::Policy {
        bandwidth_limit: Some(v1::BandwidthLimit {
            request: None,
            response: Some(v1::bandwidth_limit::Rate {
                // Half of a body passes at once, the other has to wait.
                bytes: BODY as u64 / 2,
                per_ms: 100,
            }),
            trailer_prefix: trailer_prefix.map(ToOwned::to_owned),
        }),
        ..Default::default()
    }
}

async fn proxy(policy: v1::Policy) -> (Proxy, Backend, u16) {
    let backend = Backend::start(|request| async move {
        if request.uri().path() == "/short" {
            response(200, "short")
        } else {
            response(200, vec![b'x'; BODY])
        }
    })
    .await;
    let port = support::free_port();
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(policy);
    let mut resources = vec![cfg::http_listener("l", port), cfg::route("r", "l", vec![rule])];
    resources.extend(cfg::backend("b", &[backend.address]));
    (Proxy::start(resources).await, backend, port)
}

#[tokio::test]
async fn trailers_say_how_long_a_response_was_held_back() {
    for (prefix, name) in [("x-eg", "x-eg-bandwidth-response"), ("", "bandwidth-response")] {
        let (_proxy, _backend, port) = proxy(limited(Some(prefix))).await;
        let http = Http::h2(port);
        let short = http.get("/short").await;
        assert_eq!(
            (short.status, short.trailers),
            (200, None),
            "it was not held back"
        );
        // Pieces come one after the other, so more than one response may be needed to owe something.
        let mut trailers = None;
        for _ in 0..3 {
            let got = http.get("/").await;
            assert_eq!((got.status, got.body.len()), (200, BODY));
            trailers = got.trailers.or(trailers);
        }
        let trailers = trailers.expect("they were held back");
        let ms = |name: String| {
            trailers
                .get(name.as_str())
                .unwrap()
                .to_str()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        };
        assert!(ms(format!("{name}-filter-delay-ms")) > 0, "{trailers:?}");
        assert!(
            trailers
                .get(format!("{name}-delay-ms").as_str())
                .is_none_or(|ms| ms != "0")
        );
        assert!(
            !trailers.keys().any(|name| name.as_str().contains("request")),
            "{trailers:?}"
        );
    }
    let (_proxy, _backend, port) = proxy(limited(None)).await;
    for _ in 0..3 {
        assert_eq!(
            Http::h2(port).get("/").await.trailers,
            None,
            "nobody asks for them"
        );
    }
}
