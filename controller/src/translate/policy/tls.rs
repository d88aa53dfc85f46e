//! Which BackendTLSPolicy applies to a backend, and what it comes to.
use crate::engine::{Unit, View};
use crate::store::ObjectRef;
use sluice_config::v1;

/// The BackendTLSPolicy that applies to a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendTls {
    /// The policy.
    pub policy: ObjectRef,
    /// How to connect; or why the policy cannot be honoured, in which case the backend must not be connected to.
    pub config: Result<UpstreamTls, String>,
}

/// TLS towards a backend, and the key material that it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// Everything but the client certificate, which is the Gateway's.
    pub tls: v1::UpstreamTls,
    /// Units of the secrets that `tls` names.
    pub needs: Vec<Unit>,
}

/// The BackendTLSPolicy that applies to a port of `target` (a Service), if there is one.
pub fn backend_tls(_view: &View<'_>, _target: &ObjectRef, _port_name: Option<&str>) -> Option<BackendTls> { None }
