//! The part of Envoy's `envoy.service.ratelimit.v3` that is spoken with a rate limit service, field numbers as published.

/// Path of the call.
pub const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// `RateLimitResponse.RateLimit.Unit` by the seconds that each is long.
const UNITS: [(i32, u64); 7] = [
    (1, 1),
    (2, 60),
    (3, 60 * 60),
    (4, 24 * 60 * 60),
    (5, 30 * 24 * 60 * 60),
    (6, 365 * 24 * 60 * 60),
    (7, 7 * 24 * 60 * 60),
];

/// The unit that is so many seconds long.
pub fn unit(seconds: u64) -> Option<i32> {
    let mut units = UNITS.iter();
    units
        .find(|(_, length)| *length == seconds)
        .map(|(unit, _)| *unit)
}

/// Seconds of a unit; a month has 30 days, a year 365.
pub fn seconds(unit: i32) -> Option<u64> {
    let mut units = UNITS.iter();
    units.find(|(known, _)| *known == unit).map(|(_, length)| *length)
}

/// `RateLimitRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitRequest {
    /// Whose limits they are.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// What is counted.
    #[prost(message, repeated, tag = "2")]
    pub descriptors: Vec<RateLimitDescriptor>,
    /// What each counts where it does not say so itself; 0: 1.
    #[prost(uint32, tag = "3")]
    pub hits_addend: u32,
}

/// `extensions.common.ratelimit.v3.RateLimitDescriptor`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitDescriptor {
    /// Together they name the count.
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
    /// The limit, in the place of one that the service knows.
    #[prost(message, optional, tag = "2")]
    pub limit: Option<Limit>,
    /// `google.protobuf.UInt64Value`: what it counts.
    #[prost(message, optional, tag = "3")]
    pub hits_addend: Option<UInt64Value>,
}

/// `RateLimitDescriptor.Entry`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// Key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `RateLimitDescriptor.RateLimitOverride`, and of `RateLimitResponse.RateLimit` what is the same.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Limit {
    /// Requests a unit.
    #[prost(uint32, tag = "1")]
    pub requests_per_unit: u32,
    /// See [`seconds`].
    #[prost(int32, tag = "2")]
    pub unit: i32,
}

/// `google.protobuf.UInt64Value`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct UInt64Value {
    /// The value.
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

/// `RateLimitResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RateLimitResponse {
    /// Over the limit if one descriptor is.
    #[prost(enumeration = "Code", tag = "1")]
    pub overall_code: i32,
    /// One a descriptor, in their order.
    #[prost(message, repeated, tag = "2")]
    pub statuses: Vec<DescriptorStatus>,
}

/// `RateLimitResponse.DescriptorStatus`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DescriptorStatus {
    /// Whether the limit has been passed.
    #[prost(enumeration = "Code", tag = "1")]
    pub code: i32,
    /// The limit; none: nothing limits this descriptor.
    #[prost(message, optional, tag = "2")]
    pub current_limit: Option<Limit>,
    /// What is left of it.
    #[prost(uint32, tag = "3")]
    pub limit_remaining: u32,
    /// `google.protobuf.Duration`: until the count begins anew.
    #[prost(message, optional, tag = "4")]
    pub duration_until_reset: Option<Duration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Duration {
    /// Seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `RateLimitResponse.Code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Code {
    /// Not said.
    Unknown = 0,
    /// Within the limit.
    Ok = 1,
    /// Over it.
    OverLimit = 2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_their_lengths_both_ways() {
        for (known, length) in UNITS {
            assert_eq!((unit(length), seconds(known)), (Some(known), Some(length)));
        }
        assert_eq!((unit(2), seconds(0), seconds(8)), (None, None, None));
    }
}
