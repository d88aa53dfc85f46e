//! Authorization by expressions, and by where clients are.

use std::fs;

use serde_json::json;
use sluice_config::v1;

use super::support::client::Http;
use super::support::mmdb::database;
use super::{cfg, with_policy};

fn policy(rules: Vec<v1::AuthorizationRule>, allow_by_default: bool) -> v1::Policy {
    v1::Policy {
        authorization: Some(v1::Authorization {
            rules,
            allow_by_default,
        }),
        ..Default::default()
    }
}

fn expression(allow: bool, text: &str) -> v1::AuthorizationRule {
    v1::AuthorizationRule {
        allow,
        expression: text.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn expressions_see_the_request() {
    let rules = vec![
        expression(false, "request.headers['x-no'] == 'yes'"),
        expression(
            true,
            "request.method == 'GET' && request.url_path.startsWith('/a') && source.address.startsWith('127.0.0.1:') \
             && destination.port > 0 && !connection.mtls && request.host.startsWith('127.0.0.1')",
        ),
    ];
    let (_proxy, _backend, port) = with_policy(policy(rules, false), vec![]).await;
    for client in [Http::new(port), Http::h2(port)] {
        for (method, path, headers, expected) in [
            ("GET", "/a/b", vec![("x-no", "no")], 200),
            ("GET", "/b", vec![("x-no", "no")], 403),
            ("POST", "/a/b", vec![("x-no", "no")], 403),
            ("GET", "/a/b", vec![("x-no", "yes")], 403),
            // What cannot be evaluated denies.
            ("GET", "/a/b", vec![], 403),
        ] {
            let got = client.send_with(method, path, &headers, "").await;
            assert_eq!(got.status, expected, "{method} {path} {headers:?}");
        }
    }
}

#[tokio::test]
async fn an_expression_that_cannot_be_evaluated_allows_nothing() {
    for (rules, by_default, expected) in [
        (vec![expression(true, "request.headers['x'] == 'y'")], false, 403),
        (vec![expression(true, "request.headers['x'] == 'y'")], true, 200),
        (vec![expression(false, "request.headers['x'] == 'y'")], true, 403),
        (vec![expression(true, "request.path")], false, 403),
        (
            vec![expression(
                false,
                "'x' in request.headers && request.headers['x'] == 'y'",
            )],
            true,
            200,
        ),
        (vec![expression(true, "true")], false, 200),
    ] {
        let (_proxy, _backend, port) = with_policy(policy(rules.clone(), by_default), vec![]).await;
        assert_eq!(Http::new(port).get("/").await.status, expected, "{rules:?}");
    }
}

#[tokio::test]
async fn an_expression_that_is_wrong_is_refused() {
    let (proxy, _backend, _) = with_policy(v1::Policy::default(), vec![]).await;
    let mut rule = cfg::rule("/", &["b"]);
    rule.policy = Some(policy(vec![expression(true, "request.path ==")], true));
    let ack = proxy.dataplane.apply(&v1::Update {
        nonce: 77,
        upserts: vec![cfg::route("r", "l", vec![rule])],
        ..Default::default()
    });
    let [refused] = &*ack.rejected else {
        panic!("{ack:?}")
    };
    let why = "policy.authorization: rules[0].expression: ";
    assert!(refused.reason.contains(why), "{refused:?}");
}

fn at(allow: bool, locations: Vec<v1::GeoLocation>) -> v1::AuthorizationRule {
    v1::AuthorizationRule {
        allow,
        locations,
        ..Default::default()
    }
}

fn settings(geo: v1::GeoDatabases) -> v1::Resource {
    cfg::settings(v1::Settings {
        xff_trusted_hops: 1,
        geo: Some(geo),
        ..Default::default()
    })
}

async fn status(client: &Http, address: &str) -> u16 {
    client.get_with("/", &[("x-forwarded-for", address)]).await.status
}

#[tokio::test]
async fn clients_are_located() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, networks: &[(&str, serde_json::Value)]| {
        let path = directory.path().join(name);
        fs::write(&path, database(networks)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let bavaria = json!({
        "country": { "iso_code": "DE" }, "subdivisions": [{ "iso_code": "BY" }],
        "city": { "names": { "en": "Munich", "de": "München" } },
    });
    let geo = v1::GeoDatabases {
        city: write(
            "city.mmdb",
            &[
                ("192.0.2.0/25", bavaria),
                ("192.0.2.128/25", json!({ "country": { "iso_code": "FR" } })),
            ],
        ),
        asn: write(
            "asn.mmdb",
            &[("192.0.2.0/24", json!({ "autonomous_system_number": 64500 }))],
        ),
        isp: write("isp.mmdb", &[("192.0.2.0/24", json!({ "isp": "Example Net" }))]),
        anonymous_ip: write(
            "anonymous.mmdb",
            &[(
                "192.0.2.64/26",
                json!({ "is_anonymous": true, "is_anonymous_vpn": true }),
            )],
        ),
        ..Default::default()
    };
    let place = v1::GeoLocation::default;
    let anonymous = v1::GeoAnonymous::default;
    let (germany, france, elsewhere) = ("192.0.2.1", "192.0.2.200", "198.51.100.1");
    let vpn = "192.0.2.65";
    for (location, here, there) in [
        (
            v1::GeoLocation {
                country: "de".into(),
                ..place()
            },
            germany,
            france,
        ),
        (
            v1::GeoLocation {
                country: "FR".into(),
                ..place()
            },
            france,
            germany,
        ),
        (
            v1::GeoLocation {
                region: "BY".into(),
                city: "Munich".into(),
                ..place()
            },
            germany,
            france,
        ),
        (
            v1::GeoLocation {
                country: "FR".into(),
                asn: 64500,
                ..place()
            },
            france,
            germany,
        ),
        (
            v1::GeoLocation {
                asn: 64500,
                ..place()
            },
            germany,
            elsewhere,
        ),
        (
            v1::GeoLocation {
                isp: "Example Net".into(),
                ..place()
            },
            germany,
            elsewhere,
        ),
        (
            v1::GeoLocation {
                anonymous: Some(v1::GeoAnonymous {
                    is_vpn: Some(true),
                    is_tor: Some(false),
                    ..anonymous()
                }),
                ..place()
            },
            vpn,
            germany,
        ),
        (
            v1::GeoLocation {
                anonymous: Some(v1::GeoAnonymous {
                    is_anonymous: Some(false),
                    ..anonymous()
                }),
                ..place()
            },
            elsewhere,
            vpn,
        ),
    ] {
        let rules = policy(vec![at(true, vec![location.clone()])], false);
        let (_proxy, _backend, port) = with_policy(rules, vec![settings(geo.clone())]).await;
        let client = Http::new(port);
        assert_eq!(status(&client, here).await, 200, "{location:?}");
        assert_eq!(status(&client, there).await, 403, "{location:?}");
    }
}

#[tokio::test]
async fn without_a_database_nobody_passes() {
    let germany = || v1::GeoLocation {
        country: "DE".into(),
        ..Default::default()
    };
    let broken = tempfile::NamedTempFile::new().unwrap();
    fs::write(broken.path(), "no database").unwrap();
    let broken = broken.path().to_str().unwrap().to_owned();
    for path in [String::new(), "/nonexistent/city.mmdb".to_owned(), broken] {
        for (rule, by_default) in [
            (at(true, vec![germany()]), false),
            (at(false, vec![germany()]), true),
        ] {
            let geo = v1::GeoDatabases {
                city: path.clone(),
                ..Default::default()
            };
            let (_proxy, _backend, port) =
                with_policy(policy(vec![rule], by_default), vec![settings(geo)]).await;
            assert_eq!(status(&Http::new(port), "192.0.2.1").await, 403, "{path}");
        }
    }
}
