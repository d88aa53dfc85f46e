//! What a status becomes: ours laid over what is there. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as Written, Time};
use serde::Serialize;
use serde_json::{Value, json};
use sluice_crds::envoy::BackendStatus;
use sluice_crds::gateway::{
    GatewayClassStatus, GatewayStatus, ListenerSetStatus, ListenerStatus as WrittenListener, ParentReference,
    RouteGroupKind, SupportedFeature,
};

use crate::engine::{ListenerStatus, Status};
use crate::translate::condition::Condition;

/// `maxLength` of a condition's message.
const MESSAGE_BYTES: usize = 32 * 1024;
/// `maxItems` of `status.parents`.
pub(super) const PARENTS: usize = 32;
/// `maxItems` of `status.ancestors`.
pub(super) const ANCESTORS: usize = 16;
/// The same for XBackends.
const BACKEND_ANCESTORS: usize = 32;

/// Conditions as they are written; the time of one that was there with the same status is kept.
pub(super) fn conditions(ours: &[Condition], generation: i64, live: &[Written], now: &Time) -> Vec<Written> {
    let write = |condition: &Condition| {
        let status = if condition.status { "True" } else { "False" };
        let before = live
            .iter()
            .find(|live| live.type_ == condition.kind && live.status == status);
        let mut message = condition.message.clone();
        if message.len() > MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
        }
        Written {
            type_: condition.kind.to_owned(),
            status: status.to_owned(),
            reason: condition.reason.to_owned(),
            message,
            observed_generation: Some(generation),
            last_transition_time: before
                .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        }
    };
    ours.iter().map(write).collect()
}

/// Which list of entries by controller it is.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    /// Field of the entry that names what it speaks of.
    pub reference: &'static str,
    /// Field of the status.
    pub list: &'static str,
    /// How many there may be.
    pub max: usize,
}

pub(super) const OF_ROUTES: Entries = Entries {
    reference: "parentRef",
    list: "parents",
    max: PARENTS,
};
pub(super) const OF_POLICIES: Entries = Entries {
    reference: "ancestorRef",
    list: "ancestors",
    max: ANCESTORS,
};
pub(super) const OF_BACKENDS: Entries = Entries {
    max: BACKEND_ANCESTORS,
    ..OF_POLICIES
};

impl Entries {
    /// The list with our entries replaced. Entries of others stay untouched and in place; ours stay in place, so that
    /// order alone never causes a write. Beyond `max` entries ours are left out.
    pub fn merge<'a>(
        self,
        live: &[Value],
        controller_name: &str,
        generation: i64,
        ours: impl Iterator<Item = (&'a ParentReference, &'a [Condition])>,
        now: &Time,
    ) -> Vec<Value> {
        let is_ours = |entry: &&Value| entry["controllerName"] == controller_name;
        let mut ours: Vec<_> = ours
            .map(|(reference, stated)| {
                let reference = plain(reference);
                let before = live.iter().filter(is_ours).find(|entry| entry[self.reference] == reference);
                let before: Vec<Written> = before.and_then(|entry| parse(&entry["conditions"])).unwrap_or_default();
                let written = conditions(stated, generation, &before, now);
                Some(json!({
                    self.reference: reference, "controllerName": controller_name, "conditions": plain(&written),
                }))
            })
            .collect();
        let mut merged = Vec::with_capacity(live.len() + ours.len());
        for entry in live {
            if !is_ours(&entry) {
                merged.push(entry.clone());
            } else if let Some(new) = ours.iter_mut().find(|new| {
                new.as_ref()
                    .is_some_and(|new| new[self.reference] == entry[self.reference])
            }) {
                merged.extend(new.take());
            }
        }
        merged.extend(ours.into_iter().flatten());
        let foreign = merged.iter().filter(|entry| !is_ours(entry)).count();
        let mut room = self.max.saturating_sub(foreign);
        merged.retain(|entry| {
            !is_ours(&entry) || {
                let fits = room > 0;
                room = room.saturating_sub(1);
                fits
            }
        });
        merged
    }
}

