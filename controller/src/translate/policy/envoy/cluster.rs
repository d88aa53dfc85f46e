//! What BackendTrafficPolicies say of connections to backends. Health checks are in `health`, what is rarer in `upstream`.

use sluice_config::v1;
use sluice_config::v1::consistent_hash::Input;
use sluice_config::v1::load_balancer::{Policy, PreferLocal};
use sluice_crds::envoy::{
    BackendTrafficPolicy, BackendTrafficPolicySpec, CircuitBreaker, ConsistentHash, ConsistentHashType,
    HTTP2Settings, InvalidMessageAction, LoadBalancer, LoadBalancerType, ProxyProtocolVersion, TCPKeepalive,
};

use super::reader::Reader;
use super::traffic::bytes;
use super::{attach, gaps, health, upstream};
use crate::engine::View;
use crate::store::{Kind, ObjectRef};
use crate::translate::model::{LookUp, RoutingType};
use crate::translate::route::{Context, millis};

/// Connections, requests and retries at once unless the policy says otherwise.
const AT_ONCE: i64 = 1024;
/// Percent by which intervals of pings vary unless the policy says otherwise, as in Envoy.
const PING_JITTER: i64 = 15;

/// Adds what these policies ask of a backend; says how its names are looked up, if they do. What is wrong with them is told
/// in their statuses, and their rules are answered with an error.
pub fn apply_policies(view: &View<'_>, policies: &[ObjectRef], backend: &mut v1::Backend) -> Option<LookUp> {
    let found = attach::chain::<BackendTrafficPolicy>(view, policies)?;
    let owner = policies.first()?;
    let context = Context::new(view, owner, RoutingType::default(), None);
    let mut reader = Reader::new(&context, String::new());
    let spec = gaps::honoured(&mut reader, Kind::BackendTrafficPolicy, &found.spec);
    let mut asked = backend.clone();
    let look_up = apply(&mut reader, &spec, &mut asked);
    // Half of what was asked for may be worse than nothing; requests do not get here anyway.
    if !reader.faults.is_empty() {
        return None;
    }
    *backend = asked;
    look_up
}

/// Adds what the policy asks of a backend; says how its names are looked up, if the policy does.
pub fn apply(
    reader: &mut Reader<'_, '_, '_>,
    spec: &BackendTrafficPolicySpec,
    backend: &mut v1::Backend,
) -> Option<LookUp> {
    let cluster = &spec.cluster;
    backend.load_balancer = cluster
        .load_balancer
        .as_ref()
        .and_then(|from| load_balancer(reader, from));
    backend.circuit_breaker = cluster
        .circuit_breaker
        .as_ref()
        .map(|from| circuit_breaker(reader, from));
    backend.health_check = cluster
        .health_check
        .as_ref()
        .map(|from| health::check(reader, from));
    if let Some(timeout) = &cluster.timeout {
        let tcp = timeout.tcp.as_ref();
        backend.connect_timeout_ms = tcp
            .and_then(|tcp| tcp.connect_timeout)
            .map(millis)
            .unwrap_or_default();
        backend.timeouts = timeout.http.as_ref().map(|http| v1::BackendTimeouts {
            idle_ms: http.connection_idle_timeout.map(millis).unwrap_or_default(),
            max_connection_duration_ms: http.max_connection_duration.map(millis).unwrap_or_default(),
        });
    }
    backend.tcp_keepalive = cluster
        .tcp_keepalive
        .as_ref()
        .map(|from| keepalive(reader, from, "tcpKeepalive"));
    backend.http2 = cluster.http2.as_ref().map(|from| http2(reader, from));
    if let Some(from) = &cluster.proxy_protocol {
        let version = match &from.version {
            ProxyProtocolVersion::V1 => v1::ProxyProtocolVersion::V1,
            ProxyProtocolVersion::V2 => v1::ProxyProtocolVersion::V2,
            ProxyProtocolVersion::Other(other) => {
                reader.fault("proxyProtocol.version", format_args!("{other:?} is not known"));
                v1::ProxyProtocolVersion::Unspecified
            }
        };
        backend.proxy_protocol = version.into();
    }
    backend.use_client_protocol = spec.use_client_protocol.unwrap_or_default();
    let limit = cluster.connection.as_ref().and_then(|c| c.buffer_limit.as_ref());
    if let Some(limit) = limit {
        backend.buffer_limit_bytes = bytes(reader, limit, "connection.bufferLimit");
    }
    let buffers = cluster
        .connection
        .as_ref()
        .and_then(|c| c.socket_buffer_limit.as_ref());
    if let Some(buffers) = buffers {
        backend.socket_buffer_bytes = bytes(reader, buffers, "connection.socketBufferLimit");
    }
    let preconnect = cluster.connection.as_ref().and_then(|c| c.preconnect.as_ref());
    let policy = backend.load_balancer.as_ref().map(v1::LoadBalancer::policy);
    backend.preconnect =
        preconnect.and_then(|from| upstream::preconnect(reader, from, policy.unwrap_or_default()));
    cluster.dns.as_ref().and_then(|from| upstream::dns(reader, from))
}

