//! External authorization, of rules and of listeners.

use std::fmt;

use sluice_config::v1;
use sluice_config::v1::filter;
use sluice_crds::gateway::{HTTPExternalAuthFilter, HTTPRouteExternalAuthProtocol};

use super::{UNRESOLVED, headers};
use crate::engine::BackendUsage;
use crate::translate::fault::Fault;
use crate::translate::route::Context;

/// External authorization; an error for every request if whoever decides cannot be asked: this filter fails closed.
pub fn translate(
    context: &mut Context<'_, '_>,
    from: &HTTPExternalAuthFilter,
    field: fmt::Arguments<'_>,
) -> Result<filter::Filter, Fault> {
    let (protocol, usage) = match &from.protocol {
        HTTPRouteExternalAuthProtocol::Grpc => (v1::external_auth::Protocol::Grpc, BackendUsage::Grpc),
        HTTPRouteExternalAuthProtocol::Http => (v1::external_auth::Protocol::Http, BackendUsage::Http),
        HTTPRouteExternalAuthProtocol::Other(protocol) => {
            let why = format_args!("{protocol:?} is not a protocol of authorization services");
            return Err(Fault::unsupported(format_args!("{field}.protocol"), why));
        }
    };
    let Some(backend) = context.backend(&from.backend_ref, usage, format_args!("{field}.backendRef")) else {
        return Ok(filter::Filter::FixedResponse(v1::FixedResponse {
            status: UNRESOLVED,
        }));
    };
    let http = from.http.clone().unwrap_or_default();
    let allowed = match protocol {
        v1::external_auth::Protocol::Grpc => from.grpc.clone().unwrap_or_default().allowed_headers,
        _ => http.allowed_headers,
    };
    headers::check_names(&allowed, field)?;
    headers::check_names(
        &http.allowed_response_headers,
        format_args!("{field}.http.allowedResponseHeaders"),
    )?;
    Ok(filter::Filter::ExternalAuth(v1::ExternalAuth {
        protocol: protocol.into(),
        backend,
        allowed_request_headers: lower_case(&allowed),
        path: path_prefix(http.path.as_deref(), format_args!("{field}.http.path"))?,
        allowed_response_headers: lower_case(&http.allowed_response_headers),
        max_body_bytes: from
            .forward_body
            .and_then(|body| u32::try_from(body.max_size?).ok())
            .unwrap_or_default(),
        ..v1::ExternalAuth::default()
    }))
}

/// A prefix that can be put before a path, without a slash at its end.
fn path_prefix(path: Option<&str>, field: fmt::Arguments<'_>) -> Result<String, Fault> {
    let path = path.unwrap_or_default().trim_end_matches('/');
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    if path.is_empty() {
        Ok(String::new())
    } else if path.bytes().all(allowed) && !path.split('/').any(|part| matches!(part, "." | "..")) {
        // The API's pattern does not ask for the slash at the front.
        Ok(format!("/{}", path.trim_start_matches('/')))
    } else {
        Err(Fault::unsupported(field, format_args!("{path:?} is not a path")))
    }
}

fn lower_case(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}
