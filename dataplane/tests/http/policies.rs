//! Policies on a rule: users, keys, authorization, faults, and what HTTPRouteFilters of Envoy Gateway do.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluice_config::v1;
use v1::filter::Filter as F;
use v1::value_source::Source;

use super::support::backend::Backend;
use super::support::client::Http;
use super::{cfg, with_policy, with_rule};

/// `password`, as `htpasswd -s` writes it.
const USERS: &str = "alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n";

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn source(source: Source) -> v1::ValueSource {
    v1::ValueSource { source: Some(source) }
}

fn header_source(name: &str, prefix: &str) -> v1::ValueSource {
    source(Source::Header(v1::value_source::Header {
        name: name.into(),
        prefix: prefix.into(),
    }))
}

#[tokio::test]
async fn basic_auth() {
    let policy = v1::Policy {
        basic_auth: Some(v1::BasicAuth {
            users: Some(cfg::entry("users", ".htpasswd")),
            forward_username_header: "x-user".into(),
        }),
        ..Default::default()
    };
    let (proxy, backend, port) = with_policy(policy, vec![cfg::data("users", &[(".htpasswd", USERS)])]).await;
    for client in [Http::new(port), Http::h2(port)] {
        let good = basic("alice:password");
        let seen = client
            .get_with("/", &[("authorization", &good), ("x-user", "root")])
            .await
            .seen();
        assert_eq!(seen.header("x-user"), Some("alice"));
        let hits = backend.hits();
        let missing = client.get("/a?secret=1").await;
        assert_eq!(missing.status, 401);
        assert_eq!(
            missing.header("www-authenticate"),
            Some(&*format!("Basic realm=\"http://127.0.0.1:{port}/a\""))
        );
        assert_eq!(
            missing.body,
            "User authentication failed. Missing username and password."
        );
        for bad in [
            basic("alice:wrong"),
            basic("bob:password"),
            basic("alice"),
            "Basic !!!".into(),
            "Bearer x".into(),
            "Basic".into(),
        ] {
            let got = client.get_with("/", &[("authorization", &bad)]).await;
            assert_eq!(got.status, 401, "{bad}");
            assert!(got.body.ends_with(b"Invalid username/password combination."));
        }
        assert_eq!(backend.hits(), hits, "a refused request reached the backend");
    }
    // Another file of users is in effect at once, and none lets nobody in.
    let client = Http::new(port);
    let good = basic("alice:password");
    proxy.apply(vec![cfg::data(
        "users",
        &[(".htpasswd", "bob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=")],
    )]);
    assert_eq!(
        client.get_with("/", &[("authorization", &good)]).await.status,
        401
    );
    let bob = basic("bob:password");
    assert_eq!(client.get_with("/", &[("authorization", &bob)]).await.status, 200);
    proxy.remove(&["secret/users"]);
    assert_eq!(client.get_with("/", &[("authorization", &bob)]).await.status, 401);
}

#[tokio::test]
async fn api_keys() {
    let policy = v1::Policy {
        api_key_auth: Some(v1::ApiKeyAuth {
            credential_secrets: vec!["secret/a".into(), "secret/b".into()],
            sources: vec![
                header_source("x-api-key", ""),
                source(Source::Query("key".into())),
                source(Source::Cookie("key".into())),
            ],
            forward_client_id_header: "x-client".into(),
            sanitize: true,
        }),
        ..Default::default()
    };
    let secrets = vec![
        cfg::data("a", &[("one", "k-one\n"), ("empty", "")]),
        cfg::data("b", &[("one", "k-other"), ("two", "k-two")]),
    ];
    let (proxy, backend, port) = with_policy(policy, secrets).await;
    let client = Http::new(port);
    let seen = client
        .get_with("/", &[("x-api-key", "k-one"), ("x-client", "forged")])
        .await
        .seen();
    assert_eq!(
        (seen.header("x-client"), seen.header("x-api-key")),
        (Some("one"), None)
    );
    let seen = client.get("/a?x=1&key=k-two").await.seen();
    assert_eq!((seen.header("x-client"), &*seen.uri), (Some("two"), "/a?x=1"));
    let seen = client
        .get_with("/", &[("cookie", "a=1; key=k-two; b=2")])
        .await
        .seen();
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    let hits = backend.hits();
    for (path, headers) in [
        ("/", vec![]),
        ("/", vec![("x-api-key", "")]),
        ("/", vec![("x-api-key", "k-three")]),
        ("/?key=", vec![]),
        ("/?key=%ff", vec![]),
        // The first Secret that names a client holds.
        ("/", vec![("x-api-key", "k-other")]),
        // The first source that carries a value is asked.
        ("/?key=k-two", vec![("x-api-key", "wrong")]),
    ] {
        let got = client.get_with(path, &headers).await;
        assert_eq!(
            (got.status, &*got.body),
            (401, &b"Client authentication failed."[..]),
            "{path} {headers:?}"
        );
    }
    assert_eq!(backend.hits(), hits);
    let shown = proxy.dataplane.dump().to_string();
    for secret in ["k-one", "k-two", "k-other"] {
        assert!(!shown.contains(secret), "a key is shown");
    }
}

