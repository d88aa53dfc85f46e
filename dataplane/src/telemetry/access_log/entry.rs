//! One line of the access log: what is told of a request, and its encoding.

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is told of one request. `None` is written as `null`.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When its head had been read.
    pub start: SystemTime,
    /// Method.
    pub method: &'a str,
    /// Path and query as the client sent them.
    pub path: &'a [u8],
    /// `HTTP/1.1` and so on.
    pub protocol: &'static str,
    /// Status of the response; 0: none was sent.
    pub status: u16,
    /// Envoy's flags of what went wrong; empty: nothing.
    pub flags: &'static str,
    /// Envoy's words for who made the response and why.
    pub details: &'a str,
    /// Why the upstream connection failed.
    pub transport_failure: Option<&'a str>,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// From the request's departure to the head of the backend's response.
    pub upstream_time: Option<Duration>,
    /// X-Forwarded-For as sent to the backend.
    pub forwarded_for: Option<&'a [u8]>,
    /// User-Agent.
    pub user_agent: Option<&'a [u8]>,
    /// X-Request-Id.
    pub request_id: Option<&'a [u8]>,
    /// The host that was asked for.
    pub authority: &'a [u8],
    /// Address of the endpoint.
    pub upstream_host: Option<&'a str>,
    /// Name of the backend.
    pub upstream_cluster: Option<&'a str>,
    /// Our end of the connection to it.
    pub upstream_local: Option<SocketAddr>,
    /// Our end of the client's connection.
    pub downstream_local: SocketAddr,
    /// The client's end.
    pub downstream_remote: SocketAddr,
    /// SNI.
    pub server_name: Option<&'a str>,
    /// JA3 and JA4 of the client's ClientHello, where they are computed.
    pub fingerprints: [Option<&'a str>; 2],
    /// The route's name.
    pub route: Option<&'a str>,
}

/// A key as it stands between two values.
macro_rules! key {
    ($key:literal) => {
        concat!(",\"", $key, "\":")
    };
}

impl Entry<'_> {
    /// One of which only its beginning and the ends of the client's connection are known.
    pub fn began(start: SystemTime, downstream_local: SocketAddr, downstream_remote: SocketAddr) -> Self {
        Self {
            start,
            method: "",
            path: b"",
            protocol: "",
            status: 0,
            flags: "",
            details: "",
            transport_failure: None,
            received: 0,
            sent: 0,
            duration: Duration::ZERO,
            upstream_time: None,
            forwarded_for: None,
            user_agent: None,
            request_id: None,
            authority: b"",
            upstream_host: None,
            upstream_cluster: None,
            upstream_local: None,
            downstream_local,
            downstream_remote,
            server_name: None,
            fingerprints: [None, None],
            route: None,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"start_time\":");
        let mut line = Line { out };
        line.time(self.start);
        line.text(key!("method"), filled(self.method.as_bytes()));
        line.text(key!("x-envoy-origin-path"), filled(self.path));
        line.text(key!("protocol"), filled(self.protocol.as_bytes()));
        line.number(key!("response_code"), self.status.into());
        let flags: &[u8] = if self.flags.is_empty() {
            b"-"
        } else {
            self.flags.as_bytes()
        };
        line.text(key!("response_flags"), Some(flags));
        line.text(key!("response_code_details"), filled(self.details.as_bytes()));
        line.text(key!("connection_termination_details"), None);
        line.text(
            key!("upstream_transport_failure_reason"),
            self.transport_failure.map(str::as_bytes),
        );
        line.number(key!("bytes_received"), self.received);
        line.number(key!("bytes_sent"), self.sent);
        line.number(key!("duration"), millis(self.duration));
        line.quoted_number(
            key!("x-envoy-upstream-service-time"),
            self.upstream_time.map(millis),
        );
        line.text(key!("x-forwarded-for"), self.forwarded_for);
        line.text(key!("user-agent"), self.user_agent);
        line.text(key!("x-request-id"), self.request_id);
        line.text(key!(":authority"), filled(self.authority));
        line.text(key!("upstream_host"), self.upstream_host.map(str::as_bytes));
        line.text(key!("upstream_cluster"), self.upstream_cluster.map(str::as_bytes));
        line.address(key!("upstream_local_address"), self.upstream_local);
        line.address(key!("downstream_local_address"), Some(self.downstream_local));
        line.address(key!("downstream_remote_address"), Some(self.downstream_remote));
        line.text(key!("requested_server_name"), self.server_name.map(str::as_bytes));
        line.text(key!("route_name"), self.route.map(str::as_bytes));
        out.extend_from_slice(b"}\n");
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a byte stream does not have is empty.
fn filled(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(key.as_bytes());
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        digits(self.out, value);
    }

    fn quoted_number(&mut self, key: &'static str, value: Option<u64>) {
        let Some(value) = value else {
            return self.text(key, None);
        };
        self.key(key);
        self.out.push(b'"');
        digits(self.out, value);
        self.out.push(b'"');
    }

    fn address(&mut self, key: &'static str, value: Option<SocketAddr>) {
        let Some(address) = value else {
            return self.text(key, None);
        };
        self.key(key);
        self.out.push(b'"');
        match address {
            // The formatter of the standard library takes several times as long.
            SocketAddr::V4(v4) => {
                for (place, octet) in v4.ip().octets().into_iter().enumerate() {
                    if place > 0 {
                        self.out.push(b'.');
                    }
                    digits(self.out, octet.into());
                }
                self.out.push(b':');
                digits(self.out, v4.port().into());
            }
            SocketAddr::V6(v6) => {
                // Writing to memory cannot fail.
                let _ = write!(self.out, "{v6}");
            }
        }
        self.out.push(b'"');
    }

    fn text(&mut self, key: &'static str, value: Option<&[u8]>) {
        self.key(key);
        let Some(value) = value else {
            self.out.extend_from_slice(b"null");
            return;
        };
        self.out.push(b'"');
        if value
            .iter()
            .all(|b| matches!(b, 0x20..=0x7e) && *b != b'"' && *b != b'\\')
        {
            self.out.extend_from_slice(value);
        } else {
            for c in String::from_utf8_lossy(value).chars() {
                let _ = match c {
                    '"' => self.out.write_all(b"\\\""),
                    '\\' => self.out.write_all(b"\\\\"),
                    c if c.is_control() => write!(self.out, "\\u{:04x}", u32::from(c)),
                    c => write!(self.out, "{c}"),
                };
            }
        }
        self.out.push(b'"');
    }

    /// RFC 3339 in UTC with milliseconds.
    fn time(&mut self, time: SystemTime) {
        thread_local! {
            /// The last second that was written, and how.
            static LAST: Cell<(u64, [u8; 20])> = const { Cell::new((u64::MAX, [0; 20])) };
        }
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (mut second, mut text) = LAST.get();
        if second != since.as_secs() {
            second = since.as_secs();
            text = to_the_second(second);
            LAST.set((second, text));
        }
        self.out.push(b'"');
        self.out.extend_from_slice(&text);
        let millis = since.subsec_millis();
        for unit in [100, 10, 1] {
            self.out.push(b'0' + digit(millis / unit));
        }
        self.out.extend_from_slice(b"Z\"");
    }
}

