//! Every Kubernetes API type that Sluice reads or whose status it writes.
//!
//! - [`gateway`]: Gateway API v1.7.0, experimental channel.
//! - [`envoy`]: `gateway.envoyproxy.io/v1alpha1`, so that manifests written for Envoy Gateway keep working.
//! - Kubernetes' own kinds come from `k8s_openapi`.
//!
//! This crate holds data as it is on the wire and pure access to it. It never validates across objects, talks to an
//! API server or knows what a proxy does.
//!
//! Two rules keep one odd object from stopping a watch, which fails as a whole when one item cannot be read:
//! an enumeration that may grow carries its unknown value ([`open_enum`]), and an integer type is never narrower
//! than what the CRD's schema admits.

mod cel;
mod int_or_string;
mod open_enum;
mod patterns;
mod shape;

pub mod duration;
pub mod envoy;
pub mod gateway;
mod manifest;

pub use duration::{Duration, DurationError};
pub use int_or_string::IntOrString;
pub use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
pub use manifest::{ManifestError, crds, manifests};
