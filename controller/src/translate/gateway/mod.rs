//! Unit::Gateway.
use crate::engine::{GatewayRef, Output, View};
pub fn translate(_gateway: &GatewayRef, _view: &View<'_>) -> Output { Output::default() }
