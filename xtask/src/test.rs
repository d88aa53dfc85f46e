//! `cargo xtask test`: every check of the project, one after another. A failed step does not stop the next ones, so
//! that one run tells everything.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, ValueEnum};

use crate::build::sluice;
use crate::checks::Chosen;
use crate::cluster::Target;
use crate::cmd::{self, Run};
use crate::e2e::install::ImageOptions;
use crate::e2e::{self, Test};
use crate::progress::say;
use crate::{chart, conformance, integration, paths};

/// One step, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// cargo fmt --check
    Fmt,
    /// cargo clippy, all warnings denied
    Clippy,
    /// cargo deny: licenses, sources, duplicates, advisories
    Deny,
    /// cargo test
    Unit,
    /// The proxy beside real servers from packages
    Integration,
    /// helm lint and helm template against charts/golden
    Chart,
    /// The release image: static, small
    Image,
    /// One request through a real cluster, hop by hop
    Walk,
    /// Bad input and restarts on a real cluster
    Resilience,
    /// Features of Gateway API that its conformance suite has no test for
    Features,
    /// Envoy Gateway's kinds, as its guides use them, on a real cluster
    Policies,
    /// The migration guide, away from the real Envoy Gateway, on a real cluster
    Migrate,
    /// The CRDs beside those of Envoy Gateway, on a real API server
    Validation,
    /// The whole Gateway API conformance suite: five profiles, every feature
    Conformance,
}

/// `cargo xtask test ...`
#[derive(Debug, Args)]
pub struct Options {
    /// Run these steps alone
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Step>,
    /// Leave these steps out
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "only")]
    pub skip: Vec<Step>,
}

/// What became of a step.
struct Done {
    step: Step,
    time: Duration,
    error: Option<String>,
}

/// Runs the steps and prints the summary, whose last line counts them; tells whether all passed.
pub fn run(options: &Options) -> Result<bool> {
    let chosen = |step: &&Step| {
        if options.only.is_empty() {
            !options.skip.contains(step)
        } else {
            options.only.contains(step)
        }
    };
    let mut closing = Vec::new();
    let mut done: Vec<Done> = Vec::new();
    for step in Step::value_variants().iter().filter(chosen) {
        say(format!("===== {} =====", name(*step)));
        let start = Instant::now();
        let result = match blocker(*step, &done) {
            Some(earlier) => Err(anyhow::anyhow!("not run, because {} failed", name(earlier))),
            None => step.run(&done, &mut closing),
        };
        let error = result.err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            say(format!("{}: {error}", name(*step)));
        }
        done.push(Done {
            step: *step,
            time: start.elapsed(),
            error,
        });
    }
    if done.is_empty() {
        bail!("no step was chosen");
    }
    Ok(summary(&done, &closing))
}

/// A failed step without which this one makes no sense.
fn blocker(step: Step, done: &[Done]) -> Option<Step> {
    done.iter()
        .find(|done| step.needs_cluster() && done.step == Step::Image && done.error.is_some())
        .map(|done| done.step)
}

fn summary(done: &[Done], closing: &[String]) -> bool {
    println!();
    for line in closing {
        println!("{line}");
    }
    println!();
    for Done { step, time, error } in done {
        let state = if error.is_none() { "ok" } else { "FAILED" };
        println!("{:<12} {state:<7} {:>7.1} s", name(*step), time.as_secs_f64());
        if let Some(error) = error {
            println!("    {}", cmd::tail(error, 600).replace('\n', "\n    "));
        }
    }
    let failed = done.iter().filter(|done| done.error.is_some()).count();
    println!("{} passed, {failed} failed", done.len() - failed);
    failed == 0
}

fn name(step: Step) -> String {
    step.to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

impl Step {
    fn needs_cluster(self) -> bool {
        matches!(
            self,
            Self::Walk
                | Self::Resilience
                | Self::Features
                | Self::Policies
                | Self::Migrate
                | Self::Conformance
        )
    }

    fn run(self, done: &[Done], closing: &mut Vec<String>) -> Result<()> {
        match self {
            Self::Fmt => cargo(&["fmt", "--all", "--check"]).run(),
            Self::Clippy => cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "--deny",
                "warnings",
            ])
            .run(),
            Self::Deny => deny(),
            Self::Unit => unit(closing),
            Self::Integration => integration(),
            Self::Chart => chart::check(false),
            Self::Image => sluice::image("release", None).map(drop),
            Self::Walk => e2e::run(&Test::Walk(cluster_options(done)), &NO_TARGET),
            Self::Resilience => e2e::run(&Test::Resilience(cluster_options(done)), &NO_TARGET),
            Self::Features => e2e::run(&Test::Features(every_check(done)), &NO_TARGET),
            Self::Policies => e2e::run(&Test::Policies(every_check(done)), &NO_TARGET),
            Self::Migrate => e2e::run(&Test::Migrate(every_check(done)), &NO_TARGET),
            Self::Validation => validation(),
            Self::Conformance => conformance_suite(done, closing),
        }
    }
}

