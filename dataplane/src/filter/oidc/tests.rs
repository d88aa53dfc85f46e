//! What one login makes of requests.

use http::Request;
use http::header::COOKIE;
use sluice_config::v1::string_match::Kind;

use super::super::tests::Nothing;
use super::login::Seed;
use super::*;

fn config() -> v1::Oidc {
    let entry = |secret: &str, entry: &str| {
        Some(v1::SecretEntry {
            secret: secret.into(),
            entry: entry.into(),
        })
    };
    v1::Oidc {
        name: "ns/policy".into(),
        provider: Some(v1::OidcProvider {
            issuer: "https://op.example".into(),
            backend: "backend/op".into(),
            ..Default::default()
        }),
        client_id: "client".into(),
        client_secret: entry("secret/client", "client-secret"),
        redirect_url: "%REQ(x-forwarded-proto)%://%REQ(:authority)%/oauth2/callback".into(),
        logout_path: "/logout".into(),
        scopes: vec!["openid".into(), "email".into()],
        ..Default::default()
    }
}

fn compile(change: impl FnOnce(&mut v1::Oidc)) -> Result<Oidc, String> {
    let mut config = config();
    change(&mut config);
    Oidc::compile(&config, &mut Nothing::default())
}

fn head(path: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::get(path).header("host", "app.example:8443");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn facts() -> Facts<'static> {
    Facts {
        host: "app.example",
        client: [127, 0, 0, 1].into(),
        route: "",
        shows_limits: true,
        path: "/",
        https: true,
        listener_port: 443,
        prefix: None,
    }
}

#[test]
fn requests_are_told_apart() {
    let oidc = compile(|config| {
        config.forward_id_token_header = "x-id".into();
        config.pass_through = vec![v1::OidcBearer {
            name: "authorization".into(),
            prefix: "Bearer ".into(),
        }];
        config.deny_redirect = vec![v1::OidcHeaderMatch {
            name: "x-requested-with".into(),
            value: Some(v1::StringMatch {
                kind: Kind::Exact.into(),
                value: "XMLHttpRequest".into(),
            }),
        }];
    })
    .unwrap();
    let asks = |path: &str, headers: &[(&str, &str)]| oidc.receive(&mut head(path, headers));
    assert_eq!(asks("/logout?x", &[]), Asks::Logout);
    assert_eq!(asks("/oauth2/callback?code=x", &[]), Asks::Callback);
    assert_eq!(asks("/oauth2/callbacks", &[]), Asks::Backend);
    assert_eq!(asks("/", &[("authorization", "Bearer x")]), Asks::PassThrough);
    assert_eq!(asks("/", &[("authorization", "Bearer ")]), Asks::Backend);
    assert_eq!(asks("/", &[("authorization", "Basic x")]), Asks::Backend);
    let mut forged = head("/", &[("x-id", "forged")]);
    oidc.receive(&mut forged);
    assert!(!forged.headers.contains_key("x-id"));
    assert!(oidc.denies_redirect(&head("/", &[("x-requested-with", "XMLHttpRequest")])));
    assert!(!oidc.denies_redirect(&head("/", &[("x-requested-with", "other")])));
}

#[test]
fn addresses_follow_the_request() {
    let oidc = compile(|_| {}).unwrap();
    let behind = head("/", &[("x-forwarded-proto", "https")]);
    assert_eq!(
        oidc.redirect_url(&behind, &facts()),
        "https://app.example:8443/oauth2/callback"
    );
    assert_eq!(Oidc::origin(&behind, &facts()), "https://app.example:8443");
    let fixed = compile(|config| config.redirect_url = "https://login.example/cb".into()).unwrap();
    assert_eq!(fixed.redirect_url(&behind, &facts()), "https://login.example/cb");
    for broken in ["", "/cb", "https://a", "https:///cb", "https://a/cb?x=%REQ(a)%"] {
        let compiled = compile(|config| config.redirect_url = broken.into());
        assert!(compiled.is_err(), "{broken}");
    }
}

