//! A route as it arrives, compiled once and then hung into every listener that it is attached to.

use std::sync::Arc;

use sluice_config::v1;

use super::candidate::{Candidate, RouteOrder};
use super::hosts::Specificity;
use crate::filter::Lookup;
use crate::filter::order::Order;
use crate::l4::L4Route;
use crate::rule::Rule;

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    /// Where it is attached.
    pub attachments: Vec<Attachment>,
    /// What it does.
    pub body: Body,
}

/// What a route does.
#[derive(Debug)]
pub enum Body {
    /// Routes requests.
    Http(Vec<Arc<Candidate>>),
    /// Routes connections or datagrams.
    L4(Arc<L4Candidate>),
}

/// A route for connections, with its place among others.
#[derive(Debug)]
pub struct L4Candidate {
    /// Its place.
    pub order: RouteOrder,
    /// The route.
    pub route: Arc<L4Route>,
}

/// A route on a listener.
#[derive(Debug)]
pub struct Attachment {
    /// Key of the listener.
    pub listener: Box<str>,
    /// The names that are served; empty: all of the listener's.
    pub hosts: Vec<Host>,
}

/// A name that a route serves on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What it has in common with the listener's.
    pub name: Arc<str>,
    /// How specific the name in the route is. It decides between routes that have the same in common with the listener.
    pub specificity: Specificity,
}

impl Route {
    /// Compiles the resource with this key.
    ///
    /// # Errors
    /// `field: reason` of what cannot be honoured.
    pub fn compile(key: &Arc<str>, config: &v1::Route, lookup: &mut dyn Lookup) -> Result<Self, String> {
        let order = RouteOrder {
            created: config.created,
            name: config.precedence_name.as_str().into(),
            key: Arc::clone(key),
        };
        let body = match &config.rules {
            None => return Err("rules: not set".into()),
            Some(v1::route::Rules::Http(rules)) => Body::Http(http(config, rules, &order, lookup)?),
            Some(v1::route::Rules::L4(rules)) => {
                let route = L4Route::compile(&config.name, rules, lookup).map_err(|e| format!("l4.{e}"))?;
                Body::L4(Arc::new(L4Candidate {
                    order,
                    route: Arc::new(route),
                }))
            }
        };
        Ok(Self {
            attachments: config.attachments.iter().map(Attachment::compile).collect(),
            body,
        })
    }
}

fn http(
    config: &v1::Route,
    rules: &v1::HttpRules,
    order: &RouteOrder,
    lookup: &mut dyn Lookup,
) -> Result<Vec<Arc<Candidate>>, String> {
    let name: Arc<str> = config.name.as_str().into();
    let steps = Order::compile(config)?;
    let mut candidates = Vec::with_capacity(rules.rules.iter().map(|rule| rule.matches.len()).sum());
    for (i, rule) in rules.rules.iter().enumerate() {
        let compiled = Rule::compile(&name, rules.grpc, rule, &steps, lookup)
            .map_err(|e| format!("http.rules[{i}].{e}"))?;
        let compiled = Arc::new(compiled);
        for (j, one) in rule.matches.iter().enumerate() {
            let mut candidate = Candidate::compile(one, &compiled, order, (i, j))
                .map_err(|e| format!("http.rules[{i}].matches[{j}].{e}"))?;
            candidate.in_order = config.in_order;
            candidates.push(Arc::new(candidate));
        }
    }
    Ok(candidates)
}

impl Attachment {
    fn compile(config: &v1::Attachment) -> Self {
        let mut hosts = Vec::with_capacity(config.hostnames.len());
        for (i, name) in config.hostnames.iter().enumerate() {
            let own = config.route_hostnames.get(i).unwrap_or(name);
            let host = Host {
                name: name.to_ascii_lowercase().into(),
                specificity: Specificity::of(own),
            };
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        Self {
            listener: config.listener.as_str().into(),
            hosts,
        }
    }
}
