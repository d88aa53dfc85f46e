//! EnvoyExtensionPolicy, and the kinds that need Envoy itself.

use anyhow::{Result, ensure};

use super::{Check, World};

pub const CHECKS: [Check; 3] = [
    Check {
        name: "EnvoyExtensionPolicyExtProc",
        run: external,
    },
    Check {
        name: "EnvoyExtensionPolicyLua",
        run: |world| world.refused("envoyextensionpolicy", "lua-inline-test", "/lua", "Invalid"),
    },
    Check {
        name: "EnvoyPatchPolicyDisabled",
        run: |world| {
            let name = "custom-response-patch-policy";
            let reason = world.wait_condition("envoypatchpolicy", name, "Accepted", false)?;
            ensure!(reason == "Disabled", "reason {reason}");
            world.wait_status("/plain", &[], 200).map(drop)
        },
    },
];

/// The processor is asked over TLS. It sees the heads of both messages and each piece of the response's body, which it turns
/// into capitals, the header that the backend got from it among them.
fn external(world: &World) -> Result<()> {
    world.accepted("envoyextensionpolicy", &["ext-proc-example"])?;
    let host = ["--header", "Host: www.example.com"];
    let answer = world.wait_status("/myapp", &host, 200)?;
    ensure!(
        answer.header("x-processed-status") == Some("200"),
        "the response's head was not changed: {answer:?}"
    );
    ensure!(
        answer.body.contains("\"X-PROCESSED-PATH\"") && answer.body.contains("/MYAPP"),
        "the body is {}",
        answer.body
    );
    Ok(())
}
