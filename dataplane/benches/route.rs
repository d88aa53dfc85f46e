//! What a request pays for being routed, and what a change of one route costs, among 1, 1,000 and 40,000 routes: each on
//! a host of its own, and all on one host with a path each.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sluice_config::v1::{self, resource::Body};
use sluice_dataplane::drain::Drain;
use sluice_dataplane::route::Port;
use sluice_dataplane::state::{Bind, State};
use sluice_dataplane::telemetry::{AccessLog, AccessLogTarget};
use sluice_dataplane::worker::Shared;
use tokio_util::sync::{CancellationToken, DropGuard};

const COUNTS: [usize; 3] = [1, 1_000, 40_000];

struct NoSockets;

impl Bind for NoSockets {
    fn bind(&mut self, _: u16, _: &Arc<Port>) -> io::Result<DropGuard> {
        Ok(CancellationToken::new().drop_guard())
    }
}

/// How routes are told apart.
#[derive(Clone, Copy)]
enum By {
    Host,
    Path,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Host => "hosts",
            Self::Path => "paths",
        }
    }

    fn host(self, i: usize) -> String {
        match self {
            Self::Host => format!("host-{i}.example.com"),
            Self::Path => "www.example.com".into(),
        }
    }

    fn prefix(self, i: usize) -> String {
        match self {
            Self::Host => "/".into(),
            Self::Path => format!("/api/service-{i}"),
        }
    }
}

fn listener() -> v1::Resource {
    let listener = v1::Listener {
        name: "default/gw/web".into(),
        port: 80,
        bind_port: 10080,
        protocol: v1::Protocol::Http.into(),
        ..Default::default()
    };
    v1::Resource {
        key: "listener/web".into(),
        version: "1".into(),
        body: Some(Body::Listener(listener)),
    }
}

fn route(by: By, i: usize, version: usize) -> v1::Resource {
    let path = v1::PathMatch {
        kind: v1::path_match::Kind::Prefix.into(),
        value: by.prefix(i),
    };
    let rule = v1::HttpRule {
        matches: vec![v1::HttpMatch {
            path: Some(path),
            ..Default::default()
        }],
        backends: vec![v1::WeightedBackend {
            backend: format!("backend/{i}"),
            weight: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let host = by.host(i);
    let route = v1::Route {
        name: format!("HTTPRoute/default/{i}"),
        attachments: vec![v1::Attachment {
            listener: "listener/web".into(),
            hostnames: vec![host.clone()],
            route_hostnames: vec![host],
        }],
        precedence_name: format!("default/{i}"),
        rules: Some(v1::route::Rules::Http(v1::HttpRules {
            rules: vec![rule],
            grpc: false,
        })),
        ..Default::default()
    };
    let key = format!("route/HTTPRoute/default/{i}");
    v1::Resource {
        key,
        version: version.to_string(),
        body: Some(Body::Route(route)),
    }
}

fn apply(state: &mut State, upserts: Vec<v1::Resource>) {
    let ack = state.apply(&v1::Update {
        upserts,
        ..Default::default()
    });
    assert!(ack.rejected.is_empty(), "{ack:?}");
}

fn state(by: By, count: usize) -> State {
    let shared = Shared {
        metrics: Arc::default(),
        access_log: AccessLog::start(&AccessLogTarget::Off).unwrap(),
        telemetry: arc_swap::ArcSwapOption::empty(),
        settings: ArcSwap::default(),
        geo: ArcSwap::default(),
        drain: Drain::new(),
    };
    let mut state = State::new(Arc::new(shared), Box::new(NoSockets), None);
    let routes = (0..count).map(|i| route(by, i, 0));
    apply(&mut state, routes.chain([listener()]).collect());
    state
}

fn lookup(c: &mut Criterion) {
    for by in [By::Host, By::Path] {
        let mut group = c.benchmark_group(format!("lookup by {}", by.name()));
        for count in COUNTS {
            let state = state(by, count);
            let port = Arc::clone(state.port(10080, false).unwrap());
            let request = |i| {
                let uri = format!("{}/users/1234", by.prefix(i).trim_end_matches('/'));
                (
                    by.host(i),
                    http::Request::get(uri).body(()).unwrap().into_parts().0,
                )
            };
            // Enough different ones that the answer is not in the cache each time.
            let requests: Vec<_> = (0..1024).map(|i| request(i * 7919 % count)).collect();
            let mut next = requests.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter(|| {
                    let (host, head) = next.next().unwrap();
                    let site = port.locate(black_box(host), None).unwrap();
                    let matched = site.matched(host, black_box(head));
                    assert!(matched.is_some());
                    matched
                });
            });
        }
    }
}

fn change(c: &mut Criterion) {
    for by in [By::Host, By::Path] {
        let mut group = c.benchmark_group(format!("one route changes, by {}", by.name()));
        for count in COUNTS {
            let mut state = state(by, count);
            let mut version = 0;
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter(|| {
                    version += 1;
                    apply(&mut state, vec![route(by, version * 7919 % count, version)]);
                });
            });
        }
    }
}

fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("everything arrives");
    group.sample_size(10);
    for by in [By::Host, By::Path] {
        group.bench_function(by.name(), |b| b.iter(|| state(by, 40_000)));
    }
}

criterion_group!(benches, lookup, change, load);
criterion_main!(benches);
