//! What is spoken to a backend: from the kind of route that uses it and the appProtocol of its port.

use sluice_config::v1::BackendProtocol;

use crate::engine::BackendUsage;

/// Protocol towards a Service's port, or why a route cannot speak what the port's appProtocol asks for. `tls` says
/// whether there is a BackendTLSPolicy; it is asked only if that matters.
pub fn of_service(
    usage: BackendUsage,
    app_protocol: Option<&str>,
    tls: impl FnOnce() -> bool,
) -> Result<BackendProtocol, String> {
    let grpc = match usage {
        // Bytes are bytes.
        BackendUsage::Tcp | BackendUsage::Passthrough => return Ok(BackendProtocol::Tcp),
        BackendUsage::Udp => return Ok(BackendProtocol::Udp),
        BackendUsage::Grpc => true,
        BackendUsage::Http => false,
    };
    let fallback = if grpc {
        BackendProtocol::H2c
    } else {
        BackendProtocol::Unspecified
    };
    let Some(name) = app_protocol else {
        return Ok(fallback);
    };
    let needs_tls = || {
        if tls() {
            Ok(())
        } else {
            Err(format!("appProtocol {name} needs a BackendTLSPolicy"))
        }
    };
    // The names of KEP-3726, and those of the IANA's registry that are about HTTP.
    match name.to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" | "kubernetes.io/grpc" => Ok(BackendProtocol::H2c),
        "kubernetes.io/ws" | "ws" if !grpc => Ok(BackendProtocol::Websocket),
        "kubernetes.io/wss" | "wss" if !grpc => needs_tls().map(|()| BackendProtocol::Websocket),
        "https" => needs_tls().map(|()| fallback),
        "http" => Ok(fallback),
        "tcp" | "udp" | "tls" | "kubernetes.io/ws" | "kubernetes.io/wss" | "ws" | "wss" => {
            Err(unspeakable(name, grpc))
        }
        // Names without a prefix of its own domain are Kubernetes' to give; this one came after us.
        other if other.starts_with("kubernetes.io/") => Err(unspeakable(name, grpc)),
        // Somebody's own word for whatever it is.
        _ => Ok(fallback),
    }
}

fn unspeakable(name: &str, grpc: bool) -> String {
    format!(
        "appProtocol {name} cannot be spoken by {}",
        if grpc { "a GRPCRoute" } else { "an HTTPRoute" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(usage: BackendUsage, name: &str, tls: bool) -> Option<BackendProtocol> {
        of_service(usage, Some(name).filter(|n| !n.is_empty()), || tls).ok()
    }

    #[test]
    fn http_routes_speak_http() {
        for (name, protocol) in [
            ("", Some(BackendProtocol::Unspecified)),
            ("http", Some(BackendProtocol::Unspecified)),
            ("example.com/whatever", Some(BackendProtocol::Unspecified)),
            ("kubernetes.io/h2c", Some(BackendProtocol::H2c)),
            ("kubernetes.io/ws", Some(BackendProtocol::Websocket)),
            ("kubernetes.io/wss", None),
            ("HTTPS", None),
            ("tcp", None),
            ("kubernetes.io/carrier-pigeon", None),
        ] {
            assert_eq!(of(BackendUsage::Http, name, false), protocol, "{name}");
        }
        assert_eq!(
            of(BackendUsage::Http, "kubernetes.io/wss", true),
            Some(BackendProtocol::Websocket)
        );
        assert_eq!(
            of(BackendUsage::Http, "HTTPS", true),
            Some(BackendProtocol::Unspecified)
        );
    }

    #[test]
    fn grpc_routes_speak_http2() {
        assert_eq!(of(BackendUsage::Grpc, "", false), Some(BackendProtocol::H2c));
        assert_eq!(of(BackendUsage::Grpc, "grpc", false), Some(BackendProtocol::H2c));
        assert_eq!(of(BackendUsage::Grpc, "kubernetes.io/ws", false), None);
    }

    #[test]
    fn others_do_not_ask() {
        assert_eq!(
            of(BackendUsage::Tcp, "kubernetes.io/h2c", false),
            Some(BackendProtocol::Tcp)
        );
        assert_eq!(
            of(BackendUsage::Passthrough, "https", false),
            Some(BackendProtocol::Tcp)
        );
        assert_eq!(of(BackendUsage::Udp, "dns", false), Some(BackendProtocol::Udp));
    }
}
