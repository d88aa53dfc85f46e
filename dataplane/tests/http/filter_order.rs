//! Filters of rules in another order than the usual one: seen by who answers, and by what services are asked.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sluice_config::v1;
use sluice_dataplane::filter::ext_proc::proto::{self, Answer, Shown};
use v1::FilterStep as Step;
use v1::external_processor::BodyMode;
use v1::filter::Filter as F;
use v1::response_override::{Action, Source};

use super::ext_proc::{answer, both, common, processor, sets};
use super::support::backend::{Backend, response};
use super::support::client::Http;
use super::support::{self, Proxy};
use super::{cfg, jwt};

const ORIGIN: (&str, &str) = ("origin", "https://a.example");

/// A proxy with this one rule, whose route has the steps in this order before all others.
async fn proxy(rule: &v1::HttpRule, steps: &[Step], others: &[v1::Resource]) -> (Proxy, Http) {
    let port = support::free_port();
    let mut route = cfg::route("r", "l", vec![rule.clone()]);
    if let Some(v1::resource::Body::Route(route)) = &mut route.body {
        route.filter_order = steps.iter().map(|step| i32::from(*step)).collect();
    }
    let mut resources = vec![cfg::http_listener("l", port), route];
    resources.extend_from_slice(others);
    (Proxy::start(resources).await, Http::new(port))
}

fn governed(policy: v1::Policy) -> v1::HttpRule {
    v1::HttpRule {
        policy: Some(policy),
        ..cfg::rule("/", &["b"])
    }
}

/// Lets nobody pass: there are no users.
fn basic_auth() -> v1::BasicAuth {
    v1::BasicAuth {
        users: Some(cfg::entry("none", "x")),
        ..Default::default()
    }
}

fn cors() -> v1::Cors {
    v1::Cors {
        allow_origins: vec![ORIGIN.1.into()],
        allow_methods: vec!["PUT".into()],
        ..Default::default()
    }
}

/// One request in a long time.
fn one_request() -> v1::RateLimit {
    v1::RateLimit {
        rules: vec![v1::RateLimitRule {
            bucket: "b".into(),
            requests: 1,
            unit_seconds: 24 * 3600,
            ..Default::default()
        }],
    }
}

#[tokio::test]
async fn tokens_are_asked_for_before_or_after_the_authorizer() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let authorizer = Backend::start(move |request| {
        let user = request.headers().get("x-sub").cloned();
        seen.lock().unwrap().push(user);
        async { response(200, "") }
    })
    .await;
    let backend = Backend::echo("b").await;
    let issuer = jwt::Issuer::new("one");
    let rule = governed(v1::Policy {
        external_auth: Some(v1::ExternalAuth {
            protocol: v1::external_auth::Protocol::Http.into(),
            backend: "backend/auth".into(),
            allowed_request_headers: vec!["x-sub".into()],
            ..Default::default()
        }),
        ..jwt::policy(jwt::provider(jwt::local()), false)
    });
    let mut others = vec![cfg::data("jwks", &[("jwks", &jwt::set(&[issuer.jwk()]))])];
    others.extend(cfg::backend("b", &[backend.address]));
    others.extend(cfg::backend("auth", &[authorizer.address]));
    let token = jwt::bearer(&issuer.sign(&jwt::claims()));
    let token = [("authorization", &*token)];
    for (steps, user) in [(&[][..], None), (&[Step::Jwt], Some("alice"))] {
        asked.lock().unwrap().clear();
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        assert_eq!(client.get("/").await.status, 401, "{steps:?}");
        // Who has no token is not asked about if tokens are asked for first.
        assert_eq!(asked.lock().unwrap().len(), usize::from(steps.is_empty()));
        assert_eq!(client.get_with("/", &token).await.status, 200, "{steps:?}");
        let asked = asked.lock().unwrap();
        assert_eq!(
            asked.last().unwrap().as_ref().map(|user| user.to_str().unwrap()),
            user,
            "{steps:?}"
        );
    }
}

#[tokio::test]
async fn limits_count_before_or_after_users_are_known() {
    let backend = Backend::echo("b").await;
    let rule = governed(v1::Policy {
        basic_auth: Some(basic_auth()),
        rate_limit: Some(one_request()),
        ..Default::default()
    });
    let others = cfg::backend("b", &[backend.address]);
    for (steps, statuses) in [(&[][..], [401, 401]), (&[Step::RateLimit], [401, 429])] {
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        for status in statuses {
            assert_eq!(client.get("/").await.status, status, "{steps:?}");
        }
    }
}

