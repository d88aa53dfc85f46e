//! Consistent hashing: what of a request is hashed, and which endpoint a hash belongs to.
//!
//! Owns the table (Maglev): an endpoint that comes or goes takes little more than its own share of the hashes with it.
//! All proxies with the same endpoints agree on it. Knows nothing of health; it only says in which order to look.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use http::header::{COOKIE, HeaderName, HeaderValue};
use http::request::Parts;
use sluice_config::v1;
use uuid::Uuid;

/// Slots of a table whose resource names no number.
const DEFAULT_TABLE_SIZE: u32 = 65_537;
/// Largest table: 20 MB.
const MAX_TABLE_SIZE: u32 = 5_000_011;

/// A request's hash.
#[derive(Debug, Default)]
pub struct Hashed {
    /// `None`: the request has nothing to hash.
    pub key: Option<u64>,
    /// The client is to get this Set-Cookie.
    pub cookie: Option<HeaderValue>,
}

/// What is hashed, compiled.
#[derive(Debug)]
pub struct ConsistentHash {
    input: Input,
    table_size: u32,
}

#[derive(Debug)]
enum Input {
    SourceIp,
    Headers(Vec<HeaderName>),
    QueryParams(Vec<Box<str>>),
    Cookie {
        name: Box<str>,
        /// What follows the value of a cookie that is made here; `None`: none is made.
        attributes: Option<Box<str>>,
    },
}

impl ConsistentHash {
    /// Reads the resource.
    ///
    /// # Errors
    /// Names the field that cannot be honoured.
    pub fn compile(config: &v1::ConsistentHash) -> Result<Self, String> {
        let input = match config.input() {
            v1::consistent_hash::Input::SourceIp => Input::SourceIp,
            v1::consistent_hash::Input::Headers => {
                let names = config.names.iter().map(|name| {
                    HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| format!("names: `{name}` is not a header name"))
                });
                Input::Headers(names.collect::<Result<_, _>>()?)
            }
            v1::consistent_hash::Input::QueryParams => {
                Input::QueryParams(config.names.iter().map(|name| name.as_str().into()).collect())
            }
            v1::consistent_hash::Input::Cookie => cookie(config.cookie.as_ref().ok_or("cookie: not set")?)?,
            v1::consistent_hash::Input::Unspecified => return Err("input: not set".into()),
        };
        let table_size = match config.table_size {
            0 => DEFAULT_TABLE_SIZE,
            size if size <= MAX_TABLE_SIZE && is_prime(size) => size,
            size => {
                return Err(format!(
                    "table_size: {size} is not a prime up to {MAX_TABLE_SIZE}"
                ));
            }
        };
        Ok(Self { input, table_size })
    }

    /// Hashes a connection of a client with this address: there is nothing else to hash.
    pub fn hash_connection(&self, client: IpAddr) -> Option<u64> {
        matches!(self.input, Input::SourceIp).then(|| hash_address(client))
    }

    /// Hashes a call of the proxy's own, made for a client with this address, if for any.
    pub fn hash_call(&self, head: &Parts, client: Option<IpAddr>) -> Option<u64> {
        match (&self.input, client) {
            (Input::SourceIp, client) => client.map(hash_address),
            (_, client) => {
                self.hash(head, client.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
                    .key
            }
        }
    }

    /// Hashes a request of a client with this address.
    pub fn hash(&self, head: &Parts, client: IpAddr) -> Hashed {
        let mut hasher = DefaultHasher::new();
        match &self.input {
            Input::SourceIp => Hashed {
                key: Some(hash_address(client)),
                cookie: None,
            },
            Input::Headers(names) => {
                let mut found = false;
                for name in names {
                    for value in head.headers.get_all(name) {
                        found = true;
                        (name.as_str(), value.as_bytes()).hash(&mut hasher);
                    }
                }
                Hashed::of(&hasher, found)
            }
            Input::QueryParams(names) => {
                let query = head.uri.query().unwrap_or_default();
                let mut found = false;
                for name in names {
                    let first = query
                        .split('&')
                        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                        .find(|(key, _)| *key == &**name);
                    if let Some(pair) = first {
                        found = true;
                        pair.hash(&mut hasher);
                    }
                }
                Hashed::of(&hasher, found)
            }
            Input::Cookie { name, attributes } => {
                if let Some(value) = cookie_value(head, name) {
                    value.hash(&mut hasher);
                    return Hashed::of(&hasher, true);
                }
                let Some(attributes) = attributes else {
                    return Hashed::default();
                };
                let value = Uuid::new_v4().simple().to_string();
                value.as_str().hash(&mut hasher);
                Hashed {
                    cookie: HeaderValue::try_from(format!("{name}={value}{attributes}")).ok(),
                    ..Hashed::of(&hasher, true)
                }
            }
        }
    }
}

