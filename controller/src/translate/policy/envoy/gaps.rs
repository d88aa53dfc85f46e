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
    /// The element of a list that the field is in has no effect; the rest is honoured, and its status warns.
    LeftOut,
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
        Warned "oidc.provider.backendRefs[].fallback": "one backend is asked",
        Warned "oidc.provider.backendSettings.loadBalancer": "the backend's own settings hold",
        Warned "oidc.provider.backendSettings.proxyProtocol": "the backend's own settings hold",
        Warned "oidc.provider.backendSettings.tcpKeepalive": "the backend's own settings hold",
        Warned "oidc.provider.backendSettings.healthCheck": "the backend's own settings hold",
        Warned "oidc.provider.backendSettings.circuitBreaker": "the backend's own settings hold",
        Warned "oidc.provider.backendSettings.timeout": "an answer may take five seconds",
        Warned "oidc.provider.backendSettings.connection": "the backend's own settings hold",
        Warned "oidc.provider.backendSettings.dns": "the backend's own settings hold",
        Warned "oidc.provider.backendSettings.http2": "the backend's own settings hold",
        Warned "oidc.provider.backendSettings.retry.numAttemptsPerPriority": "endpoints have no priorities",
        Warned "oidc.provider.backendSettings.retry.retryOn": "errors of the connection and statuses from 500 on are retried",
        Warned "oidc.provider.backendSettings.retry.perRetry.timeout": "an answer may take five seconds",
        Warned "extAuth.includeRouteMetadata": "the service is told nothing of the route",
        Warned "extAuth.grpc.backendSettings": "the backend's own settings hold",
        Warned "extAuth.http.backendSettings": "the backend's own settings hold",
        Warned "extAuth.grpc.backendRefs[].fallback": "one backend is asked",
        Warned "extAuth.http.backendRefs[].fallback": "one backend is asked",
        Warned "jwt.providers[].remoteJWKS.backendSettings": "the backend's own settings hold",
        Warned "jwt.providers[].remoteJWKS.backendRefs[].fallback": "one backend is asked",
    }
    BackendTrafficPolicy {
        Warned "rateLimit.local.rules[].limit.fromMetadata": "requests have no metadata",
        Warned "rateLimit.local.rules[].cost.request.metadata": "requests have no metadata",
        Warned "rateLimit.local.rules[].cost.response.metadata": "requests have no metadata",
        Warned "rateLimit.global.rules[].limit.fromMetadata": "requests have no metadata",
        Warned "rateLimit.global.rules[].cost.request.metadata": "requests have no metadata",
        Warned "rateLimit.global.rules[].cost.response.metadata": "requests have no metadata",
        Warned "bandwidthLimit.response.responseTrailers": "delays are not told",
        Warned "retry.numAttemptsPerPriority": "endpoints have no priorities",
        LeftOut "httpUpgrade[].connect": "CONNECT is not supported",
        Warned "telemetry.metrics": "routes are named in metrics as they are",
        Warned "loadBalancer.type=BackendUtilization": "requests go to the less loaded of two endpoints instead",
        Warned "loadBalancer.type=DynamicModule": "requests go to the less loaded of two endpoints instead",
        Warned "loadBalancer.backendUtilization": "it is not supported",
        Warned "loadBalancer.dynamicModule": "there is no Envoy here",
        Warned "healthCheck.active.healthCheckLog": "health is in the metrics",
        Warned "connection.preconnect": "connections are made when they are needed",
        Warned "dns": "names are looked up as often as their TTL asks for, in both families",
        Warned "http2.connectionKeepalive.timeout": "a ping has 5 s to be answered",
        Warned "http2.connectionKeepalive.idleInterval": "pings keep their interval",
        Warned "http2.connectionKeepalive.intervalJitter": "pings keep their interval",
    }
    ClientTrafficPolicy {
        Warned "http3": "HTTP/3 is not served",
        Warned "grpc.enableWeb": "gRPC-Web is not translated",
        Warned "headers.host.stripTrailingHostDot": "hosts are compared without the dot, and passed on as they are",
        Warned "clientIPDetection.xForwardedFor.disableXForwardedForAppend": "the peer is always appended",
        Warned "timeout.tcp.tlsHandshakeTimeout": "the proxy's own bound holds",
        Warned "timeout.tcp.connectionInspectionTimeout": "the proxy's own bound holds",
        Warned "connection.socketBufferLimit": "the system decides",
        Warned "http1.preserveHeaderCase": "names of headers are passed on in lower case",
        Warned "http1.disableSafeMaxConnectionDuration": "connections end between requests",
        Warned "http1.ignoredUpgradeTypes": "see httpUpgrade of BackendTrafficPolicy",
        Warned "http2.connectionKeepalive": "see tcpKeepalive",
        Warned "tls.signatureAlgorithms": "the proxy's own hold",
        Warned "tls.fingerprints": "they are not computed",
        Warned "tls.clientValidation.allowExpiredCertificate": "expired certificates are refused",
    }
    Backend {
        Warned "tls.signatureAlgorithms": "the proxy's own hold",
        Warned "tls.fingerprints": "they are not computed",
    }
    EnvoyExtensionPolicy {
        Refused "wasm": "there is no Envoy here to load it",
        Warned "extProc[].metadata": "requests have no metadata",
        Warned "extProc[].backendSettings": "the backend's own settings hold",
        Warned "extProc[].backendRefs[].fallback": "one backend is asked",
        Refused "lua": "there is no Envoy here to run it",
        Refused "dynamicModule": "there is no Envoy here to load it",
    }
    EnvoyPatchPolicy {
        Refused "jsonPatches": "there is no Envoy here whose configuration could be patched",
    }
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
            Effect::Warned | Effect::LeftOut => {
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

/// Takes out what has no effect. True: so has the element of the list that this is in.
fn strip(kind: Kind, value: &mut Value, path: &mut String) -> bool {
    let length = path.len();
    let mut left_out = false;
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            if length > 0 {
                path.push('.');
            }
            path.push_str(name);
            let gap = GAPS.iter().find(|gap| gap.kind == kind && gap.path == path);
            let is_set = !matches!(value, Value::Null | Value::Bool(false));
            let stays = match gap.map(|gap| gap.effect) {
                Some(Effect::Warned) => false,
                Some(Effect::LeftOut) => {
                    left_out |= is_set;
                    true
                }
                Some(Effect::Refused) => true,
                None => {
                    left_out |= strip(kind, value, path);
                    true
                }
            };
            path.truncate(length);
            stays
        }),
        Value::Array(items) => {
            path.push_str("[]");
            items.retain_mut(|item| !strip(kind, item, path));
            path.truncate(length);
        }
        _ => {}
    }
    left_out
}

fn walk(kind: Kind, value: &Value, path: &mut String, found: &mut Vec<(String, &'static Gap)>) {
    // Switched off is as good as not set.
    if matches!(value, Value::Null | Value::Bool(false)) {
        return;
    }
    let meant = |gap: &&Gap| {
        gap.kind == kind
            && match (gap.path.split_once('='), value.as_str()) {
                (Some((field, meant)), Some(text)) => *path == field && text == meant,
                (None, _) => *path == gap.path,
                _ => false,
            }
    };
    if let Some(gap) = GAPS.iter().find(meant) {
        if !found.iter().any(|(other, _)| other == path) {
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
