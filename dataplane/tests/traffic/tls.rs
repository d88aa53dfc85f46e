//! TLS of clients, as a listener asks for it: versions, protocols, certificates and what backends are told of them.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use sluice_config::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use super::cfg;
use super::support::backend::Backend;
use super::support::certificate::{Certificate, certificate};
use super::support::{self, Proxy};

struct Dial<'a> {
    port: u16,
    server: &'a Certificate,
    client: Option<&'a Certificate>,
    version: &'static rustls::SupportedProtocolVersion,
    alpn: &'a [&'a [u8]],
    /// Sent before anything else.
    begin: &'a [u8],
}

impl Dial<'_> {
    /// Handshakes and asks; `None` if either fails.
    async fn get(&self, headers: &str) -> Option<(String, Option<Vec<u8>>)> {
        let mut stream = self.connect().await?;
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let request =
            format!("GET / HTTP/1.1\r\nhost: www.example.com\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut all = String::new();
        let _ = stream.read_to_string(&mut all).await;
        // With TLS 1.3 a refusal comes only now.
        (!all.is_empty()).then_some((all, alpn))
    }

    async fn connect(&self) -> Option<TlsStream<tokio::net::TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.server.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.client {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::try_from(own.key_der.clone()).unwrap();
                builder.with_client_auth_cert(vec![own.der.clone()], key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .unwrap();
        stream.write_all(self.begin).await.unwrap();
        let name = ServerName::try_from("www.example.com").unwrap();
        let connecting = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
        connecting.await.ok()
    }
}

async fn proxy(
    server: &Certificate,
    tls: v1::TlsTermination,
    client: v1::ClientSettings,
    ca: Option<&Certificate>,
) -> (Proxy, u16, Backend) {
    let (backend, port) = (Backend::echo("b").await, support::free_port());
    let listener = v1::Listener {
        port: u32::from(port),
        bind_port: u32::from(port),
        protocol: v1::Protocol::Https.into(),
        tls: Some(v1::TlsTermination {
            certificate_secrets: vec!["secret/c".into()],
            ..tls
        }),
        client: Some(client),
        ..Default::default()
    };
    let mut resources = cfg::backend("b", &[backend.address]);
    resources.push(cfg::key_pair("c", &server.pem, &server.key_pem));
    resources.extend(ca.map(|ca| cfg::trust("ca", &ca.pem)));
    resources.extend([
        cfg::listener("l", listener),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    (Proxy::start(resources).await, port, backend)
}

#[tokio::test]
async fn versions_and_protocols() {
    let server = certificate("www.example.com");
    let tls = v1::TlsTermination {
        parameters: Some(v1::TlsParameters {
            min_version: v1::TlsVersion::V13.into(),
            alpn: Some(v1::tls_parameters::AlpnProtocols {
                protocols: vec!["http/1.1".into()],
            }),
            resumption: Some(v1::tls_parameters::SessionResumption::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (_proxy, port, _backend) = proxy(&server, tls, v1::ClientSettings::default(), None).await;
    let mut dial = Dial {
        port,
        server: &server,
        client: None,
        version: &TLS13,
        alpn: &[b"h2", b"http/1.1"],
        begin: b"",
    };
    let (got, alpn) = dial.get("").await.unwrap();
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    assert_eq!(alpn.as_deref(), Some(&b"http/1.1"[..]));
    dial.version = &TLS12;
    assert!(dial.get("").await.is_none());
}

fn certificates(mode: v1::client_headers::ForwardedClientCert) -> v1::ClientSettings {
    v1::ClientSettings {
        headers: Some(v1::ClientHeaders {
            forwarded_client_cert: mode.into(),
            cert_details: vec![v1::client_headers::CertDetail::Dns.into()],
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn certificates_are_demanded_and_told_of() {
    use v1::client_headers::ForwardedClientCert as F;
    use v1::client_validation::Mode;
    let (server, friend, stranger) = (
        certificate("www.example.com"),
        certificate("friend.example"),
        certificate("stranger.example"),
    );
    let forged = "x-forwarded-client-cert: forged\r\n";
    // Mode, who asks, whether he is served, and what the backend is told.
    for (mode, who, forward, expected) in [
        (
            Mode::RequireAndVerify,
            Some(&friend),
            F::SanitizeSet,
            Some("Hash="),
        ),
        (
            Mode::RequireAndVerify,
            Some(&friend),
            F::AppendForward,
            Some("forged,Hash="),
        ),
        (
            Mode::RequireAndVerify,
            Some(&friend),
            F::ForwardOnly,
            Some("forged"),
        ),
        (Mode::RequireAndVerify, Some(&friend), F::Sanitize, Some("")),
        (Mode::RequireAndVerify, Some(&stranger), F::SanitizeSet, None),
        (Mode::RequireAndVerify, None, F::SanitizeSet, None),
        (Mode::VerifyIfGiven, None, F::SanitizeSet, Some("")),
        (Mode::VerifyIfGiven, None, F::AlwaysForwardOnly, Some("forged")),
        (Mode::VerifyIfGiven, Some(&stranger), F::SanitizeSet, None),
        (Mode::RequireAny, Some(&stranger), F::SanitizeSet, Some("Hash=")),
        (Mode::RequireAny, None, F::SanitizeSet, None),
        (Mode::Request, None, F::ForwardOnly, Some("")),
    ] {
        let tls = v1::TlsTermination {
            client_validation: Some(v1::ClientValidation {
                ca_secrets: vec!["secret/ca".into()],
                mode: mode.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let (_proxy, port, _backend) = proxy(&server, tls, certificates(forward), Some(&friend)).await;
        let dial = Dial {
            port,
            server: &server,
            client: who,
            version: &TLS13,
            alpn: &[],
            begin: b"",
        };
        let got = dial.get(forged).await;
        let case = format!("{mode:?} {forward:?} {}", who.map_or("nobody", |who| &who.pem));
        let Some(expected) = expected else {
            assert!(got.is_none(), "{case}");
            continue;
        };
        let (got, _) = got.expect(&case);
        if expected.is_empty() {
            assert!(
                got.starts_with("HTTP/1.1 200") && !got.contains("x-forwarded-client-cert"),
                "{case}: {got}"
            );
        } else {
            assert!(
                got.contains(&format!(r#"["x-forwarded-client-cert","{expected}"#)),
                "{case}: {got}"
            );
            assert_eq!(expected.contains("Hash"), got.contains(";DNS="), "{case}: {got}");
        }
    }
}

/// One that says who it is by a URI as well, and is not valid any more from this year on.
fn identified(name: &str, uri: &str, until: i32) -> Certificate {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let uri = uri.try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    Certificate {
        pem: made.pem(),
        key_pem: key.serialize_pem(),
        der: made.der().clone(),
        key_der: key.serialize_der(),
    }
}

#[tokio::test]
async fn who_was_spoken_to_is_told_as_well() {
    use v1::client_headers::ForwardedClientCert as F;
    let server = identified("www.example.com", "spiffe://test/gateway", 4000);
    let client = certificate("friend.example");
    let tls = v1::TlsTermination {
        client_validation: Some(v1::ClientValidation {
            mode: v1::client_validation::Mode::RequireAny.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (_proxy, port, _backend) = proxy(&server, tls, certificates(F::SanitizeSet), None).await;
    let dial = Dial {
        port,
        server: &server,
        client: Some(&client),
        version: &TLS13,
        alpn: &[],
        begin: b"",
    };
    let (got, _) = dial.get("").await.unwrap();
    let expected = r#"["x-forwarded-client-cert","By=spiffe://test/gateway;Hash="#;
    assert!(got.contains(expected), "{got}");
}

#[tokio::test]
async fn certificates_that_are_out_of_date_are_taken_where_it_is_asked_for() {
    let server = certificate("www.example.com");
    let (friend, stranger) = (
        identified("friend.example", "a:b", 2020),
        identified("friend.example", "a:b", 2020),
    );
    for (allow_expired, who, served) in [
        (false, &friend, false),
        (true, &friend, true),
        (true, &stranger, false),
    ] {
        let tls = v1::TlsTermination {
            client_validation: Some(v1::ClientValidation {
                ca_secrets: vec!["secret/ca".into()],
                allow_expired,
                ..Default::default()
            }),
            ..Default::default()
        };
        let settings = v1::ClientSettings::default();
        let (_proxy, port, _backend) = proxy(&server, tls, settings, Some(&friend)).await;
        let dial = Dial {
            port,
            server: &server,
            client: Some(who),
            version: &TLS13,
            alpn: &[],
            begin: b"",
        };
        assert_eq!(dial.get("").await.is_some(), served, "{allow_expired}");
    }
}

#[tokio::test]
async fn either_side_signs_as_it_may() {
    let server = certificate("www.example.com");
    let client = certificate("friend.example");
    // The keys of both are of P-256.
    for (algorithms, shows, served) in [
        (&["ecdsa_secp256r1_sha256"][..], true, true),
        (&["ecdsa_secp384r1_sha384"], false, false),
        (&["rsa_pss_rsae_sha256", "ECDSA+SHA256"], true, true),
    ] {
        for version in [&TLS12, &TLS13] {
            let tls = v1::TlsTermination {
                parameters: Some(v1::TlsParameters {
                    signature_algorithms: algorithms.iter().map(ToString::to_string).collect(),
                    ..Default::default()
                }),
                client_validation: shows.then(|| v1::ClientValidation {
                    mode: v1::client_validation::Mode::RequireAny.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let settings = v1::ClientSettings::default();
            let (_proxy, port, _backend) = proxy(&server, tls, settings, None).await;
            let dial = Dial {
                port,
                server: &server,
                client: shows.then_some(&client),
                version,
                alpn: &[],
                begin: b"",
            };
            assert_eq!(dial.get("").await.is_some(), served, "{algorithms:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn fingerprints_of_clients_are_told() {
    let server = certificate("www.example.com");
    let tls = v1::TlsTermination {
        parameters: Some(v1::TlsParameters {
            fingerprints: vec![v1::TlsFingerprint::Ja3.into(), v1::TlsFingerprint::Ja4.into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let settings = v1::ClientSettings {
        headers: Some(v1::ClientHeaders {
            early_request: Some(v1::HeaderModifier {
                set: vec![cfg::header("x-ja4", "%TLS_JA4_FINGERPRINT%")],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let (proxy, port, _backend) = proxy(&server, tls, settings, None).await;
    let modifier = v1::filter::Filter::RequestHeaders(v1::HeaderModifier {
        set: vec![cfg::header("x-ja3", "%TLS_JA3_FINGERPRINT%")],
        ..Default::default()
    });
    let rule = v1::HttpRule {
        filters: vec![cfg::filter(modifier)],
        ..cfg::rule("/", &["b"])
    };
    proxy.apply(vec![cfg::route("r", "l", vec![rule])]);
    for (version, alpn, begins) in [(&TLS13, &[&b"http/1.1"[..]][..], "t13d"), (&TLS12, &[], "t12d")] {
        let dial = Dial {
            port,
            server: &server,
            client: None,
            version,
            alpn,
            begin: b"",
        };
        let forged = "x-ja4: forged\r\nx-ja3: forged\r\n";
        let (got, _) = dial.get(forged).await.unwrap();
        let said = |name: &str| {
            let (_, after) = got.split_once(&format!("[\"{name}\",\"")).unwrap();
            after.split_once('"').unwrap().0.to_owned()
        };
        let (ja3, ja4) = (said("x-ja3"), said("x-ja4"));
        assert!(
            ja3.len() == 32 && ja3.chars().all(|c| c.is_ascii_hexdigit()),
            "{ja3}"
        );
        let protocol = if alpn.is_empty() { "00" } else { "h1" };
        assert!(
            ja4.starts_with(begins) && ja4[8..11] == format!("{protocol}_"),
            "{ja4}"
        );
        assert_eq!(ja4.len(), 36, "{ja4}");
    }
}

#[tokio::test]
async fn a_proxy_header_comes_before_tls() {
    let server = certificate("www.example.com");
    let settings = v1::ClientSettings {
        proxy_protocol: Some(v1::ClientProxyProtocol { optional: false }),
        ..Default::default()
    };
    let (_proxy, port, _backend) = proxy(&server, v1::TlsTermination::default(), settings, None).await;
    let mut dial = Dial {
        port,
        server: &server,
        client: None,
        version: &TLS13,
        alpn: &[],
        begin: b"PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n",
    };
    let (got, _) = dial.get("").await.unwrap();
    assert!(got.contains(r#"["x-forwarded-for","192.0.2.7"]"#), "{got}");
    dial.begin = b"";
    assert!(dial.get("").await.is_none());
}
