//! Traces: of a proxy, and of a route.

use sluice_config::v1;
use sluice_crds::envoy::{
    CustomTag, CustomTagType, OpenTelemetrySampler, ProxyTracing, RequestIDSettings, Tracing,
};
use sluice_crds::gateway::Fraction;

use super::{OTLP_PORT, Translation};
use crate::engine::BackendUsage;

const MILLION: u64 = 1_000_000;

impl Translation<'_, '_> {
    pub(super) fn tracing(
        &mut self,
        from: &ProxyTracing,
        ids: Option<&RequestIDSettings>,
    ) -> Option<v1::Tracing> {
        use v1::tracing::Provider;
        let to = &from.provider;
        let (provider, usage, port) = match to.type_.as_deref() {
            None | Some("OpenTelemetry") => (Provider::OpenTelemetry, BackendUsage::Grpc, OTLP_PORT),
            Some("Zipkin") => (Provider::Zipkin, BackendUsage::Http, 9411),
            Some("Datadog") => (Provider::Datadog, BackendUsage::Http, 8126),
            Some(other) => {
                self.remark(
                    "telemetry.tracing.provider.type",
                    format_args!("{other:?} is not known"),
                );
                return None;
            }
        };
        let settings = to.open_telemetry.clone().unwrap_or_default();
        let host = to.host.as_deref().map(|host| (host, to.port.unwrap_or(port)));
        let field = "telemetry.tracing.provider";
        let receiver = self.receiver(&to.cluster, host, usage, &settings.headers, field)?;
        for text in from
            .tracing
            .tags
            .values()
            .chain(from.tracing.span_name.as_ref().map(|name| &name.server))
        {
            self.operators(text, "telemetry.tracing");
        }
        let mut sampling = sampling(&from.tracing);
        if let Some(rate) = from.sampling_rate {
            let whole = v1::Sampling {
                random: 0,
                client: 0,
                overall: share(None),
            };
            sampling.get_or_insert(whole).random = rate.min(100) * 10_000;
        }
        let is_zipkin = provider == Provider::Zipkin;
        let zipkin = to.zipkin.clone().unwrap_or_default();
        let sampler = settings
            .sampler
            .as_ref()
            .filter(|_| provider == Provider::OpenTelemetry)
            .and_then(|from| self.sampler(from));
        Some(v1::Tracing {
            provider: provider.into(),
            receiver: Some(receiver),
            service_name: to.service_name.clone().unwrap_or_default(),
            resource: settings.resource_attributes,
            sampling,
            tags: tags(&from.tracing),
            span_name: span_name(&from.tracing),
            short_trace_ids: is_zipkin && !zipkin.enable_128_bit_trace_id,
            shared_spans: is_zipkin && !zipkin.disable_shared_span_context,
            sampler,
            request_ids: Some(self.request_ids(ids)),
        })
    }

    fn sampler(&mut self, from: &OpenTelemetrySampler) -> Option<v1::Sampler> {
        let kind = from.type_.as_deref().unwrap_or("AlwaysOn");
        let (parent_based, root) = match kind.strip_prefix("ParentBased") {
            Some(root) => (true, root),
            None => (false, kind),
        };
        let share = match root {
            "AlwaysOn" => share(None),
            "AlwaysOff" => 0,
            "TraceIdRatio" => share(from.sampling_percentage.as_ref()),
            _ => {
                self.remark(
                    "telemetry.tracing.provider.openTelemetry.sampler.type",
                    format_args!("{kind:?} is not known"),
                );
                return None;
            }
        };
        Some(v1::Sampler { share, parent_based })
    }

    fn request_ids(&mut self, from: Option<&RequestIDSettings>) -> v1::RequestIds {
        let (sample, pack) = match from.and_then(|from| from.tracing.as_deref()) {
            None | Some("PackAndSample") => (true, true),
            Some("Sample") => (true, false),
            Some("Pack") => (false, true),
            Some("Disable") => (false, false),
            Some(other) => {
                self.remark(
                    "telemetry.requestID.tracing",
                    format_args!("{other:?} is not known"),
                );
                (true, true)
            }
        };
        v1::RequestIds { sample, pack }
    }
}

/// What a BackendTrafficPolicy says of the traces of a route.
pub fn of_route(from: &Tracing) -> v1::RouteTracing {
    v1::RouteTracing {
        sampling: sampling(from),
        tags: tags(from),
        span_name: span_name(from),
    }
}

/// Texts in it that may hold operators.
pub fn texts(from: &Tracing) -> impl Iterator<Item = &String> {
    from.tags
        .values()
        .chain(from.span_name.as_ref().map(|name| &name.server))
}

fn sampling(from: &Tracing) -> Option<v1::Sampling> {
    let all = [
        &from.sampling_fraction,
        &from.client_sampling_fraction,
        &from.overall_sampling_fraction,
    ];
    all.iter()
        .any(|fraction| fraction.is_some())
        .then(|| v1::Sampling {
            random: share(from.sampling_fraction.as_ref()),
            // Clients are asked for only where something is said of them.
            client: from
                .client_sampling_fraction
                .as_ref()
                .map_or(0, |fraction| share(Some(fraction))),
            overall: share(from.overall_sampling_fraction.as_ref()),
        })
}

/// Millionths; all if nothing is said.
fn share(fraction: Option<&Fraction>) -> u32 {
    let share = fraction.map_or(MILLION, |fraction| {
        u64::from(fraction.numerator) * MILLION / u64::from(fraction.denominator().max(1))
    });
    u32::try_from(share.min(MILLION)).unwrap_or_default()
}

fn tags(from: &Tracing) -> Vec<v1::SpanTag> {
    use v1::span_tag::Value;
    let texts = from.tags.iter().map(|(name, text)| v1::SpanTag {
        name: name.clone(),
        default_value: String::new(),
        value: Some(Value::Text(text.clone())),
    });
    let custom = from.custom_tags.iter().filter_map(|(name, tag)| {
        let (value, default) = custom(tag)?;
        Some(v1::SpanTag {
            name: name.clone(),
            default_value: default.unwrap_or_default(),
            value: Some(value),
        })
    });
    custom.chain(texts).collect()
}

fn custom(tag: &CustomTag) -> Option<(v1::span_tag::Value, Option<String>)> {
    use v1::span_tag::Value;
    match &tag.type_ {
        CustomTagType::Literal => {
            // Percent signs in it are no operators.
            let literal = tag.literal.as_ref()?.value.replace('%', "%%");
            Some((Value::Text(literal), None))
        }
        CustomTagType::Environment => {
            let from = tag.environment.as_ref()?;
            Some((Value::Environment(from.name.clone()), from.default_value.clone()))
        }
        CustomTagType::RequestHeader => {
            let from = tag.request_header.as_ref()?;
            Some((
                Value::RequestHeader(from.name.to_ascii_lowercase()),
                from.default_value.clone(),
            ))
        }
        CustomTagType::Other(_) => None,
    }
}

fn span_name(from: &Tracing) -> String {
    from.span_name
        .as_ref()
        .map(|name| name.server.clone())
        .unwrap_or_default()
}
