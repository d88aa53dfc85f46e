//! What X-Forwarded-Client-Cert says of a client's certificate, in Envoy's form.
//!
//! Owns the text of one element. Whether it is sent is `forward`'s business.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use sluice_config::v1::client_headers::CertDetail;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::filter::cel::request::Peer;

/// What a URL may carry as it is (RFC 3986 section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What elements say of our own certificate: each of its URIs, with a delimiter after it.
pub(super) fn by(chain: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    let parsed = chain
        .first()
        .and_then(|leaf| X509Certificate::from_der(leaf).ok());
    let Some((_, parsed)) = parsed else { return text };
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::URI(uri) = name {
            let _ = write!(text, "By={};", delimited(uri));
        }
    }
    text
}

/// The element for a client that showed this chain, its own certificate first; `by` is what [`by`] says of ours. `None`:
/// it showed none, or one that cannot be read.
pub(super) fn element(chain: &[CertificateDer<'_>], details: &[CertDetail], by: &str) -> Option<HeaderValue> {
    let leaf = chain.first()?;
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let mut text = format!("{by}Hash=");
    for byte in ring::digest::digest(&ring::digest::SHA256, leaf).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    for detail in details {
        match detail {
            CertDetail::Subject => {
                text.push_str(";Subject=\"");
                text.push_str(&quoted(&subject(parsed.subject())));
                text.push('"');
            }
            CertDetail::Cert => {
                let _ = write!(text, ";Cert=\"{}\"", pem(leaf));
            }
            CertDetail::Chain => {
                text.push_str(";Chain=\"");
                for certificate in chain {
                    text.push_str(&pem(certificate));
                }
                text.push('"');
            }
            CertDetail::Dns | CertDetail::Uri => names(&parsed, *detail, &mut text),
            CertDetail::Unspecified => {}
        }
    }
    HeaderValue::try_from(text).ok()
}

/// What a client's certificate says, for expressions. `None`: it cannot be read.
pub(super) fn peer(leaf: &CertificateDer<'_>) -> Option<Peer> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let mut peer = Peer {
        subject: subject(parsed.subject()),
        ..Peer::default()
    };
    for byte in ring::digest::digest(&ring::digest::SHA256, leaf).as_ref() {
        let _ = write!(peer.sha256, "{byte:02x}");
    }
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        let (place, text) = match name {
            GeneralName::DNSName(dns) => (&mut peer.dns_san, dns),
            GeneralName::URI(uri) => (&mut peer.uri_san, uri),
            _ => continue,
        };
        place.get_or_insert_with(|| (*text).to_owned());
    }
    Some(peer)
}

fn names(certificate: &X509Certificate<'_>, which: CertDetail, text: &mut String) {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return;
    };
    for name in &names.value.general_names {
        match (name, which) {
            (GeneralName::DNSName(dns), CertDetail::Dns) => {
                let _ = write!(text, ";DNS={}", delimited(dns));
            }
            (GeneralName::URI(uri), CertDetail::Uri) => {
                let _ = write!(text, ";URI={}", delimited(uri));
            }
            _ => {}
        }
    }
}

/// A value between delimiters: quoted if it holds one.
fn delimited(value: &str) -> String {
    if value.contains([',', ';', '=', '"']) {
        format!("\"{}\"", quoted(value))
    } else {
        value.to_owned()
    }
}

fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

/// In the form of RFC 2253: the last part first.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let pairs: Vec<String> = rdn
                .iter()
                .map(|pair| {
                    let kind = oid2abbrev(pair.attr_type(), oid_registry())
                        .map_or_else(|_| pair.attr_type().to_id_string(), ToOwned::to_owned);
                    let value = pair.as_str().unwrap_or_default();
                    let escaped = value
                        .replace('\\', "\\\\")
                        .replace(',', "\\,")
                        .replace('+', "\\+");
                    format!("{kind}={escaped}")
                })
                .collect();
            pairs.join("+")
        })
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let body = STANDARD.encode(certificate);
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    utf8_percent_encode(&text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_described() {
        let mut params = rcgen::CertificateParams::new(vec!["client.example".into()]).unwrap();
        params
            .subject_alt_names
            .push(rcgen::SanType::URI("spiffe://cluster/ns/a".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "Example, \"Inc\"");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "client");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der().clone();
        let all = [
            CertDetail::Subject,
            CertDetail::Dns,
            CertDetail::Uri,
            CertDetail::Cert,
        ];
        assert_eq!(by(std::slice::from_ref(&der)), "By=spiffe://cluster/ns/a;");
        let value = element(std::slice::from_ref(&der), &all, "By=spiffe://cluster/gw;").unwrap();
        let text = value.to_str().unwrap();
        let text = text.strip_prefix("By=spiffe://cluster/gw;").unwrap();
        assert!(text.starts_with("Hash=") && text.as_bytes()[69] == b';', "{text}");
        assert!(
            text.contains(
                r#";Subject="CN=client,O=Example\\, \"Inc\"";DNS=client.example;URI=spiffe://cluster/ns/a;"#
            ),
            "{text}"
        );
        assert!(
            text.contains(r#";Cert="-----BEGIN%20CERTIFICATE-----%0A"#),
            "{text}"
        );
        assert!(element(&[], &all, "").is_none());
        assert!(element(&[CertificateDer::from(vec![1, 2, 3])], &all, "").is_none());
        assert_eq!(by(&[CertificateDer::from(vec![1, 2, 3])]), "");
    }

    #[test]
    fn what_a_certificate_says_is_known_to_expressions() {
        let mut params =
            rcgen::CertificateParams::new(vec!["client.test".to_owned(), "other.test".to_owned()]).unwrap();
        let uri = "spiffe://test/client".try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "client");
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let known = peer(certificate.der()).unwrap();
        assert_eq!(known.subject, "CN=client");
        assert_eq!(known.dns_san.as_deref(), Some("client.test"));
        assert_eq!(known.uri_san.as_deref(), Some("spiffe://test/client"));
        assert_eq!(known.sha256.len(), 64);
        assert_eq!(peer(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
