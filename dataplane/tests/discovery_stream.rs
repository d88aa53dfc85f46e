//! The discovery client against a controller in this process: authentication, deltas, refusals, and what happens when the
//! controller goes away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sluice_config::v1;
use sluice_config::v1::config_discovery_server::{ConfigDiscovery, ConfigDiscoveryServer};
use sluice_config::v1::proxy_message::Message;
use sluice_dataplane::discovery::{Source, Target, follow};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// Anything that takes longer never happens.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it never happened")
}

/// Holds keys and versions; refuses keys with `bad` in them.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<BTreeMap<String, String>>>, Arc<Mutex<bool>>);

impl Held {
    fn get(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().clone().into_iter().collect()
    }

    async fn until(&self, wanted: &[(&str, &str)]) {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        soon(async {
            while self.get() != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

impl Target for Held {
    fn apply(&self, update: &v1::Update) -> v1::Ack {
        let mut held = self.0.lock().unwrap();
        let mut rejected = Vec::new();
        for resource in &update.upserts {
            if resource.key.contains("bad") {
                rejected.push(v1::Rejection {
                    key: resource.key.clone(),
                    version: resource.version.clone(),
                    reason: "it is bad".into(),
                });
            } else {
                held.insert(resource.key.clone(), resource.version.clone());
            }
        }
        update.removes.iter().for_each(|key| drop(held.remove(key)));
        *self.1.lock().unwrap() |= update.synced;
        v1::Ack {
            nonce: update.nonce,
            rejected,
        }
    }

    fn known(&self) -> HashMap<String, String> {
        self.get().into_iter().collect()
    }
}

/// One stream as the controller has it.
struct Connected {
    token: String,
    subscribe: v1::Subscribe,
    messages: Streaming<v1::ProxyMessage>,
    updates: mpsc::Sender<Result<v1::Update, Status>>,
}

impl Connected {
    async fn send(&mut self, nonce: u64, upserts: &[(&str, &str)], removes: &[&str]) -> v1::Ack {
        let upserts = upserts.iter().map(|(key, version)| v1::Resource {
            key: (*key).into(),
            version: (*version).into(),
            body: Some(v1::resource::Body::Settings(v1::Settings::default())),
        });
        let removes = removes.iter().map(|key| (*key).to_owned()).collect();
        let update = v1::Update {
            nonce,
            upserts: upserts.collect(),
            removes,
            synced: true,
        };
        self.updates.send(Ok(update)).await.unwrap();
        match soon(self.messages.message()).await.unwrap().unwrap().message {
            Some(Message::Ack(ack)) => ack,
            other => panic!("{other:?} is no ack"),
        }
    }
}

struct Controller(mpsc::Sender<Connected>);

#[tonic::async_trait]
impl ConfigDiscovery for Controller {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<v1::Update, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .map(|t| t.to_str().unwrap().to_owned());
        let token = token.ok_or_else(|| Status::unauthenticated("no token"))?;
        let mut messages = request.into_inner();
        let Some(Message::Subscribe(subscribe)) = messages.message().await?.and_then(|m| m.message) else {
            return Err(Status::invalid_argument("no Subscribe"));
        };
        let (updates, stream) = mpsc::channel(16);
        self.0
            .send(Connected {
                token,
                subscribe,
                messages,
                updates,
            })
            .await
            .unwrap();
        Ok(Response::new(Box::pin(
            ReceiverStream::new(stream).map(|update| update),
        )))
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Serves a controller; every stream comes out of the receiver.
    fn serve(&self, listener: TcpListener) -> (JoinHandle<()>, mpsc::Receiver<Connected>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["controller.test".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key.serialize_pem()));
        let (sender, connected) = mpsc::channel(16);
        let router = Server::builder().tls_config(tls).unwrap().add_service(
            ConfigDiscoveryServer::new(Controller(sender)).max_decoding_message_size(usize::MAX),
        );
        let server = tokio::spawn(async move {
            router
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        (server, connected)
    }
}

fn source(dir: &Path, address: SocketAddr, authority: &Authority) -> Source {
    std::fs::write(dir.join("ca.crt"), &authority.pem).unwrap();
    std::fs::write(dir.join("token"), "first\n").unwrap();
    Source {
        endpoint: format!("https://{address}"),
        server_name: "controller.test".into(),
        ca_file: dir.join("ca.crt"),
        token_file: dir.join("token"),
        namespace: "ns".into(),
        gateway: "gw".into(),
        proxy: "pod-1".into(),
        cache_dir: Some(dir.join("cache")),
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn updates_are_applied_and_answered() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (listener, address) = listener().await;
    let (_server, mut connected) = authority.serve(listener);
    let held = Held::default();
    tokio::spawn(follow(source(dir.path(), address, &authority), held.clone()));
    let mut stream = soon(connected.recv()).await.unwrap();
    assert_eq!(stream.token, "Bearer first");
    let subscribe = &stream.subscribe;
    assert_eq!(
        (subscribe.namespace.as_str(), subscribe.gateway.as_str()),
        ("ns", "gw")
    );
    assert_eq!(subscribe.proxy, "pod-1");
    assert!(subscribe.known.is_empty());

    let ack = stream
        .send(1, &[("settings", "1"), ("route/bad", "1")], &[])
        .await;
    assert_eq!(ack.nonce, 1);
    assert_eq!(ack.rejected.len(), 1);
    assert_eq!(
        (ack.rejected[0].key.as_str(), ack.rejected[0].reason.as_str()),
        ("route/bad", "it is bad")
    );
    let ack = stream.send(2, &[("route/a", "1")], &["settings"]).await;
    assert_eq!((ack.nonce, ack.rejected.len()), (2, 0));
    held.until(&[("route/a", "1")]).await;
}

#[tokio::test]
async fn a_new_stream_asks_for_the_difference_with_a_new_token() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (listener, address) = listener().await;
    let (_server, mut connected) = authority.serve(listener);
    let held = Held::default();
    tokio::spawn(follow(source(dir.path(), address, &authority), held.clone()));
    let mut stream = soon(connected.recv()).await.unwrap();
    stream.send(1, &[("settings", "1"), ("route/a", "7")], &[]).await;
    std::fs::write(dir.path().join("token"), "second").unwrap();
    drop(stream);
    let mut stream = soon(connected.recv()).await.unwrap();
    assert_eq!(stream.token, "Bearer second");
    let known: BTreeMap<_, _> = stream.subscribe.known.clone().into_iter().collect();
    assert_eq!(
        known,
        [("route/a", "7"), ("settings", "1")]
            .map(|(k, v)| (k.into(), v.into()))
            .into()
    );
    stream.send(1, &[("route/a", "8")], &[]).await;
    held.until(&[("route/a", "8"), ("settings", "1")]).await;
}

#[tokio::test]
async fn a_restart_without_the_controller_serves_what_was_good() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (listener, address) = listener().await;
    let (server, mut connected) = authority.serve(listener);
    let source = source(dir.path(), address, &authority);
    let following = tokio::spawn(follow(source.clone(), Held::default()));
    let mut stream = soon(connected.recv()).await.unwrap();
    stream
        .send(1, &[("settings", "1"), ("route/a", "1"), ("route/bad", "1")], &[])
        .await;
    stream
        .send(2, &[("route/b", "1"), ("route/a", "2")], &["settings"])
        .await;
    following.abort();
    server.abort();
    drop(stream);
    let _ = server.await;

    let held = Held::default();
    tokio::spawn(follow(source.clone(), held.clone()));
    held.until(&[("route/a", "2"), ("route/b", "1")]).await;
    assert!(
        *held.1.lock().unwrap(),
        "a proxy that starts from disk becomes ready"
    );

    // It comes back, on the same address.
    let listener = TcpListener::bind(address).await.unwrap();
    let (_server, mut connected) = authority.serve(listener);
    let mut stream = soon(connected.recv()).await.unwrap();
    assert_eq!(stream.subscribe.known.len(), 2);
    stream.send(1, &[], &["route/b"]).await;
    held.until(&[("route/a", "2")]).await;

    // Another gateway's proxy in the same place starts with nothing.
    let other = Held::default();
    tokio::spawn(follow(
        Source {
            gateway: "other".into(),
            ..source
        },
        other.clone(),
    ));
    let stream = soon(connected.recv()).await.unwrap();
    assert_eq!(stream.subscribe.gateway, "other");
    assert!(stream.subscribe.known.is_empty());
}

#[tokio::test]
async fn only_the_right_authority_is_believed() {
    let (dir, authority, stranger) = (tempfile::tempdir().unwrap(), Authority::new(), Authority::new());
    let (listener, address) = listener().await;
    let (_server, mut connected) = authority.serve(listener);
    let source = source(dir.path(), address, &stranger);
    tokio::spawn(follow(source, Held::default()));
    assert!(
        tokio::time::timeout(Duration::from_millis(500), connected.recv())
            .await
            .is_err()
    );
    // The bundle is read anew.
    std::fs::write(
        dir.path().join("ca.crt"),
        format!("{}{}", stranger.pem, authority.pem),
    )
    .unwrap();
    soon(connected.recv()).await.unwrap();
}

#[tokio::test]
async fn the_name_in_the_certificate_counts() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (listener, address) = listener().await;
    let (_server, mut connected) = authority.serve(listener);
    let source = Source {
        server_name: "other.test".into(),
        ..source(dir.path(), address, &authority)
    };
    tokio::spawn(follow(source, Held::default()));
    assert!(
        tokio::time::timeout(Duration::from_millis(500), connected.recv())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_controller_that_comes_late_is_found() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (reserved, address) = listener().await;
    drop(reserved);
    let source = source(dir.path(), address, &authority);
    std::fs::remove_file(&source.token_file).unwrap();
    let token = source.token_file.clone();
    tokio::spawn(follow(source, Held::default()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_server, mut connected) = authority.serve(TcpListener::bind(address).await.unwrap());
    std::fs::write(token, "late").unwrap();
    assert_eq!(soon(connected.recv()).await.unwrap().token, "Bearer late");
}

#[tokio::test]
async fn a_large_configuration_arrives() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (listener, address) = listener().await;
    let (_server, mut connected) = authority.serve(listener);
    let held = Held::default();
    tokio::spawn(follow(source(dir.path(), address, &authority), held.clone()));
    let mut stream = soon(connected.recv()).await.unwrap();
    let keys: Vec<_> = (0..60_000)
        .map(|i| format!("route/HTTPRoute/some-namespace/{i:060}"))
        .collect();
    let upserts: Vec<_> = keys.iter().map(|key| (key.as_str(), "some-version")).collect();
    let ack = stream.send(1, &upserts, &[]).await;
    assert!(ack.rejected.is_empty());
    assert_eq!(held.get().len(), 60_000);
    drop(stream);
    // Nor does what is known have a limit.
    assert_eq!(
        soon(connected.recv())
            .await
            .map(|stream| stream.subscribe.known.len()),
        Some(60_000)
    );
}
