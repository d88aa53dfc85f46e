//! What is wrong with a route, and the conditions that say so.
//!
//! A reference that does not resolve leaves a hole that is answered with an error; a rule that is invalid is dropped;
//! a route all of whose rules are invalid is not accepted.

use std::fmt;

use crate::translate::condition::Condition;
use crate::translate::fault::{Fault, stated};

/// What was found while the rules of a route were translated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    unresolved: Option<Fault>,
    dropped: Vec<(usize, Fault)>,
    rules: usize,
}

impl Problems {
    /// Notes a reference that does not resolve; the first one is reported.
    pub fn unresolved(&mut self, fault: Fault) {
        self.unresolved.get_or_insert(fault);
    }

    /// Notes what became of the next rule.
    pub fn rule<T>(&mut self, outcome: Result<T, Fault>) -> Option<T> {
        let index = self.rules;
        self.rules += 1;
        outcome.map_err(|fault| self.dropped.push((index, fault))).ok()
    }

    /// The first reference that does not resolve.
    pub fn first_unresolved(&self) -> Option<&Fault> {
        self.unresolved.as_ref()
    }

    /// Why the route as a whole cannot be accepted, if no rule is valid.
    pub fn fatal(&self) -> Option<&Fault> {
        let (_, first) = self.dropped.first()?;
        (self.dropped.len() == self.rules).then_some(first)
    }

    /// `ResolvedRefs`.
    pub fn resolved_refs(&self) -> Condition {
        stated("ResolvedRefs", "ResolvedRefs", self.unresolved.as_ref())
    }

    /// `PartiallyInvalid`, which is stated only if it holds.
    pub fn partially_invalid(&self) -> Option<Condition> {
        let (_, first) = self.dropped.first()?;
        if self.fatal().is_some() {
            return None;
        }
        // The API asks for this prefix.
        let mut message = String::from("Dropped Rule");
        for (i, (rule, fault)) in self.dropped.iter().enumerate() {
            use fmt::Write;
            let separator = if i == 0 { "" } else { ";" };
            // Writing to a String cannot fail.
            let _ = write!(message, "{separator} {rule}: {}", fault.message);
        }
        Some(Condition::warns("PartiallyInvalid", first.reason, message))
    }
}
