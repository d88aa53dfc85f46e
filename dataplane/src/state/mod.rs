//! Configuration by key. (Skeleton.)

use std::collections::HashMap;
use std::sync::Arc;

use sluice_config::v1;

use crate::worker::Shared;

/// Opens sockets.
pub trait Bind: Send {}

/// All configuration that is in effect.
pub struct State;

impl State {
    /// Nothing yet.
    pub fn new(_shared: Arc<Shared>, _bind: Box<dyn Bind>) -> Self {
        Self
    }
    /// Applies an update.
    pub fn apply(&mut self, update: &v1::Update) -> v1::Ack {
        v1::Ack { nonce: update.nonce, rejected: Vec::new() }
    }
    /// Key and version of what is in effect.
    pub fn known(&self) -> HashMap<String, String> {
        HashMap::new()
    }
    /// All of it.
    pub fn dump(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// How much.
    pub fn len(&self) -> usize {
        0
    }
    /// True if nothing.
    pub fn is_empty(&self) -> bool {
        true
    }
    /// True if no socket is missing.
    pub fn all_bound(&self) -> bool {
        true
    }
    /// Tries to bind what is missing.
    pub fn retry_binds(&mut self) {}
    /// Takes no connection any more.
    pub fn close_sockets(&mut self) {}
}
