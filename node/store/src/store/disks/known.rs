// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is remembered of disks, so that an empty mount point is not taken for a new disk.
//!
//! Each disk's directory has a marker, `disk.json`, with an id drawn when it was first used. The
//! data directory has a list, `disks.json`, of the ids of all of them and where they were last.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Disk, RealDisk};

/// The marker in a disk's directory.
const MARKER: &str = "disk.json";
/// The list in the data directory.
const LIST: &str = "disks.json";

/// What a marker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    id: DiskId,
}

/// An id, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct DiskId(pub(super) u64);

impl From<DiskId> for String {
    fn from(id: DiskId) -> Self {
        format!("{:016x}", id.0)
    }
}

impl TryFrom<String> for DiskId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}

/// One disk of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KnownDisk {
    id: DiskId,
    path: PathBuf,
    #[serde(default)]
    drain: Drain,
}

/// Whether a disk is being emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::store) enum Drain {
    /// It is not.
    #[default]
    No,
    /// Its records are moved to the others.
    Asked,
    /// Nothing is on it any more.
    Done,
}

/// The list of disks that were ever used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::store) struct KnownDisks {
    #[serde(skip)]
    directory: PathBuf,
    disks: Vec<KnownDisk>,
}

impl KnownDisks {
    /// Reads the list of a data directory; an empty one if there is none.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let known = match read_json(&directory.join(LIST))? {
            Some(known) => known,
            None => Self { directory: PathBuf::new(), disks: Vec::new() },
        };
        Ok(Self { directory: directory.to_owned(), ..known })
    }

    /// Whether a disk was used there.
    fn has(&self, path: &Path) -> bool {
        self.disks.iter().any(|disk| disk.path == path)
    }

    /// Where disks were that are none of these, and that have something.
    pub(super) fn others(&self, ids: &[DiskId]) -> Vec<&Path> {
        let is_other = |disk: &&KnownDisk| !ids.contains(&disk.id) && disk.drain != Drain::Done;
        self.disks.iter().filter(is_other).map(|disk| &*disk.path).collect()
    }

    /// Whether a disk is to be empty.
    pub(super) fn drain(&self, id: DiskId) -> Drain {
        let known = self.disks.iter().find(|disk| disk.id == id);
        known.map_or(Drain::No, |disk| disk.drain)
    }

    /// Remembers, durably, whether a disk is to be empty.
    pub(in crate::store) fn set_drain(&mut self, id: u64, drain: Drain) -> io::Result<()> {
        for disk in self.disks.iter_mut().filter(|disk| disk.id == DiskId(id)) {
            disk.drain = drain;
        }
        write_json(&self.directory.join(LIST), self)
    }

    /// Remembers, durably, that a disk is at a path.
    fn remember(&mut self, id: DiskId, path: &Path) -> io::Result<()> {
        if self.disks.iter().any(|disk| disk.id == id && disk.path == path) {
            return Ok(());
        }
        let disk = KnownDisk { id, path: path.to_owned(), drain: self.drain(id) };
        // The disk may have been elsewhere, and another one here.
        self.disks.retain(|known| known.id != id && known.path != path);
        self.disks.push(disk);
        write_json(&self.directory.join(LIST), self)
    }

    /// The id of the disk at a path. A directory that was never used gets one; where a disk was
    /// and is not, nothing is changed, and the answer says so.
    ///
    /// # Errors
    /// Only when the data directory fails, which every disk needs.
    pub(super) fn identify(&mut self, path: &Path) -> io::Result<Result<DiskId, String>> {
        let marker = path.join(MARKER);
        let id = match read_json::<Marker>(&marker) {
            Ok(Some(marker)) => marker.id,
            Ok(None) if self.has(path) => return Ok(Err(self.vanished(&marker))),
            Ok(None) => match mark(path, &marker) {
                Ok(id) => id,
                Err(error) => return Ok(Err(format!("it cannot be made ready: {error}"))),
            },
            Err(error) => {
                return Ok(Err(format!("{} cannot be read: {error}", marker.display())));
            }
        };
        self.remember(id, path)?;
        Ok(Ok(id))
    }

    fn vanished(&self, marker: &Path) -> String {
        format!(
            "{} is gone: mount the disk and start again; if its records are given up, remove its \
             entry from {}",
            marker.display(),
            self.directory.join(LIST).display()
        )
    }
}

/// Makes a directory a disk's.
fn mark(path: &Path, marker: &Path) -> io::Result<DiskId> {
    super::super::lane::make_directory(path).map_err(io::Error::other)?;
    let id = DiskId(RealDisk::new(path).nonce()?);
    write_json(marker, &Marker { id })?;
    Ok(id)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file as a whole, durably.
fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    let fresh = path.with_extension("json.new");
    fs::write(&fresh, text)?;
    File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
