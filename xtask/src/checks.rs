//! Checks of a run: each has a name, by which it is chosen on the command line, and they run one after another. What they
//! are about is not known here.

use anyhow::{Result, bail};
use clap::Args;

use crate::progress::say;

/// One check. It may wait for what it expects, and leaves behind what the others count on.
pub struct Check<W> {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does with what it is given.
    pub run: fn(&W) -> Result<()>,
}

/// Which checks are wanted.
#[derive(Clone, Debug, Default, Args)]
pub struct Chosen {
    /// Run these checks alone
    #[arg(value_name = "CHECK")]
    names: Vec<String>,
    /// Print the names of all checks
    #[arg(long)]
    list: bool,
}

impl Chosen {
    /// Those that are wanted, in their own order; `None` if their names were asked for, which are printed then.
    pub fn of<W>(
        &self,
        all: impl IntoIterator<Item = &'static Check<W>>,
    ) -> Result<Option<Vec<&'static Check<W>>>> {
        let mut all: Vec<_> = all.into_iter().collect();
        if self.list {
            for check in all {
                println!("{}", check.name);
            }
            return Ok(None);
        }
        let unknown = |name: &&String| !all.iter().any(|check| check.name == **name);
        if let Some(name) = self.names.iter().find(unknown) {
            bail!("there is no check {name}; --list tells the names");
        }
        if !self.names.is_empty() {
            all.retain(|check| self.names.iter().any(|name| name == check.name));
        }
        Ok(Some(all))
    }
}

/// Runs each check by way of `one`; those that fail are told together at the end.
pub fn run<W>(checks: &[&Check<W>], mut one: impl FnMut(&Check<W>) -> Result<()>) -> Result<()> {
    let mut failed = Vec::new();
    for check in checks {
        say(check.name);
        match one(check) {
            Ok(()) => println!("ok      {}", check.name),
            Err(error) => {
                println!("FAILED  {}: {error:#}", check.name);
                failed.push(check.name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Check<u8>; 3] = [
        Check {
            name: "one",
            run: |_| Ok(()),
        },
        Check {
            name: "two",
            run: |_| bail!("no"),
        },
        Check {
            name: "three",
            run: |_| bail!("no"),
        },
    ];

    fn chosen(names: &[&str]) -> Result<Vec<&'static str>> {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let found = Chosen { names, list: false }.of(&ALL)?.unwrap();
        Ok(found.iter().map(|check| check.name).collect())
    }

    #[test]
    fn checks_are_chosen_by_name() {
        assert_eq!(chosen(&[]).unwrap(), ["one", "two", "three"]);
        assert_eq!(chosen(&["three", "one"]).unwrap(), ["one", "three"]);
        let error = chosen(&["four"]).unwrap_err().to_string();
        assert!(error.contains("four"), "{error}");
    }

    #[test]
    fn a_check_that_fails_stops_none_of_the_others() {
        let mut ran = 0;
        let all: Vec<_> = ALL.iter().collect();
        let error = run(&all, |check| {
            ran += 1;
            (check.run)(&0)
        });
        assert_eq!(ran, 3);
        assert_eq!(error.unwrap_err().to_string(), "failed: two, three");
        run(&all[..1], |check| (check.run)(&0)).unwrap();
    }
}
