//! A browser that is played by curl: it keeps cookies and fills in the forms of the OpenID provider that the checks use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::curl::{self, Answer};

/// A client that keeps cookies.
pub struct Browser<'a> {
    jar: PathBuf,
    user: &'static str,
    curl: &'a dyn Fn() -> Command,
}

impl<'a> Browser<'a> {
    /// One that `user` sits at, with a jar of cookies in `directory`; `curl` gives a command that runs curl.
    pub fn new(directory: &Path, user: &'static str, curl: &'a dyn Fn() -> Command) -> Result<Self> {
        let jar = directory.join(format!("{user}.jar"));
        fs::remove_file(&jar).or_else(crate::build::go::ignore_missing)?;
        Ok(Self { jar, user, curl })
    }

    /// The jar's content.
    pub fn jar(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.jar)?)
    }

    /// Puts another content into the jar.
    pub fn set_jar(&self, jar: &str) -> Result<()> {
        Ok(fs::write(&self.jar, jar)?)
    }

    /// Asks for one page.
    pub fn get(&self, url: &str) -> Result<Answer> {
        self.ask(url, &[])
    }

    fn ask(&self, url: &str, arguments: &[&str]) -> Result<Answer> {
        let jar = self.jar.to_str().context("odd path")?;
        let all = [&["--cookie", jar, "--cookie-jar", jar], arguments].concat();
        let answer = curl::ask(&mut (self.curl)(), url, &all)?;
        // Of several cookies that one response takes away, curl 7.88 reads all but the last from its jar again.
        let gone: Vec<_> = answer
            .headers("set-cookie")
            .filter(|cookie| cookie.contains("Max-Age=0;"))
            .filter_map(|cookie| Some(format!("\t{}\t", cookie.split_once('=')?.0)))
            .collect();
        if !gone.is_empty() {
            let kept = self.jar()?;
            let kept = kept
                .lines()
                .filter(|line| !gone.iter().any(|name| line.contains(name)));
            self.set_jar(&format!("{}\n", kept.collect::<Vec<_>>().join("\n")))?;
        }
        Ok(answer)
    }

    /// Goes where it is sent, and fills in the provider's forms, until there is something else to see.
    pub fn log_in(&self, url: &str) -> Result<Answer> {
        let mut url = url.to_owned();
        let mut answer = self.get(&url)?;
        for _ in 0..20 {
            if let Some(next) = answer.header("location") {
                url = resolved(&url, next);
                answer = self.get(&url)?;
            } else if url.contains("/interaction/") {
                let login = format!("prompt=login&login={}&password=any", self.user);
                let form = if answer.body.contains("value=\"login\"") {
                    &login
                } else {
                    "prompt=consent"
                };
                answer = self.ask(&url, &["--data", form])?;
            } else {
                return Ok(answer);
            }
        }
        bail!("the login does not end; it is at {url}")
    }
}

/// Where a response sends its reader, who has asked for `url`.
fn resolved(url: &str, location: &str) -> String {
    let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    match location.strip_prefix('/') {
        Some(path) => format!("{origin}/{path}"),
        None => location.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_without_a_host_stays_with_the_page() {
        let page = "https://a.test:8443/one/two?x=/y";
        assert_eq!(resolved(page, "/three"), "https://a.test:8443/three");
        assert_eq!(resolved(page, "http://b.test/"), "http://b.test/");
    }
}
