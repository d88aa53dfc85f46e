//! ClientTrafficPolicy: what it comes to for a listener.

mod tls;

pub use tls::common as tls_parameters;

use sluice_config::v1;
use sluice_config::v1::client_headers::{CertDetail, ForwardedClientCert, RequestId, Underscores};
use sluice_config::v1::client_ip_detection::{CustomHeader, Networks, Source};
use sluice_config::v1::client_path::EscapedSlashes;
use sluice_config::v1::resource::Body;
use sluice_crds::envoy::{
    ClientConnection, ClientIPDetectionSettings, ClientTimeout, ClientTrafficPolicy, ClientTrafficPolicySpec,
    HTTP1Settings, HeaderFilter, HeaderSettings, PathEscapedSlashAction, PathSettings, RequestIDAction,
    SchemeHeaderTransform, TLSVersion, WithUnderscoresAction, XFCCCertData, XFCCForwardMode,
};

use super::reader::Reader;
use super::reader::string_match;
use super::traffic::bytes;
use super::{cluster, gaps, response};
use crate::engine::Unit;
use crate::engine::View;
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::model::RoutingType;
use crate::translate::route::{Context, millis};

/// What a policy comes to for a listener.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientPolicy {
    /// How clients are treated.
    pub settings: v1::ClientSettings,
    /// Versions, ciphers and so on, if it speaks of TLS.
    pub tls: Option<v1::TlsParameters>,
    /// What of client certificates is demanded, if it speaks of that.
    pub validation: Option<v1::ClientValidation>,
    /// Units that this needs.
    pub needs: Vec<Unit>,
    /// Resources that go with it.
    pub resources: Vec<(String, Body)>,
    /// Why it cannot be honoured.
    pub faults: Vec<Fault>,
    /// What of it has no effect.
    pub warnings: Vec<String>,
}

/// What the policy comes to for the listener with this key and hostname.
pub fn translate(
    view: &View<'_>,
    policy: &ClientTrafficPolicy,
    listener: &str,
    hostname: Option<&str>,
) -> ClientPolicy {
    let owner = ObjectRef::of(policy);
    let context = Context::new(view, &owner, RoutingType::default(), None);
    let mut reader = Reader::new(&context, listener.to_owned());
    let spec = &gaps::honoured(&mut reader, Kind::ClientTrafficPolicy, &policy.spec);
    let settings = settings(&mut reader, spec, hostname);
    let tls = spec.tls.as_ref().map(|tls| tls::parameters(&mut reader, tls));
    let validation = spec
        .tls
        .as_ref()
        .and_then(|tls| tls.client_validation.as_ref())
        .map(|from| tls::validation(&mut reader, &owner, from));
    ClientPolicy {
        settings,
        tls,
        validation,
        needs: reader.needs,
        resources: reader.resources,
        faults: reader.faults,
        warnings: reader.warnings,
    }
}

fn settings(
    reader: &mut Reader<'_, '_, '_>,
    spec: &ClientTrafficPolicySpec,
    hostname: Option<&str>,
) -> v1::ClientSettings {
    let proxy_protocol = match (&spec.proxy_protocol, spec.enable_proxy_protocol) {
        (Some(from), _) => Some(v1::ClientProxyProtocol {
            optional: from.optional.unwrap_or_default(),
        }),
        (None, Some(true)) => Some(v1::ClientProxyProtocol::default()),
        _ => None,
    };
    v1::ClientSettings {
        ip_detection: spec
            .client_ip_detection
            .as_ref()
            .and_then(|from| ip_detection(reader, from)),
        headers: spec.headers.as_ref().map(|from| headers(reader, from)),
        path: spec.path.as_ref().map(|from| path(reader, from)),
        timeouts: spec.timeout.as_ref().map(timeouts),
        connections: spec.connection.as_ref().map(|from| connections(reader, from)),
        http1: spec.http1.as_ref().map(|from| http1(reader, from, hostname)),
        http2: spec.http2.as_ref().map(|from| cluster::http2(reader, from)),
        proxy_protocol,
        tcp_keepalive: spec
            .tcp_keepalive
            .as_ref()
            .map(|from| cluster::keepalive(reader, from, "tcpKeepalive")),
        health_check_path: spec
            .health_check
            .as_ref()
            .map(|check| check.path.clone())
            .unwrap_or_default(),
        scheme_matches_backend: spec.scheme == Some(SchemeHeaderTransform::MatchBackend),
        http3: http3(reader, spec),
        grpc_web: spec
            .grpc
            .as_ref()
            .is_some_and(|grpc| grpc.enable_web == Some(true)),
    }
}

/// Whether HTTP/3 is asked for, and TLS allows it.
pub fn asks_for_http3(spec: &ClientTrafficPolicySpec) -> bool {
    let highest = spec
        .tls
        .as_ref()
        .and_then(|tls| tls.settings.max_version.as_ref());
    let has_13 = matches!(highest, None | Some(TLSVersion::Auto | TLSVersion::V13));
    spec.http3.is_some() && has_13
}