#[test]
fn nobody_is_sent_elsewhere() {
    let landing = |oidc: &Oidc, origin: &str, target: &str| {
        let state = Seed::new().unwrap().begin(origin.into(), target, 60).unwrap();
        let request = head("/oauth2/callback", &[("x-forwarded-proto", "https")]);
        let landing = oidc.landing(&state, &request, &facts()).unwrap();
        landing.to_str().unwrap().to_owned()
    };
    let own = compile(|_| {}).unwrap();
    assert_eq!(
        landing(&own, "https://app.example:8443", "/a?b"),
        "https://app.example:8443/a?b"
    );
    assert_eq!(
        landing(&own, "https://evil.example", "/a"),
        "https://app.example:8443/a"
    );
    assert_eq!(
        landing(&own, "https://evil.example", "//evil.example/"),
        "https://app.example:8443//evil.example/"
    );
    assert_eq!(
        landing(&own, "https://app.example:8443", "@evil.example"),
        "https://app.example:8443/"
    );
    let shared = compile(|config| {
        config.cookies = Some(v1::OidcCookies {
            domain: "example".into(),
            ..Default::default()
        });
    })
    .unwrap();
    assert_eq!(landing(&shared, "https://b.example", "/a"), "https://b.example/a");
    assert_eq!(
        landing(&shared, "https://b.example.com", "/a"),
        "https://app.example:8443/a"
    );
}

#[test]
fn tokens_reach_whom_they_are_for() {
    let oidc = compile(|config| {
        config.forward_access_token = true;
        config.forward_id_token_header = "x-id".into();
        config.cookies = Some(v1::OidcCookies {
            access_token: "at".into(),
            ..Default::default()
        });
    })
    .unwrap();
    let sealer = oidc.sealer().unwrap();
    let tokens = TokenSet {
        access: "access".into(),
        id: "a.b.c".into(),
        refresh: String::new(),
    };
    let record = Record::new(&tokens, "alice", 60, 0);
    let mut set = Vec::new();
    record
        .write(&sealer, &oidc.cookies, &http::HeaderMap::new(), &tokens, &mut set)
        .unwrap();
    let pairs: Vec<_> = set
        .iter()
        .map(|(_, value)| value.to_str().unwrap().split(';').next().unwrap())
        .collect();
    let mut request = head(
        "/",
        &[("cookie", &pairs.join("; ")), ("authorization", "Bearer forged")],
    );
    assert!(oidc.admit(&record, &sealer, &mut request));
    assert_eq!(request.headers["authorization"], "Bearer access");
    assert_eq!(request.headers["x-id"], "a.b.c");
    assert_eq!(request.headers[COOKIE], "at=access");
    let mut partly = head("/", &[("cookie", pairs[0])]);
    assert!(!oidc.admit(&record, &sealer, &mut partly), "tokens are missing");
}

#[test]
fn lifetimes() {
    let answer = |json: &str| TokenAnswer::parse(json.as_bytes()).unwrap();
    let strict = compile(|_| {}).unwrap();
    let lenient = compile(|config| config.default_token_ttl_ms = 5500).unwrap();
    let (told, untold) = (
        answer(r#"{"access_token":"a","expires_in":9}"#),
        answer(r#"{"access_token":"a"}"#),
    );
    assert_eq!(strict.seconds(&told), Ok(9));
    assert_eq!(strict.seconds(&untold), Err(Fault::Refused));
    assert_eq!(lenient.seconds(&untold), Ok(6));
    assert_eq!(strict.refresh_seconds("opaque"), 604_800);
    let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{}}}", session::now() + 100));
    assert!((99..=100).contains(&strict.refresh_seconds(&format!("x.{claims}.y"))));
}

#[test]
fn parties_of_tokens() {
    let claims = |json: Value| serde_json::from_value::<Claims>(json).unwrap();
    for (json, own) in [
        (serde_json::json!({ "aud": "client" }), true),
        (serde_json::json!({ "aud": ["client"] }), true),
        (serde_json::json!({ "aud": ["client", "other"] }), false),
        (
            serde_json::json!({ "aud": ["client", "other"], "azp": "client" }),
            true,
        ),
        (serde_json::json!({ "aud": "client", "azp": "other" }), false),
    ] {
        assert_eq!(is_for(&claims(json.clone()), "client"), own, "{json}");
    }
}

#[test]
fn a_shared_key_must_be_there() {
    let mut config = config();
    config.cookie_key = Some(v1::SecretEntry {
        secret: "secret/key".into(),
        entry: "key".into(),
    });
    let mut lookup = Nothing::default();
    let oidc = Oidc::compile(&config, &mut lookup).unwrap();
    assert!(oidc.sealer().is_none());
    for (bytes, good) in [(16, false), (32, true)] {
        let entries = [("key".to_owned(), vec![1; bytes])].into();
        lookup.store().put_secret("secret/key", Some(entries));
        assert_eq!(oidc.sealer().is_some(), good, "{bytes} bytes");
    }
}
