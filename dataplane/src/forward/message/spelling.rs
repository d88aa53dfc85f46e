//! Names of header fields in the case in which they came, for those who care (`http1.preserveHeaderCase`).
//!
//! Goes with a message's head as an extension, from the parser on one side to the encoder on the other. Heads of
//! connections that do not ask for it have none.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderName;
use http::{Extensions, HeaderMap};

/// The names of one head, as they came.
#[derive(Debug, Clone)]
pub struct Spelling(Arc<HeaderMap<Bytes>>);

impl Spelling {
    /// Names by what they mean, repeated ones in their order.
    pub fn new(names: HeaderMap<Bytes>) -> Self {
        Self(Arc::new(names))
    }

    /// That of a head with these extensions.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// How the field with this name was written that had as many of the same name before it; else the first of them.
    /// `None`: it did not come with the head.
    pub fn get(&self, name: &HeaderName, before: usize) -> Option<&[u8]> {
        let mut all = self.0.get_all(name).iter();
        all.nth(before).or_else(|| self.0.get(name)).map(|name| &name[..])
    }
}
