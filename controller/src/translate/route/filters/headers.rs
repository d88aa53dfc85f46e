//! Filters that change header fields, and the syntax of names and values.

use std::fmt;

use sluice_config::v1;
use sluice_crds::gateway::{HTTPHeader, HTTPHeaderFilter};

use crate::translate::fault::Fault;

/// RequestHeaderModifier and ResponseHeaderModifier.
pub fn modifier(from: &HTTPHeaderFilter, field: fmt::Arguments<'_>) -> Result<v1::HeaderModifier, Fault> {
    let set = headers(&from.set, format_args!("{field}.set"))?;
    let add = headers(&from.add, format_args!("{field}.add"))?;
    let mut remove = Vec::<String>::with_capacity(from.remove.len());
    for name in &from.remove {
        check_name(name, format_args!("{field}.remove"))?;
        if !remove.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            remove.push(name.clone());
        }
    }
    let removed = |name: &str| remove.iter().any(|r| r.eq_ignore_ascii_case(name));
    let added = |name: &str| add.iter().any(|a| a.name.eq_ignore_ascii_case(name));
    let twice = set
        .iter()
        .find(|s| added(&s.name) || removed(&s.name))
        .or_else(|| add.iter().find(|a| removed(&a.name)));
    if let Some(header) = twice {
        // The API allows one action for a name.
        return Err(Fault::unsupported(
            field,
            format_args!("several actions for header {:?}", header.name),
        ));
    }
    Ok(v1::HeaderModifier {
        set,
        add,
        remove,
        ..v1::HeaderModifier::default()
    })
}

/// Of several entries with one name the first counts.
fn headers(from: &[HTTPHeader], field: fmt::Arguments<'_>) -> Result<Vec<v1::Header>, Fault> {
    let mut all = Vec::<v1::Header>::with_capacity(from.len());
    for header in from {
        check_name(&header.name, field)?;
        if http::HeaderValue::from_str(&header.value).is_err() {
            let why = format_args!("{:?} is not a value that a header can have", header.value);
            return Err(Fault::unsupported(field, why));
        }
        if !all
            .iter()
            .any(|other| other.name.eq_ignore_ascii_case(&header.name))
        {
            all.push(v1::Header {
                name: header.name.clone(),
                value: header.value.clone(),
            });
        }
    }
    Ok(all)
}

fn check_name(name: &str, field: fmt::Arguments<'_>) -> Result<(), Fault> {
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::unsupported(
            field,
            format_args!("{name:?} is not the name of a header"),
        )),
    }
}

/// Checks names of header fields.
pub fn check_names(names: &[String], field: fmt::Arguments<'_>) -> Result<(), Fault> {
    names.iter().try_for_each(|name| check_name(name, field))
}
