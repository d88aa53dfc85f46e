//! Rules of TLSRoutes, TCPRoutes and UDPRoutes: weighted backends and nothing else.

use sluice_config::v1;
use sluice_crds::gateway::L4RouteRule;

use super::refs::Context;
use crate::engine::BackendUsage;
use crate::translate::fault::Fault;

/// The one rule that such a route can have.
pub fn rules(rules: &[L4RouteRule], usage: BackendUsage, context: &mut Context<'_, '_>) -> v1::L4Rules {
    let mut all = v1::L4Rules::default();
    for (i, rule) in rules.iter().enumerate() {
        if i > 0 {
            let problem = Fault::unsupported(
                format_args!("spec.rules[{i}]"),
                "a route of this kind has one rule",
            );
            context.problems.rule::<()>(Err(problem));
            continue;
        }
        context.problems.rule(Ok(()));
        let governing = context.enter(None);
        for (b, backend) in rule.backend_refs.iter().enumerate() {
            let field = format_args!("spec.rules[{i}].backendRefs[{b}]");
            all.backends.push(v1::WeightedBackend {
                backend: context.backend(&backend.object, usage, field).unwrap_or_default(),
                weight: backend.weight(),
                fallback: context.is_fallback(&backend.object),
                ..v1::WeightedBackend::default()
            });
        }
        if let Some(governing) = governing {
            let scope = context.scope();
            governing.apply_to_connections(context, scope, &mut all);
        }
    }
    all
}
