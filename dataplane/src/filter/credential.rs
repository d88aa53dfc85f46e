//! Putting a credential of the configuration into requests to a backend.

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use sluice_config::v1;

use super::secret::Derived;
use super::{Denial, Lookup, headers};

/// A compiled filter.
#[derive(Debug)]
pub struct CredentialInjection {
    header: HeaderName,
    credential: Derived<Option<HeaderValue>>,
    overwrite: bool,
}

impl CredentialInjection {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::CredentialInjection, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let value = |entry: Option<&[u8]>| {
            let mut value = HeaderValue::from_bytes(entry?.trim_ascii()).ok()?;
            value.set_sensitive(true);
            (!value.is_empty()).then_some(value)
        };
        Ok(Self {
            header: headers::name(&config.header).map_err(|e| format!("header: {e}"))?,
            credential: Derived::of_entry(config.credential.as_ref(), lookup, value)
                .map_err(|e| format!("credential: {e}"))?,
            overwrite: config.overwrite,
        })
    }

    /// Puts the credential into the request.
    ///
    /// # Errors
    /// What the client is told if there is none.
    pub fn apply(&self, head: &mut Parts) -> Result<(), Box<Denial>> {
        if !self.overwrite && head.headers.contains_key(&self.header) {
            return Ok(());
        }
        let credential = self.credential.get();
        let Some(credential) = &*credential else {
            return Err(Box::new(Denial {
                status: StatusCode::UNAUTHORIZED,
                headers: HeaderMap::new(),
                body: "Failed to inject credential.".into(),
                flags: "",
                details: "failed_to_inject_credential",
            }));
        };
        head.headers.insert(&self.header, credential.clone());
        Ok(())
    }
}
