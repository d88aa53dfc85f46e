//! The configuration server as a proxy sees it: real TLS and gRPC on loopback, a fake for the API server's answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sluice_config::v1::config_discovery_client::ConfigDiscoveryClient;
use sluice_config::v1::{Ack, ProxyMessage, Rejection, Resource, Subscribe, Update, proxy_message};
use sluice_controller::engine::{ConfigChange, Event, GatewayRef};
use sluice_controller::metrics::Metrics;
use sluice_controller::publish::{AuthError, Authenticator, Ca, Identity, Leaf, Publisher, serve};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

const NAMES: &[&str] = &["sluice-controller.sluice-system.svc"];
/// Longer than anything here takes; only a failing test waits for it.
const LONG: Duration = Duration::from_secs(20);

/// Takes `namespace/account` for the token of that account.
struct Tokens;

impl Authenticator for Tokens {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        Box::pin(async move {
            let (namespace, account) = token
                .split_once('/')
                .ok_or_else(|| AuthError::Refused("no such account".to_owned()))?;
            Ok(Identity {
                namespace: namespace.to_owned(),
                service_account: account.to_owned(),
            })
        })
    }
}

struct Controller {
    publisher: Arc<Publisher>,
    reports: mpsc::UnboundedReceiver<Event>,
    address: SocketAddr,
    ca: Ca,
    stop: CancellationToken,
}

