//! The last good configuration on disk: a log of what was applied, rewritten when more than half of it is outdated.
//!
//! A change is appended, so its cost does not grow with what is held. Every record carries its length and a
//! checksum: what a crash left half-written is cut off. The file holds key material and is its owner's only.

mod format;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use sluice_config::{key, v1};

use format::{HEAD, append, begin, preamble, record};

/// Outdated bytes that are tolerated in any case.
const SLACK: u64 = 1 << 20;

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
        resources.sort_by(|a, b| (key::rank(&a.key), &a.key).cmp(&(key::rank(&b.key), &b.key)));
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

#[cfg(test)]
mod tests;
