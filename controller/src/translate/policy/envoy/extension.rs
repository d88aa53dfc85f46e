//! EnvoyExtensionPolicy: processors that see requests and responses. Code for Envoy is refused, see [`gaps`].

use sluice_config::v1;
use sluice_config::v1::external_processor::{BodyMode, Direction};
use sluice_crds::envoy::{
    EnvoyExtensionPolicySpec, ExtProc, ExtProcBodyProcessingMode, ProcessingModeOptions,
};

use super::attach::Effective;
use super::reader::Reader;
use super::{destination, gaps};
use crate::engine::BackendUsage;
use crate::store::{Kind, ObjectRef};
use crate::translate::route::millis;

/// Says all that is wrong with it; `connections`: its target has no requests.
pub fn check(reader: &mut Reader<'_, '_, '_>, from: &Effective<EnvoyExtensionPolicySpec>, connections: bool) {
    let spec = gaps::honoured(reader, Kind::EnvoyExtensionPolicy, &from.spec);
    if connections && !spec.ext_proc.is_empty() {
        reader.fault("extProc", "connections have no requests to be processed");
    }
    let owner = from.owner("extProc").clone();
    for (i, from) in spec.ext_proc.iter().enumerate() {
        processor(reader, &owner, from, &format!("extProc[{i}]"));
    }
}

/// The processors of a rule. What is wrong with one that requests may go without is not noted: they do. What is asked for
/// besides processors is noted if requests must not go without it.
pub fn processors(
    reader: &mut Reader<'_, '_, '_>,
    from: &Effective<EnvoyExtensionPolicySpec>,
) -> Vec<v1::ExternalProcessor> {
    let spec = &from.spec;
    let needs_code = !spec.lua.is_empty()
        || !spec.dynamic_module.is_empty()
        || spec.wasm.iter().any(|wasm| wasm.fail_open != Some(true));
    if needs_code {
        reader.fault("wasm, lua, dynamicModule", "there is no Envoy here to run it");
    }
    let owner = from.owner("extProc");
    let mut all = Vec::with_capacity(spec.ext_proc.len());
    for (i, from) in spec.ext_proc.iter().enumerate() {
        let known = reader.faults.len();
        let found = processor(reader, owner, from, &format!("extProc[{i}]"));
        if reader.faults.len() > known && from.fail_open == Some(true) {
            reader.faults.truncate(known);
        } else {
            all.extend(found);
        }
    }
    all
}

fn processor(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &ExtProc,
    field: &str,
) -> Option<v1::ExternalProcessor> {
    let mode = from.processing_mode.as_ref();
    let mut way = |options: Option<&ProcessingModeOptions>, name: &str| {
        options.map(|options| direction(reader, options, &format!("{field}.processingMode.{name}")))
    };
    let (request, response) = (
        way(mode.and_then(|mode| mode.request.as_ref()), "request"),
        way(mode.and_then(|mode| mode.response.as_ref()), "response"),
    );
    let status_on_error = from
        .status_on_error
        .map(|status| reader.number(status, format_args!("{field}.statusOnError")))
        .unwrap_or_default();
    let metadata = from.metadata.clone().unwrap_or_default();
    for namespace in &metadata.writable_namespaces {
        // They are what others say of requests that others rely on.
        if namespace.starts_with("envoy.filters.http") {
            let why = format_args!("{namespace:?} is a namespace of Envoy's own filters");
            reader.fault(format_args!("{field}.metadata.writableNamespaces"), why);
        }
    }
    Some(v1::ExternalProcessor {
        reads_metadata: metadata.accessible_namespaces,
        writes_metadata: metadata.writable_namespaces,
        backend: reader.backend(owner, &from.cluster, BackendUsage::Grpc, field)?,
        request,
        response,
        max_duration_ms: destination::timeout(&from.cluster).unwrap_or_default(),
        message_timeout_ms: from.message_timeout.map(millis).unwrap_or_default(),
        fail_open: from.fail_open.unwrap_or_default(),
        status_on_error,
        only_watches: from.shadow_mode.unwrap_or_default(),
        allow_mode_override: mode.and_then(|mode| mode.allow_mode_override).unwrap_or_default(),
    })
}

fn direction(reader: &mut Reader<'_, '_, '_>, from: &ProcessingModeOptions, field: &str) -> Direction {
    let body = match &from.body {
        None => BodyMode::Unspecified,
        Some(ExtProcBodyProcessingMode::Streamed) => BodyMode::Streamed,
        Some(ExtProcBodyProcessingMode::Buffered) => BodyMode::Buffered,
        Some(ExtProcBodyProcessingMode::BufferedPartial) => BodyMode::BufferedPartial,
        Some(ExtProcBodyProcessingMode::FullDuplexStreamed) => BodyMode::FullDuplex,
        Some(ExtProcBodyProcessingMode::Other(other)) => {
            reader.fault(
                format_args!("{field}.body"),
                format_args!("{other:?} is not known"),
            );
            BodyMode::Unspecified
        }
    };
    Direction {
        body: body.into(),
        attributes: from.attributes.clone(),
    }
}
