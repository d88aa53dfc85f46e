//! The listener of a QUIC connection, by the SNI in its ClientHello.
//!
//! Owns a session that holds the ClientHello back until it is whole, chooses the listener, and from then on is the
//! session of that listener's own TLS configuration. Never falls back to another listener.

use std::any::Any;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig as Crypto, Session,
    UnsupportedVersion,
};
use quinn::{ConnectionId, Side};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{TransportError, TransportErrorCode};
use rustls::server::{Acceptor, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::listen::Fingerprints;
use crate::route::{Listener, Port};
use crate::tls::material::provider;

/// Longest ClientHello.
const MAX_HELLO: usize = 16 * 1024;
/// Type and length in front of a handshake message (RFC 8446 section 4).
const MESSAGE_HEAD: usize = 4;
/// Alerts of TLS (RFC 8446 section 6): decode_error, unrecognized_name.
const DECODE_ERROR: u8 = 50;
const UNRECOGNIZED_NAME: u8 = 112;

/// What was chosen.
#[derive(Clone)]
pub(super) struct Chosen {
    pub(super) sni: Option<Box<str>>,
    pub(super) listener: Arc<Listener>,
    /// What was computed of the ClientHello, if anything.
    pub(super) fingerprints: Option<Box<Fingerprints>>,
}

/// Starts sessions that choose their listener.
pub(super) struct Choosing {
    port: Arc<Port>,
    /// For the keys of first packets, which are the same for everybody.
    common: Arc<QuicServerConfig>,
}

/// Has no certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl Choosing {
    pub(super) fn new(port: Arc<Port>) -> io::Result<Self> {
        let tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        let common = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        Ok(Self {
            port,
            common: Arc::new(common),
        })
    }
}

impl Crypto for Choosing {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.common.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.common.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        // Answers what may be asked before there is a choice.
        let session = Arc::clone(&self.common).start_session(version, params);
        Box::new(Choice {
            port: Arc::clone(&self.port),
            version,
            params: *params,
            hello: BytesMut::new(),
            chosen: None,
            session,
        })
    }
}

struct Choice {
    port: Arc<Port>,
    version: u32,
    params: TransportParameters,
    hello: BytesMut,
    chosen: Option<Chosen>,
    session: Box<dyn Session>,
}

impl Choice {
    /// Takes what has come of the ClientHello; true once it is whole and a listener is chosen.
    fn gather(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        if self.hello.len() + buf.len() > MAX_HELLO {
            return Err(alert(DECODE_ERROR));
        }
        self.hello.extend_from_slice(buf);
        let Some(&[_, a, b, c]) = self.hello.first_chunk::<MESSAGE_HEAD>() else {
            return Ok(false);
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > MAX_HELLO {
            return Err(alert(DECODE_ERROR));
        }
        if self.hello.len() < MESSAGE_HEAD + length {
            return Ok(false);
        }
        let sni = server_name(&self.hello)?;
        let site = self.port.site(sni.as_deref().unwrap_or_default());
        let Some(site) = site else {
            return Err(alert(UNRECOGNIZED_NAME));
        };
        let Some(http3) = site.listener.http3() else {
            return Err(alert(UNRECOGNIZED_NAME));
        };
        self.session = Arc::clone(&http3.crypto).start_session(self.version, &self.params);
        self.chosen = Some(Chosen {
            sni,
            fingerprints: Fingerprints::of_quic(&self.hello, site.listener.fingerprints),
            listener: Arc::clone(&site.listener),
        });
        Ok(true)
    }
}

fn alert(alert: u8) -> TransportError {
    TransportErrorCode::crypto(alert).into()
}

/// The name that a ClientHello asks for, lower case.
fn server_name(hello: &[u8]) -> Result<Option<Box<str>>, TransportError> {
    let unreadable = || alert(DECODE_ERROR);
    let length = u16::try_from(hello.len()).map_err(|_| unreadable())?;
    // As the record of TLS over TCP that it would have come in: rustls reads it.
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(hello);
    let mut acceptor = Acceptor::default();
    let mut rest = record.as_slice();
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).map_err(|_| unreadable())?;
    }
    let accepted = acceptor
        .accept()
        .map_err(|_| unreadable())?
        .ok_or_else(unreadable)?;
    let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
    Ok(name.map(String::into_boxed_str))
}

impl Session for Choice {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.chosen.clone()?))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        // 0-RTT is never accepted.
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        if self.chosen.is_some() {
            return self.session.read_handshake(buf);
        }
        if !self.gather(buf)? {
            return Ok(false);
        }
        let hello = std::mem::take(&mut self.hello);
        self.session.read_handshake(&hello)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.chosen.as_ref()?;
        self.session.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}
