//! Listeners on a running dataplane: TLS by SNI, certificates that change, listeners that come and go.

mod config_support;

use std::net::Ipv4Addr;

use config_support::*;
use sluice_config::v1::{self, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn the_name_chooses_the_listener() {
    let authority = Authority::new();
    let (exact, wildcard) = (authority.issue("a.example.com"), authority.issue("*.example.com"));
    let (dataplane, port) = (start(), free_port());
    let mut resources = backend("a", http_backend("a").await);
    resources.extend([exact.secret("exact", "1"), wildcard.secret("wildcard", "1")]);
    resources.push(http_route("a", "1", &["exact"], "/", "a"));
    resources.push(listener_with(
        "exact",
        "1",
        port,
        Protocol::Https,
        "a.example.com",
        terminate(&["exact"]),
    ));
    resources.push(listener_with(
        "wild",
        "1",
        port,
        Protocol::Https,
        "*.example.com",
        terminate(&["wildcard"]),
    ));
    apply(&dataplane, resources, &[]);

    let stream = tls(port, "a.example.com", &authority, None).await.unwrap();
    assert_eq!(served(&stream), exact.der);
    assert_eq!(
        Http::over(stream).await.get("a.example.com", "/").await,
        (200, "a".into())
    );
    let stream = tls(port, "b.example.com", &authority, None).await.unwrap();
    assert_eq!(served(&stream), wildcard.der);
    assert_eq!(Http::over(stream).await.get("b.example.com", "/").await.0, 404);

    for name in ["example.org", "127.0.0.1"] {
        let error = tls(port, name, &authority, None).await.unwrap_err().to_string();
        assert!(error.contains("eof"), "{name}: {error}");
    }
    let any = authority.issue("example.org");
    let listener = listener_with("any", "1", port, Protocol::Https, "", terminate(&["any"]));
    apply(&dataplane, vec![any.secret("any", "1"), listener], &[]);
    assert_eq!(
        served(&tls(port, "example.org", &authority, None).await.unwrap()),
        any.der
    );
}

#[tokio::test]
async fn the_certificate_that_covers_the_name_is_served() {
    let authority = Authority::new();
    let (first, second) = (authority.issue("a.example.com"), authority.issue("b.example.com"));
    let (dataplane, port) = (start(), free_port());
    let listener = listener_with(
        "l",
        "1",
        port,
        Protocol::Https,
        "",
        terminate(&["first", "second"]),
    );
    apply(
        &dataplane,
        vec![first.secret("first", "1"), second.secret("second", "1"), listener],
        &[],
    );
    assert_eq!(
        served(&tls(port, "b.example.com", &authority, None).await.unwrap()),
        second.der
    );
    assert_eq!(
        served(&tls(port, "a.example.com", &authority, None).await.unwrap()),
        first.der
    );
}

#[tokio::test]
async fn certificates_change_under_open_connections() {
    let authority = Authority::new();
    let (old, new) = (authority.issue("example.com"), authority.issue("example.com"));
    let (dataplane, port) = (start(), free_port());
    let mut resources = backend("a", http_backend("a").await);
    resources.extend([old.secret("cert", "1"), http_route("a", "1", &["l"], "/", "a")]);
    resources.push(listener_with(
        "l",
        "1",
        port,
        Protocol::Https,
        "example.com",
        terminate(&["cert"]),
    ));
    apply(&dataplane, resources, &[]);
    let stream = tls(port, "example.com", &authority, None).await.unwrap();
    assert_eq!(served(&stream), old.der);
    let mut client = Http::over(stream).await;
    assert_eq!(client.get("example.com", "/").await.0, 200);

    apply(&dataplane, vec![new.secret("cert", "2")], &[]);
    assert_eq!(
        served(&tls(port, "example.com", &authority, None).await.unwrap()),
        new.der
    );
    assert_eq!(client.get("example.com", "/").await.0, 200);

    // One that cannot be used leaves the old one in its place.
    let mut broken = new.secret("cert", "3");
    if let Some(v1::resource::Body::Secret(secret)) = &mut broken.body {
        secret.body = None;
    }
    assert_eq!(dataplane.apply(&update(vec![broken], &[])).rejected.len(), 1);
    assert_eq!(
        served(&tls(port, "example.com", &authority, None).await.unwrap()),
        new.der
    );
}

#[tokio::test]
async fn without_a_certificate_only_that_listener_is_refused() {
    let authority = Authority::new();
    let issued = authority.issue("*.example.com");
    let (dataplane, port) = (start(), free_port());
    let resources = vec![
        issued.secret("here", "1"),
        listener_with(
            "without",
            "1",
            port,
            Protocol::Https,
            "a.example.com",
            terminate(&["missing"]),
        ),
        listener_with(
            "with",
            "1",
            port,
            Protocol::Https,
            "*.example.com",
            terminate(&["here"]),
        ),
    ];
    apply(&dataplane, resources, &[]);
    let error = tls(port, "a.example.com", &authority, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("HandshakeFailure"), "{error}");
    assert_eq!(
        served(&tls(port, "b.example.com", &authority, None).await.unwrap()),
        issued.der
    );
    apply(&dataplane, vec![issued.secret("missing", "1")], &[]);
    assert_eq!(
        served(&tls(port, "a.example.com", &authority, None).await.unwrap()),
        issued.der
    );
    apply(&dataplane, Vec::new(), &["secret/missing"]);
    tls(port, "a.example.com", &authority, None).await.unwrap_err();
}

#[tokio::test]
async fn misdirected_requests_are_told_so() {
    let authority = Authority::new();
    let (dataplane, port) = (start(), free_port());
    let names = [
        "example.org",
        "second-example.org",
        "x.wildcard.org",
        "fourth.wildcard.org",
        "unknown.org",
    ];
    let mut resources = backend("a", http_backend("a").await);
    for name in names {
        resources.push(authority.issue(name).secret(name, "1"));
    }
    let tls_of = || terminate(&names);
    resources.push(http_route(
        "a",
        "1",
        &["any", "second", "wild", "fourth"],
        "/",
        "a",
    ));
    for (name, hostname) in [
        ("any", ""),
        ("second", "second-example.org"),
        ("wild", "*.wildcard.org"),
        ("fourth", "fourth.wildcard.org"),
    ] {
        resources.push(listener_with(
            name,
            "1",
            port,
            Protocol::Https,
            hostname,
            tls_of(),
        ));
    }
    // It answers for no HTTPS host.
    resources.push(listener("stream", "1", port, Protocol::Tls, "stream.org"));
    apply(&dataplane, resources, &[]);
    for (server_name, host, status) in [
        ("example.org", "example.org", 200),
        ("example.org", "EXAMPLE.org:443", 200),
        ("example.org", "second-example.org", 421),
        ("example.org", "other.org", 200),
        ("example.org", "stream.org", 200),
        ("second-example.org", "second-example.org", 200),
        ("second-example.org", "example.org", 421),
        ("x.wildcard.org", "x.wildcard.org", 200),
        ("x.wildcard.org", "y.wildcard.org", 200),
        ("x.wildcard.org", "fourth.wildcard.org", 421),
        ("x.wildcard.org", "unknown.org", 421),
        ("fourth.wildcard.org", "y.wildcard.org", 421),
        ("unknown.org", "example.org", 200),
    ] {
        let stream = tls(port, server_name, &authority, None).await.unwrap();
        let (got, _) = Http::over(stream).await.get(host, "/").await;
        assert_eq!(got, status, "{server_name} {host}");
    }
    // A host that no listener serves is nobody else's either.
    apply(&dataplane, Vec::new(), &["listener/any"]);
    let stream = tls(port, "second-example.org", &authority, None).await.unwrap();
    assert_eq!(Http::over(stream).await.get("other.org", "/").await.0, 404);
}

#[tokio::test]
async fn passthrough_termination_and_https_share_a_port() {
    let authority = Authority::new();
    let (backend_cert, own_cert) = (
        authority.issue("pass.example.com"),
        authority.issue("end.example.com"),
    );
    let web_cert = authority.issue("web.example.com");
    let (dataplane, port) = (start(), free_port());
    let mut resources = [
        backend("inner", stream_backend("inner", Some(&backend_cert)).await),
        backend("plain", stream_backend("plain", None).await),
        backend("web", http_backend("web").await),
    ]
    .concat();
    resources.extend([own_cert.secret("own", "1"), web_cert.secret("web", "1")]);
    resources.push(l4_route("pass", "1", &["pass"], &["pass.example.com"], "inner"));
    resources.push(l4_route("end", "1", &["end"], &["end.example.com"], "plain"));
    resources.push(http_route("web", "1", &["web"], "/", "web"));
    resources.push(listener("pass", "1", port, Protocol::Tls, "*.example.com"));
    resources.push(listener_with(
        "end",
        "1",
        port,
        Protocol::Tls,
        "end.example.com",
        terminate(&["own"]),
    ));
    resources.push(listener_with(
        "web",
        "1",
        port,
        Protocol::Https,
        "web.example.com",
        terminate(&["web"]),
    ));
    apply(&dataplane, resources, &[]);

    let mut stream = tls(port, "pass.example.com", &authority, None).await.unwrap();
    assert_eq!(served(&stream), backend_cert.der);
    assert_eq!(hear(&mut stream).await, "inner");
    let mut stream = tls(port, "end.example.com", &authority, None).await.unwrap();
    assert_eq!(served(&stream), own_cert.der);
    assert_eq!(hear(&mut stream).await, "plain");
    let stream = tls(port, "web.example.com", &authority, None).await.unwrap();
    assert_eq!(served(&stream), web_cert.der);
    assert_eq!(
        Http::over(stream).await.get("web.example.com", "/").await,
        (200, "web".into())
    );
    // The listener covers the name, but no route of it does.
    let error = tls(port, "other.example.com", &authority, None)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("eof"), "{error}");
}

