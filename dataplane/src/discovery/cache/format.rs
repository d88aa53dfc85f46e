//! What the file looks like: whose configuration it is, then records, each with its length and a checksum.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use prost::Message;
use sluice_config::v1;

/// First bytes of the file; the number changes with the format.
const MAGIC: &[u8] = b"sluice configuration 1\n";
/// Length and checksum before each record.
pub(super) const HEAD: usize = 8;

/// Makes a new file beside `path` with everything that stands before the records; gives its length too.
pub(super) fn begin(path: &Path, owner: &str) -> io::Result<(File, u64)> {
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
pub(super) fn preamble(bytes: &[u8], owner: &str) -> Option<usize> {
    let head = head(owner);
    bytes.starts_with(&head).then_some(head.len())
}

pub(super) fn append(out: &mut Vec<u8>, update: &v1::Update) -> io::Result<()> {
    let payload = update.encode_to_vec();
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(())
}

/// The first record's payload and what follows it; `None` if there is no whole one.
pub(super) fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let (payload, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    (!payload.is_empty() && crc32fast::hash(payload) == u32::from_le_bytes(*checksum))
        .then_some((payload, rest))
}
