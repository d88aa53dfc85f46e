//! Features of the conformance suite (Gateway API v1.7.0) that GatewayClasses of ours state in their status: all but
//! those of meshes.

/// Sorted by name, as the API asks. A feature must not be listed before what its comment names works.
pub const SUPPORTED: &[&str] = &[
    // TLS to backends: CA from ConfigMap, Secret or ClusterTrustBundle; statuses by ancestor; conflicts.
    "BackendTLSPolicy",
    // subjectAltNames, of type Hostname and URI, in place of the hostname.
    "BackendTLSPolicySANValidation",
    // CA certificates from ClusterTrustBundles, for clients and backends alike.
    "ClusterTrustBundle",
    // Routes of gRPC: matches by service, method and header; HTTP/2 to backends; errors as grpc-status.
    "GRPCRoute",
    // Rules may have names.
    "GRPCRouteNamedRouteRule",
    // Filter RequestHeaderModifier of GRPCRoutes.
    "GRPCRouteRequestHeaderModifier",
    // Gateways, their listeners and statuses.
    "Gateway",
    // spec.addresses without a value: any of the type is assigned.
    "GatewayAddressEmpty",
    // spec.addresses[].routability, and the same in the status.
    "GatewayAddressRoutability",
    // Routability Cluster: an address of type IPAddress is a ClusterIP.
    "GatewayAddressRoutabilityCluster",
    // spec.tls.backend.clientCertificateRef.
    "GatewayBackendClientCertificate",
    // spec.tls.frontend, by default and by port.
    "GatewayFrontendClientCertificateValidation",
    // Mode AllowInsecureFallback, and the Gateway's condition that warns of it.
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    // A request is routed by the most specific listener of its host alone.
    "GatewayHTTPListenerIsolation",
    // 421 for a host that another listener than the connection's serves.
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    // spec.infrastructure: labels, annotations, parametersRef.
    "GatewayInfrastructure",
    // Filters of listeners: ExternalAuth before routing.
    "GatewayListenerFilters",
    // A listener on port 8080 beside one on port 80.
    "GatewayPort8080",
    // Precedence among routes by their own hostnames, not by what is left after intersection with the listener's.
    "GatewayRouteHostnameIntersectionPrecedence",
    // spec.addresses with values.
    "GatewayStaticAddresses",
    // HTTP routes.
    "HTTPRoute",
    // Redirect with status 303.
    "HTTPRoute303RedirectStatusCode",
    // Redirect with status 307.
    "HTTPRoute307RedirectStatusCode",
    // Redirect with status 308.
    "HTTPRoute308RedirectStatusCode",
    // appProtocol kubernetes.io/h2c.
    "HTTPRouteBackendProtocolH2C",
    // appProtocol kubernetes.io/ws.
    "HTTPRouteBackendProtocolWebSocket",
    // Header modifiers of a backendRef.
    "HTTPRouteBackendRequestHeaderModification",
    // timeouts.backendRequest.
    "HTTPRouteBackendTimeout",
    // URLRewrite of a backendRef.
    "HTTPRouteBackendURLRewrite",
    // Filter CORS.
    "HTTPRouteCORS",
    // Listeners of several ports; a route attaches to one by its port.
    "HTTPRouteDestinationPortMatching",
    // URLRewrite of the hostname.
    "HTTPRouteHostRewrite",
    // Matches by method.
    "HTTPRouteMethodMatching",
    // Rules may have names.
    "HTTPRouteNamedRouteRule",
    // parentRefs[].port.
    "HTTPRouteParentRefPort",
    // Redirect with another path.
    "HTTPRoutePathRedirect",
    // URLRewrite of the path.
    "HTTPRoutePathRewrite",
    // Redirect with another port.
    "HTTPRoutePortRedirect",
    // Matches by query parameter.
    "HTTPRouteQueryParamMatching",
    // Filter RequestMirror.
    "HTTPRouteRequestMirror",
    // Several RequestMirrors in one rule.
    "HTTPRouteRequestMultipleMirrors",
    // RequestMirror of a share of the requests.
    "HTTPRouteRequestPercentageMirror",
    // timeouts.request.
    "HTTPRouteRequestTimeout",
    // Filter ResponseHeaderModifier.
    "HTTPRouteResponseHeaderModification",
    // retry by status code.
    "HTTPRouteRetryCodes",
    // retry after a connection error.
    "HTTPRouteRetryConnectionError",
    // Redirect with another scheme.
    "HTTPRouteSchemeRedirect",
    // ListenerSets.
    "ListenerSet",
    // References into other namespaces, as ReferenceGrants allow.
    "ReferenceGrant",
    // TCP routes.
    "TCPRoute",
    // TLS routes on listeners that pass through.
    "TLSRoute",
    // Listeners of one port of which some terminate and some pass through, by SNI.
    "TLSRouteModeMixed",
    // TLS routes on listeners that terminate.
    "TLSRouteModeTerminate",
    // UDP routes.
    "UDPRoute",
];

#[cfg(test)]
mod tests {
    use super::SUPPORTED;

    #[test]
    fn sorted_and_each_once() {
        assert!(SUPPORTED.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn each_has_a_row_with_a_test_in_the_documentation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/features.md");
        let text = std::fs::read_to_string(path).unwrap();
        for feature in SUPPORTED {
            let start = format!("| `{feature}` | `");
            assert!(text.lines().any(|line| line.starts_with(&start)), "{feature}");
        }
    }
}