fn http3(reader: &mut Reader<'_, '_, '_>, spec: &ClientTrafficPolicySpec) -> bool {
    let asks = asks_for_http3(spec);
    if spec.http3.is_some() && !asks {
        reader
            .warnings
            .push("http3: it needs TLS 1.3, see tls.maxVersion".to_owned());
    }
    asks
}

fn http1(reader: &mut Reader<'_, '_, '_>, from: &HTTP1Settings, hostname: Option<&str>) -> v1::ClientHttp1 {
    let default_host = from
        .http10
        .as_ref()
        .is_some_and(|old| old.use_default_host == Some(true));
    let host = hostname.filter(|host| default_host && !host.starts_with('*'));
    let mut ignored_upgrades = Vec::new();
    for name in &from.ignored_upgrade_types {
        ignored_upgrades.push(string_match(reader, name, "http1.ignoredUpgradeTypes"));
    }
    v1::ClientHttp1 {
        http10: from.http10.is_some(),
        http10_default_host: host.unwrap_or_default().to_owned(),
        trailers: from.enable_trailers.unwrap_or_default(),
        preserve_header_case: from.preserve_header_case.unwrap_or_default(),
        close_when_aged: from.disable_safe_max_connection_duration.unwrap_or_default(),
        ignored_upgrades,
    }
}

fn ip_detection(
    reader: &mut Reader<'_, '_, '_>,
    from: &ClientIPDetectionSettings,
) -> Option<v1::ClientIpDetection> {
    let field = "clientIPDetection";
    let source = match (&from.x_forwarded_for, &from.custom_header, &from.direct_source_ip) {
        (Some(xff), None, None) if !xff.trusted_cidrs.is_empty() => {
            let mut cidrs = Vec::new();
            for cidr in &xff.trusted_cidrs {
                cidrs.push(reader.cidr(cidr, "clientIPDetection.xForwardedFor.trustedCIDRs"));
            }
            Source::TrustedNetworks(Networks { cidrs })
        }
        (Some(xff), None, None) => {
            let hops = xff.num_trusted_hops.unwrap_or_default();
            Source::TrustedHops(reader.number(hops, "clientIPDetection.xForwardedFor.numTrustedHops"))
        }
        (None, Some(header), None) => Source::Header(CustomHeader {
            name: reader.header(&header.name, "clientIPDetection.customHeader.name"),
            fail_closed: header.fail_closed.unwrap_or_default(),
        }),
        (None, None, Some(_)) => Source::TrustedHops(0),
        _ => {
            let why = "exactly one of xForwardedFor, customHeader and directSourceIP must be set";
            reader.fault(field, why);
            return None;
        }
    };
    let xff = from.x_forwarded_for.as_ref();
    Some(v1::ClientIpDetection {
        source: Some(source),
        no_forwarded_for_append: xff.is_some_and(|xff| xff.disable_x_forwarded_for_append == Some(true)),
    })
}

fn headers(reader: &mut Reader<'_, '_, '_>, from: &HeaderSettings) -> v1::ClientHeaders {
    let underscores = match &from.with_underscores_action {
        None | Some(WithUnderscoresAction::RejectRequest) => Underscores::Reject,
        Some(WithUnderscoresAction::Allow) => Underscores::Allow,
        Some(WithUnderscoresAction::DropHeader) => Underscores::Drop,
        Some(WithUnderscoresAction::Other(other)) => {
            reader.fault(
                "headers.withUnderscoresAction",
                format_args!("{other:?} is not known"),
            );
            Underscores::Reject
        }
    };
    let request_id = match (&from.request_id, from.preserve_x_request_id) {
        (Some(RequestIDAction::PreserveOrGenerate), _) | (None, Some(true)) => RequestId::PreserveOrGenerate,
        (Some(RequestIDAction::Preserve), _) => RequestId::Preserve,
        (Some(RequestIDAction::Generate), _) => RequestId::Generate,
        (Some(RequestIDAction::Disable), _) => RequestId::Disable,
        (Some(RequestIDAction::Other(other)), _) => {
            reader.fault("headers.requestID", format_args!("{other:?} is not known"));
            RequestId::Unspecified
        }
        (None, _) => RequestId::Unspecified,
    };
    let certificate = from.x_forwarded_client_cert.clone().unwrap_or_default();
    let mode = match &certificate.mode {
        None | Some(XFCCForwardMode::Sanitize) => ForwardedClientCert::Sanitize,
        Some(XFCCForwardMode::ForwardOnly) => ForwardedClientCert::ForwardOnly,
        Some(XFCCForwardMode::AppendForward) => ForwardedClientCert::AppendForward,
        Some(XFCCForwardMode::SanitizeSet) => ForwardedClientCert::SanitizeSet,
        Some(XFCCForwardMode::AlwaysForwardOnly) => ForwardedClientCert::AlwaysForwardOnly,
        Some(XFCCForwardMode::Other(other)) => {
            reader.fault(
                "headers.xForwardedClientCert.mode",
                format_args!("{other:?} is not known"),
            );
            ForwardedClientCert::Sanitize
        }
    };
    let detail = |detail: &XFCCCertData| match detail {
        XFCCCertData::Subject => Some(CertDetail::Subject),
        XFCCCertData::Cert => Some(CertDetail::Cert),
        XFCCCertData::Chain => Some(CertDetail::Chain),
        XFCCCertData::Dns => Some(CertDetail::Dns),
        XFCCCertData::Uri => Some(CertDetail::Uri),
        XFCCCertData::Other(_) => None,
    };
    v1::ClientHeaders {
        underscores: underscores.into(),
        request_id: request_id.into(),
        envoy_headers: from.enable_envoy_headers.unwrap_or_default(),
        no_rate_limit_headers: from.disable_rate_limit_headers.unwrap_or_default(),
        forwarded_client_cert: mode.into(),
        cert_details: certificate
            .cert_details_to_add
            .iter()
            .filter_map(detail)
            .map(i32::from)
            .collect(),
        early_request: from
            .early_request_headers
            .as_ref()
            .map(|from| modifier(reader, from, "headers.earlyRequestHeaders")),
        late_response: from
            .late_response_headers
            .as_ref()
            .map(|from| modifier(reader, from, "headers.lateResponseHeaders")),
        strip_trailing_host_dot: from
            .host
            .as_ref()
            .is_some_and(|host| host.strip_trailing_host_dot == Some(true)),
    }
}

