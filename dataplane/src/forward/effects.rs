//! What filters want done to a request's response, and why a request ends.
//!
//! Owns in which order a response meets what filters have asked for: that of the rule's filters, turned round. It never runs one.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, request, response};

use super::after::After;
use super::ext_proc::Pipe;
use super::limits::Stop;
use super::rate_limit;
use super::reply::Reply;
use crate::filter::compress::Encoder;
use crate::filter::metadata::Metadata;
use crate::filter::overrides::Origin;
use crate::filter::path::UrlRewrite;
use crate::filter::rate_limit::Tally;
use crate::filter::session::Session;
use crate::filter::{Cors, Denial, Facts, HeaderModifier};
use crate::upstream::Slot;

/// Why a request does not go on.
pub(super) enum End {
    /// It has an answer.
    Reply(Box<Reply>),
    /// It was cut short.
    Stop(Stop),
    /// The filter at this place wants its route to be chosen anew.
    Reroute(usize),
}

impl From<Reply> for End {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply.into())
    }
}

impl From<Box<Reply>> for End {
    fn from(reply: Box<Reply>) -> Self {
        Self::Reply(reply)
    }
}

impl From<Box<Denial>> for End {
    fn from(denial: Box<Denial>) -> Self {
        Reply::from(*denial).into()
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// What filters before or after processors do to the response's head.
#[derive(Default)]
pub(super) struct Changes<'a> {
    cors: Option<(&'a Cors, HeaderValue)>,
    pub(super) added: Vec<(HeaderName, HeaderValue)>,
    pub(super) limits: Tally,
}

impl Changes<'_> {
    fn apply(&self, headers: &mut HeaderMap) {
        if let Some((cors, origin)) = &self.cors {
            cors.grant(origin, headers);
        }
        for (name, value) in &self.added {
            headers.append(name, value.clone());
        }
        self.limits.show(headers);
    }
}

/// What filters have asked for.
#[derive(Default)]
pub(super) struct Effects<'a> {
    pub(super) modifiers: Vec<&'a HeaderModifier>,
    pub(super) changes: Changes<'a>,
    /// Set once the request has passed processors: the changes of the filters before them, which they do not see.
    outer: Option<Box<Outer<'a>>>,
    pub(super) mirrors: Vec<&'a Slot>,
    /// What is known of the request besides its head.
    pub(super) metadata: Metadata,
    /// The session that the request was found to belong to.
    pub(super) session: Option<Session>,
    pub(super) charges: Vec<rate_limit::Charge>,
    /// Set: the host becomes the name of the endpoint.
    pub(super) host_of_backend: Option<&'a UrlRewrite>,
    /// What the rule's policy does to the response, if anything.
    pub(super) after: Option<Box<After<'a>>>,
}

/// What comes after processors on a response's way to the client.
struct Outer<'a> {
    changes: Changes<'a>,
    /// Overrides, too.
    replaces: bool,
    /// Compression, too.
    compresses: bool,
}

impl<'a> Effects<'a> {
    /// What takes the place of a response with this status.
    pub(super) fn replace(&self, status: StatusCode, headers: &HeaderMap, origin: Origin) -> Option<Reply> {
        self.after.as_ref()?.replace(status, headers, origin)
    }

    /// Prepares a backend's response to be compressed, before or after processors have seen it.
    pub(super) fn compress(
        &self,
        response: &mut response::Parts,
        is_empty: bool,
        processed: bool,
    ) -> Option<Box<Encoder>> {
        let after = self.after.as_ref()?;
        let after_processors = self.outer.as_ref().is_some_and(|outer| outer.compresses);
        if after_processors == processed {
            after.compress(response, is_empty).map(Box::new)
        } else {
            None
        }
    }

    /// As [`Self::replace`], of a backend's response, before or after processors have seen it.
    pub(super) fn override_response(&self, response: &response::Parts, processed: bool) -> Option<Reply> {
        let after_processors = self.outer.as_ref().is_some_and(|outer| outer.replaces);
        if after_processors == processed {
            self.replace(response.status, &response.headers, Origin::Backend)
        } else {
            None
        }
    }

    /// Once the request has ended: takes in what processors have said last, and with it what the response costs. Gives what
    /// is known of the request.
    pub(super) fn settle(&mut self, pipe: Option<&mut Pipe>) -> Metadata {
        if let Some(pipe) = pipe {
            pipe.tell(&mut self.metadata);
        }
        self.changes.limits.settle(&self.metadata);
        if let Some(outer) = &mut self.outer {
            outer.changes.limits.settle(&self.metadata);
        }
        for charge in &mut self.charges {
            charge.settle(&self.metadata);
        }
        std::mem::take(&mut self.metadata)
    }

    /// Changes a response's headers.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        self.apply_before_processors(headers);
        self.apply_after_processors(headers);
    }

    /// As far as processors see it.
    pub(super) fn apply_before_processors(&self, headers: &mut HeaderMap) {
        for modifier in &self.modifiers {
            modifier.apply(headers);
        }
        self.changes.apply(headers);
    }

    /// The rest of it.
    pub(super) fn apply_after_processors(&self, headers: &mut HeaderMap) {
        if let Some(outer) = &self.outer {
            outer.changes.apply(headers);
        }
    }

    /// Processors come now: the response passes them before what has run so far.
    pub(super) fn meet_processors(&mut self) {
        let after = self.after.as_deref();
        let (replaces, compresses) =
            after.map_or((false, false), |after| (after.replaces(), after.compresses()));
        self.outer.get_or_insert_with(|| {
            Box::new(Outer {
                changes: std::mem::take(&mut self.changes),
                replaces,
                compresses,
            })
        });
    }

    /// From here on the rule's overrides take the place of responses. `passed`: this is behind the request.
    pub(super) fn begin_overrides(&mut self, head: &request::Parts, facts: &Facts<'_>, passed: bool) {
        if let Some(after) = &mut self.after {
            after.begin_overrides(head, facts);
            if let Some(outer) = &mut self.outer {
                outer.replaces = passed;
            }
        }
    }

    /// As [`Self::begin_overrides`]: from here on the response is compressed.
    pub(super) fn choose_coding(&mut self, head: &request::Parts, passed: bool) {
        if let Some(after) = &mut self.after {
            after.choose_coding(head);
            if let Some(outer) = &mut self.outer {
                outer.compresses = passed;
            }
        }
    }

    /// Only the last word on sharing counts.
    pub(super) fn share(&mut self, cors: &'a Cors, origin: Option<HeaderValue>) {
        if let Some(outer) = &mut self.outer {
            outer.changes.cors = None;
        }
        self.changes.cors = origin.map(|origin| (cors, origin));
    }
}
