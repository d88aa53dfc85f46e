//! Login by OpenID Connect as SecurityPolicies ask for it. The provider's metadata is the proxy's to fetch; here is
//! what the policy itself says, and where its secrets are.

use std::collections::BTreeMap;

use http::Uri;
use sluice_config::v1;
use sluice_config::v1::oidc_cookies::SameSite;
use sluice_config::v1::resource::Body;
use sluice_config::v1::value_source::Source;
use sluice_crds::envoy::{OIDC, OIDCProvider};

use super::destination;
use super::reader::{Reader, string_match};
use crate::engine::{BackendUsage, Mode};
use crate::store::ObjectRef;
use crate::translate::route::millis;
use crate::translate::secret;

/// Where the provider sends the browser back to if the policy does not say.
const REDIRECT: &str = "%REQ(x-forwarded-proto)%://%REQ(:authority)%/oauth2/callback";
/// What ends a session if the policy does not say.
const LOGOUT: &str = "/logout";
/// Entries of Secrets.
const CLIENT_ID: &str = "client-id";
const CLIENT_SECRET: &str = "client-secret";
const KEY: &str = "key";

/// `oidc`; `jwt` is what judges requests that need no session.
pub fn translate(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &OIDC,
    jwt: Option<&v1::Jwt>,
) -> v1::Oidc {
    let secret = reader.secret(owner, &from.client_secret, "oidc.clientSecret");
    let redirect_url = from.redirect_url.clone().unwrap_or_else(|| REDIRECT.to_owned());
    check_redirect(reader, &redirect_url);
    let logout_path = from.logout_path.clone().unwrap_or_else(|| LOGOUT.to_owned());
    if !logout_path.starts_with('/') || logout_path.contains(['?', '#']) {
        reader.fault("oidc.logoutPath", format_args!("{logout_path:?} is not a path"));
    }
    let mut scopes = from.scopes.clone();
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    let mut deny_redirect = Vec::new();
    for header in from.deny_redirect.iter().flat_map(|deny| &deny.headers) {
        deny_redirect.push(v1::OidcHeaderMatch {
            name: reader.header(&header.name, "oidc.denyRedirect.headers"),
            value: Some(string_match(reader, &header.matches, "oidc.denyRedirect.headers")),
        });
    }
    let pass_through = pass_through(reader, from, jwt);
    let ms = |duration: Option<_>| duration.map(millis).unwrap_or_default();
    v1::Oidc {
        name: format!("{}/{}", owner.namespace, owner.name),
        provider: provider(reader, owner, &from.provider),
        client_id: client_id(reader, owner, from),
        client_secret: reader.entry(secret, CLIENT_SECRET, false, "oidc.clientSecret"),
        cookie_key: cookie_key(reader, owner),
        scopes,
        resources: from.resources.clone(),
        redirect_url,
        logout_path,
        cookies: Some(cookies(reader, from)),
        forward_access_token: from.forward_access_token.unwrap_or_default(),
        forward_id_token_header: forward_id_token(reader, from, &pass_through),
        default_token_ttl_ms: ms(from.default_token_ttl),
        refresh: from.refresh_token.unwrap_or(true),
        default_refresh_token_ttl_ms: ms(from.default_refresh_token_ttl),
        login_ttl_ms: ms(from.csrf_token_ttl),
        deny_redirect,
        pass_through,
    }
}

fn provider(
    reader: &mut Reader<'_, '_, '_>,
    owner: &ObjectRef,
    from: &OIDCProvider,
) -> Option<v1::OidcProvider> {
    let field = "oidc.provider";
    let endpoint = |url: &Option<String>| url.clone().unwrap_or_default();
    let (authorization, token, end) = (
        endpoint(&from.authorization_endpoint),
        endpoint(&from.token_endpoint),
        endpoint(&from.end_session_endpoint),
    );
    for (name, url) in [
        ("issuer", &from.issuer),
        ("authorizationEndpoint", &authorization),
        ("tokenEndpoint", &token),
        ("endSessionEndpoint", &end),
    ] {
        if (name == "issuer" || !url.is_empty()) && !is_url(url) {
            reader.fault(
                format_args!("{field}.{name}"),
                format_args!("{url:?} is not a URL of HTTP"),
            );
        }
    }
    let cluster = &from.cluster;
    let backend = if cluster.backend_ref.is_some() || !cluster.backend_refs.is_empty() {
        reader.backend(owner, cluster, BackendUsage::Http, field)?
    } else {
        reader.hosts(cluster, field).unwrap_or_default()
    };
    Some(v1::OidcProvider {
        issuer: from.issuer.clone(),
        authorization_endpoint: authorization,
        token_endpoint: token,
        end_session_endpoint: end,
        backend,
        timeout_ms: destination::timeout(cluster).unwrap_or_default(),
    })
}

