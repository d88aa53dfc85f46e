//! Shows on a real API server that Sluice's CRDs of Envoy Gateway's group admit, refuse and default what those do that Envoy
//! Gateway publishes: theirs are installed under another API group, and every object is sent to both.
//!
//! The objects come from the schemas alone; nothing is known here of any field or rule.

mod case;
mod crds;
mod differences;
mod documents;
mod hints;
mod judge;
mod repair;
mod schema;
mod server;
mod texts;
mod values;
mod walk;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::future;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use self::case::Case;
use self::differences::Differences;
use self::judge::Judge;
use self::server::Server;
use self::values::Values;
use self::walk::Walk;
use crate::paths;
use crate::progress::say;
use crate::scratch::Scratch;

/// Requests that are under way at once.
const AT_ONCE: usize = 48;
const PROGRESS: Duration = Duration::from_secs(20);

/// `cargo xtask e2e validation ...`
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// What random cases are made from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Random cases of each kind, besides those of each field
    #[arg(long, default_value_t = 1500)]
    pub cases: usize,
    /// Seconds in which cases are sent; which are left out after that is chosen at random
    #[arg(long, default_value_t = 240)]
    pub seconds: u64,
    /// Compare these kinds alone, by their plurals
    #[arg(long, value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// Take our CRDs from this directory instead of crds/yaml
    #[arg(long, value_name = "DIR")]
    pub crds: Option<PathBuf>,
    /// Write the differences to this file as well
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Compares; fails if anything differs that is not meant to.
pub fn run(options: &Options) -> Result<()> {
    let ours = options
        .crds
        .clone()
        .unwrap_or_else(|| paths::root().join("crds/yaml"));
    let mut kinds = crds::kinds(&ours)?;
    if !options.kinds.is_empty() {
        kinds.retain(|kind| options.kinds.contains(&kind.plural));
    }
    let scratch = Scratch::new()?;
    let mut server = Server::start(scratch.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let differences = runtime.block_on(async {
        let judge = Judge::new(server.connect().await?, &kinds).await?;
        compare(&judge, options).await
    })?;
    let text = differences.to_string();
    print!("{text}");
    if let Some(file) = &options.output {
        fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    say(format!(
        "{} objects are admitted with the same result, {} refused by both; {} differences",
        differences.admitted,
        differences.refused,
        differences.number()
    ));
    if differences.number() > 0 {
        bail!(
            "the CRDs differ from Envoy Gateway's in {} things",
            differences.number()
        );
    }
    Ok(())
}

async fn compare(judge: &Judge<'_>, options: &Options) -> Result<Differences> {
    let start = Instant::now();
    let differences = RefCell::new(Differences::default());
    for (name, object) in documents::all(paths::root())? {
        if let Some(kind) = judge.kinds.iter().find(|kind| kind.name == name) {
            let (theirs, ours) = judge.both(kind, &object).await?;
            differences.borrow_mut().compare(&name, &object, &theirs, &ours);
        }
    }
    let values = Values::default();
    let walks = (0..judge.kinds.len())
        .map(|number| Walk::new(judge, &values, number, options.seed).run(options.cases));
    let mut cases = Vec::new();
    for walked in future::try_join_all(walks).await? {
        cases.extend(walked.cases);
    }
    say(format!(
        "{} cases after {:.0} s",
        cases.len(),
        start.elapsed().as_secs_f64()
    ));
    cases.shuffle(&mut StdRng::seed_from_u64(options.seed));
    cases.sort_by_key(Case::can_wait);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    send(judge, &cases, end, &differences).await?;
    Ok(differences.into_inner())
}

/// Sends the cases, each object once.
async fn send(
    judge: &Judge<'_>,
    cases: &[Case],
    end: Instant,
    differences: &RefCell<Differences>,
) -> Result<()> {
    let (next, told) = (Cell::new(0), Cell::new(Instant::now()));
    let sent = RefCell::new(HashSet::new());
    let worker = || async {
        while let Some(case) = cases.get(next.replace(next.get() + 1)) {
            let object = case.object();
            if Instant::now() > end || !sent.borrow_mut().insert((case.kind, repair::digest(&object))) {
                continue;
            }
            let kind = &judge.kinds[case.kind];
            let (theirs, ours) = judge
                .both(kind, &object)
                .await
                .with_context(|| format!("{} {object:.2000}", kind.name))?;
            differences
                .borrow_mut()
                .compare(&kind.name, &object, &theirs, &ours);
            if told.get().elapsed() > PROGRESS {
                told.set(Instant::now());
                let number = differences.borrow().number();
                say(format!(
                    "{} of {} cases, {number} differences",
                    next.get(),
                    cases.len()
                ));
            }
        }
        anyhow::Ok(())
    };
    future::try_join_all((0..AT_ONCE).map(|_| worker())).await?;
    say(format!(
        "{} different objects were sent to both",
        sent.borrow().len()
    ));
    if Instant::now() > end {
        say("the time was over before the cases were");
    }
    Ok(())
}