#[tokio::test]
async fn preflights_need_no_credentials() {
    let backend = Backend::echo("b").await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![cfg::filter(F::Cors(v1::Cors {
        allow_origins: vec!["https://a.example".into()],
        allow_methods: vec!["PUT".into()],
        ..Default::default()
    }))];
    rule.policy = Some(v1::Policy {
        basic_auth: Some(v1::BasicAuth {
            users: Some(cfg::entry("none", "x")),
            ..Default::default()
        }),
        ..Default::default()
    });
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    let client = Http::new(port);
    let origin = ("origin", "https://a.example");
    let preflight = [origin, ("access-control-request-method", "PUT")];
    let got = client.send_with("OPTIONS", "/", &preflight, "").await;
    assert_eq!(
        (got.status, got.header("access-control-allow-origin")),
        (200, Some("https://a.example"))
    );
    // The answer to the request itself can be read, too.
    let got = client.send_with("PUT", "/", &[origin], "").await;
    assert_eq!(
        (got.status, got.header("access-control-allow-origin")),
        (401, Some("https://a.example"))
    );
    assert_eq!(backend.hits(), 0);
}

fn rule(allow: bool) -> v1::AuthorizationRule {
    v1::AuthorizationRule {
        allow,
        ..Default::default()
    }
}

fn path(kind: v1::path_match::Kind, value: &str, invert: bool) -> v1::RequestPath {
    v1::RequestPath {
        path: Some(v1::PathMatch {
            kind: kind.into(),
            value: value.into(),
        }),
        invert,
    }
}

#[tokio::test]
async fn authorization() {
    use v1::path_match::Kind;
    let policy = v1::Policy {
        authorization: Some(v1::Authorization {
            rules: vec![
                v1::AuthorizationRule {
                    client_cidrs: vec!["10.0.0.0/8".into(), "2001:db8::/32".into()],
                    ..rule(false)
                },
                v1::AuthorizationRule {
                    methods: vec!["GET".into(), "HEAD".into()],
                    path: Some(path(Kind::Prefix, "/public", false)),
                    ..rule(true)
                },
                v1::AuthorizationRule {
                    headers: vec![v1::HeaderPrincipal {
                        name: "x-team".into(),
                        values: vec!["red".into(), "blue".into()],
                    }],
                    path: Some(path(Kind::Regex, "/secret/.*", true)),
                    ..rule(true)
                },
            ],
            allow_by_default: false,
        }),
        ..Default::default()
    };
    let hops = cfg::settings(v1::Settings {
        xff_trusted_hops: 1,
        ..Default::default()
    });
    let (_proxy, backend, port) = with_policy(policy, vec![hops]).await;
    let client = Http::new(port);
    let inside = ("x-forwarded-for", "10.1.2.3");
    for (method, path, headers, expected) in [
        ("GET", "/public/a", vec![], 200),
        ("POST", "/public/a", vec![], 403),
        ("GET", "/publicly", vec![], 403),
        ("GET", "/public/a", vec![inside], 403),
        ("GET", "/public/a", vec![("x-forwarded-for", "2001:db8::1")], 403),
        (
            "GET",
            "/public/a",
            vec![("x-forwarded-for", "::ffff:10.1.2.3")],
            403,
        ),
        ("GET", "/public/a", vec![("x-forwarded-for", "11.1.2.3")], 200),
        ("POST", "/a", vec![("x-team", "blue")], 200),
        ("POST", "/a", vec![("x-team", "green")], 403),
        ("POST", "/a", vec![("x-team", "red"), ("x-team", "blue")], 403),
        ("POST", "/secret/a", vec![("x-team", "red")], 403),
        ("POST", "/a/../secret/a", vec![("x-team", "red")], 403),
        ("POST", "/a", vec![("x-team", "red"), inside], 403),
    ] {
        let got = client.send_with(method, path, &headers, "").await;
        assert_eq!(got.status, expected, "{method} {path} {headers:?}");
        if expected == 403 {
            assert_eq!(got.body, "RBAC: access denied");
        }
    }
    assert_eq!(backend.hits(), 3);
}