fn hash_address(address: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.to_canonical().hash(&mut hasher);
    hasher.finish()
}

impl Hashed {
    fn of(hasher: &DefaultHasher, found: bool) -> Self {
        Self {
            key: found.then(|| hasher.finish()),
            cookie: None,
        }
    }
}

fn cookie(config: &v1::HashCookie) -> Result<Input, String> {
    let is_token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
    };
    if !is_token(&config.name) {
        return Err(format!("cookie.name: `{}` is not a cookie name", config.name));
    }
    let attributes = match config.ttl_ms {
        None => None,
        Some(ttl) => {
            let mut text = String::new();
            if ttl > 0 {
                text.push_str("; Max-Age=");
                text.push_str(&ttl.div_ceil(1000).to_string());
            }
            if !config
                .attributes
                .iter()
                .any(|a| a.name.eq_ignore_ascii_case("path"))
            {
                text.push_str("; Path=/");
            }
            if !config
                .attributes
                .iter()
                .any(|a| a.name.eq_ignore_ascii_case("httponly"))
            {
                text.push_str("; HttpOnly");
            }
            for attribute in &config.attributes {
                let (name, value) = (&attribute.name, &attribute.value);
                if !is_token(name) || value.bytes().any(|b| b == b';' || b.is_ascii_control()) {
                    return Err(format!("cookie.attributes: `{name}` is not an attribute"));
                }
                text.push_str("; ");
                text.push_str(name);
                if !value.is_empty() {
                    text.push('=');
                    text.push_str(value);
                }
            }
            Some(text.into())
        }
    };
    Ok(Input::Cookie {
        name: config.name.as_str().into(),
        attributes,
    })
}

