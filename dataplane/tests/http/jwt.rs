//! JSON Web Tokens, against local and fetched key sets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use sluice_config::v1;
use v1::value_source::Source;

use super::support::backend::{Backend, response};
use super::support::client::Http;
use super::{cfg, with_policy};

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of an issuer.
pub struct Issuer {
    id: &'static str,
    key: EcdsaKeyPair,
}

impl Issuer {
    pub fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Self { id, key }
    }

    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "alg": "ES256", "use": "sig", "x": x, "y": y })
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": self.id });
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encode(signature))
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn sources() -> Vec<v1::ValueSource> {
    let header = v1::value_source::Header {
        name: "authorization".into(),
        prefix: "Bearer ".into(),
    };
    [
        Source::Header(header),
        Source::Query("access_token".into()),
        Source::Cookie("token".into()),
    ]
    .map(|source| v1::ValueSource { source: Some(source) })
    .into()
}

pub fn provider(keys: v1::jwt_provider::Keys) -> v1::JwtProvider {
    v1::JwtProvider {
        name: "p".into(),
        issuer: "https://issuer.example".into(),
        audiences: vec!["api".into(), "other".into()],
        keys: Some(keys),
        sources: sources(),
        claims_to_headers: [("x-sub", "sub"), ("x-level", "user.level"), ("x-list", "list")]
            .map(|(header, claim)| v1::ClaimToHeader {
                header: header.into(),
                claim: claim.into(),
            })
            .into(),
        ..Default::default()
    }
}

pub fn local() -> v1::jwt_provider::Keys {
    v1::jwt_provider::Keys::Local(cfg::entry("jwks", "jwks"))
}

