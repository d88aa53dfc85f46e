//! Gateway API durations: a strict subset of what Go's `time.ParseDuration` takes (GEP-2257).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Units, largest first: the order in which [`Duration`] is written.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// At most this many number-unit pairs.
const MAX_PAIRS: usize = 4;
/// At most this many digits a number.
const MAX_DIGITS: usize = 5;

/// A span of time with millisecond precision, as manifests write it: `500ms`, `1m30s`, `2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// From whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// As the standard library's type.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// True for `0s`, which in most places means "no limit".
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

/// Why a text is not a Gateway API duration.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a duration: one to four pairs of a number of up to five digits and a unit (h, m, s, ms)"
)]
pub struct DurationError(String);

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DurationError(text.to_owned());
        let mut rest = text;
        let mut millis = 0_u64;
        let mut pairs = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            pairs += 1;
            if digits > MAX_DIGITS || pairs > MAX_PAIRS {
                return Err(error());
            }
            let number: u64 = number.parse().map_err(|_| error())?;
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
            millis += number * factor;
            rest = tail;
        }
        if pairs == 0 {
            Err(error())
        } else {
            Ok(Self::from_millis(millis))
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: std::borrow::Cow<'de, str> = Deserialize::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_gep_2257_lists_as_valid() {
        for (text, millis) in [
            ("0s", 0),
            ("0h0m0s0ms", 0),
            ("1h", 3_600_000),
            ("1ms", 1),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h30m5s10ms", 5_405_010),
            // Order and repetition are free.
            ("10ms1h", 3_600_010),
            ("1s1s", 2_000),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(text.parse(), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_what_gep_2257_lists_as_invalid() {
        for text in [
            "",
            "1",
            "s",
            "1d",
            "1us",
            "1.5h",
            "-1s",
            "+1s",
            "1h 1m",
            "100000s",
            "1h1h1h1h1h",
            "1hm",
            "१s",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn writes_the_shortest_form() {
        for (millis, text) in [
            (0, "0s"),
            (90_000, "1m30s"),
            (3_600_001, "1h1ms"),
            (60_000, "1m"),
            (1_500, "1s500ms"),
        ] {
            assert_eq!(Duration::from_millis(millis).to_string(), text);
        }
    }
}
