//! SecurityPolicy.

use anyhow::{Result, ensure};

use super::{Check, World};
use crate::curl::Answer;

pub const CHECKS: [Check; 10] = [
    Check {
        name: "SecurityPolicyAccepted",
        run: |world| {
            let names = [
                "basic-auth-example",
                "jwt",
                "jwt-example",
                "cors-example",
                "apikey-auth-example",
                "ip-allowed",
                "ip-denied",
                "authorization-client-ip",
                "ext-auth-example",
                "ext-auth-grpc",
            ];
            world.accepted("securitypolicy", &names)
        },
    },
    Check {
        name: "SecurityPolicyBasicAuth",
        run: basic_auth,
    },
    Check {
        name: "SecurityPolicyJWT",
        run: jwt,
    },
    Check {
        name: "SecurityPolicyJWTRemoteJWKS",
        run: |world| {
            bearer(world, "/foo", TOKEN, 200)?.seen()?;
            bearer(world, "/foo", &forged(), 401)?;
            world.wait_status("/foo", &EXAMPLE, 401)?;
            world.wait_status("/bar", &EXAMPLE, 200)?.seen().map(drop)
        },
    },
    Check {
        name: "SecurityPolicyCORS",
        run: cors,
    },
    Check {
        name: "SecurityPolicyAPIKey",
        run: api_key,
    },
    Check {
        name: "SecurityPolicyClientCIDRs",
        run: |world| {
            world.wait_status("/ip-allowed", &[], 200)?.seen()?;
            world.wait_status("/ip-denied", &[], 403).map(drop)
        },
    },
    Check {
        name: "SecurityPolicyExtAuthHTTP",
        run: |world| ext_auth(world, "/ext-auth-http"),
    },
    Check {
        name: "SecurityPolicyExtAuthGRPC",
        run: |world| ext_auth(world, "/ext-auth-grpc"),
    },
    Check {
        name: "SecurityPolicyInvalid",
        run: |world| world.refused("securitypolicy", "broken", "/broken", "Invalid"),
    },
];

/// Signed with the key whose other half e2e/manifests/policies/security.yaml has; ends in the year 2100.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6InRlc3QiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJpc3N1ZXIucG9saWNpZXMudGVzdCIsInN1YiI6ImFsaWNlIiwiZXhwIjo0MTAyNDQ0ODAwfQ.sIj5Z94oOMvA5U4SAGg5eRZw5JIsRD0NXX73IY52UoO1_fKUOzFyMUS_nFvDCaur4zFZXtEhZHUU6gjdEBNnRA";

fn basic_auth(world: &World) -> Result<()> {
    world.wait_status("/basic-auth", &["--user", "foo:bar"], 200)?;
    world.wait_status("/basic-auth", &["--user", "foo:baz"], 401)?;
    let answer = world.wait_status("/basic-auth", &[], 401)?;
    ensure!(
        answer
            .header("www-authenticate")
            .is_some_and(|asks| asks.starts_with("Basic ")),
        "{answer:?}"
    );
    Ok(())
}

/// The host of the guides' routes.
const EXAMPLE: [&str; 2] = ["--header", "Host: www.example.com"];

/// The token with another signature.
fn forged() -> String {
    TOKEN.replace(".sIj5", ".sIj6")
}

fn bearer(world: &World, path: &str, token: &str, status: u16) -> Result<Answer> {
    let token = format!("Authorization: Bearer {token}");
    let [header, host] = EXAMPLE;
    world.wait_status(path, &[header, host, header, &token], status)
}

/// The keys are in the policy.
fn jwt(world: &World) -> Result<()> {
    let seen = bearer(world, "/jwt", TOKEN, 200)?.seen()?;
    seen.expect("x-jwt-sub", Some("alice"))?;
    bearer(world, "/jwt", &forged(), 401)?;
    world.wait_status("/jwt", &[], 401).map(drop)
}

/// A preflight is answered by the proxy, for a permitted origin alone.
fn cors(world: &World) -> Result<()> {
    let preflight = |origin: &str| -> Result<Answer> {
        let origin = format!("Origin: {origin}");
        let arguments = [
            "--request",
            "OPTIONS",
            "--header",
            &origin,
            "--header",
            "Access-Control-Request-Method: GET",
        ];
        world.wait_status("/cors", &arguments, 200)
    };
    let answer = preflight("http://www.foo.com")?;
    for (name, value) in [
        ("access-control-allow-origin", "http://www.foo.com"),
        ("access-control-allow-headers", "x-header-1, x-header-2"),
    ] {
        ensure!(answer.header(name) == Some(value), "{name}: {answer:?}");
    }
    let other = preflight("http://www.bar.com")?;
    ensure!(
        other.header("access-control-allow-origin").is_none(),
        "another origin is permitted: {other:?}"
    );
    Ok(())
}

fn api_key(world: &World) -> Result<()> {
    let key = ["--header", "X-API-Key: supersecret"];
    let seen = world.wait_status("/api-key", &key, 200)?.seen()?;
    seen.expect("x-client-id", Some("client1"))?;
    world.wait_status("/api-key", &["--header", "X-API-Key: other"], 401)?;
    world.wait_status("/api-key", &[], 401).map(drop)
}

fn ext_auth(world: &World, path: &str) -> Result<()> {
    let good = ["--header", "Authorization: Bearer good"];
    let seen = world.wait_status(path, &good, 200)?.seen()?;
    seen.expect("x-auth-user", Some("alice"))?;
    let denied = world.wait_status(path, &[], 403)?;
    ensure!(
        denied.header("x-auth-denied").is_some(),
        "the answer is not the authorizer's: {denied:?}"
    );
    Ok(())
}
