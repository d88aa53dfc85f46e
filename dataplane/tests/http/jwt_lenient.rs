//! Who passes without a valid token: nobody, those without any (`optional`), or everybody (`fail_open`).

use serde_json::json;
use sluice_config::v1;
use v1::jwt_provider::Keys;
use v1::value_source::{Header, Source};

use super::jwt::{Issuer, bearer, claims, local, now, policy, provider, readers, set, with};
use super::support::client::Http;
use super::{cfg, with_policy};

/// What a rule says of requests without a valid token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leniency {
    None,
    Optional,
    FailOpen,
    /// Policies that are merged can come to this.
    Both,
}

use Leniency::{Both, FailOpen, None as Strict, Optional};

impl Leniency {
    fn policy(self, providers: Vec<v1::JwtProvider>) -> v1::Policy {
        v1::Policy {
            jwt: Some(v1::Jwt {
                providers,
                optional: matches!(self, Optional | Both),
                fail_open: matches!(self, FailOpen | Both),
            }),
            ..Default::default()
        }
    }

    /// The status of the answer to a request without a token, and to one with a token that is not valid.
    fn expected(self, invalid: u16) -> (u16, u16) {
        match self {
            Strict => (401, invalid),
            Optional => (200, invalid),
            FailOpen | Both => (200, 200),
        }
    }
}

/// Sends no token, then each of `tokens`, of which none is valid and each would be answered with its status.
async fn judge(client: &Http, leniency: Leniency, tokens: &[(&str, &str, u16)]) {
    let missing = client.get_with("/", &[("x-sub", "root")]).await;
    assert_eq!(missing.status, leniency.expected(401).0, "{leniency:?}: no token");
    if missing.status == 200 {
        assert_eq!(missing.seen().header("x-sub"), None);
    }
    for (what, token, status) in tokens {
        let headers = [("authorization", *token), ("x-sub", "root")];
        let got = client.get_with("/", &headers).await;
        assert_eq!(got.status, leniency.expected(*status).1, "{leniency:?}: {what}");
        if got.status == 200 {
            let seen = got.seen();
            assert_eq!(
                seen.header("x-sub"),
                None,
                "{leniency:?}: {what}: a client's own claim"
            );
            // It may be something else than a token, which the backend looks for.
            assert_eq!(seen.header("authorization"), Some(*token), "{leniency:?}: {what}");
        }
    }
}

#[tokio::test]
async fn tokens_that_are_not_valid() {
    let issuer = Issuer::new("k1");
    let good = bearer(&issuer.sign(&claims()));
    let expired = bearer(&issuer.sign(&with("exp", json!(now() - 600))));
    let early = bearer(&issuer.sign(&with("nbf", json!(now() + 600))));
    let forged = bearer(&Issuer::new("k1").sign(&claims()));
    let unknown = bearer(&Issuer::new("k2").sign(&claims()));
    let stranger = bearer(&issuer.sign(&with("iss", json!("https://other.example"))));
    let others = bearer(&issuer.sign(&with("aud", json!("x"))));
    let invalid = [
        ("no token at all", "Bearer x", 401),
        ("expired", &*expired, 401),
        ("not yet valid", &early, 401),
        ("forged", &forged, 401),
        ("signed by an unknown key", &unknown, 401),
        ("another issuer's", &stranger, 401),
        ("for another audience", &others, 403),
    ];
    for leniency in [Strict, Optional, FailOpen, Both] {
        let secret = cfg::data("jwks", &[("jwks", &set(&[issuer.jwk()]))]);
        let policy = leniency.policy(vec![provider(local())]);
        let (_proxy, _backend, port) = with_policy(policy, vec![secret]).await;
        let client = Http::new(port);
        judge(&client, leniency, &invalid).await;
        let seen = client.get_with("/", &[("authorization", &good)]).await.seen();
        assert_eq!(seen.header("x-sub"), Some("alice"), "{leniency:?}");
    }
}

/// Nobody's token can be verified; a request without one needs no keys.
#[tokio::test]
async fn keys_that_cannot_be_had() {
    let token = bearer(&Issuer::new("k1").sign(&claims()));
    for leniency in [Strict, Optional, FailOpen, Both] {
        let remote = Keys::Remote(v1::RemoteJwks {
            backend: "backend/issuer".into(),
            host: "issuer.example".into(),
            path: "/keys".into(),
            ..Default::default()
        });
        let policy = leniency.policy(vec![provider(remote)]);
        let (_proxy, _backend, port) = with_policy(policy, cfg::backend("issuer", &[])).await;
        judge(&Http::new(port), leniency, &[("unverifiable", &token, 401)]).await;
    }
}

/// What one provider finds wrong with a token is not made good by another that sees none.
#[tokio::test]
async fn a_token_for_one_of_several_providers() {
    let issuer = Issuer::new("k1");
    let elsewhere = v1::JwtProvider {
        name: "q".into(),
        sources: vec![v1::ValueSource {
            source: Some(Source::Header(Header {
                name: "x-other".into(),
                prefix: String::new(),
            })),
        }],
        ..provider(local())
    };
    let stranger = bearer(&issuer.sign(&with("iss", json!("https://other.example"))));
    for leniency in [Strict, Optional, FailOpen] {
        for providers in [
            vec![provider(local()), elsewhere.clone()],
            vec![elsewhere.clone(), provider(local())],
        ] {
            let secret = cfg::data("jwks", &[("jwks", &set(&[issuer.jwk()]))]);
            let (_proxy, _backend, port) = with_policy(leniency.policy(providers), vec![secret]).await;
            let client = Http::new(port);
            judge(&client, leniency, &[("another issuer's", &stranger, 401)]).await;
            let good = issuer.sign(&claims());
            // Valid for one of them is enough, whatever the other finds.
            let headers = [("authorization", &*stranger), ("x-other", &*good)];
            let seen = client.get_with("/", &headers).await.seen();
            assert_eq!(seen.header("x-sub"), Some("alice"), "{leniency:?}");
        }
    }
}

/// What fails open guards nothing; rules that ask for a token still do.
#[tokio::test]
async fn authorization_guards_what_fails_open() {
    let issuer = Issuer::new("k1");
    let mut open = policy(provider(local()), false);
    if let Some(jwt) = &mut open.jwt {
        jwt.fail_open = true;
    }
    open.authorization = Some(v1::Authorization {
        rules: vec![readers()],
        allow_by_default: false,
    });
    let secret = cfg::data("jwks", &[("jwks", &set(&[issuer.jwk()]))]);
    let (_proxy, _backend, port) = with_policy(open, vec![secret]).await;
    let client = Http::new(port);
    let good = bearer(&issuer.sign(&claims()));
    let forged = bearer(&Issuer::new("k1").sign(&claims()));
    for (token, status) in [(&*good, 200), (&forged, 403), ("Basic x", 403)] {
        let got = client.get_with("/", &[("authorization", token)]).await;
        assert_eq!(got.status, status, "{token}");
    }
}
