//! Reports of load that endpoints put into responses (Open Request Cost Aggregation).
//!
//! Owns the three forms that a report comes in. What is not one is passed over: an endpoint must not be able to break
//! anything with it.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::HeaderName;
use prost::Message;

const TEXT: HeaderName = HeaderName::from_static("endpoint-load-metrics");
const BINARY: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// `xds.data.orca.v3.OrcaLoadReport`; field numbers as published.
#[derive(Clone, PartialEq, Message, serde::Deserialize)]
#[serde(default)]
pub struct Report {
    /// Share of the CPU; may be over 1.
    #[prost(double, tag = "1")]
    #[serde(alias = "cpuUtilization")]
    pub cpu_utilization: f64,
    /// Share of the memory.
    #[prost(double, tag = "2")]
    #[serde(alias = "memUtilization")]
    pub mem_utilization: f64,
    /// Costs of the request.
    #[prost(map = "string, double", tag = "4")]
    #[serde(alias = "requestCost")]
    pub request_cost: HashMap<String, f64>,
    /// Shares of other things.
    #[prost(map = "string, double", tag = "5")]
    pub utilization: HashMap<String, f64>,
    /// Requests a second.
    #[prost(double, tag = "6")]
    #[serde(alias = "rpsFractional")]
    pub rps_fractional: f64,
    /// Errors a second.
    #[prost(double, tag = "7")]
    pub eps: f64,
    /// What the application likes to tell.
    #[prost(map = "string, double", tag = "8")]
    #[serde(alias = "namedMetrics")]
    pub named_metrics: HashMap<String, f64>,
    /// Share of what the application could do.
    #[prost(double, tag = "9")]
    #[serde(alias = "applicationUtilization")]
    pub application_utilization: f64,
}

impl Report {
    /// The report in headers or trailers.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = headers.get(&BINARY) {
            return binary(value.as_bytes());
        }
        let value = headers.get(&TEXT)?.to_str().ok()?.trim();
        let (form, content) = value.split_once(' ')?;
        match form {
            "JSON" => serde_json::from_str(content).ok(),
            "TEXT" => text(content),
            "BIN" => binary(content.trim().as_bytes()),
            _ => None,
        }
    }

    /// Takes reports out.
    pub fn remove(headers: &mut HeaderMap) {
        headers.remove(&BINARY);
        headers.remove(&TEXT);
    }

    /// What is reported under a name: that of a field, or `map.key`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let of_map = |(map, key): (&str, &str)| {
            let map = match map {
                "named_metrics" => &self.named_metrics,
                "utilization" => &self.utilization,
                "request_cost" => &self.request_cost,
                _ => return None,
            };
            map.get(key).copied()
        };
        match name {
            "cpu_utilization" => Some(self.cpu_utilization),
            "mem_utilization" => Some(self.mem_utilization),
            "application_utilization" => Some(self.application_utilization),
            "rps_fractional" => Some(self.rps_fractional),
            "eps" => Some(self.eps),
            _ => name.split_once('.').and_then(of_map),
        }
    }

    fn set(&mut self, name: &str, value: f64) -> Option<()> {
        match name {
            "cpu_utilization" | "cpu" => self.cpu_utilization = value,
            "mem_utilization" | "mem" => self.mem_utilization = value,
            "application_utilization" => self.application_utilization = value,
            "rps_fractional" => self.rps_fractional = value,
            "eps" => self.eps = value,
            _ => {
                let (map, key) = name.split_once('.')?;
                let map = match map {
                    "named_metrics" => &mut self.named_metrics,
                    "utilization" => &mut self.utilization,
                    "request_cost" => &mut self.request_cost,
                    _ => return None,
                };
                map.insert(key.to_owned(), value);
            }
        }
        Some(())
    }
}

fn binary(encoded: &[u8]) -> Option<Report> {
    Report::decode(STANDARD.decode(encoded).ok()?.as_slice()).ok()
}

/// Pairs of names and numbers, with commas between them.
fn text(content: &str) -> Option<Report> {
    let mut report = Report::default();
    for pair in content.split(',') {
        let (name, value) = pair.split_once(['=', ':'])?;
        let value: f64 = value.trim().parse().ok()?;
        report.set(name.trim(), value)?;
    }
    Some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: HeaderName, value: &str) -> Option<Report> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Report::read(&headers)
    }

    #[test]
    fn a_report_has_three_forms() {
        let report = Report {
            cpu_utilization: 0.25,
            rps_fractional: 100.0,
            eps: 2.5,
            named_metrics: HashMap::from([("queue".to_owned(), 0.5)]),
            ..Report::default()
        };
        let encoded = STANDARD.encode(report.encode_to_vec());
        assert_eq!(read(BINARY, &encoded), Some(report.clone()));
        assert_eq!(read(TEXT, &format!("BIN {encoded}")), Some(report.clone()));
        let pairs = "TEXT cpu_utilization=0.25, rps_fractional=100,eps=2.5,named_metrics.queue=0.5";
        assert_eq!(read(TEXT, pairs), Some(report.clone()));
        for json in [
            r#"JSON {"cpu_utilization": 0.25, "rps_fractional": 100, "eps": 2.5, "named_metrics": {"queue": 0.5}}"#,
            r#"JSON {"cpuUtilization": 0.25, "rpsFractional": 100.0, "eps": 2.5, "namedMetrics": {"queue": 0.5}}"#,
        ] {
            assert_eq!(read(TEXT, json), Some(report.clone()), "{json}");
        }
        assert_eq!(report.metric("named_metrics.queue"), Some(0.5));
        assert_eq!(report.metric("cpu_utilization"), Some(0.25));
        assert_eq!(report.metric("named_metrics.none"), None);
    }

    #[test]
    fn what_is_no_report_is_none() {
        for value in [
            "",
            "TEXT",
            "TEXT a",
            "TEXT cpu=much",
            "TEXT foo.bar=1",
            "JSON {",
            "XML <a/>",
            "BIN !",
        ] {
            assert_eq!(read(TEXT, value), None, "{value}");
        }
        assert_eq!(read(BINARY, "AAAA"), None);
        assert_eq!(Report::read(&HeaderMap::new()), None);
    }
}
