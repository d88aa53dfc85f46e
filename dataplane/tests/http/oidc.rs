//! Logins, against a provider that does what the test says.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use sluice_config::v1;

use super::cfg;
use super::jwt::{Issuer, now, set};
use super::support::Proxy;
use super::support::backend::{Backend, response};
use super::support::client::{Got, Http};
use super::support::free_port;

const ISSUER: &str = "https://op.example";
const SECRET: &str = "s3cret & more";

/// What the provider does, and what it was asked.
struct Provider {
    issuer: Issuer,
    /// Claims that replace those of the ID token.
    claims: Value,
    expires_in: Option<u64>,
    refresh: bool,
    /// Status of answers to questions for tokens.
    status: u16,
    metadata: u16,
    /// Forms that were sent to the token endpoint.
    asked: Vec<Vec<(String, String)>>,
    nonce: String,
}

type Shared = Arc<Mutex<Provider>>;

async fn start() -> (Backend, Shared) {
    let provider = Arc::new(Mutex::new(Provider {
        issuer: Issuer::new("one"),
        claims: json!({}),
        expires_in: Some(3600),
        refresh: true,
        status: 200,
        metadata: 200,
        asked: Vec::new(),
        nonce: String::new(),
    }));
    let shared = Arc::clone(&provider);
    let backend = Backend::start(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let (status, text) = shared.lock().unwrap().answer(&path, &body);
            response(status, text)
        }
    })
    .await;
    (backend, provider)
}

impl Provider {
    fn answer(&mut self, path: &str, body: &[u8]) -> (u16, String) {
        match path {
            "/.well-known/openid-configuration" => {
                let metadata = json!({
                    "issuer": ISSUER,
                    "authorization_endpoint": format!("{ISSUER}/auth?prompt=login"),
                    "token_endpoint": format!("{ISSUER}/token"),
                    "end_session_endpoint": format!("{ISSUER}/end"),
                    "jwks_uri": format!("{ISSUER}/jwks"),
                });
                (self.metadata, metadata.to_string())
            }
            "/jwks" => (200, set(&[self.issuer.jwk()])),
            "/token" => self.tokens(body),
            _ => (404, String::new()),
        }
    }

    fn tokens(&mut self, body: &[u8]) -> (u16, String) {
        self.asked.push(pairs(std::str::from_utf8(body).unwrap()));
        if self.status != 200 {
            return (self.status, json!({ "error": "invalid_grant" }).to_string());
        }
        let mut claims = json!({
            "iss": ISSUER, "aud": "app", "sub": "alice", "exp": now() + 300, "iat": now(), "nonce": self.nonce,
        });
        for (name, value) in self.claims.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let number = self.asked.len();
        let mut answer = json!({
            "access_token": format!("access-{number}"), "token_type": "Bearer", "id_token": self.issuer.sign(&claims),
        });
        if let Some(seconds) = self.expires_in {
            answer["expires_in"] = seconds.into();
        }
        if self.refresh {
            answer["refresh_token"] = format!("refresh-{number}").into();
        }
        (200, answer.to_string())
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("{query}"));
        (decode(name), decode(value))
    };
    query.split('&').map(pair).collect()
}

