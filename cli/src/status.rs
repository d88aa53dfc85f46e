//! `sluice status`: the Gateways and routes of a cluster with their conditions.

use std::process::ExitCode;

use anyhow::Context;
use kube::api::{Api, DynamicObject, ListParams};
use kube::discovery::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::args;

const GROUP: &str = "gateway.networking.k8s.io";
/// Kind, plural and version of what is shown. A version that a cluster does not serve is passed over.
const KINDS: [(&str, &str, &str, bool); 9] = [
    ("GatewayClass", "gatewayclasses", "v1", false),
    ("Gateway", "gateways", "v1", true),
    ("ListenerSet", "listenersets", "v1", true),
    ("HTTPRoute", "httproutes", "v1", true),
    ("GRPCRoute", "grpcroutes", "v1", true),
    ("TLSRoute", "tlsroutes", "v1", true),
    ("TCPRoute", "tcproutes", "v1", true),
    ("UDPRoute", "udproutes", "v1", true),
    ("BackendTLSPolicy", "backendtlspolicies", "v1", true),
];

/// Prints a line for each object.
pub(crate) async fn run(args: args::Status) -> anyhow::Result<ExitCode> {
    let client = Client::try_default().await.context("no access to a cluster")?;
    for (kind, plural, version, namespaced) in KINDS {
        let resource = ApiResource {
            group: GROUP.into(),
            version: version.into(),
            api_version: format!("{GROUP}/{version}"),
            kind: kind.into(),
            plural: plural.into(),
        };
        let api: Api<DynamicObject> = match args.namespace.as_deref().filter(|_| namespaced) {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let objects = match api.list(&ListParams::default()).await {
            Ok(objects) => objects,
            // The kind is not installed.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error).with_context(|| format!("list of {plural}")),
        };
        for object in objects {
            let namespace = object
                .namespace()
                .map(|namespace| namespace + "/")
                .unwrap_or_default();
            println!(
                "{kind} {namespace}{}: {}",
                object.name_any(),
                describe(&object.data["status"])
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All conditions of a status: its own, and those towards listeners, parents and ancestors.
fn describe(status: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(own) = conditions(status) {
        parts.push(own);
    }
    let addresses: Vec<_> = items(&status["addresses"])
        .filter_map(|address| address["value"].as_str())
        .collect();
    if !addresses.is_empty() {
        parts.push(format!("at {}", addresses.join(", ")));
    }
    for listener in items(&status["listeners"]) {
        let name = listener["name"].as_str().unwrap_or_default();
        let routes = listener["attachedRoutes"].as_i64().unwrap_or_default();
        let conditions = conditions(listener).unwrap_or_else(|| "no condition".into());
        parts.push(format!("listener {name} (routes: {routes}): {conditions}"));
    }
    for (list, reference) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
        for entry in items(&status[list]) {
            let name = entry[reference]["name"].as_str().unwrap_or_default();
            let conditions = conditions(entry).unwrap_or_else(|| "no condition".into());
            parts.push(format!("by {name}: {conditions}"));
        }
    }
    if parts.is_empty() {
        "no status".into()
    } else {
        parts.join("; ")
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn conditions(of: &Value) -> Option<String> {
    let words: Vec<_> = items(&of["conditions"])
        .map(|condition| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            match text("status") {
                "True" => text("type").to_owned(),
                status => format!(
                    "{}={status} ({}: {})",
                    text("type"),
                    text("reason"),
                    text("message")
                ),
            }
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part_is_described() {
        let accepted =
            json!([{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "fine"}]);
        let failed = json!([{"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "no a/b"}]);
        let gateway = json!({
            "conditions": accepted,
            "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
            "listeners": [{"name": "http", "attachedRoutes": 2, "conditions": accepted}],
        });
        assert_eq!(
            describe(&gateway),
            "Accepted; at 10.0.0.1; listener http (routes: 2): Accepted"
        );
        let route = json!({"parents": [{"parentRef": {"name": "gw"}, "conditions": failed}]});
        assert_eq!(
            describe(&route),
            "by gw: ResolvedRefs=False (BackendNotFound: no a/b)"
        );
        assert_eq!(describe(&Value::Null), "no status");
    }
}
