//! How values of command operators are written: addresses, times, flags, statuses of gRPC.

use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use super::entry::{Entry, civil, to_the_second};
use super::template::{Subject, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    UpstreamLocal,
    UpstreamRemote,
    DownstreamLocal,
    DownstreamRemote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Whole,
    Ip,
    Port,
}

/// How a gRPC status is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcForm {
    Camel,
    Snake,
    Number,
}

/// Envoy's long name of a flag.
pub fn long(flag: &str) -> &str {
    match flag {
        "DC" => "DownstreamConnectionTermination",
        "DF" => "DnsResolutionFailed",
        "DPE" => "DownstreamProtocolError",
        "FI" => "FaultInjected",
        "NC" => "NoClusterFound",
        "NR" => "NoRouteFound",
        "RL" => "RateLimited",
        "RLSE" => "RateLimitServiceError",
        "SI" => "StreamIdleTimeout",
        "UAEX" => "UnauthorizedExternalService",
        "UC" => "UpstreamConnectionTermination",
        "UF" => "UpstreamConnectionFailure",
        "UH" => "NoHealthyUpstream",
        "UMSDR" => "UpstreamMaxStreamDurationReached",
        "UO" => "UpstreamOverflow",
        "UPE" => "UpstreamProtocolError",
        "UT" => "UpstreamRequestTimeout",
        other => other,
    }
}

/// The status of a gRPC call, from trailers or from the head.
pub fn grpc_status(subject: &Subject<'_>, form: GrpcForm) -> Value<'static> {
    const CAMEL: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let of = |headers: Option<&HeaderMap>| headers?.get("grpc-status")?.to_str().ok()?.parse::<u64>().ok();
    let Some(status) = of(subject.trailers).or_else(|| of(subject.response)) else {
        return Value::Absent;
    };
    let name = usize::try_from(status).ok().and_then(|status| CAMEL.get(status));
    match (form, name) {
        (GrpcForm::Number, _) | (_, None) => Value::Number(status),
        (GrpcForm::Camel, Some(name)) => Value::Text((*name).into()),
        // The one name that is spelt in two ways.
        (GrpcForm::Snake, Some(&"Canceled")) => Value::Text("CANCELLED".into()),
        (GrpcForm::Snake, Some(&"OK")) => Value::Text("OK".into()),
        (GrpcForm::Snake, Some(name)) => {
            let mut snake = String::new();
            for (i, c) in name.char_indices() {
                if i > 0 && c.is_ascii_uppercase() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_uppercase());
            }
            Value::Text(snake.into())
        }
    }
}

/// One end of a connection.
pub fn address_of<'s>(entry: &Entry<'s>, side: Side, shown: Shown) -> Value<'s> {
    let address: Option<SocketAddr> = match side {
        Side::UpstreamRemote => match (entry.upstream_host, shown) {
            (host, Shown::Whole) => return host.map_or(Value::Absent, |host| Value::Text(host.into())),
            (host, _) => host.and_then(|host| host.parse().ok()),
        },
        Side::UpstreamLocal => entry.upstream_local,
        Side::DownstreamLocal => Some(entry.downstream_local),
        Side::DownstreamRemote => Some(entry.downstream_remote),
    };
    match (address, shown) {
        (None, _) => Value::Absent,
        (Some(address), Shown::Whole) => Value::Text(address.to_string().into()),
        (Some(address), Shown::Ip) => Value::Text(address.ip().to_canonical().to_string().into()),
        (Some(address), Shown::Port) => Value::Number(address.port().into()),
    }
}

/// As strftime has it, with %3f, %6f and %9f for parts of a second and %s for seconds since 1970; RFC 3339 if there is no format.
pub fn time(at: SystemTime, format: Option<&str>) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let Some(format) = format else {
        let to_the_second = to_the_second(seconds);
        let text = String::from_utf8_lossy(&to_the_second);
        return format!("{text}{:03}Z", since.subsec_millis());
    };
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let nanos = format!("{:09}", since.subsec_nanos());
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        // Writing to a String cannot fail.
        let _ = match rest.next() {
            Some('Y') => write!(out, "{year:04}"),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('H') => write!(out, "{hour:02}"),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('F') => write!(out, "{year:04}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('s') => write!(out, "{seconds}"),
            Some('z') => out.write_str("+0000"),
            Some('Z') => out.write_str("UTC"),
            Some('f') => out.write_str(&nanos),
            Some('%') | None => out.write_char('%'),
            Some(digits @ '1'..='9') if rest.as_str().starts_with('f') => {
                rest.next();
                let count = digits.to_digit(10).unwrap_or(9) as usize;
                out.write_str(&nanos[..count])
            }
            Some(other) => write!(out, "%{other}"),
        };
    }
    out
}