const NO_TARGET: Target = Target { kubeconfig: None };

/// The first cluster step makes a fresh cluster and loads the image; later ones reuse both.
fn cluster_options(done: &[Done]) -> e2e::Options {
    let first = !done
        .iter()
        .any(|done| done.step.needs_cluster() && done.error.is_none());
    let image = ImageOptions {
        cargo_profile: "release".to_owned(),
        archive: None,
        no_image: !first,
    };
    e2e::Options { reuse: !first, image }
}

fn every_check(done: &[Done]) -> e2e::Selection {
    e2e::Selection {
        options: cluster_options(done),
        chosen: Chosen::default(),
    }
}

fn conformance_suite(done: &[Done], closing: &mut Vec<String>) -> Result<()> {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        options: conformance::Options,
    }
    let mut options = Defaults::try_parse_from(["conformance", "--install"])?.options;
    options.image = cluster_options(done).image;
    let outcome = conformance::run(&options, &NO_TARGET);
    if let Ok(outcome) = &outcome {
        closing.extend(outcome.closing.iter().cloned());
    }
    outcome.map(drop)
}

fn integration() -> Result<()> {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        options: integration::Options,
    }
    integration::run(&Defaults::try_parse_from(["integration"])?.options)
}

fn validation() -> Result<()> {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        options: e2e::validation::Options,
    }
    let options = Defaults::try_parse_from(["validation"])?.options;
    e2e::run(&Test::Validation(options), &NO_TARGET)
}

/// `cargo test`, shown as it runs; its result lines are kept for the end.
fn unit(closing: &mut Vec<String>) -> Result<()> {
    let mut command = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    for line in BufReader::new(child.stdout.take().context("no standard output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        // Crates without tests of a kind say nothing worth repeating.
        if line.starts_with("test result: ") && !line.contains(" 0 passed; 0 failed; 0 ignored;") {
            closing.push(line);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test failed ({status})");
    }
    Ok(())
}

/// The advisories' database lives on a server that may be out of reach; everything else is checked from the lock file.
fn deny() -> Result<()> {
    let program = cargo_deny()?;
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(paths::root()).args(arguments);
        command
    };
    deny(&["--locked", "check", "bans", "licenses", "sources"]).run()?;
    if deny(&["fetch", "db"]).succeeds() {
        deny(&["--locked", "check", "--disable-fetch", "advisories"]).run()
    } else {
        say("deny: the advisory database is out of reach; advisories were NOT checked");
        Ok(())
    }
}

fn cargo_deny() -> Result<PathBuf> {
    let root = paths::cache()?.join("cargo");
    let program = root.join("bin/cargo-deny");
    if !program.exists() {
        crate::progress::long("cargo install cargo-deny", || {
            let target = root.join("target");
            let mut install = cargo(&["install", "--locked", "--quiet", "cargo-deny", "--root"]);
            install.arg(&root).env("CARGO_TARGET_DIR", &target).run()?;
            std::fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))
        })?;
    }
    Ok(program)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = cmd::cargo();
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(step: Step, error: Option<&str>) -> Done {
        Done {
            step,
            time: Duration::ZERO,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn the_cluster_steps_need_the_image_and_nothing_else() {
        let failed = [done(Step::Unit, Some("no")), done(Step::Image, Some("no"))];
        assert_eq!(blocker(Step::Walk, &failed), Some(Step::Image));
        assert_eq!(blocker(Step::Chart, &failed), None);
        assert_eq!(blocker(Step::Walk, &[done(Step::Image, None)]), None);
    }

    #[test]
    fn the_first_cluster_step_starts_afresh_and_the_next_reuses() {
        let first = cluster_options(&[done(Step::Image, None), done(Step::Walk, Some("no"))]);
        assert!(!first.reuse && !first.image.no_image);
        let next = cluster_options(&[done(Step::Walk, None)]);
        assert!(next.reuse && next.image.no_image);
    }

    #[test]
    fn one_failed_step_fails_the_run() {
        assert!(summary(&[done(Step::Fmt, None)], &[]));
        assert!(!summary(
            &[done(Step::Fmt, None), done(Step::Unit, Some("no"))],
            &[]
        ));
    }
}