/// The whole status of a kind with one controller.
pub(super) fn whole(status: &Status, live: &Value, now: &Time) -> Value {
    let before = |list: &Value| parse::<Vec<Written>>(list).unwrap_or_default();
    let own = before(&live["conditions"]);
    match status {
        Status::GatewayClass {
            generation,
            conditions: ours,
            supported_features,
        } => plain(&GatewayClassStatus {
            conditions: conditions(ours, *generation, &own, now),
            supported_features: supported_features
                .iter()
                .map(|name| SupportedFeature {
                    name: (*name).to_owned(),
                })
                .collect(),
        }),
        Status::Gateway {
            generation,
            conditions: ours,
            addresses,
            listeners,
            attached_listener_sets,
        } => {
            plain(&GatewayStatus {
                addresses: addresses.clone(),
                conditions: conditions(ours, *generation, &own, now),
                listeners: write_listeners(listeners, *generation, live, now),
                // CRDs before v1.5 do not know the field, and zero is the same as absent.
                attached_listener_sets: (*attached_listener_sets > 0).then_some(*attached_listener_sets),
            })
        }
        Status::ListenerSet {
            generation,
            conditions: ours,
            listeners,
        } => plain(&ListenerSetStatus {
            conditions: conditions(ours, *generation, &own, now),
            listeners: write_listeners(listeners, *generation, live, now),
        }),
        Status::Backend {
            generation,
            conditions: ours,
        } => plain(&BackendStatus {
            conditions: conditions(ours, *generation, &own, now),
        }),
        Status::Route { .. } | Status::Policy { .. } => Value::Null,
    }
}

fn write_listeners(
    ours: &[ListenerStatus],
    generation: i64,
    live: &Value,
    now: &Time,
) -> Vec<WrittenListener> {
    let live = live["listeners"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let write = |listener: &ListenerStatus| {
        let before = live
            .iter()
            .find(|before| before["name"] == listener.name.as_str());
        let before: Vec<Written> = before
            .and_then(|before| parse(&before["conditions"]))
            .unwrap_or_default();
        let kind = |kind: &crate::store::Kind| RouteGroupKind {
            group: Some(kind.group().to_owned()),
            kind: kind.as_str().to_owned(),
        };
        WrittenListener {
            name: listener.name.clone(),
            supported_kinds: listener.supported_kinds.iter().map(kind).collect(),
            attached_routes: listener.attached_routes,
            conditions: conditions(&listener.conditions, generation, &before, now),
        }
    };
    ours.iter().map(write).collect()
}

/// Whether two statuses are the same but for the order of lists that are maps.
pub(super) fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|o| is_same(value, o)))
        }
        (Value::Array(one), Value::Array(other)) => {
            let find = |item: &Value| match list_key(item) {
                Some(field) => other.iter().find(|o| o[field] == item[field]),
                None => other.iter().find(|o| *o == item),
            };
            one.len() == other.len()
                && one
                    .iter()
                    .all(|item| find(item).is_some_and(|o| is_same(item, o)))
        }
        _ => one == other,
    }
}

fn list_key(item: &Value) -> Option<&'static str> {
    ["type", "name"]
        .into_iter()
        .find(|field| item.get("status").is_some() == (*field == "type") && item.get(*field).is_some())
}