pub fn policy(provider: v1::JwtProvider, optional: bool) -> v1::Policy {
    v1::Policy {
        jwt: Some(v1::Jwt {
            providers: vec![provider],
            optional,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Lets those pass whose token has the scope `read`.
pub fn readers() -> v1::AuthorizationRule {
    v1::AuthorizationRule {
        allow: true,
        jwt: Some(v1::JwtPrincipal {
            provider: "p".into(),
            scopes: vec!["read".into()],
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "api", "sub": "alice", "exp": now() + 600,
        "user": { "level": 7 }, "list": ["a"], "scope": "read write", "groups": ["red", "blue"]
    })
}

pub fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// The statuses of `number` requests at once, each on a connection of its own.
async fn ask(port: u16, token: &str, number: usize) -> Vec<u16> {
    let one = async || {
        Http::new(port)
            .get_with("/", &[("authorization", token)])
            .await
            .status
    };
    futures::future::join_all((0..number).map(|_| one())).await
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn valid_tokens_pass_and_claims_are_forwarded() {
    let issuer = Issuer::new("k1");
    let secret = cfg::data("jwks", &[("jwks", &set(&[json!({"kty": "odd"}), issuer.jwk()]))]);
    let (_proxy, backend, port) = with_policy(policy(provider(local()), false), vec![secret]).await;
    let client = Http::new(port);
    let token = issuer.sign(&claims());
    let seen = client
        .get_with(
            "/",
            &[
                ("authorization", &bearer(&token)),
                ("x-sub", "root"),
                ("x-list", "forged"),
            ],
        )
        .await
        .seen();
    assert_eq!(seen.header("x-sub"), Some("alice"));
    assert_eq!(seen.header("x-level"), Some("7"));
    assert_eq!(
        seen.header("x-list"),
        None,
        "what a request claims itself is removed"
    );
    assert_eq!(seen.header("authorization"), Some(&*bearer(&token)));
    assert_eq!(client.get(&format!("/?access_token={token}")).await.status, 200);
    let cookie = format!("token={token}");
    assert_eq!(client.get_with("/", &[("cookie", &cookie)]).await.status, 200);
    for odd in [
        with("aud", json!(["x", "other"])),
        with("exp", json!(now() - 30)),
        with("nbf", json!(now() + 30)),
    ] {
        let token = issuer.sign(&odd);
        let got = client.get_with("/", &[("authorization", &bearer(&token))]).await;
        assert_eq!(got.status, 200, "{odd}");
    }
    assert_eq!(backend.hits(), 6);
}

#[tokio::test]
async fn other_tokens_do_not() {
    let (issuer, stranger) = (Issuer::new("k1"), Issuer::new("k1"));
    let unknown = Issuer::new("k2");
    let secret = cfg::data("jwks", &[("jwks", &set(&[issuer.jwk()]))]);
    let (proxy, backend, port) = with_policy(policy(provider(local()), false), vec![secret]).await;
    let client = Http::new(port);
    let good = issuer.sign(&claims());
    let missing = client.get("/a").await;
    assert_eq!((missing.status, &*missing.body), (401, &b"Jwt is missing"[..]));
    assert_eq!(
        missing.header("www-authenticate"),
        Some(&*format!("Bearer realm=\"http://127.0.0.1:{port}/a\""))
    );
    let parts: Vec<_> = good.split('.').collect();
    let none = encode(json!({ "alg": "none" }).to_string());
    let mac = encode(json!({ "alg": "HS256", "kid": "k1" }).to_string());
    for (token, status, body) in [
        ("x".to_owned(), 401, "Jwt is not in the form"),
        ("..".to_owned(), 401, "Jwt is not in the form"),
        (format!("{good}.x"), 401, "Jwt is not in the form"),
        (format!("{none}.{}.", parts[1]), 401, "Jwt is not in the form"),
        // A public key is no shared secret.
        (
            format!("{mac}.{}.{}", parts[1], parts[2]),
            401,
            "Jwks doesn't have key",
        ),
        (
            format!("{}.{}.", parts[0], parts[1]),
            401,
            "Jwt verification fails",
        ),
        (stranger.sign(&claims()), 401, "Jwt verification fails"),
        (unknown.sign(&claims()), 401, "Jwks doesn't have key"),
        (
            issuer.sign(&with("iss", json!("https://other.example"))),
            401,
            "Jwt issuer",
        ),
        (issuer.sign(&with("iss", Value::Null)), 401, "Jwt issuer"),
        (
            issuer.sign(&with("exp", json!(now() - 600))),
            401,
            "Jwt is expired",
        ),
        (
            issuer.sign(&with("nbf", json!(now() + 600))),
            401,
            "Jwt not yet valid",
        ),
        (
            issuer.sign(&with("exp", json!("soon"))),
            401,
            "Jwt is not in the form",
        ),
        (issuer.sign(&with("aud", json!("x"))), 403, "Audiences in Jwt"),
        (issuer.sign(&with("aud", Value::Null)), 403, "Audiences in Jwt"),
        (issuer.sign(&json!([1])), 401, "Jwt is not in the form"),
    ] {
        let got = client.get_with("/", &[("authorization", &bearer(&token))]).await;
        let text = String::from_utf8_lossy(&got.body).into_owned();
        assert_eq!(
            (got.status, text.starts_with(body)),
            (status, true),
            "{token}: {text}"
        );
        assert!(
            got.header("www-authenticate")
                .unwrap()
                .ends_with("error=\"invalid_token\"")
        );
    }
    // One that is wrong is not made good by another.
    let headers = [("authorization", &*bearer(&good)), ("cookie", "token=x")];
    assert_eq!(client.get_with("/", &headers).await.status, 401);
    proxy.apply(vec![cfg::data("jwks", &[("jwks", "no json")])]);
    assert_eq!(
        client
            .get_with("/", &[("authorization", &bearer(&good))])
            .await
            .status,
        401
    );
    assert_eq!(backend.hits(), 0);
}

#[tokio::test]
async fn optional_tokens() {
    let issuer = Issuer::new("k1");
    let secret = cfg::data("jwks", &[("jwks", &set(&[issuer.jwk()]))]);
    let (_proxy, _backend, port) = with_policy(policy(provider(local()), true), vec![secret]).await;
    let client = Http::new(port);
    let seen = client.get_with("/", &[("x-sub", "root")]).await.seen();
    assert_eq!(seen.header("x-sub"), None);
    assert_eq!(
        client
            .get_with("/", &[("authorization", "Bearer x")])
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn claims_and_scopes_authorize() {
    let issuer = Issuer::new("k1");
    let claim = |name: &str, value: &str, list| v1::ClaimMatch {
        name: name.into(),
        values: vec![value.into()],
        list,
    };
    let allow = |provider: &str, claims, scopes: &[&str]| v1::AuthorizationRule {
        allow: true,
        jwt: Some(v1::JwtPrincipal {
            provider: provider.into(),
            claims,
            scopes: scopes.iter().map(ToString::to_string).collect(),
        }),
        ..Default::default()
    };
    for (rule, expected) in [
        (allow("p", vec![claim("sub", "alice", false)], &["read"]), 200),
        (allow("p", vec![claim("sub", "bob", false)], &[]), 403),
        (allow("p", vec![claim("groups", "blue", true)], &[]), 200),
        (allow("p", vec![claim("groups", "blue", false)], &[]), 403),
        (allow("p", vec![claim("groups", "green", true)], &[]), 403),
        (allow("p", vec![claim("user.name", "x", false)], &[]), 403),
        (allow("p", vec![], &["read", "write"]), 200),
        (allow("p", vec![], &["read", "admin"]), 403),
        (allow("q", vec![claim("sub", "alice", false)], &[]), 403),
    ] {
        let mut policy = policy(provider(local()), true);
        policy.authorization = Some(v1::Authorization {
            rules: vec![rule.clone()],
            allow_by_default: false,
        });
        let secret = cfg::data("jwks", &[("jwks", &set(&[issuer.jwk()]))]);
        let (_proxy, _backend, port) = with_policy(policy, vec![secret]).await;
        let client = Http::new(port);
        let token = bearer(&issuer.sign(&claims()));
        let got = client.get_with("/", &[("authorization", &token)]).await;
        assert_eq!(got.status, expected, "{rule:?}");
        assert_eq!(client.get("/").await.status, 403, "without a token: {rule:?}");
    }
}

#[tokio::test]
async fn edwards_keys_and_shared_secrets() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let edwards = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let mac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"a shared secret of some length");
    let keys = set(&[
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(edwards.public_key()) }),
        json!({ "kty": "oct", "kid": "mac", "k": encode("a shared secret of some length") }),
    ]);
    let secret = cfg::data("jwks", &[("jwks", &keys)]);
    let (proxy, _backend, port) = with_policy(policy(provider(local()), false), vec![secret]).await;
    let message = |alg: &str, kid: &str| {
        let header = json!({ "alg": alg, "kid": kid }).to_string();
        format!("{}.{}", encode(header), encode(claims().to_string()))
    };
    let (ed, hs) = (message("EdDSA", "ed"), message("HS256", "mac"));
    let client = Http::new(port);
    for token in [
        format!("{ed}.{}", encode(edwards.sign(ed.as_bytes()))),
        format!("{hs}.{}", encode(ring::hmac::sign(&mac, hs.as_bytes()))),
    ] {
        let got = client.get_with("/", &[("authorization", &bearer(&token))]).await;
        assert_eq!(got.status, 200, "{token}");
    }
    let shown = proxy.dataplane.dump().to_string();
    assert!(!shown.contains(&encode("a shared secret of some length")));
}

#[tokio::test]
async fn fetched_keys() {
    let (first, second) = (Issuer::new("k1"), Issuer::new("k2"));
    let served = Arc::new(Mutex::new((200, set(&[first.jwk()]))));
    let fetches = Arc::<AtomicUsize>::default();
    let issuer = {
        let (served, fetches) = (Arc::clone(&served), Arc::clone(&fetches));
        Backend::start(move |request| {
            assert_eq!(request.uri().path_and_query().unwrap(), "/keys?v=1");
            assert_eq!(request.headers()["host"], "issuer.example");
            fetches.fetch_add(1, Ordering::SeqCst);
            let (status, body) = served.lock().unwrap().clone();
            async move { response(status, body) }
        })
        .await
    };
    let remote = v1::RemoteJwks {
        backend: "backend/issuer".into(),
        host: "issuer.example".into(),
        path: "/keys?v=1".into(),
        ..Default::default()
    };
    let provider = provider(v1::jwt_provider::Keys::Remote(remote));
    let (proxy, _backend, port) = with_policy(policy(provider, false), vec![]).await;
    let client = Http::new(port);
    let token = bearer(&first.sign(&claims()));
    // Without the issuer nobody passes, and nobody waits for long.
    let got = client.get_with("/", &[("authorization", &token)]).await;
    assert_eq!(
        (got.status, &*got.body),
        (401, &b"Jwks remote fetch is failed"[..])
    );
    proxy.apply(cfg::backend("issuer", &[issuer.address]));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while client.get_with("/", &[("authorization", &token)]).await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "the keys never came");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // One fetch is enough for all connections and workers.
    assert_eq!(ask(port, &token, 20).await, [200; 20]);
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    // A key that is not known is looked for, once in a while.
    *served.lock().unwrap() = (200, set(&[first.jwk(), second.jwk()]));
    let rotated = bearer(&second.sign(&claims()));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while client.get_with("/", &[("authorization", &rotated)]).await.status != 200 {
        assert!(
            std::time::Instant::now() < deadline,
            "the new key was never looked for"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 2);
    let stranger = bearer(&Issuer::new("k3").sign(&claims()));
    for _ in 0..5 {
        assert_eq!(
            client.get_with("/", &[("authorization", &stranger)]).await.status,
            401
        );
    }
    assert!(fetches.load(Ordering::SeqCst) <= 3, "strangers make no fetches");
}

#[tokio::test]
async fn claims_choose_the_route() {
    let issuer = Issuer::new("k1");
    let secret = cfg::data("jwks", &[("jwks", &set(&[issuer.jwk()]))]);
    let recompute = |recompute_route| v1::JwtProvider {
        recompute_route,
        ..provider(local())
    };
    let (plain, special) = (Backend::echo("plain").await, Backend::echo("special").await);
    for again in [true, false] {
        let mut all = cfg::rule("/", &["plain"]);
        all.policy = Some(policy(recompute(again), false));
        let mut alice = cfg::rule("/", &["special"]);
        alice.matches[0].headers = vec![v1::ValueMatch {
            name: "x-sub".into(),
            value: "alice".into(),
            regex: false,
        }];
        // Its own authorization holds for what comes to it on the way; the token is not asked for again.
        alice.policy = Some(v1::Policy {
            authorization: Some(v1::Authorization {
                rules: vec![v1::AuthorizationRule {
                    methods: vec!["GET".into()],
                    ..readers()
                }],
                allow_by_default: false,
            }),
            ..policy(
                provider(v1::jwt_provider::Keys::Local(cfg::entry("none", "x"))),
                false,
            )
        });
        let port = super::support::free_port();
        let mut resources = vec![
            cfg::http_listener("l", port),
            cfg::route("r", "l", vec![all, alice]),
            secret.clone(),
        ];
        resources.extend(cfg::backend("plain", &[plain.address]));
        resources.extend(cfg::backend("special", &[special.address]));
        let _proxy = super::Proxy::start(resources).await;
        let client = Http::new(port);
        let alice = bearer(&issuer.sign(&claims()));
        let bob = bearer(&issuer.sign(&with("sub", json!("bob"))));
        let seen = client.get_with("/", &[("authorization", &alice)]).await.seen();
        assert_eq!(seen.backend, if again { "special" } else { "plain" });
        let seen = client.get_with("/", &[("authorization", &bob)]).await.seen();
        assert_eq!(seen.backend, "plain");
        let got = client
            .send_with("POST", "/", &[("authorization", &alice)], "")
            .await;
        assert_eq!(got.status, if again { 403 } else { 200 });
        assert_eq!(client.get("/").await.status, 401);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_keeps_the_keys_from_nobody() {
    let signer = Issuer::new("k1");
    let keys = set(&[signer.jwk()]);
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let issuer = {
        let release = Arc::clone(&release);
        Backend::start(move |_| {
            let (release, keys) = (Arc::clone(&release), keys.clone());
            async move {
                release.acquire().await.unwrap().forget();
                response(200, keys)
            }
        })
        .await
    };
    let remote = v1::RemoteJwks {
        backend: "backend/issuer".into(),
        host: "issuer.example".into(),
        path: "/keys".into(),
        // A fetch that were lost would not be made again in time.
        failed_refetch_ms: 3_600_000,
        timeout_ms: 60_000,
        ..Default::default()
    };
    let provider = provider(v1::jwt_provider::Keys::Remote(remote));
    let others = cfg::backend("issuer", &[issuer.address]);
    let (_proxy, backend, port) = with_policy(policy(provider, false), others).await;
    let token = bearer(&signer.sign(&claims()));
    let mut raw = super::support::client::Raw::connect(port).await;
    raw.send(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n"
    ))
    .await;
    super::support::eventually("the keys are asked for", || issuer.hits() == 1).await;
    drop(raw);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let waiting = tokio::spawn(async move { ask(port, &token, 4).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    release.add_permits(1);
    assert_eq!(waiting.await.unwrap(), [200; 4]);
    assert_eq!((issuer.hits(), backend.hits()), (1, 4));
}