fn value(pairs: &[(String, String)], name: &str) -> String {
    let found = pairs.iter().find(|(key, _)| key == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {pairs:?}"))
        .1
        .clone()
}

fn login(change: impl FnOnce(&mut v1::Oidc)) -> v1::Oidc {
    let mut oidc = v1::Oidc {
        name: "ns/login".into(),
        provider: Some(v1::OidcProvider {
            issuer: ISSUER.into(),
            backend: "backend/op".into(),
            ..Default::default()
        }),
        client_id: "app".into(),
        client_secret: Some(cfg::entry("client", "client-secret")),
        scopes: vec!["openid".into(), "email".into()],
        redirect_url: "%REQ(x-forwarded-proto)%://%REQ(:authority)%/cb".into(),
        logout_path: "/bye".into(),
        refresh: true,
        forward_access_token: true,
        forward_id_token_header: "x-id".into(),
        ..Default::default()
    };
    change(&mut oidc);
    oidc
}

/// A proxy in front of an application that asks for logins, and a browser.
struct World {
    proxy: Proxy,
    _op: Backend,
    app: Backend,
    provider: Shared,
    browser: Browser,
}

impl World {
    async fn new(change: impl FnOnce(&mut v1::Policy)) -> Self {
        let (op, provider) = start().await;
        let app = Backend::echo("app").await;
        let port = free_port();
        let mut policy = v1::Policy {
            oidc: Some(login(|_| {})),
            ..Default::default()
        };
        change(&mut policy);
        let mut resources = cfg::backend("app", &[app.address]);
        resources.extend(cfg::backend("op", &[op.address]));
        resources.push(cfg::data("client", &[("client-secret", SECRET)]));
        resources.push(cfg::http_listener("l", port));
        let mut rule = cfg::rule("/", &["app"]);
        rule.policy = Some(policy);
        resources.push(cfg::route("r", "l", vec![rule]));
        let proxy = Proxy::start(resources).await;
        Self {
            proxy,
            _op: op,
            app,
            provider,
            browser: Browser::new(port),
        }
    }

    /// Begins a login; returns the parameters that the provider gets.
    async fn begin(&mut self, path: &str) -> Vec<(String, String)> {
        let sent = self.browser.get(path).await;
        assert_eq!(sent.status, 302, "{sent:?}");
        assert_eq!(sent.header("cache-control"), Some("no-store"));
        let location = sent.header("location").unwrap();
        let parameters = pairs(location.strip_prefix(&format!("{ISSUER}/auth?")).unwrap());
        self.provider.lock().unwrap().nonce = value(&parameters, "nonce");
        parameters
    }

    /// Comes back from the provider.
    async fn finish(&mut self, parameters: &[(String, String)]) -> Got {
        let state = value(parameters, "state");
        self.browser.get(&format!("/cb?code=c%26d&state={state}")).await
    }

    async fn log_in(&mut self) {
        let parameters = self.begin("/start?a=b").await;
        let landed = self.finish(&parameters).await;
        assert_eq!(landed.status, 302, "{landed:?}");
    }

    fn change(&self, change: impl FnOnce(&mut Provider)) {
        change(&mut self.provider.lock().unwrap());
    }

    fn asked(&self) -> usize {
        self.provider.lock().unwrap().asked.len()
    }
}

/// A client that keeps cookies.
#[derive(Clone)]
struct Browser {
    client: Http,
    jar: Vec<(String, String)>,
}

impl Browser {
    fn new(port: u16) -> Self {
        Self {
            client: Http::new(port),
            jar: Vec::new(),
        }
    }

    async fn get(&mut self, path: &str) -> Got {
        self.get_with(path, &[]).await
    }

    async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Got {
        let jar: Vec<_> = self
            .jar
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let line = jar.join("; ");
        let mut headers = headers.to_vec();
        if !line.is_empty() {
            headers.push(("cookie", &line));
        }
        let got = self.client.get_with(path, &headers).await;
        for set in got.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            assert!(set.contains("; HttpOnly; Secure"), "{set}");
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            self.jar.retain(|(held, _)| held != name);
            if !set.contains("Max-Age=0;") {
                self.jar.push((name.to_owned(), value.to_owned()));
            }
        }
        got
    }

    fn cookie(&mut self, begins: &str) -> &mut String {
        let found = self.jar.iter_mut().find(|(name, _)| name.starts_with(begins));
        &mut found.unwrap_or_else(|| panic!("no cookie {begins}")).1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_logs_in() {
    let mut world = World::new(|_| {}).await;
    let parameters = world.begin("/start?a=b").await;
    assert_eq!(world.app.hits(), 0);
    for (name, wanted) in [
        ("prompt", "login"),
        ("response_type", "code"),
        ("client_id", "app"),
        ("scope", "openid email"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(value(&parameters, name), wanted);
    }
    let landed = world.finish(&parameters).await;
    assert_eq!(landed.status, 302, "{landed:?}");
    let back = value(&parameters, "redirect_uri").replace("/cb", "/start?a=b");
    assert_eq!(landed.header("location"), Some(&*back));
    let form = world.provider.lock().unwrap().asked[0].clone();
    let verifier = value(&form, "code_verifier");
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    assert_eq!(challenge, value(&parameters, "code_challenge"));
    for (name, wanted) in [
        ("grant_type", "authorization_code"),
        ("code", "c&d"),
        ("client_id", "app"),
        ("client_secret", SECRET),
    ] {
        assert_eq!(value(&form, name), wanted);
    }
    assert_eq!(value(&form, "redirect_uri"), value(&parameters, "redirect_uri"));
    let seen = world
        .browser
        .get_with("/page", &[("authorization", "Bearer forged"), ("x-id", "forged")])
        .await
        .seen();
    assert_eq!(seen.header("authorization"), Some("Bearer access-1"));
    assert_eq!(seen.header("x-id").map(|id| id.split('.').count()), Some(3));
    assert_eq!(seen.header("cookie"), None, "the session's cookies go no further");
    assert_eq!(world.asked(), 1);
    // Coming back a second time spends no code.
    assert_eq!(world.finish(&parameters).await.status, 302);
    assert_eq!(world.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_are_not_the_browsers_own_come_to_nothing() {
    let mut world = World::new(|_| {}).await;
    let parameters = world.begin("/").await;
    let mut victim = Browser::new(0);
    victim.client = world.browser.client.clone();
    let state = value(&parameters, "state");
    let path = format!("/cb?code=c&state={state}");
    assert_eq!(victim.get(&path).await.status, 401, "another browser");
    // It has begun a login too, but not this one.
    victim.get("/").await;
    assert_eq!(victim.get(&path).await.status, 401);
    for broken in [
        "/cb?code=c",
        "/cb?code=c&state=",
        "/cb?code=c&state=x",
        &format!("{path}x"),
        "/cb",
    ] {
        assert_eq!(world.browser.get(broken).await.status, 401, "{broken}");
    }
    let denied = format!("/cb?error=access_denied&state={state}");
    assert_eq!(world.browser.get(&denied).await.status, 401);
    assert_eq!((world.asked(), world.app.hits()), (0, 0));
    // Two logins of one browser at a time do not disturb each other.
    let other = world.begin("/other").await;
    world.change(|provider| provider.nonce = value(&parameters, "nonce"));
    assert_eq!(world.finish(&parameters).await.status, 302);
    let landed = world.finish(&other).await;
    assert!(landed.header("location").unwrap().ends_with("/other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn id_tokens_are_judged() {
    let mut world = World::new(|_| {}).await;
    for (claim, bad) in [
        ("iss", json!("https://evil.example")),
        ("aud", json!("other")),
        ("aud", json!(["app", "other"])),
        ("azp", json!("other")),
        ("exp", json!(now() - 3600)),
        ("exp", Value::Null),
        ("nonce", json!("another")),
        ("sub", json!("")),
    ] {
        let parameters = world.begin("/").await;
        world.change(|provider| provider.claims = json!({ claim: bad }));
        assert_eq!(world.finish(&parameters).await.status, 401, "{claim}: {bad}");
        assert_eq!(world.browser.get("/").await.status, 302, "{claim}: {bad}");
    }
    world.change(|provider| provider.claims = json!({}));
    let parameters = world.begin("/").await;
    // The keys are fetched anew at most every few seconds.
    let good = std::mem::replace(&mut world.provider.lock().unwrap().issuer, Issuer::new("one"));
    assert_eq!(
        world.finish(&parameters).await.status,
        401,
        "signed by another key"
    );
    world.change(|provider| provider.issuer = good);
    world.change(|provider| provider.expires_in = None);
    assert_eq!(world.finish(&parameters).await.status, 401, "no lifetime");
    world.change(|provider| provider.expires_in = Some(60));
    assert_eq!(world.finish(&parameters).await.status, 302);
    assert_eq!(world.browser.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_cookies_are_no_session() {
    let mut world = World::new(|_| {}).await;
    world.log_in().await;
    let whole = world.browser.clone();
    for name in ["OauthSession", "AccessToken", "IdToken"] {
        world.browser = whole.clone();
        let value = world.browser.cookie(name);
        let at = value.len() / 2;
        let other = if &value[at..=at] == "A" { "B" } else { "A" };
        value.replace_range(at..=at, other);
        // Not even the refresh token helps: it is told only by the session.
        world.change(|provider| provider.status = 400);
        assert_eq!(world.browser.get("/").await.status, 302, "{name}");
    }
    world.browser = whole;
    assert_eq!(world.browser.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_prolonged_once_for_all_who_ask() {
    let mut world = World::new(|_| {}).await;
    world.change(|provider| provider.expires_in = Some(1));
    world.log_in().await;
    // A second is over, or nearly so, when it is rounded.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    world.change(|provider| provider.expires_in = Some(3600));
    let mut others: Vec<_> = (0..8).map(|_| world.browser.clone()).collect();
    let all = others.iter_mut().map(|browser| browser.get("/"));
    for got in futures::future::join_all(all).await {
        assert_eq!(got.seen().header("authorization"), Some("Bearer access-2"));
    }
    assert_eq!(world.asked(), 2, "one login, one refresh");
    let form = world.provider.lock().unwrap().asked[1].clone();
    assert_eq!(value(&form, "grant_type"), "refresh_token");
    assert_eq!(value(&form, "refresh_token"), "refresh-1");
    let mut next = others.pop().unwrap();
    let seen = next.get("/").await.seen();
    assert_eq!(seen.header("authorization"), Some("Bearer access-2"));
    assert_eq!(world.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_prolonged_ends() {
    for (change, status) in [
        (
            Box::new(|p: &mut Provider| p.status = 400) as Box<dyn FnOnce(&mut Provider)>,
            302,
        ),
        (Box::new(|p: &mut Provider| p.status = 502), 503),
        (
            Box::new(|p: &mut Provider| p.claims = json!({ "sub": "mallory" })),
            302,
        ),
    ] {
        let mut world = World::new(|_| {}).await;
        world.change(|provider| provider.expires_in = Some(1));
        world.log_in().await;
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        world.change(change);
        assert_eq!(world.browser.get("/").await.status, status);
        assert_eq!(world.app.hits(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_takes_everything_away() {
    let mut world = World::new(|_| {}).await;
    world.log_in().await;
    let out = world.browser.get("/bye").await;
    assert_eq!(out.status, 302);
    let location = out.header("location").unwrap();
    let parameters = pairs(location.strip_prefix(&format!("{ISSUER}/end?")).unwrap());
    assert_eq!(value(&parameters, "client_id"), "app");
    assert_eq!(value(&parameters, "id_token_hint").split('.').count(), 3);
    assert!(value(&parameters, "post_logout_redirect_uri").ends_with('/'));
    assert_eq!(world.browser.jar, [], "nothing stays");
    assert_eq!(world.browser.get("/").await.status, 302);
    assert_eq!(world.app.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_provider_nobody_gets_in_and_sessions_go_on() {
    let mut world = World::new(|_| {}).await;
    world.change(|provider| provider.metadata = 500);
    assert_eq!(world.browser.get("/").await.status, 503);
    // Whoever wants to go is let go.
    let out = world.browser.get("/bye").await;
    assert!(out.header("location").unwrap().ends_with('/'));
    world.change(|provider| provider.metadata = 200);
    // It is not asked again at once.
    let mut sent = world.browser.get("/").await;
    while sent.status == 503 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        sent = world.browser.get("/").await;
    }
    assert_eq!(sent.status, 302);
    let parameters = world.begin("/").await;
    world.change(|provider| provider.status = 500);
    assert_eq!(world.finish(&parameters).await.status, 503);
    world.change(|provider| provider.status = 200);
    assert_eq!(world.finish(&parameters).await.status, 302);
    world.change(|provider| (provider.status, provider.metadata) = (500, 500));
    assert_eq!(world.browser.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_is_the_proxys_fault() {
    let mut world = World::new(|policy| {
        let oidc = policy.oidc.as_mut().unwrap();
        oidc.cookie_key = Some(cfg::entry("none", "key"));
    })
    .await;
    assert_eq!(world.browser.get("/").await.status, 500);
    assert_eq!(world.app.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_the_session_are_judged_by_jwt_and_machines_bring_their_own() {
    let (keys, key) = (Issuer::new("one"), "jwks");
    let jwks = set(&[keys.jwk()]);
    let bearer = v1::value_source::Header {
        name: "authorization".into(),
        prefix: "Bearer ".into(),
    };
    let jwt = v1::Jwt {
        providers: vec![v1::JwtProvider {
            name: "p".into(),
            issuer: ISSUER.into(),
            keys: Some(v1::jwt_provider::Keys::Local(cfg::entry("jwks", key))),
            sources: [
                v1::value_source::Source::Cookie("it".into()),
                v1::value_source::Source::Header(bearer),
            ]
            .map(|source| v1::ValueSource { source: Some(source) })
            .into(),
            claims_to_headers: vec![v1::ClaimToHeader {
                header: "x-user".into(),
                claim: "sub".into(),
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut world = World::new(|policy| {
        let oidc = policy.oidc.as_mut().unwrap();
        oidc.forward_access_token = false;
        oidc.cookies = Some(v1::OidcCookies {
            id_token: "it".into(),
            ..Default::default()
        });
        oidc.pass_through = vec![v1::OidcBearer {
            name: "authorization".into(),
            prefix: "Bearer ".into(),
        }];
        oidc.deny_redirect = vec![v1::OidcHeaderMatch {
            name: "x-requested-with".into(),
            value: Some(v1::StringMatch {
                kind: v1::string_match::Kind::Exact.into(),
                value: "XMLHttpRequest".into(),
            }),
        }];
        policy.jwt = Some(jwt);
    })
    .await;
    world.proxy.apply(vec![cfg::data("jwks", &[(key, &jwks)])]);
    let own = keys.sign(&json!({ "iss": ISSUER, "sub": "machine", "exp": now() + 60 }));
    world.change(|provider| provider.issuer = keys);
    let script = [("x-requested-with", "XMLHttpRequest")];
    assert_eq!(world.browser.get_with("/", &script).await.status, 401);
    world.log_in().await;
    let seen = world.browser.get_with("/", &script).await.seen();
    assert_eq!(seen.header("x-user"), Some("alice"));
    assert!(seen.header("cookie").unwrap().starts_with("it=ey"));
    let client = world.browser.client.clone();
    let machine = |token: &str| {
        let (client, token) = (client.clone(), format!("Bearer {token}"));
        async move {
            client
                .get_with("/", &[("authorization", &token), ("x-id", "forged")])
                .await
        }
    };
    let seen = machine(&own).await.seen();
    assert_eq!(
        (seen.header("x-user"), seen.header("x-id")),
        (Some("machine"), None)
    );
    assert_eq!(machine("forged").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_cookies_survive_the_way_back() {
    let mut world = World::new(|policy| {
        let mut cookies = v1::OidcCookies::default();
        cookies.set_same_site(v1::oidc_cookies::SameSite::Strict);
        policy.oidc.as_mut().unwrap().cookies = Some(cookies);
    })
    .await;
    let parameters = world.begin("/a?b='c'&d").await;
    let page = world.finish(&parameters).await;
    assert_eq!(page.status, 200);
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(text.contains("/a?b=&#39;c&#39;&amp;d\""), "{text}");
    assert_eq!(world.browser.get("/").await.status, 200);
}