/// Decimal digits.
fn digits(out: &mut Vec<u8>, mut value: u64) {
    let mut buffer = [0; 20];
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + digit(u32::try_from(value % 10).unwrap_or_default());
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&buffer[start..]);
}

/// The last decimal digit.
fn digit(value: u32) -> u8 {
    u8::try_from(value % 10).unwrap_or_default()
}

/// `2024-02-29T12:34:56.`
pub(super) fn to_the_second(second: u64) -> [u8; 20] {
    let (year, month, day) = civil(second / 86_400);
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    let mut text = [b'0'; 20];
    // Years beyond 9999 do not fit, which cuts the end off.
    let _ = write!(
        &mut text[..],
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}."
    );
    text
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. Years are counted from March,
/// so that a leap day is the last of its year.
pub(super) fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (year_of_era + era * 400 + carry, month, day)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn entry(path: &[u8]) -> Entry<'_> {
        Entry {
            start: UNIX_EPOCH + Duration::from_millis(1_709_210_096_007),
            method: "GET",
            path,
            protocol: "HTTP/1.1",
            status: 200,
            flags: "",
            details: "via_upstream",
            transport_failure: None,
            received: 1,
            sent: 2,
            duration: Duration::from_millis(3),
            upstream_time: Some(Duration::from_millis(2)),
            forwarded_for: Some(b"10.0.0.1"),
            user_agent: Some(b"a \"b\" \\ \n \xff"),
            request_id: None,
            authority: b"h.example",
            upstream_host: Some("10.1.2.3:80"),
            upstream_cluster: None,
            upstream_local: None,
            downstream_local: "10.0.0.2:10080".parse().unwrap(),
            downstream_remote: "[::1]:5".parse().unwrap(),
            server_name: None,
            fingerprints: [None, None],
            route: Some("HTTPRoute/a/b"),
        }
    }

    #[test]
    fn a_line_is_json() {
        let mut line = Vec::new();
        entry(b"/a?b").encode(&mut line);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["start_time"], "2024-02-29T12:34:56.007Z");
        assert_eq!(value["response_code"], 200);
        assert_eq!(value["user-agent"], "a \"b\" \\ \n \u{fffd}");
        assert_eq!(value["downstream_remote_address"], "[::1]:5");
        assert_eq!(value["response_flags"], "-");
        assert!(value["upstream_cluster"].is_null());
        assert_eq!(value["downstream_local_address"], "10.0.0.2:10080");
        assert_eq!(value["x-envoy-upstream-service-time"], "2");
        assert_eq!(
            (value["bytes_received"].as_u64(), value["duration"].as_u64()),
            (Some(1), Some(3))
        );
        assert_eq!(value.as_object().unwrap().len(), 24);
    }

    #[test]
    fn numbers() {
        for value in [0, 9, 10, 65_535, u64::MAX] {
            let mut out = Vec::new();
            digits(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }

    #[test]
    fn the_second_is_not_kept_too_long() {
        let at = |millis| {
            let mut out = Vec::new();
            Line { out: &mut out }.time(UNIX_EPOCH + Duration::from_millis(millis));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(at(1_709_251_199_999), "\"2024-02-29T23:59:59.999Z\"");
        assert_eq!(at(1_709_251_200_010), "\"2024-03-01T00:00:00.010Z\"");
        assert_eq!(at(1_709_251_199_000), "\"2024-02-29T23:59:59.000Z\"");
    }
}
