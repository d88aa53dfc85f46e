//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sluice_controller::engine::RateLimitService;

/// A Kubernetes Gateway API controller and proxy.
#[derive(Debug, Parser)]
#[command(name = "sluice", version)]
pub(crate) struct Arguments {
    /// What is logged: a level, or a filter such as `info,sluice_dataplane=debug`.
    #[arg(long, env = "SLUICE_LOG", default_value = "info", global = true)]
    pub log_level: String,
    /// How it is logged. Default: text on a terminal, else JSON.
    #[arg(long, env = "SLUICE_LOG_FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub command: Command,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the proxy of one Gateway; the controller tells it what to serve.
    Dataplane(Dataplane),
    /// Run the controller in a Kubernetes cluster.
    Controller(Controller),
    /// Serve the Gateways and routes of a folder, without Kubernetes.
    Standalone(Standalone),
    /// Run a rate limit service, which counts requests in Redis for all proxies together.
    Ratelimit(Ratelimit),
    /// Run a backend that answers with what it was asked.
    Echo(Echo),
    /// Print the configuration and the statuses that follow from the manifests of a folder.
    Translate(Folder),
    /// Say what is wrong with the manifests of a folder; fails if anything is.
    Check(Folder),
    /// Print the Gateways and routes of the cluster with their conditions.
    Status(Status),
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Dataplane {
    /// Where the controller is.
    #[arg(long, env = "SLUICE_CONTROLLER", value_name = "https://HOST:PORT")]
    pub controller: String,
    /// Name in the controller's certificate. Default: the host of its address.
    #[arg(long, env = "SLUICE_CONTROLLER_SERVER_NAME", default_value = "")]
    pub controller_server_name: String,
    /// PEM bundle that the controller's certificate is verified with.
    #[arg(long, env = "SLUICE_CA_FILE", default_value = "/etc/sluice/ca.crt")]
    pub ca_file: PathBuf,
    /// Service account token that identifies this proxy.
    #[arg(
        long,
        env = "SLUICE_TOKEN_FILE",
        default_value = "/var/run/secrets/sluice/token"
    )]
    pub token_file: PathBuf,
    /// Namespace of the Gateway.
    #[arg(long, env = "SLUICE_NAMESPACE")]
    pub namespace: String,
    /// Name of the Gateway.
    #[arg(long, env = "SLUICE_GATEWAY")]
    pub gateway: String,
    /// This proxy's own name.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub proxy_name: String,
    /// Where the last good configuration is kept.
    #[arg(long, env = "SLUICE_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Address of health, metrics and configuration dump.
    #[arg(long, env = "SLUICE_ADMIN_ADDRESS", default_value = "0.0.0.0:19001")]
    pub admin_address: SocketAddr,
    /// Address that listeners are bound to. Default: all, IPv6 and IPv4.
    #[arg(long, env = "SLUICE_BIND", default_value = "::")]
    pub bind: IpAddr,
    /// Worker threads; 0: one a core.
    #[arg(long, env = "SLUICE_WORKERS", default_value_t = 0)]
    pub workers: usize,
    /// Seconds that requests and connections have to end when the proxy stops.
    #[arg(long, env = "SLUICE_DRAIN_TIMEOUT", default_value_t = 60)]
    pub drain_timeout: u64,
    /// Milliseconds that readiness stands when the proxy stops.
    #[arg(long, env = "SLUICE_UNREADY_DELAY", default_value_t = 0)]
    pub unready_delay: u64,
    /// Seconds that new connections are still accepted after readiness has failed.
    #[arg(long, env = "SLUICE_MIN_DRAIN", default_value_t = 10)]
    pub min_drain: u64,
    /// Topology zone that the proxy runs in, for backends that prefer endpoints of it.
    #[arg(long, env = "SLUICE_ZONE", default_value = "")]
    pub zone: String,
    /// No access log.
    #[arg(long, env = "SLUICE_NO_ACCESS_LOG")]
    pub no_access_log: bool,
}

