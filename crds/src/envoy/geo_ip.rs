//! Where clients are looked up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cel::Cel;
use crate::open_enum::open_enum;

/// Where clients are looked up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyProxyGeoIP {
    /// Who has made the databases.
    pub provider: GeoIPProvider,
}

/// Who has made the databases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[(
    "self.type != 'MaxMind' || has(self.maxMind)",
    "type MaxMind needs maxMind",
)]))]
pub struct GeoIPProvider {
    /// `MaxMind`; nothing else is supported.
    #[serde(rename = "type")]
    pub type_: GeoIPProviderType,
    /// Databases of MaxMind's format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_mind: Option<GeoIPMaxMind>,
}

open_enum! {
    /// Who has made the databases.
    GeoIPProviderType {
        /// MaxMind, or somebody in its format.
        MaxMind = "MaxMind",
    }
}

/// Databases of MaxMind's format.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = Cel(&[(
    "has(self.cityDbSource) || has(self.countryDbSource) || has(self.asnDbSource) || has(self.ispDbSource) || has(self.anonymousIpDbSource)",
    "at least one database must be set",
)]))]
pub struct GeoIPMaxMind {
    /// Of countries, regions and cities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city_db_source: Option<GeoIPDBSource>,
    /// Of countries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country_db_source: Option<GeoIPDBSource>,
    /// Of autonomous systems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn_db_source: Option<GeoIPDBSource>,
    /// Of Internet service providers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isp_db_source: Option<GeoIPDBSource>,
    /// Of networks that hide their clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous_ip_db_source: Option<GeoIPDBSource>,
}

/// Where a database is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeoIPDBSource {
    /// In the proxy's file system.
    #[schemars(required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalGeoIPDBSource>,
}

/// A file of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalGeoIPDBSource {
    /// Its path; it is read anew when it changes.
    #[schemars(regex(pattern = r"^.*\.mmdb$"))]
    pub path: String,
}
