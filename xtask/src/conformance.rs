//! Runs the Gateway API conformance suite, unchanged, from the client's namespace.

mod report;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::build::programs::CONFORMANCE;
use crate::cluster::{self, Cluster, Target};
use crate::cmd::{self, Run};
use crate::e2e::install::{self, CLASS};
use crate::netns::Netns;
use crate::paths::{self, VERSION};
use crate::progress::{long, say};

/// An address that the harness's load balancer gives to whoever asks for it.
const USABLE: &str = "192.168.88.239";
/// An address that it never gives (TEST-NET-1, RFC 5737).
const UNUSABLE: &str = "192.0.2.1";
const REPORT: &str = "docs/conformance/v1.7.0-report.yaml";

/// How much of the suite runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// The core features of GATEWAY-HTTP
    HttpCore,
    /// Every profile, and every feature that the GatewayClass's status claims
    All,
}

/// `cargo xtask conformance ...`
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[arg(long, value_enum, default_value_t = Profile::All)]
    pub profile: Profile,
    /// Run one test, by its short name
    #[arg(long, value_name = "NAME")]
    pub run_test: Option<String>,
    /// Write the report, by default to docs/conformance/v1.7.0-report.yaml
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = REPORT)]
    pub report: Option<PathBuf>,
    /// Build and install Sluice first even if it is installed already
    #[arg(long)]
    pub install: bool,
    #[command(flatten)]
    pub image: install::ImageOptions,
    /// Print all that the suite prints
    #[arg(long, short)]
    pub verbose: bool,
    /// List the suite's tests and the features that each needs; runs nothing
    #[arg(long)]
    pub list: bool,
    #[arg(long, default_value = "sluice")]
    pub organization: String,
    #[arg(long, default_value = "sluice")]
    pub project: String,
    #[arg(long, default_value = "https://sluice.dev")]
    pub url: String,
    #[arg(long, default_value = VERSION)]
    pub version: String,
    #[arg(long, default_value = "https://sluice.dev")]
    pub contact: String,
    /// Further flags for the suite itself
    #[arg(last = true)]
    pub flags: Vec<String>,
}

/// What a run of the suite has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub passed: Vec<String>,
    pub failed: Vec<String>,
    pub skipped: Vec<String>,
    /// The suite's closing lines.
    pub closing: Vec<String>,
}

/// Runs the suite; fails if any of its tests has failed. A run of everything also fails if a test of its profiles was
/// skipped or a feature of theirs is not claimed.
pub fn run(options: &Options, target: &Target) -> Result<Outcome> {
    let suite = CONFORMANCE.ensure()?;
    if options.list {
        return list(&suite).map(|()| Outcome::default());
    }
    let cluster = match &target.kubeconfig {
        Some(path) => Cluster::open(Some(path))?,
        None => cluster::up()?,
    };
    if options.install || !cluster.kubectl(["get", "gatewayclass", CLASS]).succeeds() {
        install::image(&cluster, &options.image)?;
        install::crds(&cluster)?;
        install::chart(&cluster, &["conformance"])?;
    }
    let flags = flags(options, &cluster)?;
    let outcome = long(&format!("conformance {:?}", options.profile), || {
        execute(&cluster, &suite, &flags, options)
    })?;
    summary(&outcome);
    outcome.verdict()?;
    if let Some(report) = report(options)? {
        // The suite makes it readable by its owner alone.
        fs::set_permissions(&report, fs::Permissions::from_mode(0o644))?;
        say(format!("report: {}", report.display()));
        report::check(&report)?;
    }
    Ok(outcome)
}

fn list(suite: &Path) -> Result<()> {
    let output = Command::new(suite).args(["-test.run=^TestList$"]).text()?;
    print!("{output}");
    Ok(())
}

/// Where the report goes: a run of everything always has one, because it alone tells what is missing.
fn report(options: &Options) -> Result<Option<PathBuf>> {
    let report = match &options.report {
        Some(report) => paths::root().join(report),
        None if options.profile == Profile::All && options.run_test.is_none() => {
            paths::cache()?.join("conformance-report.yaml")
        }
        None => return Ok(None),
    };
    if let Some(parent) = report.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    Ok(Some(report))
}

fn flags(options: &Options, cluster: &Cluster) -> Result<Vec<String>> {
    let mut flags = vec![
        // Not plain -test.v, which prints the results of parallel tests at the end alone.
        "-test.v=test2json".to_owned(),
        "-test.run=^TestConformance$".to_owned(),
        format!("--gateway-class={CLASS}"),
        format!("--usable-address={USABLE}"),
        format!("--unusable-address={UNUSABLE}"),
        format!("--organization={}", options.organization),
        format!("--project={}", options.project),
        format!("--url={}", options.url),
        format!("--version={}", options.version),
        format!("--contact={}", options.contact),
    ];
    match options.profile {
        Profile::HttpCore => {
            flags.push("--conformance-profiles=GATEWAY-HTTP".to_owned());
            flags.push("--supported-features=Gateway,ReferenceGrant,HTTPRoute".to_owned());
        }
        Profile::All => {
            let profiles = "GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP";
            flags.push(format!("--conformance-profiles={profiles}"));
            // The suite reads the features from the class's status by itself, except when it is to run one test:
            // then it would take none as supported and skip the test.
            if options.run_test.is_some() {
                flags.push(format!("--supported-features={}", supported_features(cluster)?));
            }
        }
    }
    if let Some(test) = &options.run_test {
        flags.push(format!("--run-test={test}"));
    }
    if let Some(report) = report(options)? {
        flags.push(format!("--report-output={}", report.display()));
    }
    flags.extend(options.flags.iter().cloned());
    Ok(flags)
}

