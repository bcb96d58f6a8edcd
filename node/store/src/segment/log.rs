// SPDX-License-Identifier: MIT OR Apache-2.0
//! The writing end of the log: one open segment, one position, no second chances.

use std::io;
use std::sync::Arc;

use supernode_protocol::ids::NodeId;

use super::footer::{FOOTER_ALIGN, FOOTER_BYTES_MAX, FooterDraft, FooterPlace};
use super::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::{Predecessor, SEGMENT_VERSION, Segment, Segments, create};
use crate::disk::DiskFile;
use crate::planted::{Bug, has};
use crate::record::{Draft, Encoded, HEADER_BYTES, Position, RECORD_ALIGN, to_len};

/// Set aside at a time for records to come.
const RESERVED_BYTES: u64 = 64 << 20;
/// Bytes of a footer that are written at once. Whole blocks, as writes past the system's memory
/// copy what they are given.
const FOOTER_WRITE_BYTES: usize = 1 << 20;

/// Appends records to the newest segment and begins new ones. Owned by the writer alone.
///
/// Any error of a write or a sync closes the segment at the last position that is known to be
/// good; the next segment's header then states that position.
pub struct Log {
    segments: Arc<Segments>,
    node: NodeId,
    segment_bytes_max: u64,
    active: Option<Active>,
    /// What the next segment follows.
    previous: Predecessor,
    /// Numbers that files have or had, also without a valid header.
    number_max: u32,
}

struct Active {
    segment: Segment,
    /// Where the next record goes.
    end: u64,
    /// Everything before this is durable.
    synced: u64,
    /// Blocks up to here are set aside.
    reserved: u64,
    /// Its footer, as long as that knows all records and is not too large.
    footer: Option<FooterDraft>,
}

impl Active {
    fn new(segment: Segment, end: u64) -> Self {
        // Of records from before the start nothing is known here.
        let is_new = end == SEGMENT_HEADER_BYTES as u64;
        let footer = is_new.then(|| FooterDraft::new(&segment.header, FOOTER_BYTES_MAX));
        Self { segment, end, synced: end, reserved: end, footer }
    }

    /// Writes the footer of a segment that takes no more, and makes it durable. One that cannot be
    /// written is done without: whatever is left of it stands behind the segment's end.
    fn write_footer(&mut self) -> Option<FooterPlace> {
        let draft = self.footer.take().filter(|_| self.synced == self.end)?;
        let bytes = draft.finish()?;
        let offset = self.end.next_multiple_of(FOOTER_ALIGN);
        let file = &self.segment.file;
        let sync = || if has(Bug::StatesUnsyncedFooter) { Ok(()) } else { file.sync_data() };
        let mut pieces =
            (offset..).step_by(FOOTER_WRITE_BYTES).zip(bytes.chunks(FOOTER_WRITE_BYTES));
        let written = pieces.try_for_each(|(at, piece)| file.write_at(at, &[piece]));
        if let Err(error) = written.and_then(|()| sync()) {
            let number = self.segment.header.number;
            tracing::warn!(segment = number, %error, "a segment is left without a footer");
            return None;
        }
        Some(FooterPlace { offset, len: bytes.len() as u64, crc: crc32c::crc32c(&bytes) })
    }
}

/// Where the log stands after recovery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogEnd {
    /// The newest segment with records, and where they end.
    pub(crate) last: Predecessor,
    /// Whether it may take more records (it ends with an orderly stop and is of our version).
    pub(crate) open: bool,
    /// The highest number of any segment file.
    pub(crate) number_max: u32,
}

impl Log {
    /// Continues where recovery found the end.
    pub(crate) fn resume(
        segments: Arc<Segments>,
        node: NodeId,
        segment_bytes_max: u64,
        end: LogEnd,
    ) -> io::Result<Self> {
        let mut active = None;
        let newest = |number| segments.disk().open(&super::file_name(number), true);
        if !end.open && end.last.number > 0 {
            give_back_reserved(&*newest(end.last.number)?);
        }
        if end.open {
            let mut segment = segments.segment(end.last.number).map_err(io::Error::other)?;
            segment.file = newest(end.last.number)?;
            active = Some(Active::new(segment, end.last.end));
        }
        let (previous, number_max) = (end.last, end.number_max);
        Ok(Self { segments, node, segment_bytes_max, active, previous, number_max })
    }

    /// Whether a record of this draft's size may go into the open segment after `planned` bytes.
    pub(crate) fn fits(&self, draft: &Draft, planned: u64) -> bool {
        self.active.as_ref().is_some_and(|active| {
            let offset = active.end + planned;
            let is_first = offset == SEGMENT_HEADER_BYTES as u64;
            is_first || offset + draft.shape().record_len(offset) <= self.segment_bytes_max
        })
    }

    /// Where a record goes that follows `planned` bytes of others, and its length there.
    pub(crate) fn place(&self, draft: &Draft, planned: u64) -> Option<(Position, u64)> {
        let active = self.active.as_ref()?;
        let offset = active.end + planned;
        Some((active.segment.position(offset), draft.shape().record_len(offset)))
    }

    /// Whether these bytes may still be only in memory or in the system's cache.
    pub(crate) fn is_unsynced(&self, at: Position) -> bool {
        self.active.as_ref().is_some_and(|active| {
            at.segment == active.segment.header.number && at.offset >= active.synced
        })
    }

