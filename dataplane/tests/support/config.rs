//! Resources in few words.

use std::net::SocketAddr;

use sluice_config::v1::{self, resource::Body};

fn resource(key: String, body: Body) -> v1::Resource {
    v1::Resource {
        key,
        version: String::new(),
        body: Some(body),
    }
}

/// An HTTP listener for any host.
pub fn http_listener(name: &str, port: u16) -> v1::Resource {
    let port = u32::from(port);
    listener(
        name,
        v1::Listener {
            port,
            bind_port: port,
            protocol: v1::Protocol::Http.into(),
            ..Default::default()
        },
    )
}

pub fn listener(name: &str, mut listener: v1::Listener) -> v1::Resource {
    listener.name = format!("test/gateway/{name}");
    resource(format!("listener/{name}"), Body::Listener(listener))
}

/// A backend, its endpoints, and what is asked of it.
pub fn backend(name: &str, addresses: &[SocketAddr]) -> Vec<v1::Resource> {
    backend_with(name, addresses, v1::Backend::default())
}

pub fn backend_with(name: &str, addresses: &[SocketAddr], mut config: v1::Backend) -> Vec<v1::Resource> {
    config.name = format!("test/{name}:80");
    config.endpoints = format!("endpoints/{name}");
    vec![
        endpoints(name, addresses),
        resource(format!("backend/{name}"), Body::Backend(config)),
    ]
}

pub fn h2c(name: &str, addresses: &[SocketAddr]) -> Vec<v1::Resource> {
    backend_with(
        name,
        addresses,
        v1::Backend {
            protocol: v1::BackendProtocol::H2c.into(),
            ..Default::default()
        },
    )
}

pub fn endpoints(name: &str, addresses: &[SocketAddr]) -> v1::Resource {
    let endpoints = addresses.iter().map(|address| v1::Endpoint {
        address: address.ip().to_string(),
        port: u32::from(address.port()),
        ..Default::default()
    });
    resource(
        format!("endpoints/{name}"),
        Body::Endpoints(v1::Endpoints {
            endpoints: endpoints.collect(),
        }),
    )
}

pub fn settings(settings: v1::Settings) -> v1::Resource {
    resource("settings".into(), Body::Settings(settings))
}

pub fn key_pair(name: &str, chain: &str, key: &str) -> v1::Resource {
    let pair = v1::CertificateKeyPair {
        certificate_chain_pem: chain.into(),
        private_key_pem: key.into(),
    };
    secret(name, v1::secret::Body::CertificateKeyPair(pair))
}

pub fn trust(name: &str, pem: &str) -> v1::Resource {
    secret(name, v1::secret::Body::TrustBundle(pem.into()))
}

/// A Secret of entries that policies name.
pub fn data(name: &str, entries: &[(&str, &str)]) -> v1::Resource {
    let entries = entries.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let entries = entries.collect();
    secret(name, v1::secret::Body::Data(v1::SecretData { entries }))
}

/// An entry of it.
pub fn entry(secret: &str, entry: &str) -> v1::SecretEntry {
    v1::SecretEntry {
        secret: format!("secret/{secret}"),
        entry: entry.into(),
    }
}

fn secret(name: &str, body: v1::secret::Body) -> v1::Resource {
    resource(
        format!("secret/{name}"),
        Body::Secret(v1::Secret { body: Some(body) }),
    )
}

/// A route of these rules on a listener, for any host.
pub fn route(name: &str, listener: &str, rules: Vec<v1::HttpRule>) -> v1::Resource {
    http_route(name, listener, v1::HttpRules { rules, grpc: false })
}

pub fn grpc_route(name: &str, listener: &str, rules: Vec<v1::HttpRule>) -> v1::Resource {
    http_route(name, listener, v1::HttpRules { rules, grpc: true })
}

fn http_route(name: &str, listener: &str, rules: v1::HttpRules) -> v1::Resource {
    let route = v1::Route {
        name: format!("HTTPRoute/test/{name}"),
        attachments: vec![v1::Attachment {
            listener: format!("listener/{listener}"),
            ..Default::default()
        }],
        created: 1,
        precedence_name: format!("test/{name}"),
        rules: Some(v1::route::Rules::Http(rules)),
        ..Default::default()
    };
    resource(format!("route/HTTPRoute/test/{name}"), Body::Route(route))
}

/// A rule for a path prefix.
pub fn rule(prefix: &str, backends: &[&str]) -> v1::HttpRule {
    v1::HttpRule {
        matches: vec![v1::HttpMatch {
            path: Some(v1::PathMatch {
                kind: v1::path_match::Kind::Prefix.into(),
                value: prefix.into(),
            }),
            ..Default::default()
        }],
        backends: backends.iter().map(|name| weighted(name, 1)).collect(),
        ..Default::default()
    }
}

/// A reference; an empty name is an invalid one.
pub fn weighted(name: &str, weight: u32) -> v1::WeightedBackend {
    let backend = if name.is_empty() {
        String::new()
    } else {
        format!("backend/{name}")
    };
    v1::WeightedBackend {
        backend,
        weight,
        ..Default::default()
    }
}

pub fn filter(filter: v1::filter::Filter) -> v1::Filter {
    v1::Filter { filter: Some(filter) }
}

pub fn header(name: &str, value: &str) -> v1::Header {
    v1::Header {
        name: name.into(),
        value: value.into(),
    }
}

pub fn replace_prefix(with: &str) -> v1::PathModifier {
    v1::PathModifier {
        modifier: Some(v1::path_modifier::Modifier::ReplacePrefixMatch(with.into())),
    }
}

pub fn replace_full(with: &str) -> v1::PathModifier {
    v1::PathModifier {
        modifier: Some(v1::path_modifier::Modifier::ReplaceFullPath(with.into())),
    }
}

/// A policy that lets CONNECT through: to end here, or to go on.
pub fn connects(terminate: bool) -> v1::Policy {
    v1::Policy {
        upgrades: Some(v1::HttpUpgrades {
            protocols: Vec::new(),
            connect: Some(v1::http_upgrades::Connect { terminate }),
        }),
        ..Default::default()
    }
}

/// What is asked of a backend by TLS, whose certificate is for `hostname` and signed by [`trust`]'s `ca`.
pub fn in_tls(hostname: &str) -> v1::Backend {
    v1::Backend {
        tls: Some(v1::UpstreamTls {
            ca_secrets: vec!["secret/ca".into()],
            hostname: hostname.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
