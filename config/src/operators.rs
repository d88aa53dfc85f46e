//! Texts with Envoy's command operators: how they are taken apart, and which operators proxies know in access logs and
//! traces.

/// The operators, by name.
pub const OPERATORS: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CEL",
    "COMMON_DURATION",
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_VERSION",
    "DURATION",
    "DYNAMIC_METADATA",
    "EMIT_TIME",
    "ENVIRONMENT",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "METADATA",
    "PATH",
    "PROTOCOL",
    "QUERY_PARAM",
    "REQ",
    "REQUESTED_SERVER_NAME",
    "REQ_WITHOUT_QUERY",
    "RESP",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_TX_DURATION",
    "ROUTE_NAME",
    "SPAN_ID",
    "START_TIME",
    "STREAM_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRACE_ID",
    "TRAILER",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_HOST",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
];

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// As it is.
    Text(&'a str),
    /// `%NAME(arguments):limit%`.
    Operator {
        /// Its name.
        name: &'a str,
        /// What stands in its parentheses; empty: nothing.
        arguments: &'a str,
        /// The most bytes of its value.
        limit: Option<usize>,
    },
}

/// Takes a text apart. A percent sign that begins no operator stays; two stand for one.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut rest, mut from) = (text, 0);
    while let Some(at) = rest.get(from..).and_then(|tail| tail.find('%')) {
        let at = from + at;
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('%') {
            parts.push(Part::Text(&rest[..=at]));
            (rest, from) = (after, 0);
        } else if let Some((operator, after)) = operator(tail) {
            if at > 0 {
                parts.push(Part::Text(&rest[..at]));
            }
            parts.push(operator);
            (rest, from) = (after, 0);
        } else {
            from = at + 1;
        }
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

/// Reads what comes after a percent sign; gives what follows the operator.
fn operator(text: &str) -> Option<(Part<'_>, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let (name, mut rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    let mut arguments = "";
    if let Some(inside) = rest.strip_prefix('(') {
        let end = closing(inside)?;
        (arguments, rest) = (&inside[..end], &inside[end + 1..]);
    }
    let mut limit = None;
    if let Some(digits) = rest.strip_prefix(':') {
        let end = digits.find('%')?;
        limit = Some(digits[..end].parse().ok()?);
        rest = &digits[end..];
    }
    let operator = Part::Operator {
        name,
        arguments,
        limit,
    };
    Some((operator, rest.strip_prefix('%')?))
}

/// Where the parenthesis ends that has begun before the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 0 => return Some(at),
            b')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Names of operators in a text that proxies do not know.
pub fn unknown(text: &str) -> Vec<&str> {
    let name = |part| match part {
        Part::Operator { name, .. } if !OPERATORS.contains(&name) => Some(name),
        _ => None,
    };
    parts(text).into_iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(name: &'static str, arguments: &'static str, limit: Option<usize>) -> Part<'static> {
        Part::Operator {
            name,
            arguments,
            limit,
        }
    }

    #[test]
    fn texts_are_taken_apart() {
        assert_eq!(
            parts("[%START_TIME(%Y-%m)%] 100%% %REQ(a?b):7%x% %"),
            [
                Part::Text("["),
                operator("START_TIME", "%Y-%m", None),
                Part::Text("] 100%"),
                Part::Text(" "),
                operator("REQ", "a?b", Some(7)),
                Part::Text("x% %"),
            ]
        );
        assert_eq!(
            parts("%CEL(size(a) > (1))% %CEL(b)%"),
            [
                operator("CEL", "size(a) > (1)", None),
                Part::Text(" "),
                operator("CEL", "b", None)
            ]
        );
        assert_eq!(parts("%REQ(a%"), [Part::Text("%REQ(a%")]);
        assert_eq!(parts(""), []);
    }

    #[test]
    fn unknown_operators_are_named() {
        assert_eq!(unknown("%PROTOCOL% %FOO(x)% 5% %BAR%"), ["FOO", "BAR"]);
    }
}