pub(super) fn plain(value: &impl Serialize) -> Value {
    // Our own types have string keys throughout: this cannot fail.
    serde_json::to_value(value).unwrap_or_default()
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    const OURS: &str = "sluice.dev/gateway-controller";

    fn time(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn reference(name: &str) -> ParentReference {
        ParentReference {
            name: name.to_owned(),
            ..Default::default()
        }
    }

    fn merge(live: &[Value], ours: &[(ParentReference, Vec<Condition>)], now: i64) -> Vec<Value> {
        let ours = ours.iter().map(|(r, c)| (r, c.as_slice()));
        OF_ROUTES.merge(live, OURS, 2, ours, &time(now))
    }

    fn accepted(status: bool) -> Vec<Condition> {
        vec![if status {
            Condition::holds("Accepted", "Accepted")
        } else {
            Condition::fails("Accepted", "No", "x")
        }]
    }

    #[test]
    fn entries_of_others_stay_as_they_are() {
        let foreign =
            json!({ "parentRef": { "name": "a" }, "controllerName": "foreign/c", "future": { "field": 1 } });
        let merged = merge(
            std::slice::from_ref(&foreign),
            &[(reference("a"), accepted(true))],
            5,
        );
        assert_eq!(merged[0], foreign);
        assert_eq!(merged[1]["controllerName"], OURS);
        assert_eq!(merged[1]["conditions"][0]["observedGeneration"], 2);
        assert_eq!(merge(&merged, &[], 6), [foreign]);
    }

    #[test]
    fn time_changes_with_the_status_alone() {
        let first = merge(&[], &[(reference("a"), accepted(true))], 5);
        assert_eq!(merge(&first, &[(reference("a"), accepted(true))], 9), first);
        let failed = merge(&first, &[(reference("a"), accepted(false))], 9);
        assert_eq!(
            failed[0]["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:00:09Z"
        );
        let mut other_reason = accepted(false);
        other_reason[0].reason = "Other";
        let other = merge(&failed, &[(reference("a"), other_reason)], 20);
        assert_eq!(
            other[0]["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:00:09Z"
        );
        assert_eq!(other[0]["conditions"][0]["reason"], "Other");
    }

    #[test]
    fn order_stays_and_parents_that_are_gone_go() {
        let live = merge(
            &[],
            &["a", "b", "c"].map(|name| (reference(name), accepted(true))),
            1,
        );
        let merged = merge(
            &live,
            &["d", "c", "a"].map(|name| (reference(name), accepted(true))),
            1,
        );
        let names: Vec<_> = merged
            .iter()
            .map(|entry| entry["parentRef"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "c", "d"]);
    }

    #[test]
    fn ours_are_left_out_beyond_the_limit() {
        let live: Vec<_> = (0..PARENTS - 1)
            .map(|i| json!({ "parentRef": { "name": i.to_string() }, "controllerName": "foreign/c" }))
            .collect();
        let merged = merge(
            &live,
            &["a", "b"].map(|name| (reference(name), accepted(true))),
            1,
        );
        assert_eq!(merged.len(), PARENTS);
        assert_eq!(merged[PARENTS - 1]["parentRef"]["name"], "a");
    }

    #[test]
    fn a_gateway_status_is_the_same_in_any_order_of_its_maps() {
        let listener = |name: &str| ListenerStatus {
            key: name.into(),
            name: name.to_owned(),
            supported_kinds: vec![crate::store::Kind::HTTPRoute],
            attached_routes: 1,
            conditions: accepted(true),
        };
        let status = Status::Gateway {
            generation: 3,
            conditions: vec![
                Condition::holds("Accepted", "Accepted"),
                Condition::holds("Programmed", "Programmed"),
            ],
            addresses: vec![sluice_crds::gateway::GatewayStatusAddress {
                value: "192.0.2.1".to_owned(),
                ..Default::default()
            }],
            listeners: vec![listener("a"), listener("b")],
            attached_listener_sets: 0,
        };
        let live = whole(&status, &Value::Null, &time(1));
        assert!(live.get("attachedListenerSets").is_none());
        let mut shuffled = live.clone();
        shuffled["conditions"].as_array_mut().unwrap().reverse();
        shuffled["listeners"].as_array_mut().unwrap().reverse();
        assert!(
            is_same(&shuffled, &whole(&status, &shuffled, &time(7))),
            "and times are kept"
        );
        shuffled["listeners"][0]["attachedRoutes"] = 2.into();
        assert!(!is_same(&shuffled, &live));
        let mut more = live.clone();
        more["conditions"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "type": "Foreign", "status": "True" }));
        assert!(!is_same(&more, &live));
    }
}
