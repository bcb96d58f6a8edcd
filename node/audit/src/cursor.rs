// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last processed finalised block, kept in a small file.
//!
//! - Written after the effects of that block are durable in the store, so a crash repeats work and
//!   never skips it: to a temporary file, synced, renamed, and the directory synced.
//! - Four lines of text: a title with the version, `genesis`, `height`, `hash`. An operator can
//!   read it; removing it costs one comparison of all own deals with the chain.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::chain::{BlockHash, BlockRef};
use crate::error::AuditError;

const TITLE: &str = "supernode audit cursor 1";
/// Far more than the file ever holds; what is longer is none of ours.
const FILE_BYTES_MAX: u64 = 4096;

/// How far the finalised chain has been processed, and which chain that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The hash of block 0.
    pub genesis: BlockHash,
    /// The last processed finalised block.
    pub block: BlockRef,
}

/// Where the cursor is kept; a seam for tests.
pub(crate) trait Bookmark: Clone + Send + Sync + 'static {
    /// Keeps the cursor durably.
    fn save(&self, cursor: Cursor) -> impl Future<Output = io::Result<()>> + Send;
}

/// The cursor's file.
#[derive(Debug, Clone)]
pub(crate) struct CursorFile {
    path: PathBuf,
}

impl CursorFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads the cursor. Blocks. Nothing was processed yet if there is no file.
    pub(crate) fn load(&self) -> Result<Option<Cursor>, AuditError> {
        let failed = |source| AuditError::CursorIo { path: self.path.clone(), source };
        let damaged = |reason| AuditError::CursorDamaged { path: self.path.clone(), reason };
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(facts) if facts.len() > FILE_BYTES_MAX => return Err(damaged("it is too long")),
            Ok(_) => {}
        }
        let bytes = fs::read(&self.path).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
        parse(&text).map(Some).map_err(damaged)
    }

    fn store(&self, cursor: Cursor) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(render(cursor).as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Bookmark for CursorFile {
    async fn save(&self, cursor: Cursor) -> io::Result<()> {
        let file = self.clone();
        let stored = tokio::task::spawn_blocking(move || file.store(cursor)).await;
        stored.map_err(io::Error::other)?
    }
}

fn render(cursor: Cursor) -> String {
    let Cursor { genesis, block } = cursor;
    let mut text = format!("{TITLE}\n");
    let _ = writeln!(text, "genesis {genesis}\nheight {}\nhash {}", block.height, block.hash);
    text
}

fn parse(text: &str) -> Result<Cursor, &'static str> {
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err("it is no cursor of this version");
    }
    let mut field = |name| {
        let line = lines.next().and_then(|line| line.strip_prefix(name));
        line.and_then(|line| line.strip_prefix(' '))
    };
    let hash = |text: Option<&str>| text.and_then(|text| text.parse::<BlockHash>().ok());
    let genesis = hash(field("genesis")).ok_or("its genesis is no hash")?;
    let height = field("height").and_then(|text| text.parse().ok()).ok_or("its height is none")?;
    let hash = hash(field("hash")).ok_or("its block hash is none")?;
    if lines.next().is_some() {
        return Err("it has more lines than it should");
    }
    Ok(Cursor { genesis, block: BlockRef { height, hash } })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Bookmark, Cursor, CursorFile};
    use crate::chain::{BlockHash, BlockRef};
    use crate::error::AuditError;

    #[tokio::test]
    async fn a_cursor_is_read_back_and_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = CursorFile::new(directory.path().join("cursor"));
        assert_eq!(file.load().expect("no file yet"), None);
        for height in [0, 7, u64::MAX] {
            let block = BlockRef { height, hash: BlockHash::from_bytes([0xa9; 32]) };
            let cursor = Cursor { genesis: BlockHash::from_bytes([3; 32]), block };
            file.save(cursor).await.expect("written");
            assert_eq!(file.load().expect("read"), Some(cursor));
        }
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[tokio::test]
    async fn a_damaged_cursor_is_an_error_and_never_a_fresh_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cursor");
        let file = CursorFile::new(path.clone());
        let cursor = Cursor { genesis: BlockHash::default(), block: BlockRef::default() };
        file.save(cursor).await.expect("written");
        let good = fs::read_to_string(&path).expect("text");
        let long = "x".repeat(10_000);
        let bad = [&good[..good.len() - 9], "", "supernode audit cursor 2\n", &long, &good[5..]];
        for text in bad.map(str::to_owned).into_iter().chain([format!("{good}more\n")]) {
            fs::write(&path, &text).expect("written");
            let error = file.load().expect_err("damaged");
            assert!(matches!(error, AuditError::CursorDamaged { .. }), "{text:?}: {error}");
        }
    }
}
