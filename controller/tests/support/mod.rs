//! An API server in memory, as far as the controller needs one: objects of any kind, resource versions and
//! generations, conflicts, list, watch, merge patches; applying counts as merging.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The API server.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<(String, Value)>,
}

#[derive(Default)]
struct State {
    /// By path: `/api/v1/namespaces/NS/services/NAME`.
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
    conflicts: u32,
    missing: Vec<&'static str>,
}

/// `/apis/GROUP/VERSION[/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]`.
struct Path {
    /// Collection in one namespace, or in all.
    collection: String,
    plural: String,
    namespace: Option<String>,
    root: String,
    name: Option<String>,
    status: bool,
}

impl Path {
    fn parse(path: &str) -> Self {
        let mut segments: Vec<_> = path.trim_matches('/').split('/').collect();
        let prefix = if segments[0] == "api" { 2 } else { 3 };
        let root = format!("/{}", segments[..prefix].join("/"));
        segments.drain(..prefix);
        let namespace = (segments[0] == "namespaces" && segments.len() > 2).then(|| segments[1].to_owned());
        if namespace.is_some() {
            segments.drain(..2);
        }
        let scope = namespace
            .as_ref()
            .map_or_else(String::new, |namespace| format!("/namespaces/{namespace}"));
        Self {
            collection: format!("{root}{scope}/{}", segments[0]),
            plural: segments[0].to_owned(),
            namespace,
            root,
            name: segments.get(1).map(|name| (*name).to_owned()),
            status: segments.get(2) == Some(&"status"),
        }
    }

    fn object(&self) -> String {
        format!("{}/{}", self.collection, self.name.as_deref().unwrap_or_default())
    }

    fn holds(&self, path: &str) -> bool {
        let other = Self::parse(path);
        let namespace = self.namespace.is_none() || self.namespace == other.namespace;
        namespace && self.root == other.root && self.plural == other.plural
    }
}

#[allow(dead_code)]
impl Api {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            events: broadcast::channel(1024).0,
        }
    }

    /// A client of this server.
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Puts an object there, as another would.
    pub fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().store(&self.events, path, object);
    }

    /// Changes an object, as another would.
    pub fn edit(&self, path: &str, patch: &Value) {
        let mut object = self.get(path).expect("an object to edit");
        json_patch::merge(&mut object, patch);
        self.put(path, object);
    }

    pub fn delete(&self, path: &str) {
        self.state.lock().unwrap().remove(&self.events, path);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub fn paths(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Writes so far: method and path.
    pub fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }

    /// The next `number` patches conflict.
    pub fn conflict(&self, number: u32) {
        self.state.lock().unwrap().conflicts = number;
    }

    /// Collections that are not installed, by plural name.
    pub fn set_missing(&self, plurals: &[&'static str]) {
        self.state.lock().unwrap().missing = plurals.to_vec();
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let path = Path::parse(parts.uri.path());
        let mut state = self.state.lock().unwrap();
        if state.missing.contains(&path.plural.as_str()) {
            return failure(
                StatusCode::NOT_FOUND,
                "the server could not find the requested resource",
            );
        }
        if parts.method != Method::GET {
            state
                .writes
                .push(format!("{} {}", parts.method, parts.uri.path()));
        }
        match (parts.method, &path.name) {
            (Method::GET, Some(_)) => state.objects.get(&path.object()).map_or_else(not_found, success),
            (Method::GET, None) if query.contains("watch=true") => self.watch(path, &state, &query),
            (Method::GET, None) => state.list(&path, &query),
            (Method::POST, None) => {
                let mut body = body;
                if body["metadata"]["name"].is_null() {
                    let prefix = body["metadata"]["generateName"].as_str().unwrap();
                    body["metadata"]["name"] = format!("{prefix}{:05}", state.version).into();
                }
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                let path = Path {
                    name: Some(name),
                    ..path
                }
                .object();
                if state.objects.contains_key(&path) {
                    return failure(StatusCode::CONFLICT, "already exists");
                }
                success(&state.store(&self.events, &path, body))
            }
            (Method::PUT, Some(_)) => {
                let object = path.object();
                if state.is_stale(&object, &body) {
                    return failure(StatusCode::CONFLICT, "modified");
                }
                success(&state.store(&self.events, &object, body))
            }
            (Method::PATCH, Some(_)) => state.patch(&self.events, &path, &body),
            (Method::DELETE, Some(_)) => state
                .remove(&self.events, &path.object())
                .map_or_else(not_found, |o| success(&o)),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "not supported"),
        }
    }

    fn watch(&self, path: Path, state: &State, query: &str) -> Answer {
        let selector = selector(query);
        let since = query
            .split('&')
            .find_map(|p| p.strip_prefix("resourceVersion="))
            .and_then(|v| v.parse().ok());
        let since: u64 = since.unwrap_or(state.version);
        let fresh = state
            .objects
            .iter()
            .filter(|(at, object)| path.holds(at) && version(object) > since);
        let fresh: Vec<_> = fresh
            .map(|(_, object)| json!({ "type": "ADDED", "object": object }))
            .collect();
        let old = futures::stream::iter(fresh);
        let new = BroadcastStream::new(self.events.subscribe()).filter_map(move |event| {
            let event = event
                .ok()
                .filter(|(at, _)| path.holds(at))
                .map(|(_, event)| event);
            std::future::ready(event)
        });
        let lines = old
            .chain(new)
            .filter(move |event| std::future::ready(selects(&selector, &event["object"])))
            .map(|event| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
        let body = BoxBody::new(StreamBody::new(SyncStream(Mutex::new(Box::pin(lines)))));
        Response::new(body)
    }
}

/// [`BoxBody`] asks for `Sync`.
struct SyncStream(Mutex<futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>);

impl futures::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().unwrap().poll_next_unpin(context)
    }
}

