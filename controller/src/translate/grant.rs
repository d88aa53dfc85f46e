//! Whether a reference into another namespace is allowed: the one reading of ReferenceGrants, for every kind.

use sluice_crds::gateway::ReferenceGrant;

use crate::engine::View;
use crate::store::{Kind, ObjectRef};

/// Who refers: the parts of an object that a grant can name.
#[derive(Debug, Clone, Copy)]
pub struct Referrer<'a> {
    /// API group.
    pub group: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Namespace.
    pub namespace: &'a str,
}

impl<'a> Referrer<'a> {
    /// An object as the referrer.
    pub fn object(object: &'a ObjectRef) -> Self {
        Self {
            group: object.kind.group(),
            kind: object.kind.as_str(),
            namespace: &object.namespace,
        }
    }
}

/// Permits `from` to refer to `to`.
///
/// # Errors
/// What people are told if no grant allows it.
pub fn permit(view: &View<'_>, from: &ObjectRef, to: &ObjectRef) -> Result<(), String> {
    let ObjectRef {
        kind,
        namespace,
        name,
        ..
    } = to;
    if is_granted(view, Referrer::object(from), *kind, namespace, name) {
        Ok(())
    } else {
        Err(format!(
            "no ReferenceGrant in namespace {namespace} allows a reference to {to}"
        ))
    }
}

/// Whether `from` may refer to the object `to_kind` `to_namespace/to_name`: always within one namespace, else if a
/// ReferenceGrant in the namespace of the target says so.
pub fn is_granted(
    view: &View<'_>,
    from: Referrer<'_>,
    to_kind: Kind,
    to_namespace: &str,
    to_name: &str,
) -> bool {
    if from.namespace == to_namespace {
        return true;
    }
    view.list_in::<ReferenceGrant>(to_namespace).iter().any(|grant| {
        let names_referrer = grant
            .spec
            .from
            .iter()
            .any(|f| f.group == from.group && f.kind == from.kind && f.namespace == from.namespace);
        let names_target = grant.spec.to.iter().any(|t| {
            t.group == to_kind.group()
                && t.kind == to_kind.as_str()
                && t.name
                    .as_deref()
                    .is_none_or(|name| name.is_empty() || name == to_name)
        });
        names_referrer && names_target
    })
}
