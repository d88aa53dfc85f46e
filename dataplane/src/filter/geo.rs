//! Where clients are: databases of MaxMind's format, and what is asked of them.
//!
//! Owns the databases' contents. A file is read when it is first named, and anew when it has changed, on a thread of
//! its own; one that cannot be read any more leaves what was read before in use. Without content nothing is known, and
//! the caller decides for the safe side.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use maxminddb::Reader;
use serde::Deserialize;
use sluice_config::v1;

/// How often a file that is asked for is looked at.
const PAUSE: Duration = Duration::from_secs(5);

/// The databases of a proxy.
#[derive(Debug, Default)]
pub struct Databases {
    city: Option<Arc<Database>>,
    country: Option<Arc<Database>>,
    asn: Option<Arc<Database>>,
    isp: Option<Arc<Database>>,
    anonymous: Option<Arc<Database>>,
}

impl Databases {
    /// Opens what the resource names; what `before` holds of it is kept.
    pub fn open(config: Option<&v1::GeoDatabases>, before: &Self) -> Self {
        let Some(config) = config else {
            return Self::default();
        };
        let all = [
            &before.city,
            &before.country,
            &before.asn,
            &before.isp,
            &before.anonymous,
        ];
        let open = |path: &str| {
            let path = Some(path).filter(|path| !path.is_empty()).map(Path::new)?;
            let mut held = all.into_iter().flatten();
            Some(match held.find(|held| held.path == path) {
                Some(held) => Arc::clone(held),
                None => Arc::new(Database::open(path)),
            })
        };
        Self {
            city: open(&config.city),
            country: open(&config.country),
            asn: open(&config.asn),
            isp: open(&config.isp),
            anonymous: open(&config.anonymous_ip),
        }
    }
}

/// One file.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    content: ArcSwapOption<Reader<Vec<u8>>>,
    looked: Mutex<Looked>,
    looking: AtomicBool,
}

#[derive(Debug)]
struct Looked {
    at: Instant,
    found: Option<Stamp>,
}

/// What differs between a file and its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Database {
    fn open(path: &Path) -> Self {
        let database = Self {
            path: path.to_owned(),
            content: ArcSwapOption::empty(),
            looked: Mutex::new(Looked {
                at: Instant::now(),
                found: None,
            }),
            looking: AtomicBool::new(false),
        };
        if database.stamp().is_none() {
            tracing::warn!(path = %database.path.display(), "database of locations not found");
        }
        database.refresh();
        database
    }

    /// Reads the file anew if it has changed.
    pub fn refresh(&self) {
        let stamp = self.stamp();
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            looked.at = Instant::now();
            if looked.found == stamp {
                return;
            }
            looked.found = stamp;
        }
        let path = self.path.display();
        match stamp.map(|_| Reader::open_readfile(&self.path)) {
            Some(Ok(reader)) => {
                tracing::info!(%path, kind = reader.metadata().database_type, "database of locations read");
                self.content.store(Some(Arc::new(reader)));
            }
            Some(Err(error)) => tracing::warn!(%path, %error, "database of locations not read"),
            None => tracing::warn!(%path, "database of locations is gone"),
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some(Stamp {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }

    /// Looks at the file if that is some time ago, without making anybody wait.
    fn look(self: &Arc<Self>) {
        let is_time = || {
            let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            looked.at.elapsed() >= PAUSE
        };
        if self.looking.load(Ordering::Relaxed) || !is_time() || self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let database = Arc::clone(self);
        let looking = std::thread::Builder::new().name("geo".into()).spawn(move || {
            database.refresh();
            database.looking.store(false, Ordering::Release);
        });
        if looking.is_err() {
            self.looking.store(false, Ordering::Release);
        }
    }

    /// What is said of an address: `None` if the database cannot be asked, `Some(None)` if it says nothing.
    #[expect(
        clippy::option_option,
        reason = "the rules tell the two apart by `?` and comparison"
    )]
    fn find<T>(self: &Arc<Self>, address: IpAddr, take: impl FnOnce(Record<'_>) -> T) -> Option<Option<T>> {
        self.look();
        let content = self.content.load_full()?;
        let found = content.lookup(address).ok()?;
        Some(found.decode::<Record<'_>>().ok()?.map(take))
    }
}

/// What the databases say, each some of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Named<'a>>,
    #[serde(borrow)]
    subdivisions: Vec<Named<'a>>,
    #[serde(borrow)]
    city: Option<Named<'a>>,
    autonomous_system_number: Option<u32>,
    isp: Option<&'a str>,
    is_anonymous: Option<bool>,
    is_anonymous_vpn: Option<bool>,
    is_hosting_provider: Option<bool>,
    is_tor_exit_node: Option<bool>,
    is_public_proxy: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    iso_code: Option<&'a str>,
    names: English<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct English<'a> {
    en: Option<&'a str>,
}

