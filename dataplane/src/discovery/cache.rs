//! The last good configuration on disk: a log of what was applied, rewritten when more than half of it is outdated.
//!
//! A change is appended, so its cost does not grow with what is held. Every record carries its length and a
//! checksum: what a crash left half-written is cut off. The file holds key material and is its owner's only.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use prost::Message;
use sluice_config::{key, v1};

/// First bytes of the file; the number changes with the format.
const MAGIC: &[u8] = b"sluice configuration 1\n";
/// Length and checksum before each record.
const HEAD: usize = 8;
/// Outdated bytes that are tolerated in any case.
const SLACK: u64 = 1 << 20;

/// The order in which kinds are applied: what a resource names comes before it.
const ORDER: [&str; 6] = ["settings", "secret", "endpoints", "backend", "route", "listener"];

/// The open file, and where in it each resource is.
#[derive(Debug)]
pub(super) struct Cache {
    path: PathBuf,
    file: File,
    owner: String,
    /// Offset and length of each resource's latest record.
    records: HashMap<String, (u64, u64)>,
    /// Length of the file.
    size: u64,
    /// Bytes of it that are up to date.
    live: u64,
}

impl Cache {
    /// Opens the file in `dir`, or makes one, and gives what is in it in the order in which it is to be applied.
    /// A file of another owner or format is replaced.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(dir: &Path, owner: &str) -> io::Result<(Self, Vec<v1::Resource>)> {
        fs::create_dir_all(dir)?;
        let path = dir.join("config");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let Some(start) = preamble(&bytes, owner) else {
            return Ok((Self::create(path, owner)?, Vec::new()));
        };
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut cache = Self {
            path,
            file,
            owner: owner.to_owned(),
            records: HashMap::new(),
            size: start as u64,
            live: start as u64,
        };
        let resources = cache.replay(&bytes[start..]);
        if cache.size < bytes.len() as u64 {
            tracing::warn!(
                cut = bytes.len() as u64 - cache.size,
                "the end of the configuration on disk was damaged"
            );
            cache.file.set_len(cache.size)?;
        }
        cache.file.seek(SeekFrom::Start(cache.size))?;
        Ok((cache, resources))
    }

    fn create(path: PathBuf, owner: &str) -> io::Result<Self> {
        let (file, size) = begin(&path, owner)?;
        fs::rename(path.with_extension("new"), &path)?;
        Ok(Self {
            path,
            file,
            owner: owner.to_owned(),
            records: HashMap::new(),
            size,
            live: size,
        })
    }

    fn replay(&mut self, mut bytes: &[u8]) -> Vec<v1::Resource> {
        let mut resources = HashMap::new();
        while let Some((payload, rest)) = record(bytes) {
            let Ok(update) = v1::Update::decode(payload) else {
                break;
            };
            let len = (HEAD + payload.len()) as u64;
            for key in &update.removes {
                resources.remove(key);
                self.forget(key);
            }
            for resource in update.upserts {
                self.note(resource.key.clone(), self.size, len);
                resources.insert(resource.key.clone(), resource);
            }
            self.size += len;
            bytes = rest;
        }
        let mut resources: Vec<_> = resources.into_values().collect();
        let rank = |resource: &v1::Resource| ORDER.iter().position(|kind| *kind == key::kind(&resource.key));
        resources.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key)));
        resources
    }

    fn note(&mut self, key: String, at: u64, len: u64) {
        self.forget(&key);
        self.records.insert(key, (at, len));
        self.live += len;
    }

    fn forget(&mut self, key: &str) {
        if let Some((_, len)) = self.records.remove(key) {
            self.live -= len;
        }
    }

    /// Keeps what was applied of an update.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn store(&mut self, update: v1::Update, ack: &v1::Ack) -> io::Result<()> {
        let rejected: HashSet<_> = ack
            .rejected
            .iter()
            .map(|rejection| rejection.key.as_str())
            .collect();
        let mut out = Vec::new();
        let mut notes = Vec::new();
        for resource in update
            .upserts
            .into_iter()
            .filter(|r| !rejected.contains(r.key.as_str()))
        {
            let (key, at) = (resource.key.clone(), out.len() as u64);
            append(
                &mut out,
                &v1::Update {
                    upserts: vec![resource],
                    ..Default::default()
                },
            )?;
            notes.push((key, at, out.len() as u64 - at));
        }
        let removes: Vec<_> = update
            .removes
            .into_iter()
            .filter(|key| self.records.contains_key(key))
            .collect();
        if !removes.is_empty() {
            append(
                &mut out,
                &v1::Update {
                    removes: removes.clone(),
                    ..Default::default()
                },
            )?;
        }
        if out.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(&out) {
            // Half a record must not stand before the next one.
            self.file.set_len(self.size)?;
            self.file.seek(SeekFrom::Start(self.size))?;
            return Err(error);
        }
        for (key, at, len) in notes {
            self.note(key, self.size + at, len);
        }
        for key in &removes {
            self.forget(key);
        }
        self.size += out.len() as u64;
        if self.size > 2 * self.live + SLACK {
            self.compact()
        } else {
            Ok(())
        }
    }

    /// Writes a new file with the latest record of each resource and puts it in the old one's place.
    fn compact(&mut self) -> io::Result<()> {
        let (mut file, mut size) = begin(&self.path, &self.owner)?;
        let mut places: Vec<_> = self
            .records
            .iter()
            .map(|(key, place)| (*place, key.clone()))
            .collect();
        places.sort_unstable();
        let mut records = HashMap::with_capacity(places.len());
        let mut out = io::BufWriter::new(&mut file);
        let mut bytes = Vec::new();
        for ((at, len), key) in places {
            self.file.seek(SeekFrom::Start(at))?;
            bytes.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
            self.file.read_exact(&mut bytes)?;
            out.write_all(&bytes)?;
            records.insert(key, (size, len));
            size += len;
        }
        out.flush()?;
        drop(out);
        file.sync_data()?;
        fs::rename(self.path.with_extension("new"), &self.path)?;
        (self.file, self.records, self.size, self.live) = (file, records, size, size);
        Ok(())
    }
}

