//! Nothing secret leaves the proxy: not by its log at the level debug, nor by the dump of its configuration, nor by an
//! answer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::json;
use sluice_config::v1;
use sluice_dataplane::admin::Admin;
use support::backend::Backend;
use support::client::Http;
use support::{certificate, config as cfg};
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;
use v1::filter::Filter as F;
use v1::value_source::Source;

const PASSWORD: &str = "password-of-alice-4711";
const API_KEY: &str = "api-key-of-client-4712";
const CREDENTIAL: &str = "Bearer credential-for-backend-4713";
const TOKEN_KEY: &str = "shared-key-of-tokens-that-is-long-4714";
const CLIENT_SECRET: &str = "secret-of-the-login-4715";
const COOKIE_KEY: &str = "key-that-cookies-are-sealed-with-4716";

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A token that the shared key has signed.
fn token(key: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{header}.{}", encode(r#"{"sub":"alice"}"#));
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()),
        message.as_bytes(),
    );
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn source(name: &str, prefix: &str) -> v1::ValueSource {
    let (name, prefix) = (name.into(), prefix.into());
    v1::ValueSource {
        source: Some(Source::Header(v1::value_source::Header { name, prefix })),
    }
}

fn policies() -> [(&'static str, v1::Policy); 4] {
    let basic = v1::Policy {
        basic_auth: Some(v1::BasicAuth {
            users: Some(cfg::entry("users", ".htpasswd")),
            ..Default::default()
        }),
        ..Default::default()
    };
    let keys = v1::Policy {
        api_key_auth: Some(v1::ApiKeyAuth {
            credential_secrets: vec!["secret/keys".into()],
            sources: vec![source("x-api-key", "")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let provider = v1::JwtProvider {
        name: "p".into(),
        keys: Some(v1::jwt_provider::Keys::Local(cfg::entry("jwks", "jwks"))),
        sources: vec![source("authorization", "Bearer ")],
        ..Default::default()
    };
    let jwt = v1::Policy {
        jwt: Some(v1::Jwt {
            providers: vec![provider],
            ..Default::default()
        }),
        authorization: Some(v1::Authorization {
            rules: vec![v1::AuthorizationRule {
                allow: true,
                expression: "request.headers['x-absent'] == request.headers['authorization']".into(),
                ..Default::default()
            }],
            allow_by_default: true,
        }),
        ..Default::default()
    };
    let login = v1::Policy {
        oidc: Some(v1::Oidc {
            name: "login".into(),
            provider: Some(v1::OidcProvider {
                issuer: "https://issuer.test".into(),
                authorization_endpoint: "https://issuer.test/authorize".into(),
                token_endpoint: "https://issuer.test/token".into(),
                backend: "backend/b".into(),
                ..Default::default()
            }),
            client_id: "client".into(),
            client_secret: Some(cfg::entry("login", "client-secret")),
            cookie_key: Some(cfg::entry("login", "cookie-key")),
            scopes: vec!["openid".into()],
            redirect_url: "http://127.0.0.1/oidc/callback".into(),
            logout_path: "/oidc/logout".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    [
        ("/basic", basic),
        ("/keys", keys),
        ("/jwt", jwt),
        ("/oidc", login),
    ]
}

#[tokio::test]
async fn secrets_stay_inside() {
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(log.clone())
        .with_ansi(false)
        .init();
    let backend = Backend::echo("b").await;
    let (port, tls_port) = (support::free_port(), support::free_port());
    let issued = certificate::certificate("a.test");
    let jwks = json!({ "keys": [{ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(TOKEN_KEY) }] }).to_string();
    let hash = STANDARD.encode(ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        PASSWORD.as_bytes(),
    ));
    let mut rules: Vec<_> = policies()
        .into_iter()
        .map(|(path, policy)| {
            let mut rule = cfg::rule(path, &["b"]);
            rule.policy = Some(policy);
            rule
        })
        .collect();
    let mut injecting = cfg::rule("/injected", &["b"]);
    injecting.filters = vec![cfg::filter(F::CredentialInjection(v1::CredentialInjection {
        header: "x-token".into(),
        credential: Some(cfg::entry("credential", "credential")),
        overwrite: true,
    }))];
    rules.push(injecting);
    let https = v1::Listener {
        port: u32::from(tls_port),
        bind_port: u32::from(tls_port),
        protocol: v1::Protocol::Https.into(),
        tls: Some(v1::TlsTermination {
            certificate_secrets: vec!["secret/tls".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut resources = vec![
        cfg::data("users", &[(".htpasswd", &format!("alice:{{SHA}}{hash}\n"))]),
        cfg::data("keys", &[("client", API_KEY)]),
        cfg::data("jwks", &[("jwks", &jwks)]),
        cfg::data(
            "login",
            &[("client-secret", CLIENT_SECRET), ("cookie-key", COOKIE_KEY)],
        ),
        cfg::data("credential", &[("credential", CREDENTIAL)]),
        cfg::key_pair("tls", &issued.pem, &issued.key_pem),
        cfg::http_listener("l", port),
        cfg::listener("s", https),
        cfg::route("r", "l", rules),
    ];
    resources.extend(cfg::backend("b", &[backend.address]));
    let proxy = support::Proxy::start(resources).await;

    let basic = format!("Basic {}", STANDARD.encode(format!("alice:{PASSWORD}")));
    let (good, forged) = (token(TOKEN_KEY), token("another"));
    let (good, forged) = (format!("Bearer {good}"), format!("Bearer {forged}"));
    let half = format!("{API_KEY}-and-more");
    let mut answers = String::new();
    for client in [Http::new(port), Http::h2(port)] {
        for (path, header, value, expected) in [
            ("/basic", "authorization", basic.as_str(), 200),
            ("/basic", "authorization", &basic[..basic.len() - 4], 401),
            ("/keys", "x-api-key", API_KEY, 200),
            ("/keys", "x-api-key", half.as_str(), 401),
            ("/jwt", "authorization", good.as_str(), 200),
            ("/jwt", "authorization", forged.as_str(), 401),
            // What answers is no provider.
            ("/oidc", "cookie", "a=b", 503),
            ("/injected", "x-any", "x", 200),
        ] {
            let got = client.get_with(path, &[(header, value)]).await;
            assert_eq!(got.status, expected, "{path} {value}");
            // An echoing backend says what it has been told.
            if expected != 200 {
                let _ = write!(answers, "{:?}{}", got.headers, text(&got.body));
            }
        }
    }
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = server.local_addr().unwrap().port();
    tokio::spawn(Admin::new(proxy.dataplane.clone()).serve(server));
    let dump = Http::new(admin).get("/config_dump").await;
    assert_eq!(dump.status, 200);
    let dump = text(&dump.body);
    assert!(dump.contains("secret/login") && dump.contains("api_key_auth"));
    let metrics = text(&Http::new(admin).get("/metrics").await.body);

    let log = log.text();
    assert!(log.contains("not evaluated"), "nothing is captured");
    let key_line = issued.key_pem.lines().nth(1).unwrap();
    let bare = |text: &str| text.split(' ').nth(1).unwrap().to_owned();
    let encoded: Vec<_> = [API_KEY, CLIENT_SECRET, TOKEN_KEY]
        .map(|text| STANDARD.encode(text))
        .into();
    let mut secrets = vec![
        PASSWORD.to_owned(),
        hash,
        API_KEY.into(),
        bare(CREDENTIAL),
        TOKEN_KEY.into(),
        URL_SAFE_NO_PAD.encode(TOKEN_KEY),
        CLIENT_SECRET.into(),
        COOKIE_KEY.into(),
        key_line.into(),
        bare(&basic),
        bare(&good),
        bare(&forged),
    ];
    secrets.extend(encoded);
    // As a list of bytes, which is how a derived Debug or JSON would show them.
    let as_numbers = |text: &str| {
        let bytes: Vec<_> = text.bytes().take(8).map(|byte| byte.to_string()).collect();
        bytes.join(",")
    };
    for (place, text) in [
        ("log", log),
        ("dump", dump),
        ("answers", answers),
        ("metrics", metrics),
    ] {
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{secret} is in the {place}");
            assert!(
                !compact.contains(&as_numbers(secret)),
                "{secret} is in the {place} as numbers"
            );
        }
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}
