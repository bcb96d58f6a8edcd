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
    /// Where it was too, since another one is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    since: Vec<PathBuf>,
    #[serde(default)]
    drain: Drain,
}

impl KnownDisk {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&*self.path).chain(self.since.iter().map(|path| &**path))
    }

    fn was_at(&self, path: &Path) -> bool {
        self.paths().any(|known| known == path)
    }
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

    /// Where disks were that are none of these, and that have something; all paths of each.
    pub(super) fn others(&self, ids: &[DiskId]) -> Vec<Vec<&Path>> {
        let is_other = |disk: &&KnownDisk| !ids.contains(&disk.id) && disk.drain != Drain::Done;
        self.disks.iter().filter(is_other).map(|disk| disk.paths().collect()).collect()
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

    /// The ids of the disks at these paths. A directory that was never used gets one; where a
    /// disk was and is not, nothing is changed, and the answer says so.
    ///
    /// All markers are read before any is written: a disk may have come to another's path, and
    /// what it left behind is then an empty mount point and no new disk.
    pub(super) fn identify(&self, paths: &[&Path]) -> Vec<Result<DiskId, String>> {
        let markers: Vec<_> = paths.iter().map(|path| read_marker(path)).collect();
        let ids: Vec<_> = markers.iter().filter_map(|id| id.clone().ok().flatten()).collect();
        let found = |(path, marker): (&&Path, Result<Option<DiskId>, String>)| match marker? {
            Some(id) => Ok(id),
            None if self.is_missed(path, &ids) => Err(self.vanished(&path.join(MARKER))),
            None => mark(path),
        };
        paths.iter().zip(markers).map(found).collect()
    }

    /// Whether what is at a path without a disk may be the mount point of one that is none of
    /// these.
    fn is_missed(&self, path: &Path, ids: &[DiskId]) -> bool {
        let is_any_missing = !self.others(ids).is_empty();
        let here = |disk: &&KnownDisk| disk.was_at(path);
        let is_missed = |disk: &KnownDisk| is_any_missing || !ids.contains(&disk.id);
        self.disks.iter().filter(here).any(is_missed)
    }

    /// Remembers, durably, where disks are. As long as one of those before is missing, the paths
    /// of then are kept: each may be the missing one's mount point.
    pub(super) fn remember(&mut self, found: &[(DiskId, &Path)]) -> io::Result<()> {
        let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
        let is_any_missing = !self.others(&ids).is_empty();
        let before = self.disks.clone();
        for (id, path) in found {
            match self.disks.iter_mut().find(|disk| disk.id == *id) {
                Some(disk) if is_any_missing && disk.was_at(path) => {}
                Some(disk) if is_any_missing => disk.since.push(path.to_path_buf()),
                Some(disk) => (disk.path, disk.since) = (path.to_path_buf(), Vec::new()),
                None => {
                    let (id, path) = (*id, path.to_path_buf());
                    self.disks.push(KnownDisk { id, path, since: Vec::new(), drain: Drain::No });
                }
            }
        }
        if self.disks == before {
            return Ok(());
        }
        write_json(&self.directory.join(LIST), self)
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

fn read_marker(path: &Path) -> Result<Option<DiskId>, String> {
    let marker = path.join(MARKER);
    match read_json::<Marker>(&marker) {
        Ok(marker) => Ok(marker.map(|marker| marker.id)),
        Err(error) => Err(format!("{} cannot be read: {error}", marker.display())),
    }
}

/// Makes a directory a disk's, if it is none.
fn mark(path: &Path) -> Result<DiskId, String> {
    // Another path may lead to the same directory, and have made it one just now.
    if let Some(id) = read_marker(path)? {
        return Ok(id);
    }
    let failed = |error| format!("it cannot be made ready: {error}");
    super::super::lane::make_directory(path).map_err(io::Error::other).map_err(failed)?;
    let id = DiskId(RealDisk::new(path).nonce().map_err(failed)?);
    write_json(&path.join(MARKER), &Marker { id }).map_err(failed)?;
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
