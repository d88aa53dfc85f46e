//! Why tries of the proxy's own calls come to nothing.

use std::fmt;

use super::super::upstream::Failure;
use crate::retry::Retry;
use crate::upstream::ConnectError;

/// Why a try has come to nothing.
pub(in crate::forward) enum Failed {
    NoBackend,
    NoEndpoint,
    Overflow,
    Destination(String),
    Connect(ConnectError),
    Timeout,
    Upstream(Failure),
    TooLarge,
}

impl Failed {
    /// True if it took too long.
    pub(in crate::forward) fn is_late(&self) -> bool {
        matches!(self, Self::Timeout | Self::Connect(ConnectError::Timeout))
    }

    pub(super) fn is_covered(&self, retry: &Retry) -> bool {
        match self {
            Self::Connect(ConnectError::Overflow)
            | Self::NoBackend
            | Self::NoEndpoint
            | Self::Overflow
            | Self::Destination(_)
            | Self::TooLarge => false,
            Self::Connect(_) => retry.covers_connect_failure(),
            Self::Timeout => retry.covers_timeout(),
            Self::Upstream(_) => retry.covers_reset(),
        }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBackend => f.write_str("no such backend"),
            Self::NoEndpoint => f.write_str("no healthy upstream"),
            Self::Overflow => f.write_str("overflow"),
            Self::Destination(why) => f.write_str(why),
            Self::Connect(error) => error.fmt(f),
            Self::Timeout => f.write_str("timeout"),
            Self::Upstream(failure) => failure.fmt(f),
            Self::TooLarge => f.write_str("the response is too large"),
        }
    }
}
