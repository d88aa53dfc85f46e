//! One line of the access log: what is told of a request, and its encoding.

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
    /// The route's name.
    pub route: Option<&'a str>,
}

impl Entry<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut line = Line { out, first: true };
        line.key("start_time");
        line.time(self.start);
        line.text("method", filled(self.method.as_bytes()));
        line.text("x-envoy-origin-path", filled(self.path));
        line.text("protocol", filled(self.protocol.as_bytes()));
        line.display("response_code", self.status);
        line.text(
            "response_flags",
            Some(if self.flags.is_empty() {
                b"-"
            } else {
                self.flags.as_bytes()
            }),
        );
        line.text(
            "response_code_details",
            (!self.details.is_empty()).then_some(self.details.as_bytes()),
        );
        line.text("connection_termination_details", None);
        line.text(
            "upstream_transport_failure_reason",
            self.transport_failure.map(str::as_bytes),
        );
        line.display("bytes_received", self.received);
        line.display("bytes_sent", self.sent);
        line.display("duration", self.duration.as_millis());
        match self.upstream_time {
            Some(time) => line.text(
                "x-envoy-upstream-service-time",
                Some(time.as_millis().to_string().as_bytes()),
            ),
            None => line.text("x-envoy-upstream-service-time", None),
        }
        line.text("x-forwarded-for", self.forwarded_for);
        line.text("user-agent", self.user_agent);
        line.text("x-request-id", self.request_id);
        line.text(":authority", filled(self.authority));
        line.text("upstream_host", self.upstream_host.map(str::as_bytes));
        line.text("upstream_cluster", self.upstream_cluster.map(str::as_bytes));
        line.address("upstream_local_address", self.upstream_local);
        line.address("downstream_local_address", Some(self.downstream_local));
        line.address("downstream_remote_address", Some(self.downstream_remote));
        line.text("requested_server_name", self.server_name.map(str::as_bytes));
        line.text("route_name", self.route.map(str::as_bytes));
        out.extend_from_slice(b"}\n");
    }
}

/// What a byte stream does not have is empty.
fn filled(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

struct Line<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Line<'_> {
    fn key(&mut self, key: &str) {
        self.out.push(if std::mem::take(&mut self.first) {
            b'{'
        } else {
            b','
        });
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn display(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        // Writing to memory cannot fail.
        let _ = write!(self.out, "{value}");
    }

    fn address(&mut self, key: &str, value: Option<SocketAddr>) {
        match value {
            None => self.text(key, None),
            Some(address) => {
                self.key(key);
                let _ = write!(self.out, "\"{address}\"");
            }
        }
    }

    fn text(&mut self, key: &str, value: Option<&[u8]>) {
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
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let _ = write!(
            self.out,
            "\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z\"",
            since.subsec_millis()
        );
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. Years are counted from March,
/// so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
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
        assert_eq!(value.as_object().unwrap().len(), 24);
    }
}
