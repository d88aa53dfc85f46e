//! The proxy's metrics as OTLP has them.
//!
//! Made from the text that is exposed: that is the one list of all metrics, and once every few seconds it costs nothing
//! that matters to read it back.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric, number_data_point,
};

use super::otlp::{nanos, pair, resource, scope, text};

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

/// Whether counts are told since the last time, or since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Temporality {
    /// Of counters.
    pub delta_counters: bool,
    /// Of histograms.
    pub delta_histograms: bool,
}

/// What was told last, by series.
pub type Last = HashMap<String, f64>;

/// The span of time that is told of.
#[derive(Debug, Clone, Copy)]
pub struct Period {
    /// When counting began.
    pub start: SystemTime,
    /// When the last report was made.
    pub last: SystemTime,
    /// Now.
    pub now: SystemTime,
}

/// What stands behind the family's name, the bound of a bucket, and the value.
type Sample<'t> = (&'t str, Option<f64>, f64);

#[derive(Default)]
struct Family<'t> {
    kind: &'t str,
    help: &'t str,
    /// Labels (without `le`) to values by suffix and bound.
    series: BTreeMap<String, Vec<Sample<'t>>>,
}

/// A report of all metrics in the text.
pub fn report(
    attributes: &BTreeMap<String, String>,
    exposed: &str,
    temporality: Temporality,
    period: Period,
    last: &mut Last,
) -> ExportMetricsServiceRequest {
    let metrics = families(exposed)
        .into_iter()
        .filter_map(|(name, family)| family.metric(name, temporality, period, last))
        .collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(attributes)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
}

fn families(exposed: &str) -> BTreeMap<&str, Family<'_>> {
    let mut all: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for line in exposed.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            if let Some((name, kind)) = rest.split_once(' ') {
                all.entry(name).or_default().kind = kind;
            }
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            if let Some((name, help)) = rest.split_once(' ') {
                all.entry(name).or_default().help = help.trim_end_matches('.');
            }
        } else if !line.starts_with('#') {
            sample(line, &mut all);
        }
    }
    all
}

/// `name{label="value"} 1`.
fn sample<'t>(line: &'t str, all: &mut BTreeMap<&'t str, Family<'t>>) {
    let Some((series, value)) = line.rsplit_once(' ') else {
        return;
    };
    let Ok(value) = value.parse::<f64>() else { return };
    let (full, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (series, ""),
    };
    let suffixes = ["_total", "_bucket", "_sum", "_count", ""];
    let found = suffixes.into_iter().find_map(|suffix| {
        let name = full.strip_suffix(suffix)?;
        all.contains_key(name).then_some((name, suffix))
    });
    let Some((name, suffix)) = found else { return };
    // The bound stands in front of the other labels, and is a number.
    let (bound, labels) = match labels.strip_prefix("le=\"").and_then(|rest| rest.split_once('"')) {
        Some((bound, rest)) if suffix == "_bucket" => {
            let bound = bound.parse().unwrap_or(f64::INFINITY);
            (Some(bound), rest.trim_start_matches(','))
        }
        _ => (None, labels),
    };
    if let Some(family) = all.get_mut(name) {
        let series = family.series.entry(labels.to_owned()).or_default();
        series.push((suffix, bound, value));
    }
}

/// `a="b",c="d"` with the escapes of the text format.
fn attributes(labels: &str) -> Vec<KeyValue> {
    let mut all = Vec::new();
    let mut rest = labels;
    while let Some((name, tail)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = tail.chars();
        loop {
            match chars.next() {
                None | Some('"') => break,
                Some('\\') => match chars.next() {
                    Some('n') => value.push('\n'),
                    Some(other) => value.push(other),
                    None => break,
                },
                Some(other) => value.push(other),
            }
        }
        all.push(pair(name.trim_start_matches(','), text(value)));
        rest = chars.as_str();
    }
    all
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and not negative"
)]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}

