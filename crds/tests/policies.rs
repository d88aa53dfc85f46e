//! The kinds of Envoy Gateway: an object with every field that the CRD has is read and written back whole, so that no
//! field is misspelt; and one with words that nobody knows is read all the same, for an odd object must not end a watch.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sluice_crds::envoy::{
    Backend, BackendTrafficPolicy, ClientTrafficPolicy, EnvoyExtensionPolicy, EnvoyPatchPolicy, EnvoyProxy,
    HTTPRouteFilter, ProxyTelemetry, SecurityPolicy,
};

/// A value for a schema; `word` for each text that is free or one of a set.
fn sample(schema: &Value, word: Option<&str>) -> Value {
    let is_duration = schema["pattern"]
        .as_str()
        .is_some_and(|pattern| pattern.contains("(h|m|s|ms)"));
    if is_duration {
        return json!("1m30s");
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return json!({ "anything": [1, "two"] });
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return json!("32Ki");
    }
    match schema["type"].as_str().unwrap() {
        "object" => {
            let properties = schema["properties"].as_object();
            let fields = properties.into_iter().flatten();
            let mut object: Map<_, _> = fields
                .map(|(name, field)| (name.clone(), sample(field, word)))
                .collect();
            if schema["additionalProperties"].is_object() {
                object.insert("any".to_owned(), sample(&schema["additionalProperties"], word));
            }
            Value::Object(object)
        }
        "array" => json!([sample(&schema["items"], word)]),
        "string" if schema["format"] == "date-time" => json!("2026-01-02T03:04:05Z"),
        "string" => match (word, &schema["enum"]) {
            (Some(word), _) => json!(word),
            (None, Value::Array(words)) => words[0].clone(),
            (None, _) => json!("text"),
        },
        "integer" => json!(7),
        "number" => json!(0.5),
        "boolean" => json!(true),
        other => panic!("no sample of type {other}"),
    }
}

fn round_trip<T: DeserializeOwned + Serialize + kube::CustomResourceExt>() {
    let crd = T::crd();
    let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
    let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
    for word in [None, Some("word that nobody knows")] {
        let object = json!({
            "apiVersion": format!("{}/v1alpha1", crd.spec.group), "kind": crd.spec.names.kind,
            "metadata": { "name": "n", "namespace": "ns" },
            "spec": sample(spec, word),
        });
        let read: T = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), object);
    }
}

macro_rules! round_trips {
    ($($test:ident: $kind:ty,)*) => {
        $(#[test]
        fn $test() {
            round_trip::<$kind>();
        })*
    };
}

round_trips! {
    backend: Backend,
    backend_traffic_policy: BackendTrafficPolicy,
    client_traffic_policy: ClientTrafficPolicy,
    envoy_extension_policy: EnvoyExtensionPolicy,
    envoy_patch_policy: EnvoyPatchPolicy,
    envoy_proxy: EnvoyProxy,
    http_route_filter: HTTPRouteFilter,
    security_policy: SecurityPolicy,
}

#[test]
fn telemetry_of_proxies_is_read_as_the_crd_has_it() {
    let crd = <EnvoyProxy as kube::CustomResourceExt>::crd();
    let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
    let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
    let telemetry = &spec["properties"]["telemetry"];
    for word in [None, Some("word that nobody knows")] {
        let written = sample(telemetry, word);
        let read: ProxyTelemetry = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), written);
    }
}