#[tokio::test]
async fn tls_routes_are_chosen_by_name() {
    let authority = Authority::new();
    let issued = authority.issue("*.example.com");
    let (dataplane, port) = (start(), free_port());
    let mut resources = [
        backend("exact", stream_backend("exact", None).await),
        backend("wild", stream_backend("wild", None).await),
    ]
    .concat();
    resources.push(issued.secret("cert", "1"));
    resources.push(l4_route("a", "1", &["l"], &["*.example.com"], "wild"));
    resources.push(l4_route("b", "1", &["l"], &["a.example.com"], "exact"));
    resources.push(listener_with(
        "l",
        "1",
        port,
        Protocol::Tls,
        "",
        terminate(&["cert"]),
    ));
    apply(&dataplane, resources, &[]);
    let says = async |name| hear(&mut tls(port, name, &authority, None).await.unwrap()).await;
    assert_eq!(says("a.example.com").await, "exact");
    assert_eq!(says("b.example.com").await, "wild");
    apply(&dataplane, Vec::new(), &["route/TLSRoute/default/b"]);
    assert_eq!(says("a.example.com").await, "wild");
}

#[tokio::test]
async fn clients_have_to_show_what_is_asked_for() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let (issued, friend, stranger) = (
        authority.issue("example.com"),
        authority.issue("friend"),
        strangers.issue("stranger"),
    );
    let (dataplane, port) = (start(), free_port());
    let asking = |version: &str, insecure_fallback| {
        let mut tls = terminate(&["cert"]).unwrap();
        tls.client_validation = Some(v1::ClientValidation {
            ca_secrets: vec!["secret/ca".into()],
            insecure_fallback,
            ..Default::default()
        });
        listener_with("l", version, port, Protocol::Https, "", Some(tls))
    };
    let mut resources = backend("a", http_backend("a").await);
    resources.extend([
        issued.secret("cert", "1"),
        http_route("a", "1", &["l"], "/", "a"),
        asking("1", false),
    ]);
    apply(&dataplane, resources, &[]);
    let status = async |certificate: Option<&Issued>| {
        let stream = tls(port, "example.com", &authority, certificate).await.ok()?;
        // With TLS 1.3 the client hears of a refusal only afterwards.
        Http::over(stream)
            .await
            .try_get("example.com", "/")
            .await
            .ok()
            .map(|(status, _)| status)
    };
    assert_eq!(
        status(Some(&friend)).await,
        None,
        "nothing to verify with: nobody gets in"
    );
    apply(&dataplane, vec![authority.secret("ca", "1")], &[]);
    assert_eq!(status(Some(&friend)).await, Some(200));
    assert_eq!(status(Some(&stranger)).await, None);
    assert_eq!(status(None).await, None);
    apply(&dataplane, vec![asking("2", true)], &[]);
    assert_eq!(status(Some(&friend)).await, Some(200));
    assert_eq!(status(Some(&stranger)).await, Some(200));
    assert_eq!(status(None).await, Some(200));
    apply(
        &dataplane,
        vec![asking("3", false), strangers.secret("ca", "2")],
        &[],
    );
    assert_eq!(status(Some(&friend)).await, None);
    assert_eq!(status(Some(&stranger)).await, Some(200));
}

