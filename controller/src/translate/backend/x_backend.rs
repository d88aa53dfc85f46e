//! XBackends: which of them can be sent traffic, and how.

use sluice_crds::gateway::{BackendType, XBackend};

/// The port of an XBackend, or why it cannot be used.
pub fn port(backend: &XBackend) -> Result<u16, String> {
    match &backend.spec.type_ {
        // A name has to be looked up by whoever connects, and a selector needs EndpointSlices that nobody makes.
        kind @ (BackendType::ExternalHostname | BackendType::EndpointSelector) => {
            Err(format!("type {kind} is not supported"))
        }
        BackendType::Other(kind) => Err(format!("{kind:?} is not a type of backend")),
    }
}
