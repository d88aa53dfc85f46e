//! Logins at a certified OpenID provider, by a browser that is played by curl.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::install;
use super::world::{World, echo_service};
use crate::curl::{self, Answer};
use crate::process::bound;
use crate::progress::wait_for;
use crate::{host, paths};

const VERSION: &str = "9.13.3";
/// The provider's program.
const PROGRAM: &str = "xtask/src/integration/oidc-provider.mjs";

/// Login, access, refresh, logout; tampering, and a provider that is down.
pub fn login(world: &World) -> Result<()> {
    let packages = install::npm("oidc-provider", VERSION)?;
    let [port, echo, op] = host::free_ports()?;
    let home = format!("http://127.0.0.1:{port}");
    let mut node = bound("node");
    node.arg(paths::root().join(PROGRAM)).arg(packages);
    node.args([op.to_string(), home.clone()]);
    let provider = world.start("provider", &mut node, op)?;
    let _sluice = world.sluice(&manifests(port, echo, op), port)?;

    let browser = Browser::new(world, "alice");
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
    let other = Browser::new(world, "mallory");
    let begun = other.get(&format!("{home}/"))?;
    let location = begun.header("location").context("not sent to the provider")?;
    let state = parameter(location, "state")?;
    let stranger = Browser::new(world, "stranger");
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
    let again = Browser::new(world, "bob");
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

/// Where a response sends its reader, who has asked for `url`.
fn resolved(url: &str, location: &str) -> String {
    let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    match location.strip_prefix('/') {
        Some(path) => format!("{origin}/{path}"),
        None => location.to_owned(),
    }
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

/// A client that keeps cookies.
struct Browser {
    jar: PathBuf,
    user: &'static str,
}

impl Browser {
    fn new(world: &World, user: &'static str) -> Self {
        Self {
            jar: world.directory().join(format!("{user}.jar")),
            user,
        }
    }

    fn jar(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.jar)?)
    }

    fn set_jar(&self, jar: &str) -> Result<()> {
        Ok(fs::write(&self.jar, jar)?)
    }

    fn get(&self, url: &str) -> Result<Answer> {
        self.ask(url, &[])
    }

    fn ask(&self, url: &str, arguments: &[&str]) -> Result<Answer> {
        let jar = self.jar.to_str().context("odd path")?;
        let all = [&["--cookie", jar, "--cookie-jar", jar], arguments].concat();
        let answer = curl::local(url, &all)?;
        // Of several cookies that one response takes away, curl 7.88 reads all but the last from its jar again.
        let gone: Vec<_> = answer
            .headers("set-cookie")
            .filter(|cookie| cookie.contains("Max-Age=0;"))
            .filter_map(|cookie| Some(format!("\t{}\t", cookie.split_once('=')?.0)))
            .collect();
        if !gone.is_empty() {
            let kept = self.jar()?;
            let kept = kept
                .lines()
                .filter(|line| !gone.iter().any(|name| line.contains(name)));
            self.set_jar(&format!("{}\n", kept.collect::<Vec<_>>().join("\n")))?;
        }
        Ok(answer)
    }

    /// Goes where it is sent, and fills in the provider's forms, until there is something else to see.
    fn log_in(&self, url: &str) -> Result<Answer> {
        let mut url = url.to_owned();
        let mut answer = self.get(&url)?;
        for _ in 0..20 {
            if let Some(next) = answer.header("location") {
                url = resolved(&url, next);
                answer = self.get(&url)?;
            } else if url.contains("/interaction/") {
                let login = format!("prompt=login&login={}&password=any", self.user);
                let form = if answer.body.contains("value=\"login\"") {
                    &login
                } else {
                    "prompt=consent"
                };
                answer = self.ask(&url, &["--data", form])?;
            } else {
                return Ok(answer);
            }
        }
        bail!("the login does not end; it is at {url}")
    }
}

fn manifests(port: u16, echo: u16, op: u16) -> String {
    let service = echo_service(echo);
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: sluice}}
spec: {{controllerName: sluice.dev/gateway-controller}}
---
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
