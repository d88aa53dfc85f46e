//! What a filter is to do, whichever kind of route declares it.

use sluice_crds::gateway::{
    GRPCRouteFilter, GRPCRouteFilterType, HTTPCORSFilter, HTTPExternalAuthFilter, HTTPHeaderFilter,
    HTTPRequestMirrorFilter, HTTPRequestRedirectFilter, HTTPRouteFilter, HTTPRouteFilterType,
    HTTPURLRewriteFilter, LocalObjectReference,
};

/// A filter of either kind of route, with the settings that its type calls for.
pub enum Spec<'a> {
    /// RequestHeaderModifier.
    RequestHeaders(&'a HTTPHeaderFilter),
    /// ResponseHeaderModifier.
    ResponseHeaders(&'a HTTPHeaderFilter),
    /// RequestMirror.
    Mirror(&'a HTTPRequestMirrorFilter),
    /// RequestRedirect.
    Redirect(&'a HTTPRequestRedirectFilter),
    /// URLRewrite.
    Rewrite(&'a HTTPURLRewriteFilter),
    /// CORS.
    Cors(&'a HTTPCORSFilter),
    /// ExternalAuth.
    ExternalAuth(&'a HTTPExternalAuthFilter),
    /// ExtensionRef.
    Extension(&'a LocalObjectReference),
    /// A type that is not known, or whose settings are missing.
    Unknown(&'a str),
}

/// A filter as one of the API's types declares it.
pub trait Filter {
    /// What it is to do.
    fn spec(&self) -> Spec<'_>;
    /// Its type as manifests spell it.
    fn type_name(&self) -> &str;
}

impl Filter for HTTPRouteFilter {
    fn spec(&self) -> Spec<'_> {
        let spec = match self.type_ {
            HTTPRouteFilterType::RequestHeaderModifier => {
                self.request_header_modifier.as_ref().map(Spec::RequestHeaders)
            }
            HTTPRouteFilterType::ResponseHeaderModifier => {
                self.response_header_modifier.as_ref().map(Spec::ResponseHeaders)
            }
            HTTPRouteFilterType::RequestMirror => self.request_mirror.as_ref().map(Spec::Mirror),
            HTTPRouteFilterType::RequestRedirect => self.request_redirect.as_ref().map(Spec::Redirect),
            HTTPRouteFilterType::UrlRewrite => self.url_rewrite.as_ref().map(Spec::Rewrite),
            HTTPRouteFilterType::Cors => self.cors.as_ref().map(Spec::Cors),
            HTTPRouteFilterType::ExternalAuth => self.external_auth.as_ref().map(Spec::ExternalAuth),
            HTTPRouteFilterType::ExtensionRef => self.extension_ref.as_ref().map(Spec::Extension),
            HTTPRouteFilterType::Other(_) => None,
        };
        spec.unwrap_or(Spec::Unknown(self.type_name()))
    }

    fn type_name(&self) -> &str {
        self.type_.as_str()
    }
}

impl Filter for GRPCRouteFilter {
    fn spec(&self) -> Spec<'_> {
        let spec = match self.type_ {
            GRPCRouteFilterType::RequestHeaderModifier => {
                self.request_header_modifier.as_ref().map(Spec::RequestHeaders)
            }
            GRPCRouteFilterType::ResponseHeaderModifier => {
                self.response_header_modifier.as_ref().map(Spec::ResponseHeaders)
            }
            GRPCRouteFilterType::RequestMirror => self.request_mirror.as_ref().map(Spec::Mirror),
            GRPCRouteFilterType::ExtensionRef => self.extension_ref.as_ref().map(Spec::Extension),
            GRPCRouteFilterType::Other(_) => None,
        };
        spec.unwrap_or(Spec::Unknown(self.type_name()))
    }

    fn type_name(&self) -> &str {
        self.type_.as_str()
    }
}
