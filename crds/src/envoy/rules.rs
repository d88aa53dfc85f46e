//! Validation rules in CEL that several kinds share.

use crate::cel::Rule;

/// A text in place, or a reference to the object that has it.
pub(super) const INLINE_OR_REF: Rule = (
    "has(self.inline) == (self.type == 'Inline') && has(self.valueRef) == (self.type == 'ValueRef')",
    "inline must be set with type Inline alone, valueRef with type ValueRef alone",
);

/// The list of backends in place of the one.
pub(super) const NO_BACKEND_REF: Rule = (
    "!has(self.backendRef)",
    "backendRef is not supported here; use backendRefs",
);

/// Backends that are Services or of kind Backend.
pub(super) const BACKEND_KINDS: Rule = (
    "!has(self.backendRefs) || self.backendRefs.all(ref, ref.kind in ['Service', 'ServiceImport', 'Backend'])",
    "backendRefs may be of kind Service, ServiceImport or Backend",
);

/// Backends of the groups that have those kinds.
pub(super) const BACKEND_GROUPS: Rule = (
    "!has(self.backendRefs) || self.backendRefs.all(ref, ref.group in ['', 'multicluster.x-k8s.io', 'gateway.envoyproxy.io'])",
    "backendRefs may be of the core group, multicluster.x-k8s.io or gateway.envoyproxy.io",
);

/// Backends of a service that is asked without a request of a client's.
pub(super) const NO_RETRY_TIMEOUT: Rule = (
    "!self.?backendSettings.?retry.?perRetry.?timeout.hasValue()",
    "backendSettings.retry.perRetry.timeout is not supported here",
);

/// Backends of a service that is asked without a request of a client's.
pub(super) const NO_RETRY_STATUS: Rule = (
    "!self.?backendSettings.?retry.?retryOn.?httpStatusCodes.hasValue()",
    "backendSettings.retry.retryOn.httpStatusCodes is not supported here",
);

/// Merging says how it merges; without it the policy takes the other's place.
pub(super) const NO_MERGE_BY_REPLACING: Rule = (
    "self != 'Replace'",
    "mergeType cannot be Replace; leave it out to replace the policy of the Gateway",
);
