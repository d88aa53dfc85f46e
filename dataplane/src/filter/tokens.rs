//! The claims that a request's tokens have been found to make.

use std::sync::Arc;

use serde_json::{Map, Value};

/// The claims of one token.
pub type Claims = Map<String, Value>;

/// Verified tokens, with the providers that vouch for them.
#[derive(Default)]
pub struct Tokens(Vec<(Arc<str>, Claims)>);

impl Tokens {
    /// Remembers a token.
    pub fn push(&mut self, provider: &Arc<str>, claims: Claims) {
        self.0.push((Arc::clone(provider), claims));
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, each with its provider.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Claims)> {
        self.0.iter().map(|(by, claims)| (&**by, claims))
    }

    /// The tokens that a provider vouches for.
    pub fn of<'t>(&'t self, provider: &'t str) -> impl Iterator<Item = &'t Claims> {
        self.0
            .iter()
            .filter(move |(by, _)| **by == *provider)
            .map(|(_, claims)| claims)
    }
}

/// A claim by its name, with dots between the names from the outside in. A claim whose own name has dots is found too.
pub fn claim<'c>(claims: &'c Claims, name: &str) -> Option<&'c Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let mut names = name.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// The scopes that a token grants (RFC 8693 section 4.2; `scp` is what some issuers call them).
pub fn scopes(claims: &Claims) -> impl Iterator<Item = &str> {
    ["scope", "scp"]
        .into_iter()
        .filter_map(|name| claims.get(name))
        .flat_map(|value| match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        })
        .filter_map(Value::as_str)
        .flat_map(|text| text.split(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_found_by_path() {
        let Value::Object(claims) = serde_json::json!({
            "a": { "b": { "c": 1 } }, "x.y": 2, "scope": "read write", "scp": ["admin"]
        }) else {
            unreachable!()
        };
        assert_eq!(claim(&claims, "a.b.c"), Some(&1.into()));
        assert_eq!(claim(&claims, "x.y"), Some(&2.into()));
        assert_eq!(claim(&claims, "a.c"), None);
        assert_eq!(claim(&claims, "x.y.z"), None);
        assert_eq!(scopes(&claims).collect::<Vec<_>>(), ["read", "write", "admin"]);
    }
}
