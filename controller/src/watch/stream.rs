//! The watch of one kind.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Config, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Message;
use super::reading::{Read, digest, trim_metadata};
use crate::engine::Event;
use crate::metrics::Metrics;
use crate::store::{Object, ObjectRef};

/// Pause before a kind that is not installed is looked for again.
const MISSING_PAUSE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// What every watch needs.
#[derive(Clone)]
pub(super) struct Watch {
    pub client: Client,
    pub controller_name: Arc<str>,
    pub metrics: Arc<Metrics>,
    pub sender: mpsc::Sender<Message>,
    pub stop: CancellationToken,
}

impl Watch {
    /// Watches one kind in the background.
    pub fn start<T: Read + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned>(
        &self,
        config: Config,
    ) {
        let watch = self.clone();
        tokio::spawn(async move {
            let stop = watch.stop.clone();
            tokio::select! {
                () = watch.run::<T>(config) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn run<T: Read + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned>(
        self,
        config: Config,
    ) {
        let mut differ = Differ::<T>::new(Arc::clone(&self.controller_name));
        let mut trouble = Trouble::default();
        loop {
            let api: Api<DeserializeGuard<T>> = Api::all(self.client.clone());
            let mut events = pin!(watcher(api, config.clone()));
            while let Some(event) = events.next().await {
                let message = match event {
                    Ok(event) => {
                        let over = matches!(event, watcher::Event::InitDone | watcher::Event::Apply(_));
                        if over && trouble.end() {
                            info!(kind = %T::KIND, "watch works again");
                        }
                        differ.take(event)
                    }
                    Err(error) if is_missing(&error) => {
                        if trouble.begin() {
                            info!(kind = %T::KIND, "kind is not installed in the cluster");
                        }
                        tokio::time::sleep(MISSING_PAUSE.saturating_mul(u32::from(differ.is_missing))).await;
                        differ.missing()
                    }
                    Err(error) => {
                        self.metrics
                            .watch_errors
                            .get_or_create(&[("kind", T::KIND.as_str())])
                            .inc();
                        if trouble.begin() {
                            warn!(kind = %T::KIND, %error, "watch failed; it is tried again");
                        }
                        tokio::time::sleep(trouble.pause()).await;
                        continue;
                    }
                };
                if let Some(message) = message {
                    self.count::<T>(&message);
                    if self.sender.send(message).await.is_err() {
                        return;
                    }
                } else {
                    self.metrics
                        .skipped_events
                        .get_or_create(&[("kind", T::KIND.as_str())])
                        .inc();
                }
            }
        }
    }

    fn count<T: Read>(&self, message: &Message) {
        let (Message::Events(events) | Message::Listed(_, events)) = message;
        self.metrics
            .events
            .get_or_create(&[("kind", T::KIND.as_str())])
            .inc_by(events.len() as u64);
    }
}

/// Remembers whether a problem has been told of, and how long to wait.
#[derive(Default)]
struct Trouble {
    failures: u32,
}

impl Trouble {
    /// True if the problem is new.
    fn begin(&mut self) -> bool {
        self.failures += 1;
        self.failures == 1
    }

    /// True if there was a problem.
    fn end(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    fn pause(&self) -> Duration {
        FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST_PAUSE)
    }
}

/// The kind's CRD is not installed, or its API group is not served.
fn is_missing(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Turns what the watch says into events, and leaves out what does not matter.
struct Differ<T> {
    controller_name: Arc<str>,
    /// Digests of the objects that the engine knows.
    known: HashMap<ObjectRef, u64, ahash::RandomState>,
    /// While all objects are being listed: the events so far, and what has been seen.
    listing: Option<Listing>,
    is_missing: bool,
    kind: std::marker::PhantomData<fn() -> T>,
}

#[derive(Default)]
struct Listing {
    events: Vec<Event>,
    seen: HashMap<ObjectRef, u64, ahash::RandomState>,
}

impl<T: Read + Resource<DynamicType = ()>> Differ<T> {
    fn new(controller_name: Arc<str>) -> Self {
        let known = HashMap::default();
        Self {
            controller_name,
            known,
            listing: None,
            is_missing: false,
            kind: std::marker::PhantomData,
        }
    }

    fn take(&mut self, event: watcher::Event<DeserializeGuard<T>>) -> Option<Message> {
        match event {
            watcher::Event::Init => {
                self.listing = Some(Listing::default());
                None
            }
            watcher::Event::InitApply(object) => {
                let (reference, object) = self.read(object)?;
                let listing = self.listing.get_or_insert_default();
                let digest = digest(&object);
                let before = self
                    .known
                    .get(&reference)
                    .or_else(|| listing.seen.get(&reference));
                if before != Some(&digest) {
                    listing.events.push(Event::Upsert(Object::new(object)));
                }
                listing.seen.insert(reference, digest);
                None
            }
            watcher::Event::InitDone => {
                self.is_missing = false;
                let Listing { mut events, seen } = self.listing.take().unwrap_or_default();
                let gone = self
                    .known
                    .keys()
                    .filter(|reference| !seen.contains_key(*reference));
                events.extend(gone.cloned().map(Event::Delete));
                self.known = seen;
                Some(Message::Listed(T::KIND, events))
            }
            watcher::Event::Apply(object) => {
                let reference = reference(&object);
                let Some((_, object)) = self.read(object) else {
                    return self.forget(reference);
                };
                let digest = digest(&object);
                let before = self.known.insert(reference, digest);
                (before != Some(digest)).then(|| Message::Events(vec![Event::Upsert(Object::new(object))]))
            }
            watcher::Event::Delete(object) => self.forget(reference(&object)),
        }
    }

    /// The kind is not there: neither are its objects.
    fn missing(&mut self) -> Option<Message> {
        let first = !std::mem::replace(&mut self.is_missing, true);
        self.listing = None;
        let gone: Vec<_> = self
            .known
            .drain()
            .map(|(reference, _)| Event::Delete(reference))
            .collect();
        first.then_some(Message::Listed(T::KIND, gone))
    }

    fn forget(&mut self, reference: ObjectRef) -> Option<Message> {
        self.known.remove(&reference)?;
        Some(Message::Events(vec![Event::Delete(reference)]))
    }

    /// An object that does not have the shape of its kind is told of and counts as absent.
    fn read(&self, object: DeserializeGuard<T>) -> Option<(ObjectRef, T)> {
        let reference = reference(&object);
        match object.0 {
            Ok(mut object) => {
                trim_metadata(&mut object);
                object.trim(&self.controller_name);
                Some((reference, object))
            }
            Err(error) => {
                warn!(object = %reference, error = error.error, "object cannot be read and is ignored");
                None
            }
        }
    }
}

fn reference<T: Read + Resource<DynamicType = ()>>(object: &DeserializeGuard<T>) -> ObjectRef {
    let meta = object.meta();
    ObjectRef::new(
        T::KIND,
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event as Watched;
    use sluice_crds::gateway::ReferenceGrant;

    use super::*;

    fn grant(name: &str, generation: u32) -> DeserializeGuard<ReferenceGrant> {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": name, "namespace": "n", "generation": generation },
            "spec": { "from": [], "to": [] },
        }))
        .unwrap()
    }

    fn text(message: Option<Message>) -> Vec<String> {
        let (Message::Events(events) | Message::Listed(_, events)) = message.unwrap();
        let mut text: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
        text.sort();
        text
    }

    fn differ() -> Differ<ReferenceGrant> {
        Differ::new("ours/c".into())
    }

    fn list(
        differ: &mut Differ<ReferenceGrant>,
        objects: &[DeserializeGuard<ReferenceGrant>],
    ) -> Vec<String> {
        assert!(differ.take(Watched::Init).is_none());
        for object in objects {
            assert!(differ.take(Watched::InitApply(object.clone())).is_none());
        }
        text(differ.take(Watched::InitDone))
    }

    #[test]
    fn a_list_after_a_break_gives_only_the_difference() {
        let mut differ = differ();
        let first = list(&mut differ, &[grant("a", 1), grant("b", 1), grant("c", 1)]);
        assert_eq!(first.len(), 3);
        let second = list(&mut differ, &[grant("a", 1), grant("b", 2)]);
        assert_eq!(
            second,
            ["Delete(ReferenceGrant n/c)", "Upsert(ReferenceGrant n/b)"]
        );
    }

    #[test]
    fn changes_that_do_not_matter_end_here() {
        let mut differ = differ();
        list(&mut differ, &[grant("a", 1)]);
        let mut touched = grant("a", 1);
        touched.meta_mut().resource_version = Some("2".into());
        assert!(differ.take(Watched::Apply(touched)).is_none());
        assert_eq!(
            text(differ.take(Watched::Apply(grant("a", 2)))),
            ["Upsert(ReferenceGrant n/a)"]
        );
        assert_eq!(
            text(differ.take(Watched::Delete(grant("a", 2)))),
            ["Delete(ReferenceGrant n/a)"]
        );
        assert!(differ.take(Watched::Delete(grant("a", 2))).is_none());
    }

    #[test]
    fn an_object_of_wrong_shape_is_as_good_as_gone() {
        let broken: DeserializeGuard<ReferenceGrant> = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "a", "namespace": "n" }, "spec": { "from": "everywhere" },
        }))
        .unwrap();
        let mut differ = differ();
        assert!(list(&mut differ, std::slice::from_ref(&broken)).is_empty());
        list(&mut differ, &[grant("a", 1)]);
        assert_eq!(
            text(differ.take(Watched::Apply(broken))),
            ["Delete(ReferenceGrant n/a)"]
        );
    }

    #[test]
    fn a_kind_that_is_not_installed_is_empty_and_said_once() {
        let mut differ = differ();
        list(&mut differ, &[grant("a", 1)]);
        assert_eq!(text(differ.missing()), ["Delete(ReferenceGrant n/a)"]);
        assert!(differ.take(Watched::Init).is_none());
        assert!(differ.missing().is_none());
        assert_eq!(list(&mut differ, &[grant("a", 1)]).len(), 1);
        assert!(differ.missing().is_some());
    }
}
