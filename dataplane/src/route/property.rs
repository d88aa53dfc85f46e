//! The tables against a matcher that knows nothing of them: it looks at every match of every route and takes the best.

use std::cmp::Ordering;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use sluice_config::v1;
use sluice_config::v1::path_match::Kind as PathKind;

use super::{Kind, Listener, Miss, Port, Route, Site, Table, Termination};
use crate::filter::tests::Nothing;
use crate::listen::fingerprint::Wanted;
use crate::telemetry::Metrics;

const LISTENERS: &[&str] = &["", "*.com", "*.example.com", "a.example.com"];
const NAMES: &[&str] = &[
    "",
    "*.com",
    "*.example.com",
    "a.example.com",
    "b.example.com",
    "x.b.example.com",
];
const HOSTS: &[&str] = &[
    "a.example.com",
    "b.example.com",
    "x.b.example.com",
    "example.com",
    "com",
    "other.org",
    "",
];
const EXACT: &[&str] = &["/", "/a", "/a/b", "/a/"];
const PREFIXES: &[&str] = &["/", "/a", "/a/", "/a/b", "/ab"];
const EXPRESSIONS: &[&str] = &["/a.*", "/[ab]/b", "/.*"];
const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/abc", "/b/b", "//"];
const METHODS: &[&str] = &["", "GET", "POST"];

fn values() -> impl Strategy<Value = Vec<v1::ValueMatch>> {
    let one =
        (select(&["x", "y"][..]), select(&["1", "2", "[12]"][..])).prop_map(|(name, value)| v1::ValueMatch {
            name: name.into(),
            value: value.into(),
            regex: value.starts_with('['),
        });
    prop::collection::vec(one, 0..3)
}

fn path() -> impl Strategy<Value = v1::PathMatch> {
    let of = |kind: PathKind, values| {
        select(values).prop_map(move |value: &str| v1::PathMatch {
            kind: kind.into(),
            value: value.into(),
        })
    };
    prop_oneof![
        of(PathKind::Exact, EXACT),
        of(PathKind::Prefix, PREFIXES),
        of(PathKind::Regex, EXPRESSIONS)
    ]
}

fn one_match() -> impl Strategy<Value = v1::HttpMatch> {
    (path(), values(), values(), select(METHODS)).prop_map(|(path, headers, query, method)| v1::HttpMatch {
        path: Some(path),
        headers,
        query,
        method: method.into(),
        cookies: Vec::new(),
    })
}

/// What a listener and a route have in common.
fn intersection(listener: &str, name: &str) -> Option<String> {
    let below = |wide: &str, narrow: &str| {
        wide.strip_prefix('*')
            .is_some_and(|suffix| narrow.trim_start_matches('*').ends_with(suffix) && narrow != wide)
    };
    match (listener, name) {
        (a, b) if a == b || b.is_empty() => Some(a.into()),
        ("", b) => Some(b.into()),
        (a, b) if below(a, b) => Some(b.into()),
        (a, b) if below(b, a) => Some(a.into()),
        _ => None,
    }
}

fn route() -> impl Strategy<Value = v1::Route> {
    let names = prop::collection::vec(select(NAMES), 1..3);
    let rules = prop::collection::vec(prop::collection::vec(one_match(), 1..3), 1..3);
    (
        names,
        rules,
        0..3i64,
        prop::collection::vec(any::<bool>(), LISTENERS.len()),
        any::<bool>(),
    )
        .prop_map(|(names, rules, created, attached, in_order)| {
            let mut attachments = Vec::new();
            for (listener, _) in LISTENERS.iter().zip(attached).filter(|(_, attached)| *attached) {
                let common: Vec<_> = names
                    .iter()
                    .filter_map(|name| Some((intersection(listener, name)?, (*name).to_owned())))
                    .collect();
                if !common.is_empty() {
                    let (hostnames, route_hostnames) = common.into_iter().unzip();
                    attachments.push(v1::Attachment {
                        listener: (*listener).into(),
                        hostnames,
                        route_hostnames,
                    });
                }
            }
            let rule = |(i, matches): (usize, Vec<v1::HttpMatch>)| v1::HttpRule {
                name: i.to_string(),
                matches,
                ..Default::default()
            };
            let rules = rules.into_iter().enumerate().map(rule).collect();
            let rules = v1::route::Rules::Http(v1::HttpRules { rules, grpc: false });
            v1::Route {
                attachments,
                created,
                in_order,
                rules: Some(rules),
                ..Default::default()
            }
        })
}

