//! ClientTrafficPolicy.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Check, World};
use crate::curl::{self, Answer};
use crate::e2e::features::certificates::GATEWAY_HOST;
use crate::e2e::site::LIMIT;
use crate::netns::Netns;
use crate::progress::wait_for;

pub const CHECKS: [Check; 6] = [
    Check {
        name: "ClientTrafficPolicyAccepted",
        run: |world| {
            let names = [
                "enable-client-ip-detection",
                "headers",
                "connection-limit-ctp",
                "client-timeout",
                "enable-mtls",
            ];
            world.accepted("clienttrafficpolicy", &names)
        },
    },
    Check {
        name: "ClientTrafficPolicyClientIPDetection",
        run: client_ip,
    },
    Check {
        name: "ClientTrafficPolicyHeaders",
        run: headers,
    },
    Check {
        name: "ClientTrafficPolicyConnectionLimit",
        run: connection_limit,
    },
    Check {
        name: "ClientTrafficPolicyRequestReceivedTimeout",
        run: timeout,
    },
    Check {
        name: "ClientTrafficPolicyClientValidation",
        run: mutual_tls,
    },
];

/// The route admits the addresses of a network that only the header can name.
fn client_ip(world: &World) -> Result<()> {
    let from = |address: &str| format!("X-Forwarded-For: {address}");
    world.wait_status(":8081/client-ip", &["--header", &from("10.0.1.1")], 200)?;
    world.wait_status(":8081/client-ip", &["--header", &from("198.51.100.7")], 403)?;
    world.wait_status(":8081/client-ip", &[], 403).map(drop)
}

fn headers(world: &World) -> Result<()> {
    let sent = ["--header", "X-Internal: 1", "--header", "x_under: 1"];
    let answer = world.wait_status(":8082/", &sent, 200)?;
    ensure!(answer.header("x-late") == Some("set"), "{answer:?}");
    let seen = answer.seen()?;
    seen.expect("x-early", Some("set"))?;
    seen.expect("x-internal", None)?;
    seen.expect("x_under", None)
}

/// A connection from the client's namespace.
fn connect(world: &World, port: u16) -> Result<TcpStream> {
    let address = format!("{}:{port}", world.gateway);
    let stream =
        Netns::Client.run(|| TcpStream::connect(&address).with_context(|| format!("connect {address}")))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    Ok(stream)
}

/// As long as one connection is open there is no second.
fn connection_limit(world: &World) -> Result<()> {
    // The connection of the answer that is waited for may not have ended yet.
    let first = wait_for("an answer on the one connection", LIMIT, || {
        let mut first = connect(world, 8083)?;
        first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut answer = [0; 12];
        first.read_exact(&mut answer)?;
        ensure!(answer == *b"HTTP/1.1 200", "{}", answer.escape_ascii());
        Ok(Some(first))
    })?;
    if let Ok(answer) = world.get(":8083/", &[]) {
        bail!("a second connection is served: {}", answer.status);
    }
    drop(first);
    world.wait_status(":8083/", &[], 200).map(drop)
}

/// A request whose body does not come.
fn timeout(world: &World) -> Result<()> {
    world.wait_status(":8084/", &[], 200)?;
    let mut stream = connect(world, 8084)?;
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    ensure!(answer == *b"HTTP/1.1 408", "{}", answer.escape_ascii());
    Ok(())
}

/// Clients show a certificate of the authority, and speak TLS 1.3.
fn mutual_tls(world: &World) -> Result<()> {
    wait_for("the client with a certificate is served", LIMIT, || {
        let answer = call(world, Some("good"), &[])?;
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(Some(()))
    })?;
    let old = ["--tls-max", "1.2"];
    for (what, refused) in [
        ("without a certificate", call(world, None, &[])),
        (
            "with another authority's certificate",
            call(world, Some("bad"), &[]),
        ),
        ("of TLS 1.2", call(world, Some("good"), &old)),
    ] {
        if let Ok(answer) = refused {
            bail!("a client {what} is answered {}", answer.status);
        }
    }
    // They were refused, not out of reach.
    ensure!(
        call(world, Some("good"), &[])?.status == 200,
        "not served any more"
    );
    Ok(())
}

fn call(world: &World, certificate: Option<&str>, more: &[&str]) -> Result<Answer> {
    let resolve = format!("{GATEWAY_HOST}:443:{}", world.gateway);
    let file = |name: &str| world.certificates.file(name);
    let mut arguments = vec![
        "--resolve".to_owned(),
        resolve,
        "--cacert".to_owned(),
        file("ca.crt"),
    ];
    if let Some(name) = certificate {
        arguments.extend(["--cert".to_owned(), file(&format!("{name}.crt"))]);
        arguments.extend(["--key".to_owned(), file(&format!("{name}.key"))]);
    }
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.extend(more);
    let url = format!("https://{GATEWAY_HOST}/");
    curl::send(&world.cluster, Netns::Client, &url, &arguments)
}
