//! Admission control: requests are refused while too many of them fail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cel::Cel;
use crate::duration::Duration;
use crate::open_enum::open_enum;

/// Requests are refused, at random, while too many of them fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = Cel(&[
    (
        "!has(self.samplingWindow) || duration(self.samplingWindow) >= duration('1s')",
        "samplingWindow must be 1s or more",
    ),
]))]
#[serde(rename_all = "camelCase")]
pub struct AdmissionControl {
    /// Span of time whose requests count, 1 s or more; 30 s if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_window: Option<Duration>,
    /// Percent of successes below which requests are refused; 95 if absent.
    #[schemars(range(min = 1, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_success_rate: Option<i64>,
    /// How steeply refusals grow as successes fall; 1, the default, is linear.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejection_aggression: Option<i64>,
    /// Requests a second below which none is refused; 0 if absent.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_request_rate: Option<i64>,
    /// Percent of requests that are refused at most; 80 if absent.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rejection_percent: Option<i64>,
    /// Which answers are successes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_criteria: Option<AdmissionControlSuccessCriteria>,
}

/// Which answers are successes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionControlSuccessCriteria {
    /// Answers to HTTP requests; all below 500 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HTTPSuccessCriteria>,
    /// Answers to gRPC requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GRPCSuccessCriteria>,
}

/// Answers to HTTP requests that are successes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HTTPSuccessCriteria {
    /// Statuses of successes.
    #[schemars(inner(range(min = 100, max = 599)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status_codes: Vec<i64>,
}

/// Answers to gRPC requests that are successes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GRPCSuccessCriteria {
    /// Statuses of successes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status_codes: Vec<GRPCSuccessCode>,
}

open_enum! {
    /// GRPC success code.
    GRPCSuccessCode {
        /// `Ok`.
        Ok = "Ok",
        /// `Cancelled`.
        Cancelled = "Cancelled",
        /// `Unknown`.
        Unknown = "Unknown",
        /// `InvalidArgument`.
        InvalidArgument = "InvalidArgument",
        /// `DeadlineExceeded`.
        DeadlineExceeded = "DeadlineExceeded",
        /// `NotFound`.
        NotFound = "NotFound",
        /// `AlreadyExists`.
        AlreadyExists = "AlreadyExists",
        /// `PermissionDenied`.
        PermissionDenied = "PermissionDenied",
        /// `ResourceExhausted`.
        ResourceExhausted = "ResourceExhausted",
        /// `FailedPrecondition`.
        FailedPrecondition = "FailedPrecondition",
        /// `Aborted`.
        Aborted = "Aborted",
        /// `OutOfRange`.
        OutOfRange = "OutOfRange",
        /// `Unimplemented`.
        Unimplemented = "Unimplemented",
        /// `Internal`.
        Internal = "Internal",
        /// `Unavailable`.
        Unavailable = "Unavailable",
        /// `DataLoss`.
        DataLoss = "DataLoss",
        /// `Unauthenticated`.
        Unauthenticated = "Unauthenticated",
    }
}