#[tokio::test]
async fn listeners_come_and_go_beside_open_connections() {
    let (dataplane, port, other) = (start(), free_port(), free_port());
    let mut resources = backend("a", http_backend("a").await);
    resources.push(http_route("a", "1", &["one", "two", "three"], "/", "a"));
    resources.push(listener("one", "1", port, Protocol::Http, "one.io"));
    apply(&dataplane, resources, &[]);
    let mut client = Http::connect(port).await;
    assert_eq!(client.get("one.io", "/").await.0, 200);
    let added = vec![
        listener("two", "1", port, Protocol::Http, "two.io"),
        listener("three", "1", other, Protocol::Http, ""),
    ];
    apply(&dataplane, added, &[]);
    assert_eq!(client.get("two.io", "/").await.0, 200);
    assert_eq!(get(other, "any", "/").await.0, 200);
    apply(&dataplane, Vec::new(), &["listener/two", "listener/three"]);
    assert_eq!(client.get("two.io", "/").await.0, 404);
    assert_eq!(client.get("one.io", "/").await.0, 200);
    closed(other).await;
    // From HTTP to TCP: the socket is a new one or not, but speaks the new protocol.
    let mut resources = backend("s", stream_backend("stream", None).await);
    resources.push(l4_route("s", "1", &["one"], &[], "s"));
    resources.push(listener("one", "2", port, Protocol::Tcp, ""));
    apply(&dataplane, resources, &[]);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    assert_eq!(hear(&mut stream).await, "stream");
}

