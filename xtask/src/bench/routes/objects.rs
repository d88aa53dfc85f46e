//! The objects of a cluster with many routes: each on a host of its own, over a hundred Services of one endpoint each.

use serde_json::{Value, json};

/// Group and version of the kinds.
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
/// The collection that routes are in.
pub const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
/// Where everything is.
pub const NAMESPACE: &str = "default";
/// The Gateway.
pub const GATEWAY: &str = "bench";
const SERVICES: u32 = 100;

/// How many there are of what, and the ports.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub routes: u32,
    /// ListenerSets, each with a listener for the hosts of its share of the routes; 0: all routes are at the Gateway.
    pub sets: u32,
    pub port: u16,
    pub backend: u16,
}

impl Size {
    /// The host of a route; routes are counted from 0.
    pub fn host(self, route: u32) -> String {
        match self.sets {
            0 => format!("r{route}.bench.test"),
            sets => format!("r{route}.s{}.bench.test", route % sets),
        }
    }

    /// Everything but the routes.
    pub fn others(self) -> Vec<Value> {
        let mut objects = vec![
            object("v1", "Namespace", NAMESPACE, json!({})),
            object("v1", "Namespace", "sluice-system", json!({})),
            object(
                GATEWAY_API,
                "GatewayClass",
                "sluice",
                json!({ "controllerName": "sluice.dev/gateway-controller" }),
            ),
            object(
                GATEWAY_API,
                "Gateway",
                GATEWAY,
                json!({
                    "gatewayClassName": "sluice",
                    "allowedListeners": { "namespaces": { "from": "Same" } },
                    "listeners": [{ "name": "http", "port": self.port, "protocol": "HTTP" }],
                }),
            ),
        ];
        objects.extend((0..SERVICES.min(self.routes)).flat_map(|service| self.service(service)));
        objects.extend((0..self.sets).map(|set| {
            let listener = json!({
                "name": "http", "port": self.port, "protocol": "HTTP",
                "hostname": format!("*.s{set}.bench.test"),
            });
            let spec = json!({ "parentRef": { "name": GATEWAY }, "listeners": [listener] });
            object(GATEWAY_API, "ListenerSet", &format!("s{set}"), spec)
        }));
        objects
    }

    fn service(self, service: u32) -> [Value; 2] {
        let name = format!("b{service}");
        let spec = json!({ "clusterIP": "10.0.0.1", "ports": [{ "name": "http", "port": 80, "targetPort": self.backend }] });
        let mut slice = object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            &format!("{name}-1"),
            json!(null),
        );
        slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": name });
        slice["addressType"] = "IPv4".into();
        slice["ports"] = json!([{ "name": "http", "port": self.backend, "protocol": "TCP" }]);
        slice["endpoints"] = json!([{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }]);
        [object("v1", "Service", &name, spec), slice]
    }

    /// A route; its answers say `value` in the header `x-version` unless that is empty.
    pub fn route(self, route: u32, value: &str) -> Value {
        let parent = match self.sets {
            0 => json!({ "name": GATEWAY }),
            sets => json!({ "kind": "ListenerSet", "name": format!("s{}", route % sets) }),
        };
        let filters = match value {
            "" => json!([]),
            value => json!([{
                "type": "ResponseHeaderModifier",
                "responseHeaderModifier": { "set": [{ "name": "x-version", "value": value }] },
            }]),
        };
        let rule = json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
            "filters": filters,
            "backendRefs": [{
                "group": "", "kind": "Service", "name": format!("b{}", route % SERVICES.min(self.routes)),
                "port": 80, "weight": 1,
            }],
        });
        let spec = json!({ "parentRefs": [parent], "hostnames": [self.host(route)], "rules": [rule] });
        object(GATEWAY_API, "HTTPRoute", &format!("r{route}"), spec)
    }
}

fn object(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name } });
    if !matches!(kind, "Namespace" | "GatewayClass") {
        object["metadata"]["namespace"] = NAMESPACE.into();
    }
    if !spec.is_null() {
        object["spec"] = spec;
    }
    object
}
