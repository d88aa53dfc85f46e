//! The rate limit service as proxies reach it: no object of the cluster, but what the controller was started with.

use std::net::IpAddr;

use sluice_config::{key, v1};

use crate::engine::{Output, View};

/// Stands for a kind in keys.
const KIND: &str = "RateLimitService";

/// Key of the backend.
pub fn resource_key() -> String {
    key::backend(KIND, "", "", 0, "")
}

/// Translates it; nothing, if there is none.
pub fn translate(view: &View<'_>) -> Output {
    let mut output = Output::default();
    let Some(service) = &view.environment().rate_limit else {
        return output;
    };
    let address = service.host.parse::<IpAddr>().ok();
    let endpoint = v1::Endpoint {
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        hostname: if address.is_some() {
            String::new()
        } else {
            service.host.clone()
        },
        port: u32::from(service.port),
        // Nobody but whoever runs the controller says where it is.
        allow_local: true,
        ..v1::Endpoint::default()
    };
    let endpoints = key::endpoints(KIND, "", "", 0);
    let backend = v1::Backend {
        name: "rate-limit-service".to_owned(),
        protocol: v1::BackendProtocol::H2c.into(),
        endpoints: endpoints.clone(),
        ..v1::Backend::default()
    };
    output.shared.add(
        endpoints,
        v1::resource::Body::Endpoints(v1::Endpoints {
            endpoints: vec![endpoint],
        }),
    );
    output
        .shared
        .add(resource_key(), v1::resource::Body::Backend(backend));
    output
}
