//! External authorization as SecurityPolicies ask for it.

use sluice_config::v1;
use sluice_config::v1::context_extension::Source;
use sluice_config::v1::external_auth::Protocol;
use sluice_crds::envoy::{ContextExtension, ContextExtensionValueType, ExtAuth};

use super::destination;
use super::reader::Reader;
use crate::engine::BackendUsage;
use crate::store::ObjectRef;
use crate::translate::route::millis;

/// `extAuth`; `None`, with a note of why, if nobody can be asked.
pub fn translate(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &ExtAuth,
) -> Option<v1::ExternalAuth> {
    let (protocol, cluster, usage, field) = match (&from.grpc, &from.http) {
        (Some(grpc), None) => (Protocol::Grpc, &grpc.cluster, BackendUsage::Grpc, "extAuth.grpc"),
        (None, Some(http)) => (Protocol::Http, &http.cluster, BackendUsage::Http, "extAuth.http"),
        _ => {
            reader.fault("extAuth", "exactly one of grpc and http must be set");
            return None;
        }
    };
    let backend = reader.backend(owner, cluster, usage, field);
    let bounds = [from.timeout.map(millis), destination::timeout(cluster)];
    let http = from.http.as_ref();
    let path = http.and_then(|http| http.path.as_deref()).unwrap_or_default();
    let path_override = http
        .and_then(|http| http.path_override.clone())
        .unwrap_or_default();
    let mut allowed = Vec::new();
    for name in &from.headers_to_ext_auth {
        allowed.push(reader.header(name, "extAuth.headersToExtAuth"));
    }
    let mut copied = Vec::new();
    for name in http
        .map(|http| http.headers_to_backend.as_slice())
        .unwrap_or_default()
    {
        copied.push(reader.header(name, "extAuth.http.headersToBackend"));
    }
    let body = from.body_to_ext_auth.as_ref();
    let mut context_extensions = Vec::new();
    for (i, extension) in from.context_extensions.iter().enumerate() {
        context_extensions.extend(context_extension(reader, owner, extension, i));
    }
    Some(v1::ExternalAuth {
        protocol: protocol.into(),
        backend: backend?,
        allowed_request_headers: allowed,
        path: prefix(path),
        allowed_response_headers: copied,
        max_body_bytes: body
            .map(|body| reader.number(body.max_request_bytes, "extAuth.bodyToExtAuth.maxRequestBytes"))
            .unwrap_or_default(),
        path_override,
        only_allowed_response_headers: true,
        timeout_ms: bounds.into_iter().flatten().min().unwrap_or_default(),
        fail_open: from.fail_open.unwrap_or_default(),
        status_on_error: from
            .status_on_error
            .map(|status| reader.number(status, "extAuth.statusOnError"))
            .unwrap_or_default(),
        recompute_route: from.recompute_route.unwrap_or_default(),
        context_extensions,
        include_route_metadata: from.include_route_metadata.unwrap_or_default(),
    })
}

fn prefix(path: &str) -> String {
    match path.trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}

fn context_extension(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &ContextExtension,
    index: usize,
) -> Option<v1::ContextExtension> {
    let field = format!("extAuth.contextExtensions[{index}]");
    let source = match (&from.type_, &from.value, &from.value_ref) {
        (ContextExtensionValueType::Value, Some(value), _) => Source::Value(value.clone()),
        (ContextExtensionValueType::ValueRef, _, Some(reference)) => {
            let data = reader.local(owner, &reference.object, &field);
            Source::Secret(reader.entry(data, &reference.key, false, &field)?)
        }
        (kind, ..) => {
            reader.fault(field, format_args!("type {kind} without its value"));
            return None;
        }
    };
    Some(v1::ContextExtension {
        name: from.name.clone(),
        source: Some(source),
    })
}
