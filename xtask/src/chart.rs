//! The helm chart: linted, and rendered for each set of values in charts/golden.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::programs::HELM;
use crate::cmd::Run;
use crate::paths;
use crate::progress::say;

/// The version that templates see; the harness's own would make the files change with it.
const KUBE_VERSION: &str = "1.36.0";

/// Lints the chart and compares what it renders with the golden files, or rewrites them.
pub fn check(update: bool) -> Result<()> {
    let helm = HELM.ensure()?;
    let root = paths::root();
    let cases = cases(&root.join("charts/golden"))?;
    let mut different = Vec::new();
    for values in &cases {
        helm_command(&helm)
            .args(["lint", "--strict", "charts/sluice", "--values"])
            .arg(values)
            .text()?;
        let rendered = helm_command(&helm)
            .args([
                "template",
                "sluice",
                "charts/sluice",
                "--namespace",
                "sluice-system",
            ])
            .args(["--kube-version", KUBE_VERSION, "--values"])
            .arg(values)
            .text()?;
        let golden = PathBuf::from(values.to_string_lossy().replace(".values.yaml", ".golden.yaml"));
        if update {
            fs::write(&golden, rendered).with_context(|| format!("cannot write {}", golden.display()))?;
        } else if let Some(line) =
            first_difference(&fs::read_to_string(&golden).unwrap_or_default(), &rendered)
        {
            different.push(format!("{} from line {line} on", golden.display()));
        }
    }
    if !different.is_empty() {
        bail!(
            "the chart renders differently: {}; `cargo xtask chart --update` rewrites",
            different.join(", ")
        );
    }
    say(format!("chart: {} sets of values", cases.len()));
    Ok(())
}

fn helm_command(helm: &Path) -> Command {
    let mut command = Command::new(helm);
    command.current_dir(paths::root());
    command
}

fn cases(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".values.yaml") {
            cases.push(path);
        }
    }
    if cases.is_empty() {
        bail!("no *.values.yaml in {}", directory.display());
    }
    cases.sort();
    Ok(cases)
}

/// The number of the first line that differs.
fn first_difference(golden: &str, rendered: &str) -> Option<usize> {
    if golden == rendered {
        return None;
    }
    let same = golden
        .lines()
        .zip(rendered.lines())
        .take_while(|(left, right)| left == right)
        .count();
    Some(same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_different_line_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
    }
}
