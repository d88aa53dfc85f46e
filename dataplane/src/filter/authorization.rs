//! Who may do what: rules over the client's address and where it is, its token, headers, the method and the path, and
//! expressions.

use std::net::IpAddr;

use arc_swap::ArcSwap;
use http::Method;
use http::header::HeaderName;
use http::request::Parts;
use ipnet::IpNet;
use serde_json::Value;
use sluice_config::v1;

use super::cel::Expression;
use super::cel::request::{OfRequest, Wire};
use super::geo::{Databases, Location};
use super::tokens::{self, Tokens};
use super::{Facts, headers};
use crate::route::{Path, header_value};

/// A compiled filter.
#[derive(Debug)]
pub struct Authorization {
    rules: Box<[Rule]>,
    allow_by_default: bool,
}

#[derive(Debug)]
struct Rule {
    allow: bool,
    networks: Box<[IpNet]>,
    jwt: Option<JwtPrincipal>,
    headers: Box<[(HeaderName, Box<[String]>)]>,
    methods: Box<[Method]>,
    path: Option<PathTest>,
    locations: Box<[Location]>,
    expression: Option<Box<Expression>>,
}

/// What is known besides the request.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Its connection.
    pub wire: Wire<'a>,
    /// Where clients are looked up.
    pub geo: &'a ArcSwap<Databases>,
}

#[derive(Debug)]
struct JwtPrincipal {
    provider: Box<str>,
    claims: Box<[Claim]>,
    scopes: Box<[String]>,
}

#[derive(Debug)]
struct Claim {
    name: Box<str>,
    values: Box<[String]>,
    list: bool,
}

/// A test of the path that was routed on.
#[derive(Debug)]
pub(super) struct PathTest {
    path: Path,
    invert: bool,
}

impl PathTest {
    pub(super) fn compile(config: &v1::RequestPath) -> Result<Self, String> {
        Ok(Self {
            path: Path::compile(config.path.as_ref()).map_err(|e| format!("path.{e}"))?,
            invert: config.invert,
        })
    }

    pub(super) fn accepts(&self, path: &str) -> bool {
        self.path.covers(path) != self.invert
    }
}

/// Parses an address range; a bare address is a range of one.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is not an address range"))
}

impl Authorization {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::Authorization) -> Result<Self, String> {
        let rule = |(i, rule)| Rule::compile(rule).map_err(|e| format!("rules[{i}].{e}"));
        Ok(Self {
            rules: config
                .rules
                .iter()
                .enumerate()
                .map(rule)
                .collect::<Result<_, _>>()?,
            allow_by_default: config.allow_by_default,
        })
    }

    /// True if the request may pass.
    pub fn allows(&self, head: &Parts, facts: &Facts<'_>, tokens: &Tokens, around: Around<'_>) -> bool {
        let mut rules = self.rules.iter();
        let rule = rules.find(|rule| rule.matches(head, facts, tokens, around));
        rule.map_or(self.allow_by_default, |rule| rule.allow)
    }

    /// True if a connection from this address may pass: no other part of a rule can match.
    pub fn allows_address(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let bare = |rule: &&Rule| {
            rule.jwt.is_none()
                && rule.headers.is_empty()
                && rule.methods.is_empty()
                && rule.path.is_none()
                && rule.locations.is_empty()
                && rule.expression.is_none()
        };
        let rule = self
            .rules
            .iter()
            .filter(bare)
            .find(|rule| rule.holds_address(client));
        rule.map_or(self.allow_by_default, |rule| rule.allow)
    }
}

impl Rule {
    fn compile(config: &v1::AuthorizationRule) -> Result<Self, String> {
        let networks = config.client_cidrs.iter().map(|cidr| network(cidr));
        let method = |name: &String| {
            Method::from_bytes(name.as_bytes()).map_err(|_| format!("methods: `{name}` is not one"))
        };
        let header =
            |config: &v1::HeaderPrincipal| Ok((headers::name(&config.name)?, config.values.clone().into()));
        Ok(Self {
            allow: config.allow,
            networks: networks
                .collect::<Result<_, _>>()
                .map_err(|e| format!("client_cidrs: {e}"))?,
            jwt: config.jwt.as_ref().map(JwtPrincipal::new),
            headers: config
                .headers
                .iter()
                .map(header)
                .collect::<Result<_, String>>()
                .map_err(|e| format!("headers: {e}"))?,
            methods: config.methods.iter().map(method).collect::<Result<_, _>>()?,
            path: config.path.as_ref().map(PathTest::compile).transpose()?,
            locations: config
                .locations
                .iter()
                .map(Location::compile)
                .collect::<Result<_, _>>()
                .map_err(|e| format!("locations: {e}"))?,
            expression: Some(config.expression.as_str())
                .filter(|text| !text.is_empty())
                .map(|text| Expression::compile(text).map(Box::new))
                .transpose()
                .map_err(|e| format!("expression: {e}"))?,
        })
    }

    fn matches(&self, head: &Parts, facts: &Facts<'_>, tokens: &Tokens, around: Around<'_>) -> bool {
        self.holds_address(facts.client)
            && (self.methods.is_empty() || self.methods.contains(&head.method))
            && self.path.as_ref().is_none_or(|path| path.accepts(facts.path))
            && self.headers.iter().all(|(name, values)| {
                header_value(head, name)
                    .is_some_and(|value| values.iter().any(|wanted| wanted.as_bytes() == &*value))
            })
            && self.jwt.as_ref().is_none_or(|jwt| jwt.matches(tokens))
            && (self.locations.is_empty() || self.is_located(facts.client, around.geo))
            && self.expression.as_ref().is_none_or(|expression| {
                let request = OfRequest {
                    head,
                    facts,
                    tokens,
                    wire: around.wire,
                };
                expression.evaluate(&request).unwrap_or(!self.allow)
            })
    }

    /// What is not known is as if the client were there if the rule denies, and elsewhere if it allows.
    fn is_located(&self, client: IpAddr, geo: &ArcSwap<Databases>) -> bool {
        let geo = geo.load();
        let mut locations = self.locations.iter();
        locations.any(|location| location.holds(client, &geo).unwrap_or(!self.allow))
    }

    fn holds_address(&self, client: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&client))
    }
}

impl JwtPrincipal {
    fn new(config: &v1::JwtPrincipal) -> Self {
        let claim = |claim: &v1::ClaimMatch| Claim {
            name: claim.name.as_str().into(),
            values: claim.values.clone().into(),
            list: claim.list,
        };
        Self {
            provider: config.provider.as_str().into(),
            claims: config.claims.iter().map(claim).collect(),
            scopes: config.scopes.clone().into(),
        }
    }

    fn matches(&self, tokens: &Tokens) -> bool {
        let mut vouched = tokens.of(&self.provider);
        vouched.any(|claims| {
            self.claims
                .iter()
                .all(|claim| tokens::claim(claims, &claim.name).is_some_and(|value| claim.accepts(value)))
                && self
                    .scopes
                    .iter()
                    .all(|scope| tokens::scopes(claims).any(|held| held == scope))
        })
    }
}

impl Claim {
    fn accepts(&self, value: &Value) -> bool {
        let is_wanted = |value: &Value| {
            value
                .as_str()
                .is_some_and(|text| self.values.iter().any(|wanted| wanted == text))
        };
        match value {
            Value::Array(values) if self.list => values.iter().any(is_wanted),
            value => !self.list && is_wanted(value),
        }
    }
}