#[tokio::test]
async fn faults_strike_before_or_after_sharing() {
    let backend = Backend::echo("b").await;
    let policy = v1::Policy {
        fault: Some(v1::FaultInjection {
            abort: Some(v1::fault_injection::Abort {
                http_status: 418,
                share: 1_000_000,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let of_policy = governed(v1::Policy {
        cors: Some(cors()),
        ..policy.clone()
    });
    // The rule's own filter goes where the policy's would.
    let own = v1::HttpRule {
        filters: vec![cfg::filter(F::Cors(cors()))],
        ..governed(policy)
    };
    let others = cfg::backend("b", &[backend.address]);
    for rule in [of_policy, own] {
        for (steps, preflight, allowed) in [
            (&[][..], 418, None),
            (&[Step::Cors], 200, Some(ORIGIN.1)),
            (&[Step::Fault, Step::Cors], 418, None),
        ] {
            let (_proxy, client) = proxy(&rule, steps, &others).await;
            let got = client.get_with("/", &[ORIGIN]).await;
            let granted = got.header("access-control-allow-origin");
            assert_eq!((got.status, granted), (418, allowed), "{steps:?}");
            let asks = [ORIGIN, ("access-control-request-method", "PUT")];
            let got = client.send_with("OPTIONS", "/", &asks, "").await;
            assert_eq!(got.status, preflight, "{steps:?}");
        }
    }
}

#[tokio::test]
async fn processors_see_a_request_before_or_after_it_is_authorized() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let address = processor(move |_, answers| {
        count.fetch_add(1, Ordering::SeqCst);
        answers.push(answer(Answer::RequestHeaders(common(proto::CommonResponse {
            header_mutation: sets(&[("x-role", "admin")]),
            ..Default::default()
        }))));
    })
    .await;
    let backend = Backend::echo("b").await;
    // Only those pass whom the processor has given a role.
    let rule = governed(v1::Policy {
        authorization: Some(v1::Authorization {
            rules: vec![v1::AuthorizationRule {
                allow: true,
                headers: vec![v1::HeaderPrincipal {
                    name: "x-role".into(),
                    values: vec!["admin".into()],
                }],
                ..Default::default()
            }],
            ..Default::default()
        }),
        external_processors: vec![super::ext_proc::config(BodyMode::Unspecified)],
        ..Default::default()
    });
    let mut others = cfg::backend("b", &[backend.address]);
    others.extend(cfg::h2c("processor", &[address]));
    for (steps, status, questions) in [(&[][..], 200, 1), (&[Step::Authorization], 403, 0)] {
        asked.store(0, Ordering::SeqCst);
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        assert_eq!(client.get("/").await.status, status, "{steps:?}");
        assert_eq!(asked.load(Ordering::SeqCst), questions, "{steps:?}");
    }
}

/// Says which headers of a response a processor is shown, of those that filters make.
fn watched(message: &proto::ProcessingRequest, shown: &Mutex<Vec<String>>) -> Answer {
    const WATCHED: [&str; 4] = [
        ":status",
        "x-own",
        "x-ratelimit-limit",
        "access-control-allow-origin",
    ];
    let Some(Shown::ResponseHeaders(head)) = &message.request else {
        return Answer::RequestHeaders(super::ext_proc::nothing());
    };
    let fields = &head.headers.as_ref().unwrap().headers;
    let names = fields.iter().map(|field| field.key.clone());
    let mut names: Vec<_> = names.filter(|name| WATCHED.contains(&&**name)).collect();
    names.sort();
    *shown.lock().unwrap() = names;
    Answer::ResponseHeaders(super::ext_proc::nothing())
}

#[tokio::test]
async fn responses_pass_the_other_way_round() {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let address = processor(move |message, answers| {
        answers.push(answer(watched(message, &seen)));
    })
    .await;
    let backend = Backend::echo("b").await;
    let rule = v1::HttpRule {
        filters: vec![cfg::filter(F::ResponseHeaders(v1::HeaderModifier {
            set: vec![cfg::header("x-own", "1")],
            ..Default::default()
        }))],
        ..governed(v1::Policy {
            cors: Some(cors()),
            rate_limit: Some(one_request()),
            external_processors: vec![both(BodyMode::Unspecified)],
            ..Default::default()
        })
    };
    let mut others = cfg::backend("b", &[backend.address]);
    others.extend(cfg::h2c("processor", &[address]));
    let (cors, limit) = ("access-control-allow-origin", "x-ratelimit-limit");
    for (steps, expected) in [
        (&[][..], &[":status", "x-own", limit][..]),
        (
            &[Step::ExternalProcessors],
            &[":status", cors, "x-own", limit][..],
        ),
        (&[Step::RateLimit], &[":status", "x-own"][..]),
    ] {
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        let got = client.get_with("/", &[ORIGIN]).await;
        assert_eq!(*shown.lock().unwrap(), expected, "{steps:?}");
        // The client gets all of it, once.
        for name in [cors, limit, "x-own"] {
            assert_eq!(got.headers.get_all(name).iter().count(), 1, "{name} {steps:?}");
        }
    }
}

fn sorry() -> v1::ResponseOverride {
    v1::ResponseOverride {
        statuses: vec![v1::StatusRange {
            first: 400,
            last: 599,
        }],
        source: Source::Unspecified.into(),
        action: Some(Action::Response(v1::CustomResponse {
            status: 299,
            body: Some("sorry".into()),
            ..Default::default()
        })),
        ..Default::default()
    }
}

#[tokio::test]
async fn only_what_comes_after_overrides_is_overridden() {
    let backend = Backend::echo("b").await;
    let rule = governed(v1::Policy {
        response_overrides: vec![sorry()],
        basic_auth: Some(basic_auth()),
        ..Default::default()
    });
    let others = cfg::backend("b", &[backend.address]);
    for (steps, status) in [
        (&[][..], 299),
        (&[Step::BasicAuth], 401),
        (&[Step::ResponseOverrides, Step::BasicAuth], 299),
    ] {
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        assert_eq!(client.get("/").await.status, status, "{steps:?}");
    }
}

#[tokio::test]
async fn a_backends_response_is_overridden_before_or_after_processors_see_it() {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let address = processor(move |message, answers| {
        answers.push(answer(watched(message, &seen)));
    })
    .await;
    let backend = Backend::status(503).await;
    let rule = governed(v1::Policy {
        response_overrides: vec![sorry()],
        external_processors: vec![both(BodyMode::Unspecified)],
        ..Default::default()
    });
    let mut others = cfg::backend("b", &[backend.address]);
    others.extend(cfg::h2c("processor", &[address]));
    for (steps, expected) in [
        (&[][..], &[":status"][..]),
        (&[Step::ExternalProcessors], &[][..]),
    ] {
        shown.lock().unwrap().clear();
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        assert_eq!(client.get("/").await.status, 299, "{steps:?}");
        assert_eq!(*shown.lock().unwrap(), expected, "{steps:?}");
    }
}

#[tokio::test]
async fn bodies_are_compressed_before_or_after_processors_see_them() {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let address = processor(move |message, answers| {
        let nothing = super::ext_proc::nothing;
        answers.push(answer(match message.request.as_ref().unwrap() {
            Shown::ResponseHeaders(_) => Answer::ResponseHeaders(nothing()),
            Shown::ResponseBody(piece) => {
                seen.lock().unwrap().extend_from_slice(&piece.body);
                Answer::ResponseBody(nothing())
            }
            _ => Answer::RequestHeaders(nothing()),
        }));
    })
    .await;
    let text = "a text that is said over and over again. ".repeat(100);
    let body = text.clone();
    let backend = Backend::start(move |_| {
        let mut response = response(200, body.clone());
        let headers = response.headers_mut();
        headers.insert("content-type", "text/plain".parse().unwrap());
        async { response }
    })
    .await;
    let rule = governed(v1::Policy {
        compressors: vec![v1::Compressor {
            kind: v1::compressor::Kind::Gzip.into(),
            ..Default::default()
        }],
        external_processors: vec![both(BodyMode::Streamed)],
        ..Default::default()
    });
    let mut others = cfg::backend("b", &[backend.address]);
    others.extend(cfg::h2c("processor", &[address]));
    for (steps, is_plain) in [(&[][..], false), (&[Step::Compression], true)] {
        shown.lock().unwrap().clear();
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        let got = client.get_with("/", &[("accept-encoding", "gzip")]).await;
        assert_eq!(got.header("content-encoding"), Some("gzip"), "{steps:?}");
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&got.body[..])
            .read_to_string(&mut plain)
            .unwrap();
        assert!(plain == text, "{steps:?}");
        let expected = if is_plain { text.as_bytes() } else { &got.body[..] };
        assert!(*shown.lock().unwrap() == expected, "{steps:?}");
    }
}

#[tokio::test]
async fn credentials_are_put_in_before_or_after_processors() {
    let shown = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&shown);
    let address = processor(move |message, answers| {
        let Some(Shown::RequestHeaders(head)) = &message.request else {
            return;
        };
        let fields = &head.headers.as_ref().unwrap().headers;
        *seen.lock().unwrap() = fields.iter().any(|field| field.key == "x-token");
        answers.push(answer(Answer::RequestHeaders(super::ext_proc::nothing())));
    })
    .await;
    let backend = Backend::echo("b").await;
    let rule = v1::HttpRule {
        filters: vec![cfg::filter(F::CredentialInjection(v1::CredentialInjection {
            header: "x-token".into(),
            credential: Some(cfg::entry("credential", "credential")),
            ..Default::default()
        }))],
        ..governed(super::ext_proc::policy(vec![super::ext_proc::config(
            BodyMode::Unspecified,
        )]))
    };
    let mut others = vec![cfg::data("credential", &[("credential", "abc")])];
    others.extend(cfg::backend("b", &[backend.address]));
    others.extend(cfg::h2c("processor", &[address]));
    for (steps, expected) in [(&[][..], false), (&[Step::CredentialInjection], true)] {
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        assert_eq!(client.get("/").await.seen().header("x-token"), Some("abc"));
        assert_eq!(*shown.lock().unwrap(), expected, "{steps:?}");
    }
}

#[tokio::test]
async fn sessions_are_read_before_or_after_processors() {
    let token = Arc::new(Mutex::new(String::new()));
    let said = Arc::clone(&token);
    let address = processor(move |_, answers| {
        let token = said.lock().unwrap().clone();
        answers.push(answer(Answer::RequestHeaders(common(proto::CommonResponse {
            header_mutation: sets(&[("sticky", &token)]),
            ..Default::default()
        }))));
    })
    .await;
    let backends = [Backend::echo("a").await, Backend::echo("b").await];
    let rule = v1::HttpRule {
        session_persistence: Some(v1::SessionPersistence {
            kind: v1::session_persistence::Kind::Header.into(),
            name: "sticky".into(),
            ..Default::default()
        }),
        ..governed(super::ext_proc::policy(vec![super::ext_proc::config(
            BodyMode::Unspecified,
        )]))
    };
    let mut others = cfg::backend("b", &backends.each_ref().map(|backend| backend.address));
    others.extend(cfg::h2c("processor", &[address]));
    for (steps, is_bound) in [(&[][..], false), (&[Step::ExternalProcessors], true)] {
        token.lock().unwrap().clear();
        let (_proxy, client) = proxy(&rule, steps, &others).await;
        let first = client.get("/").await;
        first
            .header("sticky")
            .unwrap()
            .clone_into(&mut token.lock().unwrap());
        let bound = first.seen().backend;
        let mut others = 0;
        for _ in 0..40 {
            others += usize::from(client.get("/").await.seen().backend != bound);
        }
        assert_eq!(others == 0, is_bound, "{steps:?}: {others} of 40");
    }
}

#[tokio::test]
async fn routes_are_chosen_anew_where_the_order_is_another() {
    let backend = Backend::echo("b").await;
    let blue = Backend::echo("blue").await;
    let issuer = jwt::Issuer::new("one");
    let mut provider = jwt::provider(jwt::local());
    provider.recompute_route = true;
    // Limits come first, tokens after them: the other rule's limit has been passed when it is chosen, its users not.
    let policy = |more: v1::Policy| v1::Policy {
        rate_limit: Some(one_request()),
        ..more
    };
    let first = governed(policy(jwt::policy(provider, false)));
    let mut second = v1::HttpRule {
        policy: Some(policy(v1::Policy {
            basic_auth: Some(basic_auth()),
            ..Default::default()
        })),
        ..cfg::rule("/", &["blue"])
    };
    second.matches[0].headers = vec![v1::ValueMatch {
        name: "x-sub".into(),
        value: "alice".into(),
        regex: false,
    }];
    let token = jwt::bearer(&issuer.sign(&jwt::claims()));
    let token = [("authorization", &*token)];
    for (steps, status) in [
        (&[Step::RateLimit, Step::BasicAuth, Step::Jwt], 200),
        (&[Step::RateLimit, Step::Jwt, Step::BasicAuth], 401),
    ] {
        let port = support::free_port();
        let mut route = cfg::route("r", "l", vec![first.clone(), second.clone()]);
        if let Some(v1::resource::Body::Route(route)) = &mut route.body {
            route.filter_order = steps.iter().map(|step| i32::from(*step)).collect();
        }
        let mut resources = vec![cfg::http_listener("l", port), route];
        resources.push(cfg::data("jwks", &[("jwks", &jwt::set(&[issuer.jwk()]))]));
        resources.extend(cfg::backend("b", &[backend.address]));
        resources.extend(cfg::backend("blue", &[blue.address]));
        let _proxy = Proxy::start(resources).await;
        let got = Http::new(port).get_with("/", &token).await;
        assert_eq!(got.status, status, "{steps:?}");
        if status == 200 {
            assert_eq!(got.seen().backend, "blue");
        }
    }
}