/// A place, or a kind of network.
#[derive(Debug)]
pub struct Location {
    country: Box<str>,
    region: Box<str>,
    city: Box<str>,
    asn: u32,
    isp: Box<str>,
    anonymous: Option<v1::GeoAnonymous>,
}

impl Location {
    /// Reads the resource.
    ///
    /// # Errors
    /// If it asks for nothing.
    pub fn compile(config: &v1::GeoLocation) -> Result<Self, String> {
        if *config == v1::GeoLocation::default() {
            return Err("empty".into());
        }
        Ok(Self {
            country: config.country.as_str().into(),
            region: config.region.as_str().into(),
            city: config.city.as_str().into(),
            asn: config.asn,
            isp: config.isp.as_str().into(),
            anonymous: config.anonymous,
        })
    }

    /// True if the address is there; `None` if that cannot be known.
    pub fn holds(&self, address: IpAddr, databases: &Databases) -> Option<bool> {
        let tests = [
            self.is_in_country(address, databases),
            self.is_in_city(address, databases),
            self.is_of_network(address, databases),
            self.is_anonymous(address, databases),
        ];
        // What is certainly not there need not be known in full.
        if tests.contains(&Some(false)) {
            return Some(false);
        }
        tests.into_iter().try_fold(true, |_, test| test)
    }

    fn is_in_country(&self, address: IpAddr, databases: &Databases) -> Option<bool> {
        if self.country.is_empty() {
            return Some(true);
        }
        let database = databases.country.as_ref().or(databases.city.as_ref())?;
        let found = database.find(address, |record| {
            let code = record.country.and_then(|country| country.iso_code);
            code.is_some_and(|code| code.eq_ignore_ascii_case(&self.country))
        })?;
        Some(found == Some(true))
    }

    fn is_in_city(&self, address: IpAddr, databases: &Databases) -> Option<bool> {
        if self.region.is_empty() && self.city.is_empty() {
            return Some(true);
        }
        let found = databases.city.as_ref()?.find(address, |record| {
            let region = record.subdivisions.first().and_then(|region| region.iso_code);
            let city = record.city.and_then(|city| city.names.en);
            (self.region.is_empty() || region.is_some_and(|code| code.eq_ignore_ascii_case(&self.region)))
                && (self.city.is_empty() || city == Some(&self.city))
        })?;
        Some(found == Some(true))
    }

    fn is_of_network(&self, address: IpAddr, databases: &Databases) -> Option<bool> {
        let by_number = || {
            let found = databases.asn.as_ref()?.find(address, |record| {
                record.autonomous_system_number == Some(self.asn)
            })?;
            Some(found == Some(true))
        };
        let by_provider = || {
            let found = databases
                .isp
                .as_ref()?
                .find(address, |record| record.isp == Some(&self.isp))?;
            Some(found == Some(true))
        };
        let number = if self.asn == 0 { Some(true) } else { by_number() };
        let provider = if self.isp.is_empty() {
            Some(true)
        } else {
            by_provider()
        };
        if number == Some(false) || provider == Some(false) {
            return Some(false);
        }
        Some(number? && provider?)
    }

    fn is_anonymous(&self, address: IpAddr, databases: &Databases) -> Option<bool> {
        let Some(wanted) = &self.anonymous else {
            return Some(true);
        };
        let is_so = |known: Record<'_>| {
            let pairs = [
                (wanted.is_anonymous, known.is_anonymous),
                (wanted.is_vpn, known.is_anonymous_vpn),
                (wanted.is_hosting, known.is_hosting_provider),
                (wanted.is_tor, known.is_tor_exit_node),
                (wanted.is_proxy, known.is_public_proxy),
            ];
            pairs
                .into_iter()
                .all(|(wanted, known)| wanted.is_none_or(|wanted| known.unwrap_or_default() == wanted))
        };
        let found = databases.anonymous.as_ref()?.find(address, is_so)?;
        Some(found.unwrap_or_else(|| is_so(Record::default())))
    }
}

#[cfg(test)]
mod tests;
