//! Wires everything together. One task owns the engine: it takes in what happens and hands on what follows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::engine::{Changes, Engine, Environment, Event, Infrastructure, Mode, RateLimitService};
use crate::infra::{Fleet, PodServices, Settings, account_name};
use crate::leader::{Elector, Leadership};
use crate::login_key::{LoginKey, LoginKeyError};
use crate::metrics::{self, Metrics};
use crate::publish::{self, Authority, Publisher, TokenReviewer, server_names};
use crate::status::{Statuses, leftovers};
use crate::store::Kind;
use crate::watch::Watches;

/// Lease of the leader, in the controller's namespace.
const LEASE: &str = "sluice-controller";
/// Pause before the CA is asked for again at start.
const RETRY: Duration = Duration::from_secs(2);
/// When to say which kinds are still awaited.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long streams may take to end.
const GOODBYE: Duration = Duration::from_secs(3);

/// How the controller runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which GatewayClasses are ours: `spec.controllerName`.
    pub controller_name: String,
    /// The controller's own namespace.
    pub namespace: String,
    /// Where proxies connect.
    pub config_address: SocketAddr,
    /// Where metrics and health checks are.
    pub metrics_address: SocketAddr,
    /// Image of the proxies.
    pub proxy_image: String,
    /// When it is pulled; Kubernetes' default if absent.
    pub proxy_image_pull_policy: Option<String>,
    /// Host name and port by which proxies reach `config_address`: `sluice-controller.<namespace>.svc:18000`.
    pub config_service: String,
    /// Proxies in front of ours that are trusted to append to X-Forwarded-For.
    pub xff_trusted_hops: u32,
    /// Backends may have loopback and link-local addresses.
    pub allow_loopback_backends: bool,
    /// Who counts requests for all proxies together, if anyone does.
    pub rate_limit: Option<RateLimitService>,
    /// False: this is the only replica.
    pub leader_election: bool,
    /// Name of the controller's pod, unique among replicas.
    pub pod_name: String,
}

/// Why the controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cluster cannot be reached.
    #[error("no access to the cluster: {0}")]
    Client(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("signals: {0}")]
    Signals(std::io::Error),
    /// The configuration server ended.
    #[error("configuration server: {0}")]
    Serve(String),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// If the cluster is out of reach, or an address is taken.
pub async fn run(options: Options) -> Result<(), RunError> {
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let metrics = Arc::new(Metrics::default());
    let listener = listen(options.metrics_address).await?;
    tokio::spawn(metrics::serve(listener, Arc::clone(&metrics), stop.clone()));
    let proxies = listen(options.config_address).await?;
    let client = Client::try_default()
        .await
        .map_err(|error| RunError::Client(error.to_string()))?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        controller = options.controller_name,
        "controller starts"
    );

    let watches = Watches::start(&client, &options.controller_name, &metrics, &stop);
    let Some(authority) = open_authority(&client, &options, &stop).await else {
        return Ok(());
    };
    let Some(login_key) = open_login_key(&client, &options, &stop).await else {
        return Ok(());
    };
    let (leaf, bundle) = (authority.leaf(), authority.bundle());
    tokio::spawn(authority.keep(stop.clone()));

    let (publisher, reports) = Publisher::new(Arc::clone(&metrics));
    let reviewer = Arc::new(TokenReviewer::new(client.clone()));
    let served = publish::serve(proxies, leaf, Arc::clone(&publisher), reviewer, stop.clone());
    let mut served = tokio::spawn(served);

    let (leadership, election) = elect(&client, &options, &stop);
    let settings = Settings {
        controller_name: options.controller_name.clone(),
        image: options.proxy_image.clone(),
        image_pull_policy: options.proxy_image_pull_policy.clone(),
        controller_url: format!("https://{}", options.config_service),
        ca_bundle: bundle.borrow().clone(),
    };
    let controller = Controller {
        engine: Engine::new(Environment {
            controller_name: options.controller_name.clone(),
            namespace: options.namespace.clone(),
            mode: Mode::Cluster,
            xff_trusted_hops: options.xff_trusted_hops,
            allow_local_backends: options.allow_loopback_backends,
            login_key: login_key.ok(),
            rate_limit: options.rate_limit.clone(),
        }),
        publisher,
        statuses: Statuses::start(&client, &options.controller_name, &leadership, &metrics, &stop),
        pods: PodServices::start(&client, &options.controller_name, &leadership, &metrics, &stop),
        fleet: Fleet::start(&client, settings, bundle, &leadership, &metrics, &stop),
        leadership,
        leads: false,
        metrics,
    };
    tokio::select! {
        () = controller.work(watches, reports) => {}
        () = stop.cancelled() => {}
        ended = &mut served => {
            stop.cancel();
            let reason = match ended {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            return Err(RunError::Serve(reason));
        }
    }
    stop.cancel();
    // The Lease is given back, and proxies go to another replica.
    let _ = tokio::time::timeout(GOODBYE, served).await;
    if let Some(election) = election {
        let _ = tokio::time::timeout(GOODBYE, election).await;
    }
    info!("controller ends");
    Ok(())
}

fn stop_on_signal(stop: CancellationToken) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen { address, source })
}