fn supported_features(cluster: &Cluster) -> Result<String> {
    let class = cluster.get(&["gatewayclass", CLASS])?;
    let features = class["status"]["supportedFeatures"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let names: Vec<&str> = features
        .iter()
        .filter_map(|feature| feature["name"].as_str())
        .collect();
    if names.is_empty() {
        bail!("the status of GatewayClass {CLASS} claims no features");
    }
    Ok(names.join(","))
}

fn execute(cluster: &Cluster, suite: &Path, flags: &[String], options: &Options) -> Result<Outcome> {
    let log = paths::cache()?.join("conformance.log");
    let mut file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    say(format!("the suite's full output: {}", log.display()));
    let mut command = cluster.command_from(Netns::Client, &suite.to_string_lossy());
    command.args(flags).current_dir(paths::root().join("e2e"));
    say(cmd::line(&command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file.try_clone()?)
        .spawn()
        .context("cannot start the suite")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(child.stdout.take().context("no standard output")?).split(b'\n') {
        let line = line?;
        // With test2json the lines of the test framework itself start with this mark.
        let line = String::from_utf8_lossy(line.strip_prefix(b"\x16").unwrap_or(&line)).into_owned();
        writeln!(file, "{line}")?;
        let shown = outcome.read(&line);
        if options.verbose || shown {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    if !status.success() && outcome.failed.is_empty() {
        bail!(
            "the suite ended with {status} before any test; see {}",
            log.display()
        );
    }
    Ok(outcome)
}

impl Outcome {
    /// Takes one line of the suite's output in; tells whether a person wants to see it.
    fn read(&mut self, line: &str) -> bool {
        let trimmed = line.trim_start();
        let whole = ["PASS", "FAIL", "SKIP"].map(|state| format!("--- {state}: TestConformance "));
        if matches!(line, "PASS" | "FAIL") || whole.iter().any(|whole| line.starts_with(whole)) {
            self.closing.push(line.to_owned());
            return true;
        }
        for (mark, list) in [
            ("--- PASS: TestConformance/", &mut self.passed),
            ("--- FAIL: TestConformance/", &mut self.failed),
            ("--- SKIP: TestConformance/", &mut self.skipped),
        ] {
            if let Some(name) = trimmed.strip_prefix(mark) {
                let name = name.split(' ').next().unwrap_or_default();
                // A part of a test counts with its test.
                if !name.contains('/') {
                    list.push(name.to_owned());
                    return !mark.contains("SKIP");
                }
            }
        }
        trimmed.starts_with("Error:") || trimmed.starts_with("panic:")
    }

    fn verdict(&self) -> Result<()> {
        if !self.failed.is_empty() {
            bail!(
                "{} conformance tests failed: {}",
                self.failed.len(),
                self.failed.join(", ")
            );
        }
        if !self.closing.iter().any(|line| line == "PASS") {
            bail!("the conformance suite did not end with PASS");
        }
        if self.passed.is_empty() {
            bail!("no conformance test ran");
        }
        Ok(())
    }
}

fn summary(outcome: &Outcome) {
    let Outcome {
        passed,
        failed,
        skipped,
        ..
    } = outcome;
    if !skipped.is_empty() {
        say(format!("skipped: {}", skipped.join(", ")));
    }
    if !failed.is_empty() {
        say(format!("failed: {}", failed.join(", ")));
    }
    say(format!(
        "conformance: {} passed, {} failed, {} skipped",
        passed.len(),
        failed.len(),
        skipped.len()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome {
        let mut outcome = Outcome::default();
        for line in text.lines() {
            outcome.read(line);
        }
        outcome
    }

    #[test]
    fn tests_are_counted_and_their_parts_are_not() {
        let outcome = read(
            "--- PASS: TestConformance/A (1.00s)\n    --- FAIL: TestConformance/B/part (0.10s)\n\
             --- FAIL: TestConformance/B (0.10s)\n    --- SKIP: TestConformance/C (0.00s)\n\
             --- FAIL: TestConformance (9.00s)\nFAIL\n",
        );
        assert_eq!(outcome.passed, ["A"]);
        assert_eq!(outcome.failed, ["B"]);
        assert_eq!(outcome.skipped, ["C"]);
        assert_eq!(outcome.closing, ["--- FAIL: TestConformance (9.00s)", "FAIL"]);
        assert!(outcome.verdict().unwrap_err().to_string().contains('B'));
    }

    #[test]
    fn a_run_without_passes_or_without_an_end_is_no_success() {
        assert!(
            read("    --- SKIP: TestConformance/C (0.00s)\nPASS\n")
                .verdict()
                .is_err()
        );
        assert!(
            read("    --- PASS: TestConformance/A (0.00s)\n")
                .verdict()
                .is_err()
        );
        assert!(
            read("    --- PASS: TestConformance/A (0.00s)\nPASS\n")
                .verdict()
                .is_ok()
        );
    }
}