fn routes() -> impl Strategy<Value = Vec<v1::Route>> {
    prop::collection::vec(route(), 0..8).prop_map(|mut routes| {
        for (i, route) in routes.iter_mut().enumerate() {
            route.name = format!("HTTPRoute/default/{i}");
            route.precedence_name = format!("default/{i}");
        }
        routes
    })
}

fn request() -> impl Strategy<Value = (&'static str, http::request::Parts)> {
    let value = || prop::option::of(select(&["1", "2", "3"][..]));
    let parts = (
        select(HOSTS),
        select(PATHS),
        select(&["GET", "POST"][..]),
        value(),
        value(),
        value(),
        value(),
    );
    parts.prop_map(|(host, path, method, x, y, query_x, query_y)| {
        let pairs = [("x", query_x), ("y", query_y)];
        let query: Vec<_> = pairs
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
            .collect();
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?{}", query.join("&")));
        for (name, value) in [("x", x), ("y", y)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        (host, request.body(()).unwrap().into_parts().0)
    })
}

// --- The naive matcher ---

fn name_covers(name: &str, host: &str) -> bool {
    name.is_empty()
        || name == host
        || name
            .strip_prefix('*')
            .is_some_and(|end| host.len() > end.len() && host.ends_with(end))
}

/// Greater is more specific.
fn name_rank(name: &str) -> (bool, usize) {
    (!name.is_empty() && !name.contains('*'), name.len())
}

fn path_rank(path: &v1::PathMatch) -> (u8, usize) {
    let kind = match path.kind() {
        PathKind::Exact => 2,
        PathKind::Regex => 1,
        _ => 0,
    };
    let value = if kind == 0 {
        path.value.trim_end_matches('/')
    } else {
        &path.value
    };
    (kind, value.len())
}

fn value_ok(test: &v1::ValueMatch, value: Option<&str>) -> bool {
    value.is_some_and(|value| {
        if test.regex {
            matches!(value, "1" | "2")
        } else {
            test.value == value
        }
    })
}

fn match_ok(one: &v1::HttpMatch, head: &http::request::Parts) -> bool {
    let (path, wanted) = (head.uri.path(), one.path.as_ref().unwrap());
    let path_ok = match wanted.kind() {
        PathKind::Exact => wanted.value == path,
        PathKind::Regex => match wanted.value.as_str() {
            "/a.*" => path.starts_with("/a"),
            "/[ab]/b" => path == "/a/b" || path == "/b/b",
            _ => path.starts_with('/'),
        },
        _ => {
            let mut want = wanted.value.trim_end_matches('/').split('/');
            let mut have = path.split('/');
            want.all(|element| have.next() == Some(element))
        }
    };
    let header =
        |test: &v1::ValueMatch| value_ok(test, head.headers.get(&test.name).map(|v| v.to_str().unwrap()));
    let parameter = |test: &v1::ValueMatch| {
        let pairs = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        value_ok(
            test,
            pairs
                .into_iter()
                .find(|(name, _)| *name == test.name)
                .map(|(_, value)| value),
        )
    };
    path_ok
        && (one.method.is_empty() || one.method == head.method.as_str())
        && one.headers.iter().all(header)
        && one.query.iter().all(parameter)
}

/// Route name and rule name.
fn naive(routes: &[v1::Route], host: &str, head: &http::request::Parts) -> Option<(String, String)> {
    let listener = LISTENERS
        .iter()
        .filter(|name| name_covers(name, host))
        .max_by_key(|name| name_rank(name))?;
    let mut found = Vec::new();
    for (r, route) in routes.iter().enumerate() {
        let Some(v1::route::Rules::Http(rules)) = &route.rules else {
            continue;
        };
        for attachment in route.attachments.iter().filter(|a| a.listener == **listener) {
            let names = attachment.hostnames.iter().zip(&attachment.route_hostnames);
            for (name, own) in names.filter(|(name, _)| name_covers(name, host)) {
                for (i, rule) in rules.rules.iter().enumerate() {
                    for (j, one) in rule
                        .matches
                        .iter()
                        .enumerate()
                        .filter(|(_, one)| match_ok(one, head))
                    {
                        // Where the order of the route counts, no match is more specific than another.
                        let (path, rest) = if route.in_order {
                            ((3, 0), (true, 0, 0))
                        } else {
                            let rest = (!one.method.is_empty(), one.headers.len(), one.query.len());
                            (path_rank(one.path.as_ref().unwrap()), rest)
                        };
                        let rank = ((name_rank(name), name_rank(own), path), rest);
                        found.push((
                            rank,
                            (route.created, r, i, j),
                            (route.name.clone(), rule.name.clone()),
                        ));
                    }
                }
            }
        }
    }
    let best = |a: &(_, _, _), b: &(_, _, _)| match Ord::cmp(&b.0, &a.0) {
        Ordering::Equal => Ord::cmp(&a.1, &b.1),
        other => other,
    };
    found.into_iter().min_by(best).map(|(_, _, rule)| rule)
}

// --- The tables ---

fn compiled(routes: &[v1::Route]) -> Vec<Route> {
    let mut lookup = Nothing::default();
    routes
        .iter()
        .map(|route| Route::compile(&format!("route/{}", route.name).into(), route, &mut lookup).unwrap())
        .collect()
}

fn sites(metrics: &Metrics) -> Vec<Site> {
    let site = |name: &&str| {
        Site::new(Arc::new(Listener {
            key: (*name).into(),
            name: (*name).into(),
            https: false,
            port: 80,
            hostname: (*name).into(),
            filters: Vec::new(),
            client: None,
            fingerprints: Wanted::default(),
            tls: Termination::Cleartext,
            metrics: metrics.listener(name),
        }))
    };
    LISTENERS.iter().map(site).collect()
}

fn each(sites: &mut [Site], route: &Route, change: impl Fn(&mut Site, &super::Attachment)) {
    for attachment in &route.attachments {
        let at = LISTENERS
            .iter()
            .position(|name| **name == *attachment.listener)
            .unwrap();
        change(&mut sites[at], attachment);
    }
}

fn port(sites: Vec<Site>) -> Port {
    let port = Port::new(80, Kind::Http);
    let mut table = Table {
        kind: Kind::Http,
        sites: super::HostMap::default(),
    };
    for site in sites {
        table
            .sites
            .insert(&Arc::clone(&site.listener.hostname), Arc::new(site));
    }
    port.publish(table);
    port
}

fn found(port: &Port, host: &str, head: &http::request::Parts) -> Option<(String, String)> {
    let site = match port.locate(host, None) {
        Ok(site) => site,
        Err(Miss::NoRoute) => return None,
        Err(Miss::Misdirected) => panic!("not over cleartext"),
    };
    let matched = site.matched(host, head)?;
    Some((
        matched.rule.route_name.to_string(),
        matched.rule.rule_name.to_string(),
    ))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn finds_what_the_naive_matcher_finds(routes in routes(), requests in prop::collection::vec(request(), 1..16)) {
        let mut sites = sites(&Metrics::default());
        for route in compiled(&routes) {
            each(&mut sites, &route, |site, attachment| site.attach(&route, attachment));
        }
        let port = port(sites);
        for (host, head) in requests {
            prop_assert_eq!(found(&port, host, &head), naive(&routes, host, &head), "{} {:?}", host, head);
        }
    }

    #[test]
    fn what_is_taken_out_leaves_no_trace(
        (routes, keep) in routes().prop_flat_map(|r| { let n = r.len(); (Just(r), prop::collection::vec(any::<bool>(), n)) }),
        requests in prop::collection::vec(request(), 1..16),
    ) {
        let mut sites = sites(&Metrics::default());
        let compiled = compiled(&routes);
        for route in &compiled {
            each(&mut sites, route, |site, attachment| site.attach(route, attachment));
        }
        for (route, _) in compiled.iter().zip(&keep).filter(|(_, keep)| !**keep) {
            each(&mut sites, route, |site, attachment| site.detach(route, attachment));
        }
        let left: Vec<_> = routes.into_iter().zip(&keep).filter(|(_, keep)| **keep).map(|(route, _)| route).collect();
        let port = port(sites);
        for (host, head) in requests {
            prop_assert_eq!(found(&port, host, &head), naive(&left, host, &head), "{} {:?}", host, head);
        }
    }
}
