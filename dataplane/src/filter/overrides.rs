//! Putting another response in the place of one, by its status.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use sluice_config::v1;

use super::direct::DirectResponse;
use super::format::Subject;
use super::text::TextMatch;
use super::{Facts, Redirect, headers};

/// Where a response comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The proxy itself.
    Local,
    /// A backend.
    Backend,
}

/// Compiled overrides; the first that matches is applied.
#[derive(Debug, Default)]
pub struct Overrides(Box<[Override]>);

#[derive(Debug)]
struct Override {
    statuses: Box<[RangeInclusive<u16>]>,
    headers: Box<[(HeaderName, TextMatch)]>,
    /// `None`: any.
    origin: Option<Origin>,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Respond(DirectResponse),
    Redirect(Redirect),
}

/// What the overrides of a rule need to know of a request once its response comes.
#[derive(Debug, Default)]
pub struct Prepared {
    subject: Option<Subject>,
    /// For each override, where it leads.
    locations: Vec<Option<(StatusCode, HeaderValue)>>,
}

impl Overrides {
    /// Reads the resources.
    ///
    /// # Errors
    /// `[index].field: reason` of what cannot be honoured.
    pub fn compile(config: &[v1::ResponseOverride]) -> Result<Self, String> {
        let one = |(i, config)| Override::compile(config).map_err(|e| format!("[{i}].{e}"));
        Ok(Self(
            config.iter().enumerate().map(one).collect::<Result<_, _>>()?,
        ))
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Remembers what is needed of a request.
    pub fn prepare(&self, head: &Parts, facts: &Facts<'_>) -> Prepared {
        let wants =
            |one: &Override| matches!(&one.action, Action::Respond(response) if response.needs_subject());
        let location = |one: &Override| match &one.action {
            Action::Redirect(redirect) => redirect.answer(head, facts),
            Action::Respond(_) => None,
        };
        Prepared {
            subject: self.0.iter().any(wants).then(|| Subject::new(head, facts)),
            locations: if self.0.iter().any(|one| matches!(one.action, Action::Redirect(_))) {
                self.0.iter().map(location).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// What takes the place of a response with this status and these headers.
    pub fn replace(
        &self,
        prepared: &Prepared,
        (status, headers): (StatusCode, &HeaderMap),
        origin: Origin,
        route: &str,
    ) -> Option<(StatusCode, HeaderMap, Bytes)> {
        let matches = |one: &Override| one.matches(status, headers, origin);
        let at = self.0.iter().position(matches)?;
        match &self.0[at].action {
            Action::Respond(response) => Some(response.render(prepared.subject.as_ref(), route, status)),
            Action::Redirect(_) => {
                let (status, location) = prepared.locations.get(at)?.clone()?;
                let location = HeaderMap::from_iter([(LOCATION, location)]);
                Some((status, location, Bytes::new()))
            }
        }
    }
}

impl Override {
    fn matches(&self, status: StatusCode, headers: &HeaderMap, origin: Origin) -> bool {
        self.origin.is_none_or(|wanted| wanted == origin)
            && (self.statuses.is_empty()
                || self.statuses.iter().any(|range| range.contains(&status.as_u16())))
            && self.headers.iter().all(|(name, test)| {
                let mut values = headers.get_all(name).iter();
                values.any(|value| value.to_str().is_ok_and(|text| test.accepts(text)))
            })
    }

    fn compile(config: &v1::ResponseOverride) -> Result<Self, String> {
        use v1::response_override::{Action as A, Source};
        let range = |range: &v1::StatusRange| {
            let narrow =
                |code| u16::try_from(code).map_err(|_| format!("statuses: {code} is not a status code"));
            Ok::<_, String>(narrow(range.first)?..=narrow(range.last)?)
        };
        let header = |(i, config): (usize, &v1::ResponseHeader)| {
            let name = headers::name(&config.name).map_err(|e| format!("headers[{i}].name: {e}"))?;
            let value = config
                .value
                .as_ref()
                .ok_or_else(|| format!("headers[{i}].value: not set"))?;
            let test = TextMatch::compile(value).map_err(|e| format!("headers[{i}].value: {e}"))?;
            Ok::<_, String>((name, test))
        };
        if config.statuses.is_empty() && config.headers.is_empty() {
            return Err("statuses: empty".into());
        }
        Ok(Self {
            statuses: config.statuses.iter().map(range).collect::<Result<_, _>>()?,
            headers: config
                .headers
                .iter()
                .enumerate()
                .map(header)
                .collect::<Result<_, _>>()?,
            origin: match config.source() {
                Source::Unspecified => None,
                Source::Local => Some(Origin::Local),
                Source::Backend => Some(Origin::Backend),
            },
            action: match config.action.as_ref().ok_or("action: not set")? {
                A::Response(response) => Action::Respond(
                    DirectResponse::compile_override(response).map_err(|e| format!("response.{e}"))?,
                ),
                A::Redirect(redirect) => {
                    Action::Redirect(Redirect::compile(redirect).map_err(|e| format!("redirect.{e}"))?)
                }
            },
        })
    }
}
