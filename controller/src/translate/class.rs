//! GatewayClasses: which are ours, what their statuses say, and the fleet that their Gateways share if they do.
//!
//! `SupportedVersion` is not stated: it depends on the version of the installed CRDs, which are not read.

use std::sync::Arc;

use sluice_crds::gateway::GatewayClass;

use super::condition::Condition;
use super::features;
use super::gateway::fleet;
use super::gateway::parameters::{self, Reading};
use crate::engine::{Output, Status, View};
use crate::store::ObjectRef;

/// The class with this name, if it is ours.
pub fn ours(view: &View<'_>, name: &str) -> Option<Arc<GatewayClass>> {
    let class = view.get::<GatewayClass>("", name)?;
    (class.spec.controller_name == view.environment().controller_name).then_some(class)
}

/// Translates a class.
pub fn translate(name: &str, view: &View<'_>) -> Output {
    let Some(class) = ours(view, name) else {
        return Output::default();
    };
    let reading = parameters::of_class(view, &class);
    let accepted = accepted(&reading);
    let status = Status::GatewayClass {
        generation: class.metadata.generation.unwrap_or_default(),
        conditions: vec![accepted],
        supported_features: features::SUPPORTED.to_vec(),
    };
    let mut output = Output {
        statuses: vec![(ObjectRef::of(class.as_ref()), status)],
        ..Output::default()
    };
    if let Some(fleet) = &reading.fleet {
        let (model, infra) = fleet::translate(view, &class, &reading, fleet);
        output.fleet = Some(Arc::new(model));
        output.infra = infra;
    }
    output
}

fn accepted(reading: &Reading) -> Condition {
    match &reading.fault {
        None => Condition {
            message: reading.parameters.remark(&[]),
            ..Condition::holds("Accepted", "Accepted")
        },
        Some(fault) => fault.condition("Accepted"),
    }
}