impl State {
    fn store(&mut self, events: &broadcast::Sender<(String, Value)>, path: &str, mut object: Value) -> Value {
        let before = self.objects.get(path);
        let same = |field: &str| before.is_some_and(|before| before[field] == object[field]);
        let generation = before
            .and_then(|before| before["metadata"]["generation"].as_u64())
            .unwrap_or_default();
        let generation = generation + u64::from(!same("spec"));
        let known = before.is_some();
        let uid = before.map_or_else(
            || json!(format!("uid-{}", self.version)),
            |b| b["metadata"]["uid"].clone(),
        );
        object["metadata"]["uid"] = uid;
        if object.get("spec").is_some() && !path.contains("/services/") {
            object["metadata"]["generation"] = generation.into();
        }
        if let Some(namespace) = Path::parse(path).namespace {
            object["metadata"]["namespace"] = namespace.into();
        }
        let mut compared = object.clone();
        if let Some(before) = self.objects.get(path) {
            compared["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if compared == *before {
                return compared;
            }
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        let kind = if known { "MODIFIED" } else { "ADDED" };
        let _ = events.send((path.to_owned(), json!({ "type": kind, "object": object })));
        object
    }

    fn remove(&mut self, events: &broadcast::Sender<(String, Value)>, path: &str) -> Option<Value> {
        let mut object = self.objects.remove(path)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let _ = events.send((path.to_owned(), json!({ "type": "DELETED", "object": object })));
        Some(object)
    }

    fn patch(&mut self, events: &broadcast::Sender<(String, Value)>, path: &Path, patch: &Value) -> Answer {
        let at = path.object();
        if self.conflicts > 0 {
            self.conflicts -= 1;
            return failure(StatusCode::CONFLICT, "modified");
        }
        if self.is_stale(&at, patch) {
            return failure(StatusCode::CONFLICT, "modified");
        }
        let Some(mut object) = self.objects.get(&at).cloned() else {
            return if path.status {
                not_found()
            } else {
                success(&self.store(events, &at, patch.clone()))
            };
        };
        if path.status {
            json_patch::merge(&mut object, &json!({ "status": patch["status"] }));
        } else {
            json_patch::merge(&mut object, patch);
        }
        success(&self.store(events, &at, object))
    }

    fn is_stale(&self, path: &str, new: &Value) -> bool {
        let stated = &new["metadata"]["resourceVersion"];
        let held = self
            .objects
            .get(path)
            .map(|object| &object["metadata"]["resourceVersion"]);
        !stated.is_null() && held != Some(stated)
    }

    fn list(&self, path: &Path, query: &str) -> Answer {
        let selector = selector(query);
        let found = self
            .objects
            .iter()
            .filter(|(at, object)| path.holds(at) && selects(&selector, object));
        let items: Vec<_> = found.map(|(_, object)| object.clone()).collect();
        success(&json!({
            "apiVersion": "v1", "kind": "List", "items": items,
            "metadata": { "resourceVersion": self.version.max(1).to_string() },
        }))
    }
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|v| v.parse().ok())
        .unwrap_or_default()
}

fn selector(query: &str) -> Vec<(String, Option<String>)> {
    let raw = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("labelSelector="))
        .unwrap_or_default();
    let text = raw.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    let terms = text.split(',').filter(|term| !term.is_empty());
    terms
        .map(|term| match term.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (term.to_owned(), None),
        })
        .collect()
}

fn selects(selector: &[(String, Option<String>)], object: &Value) -> bool {
    selector.iter().all(|(key, value)| {
        let label = object["metadata"]["labels"][key].as_str();
        label.is_some() && value.as_deref().is_none_or(|value| label == Some(value))
    })
}

fn success(object: &Value) -> Answer {
    Response::new(BoxBody::new(Full::new(Bytes::from(object.to_string()))))
}

fn not_found() -> Answer {
    failure(StatusCode::NOT_FOUND, "not found")
}

fn failure(status: StatusCode, message: &str) -> Answer {
    let reason = match (status, message) {
        (StatusCode::NOT_FOUND, _) => "NotFound",
        (_, "already exists") => "AlreadyExists",
        (StatusCode::CONFLICT, _) => "Conflict",
        _ => "BadRequest",
    };
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "message": message, "reason": reason,
        "code": status.as_u16(),
    });
    let mut answer = success(&body);
    *answer.status_mut() = status;
    answer
}

/// Waits until `condition` holds.
#[allow(dead_code)]
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never happened: {what}");
}
