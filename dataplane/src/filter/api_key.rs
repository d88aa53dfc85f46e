//! Keys that name a client.

use std::collections::{BTreeMap, HashMap};

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use ring::digest::{SHA256, digest};
use sluice_config::v1;

use super::carrier::Carrier;
use super::secret::Derived;
use super::{Denial, Lookup, headers};

/// A compiled filter.
#[derive(Debug)]
pub struct ApiKeyAuth {
    clients: Derived<Clients>,
    carriers: Box<[Carrier]>,
    forward: Option<HeaderName>,
    sanitize: bool,
}

/// Clients by the digests of their keys. How long a look-up takes says something of the digest of what was sent, and
/// so nothing of any key.
struct Clients(HashMap<Box<[u8]>, HeaderValue>);

impl ApiKeyAuth {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::ApiKeyAuth, lookup: &mut dyn Lookup) -> Result<Self, String> {
        if config.credential_secrets.is_empty() {
            return Err("credential_secrets: empty".into());
        }
        let keys = config.credential_secrets.iter().map(String::as_str);
        Ok(Self {
            clients: Derived::new(keys, lookup, |secrets| {
                Clients::new(secrets.iter().flatten().flat_map(|entries| entries.iter()))
            }),
            carriers: Carrier::compile_all(&config.sources)?,
            forward: headers::optional_name(&config.forward_client_id_header)
                .map_err(|e| format!("forward_client_id_header: {e}"))?,
            sanitize: config.sanitize,
        })
    }

    /// Lets the request of a known client pass.
    ///
    /// # Errors
    /// What the client is told otherwise.
    pub fn check(&self, head: &mut Parts) -> Result<(), Box<Denial>> {
        let key = self.carriers.iter().find_map(|carrier| carrier.read(head));
        let key = key.ok_or_else(|| denied("missing_api_key"))?;
        let clients = self.clients.get();
        let client = clients
            .0
            .get(digest(&SHA256, key.as_bytes()).as_ref())
            .ok_or_else(|| denied("unknown_api_key"))?;
        drop(key);
        if self.sanitize {
            self.carriers.iter().for_each(|carrier| carrier.remove(head));
        }
        if let Some(header) = &self.forward {
            head.headers.insert(header, client.clone());
        }
        Ok(())
    }
}

impl Clients {
    /// The first entry of a client holds.
    fn new<'e>(entries: impl Iterator<Item = (&'e String, &'e Vec<u8>)>) -> Self {
        let mut named = BTreeMap::new();
        for (client, key) in entries {
            named.entry(client).or_insert(key);
        }
        let mut clients = HashMap::new();
        for (client, key) in named {
            let key = key.trim_ascii();
            let Ok(name) = HeaderValue::from_str(client) else {
                continue;
            };
            // An empty key would be one that nobody needs to know.
            if !key.is_empty() {
                clients.insert(digest(&SHA256, key).as_ref().into(), name);
            }
        }
        Self(clients)
    }
}

fn denied(details: &'static str) -> Box<Denial> {
    Box::new(Denial {
        status: StatusCode::UNAUTHORIZED,
        headers: HeaderMap::new(),
        body: "Client authentication failed.".into(),
        flags: "UAEX",
        details,
    })
}
