//! Opens connections to backends before they are needed. How many, [`crate::upstream::ahead`] says.

use std::sync::Arc;

use crate::upstream::ahead::Counted;
use crate::upstream::connect::{Version, prepare, spare};
use crate::upstream::health::Member;
use crate::upstream::{Active, Backend, Endpoint};
use crate::worker::Worker;

/// A request goes out: counts it until what is returned is dropped, and opens what it makes likely to be needed. `None`: the
/// backend does not ask for that.
pub(super) fn look(
    worker: &Arc<Worker>,
    backend: &Arc<Backend>,
    active: &Active,
    version: Version,
) -> Option<Box<Counted>> {
    let ahead = backend.ahead.as_ref()?;
    let endpoint = active.endpoint();
    let idle = |all: bool| {
        if !all {
            return spare(&worker.pool, backend, endpoint, version);
        }
        let set = backend.endpoints.load();
        let each = set.serving().iter().chain(set.draining());
        each.fold(0, |sum: u32, endpoint| {
            sum.saturating_add(spare(&worker.pool, backend, endpoint, version))
        })
    };
    let (counted, wanted) = ahead.begin(endpoint.address(), idle);
    for _ in 0..wanted.here {
        open(worker, backend, (endpoint, active.member()), version);
    }
    let balancer = backend.balancer.as_ref().filter(|_| wanted.next > 0);
    for _ in 0..wanted.next {
        let Some(next) = balancer.and_then(|balancer| balancer.foresee(&backend.endpoints)) else {
            break;
        };
        let at = next.endpoint();
        if at.address() == endpoint.address() || spare(&worker.pool, backend, at, version) == 0 {
            open(worker, backend, (at, Some(&next)), version);
        }
    }
    Some(Box::new(counted))
}

fn open(
    worker: &Arc<Worker>,
    backend: &Arc<Backend>,
    (endpoint, member): (&Arc<Endpoint>, Option<&Arc<Member>>),
    version: Version,
) {
    let Some(ahead) = &backend.ahead else { return };
    let opening = ahead.opening(endpoint.address());
    let (worker, backend, endpoint) = (Arc::clone(worker), Arc::clone(backend), Arc::clone(endpoint));
    let member = member.cloned();
    tokio::spawn(async move {
        prepare(&worker.pool, &backend, &endpoint, member.as_ref(), version).await;
        drop(opening);
    });
}
