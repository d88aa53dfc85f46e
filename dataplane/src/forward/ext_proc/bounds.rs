//! How long a call of a processor may last, and how long nothing may be said in it.

use std::task::Context;
use std::time::Duration;

use super::super::limits::Deadline;

/// The clocks of one call. Both are looked at while an answer is waited for.
#[derive(Default)]
pub(super) struct Bounds {
    whole: Option<Deadline>,
    silence: Option<(Duration, Deadline)>,
}

impl Bounds {
    /// Those of a call that begins now.
    pub(super) fn new(whole: Option<Deadline>, silence: Option<Duration>) -> Self {
        Self {
            whole,
            silence: silence.map(|silence| (silence, Deadline::after(silence))),
        }
    }

    /// Notes that something was said, by either side.
    pub(super) fn heard(&mut self) {
        if let Some((silence, deadline)) = &mut self.silence {
            deadline.reset(*silence);
        }
    }

    /// True if the call has lasted too long.
    pub(super) fn have_passed(&mut self, cx: &mut Context<'_>) -> bool {
        let whole = self.whole.as_mut();
        let silence = self.silence.as_mut().map(|(_, deadline)| deadline);
        whole
            .into_iter()
            .chain(silence)
            .any(|deadline| deadline.has_passed(cx))
    }
}
