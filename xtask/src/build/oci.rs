//! Writes a container image as an OCI archive (OCI Image Format 1.1): one layer, one manifest, no registry, no daemon.
//!
//! The archive is reproducible: the same files give the same bytes, so every time stamp is 0 and every owner is root.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::go::hex;

/// An image with one layer of plain files.
#[derive(Debug)]
pub struct Image<'a> {
    /// The name under which the archive is known, `sluice:0.1.0` or `registry.example/name:tag`.
    pub names: &'a [&'a str],
    /// What the container starts.
    pub entrypoint: &'a [&'a str],
    /// `uid[:gid]`.
    pub user: &'a str,
    /// Files: where they are, where they go (without the leading slash), and whether they are executable.
    pub files: &'a [(PathBuf, &'a str, bool)],
    /// Labels, as org.opencontainers.image.*.
    pub labels: &'a [(&'a str, &'a str)],
}

impl Image<'_> {
    /// Writes the archive and returns its size in bytes.
    pub fn write(&self, archive: &Path) -> Result<u64> {
        let layer = self.layer()?;
        let packed = gzip(&layer)?;
        let config = serde_json::to_vec(&self.config(&digest(&layer)))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
        }))?;
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.names.iter().map(|name| named(name, &manifest)).collect::<Vec<_>>(),
        }))?;

        let partial = archive.with_extension(format!("partial-{}", std::process::id()));
        let file = File::create(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        let mut tar = Builder::new(file);
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        for directory in ["blobs/", "blobs/sha256/"] {
            tar.append(
                &header(EntryType::Directory, directory, 0, 0o755)?,
                std::io::empty(),
            )?;
        }
        for blob in [&config, &packed, &manifest] {
            append(
                &mut tar,
                &format!("blobs/sha256/{}", hex(&Sha256::digest(blob))),
                blob,
                0o644,
            )?;
        }
        append(&mut tar, "index.json", &index, 0o644)?;
        append(&mut tar, "oci-layout", layout, 0o644)?;
        tar.into_inner()?.sync_all()?;
        fs::rename(&partial, archive).with_context(|| format!("cannot create {}", archive.display()))?;
        Ok(fs::metadata(archive)?.len())
    }

    /// The layer's plain tar: /tmp for all, then the files with the directories above them.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        tar.append(
            &header(EntryType::Directory, "tmp/", 0, 0o1777)?,
            std::io::empty(),
        )?;
        let mut made: Vec<String> = vec!["tmp/".to_owned()];
        for (source, target, executable) in self.files {
            for (position, _) in target.match_indices('/') {
                let directory = target[..=position].to_owned();
                if !made.contains(&directory) {
                    tar.append(
                        &header(EntryType::Directory, &directory, 0, 0o755)?,
                        std::io::empty(),
                    )?;
                    made.push(directory);
                }
            }
            let content = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
            append(
                &mut tar,
                target,
                &content,
                if *executable { 0o755 } else { 0o644 },
            )?;
        }
        Ok(tar.into_inner()?)
    }

    fn config(&self, diff_id: &str) -> Value {
        let labels: serde_json::Map<String, Value> = self
            .labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user,
                "Env": ["PATH=/"],
                "WorkingDir": "/",
                "Labels": labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask" }],
        })
    }
}

/// The manifest under one name. containerd takes `io.containerd.image.name` as it stands; others read the OCI one.
fn named(name: &str, manifest: &[u8]) -> Value {
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest);
    entry["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": name,
        "io.containerd.image.name": qualified(name),
    });
    entry
}

/// A short name in the full form under which a container runtime looks for it.
pub fn qualified(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((host, _)) if host.contains('.') || host.contains(':') || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(blob)))
}

fn gzip(data: &[u8]) -> Result<Vec<u8>> {
    // No name, no time, a fixed operating system: the header is part of the digest.
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::default());
    encoder.write_all(data)?;
    Ok(encoder.finish()?)
}

fn header(kind: EntryType, path: &str, size: u64, mode: u32) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header
        .set_path(path)
        .with_context(|| format!("{path} does not fit a tar header"))?;
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

fn append<W: Write>(tar: &mut Builder<W>, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let header = header(EntryType::Regular, path, content.len() as u64, mode)?;
    tar.append(&header, content)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn write(directory: &Path, name: &str) -> Vec<u8> {
        let source = directory.join("program");
        fs::write(&source, b"#!/bin/sh\n").unwrap();
        let archive = directory.join(name);
        let files = [(source, "bin/program", true)];
        let image = Image {
            names: &["sluice:1"],
            entrypoint: &["/bin/program"],
            user: "65532:65532",
            files: &files,
            labels: &[],
        };
        image.write(&archive).unwrap();
        fs::read(archive).unwrap()
    }

    fn entry(archive: &[u8], path: &str) -> Vec<u8> {
        let mut reader = tar::Archive::new(archive);
        let mut entry = reader
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|e| e.path().unwrap() == Path::new(path))
            .unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(write(directory.path(), "a.tar"), write(directory.path(), "b.tar"));
    }

    #[test]
    fn digests_lead_from_the_index_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let archive = write(directory.path(), "image.tar");
        let index: Value = serde_json::from_slice(&entry(&archive, "index.json")).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            let content = entry(&archive, &format!("blobs/{digest}"));
            assert_eq!(descriptor["size"], content.len());
            content
        };
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "docker.io/library/sluice:1"
        );
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(&blob(&manifest["layers"][0])[..])
            .read_to_end(&mut layer)
            .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        assert_eq!(entry(&layer, "bin/program"), b"#!/bin/sh\n");
    }

    #[test]
    fn short_names_are_docker_hub_names() {
        assert_eq!(qualified("sluice:1"), "docker.io/library/sluice:1");
        assert_eq!(qualified("team/sluice:1"), "docker.io/team/sluice:1");
        assert_eq!(
            qualified("registry.k8s.io/pause:3.10"),
            "registry.k8s.io/pause:3.10"
        );
    }
}
