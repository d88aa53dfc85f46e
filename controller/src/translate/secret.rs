//! Unit::Secret.
use crate::engine::{Output, View};
use crate::store::ObjectRef;
pub fn translate(_secret: &ObjectRef, _view: &View<'_>) -> Output { Output::default() }
