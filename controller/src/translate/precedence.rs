//! Who comes first where objects contend: the older one, then the first by `namespace/name`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

/// Sorts before those that give way. Objects without a creation time (from files) count as the oldest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    created: Option<Time>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Precedence {
    /// The precedence of an object.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self {
            created: meta.creation_timestamp.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        }
    }
}