fn cookie_value<'h>(head: &'h Parts, name: &str) -> Option<&'h str> {
    head.headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn is_prime(number: u32) -> bool {
    number > 1 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

/// The table: for each slot the index of an endpoint.
#[derive(Debug)]
pub struct Table(Vec<u32>);

impl Table {
    /// A table for endpoints of these names. Their order does not matter.
    pub fn new(config: &ConsistentHash, names: &[&str]) -> Self {
        Self::build(config.table_size, names)
    }

    fn build(size: u32, names: &[&str]) -> Self {
        const FREE: u32 = u32::MAX;
        let m = u64::from(size);
        let hash = |name: &str, salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, name).hash(&mut hasher);
            hasher.finish()
        };
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|&i| names[i]);
        // Each endpoint goes through the slots in an order of its own and takes the next free one when it is its turn.
        let mut places: Vec<(u32, u64, u64)> = order
            .into_iter()
            .map(|i| {
                let step = if m > 1 { hash(names[i], 1) % (m - 1) + 1 } else { 1 };
                (u32::try_from(i).unwrap_or(FREE), hash(names[i], 0) % m, step)
            })
            .collect();
        let mut slots = vec![FREE; size as usize];
        let mut free = if places.is_empty() { 0 } else { slots.len() };
        while free > 0 {
            for (index, at, step) in &mut places {
                if free == 0 {
                    break;
                }
                loop {
                    let slot = &mut slots[usize::try_from(*at).unwrap_or(0)];
                    *at = (*at + *step) % m;
                    if *slot == FREE {
                        *slot = *index;
                        free -= 1;
                        break;
                    }
                }
            }
        }
        if places.is_empty() {
            slots.clear();
        }
        Self(slots)
    }

    /// Indices of endpoints in the order in which they are to be looked at for a hash. Each may come several times, but
    /// all of them come.
    pub fn order(&self, hash: u64) -> impl Iterator<Item = usize> {
        let size = self.0.len();
        let start = usize::try_from(hash % (size.max(1) as u64)).unwrap_or(0);
        self.0[start.min(size)..]
            .iter()
            .chain(&self.0[..start.min(size)])
            .map(|index| *index as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(table: &Table, names: &[&str], hash: u64) -> String {
        names[table.order(hash).next().unwrap()].to_owned()
    }

    fn addresses(count: usize) -> Vec<String> {
        (0..count)
            .map(|i| format!("10.0.{}.{}:8080", i / 200, i % 200))
            .collect()
    }

    #[test]
    fn shares_are_even() {
        let names = addresses(10);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let table = Table::build(DEFAULT_TABLE_SIZE, &names);
        for i in 0..10 {
            let slots = table.0.iter().filter(|slot| **slot == i).count();
            assert!((6553..=6554).contains(&slots), "{i}: {slots}");
        }
        assert_eq!(Table::build(7, &[]).order(3).next(), None);
    }

    #[test]
    fn only_primes_are_tables() {
        let compile = |table_size| {
            ConsistentHash::compile(&v1::ConsistentHash {
                input: v1::consistent_hash::Input::SourceIp.into(),
                table_size,
                ..Default::default()
            })
        };
        assert!(compile(0).is_ok() && compile(1009).is_ok() && compile(5_000_011).is_ok());
        for bad in [1, 1000, 5_000_021, u32::MAX] {
            assert!(compile(bad).unwrap_err().starts_with("table_size: "), "{bad}");
        }
    }

    #[test]
    fn a_cookie_is_made_where_there_is_none() {
        let hash = ConsistentHash::compile(&v1::ConsistentHash {
            input: v1::consistent_hash::Input::Cookie.into(),
            cookie: Some(v1::HashCookie {
                name: "lb".into(),
                ttl_ms: Some(60_000),
                attributes: vec![v1::Header {
                    name: "SameSite".into(),
                    value: "Strict".into(),
                }],
            }),
            ..Default::default()
        })
        .unwrap();
        let client = "192.0.2.1".parse().unwrap();
        let mut head = http::Request::new(()).into_parts().0;
        let first = hash.hash(&head, client);
        let cookie = first.cookie.unwrap();
        let (pair, attributes) = cookie.to_str().unwrap().split_once(';').unwrap();
        assert_eq!(attributes, " Max-Age=60; Path=/; HttpOnly; SameSite=Strict");
        head.headers
            .insert(COOKIE, format!("a=b; {pair}").parse().unwrap());
        let again = hash.hash(&head, client);
        assert_eq!(again.key, first.key);
        assert!(again.cookie.is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whoever is left keeps nearly all of its hashes when others go, in whatever order the endpoints are listed.
        #[test]
        fn others_keep_their_share(count in 2usize..60, gone in 0usize..60, seed: u64) {
            let all = addresses(count);
            let gone = gone % count;
            let before: Vec<&str> = all.iter().map(String::as_str).collect();
            let mut after: Vec<&str> = before.clone();
            let lost = after.remove(gone);
            after.reverse();
            let (old, new) = (Table::build(DEFAULT_TABLE_SIZE, &before), Table::build(DEFAULT_TABLE_SIZE, &after));
            let mut moved = 0;
            let mut kept = 0;
            for i in 0..2000u64 {
                let hash = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let was = owner(&old, &before, hash);
                if was == lost {
                    continue;
                }
                if owner(&new, &after, hash) == was { kept += 1 } else { moved += 1 }
            }
            prop_assert!(moved * 20 <= kept + moved, "{moved} of {} moved", kept + moved);
        }

        #[test]
        fn every_endpoint_is_reached(count in 1usize..20, hash: u64) {
            let all = addresses(count);
            let names: Vec<&str> = all.iter().map(String::as_str).collect();
            let table = Table::build(1009, &names);
            let seen: std::collections::BTreeSet<usize> = table.order(hash).collect();
            prop_assert_eq!(seen.len(), count);
        }
    }
}
