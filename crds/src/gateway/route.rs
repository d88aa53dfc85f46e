//! One view of all five route kinds.

use super::common::{GatewayDefaultScope, RouteParentStatus, RouteStatus};
use super::grpc_route::{GRPCRoute, GRPCRouteFilter, GRPCRouteSpec};
use super::http_filters::HTTPRouteFilter;
use super::http_route::{HTTPRoute, HTTPRouteSpec};
use super::l4_routes::{L4RouteRule, TCPRoute, TCPRouteSpec, TLSRoute, TLSRouteSpec, UDPRoute, UDPRouteSpec};
use super::references::{BackendObjectReference, ParentReference};

/// A route of any kind.
pub trait Route: kube::Resource<DynamicType = ()> + Clone + Send + Sync + 'static {
    /// Its kind.
    const KIND: &'static str;
    /// Its API group.
    const GROUP: &'static str = super::GROUP;

    /// Gateways and ListenerSets to attach to.
    fn parent_refs(&self) -> &[ParentReference];

    /// Whether default Gateways are meant as well.
    fn use_default_gateways(&self) -> Option<GatewayDefaultScope>;

    /// Hosts to match; empty for kinds without hosts.
    fn hostnames(&self) -> &[String];

    /// Every object that the route sends something to: backends of its rules, mirrors, authorization services.
    fn backends(&self) -> Vec<&BackendObjectReference>;

    /// Status, one entry a parent and controller.
    fn route_status(&self) -> &[RouteParentStatus];
}

macro_rules! route {
    ($kind:ident, $spec:ty, hostnames: $hostnames:expr, backends: $backends:expr) => {
        impl Route for $kind {
            const KIND: &'static str = stringify!($kind);

            fn parent_refs(&self) -> &[ParentReference] {
                &self.spec.parent_refs
            }

            fn use_default_gateways(&self) -> Option<GatewayDefaultScope> {
                self.spec.use_default_gateways
            }

            fn hostnames(&self) -> &[String] {
                let hostnames: fn(&$spec) -> &[String] = $hostnames;
                hostnames(&self.spec)
            }

            fn backends(&self) -> Vec<&BackendObjectReference> {
                let backends: fn(&$spec) -> Vec<&BackendObjectReference> = $backends;
                backends(&self.spec)
            }

            fn route_status(&self) -> &[RouteParentStatus] {
                parents(self.status.as_ref())
            }
        }
    };
}

route!(HTTPRoute, HTTPRouteSpec, hostnames: |spec| &spec.hostnames, backends: |spec| {
    let rules = spec.rules.iter();
    rules.flat_map(|rule| filtered(&rule.backend_refs, &rule.filters, http_filter_backends)).collect()
});
route!(GRPCRoute, GRPCRouteSpec, hostnames: |spec| &spec.hostnames, backends: |spec| {
    let rules = spec.rules.iter();
    rules.flat_map(|rule| filtered(&rule.backend_refs, &rule.filters, grpc_filter_backends)).collect()
});
route!(TLSRoute, TLSRouteSpec, hostnames: |spec| &spec.hostnames, backends: |spec| l4_backends(&spec.rules));
route!(TCPRoute, TCPRouteSpec, hostnames: |_| &[], backends: |spec| l4_backends(&spec.rules));
route!(UDPRoute, UDPRouteSpec, hostnames: |_| &[], backends: |spec| l4_backends(&spec.rules));

fn parents(status: Option<&RouteStatus>) -> &[RouteParentStatus] {
    status.map_or(&[], |status| &status.parents)
}

fn l4_backends(rules: &[L4RouteRule]) -> Vec<&BackendObjectReference> {
    rules
        .iter()
        .flat_map(|rule| &rule.backend_refs)
        .map(|backend| &backend.object)
        .collect()
}

/// Backends of a rule, and those that the rule's and the backends' filters name.
fn filtered<'a, F>(
    backends: &'a [super::BackendRef<F>],
    filters: &'a [F],
    named: fn(&F) -> [Option<&BackendObjectReference>; 2],
) -> impl Iterator<Item = &'a BackendObjectReference> {
    let filters = filters
        .iter()
        .chain(backends.iter().flat_map(|backend| &backend.filters));
    backends
        .iter()
        .map(|backend| &backend.object)
        .chain(filters.flat_map(move |filter| named(filter).into_iter().flatten()))
}

fn http_filter_backends(filter: &HTTPRouteFilter) -> [Option<&BackendObjectReference>; 2] {
    [
        filter.request_mirror.as_ref().map(|mirror| &mirror.backend_ref),
        filter.external_auth.as_ref().map(|auth| &auth.backend_ref),
    ]
}

fn grpc_filter_backends(filter: &GRPCRouteFilter) -> [Option<&BackendObjectReference>; 2] {
    [
        filter.request_mirror.as_ref().map(|mirror| &mirror.backend_ref),
        None,
    ]
}
