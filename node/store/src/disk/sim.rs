// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory in memory that fails the way hardware does, and does so again from the same seed.
//!
//! What a crash may do to a file, as on a disk with a volatile cache: every write since the last
//! good sync is kept, dropped or torn at 512 B or 4 KiB, independently of the others. Names that
//! were created since the last directory sync may be gone. Synced bytes always survive.
//! Every other seed makes a disk that writes whole blocks, as `O_DIRECT` does.
//! A failed sync leaves its writes readable but in doubt for ever: no later sync saves them.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{BLOCK_BYTES, Disk, DiskFile};
use crate::record::to_len;

/// What to break, and when. Ordinals count from 0 over the life of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The sync with this ordinal fails; later ones work.
    Sync(u64),
    /// This write and all later ones find no space; part of the bytes may have been written.
    NoSpaceFrom(u64),
    /// This write fails with an I/O error after part of its bytes.
    Write(u64),
    /// Writes beyond this many bytes in all find no space.
    Capacity(u64),
    /// Holes cannot be punched on this file system.
    NoHoles,
    /// Holes in this file fail with an I/O error.
    Holes(&'static str),
    /// The power goes before this write or sync (counted together): nothing works any more.
    PowerOff(u64),
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    random: SplitMix,
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    names_synced: BTreeMap<String, usize>,
    faults: Vec<Fault>,
    sync_count: u64,
    write_count: u64,
    free_bytes: u64,
    writes_blocks: bool,
}

#[derive(Default, Clone)]
struct Inode {
    synced: Vec<u8>,
    cached: Vec<u8>,
    unsynced: Vec<Change>,
    /// Changes that a failed sync left in doubt.
    doubtful: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Cut { len: usize },
}

impl SimDisk {
    /// An empty disk whose accidents follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::with_state(State {
            random: SplitMix(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            names_synced: BTreeMap::new(),
            faults: Vec::new(),
            sync_count: 0,
            write_count: 0,
            free_bytes: 1 << 40,
            writes_blocks: seed % 2 == 1,
        })
    }

    fn with_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Arranges for something to go wrong.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Nothing more goes wrong.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// Whether the power is gone ([`Fault::PowerOff`]).
    pub fn is_off(&self) -> bool {
        self.state.lock().is_off()
    }

    /// How many syncs and writes were asked for so far.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.sync_count, state.write_count)
    }

    /// Sets what [`Disk::free_bytes`] answers.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state.lock().free_bytes = bytes;
    }

    /// Cuts the power: the disk as the next boot finds it. This one goes on for whoever still
    /// holds it, but the two share nothing any more.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut state = self.state.lock();
        let mut random = state.random.fork();
        let names = surviving_names(&state, &mut random);
        let files = state.files.iter().map(|inode| inode.after_crash(&mut random)).collect();
        Self::with_state(State {
            random,
            files,
            names_synced: names.clone(),
            names,
            faults: Vec::new(),
            sync_count: 0,
            write_count: 0,
            free_bytes: state.free_bytes,
            writes_blocks: state.writes_blocks,
        })
    }

    /// Flips bits of one byte of a file, behind everybody's back.
    ///
    /// # Panics
    /// When there is no such file or byte; this is a tool for tests.
    pub fn corrupt(&self, name: &str, offset: usize, flip: u8) {
        let mut state = self.state.lock();
        let inode = *state.names.get(name).expect("a file that exists");
        let inode = &mut state.files[inode];
        inode.cached[offset] ^= flip;
        if let Some(byte) = inode.synced.get_mut(offset) {
            *byte ^= flip;
        }
    }

    /// The whole current content of a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(name).map(|inode| state.files[*inode].cached.clone())
    }
}

fn surviving_names(state: &State, random: &mut SplitMix) -> BTreeMap<String, usize> {
    let all: HashSet<_> = state.names.keys().chain(state.names_synced.keys()).collect();
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_unstable();
    all.into_iter()
        .filter_map(|name| {
            let (now, synced) = (state.names.get(name), state.names_synced.get(name));
            let survives = if now == synced || random.chance(2) { now } else { synced };
            survives.map(|inode| (name.clone(), *inode))
        })
        .collect()
}

