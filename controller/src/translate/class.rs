//! Unit::Class.
use crate::engine::{Output, View};
pub fn translate(_name: &str, _view: &View<'_>) -> Output { Output::default() }
