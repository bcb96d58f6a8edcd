// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory whose disk can be told to fail or to hang, and a store on several of them.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use supernode_store::disk::{Disk, DiskFile, RealDisk};
use supernode_store::index::SledOptions;
use supernode_store::recovery::SledSource;
use supernode_store::{Place, Store, StoreConfig, StoreError};

use super::support::config;

/// What a disk does with whatever it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// What it should.
    Works,
    /// Nothing: an I/O error.
    Fails,
    /// What it should, but for long reads: there is a bad spot in them.
    BadSpot,
    /// Nothing at all, until it works or fails.
    Hangs,
}

/// Tells a disk what to do. Clones tell the same one.
#[derive(Clone)]
pub struct Switch(Arc<(Mutex<Mood>, Condvar)>);

impl Switch {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Mood::Works), Condvar::new())))
    }

    /// From now on, and for whoever hangs in it.
    pub fn set(&self, mood: Mood) {
        *self.0.0.lock().expect("nobody panics with it") = mood;
        self.0.1.notify_all();
    }

    fn read(&self, len: usize) -> io::Result<()> {
        self.pass()?;
        let is_bad = *self.0.0.lock().expect("nobody panics with it") == Mood::BadSpot;
        if is_bad && len > 50_000 { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn pass(&self) -> io::Result<()> {
        let mut mood = self.0.0.lock().expect("nobody panics with it");
        while *mood == Mood::Hangs {
            mood = self.0.1.wait(mood).expect("nobody panics with it");
        }
        // EIO.
        if *mood == Mood::Fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

struct FailingDisk {
    disk: RealDisk,
    switch: Switch,
}

struct FailingFile {
    file: Arc<dyn DiskFile>,
    switch: Switch,
}

impl FailingDisk {
    fn opened(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FailingFile { file, switch: self.switch.clone() })
    }
}

impl Disk for FailingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.switch.pass()?;
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.switch.pass()?;
        Ok(self.opened(self.disk.create(name)?))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.switch.pass()?;
        Ok(self.opened(self.disk.open(name, writable)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.switch.pass()?;
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.switch.pass()?;
        self.disk.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.switch.pass()?;
        self.disk.free_bytes()
    }

    fn nonce(&self) -> io::Result<u64> {
        self.disk.nonce()
    }
}

impl DiskFile for FailingFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.switch.pass()?;
        self.file.write_at(offset, parts)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.switch.read(buffer.len())?;
        self.file.read_at(offset, buffer)
    }

    fn len(&self) -> io::Result<u64> {
        self.switch.pass()?;
        self.file.len()
    }

    fn read_cold_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.switch.read(buffer.len())?;
        self.file.read_cold_at(offset, buffer)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.switch.pass()?;
        self.file.reserve(offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.switch.pass()?;
        self.file.truncate(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.switch.pass()?;
        self.file.punch(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.switch.pass()?;
        self.file.sync_data()
    }
}

/// Opens a store on two disks under `root` that share nothing, without a cache.
pub async fn open_two(root: &Path) -> Result<(Store, [Switch; 2]), StoreError> {
    let paths = ["a", "b"].map(|name| root.join(name));
    let settings = StoreConfig { cache_bytes_max: 0, ..config(root) };
    let task = tokio::task::spawn_blocking(move || {
        let switches = [Switch::new(), Switch::new()];
        let sources = paths.each_ref().map(|path| {
            std::fs::create_dir_all(path).expect("an own directory");
            let path = path.join("index");
            let timeout = std::time::Duration::from_secs(60);
            SledSource { options: SledOptions { path, cache_bytes: 1 << 20, timeout } }
        });
        let place = |number: usize| {
            let disk = RealDisk::new(&paths[number]);
            let disk = Arc::new(FailingDisk { disk, switch: switches[number].clone() });
            let (path, index) = (&*paths[number], &sources[number]);
            Place { path, capacity_bytes: 1 << 30, disk, index, lock: None }
        };
        let store = Store::open_on_all(settings, vec![place(0), place(1)])?;
        Ok((store, switches))
    });
    task.await.expect("opening does not panic")
}
