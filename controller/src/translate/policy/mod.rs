//! Unit::Policy.
mod tls;
pub use tls::{BackendTls, backend_tls};
use crate::engine::{Output, View};
use crate::store::ObjectRef;
pub fn translate(_policy: &ObjectRef, _view: &View<'_>) -> Output { Output::default() }
