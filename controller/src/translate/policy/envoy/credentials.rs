//! API keys and passwords. None of them gets into a message or a route: proxies find them in Secrets by key.

use sluice_config::v1;
use sluice_config::v1::value_source::{Header, Source};
use sluice_crds::envoy::{APIKeyAuth, BasicAuth};

use super::reader::Reader;
use crate::store::ObjectRef;

/// Where Envoy Gateway has the users of a Secret.
const USERS: &str = ".htpasswd";

/// `apiKeyAuth`.
pub fn api_keys(reader: &mut Reader<'_, '_, '_>, owner: &ObjectRef, from: &APIKeyAuth) -> v1::ApiKeyAuth {
    let mut secrets = Vec::new();
    for (i, reference) in from.credential_refs.iter().enumerate() {
        let data = reader.secret(owner, reference, &format!("apiKeyAuth.credentialRefs[{i}]"));
        secrets.extend(data.map(|data| data.key));
    }
    let mut sources = Vec::new();
    for (i, from) in from.extract_from.iter().enumerate() {
        for name in &from.headers {
            let name = reader.header(name, format_args!("apiKeyAuth.extractFrom[{i}].headers"));
            sources.push(Source::Header(Header {
                name,
                prefix: String::new(),
            }));
        }
        sources.extend(from.params.iter().cloned().map(Source::Query));
        sources.extend(from.cookies.iter().cloned().map(Source::Cookie));
    }
    if sources.is_empty() {
        reader.fault("apiKeyAuth.extractFrom", "it says nowhere to look for the key");
    }
    let forward = from.forward_client_id_header.as_deref();
    v1::ApiKeyAuth {
        credential_secrets: secrets,
        sources: sources
            .into_iter()
            .map(|source| v1::ValueSource { source: Some(source) })
            .collect(),
        forward_client_id_header: forward
            .map(|name| reader.header(name, "apiKeyAuth.forwardClientIDHeader"))
            .unwrap_or_default(),
        sanitize: from.sanitize.unwrap_or_default(),
    }
}

/// `basicAuth`.
pub fn basic(reader: &mut Reader<'_, '_, '_>, owner: &ObjectRef, from: &BasicAuth) -> v1::BasicAuth {
    let field = "basicAuth.users";
    let data = reader.secret(owner, &from.users, field);
    let forward = from.forward_username_header.as_deref();
    v1::BasicAuth {
        users: reader.entry(data, USERS, false, field),
        forward_username_header: forward
            .map(|name| reader.header(name, "basicAuth.forwardUsernameHeader"))
            .unwrap_or_default(),
    }
}
