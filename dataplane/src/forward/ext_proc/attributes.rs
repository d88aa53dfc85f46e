//! Envoy's attributes of a request, as far as they are known here. A name that is not known is left out.

use http::header::{HOST, REFERER, USER_AGENT};
use http::request;
use prost_types::{Struct, Value, value::Kind};

use super::super::Conn;
use super::super::edge::X_REQUEST_ID;
use super::super::record::protocol;
use crate::filter::Facts;

/// What attributes are of.
pub(super) struct Subject<'a> {
    pub(super) conn: &'a Conn,
    pub(super) head: &'a request::Parts,
    pub(super) facts: &'a Facts<'a>,
}

impl Subject<'_> {
    /// Those of these names; `None` if there are none.
    pub(super) fn read(&self, names: &[Box<str>]) -> Option<Struct> {
        let mut told = Struct::default();
        for name in names {
            if let Some(value) = self.value(name) {
                put(&mut told, name, value);
            }
        }
        (!told.fields.is_empty()).then_some(told)
    }

    fn value(&self, name: &str) -> Option<Kind> {
        let head = self.head;
        let header = |name| {
            let value = head.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let (peer, local) = (self.conn.wire.peer(), self.conn.wire.local());
        let tls = self.conn.tls.as_deref();
        Some(Kind::StringValue(match name {
            "request.path" => head.uri.path_and_query()?.to_string(),
            "request.url_path" => head.uri.path().to_owned(),
            "request.query" => head.uri.query().unwrap_or_default().to_owned(),
            "request.host" => header(HOST)?,
            "request.scheme" => if self.facts.https { "https" } else { "http" }.to_owned(),
            "request.method" => head.method.to_string(),
            "request.referer" => header(REFERER)?,
            "request.useragent" => header(USER_AGENT)?,
            "request.id" => header(X_REQUEST_ID)?,
            "request.protocol" => protocol(head.version).to_owned(),
            "source.address" => peer.to_string(),
            "destination.address" => local.to_string(),
            "connection.requested_server_name" => tls?.sni.as_deref()?.to_owned(),
            "xds.route_name" => self.facts.route.to_owned(),
            "source.port" => return Some(Kind::NumberValue(peer.port().into())),
            "destination.port" => return Some(Kind::NumberValue(local.port().into())),
            _ => return None,
        }))
    }
}

/// Adds one.
pub(super) fn put(told: &mut Struct, name: &str, value: Kind) {
    told.fields.insert(name.to_owned(), Value { kind: Some(value) });
}
