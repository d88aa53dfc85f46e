//! What a stream is sent, and what is made of its answers.

use super::*;

fn change(upserts: &[(&str, &str)], removes: &[&str]) -> ConfigChange {
    let resource = |key: &str, version: &str| {
        Arc::new(v1::Resource {
            key: key.to_owned(),
            version: version.to_owned(),
            body: None,
        })
    };
    ConfigChange {
        upserts: upserts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), resource(k, v)))
            .collect(),
        removes: removes.iter().map(|k| (*k).to_owned()).collect(),
    }
}

fn resources() -> Resources {
    Resources::new(GatewayRef::new("ns", "gw"))
}

fn send(resources: &Resources, id: u64) -> (Vec<String>, Vec<String>, v1::Update) {
    let Next::Send(update) = resources.next(id) else {
        panic!("nothing to send")
    };
    (
        update.upserts.iter().map(|r| r.key.clone()).collect(),
        update.removes.clone(),
        update,
    )
}

fn ack(nonce: u64, rejected: &[(&str, &str)]) -> v1::Ack {
    let rejected = rejected.iter().map(|(key, reason)| v1::Rejection {
        key: (*key).to_owned(),
        version: "1".to_owned(),
        reason: (*reason).to_owned(),
    });
    v1::Ack {
        nonce,
        rejected: rejected.collect(),
    }
}

#[test]
fn makes_before_it_breaks() {
    let resources = resources();
    let upserts = [
        "listener/l",
        "route/r",
        "backend/b",
        "endpoints/e",
        "secret/s",
        "settings",
    ]
    .map(|k| (k, "1"));
    resources.apply(change(&upserts, &[]));
    let (id, _) = resources.open("p".into(), &HashMap::from([("route/old".into(), "1".into())]));
    let (upserts, removes, update) = send(&resources, id);
    assert_eq!(
        upserts,
        [
            "settings",
            "secret/s",
            "endpoints/e",
            "backend/b",
            "route/r",
            "listener/l"
        ]
    );
    assert_eq!(removes, ["route/old"]);
    assert!(update.synced);
    resources.apply(change(&[], &["backend/b", "route/r", "listener/l"]));
    assert_eq!(send(&resources, id).1, ["listener/l", "route/r", "backend/b"]);
}

#[test]
fn sends_the_difference_to_what_is_known() {
    let resources = resources();
    resources.apply(change(&[("backend/a", "2"), ("backend/b", "2")], &[]));
    let known = [("backend/a", "2"), ("backend/b", "1"), ("backend/c", "1")];
    let known = known.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let (id, _) = resources.open("p".into(), &known);
    let (upserts, removes, _) = send(&resources, id);
    assert_eq!(
        (upserts, removes),
        (vec!["backend/b".to_owned()], vec!["backend/c".to_owned()])
    );
    assert!(matches!(resources.next(id), Next::Wait));
}

#[test]
fn a_proxy_that_knows_all_is_told_so() {
    let resources = resources();
    resources.apply(change(&[("backend/a", "1")], &[]));
    let (id, _) = resources.open("p".into(), &HashMap::from([("backend/a".into(), "1".into())]));
    let (upserts, _, update) = send(&resources, id);
    assert!(upserts.is_empty() && update.synced);
}

#[test]
fn waits_while_there_is_no_configuration() {
    let resources = resources();
    let (id, _) = resources.open("p".into(), &HashMap::from([("backend/a".into(), "1".into())]));
    assert!(matches!(resources.next(id), Next::Wait));
    resources.apply(change(&[("backend/b", "1")], &[]));
    assert_eq!(send(&resources, id).0, ["backend/b"]);
}

#[test]
fn a_slow_proxy_gets_the_newest_state() {
    let resources = resources();
    resources.apply(change(&[("backend/a", "0")], &[]));
    let (id, _) = resources.open("p".into(), &HashMap::new());
    for version in 1..=WINDOW {
        send(&resources, id);
        resources.apply(change(&[("backend/a", &version.to_string())], &[]));
    }
    assert!(matches!(resources.next(id), Next::Wait), "the window is full");
    resources.apply(change(&[("backend/a", "newest"), ("backend/b", "1")], &[]));
    resources.apply(change(&[], &["backend/b"]));
    resources.ack(id, ack(1, &[])).unwrap();
    let (_, removes, update) = send(&resources, id);
    assert_eq!(update.upserts[0].version, "newest");
    assert_eq!(removes, ["backend/b"]);
    assert!(matches!(resources.next(id), Next::Wait), "nothing is left");
}

#[test]
fn big_updates_are_split_and_only_the_last_is_synced() {
    let resources = resources();
    let endpoints = v1::Endpoints {
        endpoints: vec![v1::Endpoint {
            address: "a".repeat(UPDATE_BYTES / 2),
            ..Default::default()
        }],
    };
    let resource = |key: &str| v1::Resource {
        key: key.to_owned(),
        version: "1".to_owned(),
        body: Some(v1::resource::Body::Endpoints(endpoints.clone())),
    };
    let keys = ["endpoints/a", "endpoints/b", "endpoints/c"];
    let upserts = keys.map(|key| (key.to_owned(), Arc::new(resource(key)))).into();
    resources.apply(ConfigChange {
        upserts,
        removes: BTreeSet::new(),
    });
    let (id, _) = resources.open("p".into(), &HashMap::from([("endpoints/0".into(), "1".into())]));
    let (upserts, removes, update) = send(&resources, id);
    assert_eq!((upserts.len(), removes.len(), update.synced), (2, 0, false));
    let (upserts, removes, update) = send(&resources, id);
    assert_eq!((upserts.len(), removes.len(), update.synced), (1, 1, true));
}

#[test]
fn refusals_are_reported_until_they_are_over() {
    let resources = resources();
    resources.apply(change(&[("backend/a", "1"), ("backend/b", "1")], &[]));
    let (id, _) = resources.open("p".into(), &HashMap::new());
    send(&resources, id);
    let (_, refused) = resources
        .ack(id, ack(1, &[("backend/a", "no"), ("backend/foreign", "x")]))
        .unwrap();
    assert_eq!(refused, 1);
    let report = resources.news().unwrap();
    assert_eq!(
        report.rejected,
        BTreeMap::from([("backend/a".to_owned(), "no".to_owned())])
    );
    assert!(resources.news().is_none(), "no news");
    resources.apply(change(&[("backend/b", "2")], &[]));
    send(&resources, id);
    resources.ack(id, ack(2, &[])).unwrap();
    assert!(resources.news().is_none(), "backend/a is still refused");
    resources.apply(change(&[("backend/a", "2")], &[]));
    send(&resources, id);
    resources.ack(id, ack(3, &[])).unwrap();
    assert_eq!(resources.news().unwrap(), ProxyReport::default());
}

#[test]
fn another_account_ends_streams() {
    let resources = resources();
    resources.permit(Some("gw-sluice".into()));
    let (id, _) = resources.open("p".into(), &HashMap::new());
    assert!(resources.permits("gw-sluice") && !resources.permits("other"));
    resources.permit(Some("renamed".into()));
    assert!(matches!(resources.next(id), Next::Close));
}

#[test]
fn what_is_known_of_the_account_counts_more_than_a_guess() {
    let resources = resources();
    resources.permit_if_none_is("guess".to_owned());
    assert!(resources.permits("guess"));
    resources.permit(Some("known".to_owned()));
    resources.permit_if_none_is("guess".to_owned());
    assert!(resources.permits("known") && !resources.permits("guess"));
}
