use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::tls::material::provider;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    fn issue(&self, serial: u64) -> CertificateDer<'static> {
        self.issue_until(serial, 4096)
    }

    fn issue_until(&self, serial: u64, year: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["Client.example".into()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.subject_alt_names.extend([
            SanType::URI("spiffe://a/b".try_into().unwrap()),
            SanType::Rfc822Name("a@b.example".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
            SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "user@b".into())),
        ]);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.0).unwrap().der().clone()
    }

    fn revoke(&self, serial: u64) -> CertificateRevocationListDer<'static> {
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: rcgen::date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.0).unwrap();
        CertificateRevocationListDer::from_pem_slice(list.pem().unwrap().as_bytes()).unwrap()
    }
}

fn check(
    authority: &Authority,
    lists: Vec<CertificateRevocationListDer<'static>>,
    change: impl FnOnce(&mut v1::ClientValidation),
) -> Result<Arc<ClientCheck>, String> {
    let mut config = v1::ClientValidation {
        ca_secrets: vec!["secret/ca".into()],
        ..Default::default()
    };
    change(&mut config);
    ClientCheck::build(&config, authority.roots(), lists, None, &provider())
}

fn takes(check: &ClientCheck, certificate: &CertificateDer<'_>) -> bool {
    check
        .verify_client_cert(certificate, &[], UnixTime::now())
        .is_ok()
}

#[test]
fn modes_differ() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (friend, stranger) = (ours.issue(1), theirs.issue(2));
    for (mode, mandatory, takes_stranger) in [
        (Mode::Unspecified, true, false),
        (Mode::RequireAndVerify, true, false),
        (Mode::VerifyIfGiven, false, false),
        (Mode::RequireAny, true, true),
        (Mode::Request, false, true),
    ] {
        let check = check(&ours, Vec::new(), |c| c.mode = mode.into()).unwrap();
        assert_eq!(check.client_auth_mandatory(), mandatory, "{mode:?}");
        assert!(takes(&check, &friend), "{mode:?}");
        assert_eq!(takes(&check, &stranger), takes_stranger, "{mode:?}");
    }
}

#[test]
fn certificates_are_pinned() {
    let ours = Authority::new();
    let (known, other) = (ours.issue(1), ours.issue(2));
    let hex: Vec<String> = digest(&SHA256, &known)
        .as_ref()
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect();
    let (_, parsed) = X509Certificate::from_der(&known).unwrap();
    let key = STANDARD.encode(digest(&SHA256, parsed.public_key().raw));
    let by_hash = check(&ours, Vec::new(), |c| c.certificate_hashes = vec![hex.join(":")]).unwrap();
    let by_key = check(&ours, Vec::new(), |c| c.spki_hashes = vec![key]).unwrap();
    let without_ca = v1::ClientValidation {
        certificate_hashes: vec![hex.join(":")],
        ..Default::default()
    };
    let without_ca =
        ClientCheck::build(&without_ca, RootCertStore::empty(), Vec::new(), None, &provider()).unwrap();
    for check in [by_hash, by_key, without_ca] {
        assert!(takes(&check, &known) && !takes(&check, &other));
    }
    for bad in ["", "zz", "abc", "00"] {
        let reason = check(&ours, Vec::new(), |c| c.certificate_hashes = vec![bad.into()]).unwrap_err();
        assert_eq!(
            reason,
            "tls.client_validation.certificate_hashes[0]: not a SHA-256 hash"
        );
    }
}

#[test]
fn names_are_demanded() {
    use v1::string_match::Kind as How;
    let ours = Authority::new();
    let certificate = ours.issue(1);
    let named = |kind: Kind, how: How, value: &str| v1::SubjectAltNameMatch {
        kind: kind.into(),
        value: Some(v1::StringMatch {
            kind: how.into(),
            value: value.into(),
        }),
        oid: "1.3.6.1.4.1.311.20.2.3".into(),
    };
    for (name, wanted) in [
        (named(Kind::Dns, How::Exact, "client.example"), true),
        (named(Kind::Dns, How::Suffix, ".example"), true),
        (named(Kind::Dns, How::Exact, "a@b.example"), false),
        (named(Kind::Uri, How::Prefix, "spiffe://a/"), true),
        (named(Kind::Uri, How::Regex, "spiffe://a"), false),
        (named(Kind::Email, How::Exact, "a@b.example"), true),
        (named(Kind::Ip, How::Exact, "192.0.2.1"), true),
        (named(Kind::Ip, How::Exact, "192.0.2.2"), false),
        (named(Kind::OtherName, How::Exact, "user@b"), true),
        (named(Kind::OtherName, How::Exact, "other@b"), false),
    ] {
        let check = check(&ours, Vec::new(), |c| c.subject_alt_names = vec![name.clone()]).unwrap();
        assert_eq!(takes(&check, &certificate), wanted, "{name:?}");
    }
}

#[test]
fn the_revoked_are_refused() {
    let ours = Authority::new();
    let (good, revoked) = (ours.issue(1), ours.issue(2));
    let check = check(&ours, vec![ours.revoke(2)], |c| c.crl_leaf_only = true).unwrap();
    assert!(takes(&check, &good) && !takes(&check, &revoked));
}

#[test]
fn certificates_may_be_out_of_date() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (allow_expired, certificate, expected) in [
        (false, ours.issue(1), true),
        (false, ours.issue_until(1, 2020), false),
        (true, ours.issue_until(1, 2020), true),
        (true, theirs.issue_until(1, 2020), false),
        // Revoked for all times.
        (true, ours.issue_until(7, 2020), false),
    ] {
        let check = check(&ours, vec![ours.revoke(7)], |c| c.allow_expired = allow_expired).unwrap();
        assert_eq!(takes(&check, &certificate), expected, "{allow_expired}");
    }
}
