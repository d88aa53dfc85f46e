//! Names that metrics get instead of those of objects.

use super::reader::Reader;
use crate::store::ObjectRef;

/// The name for requests of the route that the policy is read for, its operators filled in.
pub fn route_name(reader: &mut Reader<'_, '_, '_>, pattern: &str) -> String {
    let name = fill(pattern, &of_route(reader.context.referrer));
    if name.contains('%') {
        reader
            .warnings
            .push("spec.telemetry.metrics.routeStatName: it has operators that have no value".to_owned());
    }
    name
}

/// A rule whose backends get a name.
pub struct RuleBackends<'a> {
    /// Its route.
    pub route: &'a ObjectRef,
    /// Its place among the route's rules.
    pub number: usize,
    /// Its name, if it has one.
    pub name: Option<&'a str>,
    /// Its backends, as `namespace/name`.
    pub backends: Vec<String>,
}

/// The name for requests to backends of a rule, the operators filled in.
pub fn backend_name(rule: &RuleBackends<'_>, pattern: &str) -> String {
    let mut operators = of_route(rule.route).to_vec();
    operators.extend([
        ("%ROUTE_RULE_NAME%", rule.name.unwrap_or_default().to_owned()),
        ("%ROUTE_RULE_NUMBER%", rule.number.to_string()),
        ("%BACKEND_REFS%", rule.backends.join("|")),
    ]);
    fill(pattern, &operators)
}

/// True if a pattern for backends has operators that have no value.
pub fn has_unknown(pattern: &str) -> bool {
    let route = ObjectRef::new(crate::store::Kind::HTTPRoute, "", "");
    let rule = RuleBackends {
        route: &route,
        number: 0,
        name: None,
        backends: Vec::new(),
    };
    backend_name(&rule, pattern).contains('%')
}

fn of_route(route: &ObjectRef) -> [(&'static str, String); 3] {
    [
        ("%ROUTE_NAME%", route.name.to_string()),
        ("%ROUTE_NAMESPACE%", route.namespace.to_string()),
        ("%ROUTE_KIND%", route.kind.as_str().to_ascii_lowercase()),
    ]
}

fn fill(pattern: &str, operators: &[(&str, String)]) -> String {
    operators
        .iter()
        .fold(pattern.to_owned(), |name, (operator, value)| {
            name.replace(operator, value)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    #[test]
    fn operators_are_filled_in() {
        let route = ObjectRef::new(Kind::GRPCRoute, "ns", "shop");
        let rule = RuleBackends {
            route: &route,
            number: 2,
            name: Some("pay"),
            backends: vec!["ns/a".into(), "other/b".into()],
        };
        let name = |pattern| backend_name(&rule, pattern);
        assert_eq!(
            name("%ROUTE_KIND%/%ROUTE_NAMESPACE%/%ROUTE_NAME%/rule/%ROUTE_RULE_NUMBER%"),
            "grpcroute/ns/shop/rule/2"
        );
        assert_eq!(name("%ROUTE_RULE_NAME% %BACKEND_REFS%"), "pay ns/a|other/b");
        assert!(!has_unknown("%ROUTE_RULE_NAME% %BACKEND_REFS%") && has_unknown("%ROUTE%"));
    }
}