impl Inode {
    /// Changes what everybody reads now, and what a sync will keep.
    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.unsynced.push(change);
    }

    fn after_crash(&self, random: &mut SplitMix) -> Self {
        let mut bytes = self.synced.clone();
        // One mood per file and crash: real accidents are not evenly mixed either.
        let mood = random.below(5);
        for write in self.doubtful.iter().chain(&self.unsynced) {
            match mood {
                0 => {}
                1 => write.apply(&mut bytes),
                2 if random.chance(2) => write.apply(&mut bytes),
                3 => write.apply_torn(&mut bytes, 512, random),
                4 => write.apply_torn(&mut bytes, 4096, random),
                _ => {}
            }
        }
        Self { cached: bytes.clone(), synced: bytes, ..Self::default() }
    }
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => overwrite(file, *offset, bytes),
            Self::Cut { len } => file.truncate(*len),
        }
    }

    fn apply_torn(&self, file: &mut Vec<u8>, unit: usize, random: &mut SplitMix) {
        let Self::Write { offset, bytes } = self else {
            // A length is changed at once or not at all.
            if random.chance(2) {
                self.apply(file);
            }
            return;
        };
        let mut at = 0;
        while at < bytes.len() {
            // Pieces end where sectors of the file end, not where the write began.
            let piece = (unit - (offset + at) % unit).min(bytes.len() - at);
            if random.chance(2) {
                overwrite(file, offset + at, &bytes[at..at + piece]);
            }
            at += piece;
        }
    }
}

fn overwrite(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

/// A write as whole blocks: with what stands before it in its first one, and zeros after it.
fn in_blocks(file: &[u8], offset: usize, bytes: &[u8]) -> (usize, Vec<u8>) {
    let block = to_len(BLOCK_BYTES);
    let start = offset / block * block;
    let mut blocks = file[start.min(file.len())..offset.min(file.len())].to_vec();
    blocks.resize(offset - start, 0);
    blocks.extend_from_slice(bytes);
    blocks.resize(blocks.len().next_multiple_of(block), 0);
    (start, blocks)
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        if state.is_off() {
            return Err(io::Error::other("the power is off"));
        }
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.faults.iter().any(|fault| state.is_full(*fault)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files.push(Inode::default());
        let inode = state.files.len() - 1;
        state.names.insert(name.to_owned(), inode);
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), inode }))
    }

    fn open(&self, name: &str, _writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let inode = *self.state.lock().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), inode }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_off() {
            return Err(io::Error::other("the power is off"));
        }
        let removed = state.names.remove(name);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count_sync()?;
        state.names_synced = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state.lock().free_bytes)
    }

    fn nonce(&self) -> io::Result<u64> {
        Ok(self.state.lock().random.next())
    }
}

impl State {
    fn is_full(&self, fault: Fault) -> bool {
        match fault {
            Fault::NoSpaceFrom(first) => self.write_count >= first,
            Fault::Capacity(bytes) => self.stored_bytes() >= bytes,
            _ => false,
        }
    }

    /// Whether the power is gone.
    fn is_off(&self) -> bool {
        let done = self.sync_count + self.write_count;
        self.faults.iter().any(|fault| matches!(fault, Fault::PowerOff(at) if done >= *at))
    }

    fn stored_bytes(&self) -> u64 {
        self.names.values().map(|inode| self.files[*inode].cached.len() as u64).sum()
    }

