//! Endpoints that are given by name: looked up, followed when the name moves, kept when it cannot be looked up.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sluice_config::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::cfg;
use super::support::backend::Backend;
use super::support::client::Http;
use super::support::{self, Proxy};

/// What is known of the one name that there is.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    Address(Ipv4Addr),
    Failure,
}

/// A name server on loopback.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    /// Seconds that answers live.
    ttl: Arc<AtomicU32>,
    asked: Arc<AtomicUsize>,
    /// Types of the records that were asked for.
    types: Arc<Mutex<Vec<u8>>>,
}

impl NameServer {
    pub(crate) async fn start(answer: Answer) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = Self {
            address: socket.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(answer)),
            ttl: Arc::default(),
            asked: Arc::default(),
            types: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&server.answer), Arc::clone(&server.asked));
        let (ttl, types) = (Arc::clone(&server.ttl), Arc::clone(&server.types));
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                let answer = *answer.lock().unwrap();
                let (reply, kind) = reply(&query[..length], answer, ttl.load(Ordering::SeqCst));
                types.lock().unwrap().push(kind);
                socket.send_to(&reply, client).await.unwrap();
                asked.fetch_add(1, Ordering::SeqCst);
            }
        });
        server
    }

    pub(crate) fn say(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// From now on answers live for a day.
    pub(crate) fn answers_live_long(&self) {
        self.ttl.store(86_400, Ordering::SeqCst);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// RFC 1035, section 4.1; the type that is asked for as well. Answers that live for no time at all are asked for again as soon
/// as that is allowed.
fn reply(query: &[u8], answer: Answer, ttl: u32) -> (Vec<u8>, u8) {
    let name = query[12..].iter().position(|b| *b == 0).unwrap();
    let question = &query[12..12 + name + 5];
    let is_a = question[name + 1..name + 3] == [0, 1];
    let (rcode, address) = match answer {
        Answer::Address(address) => (0, is_a.then_some(address)),
        Answer::Failure => (2, None),
    };
    let mut reply = query[..2].to_vec();
    reply.extend([
        0x81,
        0x80 | rcode,
        0,
        1,
        0,
        u8::from(address.is_some()),
        0,
        0,
        0,
        0,
    ]);
    reply.extend(question);
    if let Some(address) = address {
        reply.extend([0xc0, 12, 0, 1, 0, 1]);
        reply.extend(ttl.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(address.octets());
    }
    (reply, question[name + 2])
}

/// Answers 418 to everything, at another address of this host.
async fn teapot(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port))
        .await
        .unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await;
        }
    });
}

fn named(port: u16, allow_local: bool) -> v1::Resource {
    looked_up(port, allow_local, None)
}

fn looked_up(port: u16, allow_local: bool, dns: Option<v1::Dns>) -> v1::Resource {
    let mut resource = cfg::endpoints("b", &[]);
    resource.body = Some(v1::resource::Body::Endpoints(v1::Endpoints {
        endpoints: vec![v1::Endpoint {
            hostname: "backend.example".to_owned(),
            port: u32::from(port),
            allow_local,
            dns,
            ..Default::default()
        }],
    }));
    resource
}

async fn proxy(names: &NameServer, endpoints: v1::Resource) -> (Proxy, Http) {
    let port = support::free_port();
    let mut resources = cfg::backend("b", &[]);
    resources.retain(|resource| resource.key != endpoints.key);
    resources.push(endpoints);
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![cfg::rule("/", &["b"])]),
    ]);
    (
        Proxy::with_name_server(resources, names.address).await,
        Http::new(port),
    )
}