fn modifier(reader: &mut Reader<'_, '_, '_>, from: &HeaderFilter, field: &str) -> v1::HeaderModifier {
    let plain = |set: &[_], add: &[_], remove: &[String]| sluice_crds::gateway::HTTPHeaderFilter {
        set: set.to_vec(),
        add: add.to_vec(),
        remove: remove.to_vec(),
    };
    let absent = response::modifier(reader, &plain(&from.add_if_absent, &[], &[]), field);
    let mut remove_on_match = Vec::new();
    for from in &from.remove_on_match {
        remove_on_match.push(string_match(reader, from, field));
    }
    v1::HeaderModifier {
        add_if_absent: absent.set,
        remove_on_match,
        ..response::modifier(reader, &plain(&from.set, &from.add, &from.remove), field)
    }
}

fn path(reader: &mut Reader<'_, '_, '_>, from: &PathSettings) -> v1::ClientPath {
    let escaped = match &from.escaped_slashes_action {
        None => EscapedSlashes::Unspecified,
        Some(PathEscapedSlashAction::KeepUnchanged) => EscapedSlashes::Keep,
        Some(PathEscapedSlashAction::RejectRequest) => EscapedSlashes::Reject,
        Some(PathEscapedSlashAction::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
        Some(PathEscapedSlashAction::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Some(PathEscapedSlashAction::Other(other)) => {
            reader.fault(
                "path.escapedSlashesAction",
                format_args!("{other:?} is not known"),
            );
            EscapedSlashes::Reject
        }
    };
    v1::ClientPath {
        escaped_slashes: escaped.into(),
        keep_adjacent_slashes: from.disable_merge_slashes.unwrap_or_default(),
    }
}

fn timeouts(from: &ClientTimeout) -> v1::ClientTimeouts {
    let http = from.http.clone().unwrap_or_default();
    let tcp = from.tcp.clone().unwrap_or_default();
    v1::ClientTimeouts {
        tcp_idle_ms: tcp.idle_timeout.map(millis),
        http_idle_ms: http.idle_timeout.map(millis),
        request_received_ms: http.request_received_timeout.map(millis),
        stream_idle_ms: http.stream_idle_timeout.map(millis),
        request_headers_received_ms: http.request_headers_received_timeout.map(millis),
        tls_handshake_ms: tcp.tls_handshake_timeout.map(millis),
        inspection_ms: tcp.connection_inspection_timeout.map(millis),
    }
}

fn connections(reader: &mut Reader<'_, '_, '_>, from: &ClientConnection) -> v1::ClientConnections {
    let limit = from.connection_limit.clone().unwrap_or_default();
    let requests = limit.max_requests_per_connection.unwrap_or_default();
    v1::ClientConnections {
        max_connections: limit
            .value
            .map(|value| u64::try_from(value).unwrap_or_default())
            .unwrap_or_default(),
        close_delay_ms: limit.close_delay.map(millis).unwrap_or_default(),
        buffer_limit_bytes: from
            .buffer_limit
            .as_ref()
            .map(|limit| bytes(reader, limit, "connection.bufferLimit"))
            .unwrap_or_default(),
        max_accept_per_event: from
            .max_accept_per_socket_event
            .map(|count| reader.number(count, "connection.maxAcceptPerSocketEvent"))
            .unwrap_or_default(),
        max_connection_duration_ms: limit.max_connection_duration.map(millis).unwrap_or_default(),
        max_requests_per_connection: u64::try_from(requests).unwrap_or_default(),
        max_stream_duration_ms: limit.max_stream_duration.map(millis).unwrap_or_default(),
        socket_buffer_bytes: from
            .socket_buffer_limit
            .as_ref()
            .map(|limit| bytes(reader, limit, "connection.socketBufferLimit"))
            .unwrap_or_default(),
    }
}