#[tokio::test]
async fn nothing_is_allowed_by_default() {
    let policy = |authorization| v1::Policy {
        authorization: Some(authorization),
        ..Default::default()
    };
    let (_proxy, _backend, port) = with_policy(policy(v1::Authorization::default()), vec![]).await;
    assert_eq!(Http::new(port).get("/").await.status, 403);
    let open = v1::Authorization {
        allow_by_default: true,
        ..Default::default()
    };
    let (_proxy, _backend, port) = with_policy(policy(open), vec![]).await;
    assert_eq!(Http::new(port).get("/").await.status, 200);
}

#[tokio::test]
async fn a_policy_that_cannot_be_honoured_is_refused() {
    let (proxy, _backend, port) = with_policy(v1::Policy::default(), vec![]).await;
    for policy in [
        v1::Policy {
            authorization: Some(v1::Authorization {
                rules: vec![v1::AuthorizationRule {
                    client_cidrs: vec!["10.0.0.0/99".into()],
                    ..rule(false)
                }],
                ..Default::default()
            }),
            ..Default::default()
        },
        v1::Policy {
            basic_auth: Some(v1::BasicAuth::default()),
            ..Default::default()
        },
        v1::Policy {
            api_key_auth: Some(v1::ApiKeyAuth::default()),
            ..Default::default()
        },
        v1::Policy {
            jwt: Some(v1::Jwt::default()),
            ..Default::default()
        },
    ] {
        let mut rule = cfg::rule("/", &["b"]);
        rule.policy = Some(policy.clone());
        let mut resource = cfg::route("r", "l", vec![rule]);
        resource.version = "odd".into();
        let ack = proxy.dataplane.apply(&v1::Update {
            nonce: 99,
            upserts: vec![resource],
            ..Default::default()
        });
        assert_eq!(ack.rejected.len(), 1, "{policy:?}");
        assert!(ack.rejected[0].reason.contains("policy."), "{:?}", ack.rejected);
    }
    assert_eq!(
        Http::new(port).get("/").await.status,
        200,
        "the last good version serves"
    );
}

#[tokio::test]
async fn faults() {
    let abort = |http_status, grpc_status, share| v1::Policy {
        fault: Some(v1::FaultInjection {
            delay: Some(v1::fault_injection::Delay {
                duration_ms: 1,
                share: 1_000_000,
            }),
            abort: Some(v1::fault_injection::Abort {
                http_status,
                grpc_status,
                share,
            }),
        }),
        ..Default::default()
    };
    let (_proxy, backend, port) = with_policy(abort(418, None, 1_000_000), vec![]).await;
    let got = Http::new(port).get("/").await;
    assert_eq!((got.status, &*got.body), (418, &b"fault filter abort"[..]));
    assert_eq!(backend.hits(), 0);
    let (_proxy, _backend, port) = with_policy(abort(0, Some(14), 1_000_000), vec![]).await;
    let got = Http::new(port).get("/").await;
    assert_eq!((got.status, got.header("grpc-status")), (200, Some("14")));
    let (_proxy, _backend, port) = with_policy(abort(418, None, 0), vec![]).await;
    assert_eq!(Http::new(port).get("/").await.status, 200);
}

