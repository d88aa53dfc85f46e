use serde_json::json;

use super::*;

#[path = "../../../tests/support/mmdb.rs"]
mod mmdb;

#[test]
fn a_file_that_changes_is_read_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("country.mmdb");
    let write = |code: &str| {
        let networks = [("192.0.2.0/24", json!({ "country": { "iso_code": code } }))];
        // As a volume of Kubernetes does: another file in the same place.
        let next = directory.path().join("next");
        fs::write(&next, mmdb::database(&networks)).unwrap();
        fs::rename(&next, &path).unwrap();
    };
    let config = v1::GeoDatabases {
        country: path.to_str().unwrap().into(),
        ..Default::default()
    };
    let open = |before: &Databases| Databases::open(Some(&config), before);
    let databases = open(&Databases::default());
    let country = databases.country.as_ref().unwrap();
    let germany = v1::GeoLocation {
        country: "DE".into(),
        ..Default::default()
    };
    let germany = Location::compile(&germany).unwrap();
    let is_there = || germany.holds("192.0.2.1".parse().unwrap(), &databases);
    assert_eq!(is_there(), None, "there is no file yet");
    for (code, expected) in [("DE", true), ("FR", false), ("DE", true)] {
        write(code);
        country.refresh();
        assert_eq!(is_there(), Some(expected));
    }
    // What cannot be read leaves what was read before.
    fs::write(&path, "no database").unwrap();
    country.refresh();
    assert_eq!(is_there(), Some(true));
    fs::remove_file(&path).unwrap();
    country.refresh();
    assert_eq!(is_there(), Some(true));
    // Settings that name the same file keep what was read.
    assert!(Arc::ptr_eq(country, open(&databases).country.as_ref().unwrap()));
    assert!(Databases::open(None, &databases).country.is_none());
}

#[test]
fn what_is_certainly_elsewhere_needs_no_second_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("asn.mmdb");
    fs::write(
        &path,
        mmdb::database(&[("192.0.2.0/24", json!({ "autonomous_system_number": 64500 }))]),
    )
    .unwrap();
    let config = v1::GeoDatabases {
        asn: path.to_str().unwrap().into(),
        ..Default::default()
    };
    let databases = Databases::open(Some(&config), &Databases::default());
    let location = |asn| v1::GeoLocation {
        country: "DE".into(),
        asn,
        ..Default::default()
    };
    let holds = |asn| {
        let address = "192.0.2.1".parse().unwrap();
        Location::compile(&location(asn))
            .unwrap()
            .holds(address, &databases)
    };
    assert_eq!(holds(64501), Some(false));
    assert_eq!(holds(64500), None);
    assert!(Location::compile(&v1::GeoLocation::default()).is_err());
}