    /// Sets space aside for `planned` bytes and some more, so that a segment lies together on the
    /// disk. Without it the write itself finds its blocks, or says that there are none.
    pub(crate) fn reserve(&mut self, planned: u64) {
        let Some(active) = self.active.as_mut() else { return };
        let wanted = active.end.saturating_add(planned);
        if wanted <= active.reserved {
            return;
        }
        let up_to = wanted.next_multiple_of(RESERVED_BYTES).min(self.segment_bytes_max.max(wanted));
        active.reserved = match active.segment.file.reserve(active.end, up_to - active.end) {
            Ok(()) => up_to,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => u64::MAX,
            Err(_) => wanted,
        };
    }

    /// Cuts the open segment where its records end, so that the next start may go on there.
    ///
    /// # Errors
    /// What the file system says; the next start then begins a new segment.
    pub(crate) fn trim(&mut self) -> io::Result<()> {
        match &self.active {
            Some(active) => active.segment.file.truncate(active.synced),
            None => Ok(()),
        }
    }

    /// Appends records where [`Self::place`] said they go; returns the bytes written.
    ///
    /// # Errors
    /// The segment is closed at its last synced position, whatever was written after it.
    pub(crate) fn append<'a>(
        &mut self,
        drafts: impl Iterator<Item = &'a Draft>,
    ) -> io::Result<u64> {
        let active = self.active.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut offset = active.end;
        let mut encoded: Vec<(Encoded, &Draft)> = Vec::new();
        for draft in drafts {
            let record = draft.encode(active.segment.header.tag, offset);
            offset += record.header.shape.record_len(offset);
            encoded.push((record, draft));
        }
        let zeros = vec![0; to_len(RECORD_ALIGN)];
        let parts: Vec<&[u8]> = encoded
            .iter()
            .flat_map(|(record, draft)| {
                [&record.head[..], draft.payload.bytes(), &zeros[..record.tail_len]]
            })
            .filter(|part| !part.is_empty())
            .collect();
        match active.segment.file.write_at(active.end, &parts) {
            Ok(()) => {
                let written = offset - active.end;
                active.end = offset;
                for (record, _) in &encoded {
                    let meta =
                        &record.head[HEADER_BYTES..][..record.header.shape.meta_len as usize];
                    active.footer.take_if(|footer| !footer.add(&record.header, meta));
                }
                Ok(written)
            }
            Err(error) => {
                self.close();
                Err(error)
            }
        }
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// The segment is closed at its last synced position; the sync is never tried again on it.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let Some(active) = self.active.as_mut() else { return Ok(()) };
        if active.synced == active.end {
            return Ok(());
        }
        let file = &active.segment.file;
        let sync = || if has(Bug::SyncsNothing) { Ok(()) } else { file.sync_data() };
        let again = |error| if has(Bug::BelievesSecondSync) { sync() } else { Err(error) };
        match sync().or_else(again) {
            Ok(()) => {
                active.synced = active.end;
                Ok(())
            }
            Err(error) => {
                self.close();
                Err(error)
            }
        }
    }

    /// Begins a new segment; the open one, if any, must be synced, and gets its footer.
    ///
    /// # Errors
    /// The log then has no open segment; the next attempt takes another number.
    pub(crate) fn rotate(&mut self, first_sequence: u64) -> io::Result<()> {
        if let Some(active) = self.active.as_mut() {
            let footer = active.write_footer();
            self.close();
            self.previous.footer = footer;
        }
        let number = self.number_max.checked_add(1).ok_or(io::ErrorKind::StorageFull)?;
        let disk = Arc::clone(self.segments.disk());
        let header = SegmentHeader {
            version: SEGMENT_VERSION,
            number,
            tag: disk.nonce()?,
            node: self.node,
            first_sequence,
            previous: self.previous,
        };
        let created = create(&*disk, header);
        if created.is_err() {
            // Best effort: what cannot be removed now is removed at the next start.
            let _ = disk.remove(&super::file_name(number));
        }
        // A header whose sync failed may still reach the disk: its number is used up.
        self.number_max = number;
        let segment = created?;
        self.segments.remember(segment.clone());
        self.active = Some(Active::new(segment, SEGMENT_HEADER_BYTES as u64));
        Ok(())
    }

    /// The tag of the open segment.
    pub(crate) fn tag(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.segment.header.tag)
    }

    /// Where the next record goes.
    pub(crate) fn end(&self) -> Predecessor {
        self.active.as_ref().map_or(self.previous, |active| {
            Predecessor::bare(active.segment.header.number, active.end)
        })
    }

    fn close(&mut self) {
        if let Some(active) = self.active.take() {
            give_back_reserved(&*active.segment.file);
            self.previous = Predecessor::bare(active.segment.header.number, active.synced);
        }
    }
}

/// Frees the blocks behind the end of a file that takes no more; its bytes stay as they are. Where
/// that fails they are missing until the segment goes.
fn give_back_reserved(file: &dyn DiskFile) {
    if let Err(error) = file.len().and_then(|len| file.truncate(len)) {
        tracing::debug!(%error, "the space set aside for a segment stays with it");
    }
}
