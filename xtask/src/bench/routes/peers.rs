//! Other proxies with as many routes: each on a host of its own, over a hundred backends.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::objects::Size;
use crate::bench::host::{self, PROXY_CORE};
use crate::bench::peer::Peer;
use crate::process::{Process, pinned, wait_for_port};

const BACKENDS: u32 = 100;

/// Starts a peer on the proxies' core, with the routes of `size`.
pub fn start(peer: Peer, size: Size, directory: &Path) -> Result<Process> {
    let directory = directory.join(format!("{}-{}", peer.name(), size.routes));
    fs::create_dir_all(&directory)?;
    let mut command = match peer {
        Peer::Sluice => bail!("Sluice is no peer of its own"),
        Peer::Envoy => {
            let config = directory.join("envoy.json");
            fs::write(&config, envoy(size).to_string())?;
            let mut command = pinned(PROXY_CORE, &host::envoy()?);
            command.arg("-c").arg(config);
            command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "warn"]);
            command
        }
        Peer::Haproxy => {
            let map = directory.join("hosts.map");
            fs::write(&map, haproxy_map(size)?)?;
            let config = directory.join("haproxy.cfg");
            fs::write(&config, haproxy(size, &map)?)?;
            let mut command = program("haproxy")?;
            command.arg("-db").arg("-f").arg(config);
            command
        }
        Peer::Nginx => {
            let config = directory.join("nginx.conf");
            fs::write(&config, nginx(size, &directory)?)?;
            let mut command = program("nginx")?;
            command.arg("-c").arg(config).args(["-e", "stderr"]);
            command
        }
    };
    let mut process = Process::start(peer.name(), &mut command, &directory, Stdio::null())?;
    wait_for_port(&mut process, size.port)?;
    Ok(process)
}

fn program(name: &str) -> Result<Command> {
    let path = crate::host::find(name).with_context(|| format!("there is no {name}"))?;
    Ok(pinned(PROXY_CORE, &path))
}

fn envoy(size: Size) -> Value {
    let address =
        |address: &str, port: u16| json!({ "socket_address": { "address": address, "port_value": port } });
    let hosts = (0..size.routes).map(|route| {
        let host = size.host(route);
        json!({ "name": host, "domains": [host], "routes": [{
            "match": { "prefix": "/" }, "route": { "cluster": format!("b{}", route % BACKENDS), "timeout": "0s" },
        }] })
    });
    let hosts: Vec<Value> = hosts.collect();
    let clusters = (0..BACKENDS).map(|backend| {
        let name = format!("b{backend}");
        let endpoint = json!({ "endpoint": { "address": address("127.0.0.1", size.backend) } });
        json!({ "name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
            "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }],
        } })
    });
    let clusters: Vec<Value> = clusters.collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "use_remote_address": true,
        "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        } }],
        "route_config": { "name": "http", "virtual_hosts": hosts },
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    json!({ "static_resources": {
        "listeners": [{
            "name": "http", "address": address("127.0.0.1", size.port), "filter_chains": [{ "filters": [filter] }],
        }],
        "clusters": clusters,
    } })
}

fn haproxy_map(size: Size) -> Result<String> {
    let mut map = String::new();
    for route in 0..size.routes {
        writeln!(map, "{} b{}", size.host(route), route % BACKENDS)?;
    }
    Ok(map)
}

fn haproxy(size: Size, map: &Path) -> Result<String> {
    let mut config = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend http\n  bind 127.0.0.1:{}\n  use_backend %[req.hdr(host),lower,map({})]\n",
        size.port,
        map.display()
    );
    for backend in 0..BACKENDS {
        writeln!(
            config,
            "backend b{backend}\n  server b{backend} 127.0.0.1:{}",
            size.backend
        )?;
    }
    Ok(config)
}

fn nginx(size: Size, directory: &Path) -> Result<String> {
    let mut config = format!(
        "daemon off;\nworker_processes 1;\npid {}/pid;\nevents {{ worker_connections 1024; }}\nhttp {{\n\
         access_log off;\nkeepalive_requests 1000000;\nserver_names_hash_max_size {};\nserver_names_hash_bucket_size 128;\n",
        directory.display(),
        size.routes.max(512) * 2
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(config, "{kind}_temp_path {}/{kind};", directory.display())?;
    }
    for backend in 0..BACKENDS {
        writeln!(
            config,
            "upstream b{backend} {{ server 127.0.0.1:{port}; keepalive 16; }}",
            port = size.backend
        )?;
    }
    for route in 0..size.routes {
        writeln!(
            config,
            "server {{ listen 127.0.0.1:{}; server_name {}; location / {{ proxy_pass http://b{}; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_set_header Host $host; }} }}",
            size.port,
            size.host(route),
            route % BACKENDS
        )?;
    }
    config.push_str("}\n");
    Ok(config)
}