fn load_balancer(reader: &mut Reader<'_, '_, '_>, from: &LoadBalancer) -> Option<v1::LoadBalancer> {
    let policy = match &from.type_ {
        LoadBalancerType::LeastRequest => Policy::LeastRequest,
        LoadBalancerType::RoundRobin => Policy::RoundRobin,
        LoadBalancerType::Random => Policy::Random,
        LoadBalancerType::ConsistentHash => Policy::ConsistentHash,
        LoadBalancerType::BackendUtilization => Policy::BackendUtilization,
        // A gap, and noted as such.
        LoadBalancerType::DynamicModule => return None,
        LoadBalancerType::Other(other) => {
            reader.fault("loadBalancer.type", format_args!("{other:?} is not known"));
            return None;
        }
    };
    let consistent_hash = match (policy, &from.consistent_hash) {
        (Policy::ConsistentHash, Some(from)) => Some(hash(reader, from)),
        (Policy::ConsistentHash, None) => {
            reader.fault("loadBalancer.consistentHash", "type ConsistentHash needs it");
            None
        }
        _ => None,
    };
    let mut endpoint_override_headers = Vec::new();
    let sources = from.endpoint_override.as_ref().map(|o| o.extract_from.as_slice());
    for source in sources.unwrap_or_default() {
        if let Some(name) = &source.header {
            endpoint_override_headers.push(reader.header(name, "loadBalancer.endpointOverride.extractFrom"));
        }
    }
    let local = from
        .zone_aware
        .as_ref()
        .and_then(|zone| zone.prefer_local.as_ref());
    let utilization = from
        .backend_utilization
        .as_ref()
        .filter(|_| policy == Policy::BackendUtilization)
        .map(|from| upstream::utilization(reader, from));
    Some(v1::LoadBalancer {
        policy: policy.into(),
        consistent_hash,
        utilization,
        slow_start_ms: from
            .slow_start
            .as_ref()
            .and_then(|slow| slow.window)
            .map(millis)
            .unwrap_or_default(),
        prefer_local: local.map(|local| {
            let field = "loadBalancer.zoneAware.preferLocal";
            PreferLocal {
                min_endpoints: local
                    .min_endpoints_threshold
                    .map(|count| reader.number(count, format_args!("{field}.minEndpointsThreshold")))
                    .unwrap_or_default(),
                force_min_endpoints_in_zone: local.force.as_ref().map(|force| {
                    let count = force.min_endpoints_in_zone_threshold.unwrap_or(1);
                    reader.number(count, format_args!("{field}.force.minEndpointsInZoneThreshold"))
                }),
                percent: local
                    .percentage_enabled
                    .map(|percent| reader.number(percent, format_args!("{field}.percentageEnabled"))),
            }
        }),
        endpoint_override_headers,
        weighted_zones: from
            .zone_aware
            .iter()
            .flat_map(|zones| &zones.weighted_zones)
            .map(|zone| v1::load_balancer::ZoneWeight {
                zone: zone.zone.clone(),
                weight: reader.number(zone.weight, "loadBalancer.zoneAware.weightedZones[].weight"),
            })
            .collect(),
    })
}