#[derive(Debug, Args)]
#[allow(clippy::struct_field_names, reason = "the fields are the flags")]
pub(crate) struct Controller {
    /// `spec.controllerName` of our GatewayClasses.
    #[arg(
        long,
        env = "SLUICE_CONTROLLER_NAME",
        default_value = "sluice.dev/gateway-controller"
    )]
    pub controller_name: String,
    /// Namespace that the controller runs in.
    #[arg(long, env = "SLUICE_NAMESPACE", default_value = "sluice-system")]
    pub namespace: String,
    /// Address that proxies are served at.
    #[arg(long, env = "SLUICE_CONFIG_ADDRESS", default_value = "0.0.0.0:18000")]
    pub config_address: SocketAddr,
    /// Address of health and metrics.
    #[arg(long, env = "SLUICE_METRICS_ADDRESS", default_value = "0.0.0.0:19001")]
    pub metrics_address: SocketAddr,
    /// Image of the proxies.
    #[arg(long, env = "SLUICE_PROXY_IMAGE", default_value = "sluice:latest")]
    pub proxy_image: String,
    /// Pull policy of that image. Default: Kubernetes' own.
    #[arg(long, env = "SLUICE_PROXY_IMAGE_PULL_POLICY")]
    pub proxy_image_pull_policy: Option<String>,
    /// Host and port at which proxies reach the controller.
    #[arg(long, env = "SLUICE_CONFIG_SERVICE")]
    pub config_service: Option<String>,
    /// Proxies in front of ours that are trusted to append to X-Forwarded-For.
    #[arg(long, env = "SLUICE_XFF_TRUSTED_HOPS", default_value_t = 0)]
    pub xff_trusted_hops: u32,
    /// Let Backends have loopback and link-local addresses: those of the proxy's own pod and node.
    #[arg(long, env = "SLUICE_ALLOW_LOOPBACK_BACKENDS")]
    pub allow_loopback_backends: bool,
    #[command(flatten)]
    pub rate_limit: RateLimits,
    /// Elect a leader, so that several replicas can run.
    #[arg(long, env = "SLUICE_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// This pod's name.
    #[arg(long, env = "POD_NAME", default_value = "sluice-controller")]
    pub pod_name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Standalone {
    /// Folder with manifests (*.yaml, *.yml). Changes are live at once.
    #[arg(long, value_name = "DIR")]
    pub config: PathBuf,
    /// Address that listeners are bound to.
    #[arg(long, default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// `spec.controllerName` of our GatewayClasses.
    #[arg(
        long,
        env = "SLUICE_CONTROLLER_NAME",
        default_value = "sluice.dev/gateway-controller"
    )]
    pub controller_name: String,
    /// Address of health, metrics and configuration dump of the (first) Gateway.
    #[arg(long, value_name = "ADDRESS")]
    pub admin_address: Option<SocketAddr>,
    /// Worker threads; 0: one a core.
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// Write the access log to standard output.
    #[arg(long)]
    pub access_log: bool,
    /// Let requests reach loopback and link-local addresses through Backends of type DynamicResolver. Endpoints that the
    /// manifests name may have such addresses in any case.
    #[arg(long)]
    pub allow_loopback_backends: bool,
    #[command(flatten)]
    pub rate_limit: RateLimits,
}

/// Where global rate limits are counted.
#[derive(Debug, Args)]
pub(crate) struct RateLimits {
    /// Where the rate limit service is: an address, or an absolute name in the DNS. Without one, global rate limits have
    /// no effect.
    #[arg(
        long = "rate-limit-service",
        env = "SLUICE_RATE_LIMIT_SERVICE",
        value_name = "HOST:PORT",
        value_parser = host_and_port
    )]
    pub address: Option<(String, u16)>,
    /// Milliseconds that it may take for an answer.
    #[arg(
        long = "rate-limit-timeout-ms",
        env = "SLUICE_RATE_LIMIT_TIMEOUT_MS",
        value_name = "MILLISECONDS",
        default_value_t = 20
    )]
    pub timeout_ms: u64,
    /// Answer requests with 500 that it cannot be asked about, instead of letting them pass.
    #[arg(long = "rate-limit-fail-closed", env = "SLUICE_RATE_LIMIT_FAIL_CLOSED")]
    pub fail_closed: bool,
}

