//! What translation costs: everything at once, and one change, among 100, 5,000 and 40,000 routes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use sluice_controller::engine::{Engine, Environment, Event, Mode};
use sluice_controller::store::{self, Object};

const COUNTS: [usize; 3] = [100, 5_000, 40_000];
const SERVICES: usize = 100;
/// Routes a ListenerSet, where there are any.
const ROUTES_PER_SET: usize = 16;

fn objects(yaml: &str) -> Vec<Object> {
    let (documents, problems) = store::parse(yaml);
    assert!(problems.is_empty(), "{problems:?}");
    documents.into_iter().map(|document| document.object).collect()
}

fn gateway() -> String {
    "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: sluice}
spec: {controllerName: sluice.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: bench, generation: 1}
spec:
  gatewayClassName: sluice
  allowedListeners: {namespaces: {from: Same}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
"
    .to_owned()
}

fn service(i: usize, address: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: b{i}}}
spec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: b{i}-1, labels: {{kubernetes.io/service-name: b{i}}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [{address}]}}]
"
    )
}

fn set(i: usize) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: s{i}, generation: 1}}
spec:
  parentRef: {{name: bench}}
  listeners: [{{name: http, port: 80, protocol: HTTP, hostname: '*.s{i}.bench.test'}}]
"
    )
}

fn route(i: usize, sets: usize, generation: usize) -> String {
    let (parent, host) = match sets {
        0 => ("name: bench".to_owned(), format!("r{i}.bench.test")),
        sets => (
            format!("kind: ListenerSet, name: s{}", i % sets),
            format!("r{i}.s{}.bench.test", i % sets),
        ),
    };
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{i}, generation: {generation}}}
spec:
  parentRefs: [{{{parent}}}]
  hostnames: [{host}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: /v{generation}}}}}]
    backendRefs: [{{name: b{}, port: 80}}]
",
        i % SERVICES
    )
}

fn cluster(routes: usize, sets: usize) -> Vec<Object> {
    let mut yaml = gateway();
    for i in 0..SERVICES {
        yaml.push_str(&service(i, "10.0.0.1"));
    }
    for i in 0..sets {
        yaml.push_str(&set(i));
    }
    for i in 0..routes {
        write!(yaml, "{}", route(i, sets, 1)).unwrap();
    }
    objects(&yaml)
}

fn engine() -> Engine {
    Engine::new(Environment {
        controller_name: "sluice.dev/gateway-controller".to_owned(),
        namespace: "sluice-system".to_owned(),
        mode: Mode::Cluster,
        xff_trusted_hops: 0,
        allow_local_backends: false,
        login_key: None,
        rate_limit: None,
    })
}

fn upserts(objects: &[Object]) -> Vec<Event> {
    objects.iter().cloned().map(Event::Upsert).collect()
}

/// Number of ListenerSets: none, or as many as the routes need.
const WAYS: [(&str, usize); 2] = [("gateway", 0), ("listener sets", ROUTES_PER_SET)];

fn everything(c: &mut Criterion) {
    for (name, per_set) in WAYS {
        let mut group = c.benchmark_group(format!("everything, routes at {name}"));
        group.sample_size(10);
        for count in COUNTS {
            let sets = count.checked_div(per_set).unwrap_or(0);
            let objects = cluster(count, sets);
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter_batched(
                    || upserts(&objects),
                    |events| {
                        let mut engine = engine();
                        let changes = engine.apply(events);
                        assert!(changes.translated.len() > count);
                        (engine, changes)
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

fn one_route(c: &mut Criterion) {
    for (name, per_set) in WAYS {
        let mut group = c.benchmark_group(format!("one route changes, routes at {name}"));
        for count in COUNTS {
            let sets = count.checked_div(per_set).unwrap_or(0);
            let mut engine = engine();
            engine.apply(upserts(&cluster(count, sets)));
            // Two versions of each, or from the second round on nothing would change.
            let version = |step| (0..64).map(move |i| route(i * 7919 % count, sets, step + i));
            let texts = version(100).chain(version(200));
            let versions: Vec<_> = texts.map(|text| objects(&text).remove(0)).collect();
            let mut next = versions.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter(|| {
                    let object = next.next().unwrap().clone();
                    let changes = engine.apply([Event::Upsert(black_box(object))]);
                    assert_eq!(changes.config.len(), 1);
                    changes
                });
            });
        }
    }
}

fn endpoints(c: &mut Criterion) {
    let mut group = c.benchmark_group("endpoints of one Service change");
    for count in COUNTS {
        let mut engine = engine();
        engine.apply(upserts(&cluster(count, 0)));
        let slice = |address| objects(&service(7, address)).remove(1);
        let versions = [slice("10.0.0.2"), slice("10.0.0.3")];
        let mut next = versions.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let changes = engine.apply([Event::Upsert(next.next().unwrap().clone())]);
                assert_eq!(changes.config.len(), 1);
                changes
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots().nresamples(5_000);
    targets = everything, one_route, endpoints
}
criterion_main!(benches);
