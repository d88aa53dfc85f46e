//! Conditions as translation states them: without a time, which the status writer adds.

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Condition {
    /// `Accepted`, `Programmed`, `ResolvedRefs`, ...
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// True, False (Unknown is never stated).
    pub status: bool,
    /// The API's reason.
    pub reason: &'static str,
    /// Says for people what is wrong: object, field and why. Empty if all is well.
    pub message: String,
}

impl Condition {
    /// A condition that holds.
    pub fn holds(kind: &'static str, reason: &'static str) -> Self {
        Self {
            kind,
            status: true,
            reason,
            message: String::new(),
        }
    }

    /// A condition that does not hold.
    pub fn fails(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: false,
            reason,
            message: message.into(),
        }
    }

    /// A condition that holds and is bad news (`Conflicted: True`, `PartiallyInvalid: True`).
    pub fn warns(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: true,
            reason,
            message: message.into(),
        }
    }
}