fn hash(reader: &mut Reader<'_, '_, '_>, from: &ConsistentHash) -> v1::ConsistentHash {
    let field = "loadBalancer.consistentHash";
    let mut names = Vec::new();
    let input = match &from.type_ {
        ConsistentHashType::SourceIP => Input::SourceIp,
        ConsistentHashType::Header | ConsistentHashType::Headers => {
            for header in from.header.iter().chain(&from.headers) {
                names.push(reader.header(&header.name, field));
            }
            Input::Headers
        }
        ConsistentHashType::QueryParams => {
            names.extend(from.query_params.iter().map(|param| param.name.clone()));
            Input::QueryParams
        }
        ConsistentHashType::Cookie => {
            if from.cookie.is_none() {
                reader.fault(format_args!("{field}.cookie"), "type Cookie needs it");
            }
            Input::Cookie
        }
        ConsistentHashType::Other(other) => {
            reader.fault(
                format_args!("{field}.type"),
                format_args!("{other:?} is not known"),
            );
            Input::Unspecified
        }
    };
    if matches!(input, Input::Headers | Input::QueryParams) && names.is_empty() {
        reader.fault(field, "it names nothing to hash");
    }
    let cookie = from.cookie.as_ref().filter(|_| input == Input::Cookie);
    v1::ConsistentHash {
        input: input.into(),
        names,
        cookie: cookie.map(|cookie| v1::HashCookie {
            name: cookie.name.clone(),
            ttl_ms: cookie.ttl.map(millis),
            attributes: cookie
                .attributes
                .iter()
                .map(|(name, value)| v1::Header {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
        }),
        table_size: from
            .table_size
            .map(|size| reader.number(size, format_args!("{field}.tableSize")))
            .unwrap_or_default(),
    }
}

fn circuit_breaker(reader: &mut Reader<'_, '_, '_>, from: &CircuitBreaker) -> v1::CircuitBreaker {
    let mut bound = |value: Option<i64>, field: &str| {
        Some(reader.number(value.unwrap_or(AT_ONCE), format_args!("circuitBreaker.{field}")))
    };
    v1::CircuitBreaker {
        max_connections: bound(from.max_connections, "maxConnections"),
        max_pending_requests: bound(from.max_pending_requests, "maxPendingRequests"),
        max_parallel_requests: bound(from.max_parallel_requests, "maxParallelRequests"),
        max_parallel_retries: bound(from.max_parallel_retries, "maxParallelRetries"),
        max_connections_per_endpoint: from
            .per_endpoint
            .as_ref()
            .and_then(|each| bound(each.max_connections, "perEndpoint.maxConnections")),
        max_requests_per_connection: from
            .max_requests_per_connection
            .and_then(|count| bound(Some(count), "maxRequestsPerConnection"))
            .unwrap_or_default(),
        min_parallel_retries: from
            .retry_budget
            .as_ref()
            .and_then(|budget| bound(Some(budget.min_retry_concurrency.unwrap_or(3)), "retryBudget"))
            .unwrap_or_default(),
        retry_share: from.retry_budget.as_ref().map(|budget| {
            let denominator = u64::from(budget.percent.denominator.unwrap_or(100).max(1));
            let share = u64::from(budget.percent.numerator) * 1_000_000 / denominator;
            u32::try_from(share.min(1_000_000)).unwrap_or_default()
        }),
    }
}

/// Keepalive probes.
pub fn keepalive(reader: &mut Reader<'_, '_, '_>, from: &TCPKeepalive, field: &str) -> v1::TcpKeepalive {
    v1::TcpKeepalive {
        probes: from
            .probes
            .map(|probes| reader.number(probes, format_args!("{field}.probes")))
            .unwrap_or_default(),
        idle_ms: from.idle_time.map(millis).unwrap_or_default(),
        interval_ms: from.interval.map(millis).unwrap_or_default(),
    }
}

/// HTTP/2.
pub fn http2(reader: &mut Reader<'_, '_, '_>, from: &HTTP2Settings) -> v1::Http2Settings {
    let mut window = |size: Option<&sluice_crds::IntOrString>, field: &str| {
        let size = size.map(|size| bytes(reader, size, field)).unwrap_or_default();
        u32::try_from(size).unwrap_or(u32::MAX)
    };
    let (initial_stream_window, initial_connection_window) = (
        window(
            from.initial_stream_window_size.as_ref(),
            "http2.initialStreamWindowSize",
        ),
        window(
            from.initial_connection_window_size.as_ref(),
            "http2.initialConnectionWindowSize",
        ),
    );
    let keepalive = from.connection_keepalive.as_ref();
    let pings = keepalive.filter(|keepalive| keepalive.interval.is_some());
    v1::Http2Settings {
        initial_stream_window,
        initial_connection_window,
        max_concurrent_streams: from
            .max_concurrent_streams
            .map(|streams| reader.number(streams, "http2.maxConcurrentStreams"))
            .unwrap_or_default(),
        invalid_message_ends_stream: from.on_invalid_message == Some(InvalidMessageAction::TerminateStream),
        ping_interval_ms: keepalive
            .and_then(|keepalive| keepalive.interval)
            .map(millis)
            .unwrap_or_default(),
        ping_timeout_ms: keepalive
            .and_then(|keepalive| keepalive.timeout)
            .map(millis)
            .unwrap_or_default(),
        ping_jitter_percent: pings.map_or(0, |keepalive| {
            let percent = keepalive.interval_jitter.unwrap_or(PING_JITTER);
            reader.number(percent, "http2.connectionKeepalive.intervalJitter")
        }),
        ping_idle_ms: keepalive
            .and_then(|keepalive| keepalive.idle_interval)
            .map(millis)
            .unwrap_or_default(),
    }
}