    fn count_sync(&mut self) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other("the power is off"));
        }
        let ordinal = self.sync_count;
        self.sync_count += 1;
        if self.faults.contains(&Fault::Sync(ordinal)) {
            return Err(io::Error::other("simulated sync failure"));
        }
        Ok(())
    }

    /// Counts a hole as a write that is never short of space.
    fn admit_punch(&mut self, inode: usize) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other("the power is off"));
        }
        if self.faults.contains(&Fault::NoHoles) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let ordinal = self.write_count;
        self.write_count += 1;
        let broken = self.faults.iter().any(|fault| match fault {
            Fault::Write(broken) => *broken == ordinal,
            Fault::Holes(name) => self.names.get(*name) == Some(&inode),
            _ => false,
        });
        if broken { Err(io::Error::other("simulated punch failure")) } else { Ok(()) }
    }

    /// How many of `wanted` bytes get written, and the error to answer with if not all.
    fn admit_write(&mut self, wanted: usize) -> (usize, Option<io::Error>) {
        if self.is_off() {
            return (0, Some(io::Error::other("the power is off")));
        }
        let ordinal = self.write_count;
        let full = self.faults.iter().any(|fault| match *fault {
            Fault::NoSpaceFrom(first) => ordinal >= first,
            Fault::Capacity(bytes) => self.stored_bytes() + wanted as u64 > bytes,
            _ => false,
        });
        let broken = self.faults.contains(&Fault::Write(ordinal));
        self.write_count += 1;
        if !full && !broken {
            return (wanted, None);
        }
        let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        (self.random.below_len(wanted + 1), Some(kind.into()))
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut state = self.state.lock();
        let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (mut offset, mut bytes) = (offset, parts.concat());
        if state.writes_blocks {
            (offset, bytes) = in_blocks(&state.files[self.inode].cached, offset, &bytes);
        }
        let (admitted, error) = state.admit_write(bytes.len());
        bytes.truncate(admitted);
        state.files[self.inode].change(Change::Write { offset, bytes });
        error.map_or(Ok(()), Err)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock();
        let file = &state.files[self.inode].cached;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        let read = buffer.len().min(file.len() - start);
        buffer[..read].copy_from_slice(&file[start..start + read]);
        Ok(read)
    }

    /// Reads never come from anywhere but the one state.
    fn read_cold_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, buffer)
    }

    /// A write of zeros that needs no room, torn and lost like any other.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.admit_punch(self.inode)?;
        let size = |bytes: u64| usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
        let (offset, len) = (size(offset)?, size(len)?);
        let inode = &mut state.files[self.inode];
        // The file keeps its length.
        let end = inode.cached.len().min(offset.saturating_add(len));
        inode.change(Change::Write { offset, bytes: vec![0; end.saturating_sub(offset)] });
        Ok(())
    }

    /// Space is only counted.
    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.is_off() {
            return Err(io::Error::other("the power is off"));
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        state.files[self.inode].change(Change::Cut { len });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().files[self.inode].cached.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let outcome = if state.is_off() {
            // Nothing reached the disk, and nothing more will.
            return Err(io::Error::other("the power is off"));
        } else {
            state.count_sync()
        };
        let inode = &mut state.files[self.inode];
        let writes = std::mem::take(&mut inode.unsynced);
        if outcome.is_ok() {
            writes.iter().for_each(|write| write.apply(&mut inode.synced));
        } else {
            inode.doubtful.extend(writes);
        }
        outcome
    }
}

/// Sebastiano Vigna's SplitMix64: tiny, seedable, good enough for accidents.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn below_len(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a length")
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, Fault, SimDisk};

    fn read(disk: &SimDisk) -> Option<Vec<u8>> {
        disk.content("f")
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_gambles_with_the_rest() {
        let mut lost = 0;
        for seed in 0..64 {
            let disk = SimDisk::new(seed);
            let file = disk.create("f").expect("a new name");
            file.write_at(0, &[&[1; 8192]]).expect("no fault");
            file.sync_data().expect("no fault");
            disk.sync_dir().expect("no fault");
            file.write_at(8192, &[&[2; 8192]]).expect("no fault");
            let after = read(&disk.crash()).expect("its name was synced");
            assert!(after[..8192].iter().all(|byte| *byte == 1), "seed {seed}");
            lost += u32::from(after.len() < 16384 || after[8192..].contains(&0));
        }
        assert!((16..64).contains(&lost), "{lost} of 64 crashes lost something");
    }

    #[test]
    fn an_unsynced_name_may_vanish() {
        let survivors = (0..64).filter(|seed| {
            let disk = SimDisk::new(*seed);
            let file = disk.create("f").expect("a new name");
            file.sync_data().expect("no fault");
            read(&disk.crash()).is_some()
        });
        assert!((8..56).contains(&survivors.count()));
    }

    #[test]
    fn a_second_sync_does_not_save_what_the_first_one_lost() {
        let lost = (0..64).filter(|seed| {
            let disk = SimDisk::new(*seed);
            let file = disk.create("f").expect("a new name");
            disk.sync_dir().expect("no fault");
            disk.inject(Fault::Sync(1));
            file.write_at(0, &[b"x"]).expect("no fault");
            file.sync_data().expect_err("the injected fault");
            file.sync_data().expect("works again, and lies");
            read(&disk.crash()) != Some(b"x".to_vec())
        });
        assert!(lost.count() > 16);
    }

    #[test]
    fn a_full_disk_says_so() {
        // Not one that writes whole blocks.
        let disk = SimDisk::new(2);
        let file = disk.create("f").expect("a new name");
        disk.inject(Fault::Capacity(10));
        file.write_at(0, &[&[0; 10]]).expect("just fits");
        let error = file.write_at(10, &[b"y"]).expect_err("one too many");
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
}
