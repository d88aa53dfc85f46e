//! Reading what a policy refers to, with a note of what is needed and of what is wrong.

use std::collections::BTreeMap;
use std::fmt;

use sluice_config::v1;
use sluice_config::v1::resource::Body;
use sluice_crds::envoy::{StringMatch, StringMatchType};
use sluice_crds::gateway::{LocalObjectReference, SecretObjectReference};

use crate::engine::Unit;
use crate::store::{Kind, ObjectRef};
use crate::translate::fault::Fault;
use crate::translate::route::Context;
use crate::translate::{grant, secret};

/// Reads for one rule, or for the status of a policy.
pub struct Reader<'c, 'v, 'w> {
    /// How backends are reached.
    pub context: &'c Context<'v, 'w>,
    /// Last segments of the keys of what has no object of its own.
    pub scope: String,
    /// Units that the result needs.
    pub needs: Vec<Unit>,
    /// Resources that go with it.
    pub resources: Vec<(String, Body)>,
    /// What fields are named with in front, while those of something nested are read.
    pub prefix: String,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What has no effect.
    pub warnings: Vec<String>,
}

/// The entries of a Secret or ConfigMap.
pub struct Data {
    /// Key of the resource.
    pub key: String,
    /// The entries.
    pub entries: BTreeMap<String, Vec<u8>>,
}

impl<'c, 'v, 'w> Reader<'c, 'v, 'w> {
    /// A reader that has read nothing.
    pub fn new(context: &'c Context<'v, 'w>, scope: String) -> Self {
        Self {
            context,
            scope,
            needs: Vec::new(),
            resources: Vec::new(),
            prefix: String::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Notes that a field is wrong.
    pub fn fault(&mut self, field: impl fmt::Display, why: impl fmt::Display) {
        let field = format_args!("spec.{}{field}", self.prefix);
        let fault = Fault::at("Invalid", field, why);
        self.faults.push(fault);
    }

    /// The entries of a Secret that `owner` refers to.
    pub fn secret(
        &mut self,
        owner: &ObjectRef,
        reference: &SecretObjectReference,
        field: &str,
    ) -> Option<Data> {
        let object = self.secret_object(owner, reference, field)?;
        self.data(object, field)
    }

    /// A Secret that `owner` refers to, be it there or not.
    pub fn secret_object(
        &mut self,
        owner: &ObjectRef,
        reference: &SecretObjectReference,
        field: &str,
    ) -> Option<ObjectRef> {
        if Kind::parse(reference.group(), reference.kind()) != Some(Kind::Secret) {
            self.fault(field, format_args!("{} is not a Secret", reference.kind()));
            return None;
        }
        let namespace = reference.namespace(&owner.namespace);
        let secret = ObjectRef::new(Kind::Secret, namespace, reference.name.as_str());
        self.permitted(owner, secret, field)
    }

    /// `to`, if `owner` may refer to it.
    pub fn permitted(&mut self, owner: &ObjectRef, to: ObjectRef, field: &str) -> Option<ObjectRef> {
        match grant::permit(self.context.view, owner, &to) {
            Ok(()) => Some(to),
            Err(why) => {
                self.fault(field, why);
                None
            }
        }
    }

    /// A Secret or ConfigMap in `owner`'s namespace.
    pub fn local(
        &mut self,
        owner: &ObjectRef,
        reference: &LocalObjectReference,
        field: &str,
    ) -> Option<Data> {
        let kind = Kind::parse(&reference.group, &reference.kind);
        let Some(kind @ (Kind::Secret | Kind::ConfigMap)) = kind else {
            let why = format!("{} is neither a ConfigMap nor a Secret", reference.kind);
            self.fault(field, why);
            return None;
        };
        let object = ObjectRef::new(kind, owner.namespace.clone(), reference.name.as_str());
        self.data(object, field)
    }

    fn data(&mut self, object: ObjectRef, field: &str) -> Option<Data> {
        let Some(entries) = secret::entries(self.context.view, &object) else {
            self.fault(field, format_args!("{object} does not exist"));
            return None;
        };
        let key = secret::data_key(&object);
        self.needs.push(Unit::Data(object));
        Some(Data { key, entries })
    }

    /// One entry of a Secret or ConfigMap: `entry`, or any if there is no such one and `any` is set.
    pub fn entry(
        &mut self,
        data: Option<Data>,
        entry: &str,
        any: bool,
        field: &str,
    ) -> Option<v1::SecretEntry> {
        let data = data?;
        let found = if data.entries.contains_key(entry) {
            Some(entry.to_owned())
        } else {
            data.entries.keys().next().filter(|_| any).cloned()
        };
        if found.is_none() {
            self.fault(field, format_args!("it has no key {entry:?}"));
        }
        Some(v1::SecretEntry {
            secret: data.key,
            entry: found?,
        })
    }

    /// Adds a resource that belongs to no object of its own; gives its key.
    pub fn resource(&mut self, prefix: &str, name: &str, body: Body) -> String {
        let key = format!("{prefix}/{}/{name}", self.scope);
        if !self.resources.iter().any(|(other, _)| *other == key) {
            self.resources.push((key.clone(), body));
        }
        key
    }

    /// A number that has to fit.
    pub fn number(&mut self, value: i64, field: impl fmt::Display) -> u32 {
        u32::try_from(value).unwrap_or_else(|_| {
            self.fault(field, format_args!("{value} is out of range"));
            0
        })
    }

    /// The name of a header, in lower case.
    pub fn header(&mut self, name: &str, field: impl fmt::Display) -> String {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            self.fault(field, format_args!("{name:?} is not the name of a header"));
        }
        name.to_ascii_lowercase()
    }

    /// A network.
    pub fn cidr(&mut self, text: &str, field: impl fmt::Display) -> String {
        if text.parse::<ipnet::IpNet>().is_err() {
            self.fault(field, format_args!("{text:?} is not a network"));
        }
        text.to_owned()
    }

    /// A regular expression.
    pub fn regex(&mut self, pattern: &str, field: impl fmt::Display) -> String {
        if let Err(error) = regex::Regex::new(pattern) {
            let error = error.to_string().replace('\n', " ");
            self.fault(field, format_args!("{pattern:?} is not a pattern: {error}"));
        }
        pattern.to_owned()
    }
}

/// A text that must match.
pub fn string_match(reader: &mut Reader<'_, '_, '_>, from: &StringMatch, field: &str) -> v1::StringMatch {
    let kind = match from.type_.as_ref().unwrap_or(&StringMatchType::Exact) {
        StringMatchType::Exact => v1::string_match::Kind::Exact,
        StringMatchType::Prefix => v1::string_match::Kind::Prefix,
        StringMatchType::Suffix => v1::string_match::Kind::Suffix,
        StringMatchType::RegularExpression => {
            reader.regex(&from.value, field);
            v1::string_match::Kind::Regex
        }
        StringMatchType::Other(other) => {
            reader.fault(field, format_args!("{other:?} is not known"));
            v1::string_match::Kind::Unspecified
        }
    };
    v1::StringMatch {
        kind: kind.into(),
        value: from.value.clone(),
    }
}