impl Controller {
    async fn start() -> Self {
        let ca = Ca::generate().unwrap();
        let leaf = Arc::new(Leaf::new(
            ca.issue(&NAMES.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
                .unwrap(),
        ));
        let (publisher, reports) = Publisher::new(Arc::new(Metrics::default()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(
            listener,
            leaf,
            Arc::clone(&publisher),
            Arc::new(Tokens),
            stop.clone(),
        ));
        Self {
            publisher,
            reports,
            address,
            ca,
            stop,
        }
    }

    /// A controller that serves the Gateway `ns/gw`, whose proxies run as `gw-sluice`.
    async fn ready() -> Self {
        let controller = Self::start().await;
        controller
            .publisher
            .permit(&gateway("gw"), Some("gw-sluice".to_owned()));
        controller.publisher.set_ready();
        controller
    }

    async fn channel(&self) -> Channel {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca.bundle_pem))
            .domain_name(NAMES[0]);
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    async fn connect(&self, token: &str, gateway: &str, known: &[(&str, &str)]) -> Result<Proxy, Status> {
        let (sender, receiver) = mpsc::channel(8);
        let known = known
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<HashMap<_, _>>();
        let subscribe = Subscribe {
            namespace: "ns".to_owned(),
            gateway: gateway.to_owned(),
            proxy: "pod".to_owned(),
            known,
            ..Default::default()
        };
        let message = proxy_message::Message::Subscribe(subscribe);
        sender
            .send(ProxyMessage {
                message: Some(message),
            })
            .await
            .unwrap();
        let mut request = Request::new(ReceiverStream::new(receiver));
        if !token.is_empty() {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let mut client = ConfigDiscoveryClient::new(self.channel().await);
        let updates = client.stream(request).await?.into_inner();
        Ok(Proxy { sender, updates })
    }

    fn publish(&self, upserts: &[(&str, &str)], removes: &[&str]) {
        let resource = |key: &str, version: &str| Resource {
            key: key.to_owned(),
            version: version.to_owned(),
            body: None,
        };
        let change = ConfigChange {
            upserts: upserts
                .iter()
                .map(|(k, v)| ((*k).to_owned(), Arc::new(resource(k, v))))
                .collect(),
            removes: removes.iter().map(|k| (*k).to_owned()).collect::<BTreeSet<_>>(),
        };
        self.publisher.publish(BTreeMap::from([(gateway("gw"), change)]));
    }

    async fn report(&mut self) -> BTreeMap<String, String> {
        let event = timeout(LONG, self.reports.recv()).await.unwrap().unwrap();
        let Event::Proxies(of, report) = event else {
            panic!("{event:?}")
        };
        assert_eq!(of, gateway("gw"));
        report.rejected
    }
}

struct Proxy {
    sender: mpsc::Sender<ProxyMessage>,
    updates: Streaming<Update>,
}

impl Proxy {
    async fn next(&mut self) -> Update {
        timeout(LONG, self.updates.message())
            .await
            .expect("an update")
            .unwrap()
            .expect("not the end")
    }

    async fn ack(&self, nonce: u64, rejected: &[(&str, &str)]) {
        let rejected = rejected.iter().map(|(key, reason)| Rejection {
            key: (*key).to_owned(),
            version: "1".to_owned(),
            reason: (*reason).to_owned(),
        });
        let message = proxy_message::Message::Ack(Ack {
            nonce,
            rejected: rejected.collect(),
        });
        self.sender
            .send(ProxyMessage {
                message: Some(message),
            })
            .await
            .unwrap();
    }
}

fn gateway(name: &str) -> GatewayRef {
    GatewayRef::new("ns", name)
}

fn keys(update: &Update) -> Vec<String> {
    update
        .upserts
        .iter()
        .map(|resource| format!("{}@{}", resource.key, resource.version))
        .collect()
}

#[tokio::test]
async fn a_proxy_gets_the_configuration_and_every_change() {
    let controller = Controller::ready().await;
    controller.publish(&[("settings", "1"), ("listener/a", "1"), ("route/a", "1")], &[]);
    let mut proxy = controller.connect("ns/gw-sluice", "gw", &[]).await.unwrap();
    let update = proxy.next().await;
    assert_eq!(keys(&update), ["settings@1", "route/a@1", "listener/a@1"]);
    assert!(update.synced);
    controller.publish(&[("route/a", "2")], &["listener/a"]);
    let update = proxy.next().await;
    assert_eq!(
        (keys(&update), update.removes),
        (vec!["route/a@2".to_owned()], vec!["listener/a".to_owned()])
    );
}

#[tokio::test]
async fn a_proxy_that_comes_back_gets_the_difference() {
    let controller = Controller::ready().await;
    controller.publish(&[("route/a", "1"), ("route/b", "2")], &[]);
    let known = [("route/a", "1"), ("route/b", "1"), ("route/c", "1")];
    let update = controller
        .connect("ns/gw-sluice", "gw", &known)
        .await
        .unwrap()
        .next()
        .await;
    assert_eq!(
        (keys(&update), update.removes),
        (vec!["route/b@2".to_owned()], vec!["route/c".to_owned()])
    );
}

#[tokio::test]
async fn nobody_gets_the_configuration_of_another_gateway() {
    let controller = Controller::ready().await;
    controller
        .publisher
        .permit(&gateway("other"), Some("other-sluice".to_owned()));
    controller.publish(&[("secret/a", "1")], &[]);
    for (token, gateway, code) in [
        ("ns/other-sluice", "gw", Code::PermissionDenied),
        ("elsewhere/gw-sluice", "gw", Code::PermissionDenied),
        ("ns/gw-sluice", "unknown", Code::PermissionDenied),
        ("invalid", "gw", Code::Unauthenticated),
        ("", "gw", Code::Unauthenticated),
    ] {
        let Err(status) = controller.connect(token, gateway, &[]).await else {
            panic!("{token} got {gateway}")
        };
        assert_eq!(status.code(), code, "{token} asks for {gateway}");
    }
}

#[tokio::test]
async fn a_gateway_without_configuration_is_waited_for() {
    let controller = Controller::ready().await;
    let mut proxy = controller
        .connect("ns/gw-sluice", "gw", &[("route/old", "1")])
        .await
        .unwrap();
    assert!(
        timeout(Duration::from_millis(200), proxy.updates.message())
            .await
            .is_err(),
        "an update too early"
    );
    controller.publish(&[("settings", "1")], &[]);
    let update = proxy.next().await;
    assert_eq!(
        (keys(&update), update.removes),
        (vec!["settings@1".to_owned()], vec!["route/old".to_owned()])
    );
}

#[tokio::test]
async fn nothing_is_served_before_the_cluster_has_been_read() {
    let controller = Controller::start().await;
    let connecting = controller.connect("ns/gw-sluice", "gw", &[]);
    let mut connecting = std::pin::pin!(connecting);
    assert!(
        timeout(Duration::from_millis(200), &mut connecting)
            .await
            .is_err(),
        "an answer too early"
    );
    controller
        .publisher
        .permit(&gateway("gw"), Some("gw-sluice".to_owned()));
    controller.publish(&[("settings", "1")], &[]);
    controller.publisher.set_ready();
    assert_eq!(keys(&connecting.await.unwrap().next().await), ["settings@1"]);
}

#[tokio::test]
async fn refusals_are_reported_until_the_proxy_is_gone() {
    let mut controller = Controller::ready().await;
    controller.publish(&[("route/a", "1"), ("route/b", "1")], &[]);
    let mut proxy = controller.connect("ns/gw-sluice", "gw", &[]).await.unwrap();
    let update = proxy.next().await;
    proxy.ack(update.nonce, &[("route/a", "bad pattern")]).await;
    assert_eq!(
        controller.report().await,
        BTreeMap::from([("route/a".to_owned(), "bad pattern".to_owned())])
    );
    drop(proxy);
    assert!(controller.report().await.is_empty());
}

#[tokio::test]
async fn a_slow_proxy_gets_the_newest_state_in_few_updates() {
    let controller = Controller::ready().await;
    controller.publish(&[("route/a", "0")], &[]);
    let mut proxy = controller.connect("ns/gw-sluice", "gw", &[]).await.unwrap();
    let first = proxy.next().await;
    for version in 1..=1000 {
        controller.publish(&[("route/a", &version.to_string())], &[]);
        tokio::task::yield_now().await;
    }
    proxy.ack(first.nonce, &[]).await;
    let mut updates = 0;
    loop {
        let update = proxy.next().await;
        updates += 1;
        if keys(&update) == ["route/a@1000"] {
            break;
        }
        proxy.ack(update.nonce, &[]).await;
    }
    assert!(updates <= 8, "{updates} updates for one resource");
}

#[tokio::test]
async fn streams_end_when_the_controller_stops_or_the_account_changes() {
    let controller = Controller::ready().await;
    controller.publish(&[("settings", "1")], &[]);
    let mut proxy = controller.connect("ns/gw-sluice", "gw", &[]).await.unwrap();
    proxy.next().await;
    controller
        .publisher
        .permit(&gateway("gw"), Some("renamed".to_owned()));
    assert!(
        timeout(LONG, proxy.updates.message())
            .await
            .unwrap()
            .unwrap()
            .is_none()
    );
    let mut proxy = controller.connect("ns/renamed", "gw", &[]).await.unwrap();
    proxy.next().await;
    controller.stop.cancel();
    assert!(!matches!(
        timeout(LONG, proxy.updates.message()).await.unwrap(),
        Ok(Some(_))
    ));
}
