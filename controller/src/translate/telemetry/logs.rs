//! Access logs, and the log of health checks.

use sluice_config::v1;
use sluice_crds::envoy::{AlsSink, OpenTelemetrySink, ProxyAccessLogSetting, ProxyHealthCheckLog};

use super::{Translation, resource};
use crate::engine::BackendUsage;
use crate::translate::policy::envoy::{Reader, expression, health};

impl Translation<'_, '_> {
    pub(super) fn log(&mut self, from: &ProxyAccessLogSetting, index: usize) -> Option<v1::AccessLog> {
        let field = format!("telemetry.accessLog.settings[{index}]");
        let format = from.format.as_ref().map(|format| v1::LogFormat {
            text: format.text.clone(),
            json: format.json.clone(),
        });
        for text in format
            .iter()
            .flat_map(|format| format.text.iter().chain(format.json.values()))
        {
            self.operators(text, &format!("{field}.format"));
        }
        let mut sinks = Vec::new();
        for (i, sink) in from.sinks.iter().enumerate() {
            let field = format!("{field}.sinks[{i}]");
            let sink = match (&sink.file, &sink.open_telemetry, &sink.als) {
                (Some(file), ..) => Some(v1::log_sink::Sink::File(file.path.clone())),
                (_, Some(otlp), _) => self.otlp_logs(otlp, &field),
                (.., Some(als)) => self.als(als, &field),
                _ => {
                    self.remark(&field, "it names no sink");
                    None
                }
            };
            sinks.extend(sink.map(|sink| v1::LogSink { sink: Some(sink) }));
        }
        let mut matches = from.matches.clone();
        matches.retain(|text| match expression::check(text) {
            Ok(()) => true,
            // It is passed over, as the API has it.
            Err(why) => {
                self.remark(format!("{field}.matches"), format_args!("{text:?}: {why}"));
                false
            }
        });
        (!sinks.is_empty()).then(|| v1::AccessLog {
            format,
            matches,
            sinks,
            routes_only: from.type_.as_deref() == Some("Route"),
            connections: from.type_.as_deref() == Some("Listener"),
            tries: from.type_.as_deref() == Some("Upstream"),
        })
    }

    fn otlp_logs(&mut self, from: &OpenTelemetrySink, field: &str) -> Option<v1::log_sink::Sink> {
        Some(v1::log_sink::Sink::Otlp(v1::OtlpLogs {
            receiver: Some(self.otlp(from, &format!("{field}.openTelemetry"))?),
            resource: resource(from),
        }))
    }

    fn als(&mut self, from: &AlsSink, field: &str) -> Option<v1::log_sink::Sink> {
        let field = format!("{field}.als");
        let http = from.http.clone().unwrap_or_default();
        Some(v1::log_sink::Sink::Als(v1::AlsLogs {
            receiver: Some(self.receiver(&from.cluster, None, BackendUsage::Grpc, &[], &field)?),
            log_name: from.log_name.clone().unwrap_or_default(),
            tcp: from.type_.as_deref() == Some("TCP"),
            request_headers: lower(&http.request_headers),
            response_headers: lower(&http.response_headers),
            response_trailers: lower(&http.response_trailers),
        }))
    }

    pub(super) fn checks(&mut self, from: &ProxyHealthCheckLog) -> v1::HealthCheckLog {
        let mut reader = Reader::new(&self.context, String::new());
        let log = health::log(&mut reader, from, "telemetry.healthCheckLog");
        let faults = reader.faults;
        self.told
            .remarks
            .extend(faults.into_iter().map(|fault| fault.message));
        log
    }
}

fn lower(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}
