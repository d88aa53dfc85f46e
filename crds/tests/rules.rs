//! The CRDs' validation rules speak of fields that there are: one that names another is an error at the API server, which
//! then refuses the CRD or every object.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use serde_json::Value;

/// Methods that follow a field, not fields.
const METHODS: [&str; 13] = [
    "all",
    "contains",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "hasValue",
    "lowerAscii",
    "matches",
    "orValue",
    "size",
    "startsWith",
    "upperAscii",
];

/// `(path, rule)` of each rule below a schema, and how many there are.
fn check(schema: &Value, path: &str, faults: &mut Vec<String>) -> usize {
    let rules = schema["x-kubernetes-validations"].as_array();
    for rule in rules.into_iter().flatten() {
        let rule = rule["rule"].as_str().unwrap();
        faults.extend(
            paths(rule)
                .filter(|fields| !is_there(schema, fields))
                .map(|fields| format!("{path}: {}: {rule}", fields.join("."))),
        );
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    let parts = properties
        .map(|(name, part)| (format!("{path}.{name}"), part))
        .chain([
            (format!("{path}[]"), &schema["items"]),
            (format!("{path}{{}}"), &schema["additionalProperties"]),
        ]);
    let parts = parts.filter(|(_, part)| part.is_object());
    let below: usize = parts.map(|(path, part)| check(part, &path, faults)).sum();
    below + rules.map_or(0, Vec::len)
}

/// The fields that a rule reaches from `self`, name by name.
fn paths(rule: &str) -> impl Iterator<Item = Vec<&str>> {
    rule.split("self").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"._?".contains(c));
        rest[..end.unwrap_or(rest.len())]
            .split('.')
            .skip(1)
            .map(|name| name.trim_start_matches('?'))
            .take_while(|name| !METHODS.contains(name))
            .collect()
    })
}

fn is_there(schema: &Value, fields: &[&str]) -> bool {
    let found = fields
        .iter()
        .try_fold(schema, |schema, field| schema["properties"].get(field));
    found.is_some()
}

#[test]
fn rules_speak_of_fields_that_there_are() {
    let (mut faults, mut rules) = (Vec::new(), 0);
    for crd in sluice_crds::crds() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let kind = &crd.spec.names.kind;
        rules += check(&schema["openAPIV3Schema"], kind, &mut faults);
    }
    assert!(rules > 100, "{rules} rules");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Of several flattened parts the rules of the first are kept alone, so that those of another are lost unseen.
#[test]
fn rules_of_flattened_parts_are_kept() {
    let crds = sluice_crds::crds();
    let has_rule = |kind: &str, pointer: &str, part: &str| {
        let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let pointer = format!("/openAPIV3Schema/properties/spec{pointer}/x-kubernetes-validations");
        let rules = schema.pointer(&pointer).and_then(Value::as_array);
        rules
            .into_iter()
            .flatten()
            .any(|rule| rule["rule"].as_str().unwrap().contains(part))
    };
    for kind in [
        "BackendTrafficPolicy",
        "ClientTrafficPolicy",
        "EnvoyExtensionPolicy",
        "SecurityPolicy",
    ] {
        assert!(
            has_rule(kind, "", "has(self.targetRef) != has(self.targetRefs)"),
            "{kind}"
        );
    }
    assert!(has_rule("BackendTrafficPolicy", "", "predictivePercent"));
    for (kind, tls) in [
        ("Backend", "tls"),
        ("ClientTrafficPolicy", "tls"),
        ("EnvoyProxy", "backendTLS"),
    ] {
        let pointer = format!("/properties/{tls}");
        assert!(
            has_rule(kind, &pointer, "self.minVersion <= self.maxVersion"),
            "{kind}"
        );
    }
    let backend = "/properties/extProc/items/properties/backendRefs/items";
    assert!(has_rule("EnvoyExtensionPolicy", backend, "has(self.port)"));
}