#[tokio::test]
async fn direct_responses() {
    let mut rule = cfg::rule("/", &[]);
    rule.filters = vec![cfg::filter(F::DirectResponse(v1::DirectResponse {
        status: 503,
        content_type: "application/json".into(),
        body: br#"{"path": "%REQ(:path)%", "full": "100%"}"#.into(),
        headers: Some(v1::HeaderModifier {
            set: vec![cfg::header("x-direct", "1")],
            ..Default::default()
        }),
    }))];
    let (_proxy, port) = with_rule(&[], rule).await;
    let got = Http::new(port).get("/a?b=c").await;
    assert_eq!((got.status, got.header("x-direct")), (503, Some("1")));
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.body, r#"{"path": "/a?b=c", "full": "100%"}"#);
}

#[tokio::test]
async fn credentials_are_injected() {
    let backend = Backend::echo("b").await;
    let mut rule = cfg::rule("/", &["b"]);
    let injection = |overwrite| v1::CredentialInjection {
        header: if overwrite { "authorization" } else { "x-token" }.into(),
        credential: Some(cfg::entry("credential", "credential")),
        overwrite,
    };
    rule.filters = [true, false]
        .map(|overwrite| cfg::filter(F::CredentialInjection(injection(overwrite))))
        .into();
    let (proxy, port) = with_rule(&[("b", &backend)], rule).await;
    let client = Http::new(port);
    assert_eq!(client.get("/").await.status, 401, "there is no credential yet");
    proxy.apply(vec![cfg::data("credential", &[("credential", "Bearer abc\n")])]);
    let own = [("authorization", "own"), ("x-token", "own")];
    let seen = client.get_with("/", &own).await.seen();
    assert_eq!(seen.header("authorization"), Some("Bearer abc"));
    assert_eq!(seen.header("x-token"), Some("own"));
    let seen = client.get("/").await.seen();
    assert_eq!(seen.header("x-token"), Some("Bearer abc"));
}

#[tokio::test]
async fn rewrites_by_expression_and_by_header() {
    let backend = Backend::echo("b").await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![cfg::filter(F::UrlRewrite(v1::UrlRewrite {
        path: Some(v1::PathModifier {
            modifier: Some(v1::path_modifier::Modifier::ReplaceRegexMatch(v1::RegexRewrite {
                pattern: "^/service/([^/]+)(/.*)$".into(),
                substitution: r"\2/instance/\1".into(),
            })),
        }),
        hostname_from_header: "x-host".into(),
        append_x_forwarded_host: true,
        ..Default::default()
    }))];
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    let client = Http::new(port);
    let headers = [("host", "own.example"), ("x-host", "other.example:81")];
    let seen = client.get_with("/service/foo/v1/api?q=1", &headers).await.seen();
    assert_eq!(seen.uri, "/v1/api/instance/foo?q=1");
    assert_eq!(seen.header("host"), Some("other.example:81"));
    assert_eq!(seen.header("x-forwarded-host"), Some("own.example"));
    for odd in ["", "a b", "a/b"] {
        let headers = [("host", "own.example"), ("x-host", odd)];
        let seen = client.get_with("/", &headers).await.seen();
        assert_eq!(seen.header("host"), Some("own.example"), "{odd}");
    }
}

