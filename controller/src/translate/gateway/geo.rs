//! The databases in which the proxies look clients up.

use sluice_config::v1;
use sluice_crds::envoy::{EnvoyProxyGeoIP, GeoIPDBSource, GeoIPProviderType};

use crate::translate::model::Geo;

/// What is wrong with them, if anything.
pub fn fault(from: &EnvoyProxyGeoIP) -> Option<&'static str> {
    match &from.provider {
        provider if provider.type_ != GeoIPProviderType::MaxMind => Some("geoIP.provider.type"),
        provider if provider.max_mind.is_none() => Some("geoIP.provider without maxMind"),
        _ => None,
    }
}

/// Which there are.
pub fn known(from: &EnvoyProxyGeoIP) -> Geo {
    let databases = databases(from);
    Geo {
        city: !databases.city.is_empty(),
        country: !databases.country.is_empty(),
        asn: !databases.asn.is_empty(),
        isp: !databases.isp.is_empty(),
        anonymous: !databases.anonymous_ip.is_empty(),
    }
}

/// Where they are.
pub fn databases(from: &EnvoyProxyGeoIP) -> v1::GeoDatabases {
    let from = from.provider.max_mind.clone().unwrap_or_default();
    let path = |source: Option<GeoIPDBSource>| {
        source
            .and_then(|source| source.local)
            .map(|local| local.path)
            .unwrap_or_default()
    };
    v1::GeoDatabases {
        city: path(from.city_db_source),
        country: path(from.country_db_source),
        asn: path(from.asn_db_source),
        isp: path(from.isp_db_source),
        anonymous_ip: path(from.anonymous_ip_db_source),
    }
}
