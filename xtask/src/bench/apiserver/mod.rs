//! An API server in memory, at a port of 127.0.0.1: as much of the Kubernetes API as `sluice controller` uses.
//!
//! It lists in pages, watches from a version, patches, applies and reviews tokens, so that tens of thousands of objects
//! are there in a second and what is measured is the controller. It has no schemas and checks no permissions; every kind
//! that is asked for is installed. Real clusters are what the other benchmarks and the tests run on.

mod store;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

use store::{Place, Refused, Selector, Store};

/// How often a watch that has nothing to say tells the present version.
const BOOKMARK: Duration = Duration::from_mins(1);

/// The running server; it ends with this value.
pub struct ApiServer {
    store: Arc<Mutex<Store>>,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl ApiServer {
    /// Starts it, without objects.
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let store = Arc::new(Mutex::new(Store::default()));
        runtime.spawn(accept(listener, Arc::clone(&store)));
        let bookmarks = Arc::clone(&store);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(BOOKMARK).await;
                lock(&bookmarks).bookmark();
            }
        });
        Ok(Self {
            store,
            address,
            _runtime: runtime,
        })
    }

    /// Puts an object, as a client that replaces it whole; watches tell of it.
    pub fn put(&self, object: &Value) -> Result<()> {
        let place = Place::of(object)?;
        lock(&self.store).put(&place, object.clone());
        Ok(())
    }

    /// An object.
    pub fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        let json = lock(&self.store).get(&Place::new(collection, namespace, name))?;
        serde_json::from_slice(&json).ok()
    }

    /// Writes a kubeconfig by which it is reached, into a directory.
    pub fn kubeconfig(&self, directory: &Path) -> Result<PathBuf> {
        let path = directory.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "bench", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "bench", "user": {} }],
            "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "bench" } }],
            "current-context": "bench",
        });
        std::fs::write(&path, config.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, store: Arc<Mutex<Store>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let store = Arc::clone(&store);
                async move { Ok::<_, Infallible>(answer(request, &store).await) }
            });
            // The controller's end breaks connections; that is no concern of ours.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A response's body.
enum Answer {
    Whole(Option<Bytes>),
    Watch(UnboundedReceiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Watch(events) => events.poll_recv(context),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn answer(request: Request<Incoming>, store: &Mutex<Store>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return refuse(Refused::Bad),
    };
    let Some((place, subresource)) = Place::parse(head.uri.path()) else {
        return refuse(Refused::NotFound);
    };
    let query = Query(head.uri.query().unwrap_or_default());
    let sent = || serde_json::from_slice::<Value>(&body).map_err(|_| Refused::Bad);
    let mut store = lock(store);
    let done = match (&head.method, place.name.is_empty()) {
        (&Method::GET, true) => {
            let selector = Selector::parse(&query.get("labelSelector"));
            if query.get("watch") == "true" || query.get("watch") == "1" {
                let since = query.get("resourceVersion").parse().unwrap_or(0);
                let events = store.watch(&place.collection, selector, since);
                return respond(StatusCode::OK, Answer::Watch(events));
            }
            let limit = query.get("limit").parse().ok();
            Ok(store.list(&place, &selector, limit, &query.get("continue")))
        }
        (&Method::GET, false) => store.get(&place).ok_or(Refused::NotFound),
        (&Method::POST, _) if place.collection.ends_with("/tokenreviews") => {
            sent().map(|review| reviewed(&review))
        }
        (&Method::POST, _) => sent().and_then(|object| store.create(&place, object)),
        (&Method::PUT, _) => sent().and_then(|object| store.replace(&place, object)),
        (&Method::PATCH, _) => sent().and_then(|patch| {
            let kind = head.headers.get(hyper::header::CONTENT_TYPE);
            let apply = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
            store.patch(&place, subresource.as_deref(), &patch, apply)
        }),
        (&Method::DELETE, _) => store.delete(&place),
        _ => Err(Refused::Bad),
    };
    match done {
        Ok(json) => respond(StatusCode::OK, Answer::Whole(Some(json))),
        Err(refused) => refuse(refused),
    }
}

/// The token is the name of whom it stands for.
fn reviewed(review: &Value) -> Bytes {
    let mut review = review.clone();
    review["status"] = json!({
        "authenticated": true,
        "user": { "username": review["spec"]["token"] },
        "audiences": review["spec"]["audiences"],
    });
    review.to_string().into()
}

fn respond(status: StatusCode, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    response
}

fn refuse(refused: Refused) -> Response<Answer> {
    let (status, reason) = match refused {
        Refused::NotFound => (StatusCode::NOT_FOUND, "NotFound"),
        Refused::Conflict => (StatusCode::CONFLICT, "Conflict"),
        Refused::Bad => (StatusCode::BAD_REQUEST, "BadRequest"),
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": status.as_u16(),
    });
    respond(status, Answer::Whole(Some(body.to_string().into())))
}

/// The query of a URI.
struct Query<'a>(&'a str);

impl Query<'_> {
    /// A parameter's value, decoded; empty if there is none.
    fn get(&self, name: &str) -> String {
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
        percent_encoding::percent_decode_str(&value.unwrap_or_default().replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    }
}