async fn until(http: &Http, status: u16) {
    let mut last = 0;
    for _ in 0..2000 {
        last = http.get("/").await.status;
        if last == status {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(last, status);
}

async fn asked_again(names: &NameServer) {
    let before = names.asked();
    // Both families, twice.
    support::eventually("names are looked up again", || names.asked() >= before + 4).await;
}

#[tokio::test]
async fn a_name_is_followed_and_outlives_its_server() {
    let backend = Backend::echo("b").await;
    teapot(backend.address.port()).await;
    let names = NameServer::start(Answer::Failure).await;
    let (_proxy, http) = proxy(&names, named(backend.address.port(), true)).await;
    assert_eq!(http.get("/").await.status, 503, "no address is known");

    names.say(Answer::Address(Ipv4Addr::LOCALHOST));
    until(&http, 200).await;
    names.say(Answer::Address(Ipv4Addr::new(127, 0, 0, 2)));
    until(&http, 418).await;

    names.say(Answer::Failure);
    asked_again(&names).await;
    assert_eq!(http.get("/").await.status, 418, "the last address stays in use");
    names.say(Answer::Address(Ipv4Addr::LOCALHOST));
    until(&http, 200).await;
}

#[tokio::test]
async fn another_configuration_of_the_same_name_keeps_its_address() {
    let (first, second) = (Backend::echo("b").await, Backend::status(204).await);
    let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
    let (proxy, http) = proxy(&names, named(first.address.port(), true)).await;
    until(&http, 200).await;
    names.say(Answer::Failure);
    asked_again(&names).await;
    proxy.apply(vec![named(second.address.port(), true)]);
    assert_eq!(http.get("/").await.status, 204);
}

#[tokio::test]
async fn a_name_does_not_lead_to_the_proxy_itself_unless_that_is_allowed() {
    let backend = Backend::echo("b").await;
    let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
    let (proxy, http) = proxy(&names, named(backend.address.port(), false)).await;
    asked_again(&names).await;
    assert_eq!(http.get("/").await.status, 503);
    proxy.apply(vec![named(backend.address.port(), true)]);
    assert_eq!(http.get("/").await.status, 200);
}

#[tokio::test]
async fn the_host_may_become_the_name() {
    let backend = Backend::echo("b").await;
    let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
    let port = support::free_port();
    let mut rule = cfg::rule("/", &["b"]);
    rule.filters = vec![cfg::filter(v1::filter::Filter::UrlRewrite(v1::UrlRewrite {
        hostname_from_backend: true,
        append_x_forwarded_host: true,
        ..Default::default()
    }))];
    // An endpoint that is given by address has no name to offer.
    let plain = v1::HttpRule {
        backends: cfg::rule("/", &["plain"]).backends,
        ..v1::HttpRule {
            matches: cfg::rule("/plain", &[]).matches,
            ..rule.clone()
        }
    };
    let mut resources = cfg::backend("b", &[]);
    resources.retain(|resource| resource.key != "endpoints/b");
    resources.push(named(backend.address.port(), true));
    resources.extend(cfg::backend("plain", &[backend.address]));
    resources.extend([
        cfg::http_listener("l", port),
        cfg::route("r", "l", vec![rule, plain]),
    ]);
    let _proxy = Proxy::with_name_server(resources, names.address).await;
    let http = Http::new(port);
    until(&http, 200).await;
    let seen = http.get_with("/", &[("host", "own.example")]).await.seen();
    assert_eq!(seen.header("host"), Some("backend.example"));
    assert_eq!(seen.header("x-forwarded-host"), Some("own.example"));
    let seen = http.get_with("/plain", &[("host", "own.example")]).await.seen();
    assert_eq!(seen.header("host"), Some("own.example"));
    assert_eq!(seen.header("x-forwarded-host"), None);
}

#[tokio::test]
async fn names_are_looked_up_as_often_as_the_backend_says() {
    let (first, second) = (Backend::echo("b").await, Ipv4Addr::new(127, 0, 0, 2));
    teapot(first.address.port()).await;
    let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
    names.answers_live_long();
    let dns = v1::Dns {
        refresh_ms: 100,
        ignore_ttl: true,
        ..Default::default()
    };
    let endpoints = looked_up(first.address.port(), true, Some(dns));
    let (_proxy, http) = proxy(&names, endpoints).await;
    until(&http, 200).await;
    // Its TTL would keep the answer for minutes.
    names.say(Answer::Address(second));
    until(&http, 418).await;
}

#[tokio::test]
async fn names_are_looked_up_in_the_families_that_the_backend_says() {
    const A: u8 = 1;
    const AAAA: u8 = 28;
    let backend = Backend::echo("b").await;
    for (family, expected) in [
        (v1::dns::Family::Ipv4, vec![A]),
        (v1::dns::Family::Ipv4Preferred, vec![A]),
        // There are none.
        (v1::dns::Family::Ipv6Preferred, vec![AAAA, A]),
    ] {
        let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
        names.answers_live_long();
        let dns = v1::Dns {
            family: family.into(),
            ..Default::default()
        };
        let endpoints = looked_up(backend.address.port(), true, Some(dns));
        let (_proxy, http) = proxy(&names, endpoints).await;
        until(&http, 200).await;
        assert_eq!(*names.types.lock().unwrap(), expected, "{family:?}");
    }
    // Nobody asks for the family that there is.
    let names = NameServer::start(Answer::Address(Ipv4Addr::LOCALHOST)).await;
    let dns = v1::Dns {
        family: v1::dns::Family::Ipv6.into(),
        ..Default::default()
    };
    let (_proxy, http) = proxy(&names, looked_up(backend.address.port(), true, Some(dns))).await;
    support::eventually("it is looked up", || names.asked() > 0).await;
    assert_eq!(http.get("/").await.status, 503);
    assert!(!names.types.lock().unwrap().contains(&A));
}
