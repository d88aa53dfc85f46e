//! What the suite's report says of each profile.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

#[derive(Deserialize)]
struct Report {
    profiles: Vec<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    name: String,
    #[serde(default)]
    core: Part,
    #[serde(default)]
    extended: Part,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Part {
    result: String,
    failed_tests: Vec<String>,
    skipped_tests: Vec<String>,
    unsupported_features: Vec<String>,
}

impl Part {
    fn complaints(&self, of: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        if !matches!(self.result.as_str(), "" | "success") {
            complaints.push(format!("{of}: result {}", self.result));
        }
        for (what, names) in [
            ("failed", &self.failed_tests),
            ("skipped", &self.skipped_tests),
            ("not supported", &self.unsupported_features),
        ] {
            if !names.is_empty() {
                complaints.push(format!("{of}: {what}: {}", names.join(", ")));
            }
        }
        complaints
    }
}

/// Fails unless every profile in the report has passed, with nothing skipped and no feature unsupported.
pub fn check(report: &Path) -> Result<()> {
    let text = fs::read_to_string(report).with_context(|| format!("cannot read {}", report.display()))?;
    check_text(&text).with_context(|| report.display().to_string())
}

fn check_text(text: &str) -> Result<()> {
    let report: Report = serde_yaml_ng::from_str(text)?;
    if report.profiles.is_empty() {
        bail!("no profile was run");
    }
    let complaints: Vec<String> = report
        .profiles
        .iter()
        .flat_map(|profile| {
            let core = profile.core.complaints(&format!("{} core", profile.name));
            let extended = profile.extended.complaints(&format!("{} extended", profile.name));
            core.into_iter().chain(extended)
        })
        .collect();
    if !complaints.is_empty() {
        bail!("{}", complaints.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gap_is_named() {
        let good =
            "profiles:\n- name: GATEWAY-HTTP\n  core: {result: success}\n  extended: {result: success}\n";
        assert!(check_text(good).is_ok());
        assert!(check_text("profiles: []").is_err());
        for (gap, named) in [
            ("core: {result: partial}", "GATEWAY-TCP core: result partial"),
            (
                "core: {result: success, skippedTests: [A]}",
                "GATEWAY-TCP core: skipped: A",
            ),
            ("core: {result: failure, failedTests: [B]}", "failed: B"),
            (
                "extended: {result: success, unsupportedFeatures: [C]}",
                "GATEWAY-TCP extended: not supported: C",
            ),
        ] {
            let error = check_text(&format!("{good}- name: GATEWAY-TCP\n  {gap}\n"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