impl RateLimits {
    /// The service, if there is one.
    pub(crate) fn service(&self) -> Option<RateLimitService> {
        let (host, port) = self.address.clone()?;
        Some(RateLimitService {
            host,
            port,
            timeout_ms: self.timeout_ms,
            fail_closed: self.fail_closed,
        })
    }
}

/// A host and its port; IPv6 addresses stand in brackets.
fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("there is no port")?;
    let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = inner.unwrap_or(host);
    if host.is_empty() || (inner.is_none() && host.contains(':')) {
        return Err("HOST:PORT is wanted, with brackets around an IPv6 address".to_owned());
    }
    Ok((host.to_owned(), port))
}

#[derive(Debug, Args)]
pub(crate) struct Ratelimit {
    /// Address that proxies ask at: gRPC without TLS.
    #[arg(long, env = "SLUICE_RATELIMIT_ADDRESS", default_value = "0.0.0.0:8081")]
    pub address: SocketAddr,
    /// Address of health and metrics.
    #[arg(long, env = "SLUICE_METRICS_ADDRESS", default_value = "0.0.0.0:19001")]
    pub metrics_address: SocketAddr,
    /// Where Redis is; with rediss:// over TLS. A password here is one that others can see: there is a variable for it.
    #[arg(
        long,
        env = "SLUICE_REDIS_URL",
        value_name = "redis://HOST:PORT/DB",
        hide_env_values = true
    )]
    pub redis_url: String,
    /// Redis' user.
    #[arg(long, env = "SLUICE_REDIS_USERNAME")]
    pub redis_username: Option<String>,
    /// File with Redis' password. The variable SLUICE_REDIS_PASSWORD may hold the password itself instead.
    #[arg(long, env = "SLUICE_REDIS_PASSWORD_FILE")]
    pub redis_password_file: Option<PathBuf>,
    /// PEM bundle that Redis' certificate is verified with. Default: the public authorities.
    #[arg(long, env = "SLUICE_REDIS_CA_FILE")]
    pub redis_ca_file: Option<PathBuf>,
    /// PEM certificate that Redis is shown.
    #[arg(long, env = "SLUICE_REDIS_CERT_FILE", requires = "redis_key_file")]
    pub redis_cert_file: Option<PathBuf>,
    /// PEM key of that certificate.
    #[arg(long, env = "SLUICE_REDIS_KEY_FILE", requires = "redis_cert_file")]
    pub redis_key_file: Option<PathBuf>,
    /// What the names of all keys in Redis begin with.
    #[arg(long, env = "SLUICE_REDIS_PREFIX", default_value = "sluice:ratelimit:")]
    pub redis_prefix: String,
}

#[derive(Debug, Args)]
pub(crate) struct Echo {
    /// Address to serve HTTP/1.1 and HTTP/2 without TLS at.
    #[arg(long, env = "SLUICE_ECHO_ADDRESS", default_value = "0.0.0.0:3000")]
    pub address: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct Folder {
    /// Folder with manifests (*.yaml, *.yml).
    #[arg(long, value_name = "DIR")]
    pub config: PathBuf,
    /// `spec.controllerName` of our GatewayClasses.
    #[arg(
        long,
        env = "SLUICE_CONTROLLER_NAME",
        default_value = "sluice.dev/gateway-controller"
    )]
    pub controller_name: String,
    #[command(flatten)]
    pub rate_limit: RateLimits,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this namespace.
    #[arg(long, short)]
    pub namespace: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_ports() {
        let is = |text: &str, host: &str, port| {
            assert_eq!(host_and_port(text), Ok((host.to_owned(), port)), "{text}");
        };
        is("a.b.svc:8081", "a.b.svc", 8081);
        is("127.0.0.1:1", "127.0.0.1", 1);
        is("[::1]:2", "::1", 2);
        for wrong in ["", "a", "a:", ":1", "a:b", "a:70000", "::1:2", "[]:1"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }
}
