//! Comparing a text with a pattern (Envoy Gateway's StringMatch).

use regex::bytes::Regex;
use sluice_config::v1;

use crate::route::whole;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub enum TextMatch {
    /// This text.
    Exact(Box<str>),
    /// A text that begins so.
    Prefix(Box<str>),
    /// A text that ends so.
    Suffix(Box<str>),
    /// A whole text that this expression matches.
    Regex(Regex),
}

impl TextMatch {
    /// Reads the resource.
    ///
    /// # Errors
    /// If the expression is none, or the kind is not known.
    pub fn compile(config: &v1::StringMatch) -> Result<Self, String> {
        use v1::string_match::Kind;
        let value = config.value.as_str();
        Ok(match config.kind() {
            Kind::Exact => Self::Exact(value.into()),
            Kind::Prefix => Self::Prefix(value.into()),
            Kind::Suffix => Self::Suffix(value.into()),
            Kind::Regex => Self::Regex(whole(value)?),
            Kind::Unspecified => return Err("kind: not set, or one that this version does not know".into()),
        })
    }

    /// True if the text is as wanted.
    pub fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *text,
            Self::Prefix(wanted) => text.starts_with(&**wanted),
            Self::Suffix(wanted) => text.ends_with(&**wanted),
            Self::Regex(regex) => regex.is_match(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::string_match::Kind;

    #[test]
    fn kinds() {
        let accepts = |kind: Kind, value: &str, text: &str| {
            let config = v1::StringMatch {
                kind: kind.into(),
                value: value.into(),
            };
            TextMatch::compile(&config).unwrap().accepts(text)
        };
        assert!(accepts(Kind::Exact, "a", "a") && !accepts(Kind::Exact, "a", "ab"));
        assert!(accepts(Kind::Prefix, "a", "ab") && !accepts(Kind::Prefix, "b", "ab"));
        assert!(accepts(Kind::Suffix, "b", "ab") && !accepts(Kind::Suffix, "a", "ab"));
        assert!(accepts(Kind::Regex, "a|ab", "ab") && !accepts(Kind::Regex, "a", "ab"));
        assert!(TextMatch::compile(&v1::StringMatch::default()).is_err());
    }
}
