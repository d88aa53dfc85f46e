//! Names that metrics get instead of those of objects.

use super::reader::Reader;

/// The name for requests of the route that the policy is read for, its operators filled in.
pub fn route_name(reader: &mut Reader<'_, '_, '_>, pattern: &str) -> String {
    let route = &reader.context.referrer;
    let operators = [
        ("%ROUTE_NAME%", route.name.to_string()),
        ("%ROUTE_NAMESPACE%", route.namespace.to_string()),
        ("%ROUTE_KIND%", route.kind.as_str().to_ascii_lowercase()),
    ];
    let name = operators
        .iter()
        .fold(pattern.to_owned(), |name, (operator, value)| {
            name.replace(operator, value)
        });
    if name.contains('%') {
        reader
            .warnings
            .push("spec.telemetry.metrics.routeStatName: it has operators that have no value".to_owned());
    }
    name
}
