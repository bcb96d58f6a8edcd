// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of a store on its disks. What cannot be opened is left out as long as something can;
//! what is wrong with the settings or with whose disks these are stops the start.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lane::{Lane, make_directory};
use super::{Shared, lock_directory};
use crate::config::DiskConfig;
use crate::disk::DirectoryLock;
use crate::error::StoreError;
use crate::segment::number_of;

mod known;

use self::known::DiskId;
pub(super) use self::known::{Drain, KnownDisks};

/// A disk that could not be opened.
pub(super) struct Absent {
    pub(super) path: PathBuf,
    pub(super) reason: String,
    pub(super) capacity_bytes: u64,
}

/// Opens every lane of the settings.
pub(super) fn open(shared: &mut Shared) -> Result<(), StoreError> {
    let data_dir = shared.config.path.clone();
    make_directory(&data_dir)?;
    let lock = lock_directory(&data_dir)?;
    let listed =
        |error| StoreError::io(format!("keep the list of disks in {}", data_dir.display()), error);
    let mut known = KnownDisks::read(&data_dir).map_err(listed)?;
    if shared.config.disks.is_empty() {
        tell_of_forgotten(&known, &[], &[]);
        let lane = Lane::open(0, shared.config.clone(), shared.company.clone(), lock)?;
        shared.lanes.push(Arc::new(lane));
        return Ok(());
    }
    demand_named(&data_dir, &shared.config.disks)?;
    let disks = shared.config.disks.clone();
    let paths: Vec<_> = disks.iter().map(|disk| &*disk.path).collect();
    let identified = known.identify(&paths);
    let mut ids: Vec<(DiskId, &Path)> = Vec::new();
    for (path, id) in paths.iter().zip(&identified) {
        let Ok(id) = id else { continue };
        if let Some((_, other)) = ids.iter().find(|(other, _)| other == id) {
            let (one, other) = (path.display(), other.display());
            let reason = format!("{one} and {other} are the same disk; name it once");
            return Err(StoreError::Config { key: "disks", reason });
        }
        ids.push((*id, path));
    }
    known.remember(&ids).map_err(listed)?;
    tell_of_forgotten(&known, &disks, &ids);
    miss_displaced(shared, &known, &ids);
    let found = disks.iter().cloned().zip(identified).collect();
    shared.company.holds_ends.store(true, Ordering::SeqCst);
    open_found(shared, found, &data_dir, lock)?;
    for lane in &shared.lanes {
        lane.set_draining(known.drain(DiskId(lane.id())) != Drain::No);
    }
    *shared.known.lock() = Some(known);
    Ok(())
}

/// Opens the disks that are there, all at the same time: one may have much to replay.
fn open_found(
    shared: &mut Shared,
    found: Vec<(DiskConfig, Result<DiskId, String>)>,
    data_dir: &Path,
    lock: DirectoryLock,
) -> Result<(), StoreError> {
    let mut data_lock = Some(lock);
    let (config, company) = (shared.config.clone(), shared.company.clone());
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let begun: Vec<_> = found
            .into_iter()
            .map(|(disk, id)| {
                let lock = if disk.path == data_dir { data_lock.take() } else { None };
                let lane = config.of_disk(&disk.path, disk.capacity_bytes);
                let company = company.clone();
                let opening = id.map(|id| {
                    scope.spawn(move || {
                        let lock = lock.map_or_else(|| lock_directory(&lane.path), Ok)?;
                        Lane::open(id.0, lane, company, lock)
                    })
                });
                (disk, opening)
            })
            .collect();
        let ended = begun.into_iter().map(|(disk, opening)| {
            let opened = opening.map(|thread| {
                let died = |_| Err(StoreError::stopped("opening it panicked"));
                thread.join().unwrap_or_else(died)
            });
            (disk, opened)
        });
        ended.collect()
    });
    *shared.lock.lock() = data_lock;
    let mut failure = None;
    for (disk, outcome) in outcomes {
        let error = match outcome {
            Ok(Ok(lane)) => {
                shared.lanes.push(Arc::new(lane));
                continue;
            }
            Ok(Err(error)) if stops_the_start(&error) => return Err(error),
            Ok(Err(error)) => error,
            Err(reason) => {
                let disk = format!("use the disk {}", disk.path.display());
                StoreError::io(disk, io::Error::other(reason))
            }
        };
        let DiskConfig { path, capacity_bytes } = disk;
        miss(shared, Absent { path, reason: error.to_string(), capacity_bytes });
        failure = failure.or(Some(error));
    }
    match failure {
        Some(error) if shared.lanes.is_empty() => Err(error),
        _ => Ok(()),
    }
}

/// Misses every disk that is nowhere and whose path another one has now: what it had is not absent.
fn miss_displaced(shared: &mut Shared, known: &KnownDisks, found: &[(DiskId, &Path)]) {
    let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    for paths in known.others(&ids) {
        let taken = |path: &&Path| found.iter().any(|(_, there)| there == path);
        if let Some(path) = paths.into_iter().find(taken) {
            let reason = format!("it is nowhere, and another disk is at {}", path.display());
            // Two of one name would be one to whoever watches.
            let path = PathBuf::from(format!("{} (missing)", path.display()));
            miss(shared, Absent { path, reason, capacity_bytes: 0 });
        }
    }
}

fn miss(shared: &mut Shared, absent: Absent) {
    let Absent { path, reason, .. } = &absent;
    tracing::error!(
        disk = %path.display(), reason,
        "a disk is OFFLINE: its records cannot be reached; mend it and start the node again"
    );
    shared.absent.push(absent);
}

/// What a disk of the node's would not be rid of by itself: going on without it would hide it.
fn stops_the_start(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Config { .. }
            | StoreError::Locked { .. }
            | StoreError::ForeignNode { .. }
            | StoreError::NewerFormat { .. }
    )
}

/// Refuses to leave out what the data directory holds from before there were other disks.
fn demand_named(data_dir: &Path, disks: &[DiskConfig]) -> Result<(), StoreError> {
    if disks.iter().any(|disk| disk.path == data_dir) {
        return Ok(());
    }
    let shown = data_dir.display();
    let entries = fs::read_dir(data_dir)
        .map_err(|error| StoreError::io(format!("list the data directory {shown}"), error))?;
    let is_segment = |name: &OsStr| name.to_str().and_then(number_of).is_some();
    if !entries.flatten().any(|entry| is_segment(&entry.file_name())) {
        return Ok(());
    }
    let reason = format!("the data directory holds records too; name {shown} as one of the disks");
    Err(StoreError::Config { key: "disks", reason })
}

/// Records on a disk that no setting names are not served; that may be an oversight.
fn tell_of_forgotten(known: &KnownDisks, disks: &[DiskConfig], found: &[(DiskId, &Path)]) {
    let is_named = |path: &Path| disks.iter().any(|disk| disk.path == path);
    let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    for paths in known.others(&ids) {
        let (false, [path, ..]) = (paths.iter().any(|path| is_named(path)), &paths[..]) else {
            continue;
        };
        let disk = path.display();
        tracing::warn!(%disk, "a disk is not named any more; what lies there is not served");
    }
}
