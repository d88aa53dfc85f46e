//! The commands of docs/migrate-from-envoy-gateway.md, run as they stand there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::build::go::ignore_missing;
use crate::cluster::{self, Cluster};
use crate::cmd::Run;
use crate::paths;
use crate::progress::say;

const DOCUMENT: &str = "docs/migrate-from-envoy-gateway.md";

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A script for the shell.
    Run(String),
    /// What a comment between commands asks for.
    ByHand(String),
}

/// The document's steps, under their headings.
pub struct Guide(Vec<(String, Vec<Step>)>);

/// A folder as its reader has it: the chart where the document looks for it, and the program `sluice`.
pub fn desk(cluster: &Cluster, directory: &Path) -> Result<()> {
    fs::remove_dir_all(directory).or_else(ignore_missing)?;
    fs::create_dir_all(directory.join("bin"))?;
    symlink(paths::root().join("charts"), directory.join("charts"))?;
    cluster::copy_program(cluster, &directory.join("bin/sluice"))
}

impl Guide {
    /// Reads the document.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string(paths::root().join(DOCUMENT))
            .with_context(|| format!("cannot read {DOCUMENT}"))?;
        Ok(Self(parse(&text)))
    }

    /// Does what stands under the heading that begins so, in a folder; `by_hand` does what no command does.
    pub fn follow(
        &self,
        cluster: &Cluster,
        directory: &Path,
        heading: &str,
        mut by_hand: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let (title, steps) = self
            .0
            .iter()
            .find(|(title, _)| title.starts_with(heading))
            .with_context(|| format!("{DOCUMENT} has no heading {heading:?}"))?;
        ensure!(!steps.is_empty(), "there is nothing to do under {title:?}");
        say(format!("{DOCUMENT}: {title}"));
        for step in steps {
            match step {
                Step::Run(script) => run(cluster, directory, script),
                Step::ByHand(what) => by_hand(what),
            }
            .with_context(|| format!("{DOCUMENT}, {title}"))?;
        }
        Ok(())
    }
}

fn run(cluster: &Cluster, directory: &Path, script: &str) -> Result<()> {
    let script = script.replace("REGISTRY/sluice", crate::build::sluice::REPOSITORY);
    say(script.trim_end());
    let mut shell = cluster.command("sh");
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        shell.env(name, directory.join("helm"));
    }
    let printed = shell
        .current_dir(directory)
        .args(["-euc", &format!("PATH=\"$PWD/bin:$PATH\"\n{script}")])
        .text()?;
    print!("{printed}");
    Ok(())
}

/// Takes the blocks marked as `console` apart.
fn parse(text: &str) -> Vec<(String, Vec<Step>)> {
    let mut sections: Vec<(String, Vec<Step>)> = Vec::new();
    let (mut inside, mut script) = (false, String::new());
    for line in text.lines() {
        let Some((_, steps)) = sections.last_mut().filter(|_| inside || line.starts_with("```")) else {
            if let Some(title) = line.strip_prefix("## ") {
                sections.push((title.to_owned(), Vec::new()));
            }
            continue;
        };
        let comment = line.strip_prefix("# ");
        if line.starts_with("```") || comment.is_some() {
            if !script.is_empty() {
                steps.push(Step::Run(std::mem::take(&mut script)));
            }
            steps.extend(comment.map(|what| Step::ByHand(what.to_owned())));
            inside = comment.is_some() || line == "```console";
        } else {
            script.push_str(line);
            script.push('\n');
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stand_under_their_headings() {
        let text = "```console\nbefore\n```\n## 1. One\ntext\n```console\na \\\n  b\n# Do it.\nc\n```\n```yaml\nno: 1\n```\n\
                    ## 2. Two\n```console\nd\n```\n";
        let run = |script: &str| Step::Run(script.to_owned());
        let one = vec![run("a \\\n  b\n"), Step::ByHand("Do it.".to_owned()), run("c\n")];
        assert_eq!(
            parse(text),
            [
                ("1. One".to_owned(), one),
                ("2. Two".to_owned(), vec![run("d\n")])
            ]
        );
    }

    #[test]
    fn the_document_has_what_the_checks_follow() {
        let guide = Guide::read().unwrap();
        for heading in [
            "1.",
            "2.",
            "3.",
            "4.",
            "6.",
            "Back",
            "In place",
            "Back, in place",
            "The old proxies",
        ] {
            let found = guide.0.iter().find(|(title, _)| title.starts_with(heading));
            assert!(found.is_some_and(|(_, steps)| !steps.is_empty()), "{heading}");
        }
    }
}