/// The certificate authority; `None` if the controller is stopped before there is one.
async fn open_authority(client: &Client, options: &Options, stop: &CancellationToken) -> Option<Authority> {
    let mut reported = false;
    loop {
        let names = server_names(&options.config_service);
        match Authority::open(client.clone(), &options.namespace, names).await {
            Ok(authority) => return Some(authority),
            Err(error) => {
                if !std::mem::replace(&mut reported, true) {
                    warn!(%error, "no certificate authority yet; it is tried again");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return None,
        }
    }
}

/// The key of logins, or why the controller goes on without; `None` if it is stopped before that is known.
async fn open_login_key(
    client: &Client,
    options: &Options,
    stop: &CancellationToken,
) -> Option<Result<LoginKey, LoginKeyError>> {
    let mut reported = false;
    loop {
        let opened = LoginKey::open(client.clone(), &options.namespace).await;
        match &opened {
            Ok(_) => return Some(opened),
            // Time does not mend it, and all but logins works without it.
            Err(error) if error.is_lasting() => {
                warn!(%error, "no key for the cookies of logins: policies with oidc are not accepted");
                return Some(opened);
            }
            Err(error) => {
                if !std::mem::replace(&mut reported, true) {
                    warn!(%error, "no key for the cookies of logins yet; it is tried again");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return None,
        }
    }
}

fn elect(
    client: &Client,
    options: &Options,
    stop: &CancellationToken,
) -> (Leadership, Option<tokio::task::JoinHandle<()>>) {
    if !options.leader_election {
        return (Leadership::always(), None);
    }
    let (elector, leadership) = Elector::new(client.clone(), &options.namespace, LEASE, &options.pod_name);
    (leadership, Some(tokio::spawn(elector.run(stop.clone()))))
}

struct Controller {
    engine: Engine,
    publisher: Arc<Publisher>,
    statuses: Statuses,
    fleet: Fleet,
    pods: PodServices,
    leadership: Leadership,
    leads: bool,
    metrics: Arc<Metrics>,
}

impl Controller {
    /// Ends when the watches do.
    async fn work(mut self, mut watches: Watches, mut reports: mpsc::UnboundedReceiver<Event>) {
        let Some(initial) = initial(&mut watches).await else {
            return;
        };
        let (objects, started) = (initial.len(), Instant::now());
        self.take_in(initial);
        self.publisher.set_ready();
        self.metrics.set_ready();
        info!(objects, gateways = self.engine.fleets().count(), elapsed = ?started.elapsed(), "cluster read");
        let leads = self.leadership.holds();
        self.lead(leads);
        loop {
            tokio::select! {
                events = watches.next() => match events {
                    Some(events) => self.take_in(events),
                    None => return,
                },
                Some(report) = reports.recv() => {
                    let mut events = vec![report];
                    while let Ok(report) = reports.try_recv() {
                        events.push(report);
                    }
                    self.take_in(events);
                }
                leads = self.leadership.changed() => self.lead(leads),
            }
        }
    }

    fn take_in(&mut self, events: Vec<Event>) {
        let started = Instant::now();
        let Changes {
            config,
            statuses,
            infra,
            pods,
            translated,
        } = self.engine.apply(events);
        self.metrics.translated.inc_by(translated.len() as u64);
        // Who may have a Gateway's configuration is known before it is there.
        for (gateway, infra) in &infra {
            match infra {
                Infrastructure::None => self.publisher.permit(gateway, None),
                Infrastructure::Keep(infra) => self.publisher.permit_if_none_is(gateway, account_name(infra)),
                Infrastructure::Wanted(infra) => self.publisher.permit(gateway, Some(account_name(infra))),
            }
        }
        self.publisher.publish(config);
        self.metrics
            .apply_seconds
            .observe(started.elapsed().as_secs_f64());
        if self.leads {
            self.fleet.put(infra);
            self.pods.put(pods);
            self.statuses.put(statuses);
        }
    }

    /// A new leader states everything; one that is not any more stops.
    fn lead(&mut self, leads: bool) {
        self.metrics.leader.set(leads.into());
        if std::mem::replace(&mut self.leads, leads) == leads {
            return;
        }
        if !leads {
            self.statuses.clear();
            self.fleet.clear();
            self.pods.clear();
            return;
        }
        let infra = self.engine.infra();
        self.fleet
            .lead(infra.map(|(gateway, infra)| (gateway.clone(), infra.clone())));
        let pods = self.engine.pods();
        self.pods
            .put(pods.map(|(backend, pods)| (backend.clone(), pods.clone())));
        let mut statuses: BTreeMap<_, _> = self
            .engine
            .statuses()
            .map(|(object, status)| (object.clone(), Some(status)))
            .collect();
        let store = self.engine.store();
        let left = leftovers(Kind::ALL.iter().flat_map(|kind| store.list(*kind)), &statuses);
        statuses.extend(left.into_iter().map(|object| (object, None)));
        self.statuses.put(statuses);
    }
}

async fn initial(watches: &mut Watches) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    loop {
        if let Ok(listed) = tokio::time::timeout(PATIENCE, watches.initial(&mut events)).await {
            return listed.then_some(events);
        }
        warn!(kinds = ?watches.unlisted(), "still waiting for the first list of some kinds");
    }
}