fn is_url(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri
                .authority()
                .is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

/// A URL that may have command operators in its scheme and authority, and none in its path.
fn check_redirect(reader: &mut Reader<'_, '_, '_>, url: &str) {
    let path = url
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').filter(|at| *at > 0).map(|at| &rest[at..]));
    if path.is_none_or(|path| path.contains(['?', '#', '%'])) {
        let why = format!("{url:?} is not a URL with a path of its own");
        reader.fault("oidc.redirectURL", why);
    }
}

/// The client ID is known to every browser: it is no secret even if it stands in one.
fn client_id(reader: &mut Reader<'_, '_, '_>, owner: &ObjectRef, from: &OIDC) -> String {
    let field = "oidc.clientIDRef";
    let reference = match (&from.client_id, &from.client_id_ref) {
        (Some(id), None) => return id.clone(),
        (None, Some(reference)) => reference,
        _ => {
            reader.fault("oidc", "exactly one of clientID and clientIDRef must be set");
            return String::new();
        }
    };
    let Some(object) = reader.secret_object(owner, reference, field) else {
        return String::new();
    };
    let entries: Option<BTreeMap<_, _>> = secret::entries(reader.context.view, &object);
    let id = entries
        .as_ref()
        .and_then(|entries| entries.get(CLIENT_ID))
        .and_then(|id| std::str::from_utf8(id).ok())
        .map(str::trim)
        .filter(|id| !id.is_empty());
    match (id, &entries) {
        (Some(id), _) => return id.to_owned(),
        (None, None) => reader.fault(field, format_args!("{object} does not exist")),
        (None, Some(_)) => reader.fault(field, format_args!("it has no key {CLIENT_ID:?}")),
    }
    String::new()
}

/// The key of this login. `None`: the proxy is this process, and makes one.
fn cookie_key(reader: &mut Reader<'_, '_, '_>, owner: &ObjectRef) -> Option<v1::SecretEntry> {
    let name = format!("{}/{}", owner.namespace, owner.name);
    let environment = reader.context.view.environment();
    let Some(key) = environment.login_key.as_ref().map(|key| key.of(&name)) else {
        if environment.mode == Mode::Cluster {
            reader.fault(
                "oidc",
                "the controller has no key for the cookies; its log says why",
            );
        }
        return None;
    };
    let entries = [(KEY.to_owned(), key)].into();
    let data = v1::secret::Body::Data(v1::SecretData { entries });
    let secret = Body::Secret(v1::Secret { body: Some(data) });
    Some(v1::SecretEntry {
        secret: reader.resource("secret/oidc", &name, secret),
        entry: KEY.to_owned(),
    })
}

fn cookies(reader: &mut Reader<'_, '_, '_>, from: &OIDC) -> v1::OidcCookies {
    let names = from.cookie_names.clone().unwrap_or_default();
    let (access_token, id_token) = (
        names.access_token.unwrap_or_default(),
        names.id_token.unwrap_or_default(),
    );
    for (field, name) in [
        ("oidc.cookieNames.accessToken", &access_token),
        ("oidc.cookieNames.idToken", &id_token),
    ] {
        // Names of cookies are made as those of headers are (RFC 6265 section 4.1.1).
        if !name.is_empty() && http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            reader.fault(field, format_args!("{name:?} is not the name of a cookie"));
        }
    }
    if !access_token.is_empty() && access_token == id_token {
        reader.fault("oidc.cookieNames", "both tokens have one name");
    }
    let same_site = from
        .cookie_config
        .as_ref()
        .and_then(|config| config.same_site.as_deref());
    let same_site = match same_site {
        None => SameSite::Unspecified,
        Some("Lax") => SameSite::Lax,
        Some("Strict") => SameSite::Strict,
        Some("None") => SameSite::None,
        Some(other) => {
            let why = format!("{other:?} is not known");
            reader.fault("oidc.cookieConfig.sameSite", why);
            SameSite::Unspecified
        }
    };
    v1::OidcCookies {
        access_token,
        id_token,
        domain: from.cookie_domain.clone().unwrap_or_default(),
        same_site: same_site.into(),
        plain: from.disable_token_encryption.unwrap_or_default(),
    }
}

/// The headers that `jwt` takes tokens from.
fn pass_through(reader: &mut Reader<'_, '_, '_>, from: &OIDC, jwt: Option<&v1::Jwt>) -> Vec<v1::OidcBearer> {
    if from.pass_through_auth_header != Some(true) {
        return Vec::new();
    }
    if jwt.is_some_and(|jwt| jwt.fail_open) {
        let why = "spec.oidc.passThroughAuthHeader: jwt lets any token pass, so no request passes by it";
        reader.warnings.push(why.to_owned());
        return Vec::new();
    }
    let sources = jwt.into_iter().flat_map(|jwt| &jwt.providers);
    let sources = sources.flat_map(|provider| &provider.sources);
    let bearers: Vec<_> = sources
        .filter_map(|source| match &source.source {
            Some(Source::Header(header)) => Some(v1::OidcBearer {
                name: header.name.clone(),
                prefix: header.prefix.clone(),
            }),
            _ => None,
        })
        .collect();
    if bearers.is_empty() {
        let why =
            "spec.oidc.passThroughAuthHeader: jwt takes no token from a header, so no request passes by it";
        reader.warnings.push(why.to_owned());
    }
    bearers
}

fn forward_id_token(reader: &mut Reader<'_, '_, '_>, from: &OIDC, pass_through: &[v1::OidcBearer]) -> String {
    let Some(forward) = &from.forward_id_token else {
        return String::new();
    };
    let field = "oidc.forwardIDToken.header";
    let name = reader.header(&forward.header, field);
    if name == "host" {
        reader.fault(field, "it cannot be the Host header");
    }
    if name == "authorization" && from.forward_access_token == Some(true) {
        reader.fault(field, "the access token is forwarded in it");
    }
    if pass_through.iter().any(|bearer| bearer.name == name) {
        reader.fault(field, "jwt takes tokens from it that clients bring");
    }
    name
}