/// Waits until nobody listens.
async fn closed(port: u16) {
    soon(async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_datagram_listener_gives_its_port_back() {
    let echo = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((n, from)) = echo.recv_from(&mut buffer).await {
            let _ = echo.send_to(&buffer[..n], from).await;
        }
    });
    let (dataplane, port) = (start(), free_port());
    let mut resources = backend("u", address);
    resources.push(l4_route("u", "1", &["u"], &[], "u"));
    apply(&dataplane, resources, &[]);
    for version in ["1", "2"] {
        apply(
            &dataplane,
            vec![listener("u", version, port, Protocol::Udp, "")],
            &[],
        );
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        client.send(b"hello").await.unwrap();
        let mut buffer = [0; 64];
        let n = soon(client.recv(&mut buffer)).await.unwrap();
        assert_eq!(&buffer[..n], b"hello");
        apply(&dataplane, Vec::new(), &["listener/u"]);
        eventually("the port is free", || {
            std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_no_tls_is_ended() {
    let authority = Authority::new();
    let (dataplane, port) = (start(), free_port());
    let listener = listener_with("l", "1", port, Protocol::Https, "", terminate(&["cert"]));
    apply(
        &dataplane,
        vec![authority.issue("example.com").secret("cert", "1"), listener],
        &[],
    );
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // The others are served as before.
    tls(port, "example.com", &authority, None).await.unwrap();
}

#[tokio::test]
async fn a_drain_ends_service_in_order() {
    let (dataplane, port) = (start(), free_port());
    let mut resources = backend("a", http_backend("a").await);
    resources.push(http_route("a", "1", &["l"], "/", "a"));
    resources.push(listener("l", "1", port, Protocol::Http, ""));
    apply(&dataplane, resources, &[]);
    assert!(dataplane.is_ready());
    let mut client = Http::connect(port).await;
    assert_eq!(client.get("h", "/").await.0, 200);
    soon(dataplane.drain()).await;
    assert!(!dataplane.is_ready());
    closed(port).await;
    client.try_get("h", "/").await.unwrap_err();
}
