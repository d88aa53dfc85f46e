//! `sluice check`: what is wrong with the manifests of a folder.

use std::process::ExitCode;

use crate::{args, report, translate};

/// Prints a line for each mistake; fails if there is one.
pub(crate) fn run(args: &args::Folder) -> anyhow::Result<ExitCode> {
    let (engine, mut wrong) = translate::engine(args)?;
    let mut statuses: Vec<_> = engine.statuses().collect();
    statuses.sort_by_key(|(object, _)| *object);
    let bad = statuses.iter().filter(|(_, status)| !report::is_good(status));
    wrong.extend(bad.map(|(object, status)| report::line(object, Some(status))));
    if wrong.is_empty() {
        println!("{} objects with a status, nothing wrong", statuses.len());
        return Ok(ExitCode::SUCCESS);
    }
    for line in wrong {
        println!("{line}");
    }
    Ok(ExitCode::FAILURE)
}
