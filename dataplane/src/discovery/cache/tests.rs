use std::os::unix::fs::PermissionsExt;

use super::*;

fn resource(key: &str, version: &str) -> v1::Resource {
    let body = v1::resource::Body::Secret(v1::Secret {
        body: Some(v1::secret::Body::TrustBundle(vec![7; 100])),
    });
    v1::Resource {
        key: key.into(),
        version: version.into(),
        body: Some(body),
    }
}

fn upsert(cache: &mut Cache, resources: &[(&str, &str)]) {
    let upserts = resources
        .iter()
        .map(|(key, version)| resource(key, version))
        .collect();
    cache
        .store(
            v1::Update {
                upserts,
                ..Default::default()
            },
            &v1::Ack::default(),
        )
        .unwrap();
}

fn held(dir: &Path) -> Vec<(String, String)> {
    Cache::open(dir, "a/b")
        .unwrap()
        .1
        .into_iter()
        .map(|r| (r.key, r.version))
        .collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted
        .iter()
        .map(|(key, version)| ((*key).to_owned(), (*version).to_owned()))
        .collect()
}

#[test]
fn what_was_applied_comes_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cache, empty) = Cache::open(dir.path(), "a/b").unwrap();
    assert!(empty.is_empty());
    upsert(
        &mut cache,
        &[
            ("listener/l", "1"),
            ("route/r", "1"),
            ("secret/s", "1"),
            ("settings", "1"),
        ],
    );
    upsert(
        &mut cache,
        &[("route/r", "2"), ("backend/b", "1"), ("endpoints/e", "1")],
    );
    let update = v1::Update {
        upserts: vec![resource("route/bad", "1"), resource("backend/b", "bad")],
        removes: vec!["secret/s".into(), "route/unknown".into()],
        ..Default::default()
    };
    let reject = |key: &str| v1::Rejection {
        key: key.into(),
        ..Default::default()
    };
    let ack = v1::Ack {
        nonce: 1,
        rejected: vec![reject("route/bad"), reject("backend/b")],
    };
    cache.store(update, &ack).unwrap();
    let wanted = [
        ("settings", "1"),
        ("endpoints/e", "1"),
        ("backend/b", "1"),
        ("route/r", "2"),
        ("listener/l", "1"),
    ];
    assert_eq!(held(dir.path()), pairs(&wanted));
    let mode = fs::metadata(dir.path().join("config"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_owner_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    upsert(
        &mut Cache::open(dir.path(), "a/b").unwrap().0,
        &[("settings", "1")],
    );
    assert!(Cache::open(dir.path(), "a/bc").unwrap().1.is_empty());
    assert!(held(dir.path()).is_empty());
}

#[test]
fn damage_costs_only_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    upsert(
        &mut Cache::open(dir.path(), "a/b").unwrap().0,
        &[("settings", "1")],
    );
    let good = fs::read(&path).unwrap();
    upsert(
        &mut Cache::open(dir.path(), "a/b").unwrap().0,
        &[("secret/s", "1")],
    );
    let whole = fs::read(&path).unwrap();
    for cut in good.len() + 1..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(held(dir.path()), pairs(&[("settings", "1")]));
    }
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&path, flipped).unwrap();
    let (mut cache, resources) = Cache::open(dir.path(), "a/b").unwrap();
    assert_eq!(resources.len(), 1);
    upsert(&mut cache, &[("secret/t", "1")]);
    assert_eq!(held(dir.path()), pairs(&[("settings", "1"), ("secret/t", "1")]));
}

#[test]
fn a_change_costs_little_and_the_file_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    let (mut cache, _) = Cache::open(dir.path(), "a/b").unwrap();
    let keys: Vec<_> = (0..5000).map(|i| format!("secret/{i}")).collect();
    upsert(
        &mut cache,
        &keys.iter().map(|key| (key.as_str(), "1")).collect::<Vec<_>>(),
    );
    let full = fs::metadata(&path).unwrap().len();
    upsert(&mut cache, &[("secret/7", "2")]);
    assert!(fs::metadata(&path).unwrap().len() - full < 300);
    for round in 0..20 {
        upsert(
            &mut cache,
            &keys.iter().map(|key| (key.as_str(), "3")).collect::<Vec<_>>(),
        );
        upsert(&mut cache, &[("secret/8", &round.to_string())]);
        assert!(fs::metadata(&path).unwrap().len() <= 3 * full + SLACK);
    }
    let held = held(dir.path());
    assert_eq!(held.len(), 5000);
    assert_eq!(held.iter().find(|(key, _)| key == "secret/8").unwrap().1, "19");
    assert!(!dir.path().join("config.new").exists());
}
