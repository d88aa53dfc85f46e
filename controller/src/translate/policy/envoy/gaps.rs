//! Fields that are read and not honoured: the one list of them.
//!
//! A field that is set and on this list is told in the status of its object. `docs/envoy-gateway.md` is checked against
//! it, so a field that is not on the list is one that is honoured.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::reader::Reader;
use crate::store::Kind;

/// What becomes of an object that sets the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is not accepted; what it governs is answered with an error.
    Refused,
    /// The rest of it is honoured, and its status warns.
    Warned,
}

/// A field that is not honoured, with all that is below it.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// Kind of the object.
    pub kind: Kind,
    /// Path in its spec, `[]` for any element of a list; perhaps with `=` and the one value that is meant.
    pub path: &'static str,
    /// What becomes of it.
    pub effect: Effect,
    /// Why, for people.
    pub why: &'static str,
}

macro_rules! gaps {
    ($($kind:ident { $($effect:ident $path:literal: $why:literal,)* })*) => {
        /// All of them.
        pub const GAPS: &[Gap] = &[$($(Gap {
            kind: Kind::$kind,
            path: $path,
            effect: Effect::$effect,
            why: $why,
        },)*)*];
    };
}

gaps! {
    SecurityPolicy {
    }
    BackendTrafficPolicy {
        Warned "loadBalancer.type=DynamicModule": "requests go to the less loaded of two endpoints instead",
        Warned "loadBalancer.dynamicModule": "there is no Envoy here",
    }
    Backend {
        Warned "tls.fingerprints": "they are of clients",
    }
    EnvoyExtensionPolicy {
        Refused "wasm": "there is no Envoy here to load it",
        Refused "lua": "there is no Envoy here to run it",
        Refused "dynamicModule": "there is no Envoy here to load it",
    }
    EnvoyProxy {
        Refused "provider.type=Host": "proxies run in the cluster",
        Warned "provider.host": "proxies run in the cluster",
        Warned "bootstrap": "there is no Envoy here to be started with it",
        Warned "extraArgs": "there is no Envoy here to take them",
        Warned "filterOrder[].name=envoy.filters.http.health_check": "health is told before any filter runs",
        Warned "filterOrder[].name=envoy.filters.http.header_mutation": "headers that a ClientTrafficPolicy changes are changed before and after all filters",
        Warned "filterOrder[].name=envoy.filters.http.geoip": "clients are looked up when authorization asks for it",
        Warned "filterOrder[].name=envoy.filters.http.bandwidth_limit": "what goes to backends and clients is held to its pace after all filters",
        Warned "filterOrder[].name=envoy.filters.http.grpc_web": "gRPC-Web is gRPC before any filter runs",
        Warned "filterOrder[].name=envoy.filters.http.grpc_stats": "requests are counted when they have ended",
        Warned "filterOrder[].name=envoy.filters.http.dynamic_forward_proxy": "destinations are looked up after all filters",
        Warned "luaValidation": "there is no Envoy here to run Lua",
        Warned "dynamicModules": "there is no Envoy here to load them",
        Warned "mergeBackends": "routes that use a backend alike share it in any case",
        Warned "backendTLS.fingerprints": "they are of clients",
    }
    EnvoyPatchPolicy {
        Refused "jsonPatches": "there is no Envoy here whose configuration could be patched",
    }
}

/// The gaps of a field, each with the value that is meant, if one is. What `backendSettings` ask anywhere is what a
/// BackendTrafficPolicy asks at its root, and so are their gaps.
pub fn of(kind: Kind, path: &str) -> impl Iterator<Item = (&'static Gap, Option<&'static str>)> {
    let settings = path.split_once("backendSettings.").map(|(_, rest)| rest);
    GAPS.iter().filter_map(move |gap| {
        let (field, value) = match gap.path.split_once('=') {
            Some((field, value)) => (field, Some(value)),
            None => (gap.path, None),
        };
        let is_own = gap.kind == kind && field == path;
        let is_of_settings = gap.kind == Kind::BackendTrafficPolicy && settings == Some(field);
        (is_own || is_of_settings).then_some((gap, value))
    })
}

/// The gap that a field is, whatever its value.
fn whole(kind: Kind, path: &str) -> Option<&'static Gap> {
    of(kind, path).find_map(|(gap, value)| value.is_none().then_some(gap))
}

/// What of a spec is not honoured, each field once.
pub fn found<S: Serialize>(kind: Kind, spec: &S) -> Vec<(String, &'static Gap)> {
    let mut found = Vec::new();
    let value = serde_json::to_value(spec).unwrap_or_default();
    walk(kind, &value, &mut String::new(), &mut found);
    found
}

/// Notes them; gives the spec without what has no effect.
pub fn honoured<S: Serialize + DeserializeOwned + Clone>(
    reader: &mut Reader<'_, '_, '_>,
    kind: Kind,
    spec: &S,
) -> S {
    let found = found(kind, spec);
    let mut strips = false;
    for (path, gap) in found {
        match gap.effect {
            Effect::Refused => reader.fault(path, gap.why),
            Effect::Warned => {
                strips = true;
                reader.warnings.push(format!("spec.{path}: {}", gap.why));
            }
        }
    }
    if !strips {
        return spec.clone();
    }
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    strip(kind, &mut value, &mut String::new());
    S::deserialize(value).unwrap_or_else(|_| spec.clone())
}

/// Takes out what has no effect.
fn strip(kind: Kind, value: &mut Value, path: &mut String) {
    let length = path.len();
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            if length > 0 {
                path.push('.');
            }
            path.push_str(name);
            let gap = whole(kind, path);
            if gap.is_none() {
                strip(kind, value, path);
            }
            path.truncate(length);
            gap.is_none_or(|gap| gap.effect == Effect::Refused)
        }),
        Value::Array(items) => {
            path.push_str("[]");
            for item in items {
                strip(kind, item, path);
            }
            path.truncate(length);
        }
        _ => {}
    }
}

fn walk(kind: Kind, value: &Value, path: &mut String, found: &mut Vec<(String, &'static Gap)>) {
    // Switched off is as good as not set.
    if matches!(value, Value::Null | Value::Bool(false)) {
        return;
    }
    let meant = |meant: Option<&str>| meant.is_none() || meant == value.as_str();
    if let Some((gap, _)) = of(kind, path).find(|(_, value)| meant(*value)) {
        if !found
            .iter()
            .any(|(other, known)| other == path && known.path == gap.path)
        {
            found.push((path.clone(), gap));
        }
        return;
    }
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(name);
                walk(kind, value, path, found);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            path.push_str("[]");
            for item in items {
                walk(kind, item, path, found);
            }
            path.truncate(length);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
