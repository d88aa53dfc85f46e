//! How resource keys are spelt. A key is unique over all kinds, and its first segment is the kind.

use std::fmt::Display;

/// Key of the one [`Settings`](crate::v1::Settings) resource.
pub const SETTINGS: &str = "settings";

/// Key of a listener: `parent_kind` is `Gateway` or `ListenerSet`.
pub fn listener(parent_kind: &str, namespace: &str, parent: &str, listener: &str) -> String {
    format!("listener/{parent_kind}/{namespace}/{parent}/{listener}")
}

/// Key of a route object.
pub fn route(kind: &str, namespace: &str, name: &str) -> String {
    format!("route/{kind}/{namespace}/{name}")
}

/// Key of a backend. `variant` tells apart backends of one port that are talked to differently (another TLS policy,
/// another protocol); it is empty for the plain one.
pub fn backend(kind: &str, namespace: &str, name: &str, port: u16, variant: impl Display) -> String {
    let variant = variant.to_string();
    if variant.is_empty() {
        format!("backend/{kind}/{namespace}/{name}/{port}")
    } else {
        format!("backend/{kind}/{namespace}/{name}/{port}/{variant}")
    }
}

/// Key of the endpoints of a Service port.
pub fn endpoints(kind: &str, namespace: &str, name: &str, port: u16) -> String {
    format!("endpoints/{kind}/{namespace}/{name}/{port}")
}

/// Key of key material that comes from the object `kind` `namespace/name`.
pub fn secret(kind: &str, namespace: &str, name: &str) -> String {
    format!("secret/{kind}/{namespace}/{name}")
}

/// The kind of resource that a key names: its first segment.
pub fn kind(key: &str) -> &str {
    key.split('/').next().unwrap_or_default()
}

/// Where a resource stands in an update: what it names ranks lower, so it is put before it and removed after it. Kinds
/// that are not known rank highest.
pub fn rank(key: &str) -> u8 {
    match kind(key) {
        SETTINGS => 0,
        "secret" => 1,
        "endpoints" => 2,
        "backend" => 3,
        "route" => 4,
        "listener" => 5,
        _ => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_resource_names_ranks_lower() {
        let keys = [
            SETTINGS.to_owned(),
            secret("Secret", "n", "s"),
            endpoints("Service", "n", "s", 80),
            backend("Service", "n", "s", 80, ""),
            route("HTTPRoute", "n", "r"),
            listener("Gateway", "n", "g", "l"),
            "of/a/later/version".to_owned(),
        ];
        assert!(keys.is_sorted_by(|a, b| rank(a) < rank(b)));
        assert_eq!(rank(&keys[3]), rank(&backend("XBackend", "m", "t", 81, "v")));
    }
}
