//! Responses of the proxy's own, in the place of others or of a backend's.

use sluice_config::v1;
use sluice_config::v1::response_override::{Action, Source};
use sluice_crds::envoy::{
    CustomRedirect, CustomResponse, CustomResponseBody, HTTPDirectResponseFilter, ResponseOverride,
    ResponseOverrideSource, ResponseValueType, StatusCodeMatch, StatusCodeValueType,
};
use sluice_crds::gateway::{HTTPHeaderFilter, HTTPPathModifierType};

use super::reader::{Reader, string_match};
use crate::store::ObjectRef;

/// Most bytes that a body may have.
const BODY: usize = 1 << 20;
/// The entry with a body.
const ENTRY: &str = "response.body";

/// `responseOverride`.
pub fn overrides(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &[ResponseOverride],
) -> Vec<v1::ResponseOverride> {
    let mut all = Vec::with_capacity(from.len());
    for (i, from) in from.iter().enumerate() {
        let field = format!("responseOverride[{i}]");
        let mut statuses = Vec::new();
        for status in &from.match_.status_codes {
            statuses.extend(range(reader, status, &format!("{field}.match.statusCodes")));
        }
        let mut headers = Vec::new();
        for header in &from.match_.response_headers {
            let field = format!("{field}.match.responseHeaders");
            headers.push(v1::ResponseHeader {
                name: reader.header(&header.name, &field),
                value: Some(string_match(reader, &header.value, &field)),
            });
        }
        if statuses.is_empty() && headers.is_empty() {
            reader.fault(format_args!("{field}.match"), "it matches nothing");
        }
        let source = match from.source.as_ref().unwrap_or(&ResponseOverrideSource::All) {
            ResponseOverrideSource::All => Source::Unspecified,
            ResponseOverrideSource::Local => Source::Local,
            ResponseOverrideSource::Backend => Source::Backend,
            ResponseOverrideSource::Other(other) => {
                reader.fault(
                    format_args!("{field}.source"),
                    format_args!("{other:?} is not known"),
                );
                Source::Unspecified
            }
        };
        let action = match (&from.response, &from.redirect) {
            (Some(response), None) => {
                Action::Response(custom(reader, owner, response, &format!("{field}.response")))
            }
            (None, Some(redirect)) => {
                Action::Redirect(self::redirect(reader, redirect, &format!("{field}.redirect")))
            }
            _ => {
                reader.fault(field, "exactly one of response and redirect must be set");
                continue;
            }
        };
        all.push(v1::ResponseOverride {
            statuses,
            headers,
            source: source.into(),
            action: Some(action),
        });
    }
    all
}

/// `directResponse` of an HTTPRouteFilter.
pub fn direct(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &HTTPDirectResponseFilter,
) -> v1::DirectResponse {
    let custom = custom(reader, owner, from, "directResponse");
    v1::DirectResponse {
        status: if custom.status == 0 { 200 } else { custom.status },
        content_type: custom.content_type,
        body: custom.body.unwrap_or_default(),
        headers: custom.headers,
    }
}

fn range(reader: &mut Reader<'_, '_, '_>, from: &StatusCodeMatch, field: &str) -> Option<v1::StatusRange> {
    let (first, last) = match (from.type_.as_ref(), from.value, &from.range) {
        (None | Some(StatusCodeValueType::Value), Some(value), _) => (value, value),
        (Some(StatusCodeValueType::Range), _, Some(range)) => (range.start, range.end),
        _ => {
            reader.fault(field, "the type's own field must be set");
            return None;
        }
    };
    Some(v1::StatusRange {
        first: reader.number(first, field),
        last: reader.number(last, field),
    })
}

fn custom(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &CustomResponse,
    field: &str,
) -> v1::CustomResponse {
    v1::CustomResponse {
        status: from
            .status_code
            .map(|status| reader.number(status, format_args!("{field}.statusCode")))
            .unwrap_or_default(),
        content_type: from.content_type.clone().unwrap_or_default(),
        body: from
            .body
            .as_ref()
            .and_then(|body| self::body(reader, owner, body, &format!("{field}.body"))),
        headers: from
            .header
            .as_ref()
            .map(|header| modifier(reader, header, &format!("{field}.header"))),
    }
}

fn body(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &CustomResponseBody,
    field: &str,
) -> Option<Vec<u8>> {
    let body = match (from.type_.as_ref(), &from.inline, &from.value_ref) {
        (None | Some(ResponseValueType::Inline), Some(text), _) => text.clone().into_bytes(),
        (Some(ResponseValueType::ValueRef), _, Some(reference)) => {
            if reference.kind != "ConfigMap" {
                // Bodies are no secret, and stand in the route.
                reader.fault(field, format_args!("{} is not a ConfigMap", reference.kind));
                return None;
            }
            let needed = reader.needs.len();
            let data = reader.local(owner, reference, field);
            reader.needs.truncate(needed);
            let mut entries = data?.entries;
            let body = entries.remove(ENTRY).or_else(|| entries.into_values().next());
            if body.is_none() {
                reader.fault(field, format_args!("ConfigMap {} is empty", reference.name));
            }
            body?
        }
        _ => {
            reader.fault(field, "the type's own field must be set");
            return None;
        }
    };
    if body.len() > BODY {
        reader.fault(field, format_args!("it has more than {BODY} bytes"));
        return None;
    }
    Some(body)
}

/// Changes of headers.
pub fn modifier(reader: &mut Reader<'_, '_, '_>, from: &HTTPHeaderFilter, field: &str) -> v1::HeaderModifier {
    let mut headers = |list: &[sluice_crds::gateway::HTTPHeader]| {
        let mut all = Vec::with_capacity(list.len());
        for header in list {
            reader.header(&header.name, field);
            if http::HeaderValue::from_str(&header.value).is_err() {
                reader.fault(
                    field,
                    format_args!("{:?} is not a value that a header can have", header.value),
                );
            }
            all.push(v1::Header {
                name: header.name.clone(),
                value: header.value.clone(),
            });
        }
        all
    };
    v1::HeaderModifier {
        set: headers(&from.set),
        add: headers(&from.add),
        remove: from.remove.clone(),
        ..v1::HeaderModifier::default()
    }
}

fn redirect(reader: &mut Reader<'_, '_, '_>, from: &CustomRedirect, field: &str) -> v1::Redirect {
    let path = from.path.as_ref().and_then(|path| {
        if path.type_ != HTTPPathModifierType::ReplaceFullPath {
            let field = format!("{field}.path");
            reader.fault(field, "only ReplaceFullPath is possible here");
            return None;
        }
        let path = path.replace_full_path.clone().unwrap_or_default();
        Some(v1::PathModifier {
            modifier: Some(v1::path_modifier::Modifier::ReplaceFullPath(path)),
        })
    });
    v1::Redirect {
        scheme: from.scheme.clone().unwrap_or_default(),
        hostname: from.hostname.clone().unwrap_or_default(),
        path,
        port: from
            .port
            .map(|port| reader.number(port, format_args!("{field}.port")))
            .unwrap_or_default(),
        status: reader.number(
            from.status_code.unwrap_or(302),
            format_args!("{field}.statusCode"),
        ),
    }
}
