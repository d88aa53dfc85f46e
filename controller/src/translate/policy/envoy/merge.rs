//! Laying one policy, or one set of parameters, over another.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Lists that StrategicMerge merges element by element, with the field that tells elements apart. Others are replaced.
const KEYED: &[(&str, &str)] = &[
    ("compression", "type"),
    ("compressor", "type"),
    ("httpUpgrade", "type"),
    ("contextExtensions", "name"),
    ("env", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("volumeMounts", "mountPath"),
];
/// What says where a policy applies and how: of no concern to the result.
const ABOUT: &[&str] = &["targetRef", "targetRefs", "targetSelectors", "mergeType"];

/// `inner` laid over `outer`, and the fields that `inner` sets.
pub fn specs<S: Serialize + DeserializeOwned>(
    outer: &S,
    inner: &S,
    strategic: bool,
) -> Result<(S, BTreeSet<String>), serde_json::Error> {
    let mut merged = serde_json::to_value(outer)?;
    let mut over = serde_json::to_value(inner)?;
    for value in [&mut merged, &mut over] {
        if let Value::Object(fields) = value {
            fields.retain(|name, _| !ABOUT.contains(&name.as_str()));
        }
    }
    let own = match &over {
        Value::Object(fields) => fields.keys().cloned().collect(),
        _ => BTreeSet::new(),
    };
    lay(&mut merged, over, strategic);
    Ok((serde_json::from_value(merged)?, own))
}

fn lay(under: &mut Value, over: Value, strategic: bool) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                let key = KEYED.iter().find(|(list, _)| strategic && *list == name);
                match (under.get_mut(&name), key) {
                    (Some(Value::Array(under)), Some((_, key))) => lay_list(under, value, key),
                    (Some(under), _) => lay(under, value, strategic),
                    (None, _) => {
                        under.insert(name, value);
                    }
                }
            }
        }
        (under, over) => *under = over,
    }
}

fn lay_list(under: &mut Vec<Value>, over: Value, key: &str) {
    let Value::Array(over) = over else { return };
    for value in over {
        match under.iter_mut().find(|held| held.get(key) == value.get(key)) {
            Some(held) => lay(held, value, true),
            None => under.push(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluice_crds::envoy::BackendTrafficPolicySpec;

    fn merged(outer: Value, inner: Value, strategic: bool) -> (Value, Vec<String>) {
        let read = |value| serde_json::from_value::<BackendTrafficPolicySpec>(value).unwrap();
        let (spec, own) = super::specs(&read(outer), &read(inner), strategic).unwrap();
        (serde_json::to_value(spec).unwrap(), own.into_iter().collect())
    }

    #[test]
    fn fields_that_are_not_set_come_from_the_outer_policy() {
        let outer = json!({
            "targetRef": { "group": "g", "kind": "Gateway", "name": "g" },
            "timeout": { "tcp": { "connectTimeout": "3s" }, "http": { "requestTimeout": "7s" } },
            "compression": [{ "type": "Gzip", "minContentLength": 9 }],
        });
        let inner = json!({
            "targetRef": { "group": "g", "kind": "HTTPRoute", "name": "r" }, "mergeType": "StrategicMerge",
            "timeout": { "http": { "requestTimeout": "1s" } },
            "compression": [{ "type": "Brotli" }],
        });
        let timeout = json!({ "tcp": { "connectTimeout": "3s" }, "http": { "requestTimeout": "1s" } });
        let (spec, own) = merged(outer.clone(), inner.clone(), true);
        let both = json!([{ "type": "Gzip", "minContentLength": 9 }, { "type": "Brotli" }]);
        assert_eq!(spec, json!({ "timeout": timeout.clone(), "compression": both }));
        assert_eq!(own, ["compression", "timeout"]);
        let (spec, _) = merged(outer, inner, false);
        assert_eq!(
            spec,
            json!({ "timeout": timeout, "compression": [{ "type": "Brotli" }] })
        );
    }
}
