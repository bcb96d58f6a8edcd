// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a disk is written through the system's memory or past it, measured once and remembered.
//!
//! Which is faster depends on disk, file system and kernel, and differs by factors either way. The
//! figures are kept in the directory itself, in `io.json`; without the file it is measured again.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Disk, RealDisk};

/// Where the outcome is kept.
const FILE: &str = "io.json";
/// What is written to find out; removed at once.
const SCRATCH: &str = "io.probe";
/// A write as a busy store makes them, each with its sync.
const WRITE_BYTES: usize = 8 << 20;
/// Writes of one round.
const WRITES: u64 = 4;
/// Rounds of each way, by turns; the median counts.
const ROUNDS: usize = 3;
/// A slow disk tells enough in its first rounds.
const PATIENCE: Duration = Duration::from_secs(5);

/// How segments are written. Apart from durability: each mode syncs in either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Io {
    /// Through the page cache.
    Buffered,
    /// Past it (`O_DIRECT`); refused where the file system cannot.
    Direct,
    /// Whichever was faster when it was measured, at the first start on this disk.
    #[default]
    Auto,
}

/// What was measured, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoChoice {
    /// `buffered` or `direct`.
    pub io: Io,
    /// Bytes per second, written and synced through the page cache.
    pub buffered_bytes_per_sec: u64,
    /// The same past it; 0 where the file system cannot.
    pub direct_bytes_per_sec: u64,
}

impl IoChoice {
    /// What a directory remembers, if it does.
    pub fn remembered(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(FILE)).ok()?;
        serde_json::from_str(&text).ok().filter(|choice: &Self| choice.io != Io::Auto)
    }
}

/// The disk in `directory`, written as the setting says.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the setting insists on what the file system cannot do.
pub(crate) fn open(directory: &Path, io: Io) -> io::Result<RealDisk> {
    let direct = RealDisk::direct(directory);
    let io = match io {
        Io::Auto => choose(directory),
        Io::Direct => refusal(&direct).map_or(Ok(Io::Direct), Err)?,
        Io::Buffered => Io::Buffered,
    };
    Ok(if io == Io::Direct { direct } else { RealDisk::new(directory) })
}

/// Why a file system cannot be written past the page cache. A full or failing disk is no reason:
/// what it can take is for the writer to find out.
fn refusal(direct: &RealDisk) -> Option<io::Error> {
    let error = rate(direct, &[0; 1], 1).err()?;
    let cannot = matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported);
    cannot.then(|| io::Error::new(io::ErrorKind::Unsupported, format!("O_DIRECT: {error}")))
}

/// What is known of this directory, or is found out now. A disk that cannot be measured, for it is
/// full or failing, is written through the page cache until the next start.
fn choose(directory: &Path) -> Io {
    let (buffered, direct) = (RealDisk::new(directory), RealDisk::direct(directory));
    match IoChoice::remembered(directory) {
        // It may have been copied to a file system that cannot.
        Some(known) if known.io == Io::Buffered || refusal(&direct).is_none() => return known.io,
        _ => {}
    }
    let measured = measure(&buffered, &direct).and_then(|choice| {
        let text = serde_json::to_string_pretty(&choice).map_err(io::Error::other)? + "\n";
        fs::write(directory.join(FILE), text)?;
        Ok(choice)
    });
    match measured {
        Ok(choice) => {
            tracing::info!(?choice, "the disk was measured");
            choice.io
        }
        Err(error) => {
            tracing::warn!(%error, "the disk cannot be measured; it is written through the cache");
            Io::Buffered
        }
    }
}

/// Compares two ways of writing to the same disk.
fn measure(buffered: &dyn Disk, direct: &dyn Disk) -> io::Result<IoChoice> {
    let started = Instant::now();
    // Some disks make less of what they can compress.
    let mut bytes = vec![0; WRITE_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let (mut through, mut past) = (Vec::new(), Vec::new());
    while through.is_empty() || (through.len() < ROUNDS && started.elapsed() < PATIENCE) {
        through.push(rate(buffered, &bytes, WRITES)?);
        // A file system that cannot says so at the first call.
        past.push(rate(direct, &bytes, WRITES).unwrap_or(0));
    }
    let (buffered, direct) = (median(through), median(past));
    let io = if direct > buffered { Io::Direct } else { Io::Buffered };
    Ok(IoChoice { io, buffered_bytes_per_sec: buffered, direct_bytes_per_sec: direct })
}

fn median(mut rates: Vec<u64>) -> u64 {
    rates.sort_unstable();
    rates[rates.len() / 2]
}

/// Bytes per second of some writes with a sync after each.
fn rate(disk: &dyn Disk, bytes: &[u8], writes: u64) -> io::Result<u64> {
    match disk.remove(SCRATCH) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let started = Instant::now();
    let written = disk.create(SCRATCH).and_then(|file| {
        (0..writes).try_for_each(|turn| {
            file.write_at(turn * bytes.len() as u64, &[bytes])?;
            file.sync_data()
        })
    });
    let elapsed = started.elapsed();
    disk.remove(SCRATCH)?;
    written?;
    let millionths = elapsed.as_micros().max(1);
    let rate = u128::from(writes) * bytes.len() as u128 * 1_000_000 / millionths;
    Ok(u64::try_from(rate).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{FILE, Io, IoChoice, choose, fs, open};

    #[test]
    fn a_disk_is_measured_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        open(directory.path(), Io::Auto).expect("one way works");
        let choice = IoChoice::remembered(directory.path()).expect("it is written down");
        assert!(choice.buffered_bytes_per_sec > 0, "{choice:?}");
        let faster = choice.direct_bytes_per_sec > choice.buffered_bytes_per_sec;
        assert_eq!(choice.io == Io::Direct, faster, "{choice:?}");
        let names: Vec<_> = fs::read_dir(directory.path())
            .expect("it is there")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        assert_eq!(names, [FILE], "nothing else stays");

        // What is remembered counts, whatever a second measurement would say.
        let other = if faster { Io::Buffered } else { Io::Direct };
        let text = serde_json::to_string(&IoChoice { io: other, ..choice }).expect("plain data");
        fs::write(directory.path().join(FILE), text).expect("an own directory");
        assert_eq!(choose(directory.path()), other);
        fs::write(directory.path().join(FILE), "{}").expect("an own directory");
        assert!(IoChoice::remembered(directory.path()).is_none(), "damaged: measured again");
    }
}
