//! `sluice translate`: what follows from the manifests of a folder.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;
use serde_yaml_ng::Value;
use sluice_controller::engine::{Engine, Environment, Mode, Status};

use crate::args;
use crate::folder::Folder;

/// An engine that holds the objects of a folder, and what is wrong with its files.
pub(crate) fn engine(args: &args::Folder) -> anyhow::Result<(Engine, Vec<String>)> {
    let reload = Folder::new(&args.config).reload()?;
    let mut engine = Engine::new(environment(&args.controller_name, "127.0.0.1", &args.rate_limit));
    engine.apply(reload.events);
    Ok((engine, reload.problems))
}

/// What is fixed when the proxy is this process.
pub(crate) fn environment(
    controller_name: &str,
    address: &str,
    rate_limit: &args::RateLimits,
) -> Environment {
    Environment {
        controller_name: controller_name.to_owned(),
        namespace: "sluice-system".to_owned(),
        mode: Mode::Standalone(address.to_owned()),
        xff_trusted_hops: 0,
        allow_local_backends: false,
        login_key: None,
        rate_limit: rate_limit.service(),
    }
}

#[derive(Serialize)]
struct Printed {
    /// Resources by key, for each Gateway.
    config: BTreeMap<String, BTreeMap<String, Value>>,
    statuses: BTreeMap<String, Status>,
}

/// Prints configuration and statuses as YAML, without key material.
pub(crate) fn run(args: &args::Folder) -> anyhow::Result<ExitCode> {
    let (engine, problems) = engine(args)?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    let mut config = BTreeMap::new();
    for gateway in engine.fleets() {
        let mut resources = BTreeMap::new();
        for (key, resource) in engine.config(gateway) {
            resources.insert(key.to_owned(), readable(serde_yaml_ng::to_value(&resource.body)?));
        }
        config.insert(gateway.to_string(), resources);
    }
    let statuses = engine
        .statuses()
        .map(|(object, status)| (object.to_string(), status))
        .collect();
    print!("{}", serde_yaml_ng::to_string(&Printed { config, statuses })?);
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Bytes that are text become text.
fn readable(value: Value) -> Value {
    match value {
        Value::Sequence(items) if !items.is_empty() => match text(&items) {
            Some(text) => Value::String(text),
            None => Value::Sequence(items.into_iter().map(readable).collect()),
        },
        Value::Mapping(map) => Value::Mapping(
            map.into_iter()
                .map(|(key, value)| (key, readable(value)))
                .collect(),
        ),
        Value::Tagged(tagged) => {
            let serde_yaml_ng::value::TaggedValue { tag, value } = *tagged;
            let name = tag.to_string().trim_start_matches('!').to_owned();
            Value::Mapping([(Value::String(name), readable(value))].into_iter().collect())
        }
        other => other,
    }
}

/// The text that these numbers spell, if they are PEM.
fn text(items: &[Value]) -> Option<String> {
    let bytes = items
        .iter()
        .map(|item| u8::try_from(item.as_u64()?).ok())
        .collect::<Option<Vec<_>>>()?;
    let text = String::from_utf8(bytes).ok()?;
    text.contains("-----BEGIN").then_some(text)
}