impl Family<'_> {
    fn metric(&self, name: &str, as_: Temporality, period: Period, last: &mut Last) -> Option<Metric> {
        let data = match self.kind {
            "counter" => metric::Data::Sum(Sum {
                data_points: self.points(name, as_.delta_counters, period, Some(last)),
                aggregation_temporality: temporality(as_.delta_counters),
                is_monotonic: true,
            }),
            "gauge" => metric::Data::Gauge(Gauge {
                data_points: self.points(name, false, period, None),
            }),
            "histogram" => metric::Data::Histogram(Histogram {
                data_points: self.histograms(name, as_.delta_histograms, period, last),
                aggregation_temporality: temporality(as_.delta_histograms),
            }),
            _ => return None,
        };
        (!self.series.is_empty()).then(|| Metric {
            name: name.to_owned(),
            description: self.help.to_owned(),
            unit: if name.ends_with("_seconds") { "s" } else { "" }.to_owned(),
            data: Some(data),
            ..Default::default()
        })
    }

    fn points(
        &self,
        name: &str,
        delta: bool,
        period: Period,
        mut last: Option<&mut Last>,
    ) -> Vec<NumberDataPoint> {
        let point = |(labels, values): (&String, &Vec<Sample<'_>>)| {
            let mut value = values.first()?.2;
            if let Some(last) = last.as_mut().filter(|_| delta) {
                value = since(last, format!("{name}{{{labels}"), value);
            }
            Some(NumberDataPoint {
                attributes: attributes(labels),
                start_time_unix_nano: nanos(if delta { period.last } else { period.start }),
                time_unix_nano: nanos(period.now),
                value: Some(number_data_point::Value::AsDouble(value)),
                ..Default::default()
            })
        };
        self.series.iter().filter_map(point).collect()
    }

    fn histograms(
        &self,
        name: &str,
        delta: bool,
        period: Period,
        last: &mut Last,
    ) -> Vec<HistogramDataPoint> {
        let mut points = Vec::new();
        for (labels, values) in &self.series {
            let mut told = |key: &str, value: f64| {
                if delta {
                    since(last, format!("{name}{{{labels}{key}"), value)
                } else {
                    value
                }
            };
            let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0.0);
            let (mut sum, mut count) = (0.0, 0.0);
            for (suffix, bound, value) in values {
                match (*suffix, bound) {
                    ("_sum", _) => sum = told("sum", *value),
                    ("_count", _) => count = told("count", *value),
                    ("_bucket", Some(bound)) => {
                        counts.push(whole(told(&bound.to_string(), value - below)));
                        below = *value;
                        if bound.is_finite() {
                            bounds.push(*bound);
                        }
                    }
                    _ => {}
                }
            }
            points.push(HistogramDataPoint {
                attributes: attributes(labels),
                start_time_unix_nano: nanos(if delta { period.last } else { period.start }),
                time_unix_nano: nanos(period.now),
                count: whole(count),
                sum: Some(sum),
                bucket_counts: counts,
                explicit_bounds: bounds,
                ..Default::default()
            });
        }
        points
    }
}

/// How much it has grown. A count that has begun anew has grown from nothing.
fn since(last: &mut Last, key: String, value: f64) -> f64 {
    let before = last.insert(key, value).unwrap_or_default();
    if before > value { value } else { value - before }
}

fn temporality(delta: bool) -> i32 {
    if delta { DELTA } else { CUMULATIVE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn what_is_exposed_is_told() {
        let mut last = Last::new();
        let now = SystemTime::UNIX_EPOCH;
        let period = Period {
            start: now,
            last: now,
            now,
        };
        let deltas = Temporality {
            delta_counters: true,
            delta_histograms: true,
        };
        for (temporality, growth) in [(deltas, [2, 2]), (Temporality::default(), [2, 4])] {
            last.clear();
            let metrics = Metrics::default();
            let route = metrics.route("HTTPRoute/a/\"b\"");
            for expected in growth {
                (0..2).for_each(|_| route.request(200, std::time::Duration::from_millis(3)));
                let report = report(
                    &BTreeMap::new(),
                    &metrics.encode(),
                    temporality,
                    period,
                    &mut last,
                );
                let all = &report.resource_metrics[0].scope_metrics[0].metrics;
                let of = |name: &str| all.iter().find(|m| m.name == name).unwrap().data.clone().unwrap();
                let metric::Data::Sum(sum) = of("sluice_route_requests") else {
                    panic!()
                };
                let point = &sum.data_points[0];
                assert_eq!(
                    point.value,
                    Some(number_data_point::Value::AsDouble(f64::from(expected)))
                );
                assert_eq!(point.attributes[0], pair("route", text("HTTPRoute/a/\"b\"")));
                assert_eq!(point.attributes[1], pair("class", text("2xx")));
                let metric::Data::Histogram(histogram) = of("sluice_route_request_duration_seconds") else {
                    panic!()
                };
                let point = &histogram.data_points[0];
                let expected = u64::try_from(expected).unwrap();
                assert_eq!(
                    (point.count, point.bucket_counts.iter().sum::<u64>()),
                    (expected, expected)
                );
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                let metric::Data::Gauge(_) = of("sluice_config_connected") else {
                    panic!()
                };
            }
        }
    }
}
