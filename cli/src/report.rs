//! Statuses in words: one line an object.

use sluice_controller::engine::Status;
use sluice_controller::store::ObjectRef;
use sluice_controller::translate::condition::Condition;
use sluice_crds::gateway::ParentReference;

/// Conditions that are bad news when they hold, and no news when they do not.
const BAD_NEWS: [&str; 5] = [
    "Conflicted",
    "PartiallyInvalid",
    "OverlappingTLSConfig",
    "Overridden",
    "Warning",
];
/// Conditions that an object without fault has.
const GOOD_NEWS: [&str; 3] = ["Accepted", "ResolvedRefs", "Programmed"];

/// The conditions of an object by what they speak of: itself, a listener, a parent.
fn parts(status: &Status) -> Vec<(String, &[Condition])> {
    let of_parent = |reference: &ParentReference| {
        let namespace = reference
            .namespace
            .as_deref()
            .map(|ns| format!("{ns}/"))
            .unwrap_or_default();
        let section = reference
            .section_name
            .as_deref()
            .map(|name| format!("#{name}"))
            .unwrap_or_default();
        format!("by {}{}{section}", namespace, &*reference.name)
    };
    match status {
        Status::GatewayClass { conditions, .. } => vec![(String::new(), conditions)],
        Status::Gateway {
            conditions,
            listeners,
            ..
        }
        | Status::ListenerSet {
            conditions,
            listeners,
            ..
        } => {
            let own = (String::new(), conditions.as_slice());
            let listeners = listeners.iter().map(|listener| {
                (
                    format!(
                        "listener {} (routes: {})",
                        listener.name, listener.attached_routes
                    ),
                    listener.conditions.as_slice(),
                )
            });
            std::iter::once(own).chain(listeners).collect()
        }
        Status::Route { parents, .. } => parents
            .iter()
            .map(|parent| (of_parent(&parent.parent_ref), parent.conditions.as_slice()))
            .collect(),
        Status::Backend { conditions, .. } => vec![(String::new(), conditions.as_slice())],
        Status::Policy { ancestors, .. } => ancestors
            .iter()
            .map(|ancestor| (of_parent(&ancestor.ancestor_ref), ancestor.conditions.as_slice()))
            .collect(),
    }
}

fn words(condition: &Condition) -> Option<String> {
    let Condition {
        kind,
        status,
        reason,
        message,
    } = condition;
    match (BAD_NEWS.contains(kind), *status, message.is_empty()) {
        (true, false, _) => None,
        (false, true, true) => Some((*kind).to_owned()),
        (false, true, false) => Some(format!("{kind} ({message})")),
        (true, true, true) => Some(format!("{kind} ({reason})")),
        (true, true, false) => Some(format!("{kind} ({reason}: {message})")),
        (false, false, true) => Some(format!("{kind}=False ({reason})")),
        (false, false, false) => Some(format!("{kind}=False ({reason}: {message})")),
    }
}

/// The status of an object in one line.
pub(crate) fn line(object: &ObjectRef, status: Option<&Status>) -> String {
    let Some(status) = status else {
        return format!("{object}: not ours any more");
    };
    let parts: Vec<_> = parts(status)
        .into_iter()
        .map(|(of, conditions)| {
            let words: Vec<_> = conditions.iter().filter_map(words).collect();
            let words = if words.is_empty() {
                "no condition".into()
            } else {
                words.join(", ")
            };
            if of.is_empty() {
                words
            } else {
                format!("{of}: {words}")
            }
        })
        .collect();
    format!(
        "{object}: {}",
        if parts.is_empty() {
            "no condition".into()
        } else {
            parts.join("; ")
        }
    )
}

/// True if nothing is wrong with the object.
pub(crate) fn is_good(status: &Status) -> bool {
    parts(status)
        .into_iter()
        .flat_map(|(_, conditions)| conditions)
        .all(|condition| {
            let good = GOOD_NEWS.contains(&condition.kind);
            let bad = BAD_NEWS.contains(&condition.kind);
            !(good && !condition.status || bad && condition.status)
        })
}

#[cfg(test)]
mod tests {
    use sluice_controller::store::Kind;

    use super::*;

    #[test]
    fn one_line_says_all() {
        let object = ObjectRef::new(Kind::GatewayClass, "", "sluice");
        let status = |conditions| Status::GatewayClass {
            generation: 1,
            conditions,
            supported_features: Vec::new(),
        };
        let good = status(vec![Condition::holds("Accepted", "Accepted")]);
        assert_eq!(line(&object, Some(&good)), "GatewayClass sluice: Accepted");
        assert!(is_good(&good));
        let bad = status(vec![Condition::fails(
            "Accepted",
            "InvalidParameters",
            "spec.parametersRef: gone",
        )]);
        assert_eq!(
            line(&object, Some(&bad)),
            "GatewayClass sluice: Accepted=False (InvalidParameters: spec.parametersRef: gone)"
        );
        assert!(!is_good(&bad));
        let conflict = status(vec![
            Condition::warns("Conflicted", "HostnameConflict", "taken"),
            Condition {
                kind: "PartiallyInvalid",
                status: false,
                reason: "x",
                message: String::new(),
            },
        ]);
        assert_eq!(
            line(&object, Some(&conflict)),
            "GatewayClass sluice: Conflicted (HostnameConflict: taken)"
        );
        assert!(!is_good(&conflict));
    }
}
