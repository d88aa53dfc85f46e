//! JSON Web Tokens: providers and where their keys come from.

use http::Uri;
use sluice_config::v1;
use sluice_config::v1::jwt_provider::Keys;
use sluice_config::v1::resource::Body;
use sluice_config::v1::value_source::{Header, Source};
use sluice_crds::envoy::{JWT, JWTExtractor, JWTProvider, LocalJWKS, LocalJWKSType, RemoteJWKS};

use super::destination;
use super::reader::Reader;
use crate::engine::BackendUsage;
use crate::store::ObjectRef;
use crate::translate::route::millis;

/// The entry with the keys.
const JWKS: &str = "jwks";

/// `jwt`.
pub fn translate(reader: &mut Reader<'_, '_, '_>, owner: &ObjectRef, from: &JWT) -> v1::Jwt {
    let mut providers = Vec::with_capacity(from.providers.len());
    for (i, from) in from.providers.iter().enumerate() {
        providers.push(provider(reader, owner, from, &format!("jwt.providers[{i}]")));
    }
    v1::Jwt {
        providers,
        optional: from.optional.unwrap_or_default(),
        fail_open: from.fail_open.unwrap_or_default(),
    }
}

fn provider(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &JWTProvider,
    field: &str,
) -> v1::JwtProvider {
    let keys = match (&from.local_jwks, &from.remote_jwks) {
        (Some(local), None) => self::local(reader, owner, local, &from.name, field).map(Keys::Local),
        (None, Some(remote)) => self::remote(reader, owner, remote, &from.name, field).map(Keys::Remote),
        _ => {
            reader.fault(field, "exactly one of localJWKS and remoteJWKS must be set");
            None
        }
    };
    let mut claims_to_headers = Vec::with_capacity(from.claim_to_headers.len());
    for claim in &from.claim_to_headers {
        claims_to_headers.push(v1::ClaimToHeader {
            header: reader.header(&claim.header, format_args!("{field}.claimToHeaders")),
            claim: claim.claim.clone(),
        });
    }
    v1::JwtProvider {
        name: from.name.clone(),
        issuer: from.issuer.clone().unwrap_or_default(),
        audiences: from.audiences.clone(),
        keys,
        sources: sources(reader, from.extract_from.as_ref(), field),
        claims_to_headers,
        recompute_route: from.recompute_route.unwrap_or_default(),
    }
}

fn sources(
    reader: &mut Reader<'_, '_, '_>,
    from: Option<&JWTExtractor>,
    field: &str,
) -> Vec<v1::ValueSource> {
    let mut sources = Vec::new();
    for header in from.map(|from| from.headers.as_slice()).unwrap_or_default() {
        let name = reader.header(&header.name, format_args!("{field}.extractFrom.headers"));
        let prefix = header.value_prefix.clone().unwrap_or_default();
        sources.push(Source::Header(Header { name, prefix }));
    }
    if let Some(from) = from {
        sources.extend(from.params.iter().cloned().map(Source::Query));
        sources.extend(from.cookies.iter().cloned().map(Source::Cookie));
    }
    if sources.is_empty() {
        sources.push(Source::Header(Header {
            name: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        }));
        sources.push(Source::Query("access_token".to_owned()));
    }
    sources
        .into_iter()
        .map(|source| v1::ValueSource { source: Some(source) })
        .collect()
}

fn local(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &LocalJWKS,
    provider: &str,
    field: &str,
) -> Option<v1::SecretEntry> {
    match from.type_.as_ref().unwrap_or(&LocalJWKSType::Inline) {
        LocalJWKSType::Inline => {
            let Some(keys) = &from.inline else {
                reader.fault(format_args!("{field}.localJWKS.inline"), "type Inline needs it");
                return None;
            };
            let entries = [(JWKS.to_owned(), keys.clone().into_bytes())].into();
            let data = v1::secret::Body::Data(v1::SecretData { entries });
            let name = format!("{}/{}/{provider}", owner.namespace, owner.name);
            let secret = Body::Secret(v1::Secret { body: Some(data) });
            Some(v1::SecretEntry {
                secret: reader.resource("secret/inline", &name, secret),
                entry: JWKS.to_owned(),
            })
        }
        LocalJWKSType::ValueRef => {
            let field = format!("{field}.localJWKS.valueRef");
            let Some(reference) = &from.value_ref else {
                reader.fault(field, "type ValueRef needs it");
                return None;
            };
            let data = reader.local(owner, reference, &field);
            reader.entry(data, JWKS, true, &field)
        }
        LocalJWKSType::Other(other) => {
            reader.fault(
                format_args!("{field}.localJWKS.type"),
                format_args!("{other:?} is not known"),
            );
            None
        }
    }
}

fn remote(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &RemoteJWKS,
    provider: &str,
    field: &str,
) -> Option<v1::RemoteJwks> {
    let field = format!("{field}.remoteJWKS");
    let uri = from.uri.parse::<Uri>().ok();
    let parts = uri.as_ref().and_then(|uri| {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some((https, authority, path))
    });
    let Some((https, authority, path)) = parts else {
        reader.fault(
            format_args!("{field}.uri"),
            format_args!("{:?} is not a URL of HTTP", from.uri),
        );
        return None;
    };
    let named = from.cluster.backend_ref.is_some() || !from.cluster.backend_refs.is_empty();
    let backend = if named {
        reader.backend(owner, &from.cluster, BackendUsage::Http, &field)?
    } else {
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let name = format!("{}/{}/{provider}", owner.namespace, owner.name);
        reader.host(&name, (authority.host(), port, https), &from.cluster, &field)
    };
    Some(v1::RemoteJwks {
        backend,
        host: authority.to_string(),
        path: path.to_owned(),
        cache_ms: from.cache_duration.map(millis).unwrap_or_default(),
        failed_refetch_ms: from.failed_refetch_duration.map(millis).unwrap_or_default(),
        timeout_ms: destination::timeout(&from.cluster).unwrap_or_default(),
    })
}

/// Whether there is a provider of this name, for authorization rules.
pub fn has_provider(from: Option<&JWT>, name: &str) -> bool {
    from.is_some_and(|jwt| jwt.providers.iter().any(|provider| provider.name == name))
}