/// Makes a new file beside `path` with everything that stands before the records; gives its length too.
fn begin(path: &Path, owner: &str) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    // One that a crash left may have had other permissions.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let head = head(owner);
    file.write_all(&head)?;
    Ok((file, head.len() as u64))
}

/// What stands before the records: the format and whose configuration it is.
fn head(owner: &str) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(owner.as_bytes());
    head.push(b'\n');
    head
}

/// Length of what stands before the records, if it is what it should be.
fn preamble(bytes: &[u8], owner: &str) -> Option<usize> {
    let head = head(owner);
    bytes.starts_with(&head).then_some(head.len())
}

fn append(out: &mut Vec<u8>, update: &v1::Update) -> io::Result<()> {
    let payload = update.encode_to_vec();
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(())
}

/// The first record's payload and what follows it; `None` if there is no whole one.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let (payload, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    (!payload.is_empty() && crc32fast::hash(payload) == u32::from_le_bytes(*checksum))
        .then_some((payload, rest))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn resource(key: &str, version: &str) -> v1::Resource {
        let body = v1::resource::Body::Secret(v1::Secret {
            body: Some(v1::secret::Body::TrustBundle(vec![7; 100])),
        });
        v1::Resource {
            key: key.into(),
            version: version.into(),
            body: Some(body),
        }
    }

    fn upsert(cache: &mut Cache, resources: &[(&str, &str)]) {
        let upserts = resources
            .iter()
            .map(|(key, version)| resource(key, version))
            .collect();
        cache
            .store(
                v1::Update {
                    upserts,
                    ..Default::default()
                },
                &v1::Ack::default(),
            )
            .unwrap();
    }

    fn held(dir: &Path) -> Vec<(String, String)> {
        Cache::open(dir, "a/b")
            .unwrap()
            .1
            .into_iter()
            .map(|r| (r.key, r.version))
            .collect()
    }

    fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
        wanted
            .iter()
            .map(|(key, version)| ((*key).to_owned(), (*version).to_owned()))
            .collect()
    }

    #[test]
    fn what_was_applied_comes_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (mut cache, empty) = Cache::open(dir.path(), "a/b").unwrap();
        assert!(empty.is_empty());
        upsert(
            &mut cache,
            &[
                ("listener/l", "1"),
                ("route/r", "1"),
                ("secret/s", "1"),
                ("settings", "1"),
            ],
        );
        upsert(
            &mut cache,
            &[("route/r", "2"), ("backend/b", "1"), ("endpoints/e", "1")],
        );
        let update = v1::Update {
            upserts: vec![resource("route/bad", "1"), resource("backend/b", "bad")],
            removes: vec!["secret/s".into(), "route/unknown".into()],
            ..Default::default()
        };
        let reject = |key: &str| v1::Rejection {
            key: key.into(),
            ..Default::default()
        };
        let ack = v1::Ack {
            nonce: 1,
            rejected: vec![reject("route/bad"), reject("backend/b")],
        };
        cache.store(update, &ack).unwrap();
        let wanted = [
            ("settings", "1"),
            ("endpoints/e", "1"),
            ("backend/b", "1"),
            ("route/r", "2"),
            ("listener/l", "1"),
        ];
        assert_eq!(held(dir.path()), pairs(&wanted));
        let mode = fs::metadata(dir.path().join("config"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn another_owner_gets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        upsert(
            &mut Cache::open(dir.path(), "a/b").unwrap().0,
            &[("settings", "1")],
        );
        assert!(Cache::open(dir.path(), "a/bc").unwrap().1.is_empty());
        assert!(held(dir.path()).is_empty());
    }

    #[test]
    fn damage_costs_only_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        upsert(
            &mut Cache::open(dir.path(), "a/b").unwrap().0,
            &[("settings", "1")],
        );
        let good = fs::read(&path).unwrap();
        upsert(
            &mut Cache::open(dir.path(), "a/b").unwrap().0,
            &[("secret/s", "1")],
        );
        let whole = fs::read(&path).unwrap();
        for cut in good.len() + 1..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(held(dir.path()), pairs(&[("settings", "1")]));
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, flipped).unwrap();
        let (mut cache, resources) = Cache::open(dir.path(), "a/b").unwrap();
        assert_eq!(resources.len(), 1);
        upsert(&mut cache, &[("secret/t", "1")]);
        assert_eq!(held(dir.path()), pairs(&[("settings", "1"), ("secret/t", "1")]));
    }

    #[test]
    fn a_change_costs_little_and_the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let (mut cache, _) = Cache::open(dir.path(), "a/b").unwrap();
        let keys: Vec<_> = (0..5000).map(|i| format!("secret/{i}")).collect();
        upsert(
            &mut cache,
            &keys.iter().map(|key| (key.as_str(), "1")).collect::<Vec<_>>(),
        );
        let full = fs::metadata(&path).unwrap().len();
        upsert(&mut cache, &[("secret/7", "2")]);
        assert!(fs::metadata(&path).unwrap().len() - full < 300);
        for round in 0..20 {
            upsert(
                &mut cache,
                &keys.iter().map(|key| (key.as_str(), "3")).collect::<Vec<_>>(),
            );
            upsert(&mut cache, &[("secret/8", &round.to_string())]);
            assert!(fs::metadata(&path).unwrap().len() <= 3 * full + SLACK);
        }
        let held = held(dir.path());
        assert_eq!(held.len(), 5000);
        assert_eq!(held.iter().find(|(key, _)| key == "secret/8").unwrap().1, "19");
        assert!(!dir.path().join("config.new").exists());
    }
}
