//! Why a try failed, and what is said of that.

use super::progress::connect_error;
use crate::forward::limits::Stop;
use crate::forward::record::Record;
use crate::upstream::ConnectError;

/// Envoy's words for a request that there is no room for.
pub(super) const OVERFLOW: &str = "upstream_reset_before_response_started{overflow}";

/// Why a try failed.
pub(super) enum Failed {
    Connect(ConnectError),
    /// The backend cannot have acted on the request.
    Unseen(Stop),
    Stop(Stop),
}

impl Failed {
    /// True if it says something about the endpoint.
    pub(super) fn is_of_backend(&self) -> bool {
        match self {
            Self::Connect(error) => !matches!(error, ConnectError::Overflow),
            Self::Unseen(stop) | Self::Stop(stop) => {
                matches!(stop, Stop::Upstream(_) | Stop::TryTimeout | Stop::RequestTimeout)
            }
        }
    }

    /// Says so of the try.
    pub(super) fn note(&self, record: &mut Record) {
        match self {
            Self::Connect(ConnectError::Overflow) => {
                record.note_failure("UO", OVERFLOW, &ConnectError::Overflow);
            }
            Self::Connect(error) => {
                let reply = connect_error(error);
                record.note_failure(reply.flags, reply.details, error);
            }
            Self::Unseen(stop) | Self::Stop(stop) => record.note_stop(stop),
        }
    }
}
