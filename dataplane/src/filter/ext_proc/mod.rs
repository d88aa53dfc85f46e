//! External processing: what a processor is shown, and what its answers may change.
//!
//! Owns the settings and the messages ([`proto`]), and how a mutation changes a head. Speaking with the processor is the
//! forwarder's business.

mod mutation;
pub mod proto;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sluice_config::v1;
use sluice_config::v1::external_processor as config;

use super::{Lookup, status};
use crate::upstream::Slot;

pub use mutation::{Start, apply, headers, immediate, pseudo};

/// How long an answer may take if the configuration does not say; Envoy's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);

/// What a processor sees of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyMode {
    /// Nothing.
    #[default]
    None,
    /// Piece by piece, each answered.
    Streamed,
    /// As a whole.
    Buffered,
    /// As much as is held.
    Partial,
    /// Piece by piece, answered by pieces of its own.
    FullDuplex,
}

impl BodyMode {
    /// `ProcessingMode.BodySendMode`.
    pub fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Streamed => 1,
            Self::Buffered => 2,
            Self::Partial => 3,
            Self::FullDuplex => 4,
        }
    }

    /// The mode of this number; `None` for one that is not known.
    pub fn of_number(number: i32) -> Option<Self> {
        [
            Self::None,
            Self::Streamed,
            Self::Buffered,
            Self::Partial,
            Self::FullDuplex,
        ]
        .into_iter()
        .find(|mode| mode.number() == number)
    }

    /// True if the body is held until all that is shown of it has been answered.
    pub fn holds(self) -> bool {
        matches!(self, Self::Buffered | Self::Partial)
    }
}

/// What a processor sees of a direction.
#[derive(Debug, Clone, Default)]
pub struct Direction {
    /// The body.
    pub body: BodyMode,
    /// Attributes that go with the head.
    pub attributes: Box<[Box<str>]>,
}

/// A compiled processor.
#[derive(Debug)]
pub struct Processor {
    /// Where it is.
    pub backend: Arc<Slot>,
    /// `None`: it does not see requests.
    pub request: Option<Direction>,
    /// `None`: it does not see responses.
    pub response: Option<Direction>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long a call may last; `None`: as long as the request.
    pub lasts: Option<Duration>,
    /// True: what it cannot be asked about passes.
    pub fail_open: bool,
    /// The answer if it cannot be asked; `None`: the one that fits.
    pub status_on_error: Option<StatusCode>,
    /// True: its answers are not waited for.
    pub only_watches: bool,
    /// True: its answers may change what it sees.
    pub allow_mode_override: bool,
    /// Namespaces of metadata that it is shown.
    pub reads: Box<[Box<str>]>,
    /// Those that it may write.
    pub writes: Box<[Box<str>]>,
}

impl Processor {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::ExternalProcessor, lookup: &mut dyn Lookup) -> Result<Self, String> {
        Ok(Self {
            request: config.request.as_ref().map(direction),
            response: config.response.as_ref().map(direction),
            timeout: match config.message_timeout_ms {
                0 => DEFAULT_TIMEOUT,
                ms => Duration::from_millis(ms),
            },
            lasts: (config.max_duration_ms != 0).then(|| Duration::from_millis(config.max_duration_ms)),
            fail_open: config.fail_open,
            status_on_error: match config.status_on_error {
                0 => None,
                code => Some(status(code).map_err(|e| format!("status_on_error: {e}"))?),
            },
            only_watches: config.only_watches,
            allow_mode_override: config.allow_mode_override,
            reads: names(&config.reads_metadata),
            writes: names(&config.writes_metadata),
            backend: lookup.backend(&config.backend),
        })
    }

    /// Reads a list of resources.
    ///
    /// # Errors
    /// As [`Processor::compile`], with the index in front.
    pub fn compile_all(
        config: &[v1::ExternalProcessor],
        lookup: &mut dyn Lookup,
    ) -> Result<Box<[Arc<Self>]>, String> {
        let mut all = Vec::with_capacity(config.len());
        for (i, config) in config.iter().enumerate() {
            all.push(Arc::new(
                Self::compile(config, lookup).map_err(|e| format!("[{i}].{e}"))?,
            ));
        }
        Ok(all.into())
    }
}

fn names(from: &[String]) -> Box<[Box<str>]> {
    from.iter().map(|name| name.as_str().into()).collect()
}

fn direction(from: &config::Direction) -> Direction {
    use config::BodyMode as M;
    Direction {
        body: match from.body() {
            M::Unspecified => BodyMode::None,
            M::Streamed => BodyMode::Streamed,
            M::Buffered => BodyMode::Buffered,
            M::BufferedPartial => BodyMode::Partial,
            M::FullDuplex => BodyMode::FullDuplex,
        },
        attributes: names(&from.attributes),
    }
}
