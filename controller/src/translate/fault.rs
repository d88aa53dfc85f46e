//! What is wrong with a part of an object, before it becomes a condition.

use std::fmt;

use super::condition::Condition;

/// A reason of the API, and what to tell people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The API's reason.
    pub reason: &'static str,
    /// Object, field and why.
    pub message: String,
}

impl Fault {
    /// A fault from its parts.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// A fault of a field.
    pub fn at(reason: &'static str, field: fmt::Arguments<'_>, why: impl fmt::Display) -> Self {
        Self::new(reason, format!("{field}: {why}"))
    }

    /// A value that this implementation does not know or cannot honour.
    pub fn unsupported(field: fmt::Arguments<'_>, why: impl fmt::Display) -> Self {
        Self::at("UnsupportedValue", field, why)
    }

    /// The condition `kind`, which the fault makes false.
    pub fn condition(&self, kind: &'static str) -> Condition {
        Condition::fails(kind, self.reason, self.message.clone())
    }
}

/// The condition `kind`: false for the fault, else true for the reason `fine`.
pub fn stated(kind: &'static str, fine: &'static str, fault: Option<&Fault>) -> Condition {
    fault.map_or_else(|| Condition::holds(kind, fine), |fault| fault.condition(kind))
}
