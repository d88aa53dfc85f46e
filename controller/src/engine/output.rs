//! What a translation gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use sha2::{Digest, Sha256};
use sluice_config::v1;
use sluice_crds::envoy::EnvoyProxySpec;

use super::unit::{GatewayRef, Unit};
use crate::store::{Kind, ObjectRef};
use crate::translate::condition::Condition;
use crate::translate::model::Port;

/// Everything that follows from one unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// Configuration of certain gateways: of units that an object is the root of (Gateway, Route).
    pub for_gateway: BTreeMap<GatewayRef, Bundle>,
    /// Configuration of every gateway that needs the unit (Backend, Endpoints, Secret).
    pub shared: Bundle,
    /// Conditions and the rest of the statuses that this unit states.
    pub statuses: Vec<(ObjectRef, Status)>,
    /// Listeners that the route is attached to, as gateway and key of the listener's resource.
    pub attached: Vec<(GatewayRef, Arc<str>)>,
    /// A Gateway's face to its routes. `None`: not ours, or not accepted.
    pub model: Option<Arc<crate::translate::model::GatewayModel>>,
    /// What the Gateways of a class have of the fleet that they share, if they share one.
    pub fleet: Option<Arc<crate::translate::model::FleetModel>>,
    /// What has to run for a Gateway, or for all of a class.
    pub infra: Infrastructure,
    /// The Services that find the pods of an XBackend, if there are or should be any.
    pub pods: Option<PodService>,
}

/// The Services that find the pods of an XBackend: what should be there, and what is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodService {
    /// `None`: no Service is to be there.
    pub wanted: Option<WantedPodService>,
    /// Names of those that are there, and whether each is as it should be.
    pub found: Vec<(String, bool)>,
}

impl PodService {
    /// Whether there is nothing to do.
    pub fn is_as_wanted(&self) -> bool {
        match &self.wanted {
            Some(_) => matches!(self.found.as_slice(), [(_, true)]),
            None => self.found.is_empty(),
        }
    }
}

/// A headless Service that selects pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPodService {
    /// The XBackend's uid, for the owner reference.
    pub uid: String,
    /// Labels of the pods.
    pub labels: BTreeMap<String, String>,
    /// The pods' port.
    pub port: u16,
}

/// What is to become of a Gateway's infrastructure.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Infrastructure {
    /// Nothing is to run: the Gateway is gone or not ours.
    #[default]
    None,
    /// What runs stays as it is, for a mistake in an object must not take down what serves; but nothing is made from
    /// this, which is only as much as can be read of the Gateway.
    Keep(Infra),
    /// This is to run.
    Wanted(Infra),
}

impl Infrastructure {
    /// What runs or is to run, as far as that can be read.
    pub fn infra(&self) -> Option<&Infra> {
        match self {
            Self::Wanted(infra) | Self::Keep(infra) => Some(infra),
            Self::None => None,
        }
    }

    /// What is to run, if that is known.
    pub fn wanted(&self) -> Option<&Infra> {
        match self {
            Self::Wanted(infra) => Some(infra),
            Self::None | Self::Keep(_) => None,
        }
    }
}

/// Resources, and the units whose resources must be there with them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bundle {
    /// Resources; keys are unique over all units.
    pub resources: Vec<Arc<v1::Resource>>,
    /// Backends, endpoints, secrets.
    pub needs: Vec<Unit>,
}

impl Bundle {
    /// Adds a resource; its version is a digest of its content.
    pub fn add(&mut self, key: impl Into<String>, body: v1::resource::Body) {
        let mut resource = v1::Resource {
            key: key.into(),
            version: String::new(),
            body: Some(body),
        };
        let digest = Sha256::digest(resource.encode_to_vec());
        resource.version = digest.iter().take(12).fold(String::new(), |mut hex, byte| {
            use std::fmt::Write;
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        self.resources.push(Arc::new(resource));
    }
}

/// The status of an object, as far as it is ours to state.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase", tag = "of")]
#[allow(missing_docs)]
pub enum Status {
    #[serde(rename_all = "camelCase")]
    GatewayClass {
        generation: i64,
        conditions: Vec<Condition>,
        supported_features: Vec<&'static str>,
    },
    #[serde(rename_all = "camelCase")]
    Gateway {
        generation: i64,
        conditions: Vec<Condition>,
        /// What it can be reached by.
        addresses: Vec<sluice_crds::gateway::GatewayStatusAddress>,
        listeners: Vec<ListenerStatus>,
        /// `status.attachedListenerSets`.
        attached_listener_sets: i32,
    },
    #[serde(rename_all = "camelCase")]
    ListenerSet {
        generation: i64,
        conditions: Vec<Condition>,
        listeners: Vec<ListenerStatus>,
    },
    #[serde(rename_all = "camelCase")]
    Route {
        generation: i64,
        parents: Vec<ParentStatus>,
    },
    #[serde(rename_all = "camelCase")]
    Backend {
        generation: i64,
        conditions: Vec<Condition>,
    },
    /// Policies: one entry an ancestor.
    #[serde(rename_all = "camelCase")]
    Policy {
        generation: i64,
        ancestors: Vec<AncestorStatus>,
    },
}

impl Status {
    /// The listeners that the status speaks of.
    pub fn listeners(&self) -> &[ListenerStatus] {
        match self {
            Self::Gateway { listeners, .. } | Self::ListenerSet { listeners, .. } => listeners,
            _ => &[],
        }
    }
}

/// Status of one listener.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Key of the listener's resource.
    #[serde(skip)]
    pub key: Arc<str>,
    /// The listener's name.
    pub name: String,
    /// Kinds that may attach.
    #[serde(serialize_with = "kind_names")]
    pub supported_kinds: Vec<Kind>,
    /// Routes attached; filled in by the engine.
    pub attached_routes: i32,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// Status of a route towards one parentRef.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The parentRef as the route has it.
    pub parent_ref: sluice_crds::gateway::ParentReference,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// Status of a policy towards one ancestor.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// The ancestor.
    pub ancestor_ref: sluice_crds::gateway::ParentReference,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// What has to run for a Gateway, or for all of a class, before it is spelt out as Deployment, Service and so on.
#[derive(Debug, Clone, PartialEq)]
pub struct Infra {
    /// The Gateway, or the fleet that the Gateways of a class share.
    pub gateway: GatewayRef,
    /// Uid of the Gateway, or of the class, for owner references.
    pub uid: String,
    /// The class.
    pub class: Arc<str>,
    /// `spec.infrastructure.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.infrastructure.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Ports of valid listeners, each once for each transport protocol.
    pub ports: Vec<InfraPort>,
    /// Requested addresses of type IPAddress.
    pub addresses: Vec<String>,
    /// `spec.addresses` asks for, or routability is, Cluster: no address outside the cluster.
    pub cluster_only: bool,
    /// Parameters from the Gateway, else from its class; the Gateway's laid over the class's.
    pub proxy: Arc<EnvoyProxySpec>,
}

/// A port of the proxy's Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InfraPort {
    /// As clients know it.
    pub port: u16,
    /// As the pod binds it.
    pub bind_port: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

impl InfraPort {
    /// Ports by what they are bound as.
    pub(crate) fn all(bound: &BTreeMap<Port, u16>) -> Vec<Self> {
        let port = |(port, bind_port): (&Port, &u16)| Self {
            port: port.number,
            bind_port: *bind_port,
            udp: port.udp,
        };
        bound.iter().map(port).collect()
    }
}

fn kind_names<S: serde::Serializer>(kinds: &[Kind], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(kinds.iter().map(|kind| kind.as_str()))
}
