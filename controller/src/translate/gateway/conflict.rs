//! Listeners beside each other: which ones cannot be told apart, and whose TLS settings overlap.
//!
//! Between objects the earlier one in precedence keeps its listeners. Within one object there is no winner: all
//! listeners that cannot be told apart are conflicted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::listener::Draft;
use super::ports::Port;
use crate::translate::fault::Fault;
use crate::translate::model::Protocol;

/// What listeners of one port must have in common to be told apart by their hostnames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Family {
    /// By the host of each request.
    Http,
    /// By SNI.
    Tls,
    /// Not at all.
    Raw,
}

fn family(protocol: Protocol) -> Family {
    match protocol {
        Protocol::Http => Family::Http,
        Protocol::Https | Protocol::TlsPassthrough | Protocol::TlsTerminate => Family::Tls,
        Protocol::Tcp | Protocol::Udp => Family::Raw,
    }
}

type Hostname = Option<Arc<str>>;

/// What listeners of earlier objects hold.
type Held = HashMap<Port, (Family, HashSet<Hostname>)>;

/// Finds conflicts. `drafts` are in order of precedence, those of one object next to each other.
pub fn settle(drafts: &mut [Draft]) {
    let mut held = Held::new();
    for group in drafts.chunk_by_mut(|a, b| a.parent == b.parent) {
        for draft in group.iter_mut() {
            draft.conflict = draft.protocol.and_then(|p| with_earlier(&held, draft, family(p)));
        }
        among_themselves(group);
        for draft in group.iter().filter(|draft| draft.holds_port()) {
            if let Some(protocol) = draft.protocol {
                let (_, hostnames) = held
                    .entry(draft.transport())
                    .or_insert_with(|| (family(protocol), HashSet::new()));
                hostnames.insert(draft.hostname.clone());
            }
        }
    }
}

/// The conflict with a listener that goes before. The message names no other object: its owner may be another team.
fn with_earlier(held: &Held, draft: &Draft, family: Family) -> Option<Fault> {
    if !draft.well_formed {
        return None;
    }
    let (other, hostnames) = held.get(&draft.transport())?;
    if *other != family || family == Family::Raw {
        let message = format!("port {} is taken by a listener that goes before", draft.port);
        return Some(Fault::new("ProtocolConflict", message));
    }
    hostnames.contains(&draft.hostname).then(|| {
        let hostname = draft.hostname.as_deref().unwrap_or("*");
        let message = format!(
            "hostname {hostname} of port {} is taken by a listener that goes before",
            draft.port
        );
        Fault::new("HostnameConflict", message)
    })
}

fn among_themselves(group: &mut [Draft]) {
    let mut by_port = BTreeMap::<Port, Vec<usize>>::new();
    for (index, draft) in group.iter().enumerate().filter(|(_, draft)| draft.holds_port()) {
        by_port.entry(draft.transport()).or_default().push(index);
    }
    for (port, indices) in by_port.into_iter().filter(|(_, indices)| indices.len() > 1) {
        let families: HashSet<_> = indices
            .iter()
            .filter_map(|i| group[*i].protocol.map(family))
            .collect();
        let mut uses = HashMap::<Hostname, usize>::new();
        for index in &indices {
            *uses.entry(group[*index].hostname.clone()).or_default() += 1;
        }
        for index in indices {
            let draft = &mut group[index];
            if families.len() > 1 || families.contains(&Family::Raw) {
                let message = format!(
                    "listeners of port {} cannot be told apart by their protocols",
                    port.number
                );
                draft.conflict = Some(Fault::new("ProtocolConflict", message));
            } else if uses.get(&draft.hostname).is_some_and(|uses| *uses > 1) {
                let hostname = draft.hostname.as_deref().unwrap_or("*");
                let message = format!(
                    "several listeners of port {} have hostname {hostname}",
                    port.number
                );
                draft.conflict = Some(Fault::new("HostnameConflict", message));
            }
        }
    }
}

/// Marks listeners that terminate TLS on one port for hostnames of which one covers another.
pub fn mark_overlaps(drafts: &mut [Draft]) {
    let mut by_port = BTreeMap::<u16, Vec<usize>>::new();
    for (index, draft) in drafts
        .iter()
        .enumerate()
        .filter(|(_, draft)| draft.terminates() && draft.serves())
    {
        by_port.entry(draft.port).or_default().push(index);
    }
    for indices in by_port.into_values().filter(|indices| indices.len() > 1) {
        let by_hostname: HashMap<Hostname, usize> = indices
            .iter()
            .map(|index| (drafts[*index].hostname.clone(), *index))
            .collect();
        for index in &indices {
            let wider = covering(drafts[*index].hostname.as_deref());
            for other in wider.iter().filter_map(|hostname| by_hostname.get(hostname)) {
                drafts[*index].overlap = Some(overlap(&drafts[*other]));
                if drafts[*other].overlap.is_none() {
                    drafts[*other].overlap = Some(overlap(&drafts[*index]));
                }
            }
        }
    }
}

fn overlap(other: &Draft) -> String {
    format!(
        "overlaps with hostname {} of the same port",
        other.hostname.as_deref().unwrap_or("*")
    )
}

/// Every hostname that covers this one, without itself, the nearest last.
fn covering(hostname: Option<&str>) -> Vec<Hostname> {
    let Some(hostname) = hostname else {
        return Vec::new();
    };
    let mut covering = vec![None];
    let labels: Vec<_> = hostname
        .strip_prefix("*.")
        .unwrap_or(hostname)
        .split('.')
        .collect();
    for at in 1..labels.len() {
        let wildcard: Arc<str> = format!("*.{}", labels[labels.len() - at..].join(".")).into();
        covering.push(Some(wildcard));
    }
    covering
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_hostnames() {
        let of = |hostname| {
            covering(Some(hostname))
                .iter()
                .map(|h| h.as_deref().unwrap_or("*").to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("a.b.c"), ["*", "*.c", "*.b.c"]);
        assert_eq!(of("*.b.c"), ["*", "*.c"]);
        assert!(covering(None).is_empty());
    }
}
