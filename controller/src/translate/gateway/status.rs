//! Statuses of a Gateway, its ListenerSets and all their listeners.

use super::listener::Draft;
use super::programming::Programming;
use super::sets::Set;
use crate::engine::{ListenerStatus, Status};
use crate::translate::condition::Condition;
use crate::translate::fault::{Fault, stated};

const ACCEPTED: &str = "Accepted";
const PROGRAMMED: &str = "Programmed";
const RESOLVED_REFS: &str = "ResolvedRefs";
const CONFLICTED: &str = "Conflicted";

/// Why a Gateway is not accepted because of its own listeners: none of them is.
pub fn no_listener_accepted(own: &[Draft]) -> Option<Fault> {
    let any = own.iter().any(|draft| not_accepted(draft).is_none());
    (!any).then(|| Fault::new("ListenersNotValid", faults(own, not_accepted)))
}

/// Conditions of the Gateway itself.
pub fn gateway_conditions(
    own: &[Draft],
    fault: Option<&Fault>,
    remark: &str,
    client_certificate: Option<&Fault>,
    insecure: &[String],
    programming: &Programming,
) -> Vec<Condition> {
    let mut accepted = stated(ACCEPTED, ACCEPTED, fault);
    if accepted.status {
        let invalid = faults(own, not_accepted);
        if invalid.is_empty() {
            remark.clone_into(&mut accepted.message);
        } else {
            accepted = Condition::warns(ACCEPTED, "ListenersNotValid", invalid);
        }
    }
    let unresolved = faults(own, |draft| draft.resolved.as_ref());
    let unresolved = (!unresolved.is_empty()).then(|| Fault::new("ListenersNotResolved", unresolved));
    let mut conditions = vec![
        accepted,
        stated(PROGRAMMED, PROGRAMMED, programming.fault.as_ref()),
        stated(
            RESOLVED_REFS,
            RESOLVED_REFS,
            client_certificate.or(unresolved.as_ref()),
        ),
    ];
    if !insecure.is_empty() {
        let message = format!(
            "clients without a valid certificate are let through: {}",
            insecure.join(", ")
        );
        conditions.push(Condition::warns(
            "InsecureFrontendValidationMode",
            "ConfigurationChanged",
            message,
        ));
    }
    conditions
}

/// Status of a ListenerSet, and whether it is accepted. `gateway_accepted` speaks of its Gateway.
pub fn listener_set(
    set: &Set,
    drafts: &[Draft],
    gateway_accepted: bool,
    programming: &Programming,
) -> (Status, bool) {
    let accepted = if !set.allowed {
        Some(Fault::new(
            "NotAllowed",
            "the Gateway's spec.allowedListeners does not admit this ListenerSet",
        ))
    } else if !gateway_accepted {
        Some(Fault::new("ParentNotAccepted", "the Gateway is not accepted"))
    } else if !drafts.iter().any(Draft::serves) {
        Some(Fault::new("ListenersNotValid", faults(drafts, not_serving)))
    } else {
        None
    };
    let listeners: Vec<_> = drafts
        .iter()
        .map(|draft| listener(draft, gateway_accepted, programming))
        .collect();
    let programmed = match (&accepted, &programming.fault) {
        (Some(fault), _) if fault.reason == "ParentNotAccepted" => {
            Some(Fault::new("ParentNotProgrammed", fault.message.clone()))
        }
        (Some(fault), _) => Some(fault.clone()),
        (None, Some(fault)) => Some(Fault::new("ParentNotProgrammed", fault.message.clone())),
        (None, None) if listeners.iter().any(is_programmed) => None,
        (None, None) => Some(Fault::new("Invalid", "no listener is programmed")),
    };
    let is_accepted = accepted.is_none();
    let mut accepted = stated(ACCEPTED, ACCEPTED, accepted.as_ref());
    let invalid = faults(drafts, not_serving);
    if is_accepted && !invalid.is_empty() {
        accepted = Condition::warns(ACCEPTED, "ListenersNotValid", invalid);
    }
    let conditions = vec![accepted, stated(PROGRAMMED, PROGRAMMED, programmed.as_ref())];
    let generation = set.object.metadata.generation.unwrap_or_default();
    (
        Status::ListenerSet {
            generation,
            conditions,
            listeners,
        },
        is_accepted,
    )
}

/// Status of a listener. `parent_accepted`: whether the Gateway is.
pub fn listener(draft: &Draft, parent_accepted: bool, programming: &Programming) -> ListenerStatus {
    let programmed = if let Some(conflict) = &draft.conflict {
        Some(conflict.clone())
    } else if !draft.serves() {
        Some(Fault::new("Invalid", "see the other conditions"))
    } else if !parent_accepted {
        Some(Fault::new("Invalid", "the Gateway is not accepted"))
    } else {
        programming.listener_fault(draft)
    };
    let conflicted = match &draft.conflict {
        Some(conflict) => Condition::warns(CONFLICTED, conflict.reason, conflict.message.clone()),
        None => Condition::fails(CONFLICTED, "NoConflicts", ""),
    };
    let mut conditions = vec![
        stated(ACCEPTED, ACCEPTED, not_accepted(draft)),
        stated(PROGRAMMED, PROGRAMMED, programmed.as_ref()),
        stated(RESOLVED_REFS, RESOLVED_REFS, draft.resolved.as_ref()),
        conflicted,
    ];
    if let Some(overlap) = &draft.overlap {
        conditions.push(Condition::warns(
            "OverlappingTLSConfig",
            "OverlappingHostnames",
            overlap.clone(),
        ));
    }
    ListenerStatus {
        key: draft.key.clone(),
        name: draft.name.to_string(),
        supported_kinds: draft.kinds.clone(),
        attached_routes: 0,
        conditions,
    }
}

fn is_programmed(listener: &ListenerStatus) -> bool {
    listener
        .conditions
        .iter()
        .any(|condition| condition.kind == PROGRAMMED && condition.status)
}

/// Why a listener is not accepted, conflicts included.
fn not_accepted(draft: &Draft) -> Option<&Fault> {
    draft.conflict.as_ref().or(draft.accepted.as_ref())
}

/// Why a listener does not serve.
fn not_serving(draft: &Draft) -> Option<&Fault> {
    if draft.serves() {
        None
    } else {
        not_accepted(draft).or(draft.resolved.as_ref())
    }
}

/// Names the listeners that have a fault, with its reason; empty if there are none.
fn faults(drafts: &[Draft], fault: impl Fn(&Draft) -> Option<&Fault>) -> String {
    let name = |draft: &Draft| Some(format!("{} ({})", draft.name, fault(draft)?.reason));
    let names: Vec<_> = drafts.iter().filter_map(name).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("listeners: {}", names.join(", "))
    }
}