#[tokio::test]
async fn cookies_choose_the_rule() {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let port = super::support::free_port();
    let mut canary = cfg::rule("/", &["a"]);
    canary.matches[0].cookies = vec![v1::ValueMatch {
        name: "version".into(),
        value: "canary|beta".into(),
        regex: true,
    }];
    let mut resources = vec![
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"]), canary]),
    ];
    resources.extend(cfg::backend("a", &[a.address]));
    resources.extend(cfg::backend("b", &[b.address]));
    let _proxy = super::Proxy::start(resources).await;
    let client = Http::new(port);
    for (cookie, backend) in [
        ("version=canary", "a"),
        ("x=1; version=beta; y=2", "a"),
        ("version=canary2", "b"),
        ("Version=canary", "b"),
        ("canary", "b"),
    ] {
        let seen = client.get_with("/", &[("cookie", cookie)]).await.seen();
        assert_eq!(seen.backend, backend, "{cookie}");
    }
    assert_eq!(client.get("/").await.seen().backend, "b");
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    use v1::string_match::Kind;
    let origin = |kind: Kind, value: &str| v1::StringMatch {
        kind: kind.into(),
        value: value.into(),
    };
    let policy = v1::Policy {
        csrf: Some(v1::Csrf {
            additional_origins: vec![
                origin(Kind::Exact, "other.example"),
                origin(Kind::Suffix, ".trusted.example"),
                origin(Kind::Exact, "https://strict.example"),
            ],
            ..Default::default()
        }),
        ..Default::default()
    };
    let (_proxy, backend, port) = with_policy(policy, vec![]).await;
    let client = Http::new(port);
    let own = ("host", "own.example");
    for (method, header, value, expected) in [
        ("GET", "origin", "https://evil.example", 200),
        ("OPTIONS", "origin", "https://evil.example", 200),
        ("POST", "origin", "https://own.example", 200),
        ("POST", "origin", "https://OWN.example", 200),
        ("POST", "referer", "https://own.example/page?x=1", 200),
        ("POST", "origin", "https://own.example:8443", 403),
        ("POST", "origin", "https://evil.example", 403),
        ("PUT", "origin", "https://other.example:81", 200),
        ("DELETE", "origin", "https://a.trusted.example", 200),
        ("PATCH", "origin", "https://eviltrusted.example", 403),
        ("POST", "origin", "https://strict.example", 200),
        ("POST", "origin", "http://strict.example", 403),
        ("POST", "origin", "null", 403),
        ("POST", "origin", "own.example", 403),
        ("POST", "origin", "https://", 403),
        ("POST", "x-other", "", 403),
    ] {
        let got = client.send_with(method, "/", &[own, (header, value)], "").await;
        assert_eq!(got.status, expected, "{method} {header}: {value}");
    }
    assert_eq!(backend.hits(), 8);
}

#[tokio::test]
async fn other_origins_can_be_watched_before_they_are_turned_away() {
    let share = |numerator, denominator| v1::Policy {
        csrf: Some(v1::Csrf {
            shadow_numerator: numerator,
            shadow_denominator: denominator,
            ..Default::default()
        }),
        ..Default::default()
    };
    for (numerator, denominator, expected) in [(100, 100, 200), (0, 100, 403), (0, 0, 403), (1, 0, 403)] {
        let (proxy, _backend, port) = with_policy(share(numerator, denominator), vec![]).await;
        let client = Http::new(port);
        for (origin, expected) in [("https://evil.example", expected), ("https://own.example", 200)] {
            let headers = [("host", "own.example"), ("origin", origin)];
            let got = client.send_with("POST", "/", &headers, "").await;
            assert_eq!(got.status, expected, "{numerator}/{denominator} {origin}");
        }
        let metrics = proxy.dataplane.metrics().encode();
        for kind in ["valid", "invalid"] {
            let line = format!("sluice_route_csrf_request_{kind}_total{{route=\"HTTPRoute/test/r\"}} 1");
            assert!(metrics.contains(&line), "no {line} in {metrics}");
        }
    }
    let (_proxy, backend, port) = with_policy(share(1, 2), vec![]).await;
    let headers = [("host", "own.example"), ("origin", "https://evil.example")];
    for _ in 0..100 {
        Http::new(port).send_with("POST", "/", &headers, "").await;
    }
    // 100 tosses that all fall alike are not to be expected.
    assert!((1..100).contains(&backend.hits()), "{}", backend.hits());
}

#[tokio::test]
async fn a_failing_backend_is_spared() {
    let backend = Backend::status(500).await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(v1::Policy {
        admission_control: Some(v1::AdmissionControl {
            window_ms: 3_600_000,
            min_success_percent: 100.0,
            aggression: 1.0,
            max_rejection_percent: 100.0,
            ..Default::default()
        }),
        ..Default::default()
    });
    let (_proxy, port) = with_rule(&[("b", &backend)], rule).await;
    let client = Http::new(port);
    assert_eq!(client.get("/").await.status, 500, "nothing is known yet");
    let mut statuses = Vec::new();
    for _ in 0..200 {
        statuses.push(client.get("/").await.status);
    }
    // The chance to pass after n failures is 1 / (n + 1): some twenty of two hundred.
    let spared = statuses.iter().filter(|status| **status == 503).count();
    assert!((100..200).contains(&spared), "{spared}");
    assert_eq!(backend.hits(), 201 - spared);
}
