//! How calls that the proxy makes for itself are made: to which of several backends, and how often.
//!
//! Owns the settings; [`crate::forward`] makes the calls.

use std::sync::Arc;
use std::time::Duration;

use sluice_config::v1;

use crate::filter::Lookup;
use crate::retry::Retry;
use crate::rule::Backends;
use crate::upstream::Backend;

/// What a backend says of such calls.
#[derive(Debug)]
pub struct OwnCalls {
    /// When and how there is another try, if ever.
    pub retry: Option<Retry>,
    /// How long nothing of an answer may come.
    pub idle: Option<Duration>,
    members: Backends,
}

impl OwnCalls {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::OwnCalls, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let retry = config.retry.as_ref().map(Retry::compile).transpose();
        Ok(Self {
            retry: retry.map_err(|e| format!("retry.{e}"))?,
            idle: (config.idle_timeout_ms != 0).then(|| Duration::from_millis(config.idle_timeout_ms)),
            members: Backends::compile(&config.members, lookup).map_err(|e| format!("members: {e}"))?,
        })
    }

    /// A healthy backend of another priority than `this`.
    pub fn beyond(&self, this: &Arc<Backend>) -> Option<Arc<Backend>> {
        self.members.beyond(this)
    }

    /// Draws the backend that a call to `named` goes to; `None`: the one that is drawn is not there.
    pub fn draw(&self, named: &Arc<Backend>) -> Option<Arc<Backend>> {
        match self.members.pick() {
            Some(member) => member.slot.as_ref()?.load(),
            None => Some(Arc::clone(named)),
        }
    }
}
