//! In which order the parts of a rule run: the one place that knows.
//!
//! Rules of a route have the usual order, or the route's own. Never looked at while a request is under way: filters are put
//! in order when they are compiled.

use sluice_config::v1::{self, FilterStep};

/// Where a filter of a rule comes from, in the usual order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Responses in the place of others.
    ResponseOverrides,
    /// A policy that cannot be honoured.
    Refuse,
    /// Faults.
    Fault,
    /// Cross-origin resource sharing, the rule's own filter as well.
    Cors,
    /// Cross-site request forgery.
    Csrf,
    /// External authorization.
    ExternalAuth,
    /// API keys.
    ApiKeyAuth,
    /// Users and passwords.
    BasicAuth,
    /// Logins.
    Oidc,
    /// Tokens.
    Jwt,
    /// Sessions that are bound to an endpoint.
    Session,
    /// Buffering of bodies.
    RequestBuffer,
    /// External processing.
    ExtProc,
    /// Authorization.
    Authorization,
    /// Limits on rates, counted here.
    RateLimit,
    /// Limits on rates, counted for all proxies together.
    GlobalRateLimit,
    /// Credentials for the backend.
    CredentialInjection,
    /// Compression of responses.
    Compression,
    /// The rule's other own filters.
    Own,
}

/// All that can be moved, in the usual order.
const MOVABLE: [(FilterStep, Stage); 17] = [
    (FilterStep::ResponseOverrides, Stage::ResponseOverrides),
    (FilterStep::Fault, Stage::Fault),
    (FilterStep::Cors, Stage::Cors),
    (FilterStep::Csrf, Stage::Csrf),
    (FilterStep::ExternalAuth, Stage::ExternalAuth),
    (FilterStep::ApiKeyAuth, Stage::ApiKeyAuth),
    (FilterStep::BasicAuth, Stage::BasicAuth),
    (FilterStep::Oidc, Stage::Oidc),
    (FilterStep::Jwt, Stage::Jwt),
    (FilterStep::SessionPersistence, Stage::Session),
    (FilterStep::RequestBuffer, Stage::RequestBuffer),
    (FilterStep::ExternalProcessors, Stage::ExtProc),
    (FilterStep::Authorization, Stage::Authorization),
    (FilterStep::RateLimit, Stage::RateLimit),
    (FilterStep::GlobalRateLimit, Stage::GlobalRateLimit),
    (FilterStep::CredentialInjection, Stage::CredentialInjection),
    (FilterStep::Compression, Stage::Compression),
];

/// The place of a filter among those of its rule; the same in all rules of one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(usize);

/// An order of stages.
#[derive(Debug, Default)]
pub struct Order(
    /// `None`: the usual one.
    Option<Vec<Stage>>,
);

impl Order {
    /// Reads a route's order.
    ///
    /// # Errors
    /// Says which step cannot be honoured: one that is not known, or is there twice. None is left out.
    pub fn compile(route: &v1::Route) -> Result<Self, String> {
        if route.filter_order.is_empty() {
            return Ok(Self(None));
        }
        let mut stages = Vec::with_capacity(MOVABLE.len() + 1);
        for (i, step) in route.filter_order.iter().enumerate() {
            let is_meant = |known: &&(FilterStep, Stage)| i32::from(known.0) == *step;
            let (_, stage) = MOVABLE
                .iter()
                .find(is_meant)
                .ok_or_else(|| format!("filter_order[{i}]: not known to this version"))?;
            if stages.contains(stage) {
                return Err(format!("filter_order[{i}]: {stage:?} is there twice"));
            }
            stages.push(*stage);
        }
        for (_, stage) in MOVABLE {
            if !stages.contains(&stage) {
                stages.push(stage);
            }
        }
        // A policy that cannot be honoured lets nothing happen first.
        let first = usize::from(stages.first() == Some(&Stage::ResponseOverrides));
        stages.insert(first, Stage::Refuse);
        Ok(Self(Some(stages)))
    }

    /// The place of a stage's filters.
    pub fn rank(&self, stage: Stage) -> Rank {
        let place = match &self.0 {
            None => None,
            Some(stages) => stages
                .iter()
                .position(|known| *known == stage)
                .or(Some(stages.len())),
        };
        Rank(place.unwrap_or(stage as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(steps: &[FilterStep]) -> Result<Order, String> {
        Order::compile(&v1::Route {
            filter_order: steps.iter().map(|step| i32::from(*step)).collect(),
            ..v1::Route::default()
        })
    }

    #[test]
    fn the_usual_order_is_the_order_of_the_steps() {
        let usual = order(&[]).unwrap();
        let all: Vec<_> = MOVABLE.iter().map(|(step, _)| *step).collect();
        let said = order(&all).unwrap();
        let mut ranks = MOVABLE.iter().map(|(_, stage)| stage).collect::<Vec<_>>();
        ranks.extend([&Stage::Refuse, &Stage::Own]);
        for a in &ranks {
            for b in &ranks {
                let as_usual = usual.rank(**a).cmp(&usual.rank(**b));
                assert_eq!(said.rank(**a).cmp(&said.rank(**b)), as_usual, "{a:?} {b:?}");
            }
        }
        assert!(MOVABLE.is_sorted_by_key(|(step, _)| i32::from(*step)));
    }

    #[test]
    fn what_is_not_said_comes_last_and_own_filters_after_it() {
        let order = order(&[FilterStep::Authorization, FilterStep::ResponseOverrides]).unwrap();
        let mut stages = vec![
            Stage::Own,
            Stage::Cors,
            Stage::Fault,
            Stage::ResponseOverrides,
            Stage::Authorization,
            Stage::Refuse,
        ];
        stages.sort_by_key(|stage| order.rank(*stage));
        let expected = [
            Stage::Refuse,
            Stage::Authorization,
            Stage::ResponseOverrides,
            Stage::Fault,
            Stage::Cors,
            Stage::Own,
        ];
        assert_eq!(stages, expected);
    }

    #[test]
    fn steps_that_make_no_sense_are_refused() {
        let twice = order(&[FilterStep::Jwt, FilterStep::Jwt]);
        assert_eq!(twice.unwrap_err(), "filter_order[1]: Jwt is there twice");
        let unknown = Order::compile(&v1::Route {
            filter_order: vec![99],
            ..v1::Route::default()
        });
        assert_eq!(unknown.unwrap_err(), "filter_order[0]: not known to this version");
        assert!(order(&[FilterStep::Unspecified]).is_err());
    }
}
