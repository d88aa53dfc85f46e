use super::forwarded::{
    X_ENVOY_EXTERNAL_ADDRESS, X_ENVOY_INTERNAL, X_FORWARDED_CLIENT_CERT, X_FORWARDED_PROTO,
};
use super::*;

fn arrival(peer: &str, trusted_hops: u32) -> Arrival<'static> {
    Arrival {
        peer: peer.parse().unwrap(),
        https: false,
        trusted_hops,
        client: None,
        certificate: None,
        fingerprints: None,
    }
}

fn head(fields: &[(&'static str, &str)]) -> request::Parts {
    let mut builder = http::Request::get("/a");
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn admitted(fields: &[(&'static str, &str)], arrival: Arrival) -> HeaderMap {
    let mut head = head(fields);
    admit(&mut head, arrival).unwrap();
    head.headers
}

#[test]
fn clients_are_internal_exactly_if_private() {
    for (peer, internal) in [
        ("10.0.0.1", true),
        ("172.16.0.1", true),
        ("172.32.0.1", false),
        ("192.168.1.1", true),
        ("127.0.0.1", true),
        ("::1", true),
        ("::ffff:10.0.0.1", true),
        ("fd00::1", true),
        ("fe80::1", false),
        ("8.8.8.8", false),
        ("2001:db8::1", false),
    ] {
        let headers = admitted(
            &[("host", "h"), ("x-forwarded-for", "10.9.9.9")],
            arrival(peer, 0),
        );
        assert_eq!(headers.contains_key(X_ENVOY_INTERNAL), internal, "{peer}");
        assert_eq!(
            headers.contains_key(X_ENVOY_EXTERNAL_ADDRESS),
            !internal,
            "{peer}"
        );
    }
}

#[test]
fn an_outsider_cannot_forge() {
    let headers = admitted(
        &[
            ("host", "h"),
            ("x-envoy-internal", "true"),
            ("x-envoy-external-address", "1.1.1.1"),
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-upstream-rq-timeout-ms", "1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-client-cert", "By=me"),
            ("x-request-id", "mine"),
        ],
        arrival("8.8.8.8", 0),
    );
    assert!(!headers.contains_key(X_ENVOY_INTERNAL));
    assert_eq!(headers[X_ENVOY_EXTERNAL_ADDRESS], "8.8.8.8");
    assert!(!headers.contains_key("x-envoy-retry-on"));
    assert!(!headers.contains_key("x-envoy-upstream-rq-timeout-ms"));
    assert_eq!(headers[X_FORWARDED_PROTO], "http");
    assert_eq!(headers[X_FORWARDED_FOR], "1.2.3.4,8.8.8.8");
    assert!(!headers.contains_key(X_FORWARDED_CLIENT_CERT));
    assert_ne!(headers[X_REQUEST_ID], "mine");
    assert_eq!(
        Uuid::parse_str(headers[X_REQUEST_ID].to_str().unwrap())
            .unwrap()
            .get_version_num(),
        4
    );
}

#[test]
fn trusted_hops_are_believed() {
    let fields = [
        ("host", "h"),
        ("x-forwarded-for", "9.9.9.9, 8.8.8.8,10.0.0.7"),
        ("x-request-id", "kept"),
    ];
    let headers = admitted(&fields, arrival("10.0.0.1", 2));
    assert_eq!(headers[X_ENVOY_EXTERNAL_ADDRESS], "8.8.8.8");
    assert_eq!(headers[X_REQUEST_ID], "kept");
    assert_eq!(headers[X_FORWARDED_FOR], "9.9.9.9, 8.8.8.8,10.0.0.7,10.0.0.1");
    assert_eq!(
        admitted(&fields, arrival("10.0.0.1", 1))[X_ENVOY_INTERNAL],
        "true"
    );
    // Fewer entries than hops: the peer is all there is.
    assert_eq!(
        admitted(&fields, arrival("10.0.0.1", 9))[X_ENVOY_INTERNAL],
        "true"
    );
}

#[test]
fn hop_by_hop_fields_go() {
    let mut head = head(&[
        ("host", "h"),
        ("connection", "keep-alive, X-Mine, Host, upgrade"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "websocket"),
        ("te", "gzip, trailers"),
        ("expect", "100-continue"),
        ("proxy-connection", "x"),
    ]);
    let admitted = admit(&mut head, arrival("10.0.0.1", 0)).unwrap();
    assert_eq!(admitted.upgrade.unwrap(), "websocket");
    for gone in [
        "connection",
        "x-mine",
        "keep-alive",
        "upgrade",
        "expect",
        "proxy-connection",
    ] {
        assert!(!head.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(head.headers[TE], "trailers");
    assert_eq!(head.headers[HOST], "h");
}

#[test]
fn hosts() {
    for (host, expected) in [
        ("Example.COM", Some("example.com")),
        ("example.com:8080", Some("example.com")),
        ("[::1]:80", Some("[::1]")),
        ("[::1]", Some("[::1]")),
        ("a/b", None),
        ("a@b", None),
        ("a, b", None),
    ] {
        let mut head = head(&[("host", host)]);
        let admitted = admit(&mut head, arrival("10.0.0.1", 0));
        assert_eq!(
            admitted.ok().map(|a| a.host.to_string()).as_deref(),
            expected,
            "{host}"
        );
    }
    assert!(matches!(
        admit(&mut head(&[]), arrival("10.0.0.1", 0)),
        Err(Refusal::Invalid(_))
    ));
    assert!(matches!(
        admit(&mut head(&[("host", "a"), ("host", "b")]), arrival("10.0.0.1", 0)),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn cookies_are_joined() {
    let headers = admitted(
        &[("host", "h"), ("cookie", "a=b"), ("cookie", "c=d")],
        arrival("10.0.0.1", 0),
    );
    assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=b; c=d"]);
}
