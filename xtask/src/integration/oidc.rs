//! Logins at a certified OpenID provider, by a browser that is played by curl.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::install;
use super::world::{World, echo_service};
use crate::browser::Browser;
use crate::host;
use crate::process::bound;
use crate::progress::wait_for;

/// Login, access, refresh, logout; tampering, and a provider that is down.
pub fn login(world: &World) -> Result<()> {
    let [port, echo, op] = host::free_ports()?;
    let home = format!("http://127.0.0.1:{port}");
    let mut node = bound("node");
    let address = format!("127.0.0.1:{op}");
    node.args(install::provider(&format!("http://{address}"), &address, &home)?);
    let provider = world.start("provider", &mut node, op)?;
    let _sluice = world.sluice(&manifests(port, echo, op), port)?;

    let curl = || Command::new("curl");
    let open = |user| Browser::new(world.directory(), user, &curl);
    let browser = open("alice")?;
    let page = browser.log_in(&format!("{home}/page?a=b"))?;
    let seen = page.seen()?;
    ensure!(
        seen.path().starts_with("/page"),
        "the way ends at {}",
        seen.path()
    );
    seen.expect("x-user", Some("alice"))?;
    let first = seen
        .header("authorization")
        .context("no access token")?
        .to_owned();
    ensure!(seen.header("x-id-token").is_some(), "no ID token");
    ensure!(
        !seen.header("cookie").unwrap_or_default().contains("Oauth"),
        "the backend sees the session's cookies"
    );
    // The access token ends in a few seconds.
    let renewed = wait_for("another access token", std::time::Duration::from_secs(30), || {
        let now = browser.get(&format!("{home}/page"))?.seen()?;
        let token = now.header("authorization").context("no access token")?;
        Ok((token != first).then(|| token.to_owned()))
    })?;
    ensure!(renewed.starts_with("Bearer "), "not a bearer token");

    // Somebody else's callback, and a state that is none.
    let other = open("mallory")?;
    let begun = other.get(&format!("{home}/"))?;
    let location = begun.header("location").context("not sent to the provider")?;
    let state = parameter(location, "state")?;
    let stranger = open("stranger")?;
    for callback in [
        format!("{home}/oauth2/callback?code=x&state={state}"),
        format!("{home}/oauth2/callback?code=x&state=x{state}"),
    ] {
        let status = stranger.get(&callback)?.status;
        ensure!(status == 401, "a stranger's callback gets {status}");
    }
    // A code that the provider has not given.
    let status = other
        .get(&format!("{home}/oauth2/callback?code=x&state={state}"))?
        .status;
    ensure!(status == 401, "a made-up code gets {status}");

    let kept = browser.jar()?;
    browser.set_jar(&tampered(&kept)?)?;
    let status = browser.get(&format!("{home}/"))?.status;
    ensure!(status == 302, "a changed cookie gets {status}");
    browser.set_jar(&kept)?;
    browser.get(&format!("{home}/"))?.seen()?;

    let out = browser.get(&format!("{home}/logout"))?;
    let to = out.header("location").context("logout sends nowhere")?;
    ensure!(
        to.starts_with(&format!("http://127.0.0.1:{op}/session/end?")),
        "logout goes to {to}"
    );
    ensure!(
        browser.get(to)?.status == 200,
        "the provider does not take the logout"
    );
    let status = browser.get(&format!("{home}/"))?.status;
    ensure!(status == 302, "after the logout the answer is {status}");

    // What is known of the provider stays; what has to be asked cannot be.
    let again = open("bob")?;
    again.log_in(&format!("{home}/"))?.seen()?;
    drop(provider);
    let down = wait_for(
        "the end of the session",
        std::time::Duration::from_secs(30),
        || {
            let status = again.get(&format!("{home}/"))?.status;
            Ok((status != 200).then_some(status))
        },
    )?;
    ensure!(down == 503, "without the provider the answer is {down}");
    let log = world.read("sluice.log")?;
    let lines = log.matches("identity provider cannot be asked").count();
    ensure!(lines == 1, "{lines} lines say that the provider is down");
    ensure!(
        !log.contains("secret of the client"),
        "the log tells the client's secret"
    );
    Ok(())
}

/// The value of a parameter, as it is written.
fn parameter(url: &str, name: &str) -> Result<String> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(key, _)| *key == name);
    found
        .map(|(_, value)| value.to_owned())
        .with_context(|| format!("no {name} in {url}"))
}

/// A jar whose session is changed in one place.
fn tampered(jar: &str) -> Result<String> {
    let at = jar
        .find("OauthSession-")
        .context("there is no session in the jar")?;
    let at = at + jar[at..].find('\t').context("no value")? + 40;
    let mut bytes = jar.to_owned().into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    Ok(String::from_utf8(bytes)?)
}

fn manifests(port: u16, echo: u16, op: u16) -> String {
    let service = echo_service(echo);
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  gatewayClassName: sluice
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: echo}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{{name: echo, port: 80}}]}}]
---
apiVersion: v1
kind: Secret
metadata: {{name: client}}
stringData: {{client-secret: a secret of the client & the proxy}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: login}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: echo}}]
  oidc:
    provider: {{issuer: \"http://127.0.0.1:{op}\"}}
    clientID: app
    clientSecret: {{name: client}}
    scopes: [openid, email]
    cookieNames: {{idToken: it}}
    forwardAccessToken: true
    forwardIDToken: {{header: X-Id-Token}}
  jwt:
    providers:
    - name: op
      issuer: \"http://127.0.0.1:{op}\"
      audiences: [app]
      remoteJWKS: {{uri: \"http://127.0.0.1:{op}/jwks\"}}
      extractFrom: {{cookies: [it]}}
      claimToHeaders: [{{header: x-user, claim: sub}}]
{service}"
    )
}
