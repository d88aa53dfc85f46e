//! Regular expressions of more than one field's schema, in RE2's dialect.

/// Name of an HTTP field: RFC 9110 section 5.1's token.
pub(crate) const HEADER_NAME: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";

/// Number of bytes, with a unit or none: `64Ki`, `2M`; whole and not 0.
pub(crate) const SIZE: &str = "^[1-9][0-9]*([EPTGMK]i|[EPTGMk])?$";

/// Network of IPv4 or IPv6 addresses. It need not be all of the text; who reads it is stricter.
pub(crate) const CIDR: &str = concat!(
    r"([0-9](\.(25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])){3}",
    r"|[0-9a-fA-F]:([0-9a-fA-F]{1,4}:){6}[0-9a-fA-F]{1,4}",
    r"|::([0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4}){0,6})?",
    r"|fe80:(:[0-9a-fA-F]{0,4}){0,4}%[0-9a-zA-Z]+)/[0-9]",
);

/// Web origin: `*`, or scheme, host (`*`, a name, `*.` and a name) and perhaps a port.
pub(crate) const ORIGIN: &str =
    r"^(\*|[A-Za-z][A-Za-z0-9+.-]*://(\*|(\*\.)?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*)(:[0-9]{1,5})?)$";

/// API group; empty for the core group.
pub(crate) const GROUP: &str = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Kind of an object.
pub(crate) const KIND: &str = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";

/// Name in the DNS: RFC 1123's, in lower case.
pub(crate) const DNS_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// One label of a name in the DNS.
pub(crate) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// Name of a controller: a domain and a path.
pub(crate) const CONTROLLER: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$";

/// Name of a set of CA certificates: `System`, or a domain and a name.
pub(crate) const WELL_KNOWN_CA: &str = r"^(System|([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]))$";

/// Address of IPv4 or IPv6. Who reads it is stricter.
pub(crate) const ADDRESS: &str = concat!(
    r"^((25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}(25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)$",
    r"|^(([0-9a-fA-F]{1,4}:){1,7}[0-9a-fA-F]{1,4}|::|(([0-9a-fA-F]{1,4}:){0,5})?(:[0-9a-fA-F]{1,4}){1,2})$",
);

/// Reason of a condition.
pub(crate) const REASON: &str = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";

/// Type of a condition.
pub(crate) const CONDITION: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

/// Quantity of Kubernetes: `500m`, `1.5Gi`, `1e3`.
pub(crate) const QUANTITY: &str =
    r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+))?$";
