//! Strategic merge patches, as far as they concern the objects of a proxy: lists of objects merge by Kubernetes' keys.

use serde_json::{Map, Value};

/// Lays `patch` over `target`.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() || directive(patch) == Some("replace") {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (field, value) in patch {
        if let Some(list) = field.strip_prefix("$deleteFromPrimitiveList/") {
            if let Some(Value::Array(items)) = target.get_mut(list) {
                items.retain(|item| !value.as_array().is_some_and(|gone| gone.contains(item)));
            }
        } else if field.starts_with('$') {
            // The order of elements ($setElementOrder) carries no meaning in what we make.
        } else {
            merge_field(target, field, value);
        }
    }
}

fn merge_field(target: &mut Map<String, Value>, field: &str, value: &Value) {
    match value {
        Value::Null => _ = target.remove(field),
        Value::Object(patch) if directive(patch) == Some("delete") => _ = target.remove(field),
        Value::Object(_) => merge(target.entry(field).or_insert(Value::Null), value),
        Value::Array(patch) => {
            if let (Some(Value::Array(items)), Some(keys)) = (target.get_mut(field), merge_keys(field, patch))
            {
                merge_list(items, patch, keys);
                return;
            }
            let items = patch
                .iter()
                .filter(|item| item.as_object().is_none_or(|item| directive(item).is_none()));
            target.insert(field.to_owned(), items.cloned().collect());
        }
        plain => _ = target.insert(field.to_owned(), plain.clone()),
    }
}

fn merge_list(items: &mut Vec<Value>, patch: &[Value], keys: &[&str]) {
    if patch.iter().any(|item| {
        item.as_object()
            .is_some_and(|i| i.len() == 1 && directive(i) == Some("replace"))
    }) {
        items.clear();
    }
    for item in patch {
        let Value::Object(fields) = item else { continue };
        let stated: Vec<_> = keys.iter().filter(|key| fields.contains_key(**key)).collect();
        if stated.is_empty() {
            continue;
        }
        let at = items
            .iter()
            .position(|existing| stated.iter().all(|key| existing[**key] == item[**key]));
        match (at, directive(fields)) {
            (Some(at), Some("delete")) => _ = items.remove(at),
            (None, Some("delete")) => {}
            (Some(at), _) => merge(&mut items[at], item),
            (None, _) => {
                let mut new = Value::Null;
                merge(&mut new, item);
                items.push(new);
            }
        }
    }
}

fn directive(object: &Map<String, Value>) -> Option<&str> {
    object.get("$patch").and_then(Value::as_str)
}

/// The fields by which elements of a list are told apart (`patchMergeKey` of Kubernetes' types); `None`: the list is
/// replaced. `protocol` counts for ports if the patch has it: one number may serve TCP and UDP.
fn merge_keys(field: &str, patch: &[Value]) -> Option<&'static [&'static str]> {
    Some(match field {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" | "resourceClaims" => {
            &["name"]
        }
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        "hostAliases" => &["ip"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        "ports" if patch.iter().any(|port| port.get("containerPort").is_some()) => {
            &["containerPort", "protocol"]
        }
        "ports" => &["port", "protocol"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut target: Value, patch: &Value) -> Value {
        merge(&mut target, patch);
        target
    }

    #[test]
    fn ports_merge_by_number() {
        let service = json!({ "spec": { "ports": [
            { "port": 80, "protocol": "TCP", "targetPort": 10080 }, { "port": 80, "protocol": "UDP", "targetPort": 10080 },
        ] } });
        let patch = json!({ "spec": { "ports": [{ "port": 80, "nodePort": 30080 }, { "port": 81 }] } });
        let patched = merged(service.clone(), &patch);
        assert_eq!(patched["spec"]["ports"][0]["nodePort"], 30080);
        assert_eq!(patched["spec"]["ports"][0]["targetPort"], 10080);
        assert_eq!(patched["spec"]["ports"].as_array().unwrap().len(), 3);
        let udp = json!({ "spec": { "ports": [{ "port": 80, "protocol": "UDP", "nodePort": 30053 }] } });
        assert_eq!(merged(service, &udp)["spec"]["ports"][1]["nodePort"], 30053);
    }

    #[test]
    fn containers_merge_by_name_and_can_be_deleted() {
        let pod =
            json!({ "containers": [{ "name": "proxy", "image": "a", "args": ["x"] }, { "name": "side" }] });
        let patch = json!({ "containers": [{ "name": "proxy", "args": ["y"] }, { "name": "side", "$patch": "delete" }] });
        assert_eq!(
            merged(pod, &patch),
            json!({ "containers": [{ "name": "proxy", "image": "a", "args": ["y"] }] })
        );
    }

    #[test]
    fn null_and_directives_remove_and_replace() {
        let object = json!({ "a": 1, "b": { "c": 1, "d": 2 }, "l": ["x", "y"], "e": { "f": 1 } });
        let patch = json!({
            "a": null, "b": { "$patch": "replace", "z": 1 }, "$deleteFromPrimitiveList/l": ["x"], "e": { "$patch": "delete" },
        });
        assert_eq!(merged(object, &patch), json!({ "b": { "z": 1 }, "l": ["y"] }));
    }

    #[test]
    fn other_lists_are_replaced() {
        let patched = merged(
            json!({ "tolerations": [{ "key": "a" }] }),
            &json!({ "tolerations": [{ "key": "b" }] }),
        );
        assert_eq!(patched, json!({ "tolerations": [{ "key": "b" }] }));
    }
}
