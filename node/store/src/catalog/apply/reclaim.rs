// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that nobody wants, and segments that nobody needs.
//!
//! - A record is **dead** from the tombstone of its thing, or from the record that replaced it, and
//!   stays so: a place in the log never comes back to life. Its blocks may become a hole.
//! - A segment is **anchored** by what lives and was begun in it: a thing by its first record, a
//!   lease by the commit that opened it, an upload by the oldest of its own records and of the
//!   things it ever held, a group by the oldest upload it came from. All other records of what
//!   lives are in later segments, so the oldest segments without an anchor can go, and a replay of
//!   the rest builds the same map. For that, whatever is gone in the end must also end in a replay
//!   that saw only the last part of its life; therefore every end is a record of its own, which
//!   ends the whole and whatever is left of it.

use super::Change;
use crate::catalog::entries::{DeadRecord, Kept, encode};
use crate::catalog::query::PAGE;
use crate::catalog::{IndexError, Kv, Thing, keys};
use crate::record::{Position, Reclaim};

impl<K: Kv> Change<'_, K> {
    /// Counts the record in its segment and over all.
    pub(super) fn count_record(&mut self) -> Result<(), IndexError> {
        self.usage.records += 1;
        self.usage.log_bytes += self.entry.record_len;
        let number = self.entry.at.segment;
        let mut segment = self.query().segment(number)?;
        segment.records += 1;
        segment.bytes += self.entry.record_len;
        self.kv.put(keys::segment(number), encode(&segment));
        Ok(())
    }

    /// Something that lives was begun in this segment.
    pub(super) fn anchor(&mut self, number: u32) -> Result<(), IndexError> {
        let mut segment = self.query().segment(number)?;
        segment.anchors += 1;
        self.kv.put(keys::segment(number), encode(&segment));
        Ok(())
    }

    /// It does not live any more.
    pub(super) fn release_anchor(&mut self, number: u32) -> Result<(), IndexError> {
        let mut segment = self.query().segment(number)?;
        segment.anchors = segment.anchors.saturating_sub(1);
        self.kv.put(keys::segment(number), encode(&segment));
        Ok(())
    }

    /// A record in this segment is read again.
    pub(super) fn need(&mut self, number: u32, bytes: u64) -> Result<(), IndexError> {
        let mut segment = self.query().segment(number)?;
        segment.needed += bytes;
        self.usage.needed_bytes += bytes;
        self.kv.put(keys::segment(number), encode(&segment));
        Ok(())
    }

    /// It is not any more.
    pub(super) fn need_no_more(&mut self, number: u32, bytes: u64) -> Result<(), IndexError> {
        if bytes == 0 {
            return Ok(());
        }
        let mut segment = self.query().segment(number)?;
        segment.needed = segment.needed.saturating_sub(bytes);
        self.usage.needed_bytes = self.usage.needed_bytes.saturating_sub(bytes);
        self.kv.put(keys::segment(number), encode(&segment));
        Ok(())
    }

    /// The record that kept a thing until now will never be read again.
    pub(super) fn leave_dead(&mut self, thing: Thing, kept: &Kept) -> Result<(), IndexError> {
        let Kept { at, payload_start, len, .. } = *kept;
        let record = DeadRecord { thing, payload_start, len, punched: false };
        if let Some((_, len)) = record.hole(at.offset) {
            self.usage.punchable_bytes += len;
            self.kv.put(keys::queue_punch(at), Vec::new());
        }
        self.kv.put(keys::dead(at), encode(&record));
        self.need_no_more(at.segment, kept.record_len())
    }

    pub(super) fn reclaim(&mut self, reclaim: &Reclaim) -> Result<(), IndexError> {
        match reclaim {
            Reclaim::Punched { records } => records.iter().try_for_each(|at| self.punched(*at)),
            Reclaim::Cleared { segment, until } => self.clear(*segment, *until),
            Reclaim::Gone { through } => self.leave_behind(*through),
        }
    }

    fn punched(&mut self, at: Position) -> Result<(), IndexError> {
        let record = self.query().dead_record(at)?.filter(|record| !record.punched);
        let Some(record) = record else { return Ok(()) };
        let punched = DeadRecord { punched: true, ..record };
        let left = punched.dead_bytes(at.offset);
        self.forget_hole(at, &record);
        self.give_back(at.segment, record.thing, record.len - left, left == 0)?;
        self.kv.delete(keys::queue_punch(at));
        self.kv.put(keys::dead(at), encode(&punched));
        Ok(())
    }

    fn clear(&mut self, segment: u32, until: u64) -> Result<(), IndexError> {
        loop {
            let page = self.query().dead_records(segment, until, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            for (at, record) in page {
                let left = record.dead_bytes(at.offset);
                self.forget_hole(at, &record);
                self.give_back(segment, record.thing, left, left > 0)?;
                self.kv.delete(keys::dead(at));
                self.kv.delete(keys::queue_punch(at));
                let tombstone = keys::tombstone(record.thing);
                if self.kv.get(&tombstone)?.is_some_and(|value| value == encode(&at)) {
                    self.kv.delete(tombstone);
                    self.usage.tombstones -= 1;
                }
            }
        }
    }

    /// No hole is left to be made in a record.
    fn forget_hole(&mut self, at: Position, record: &DeadRecord) {
        let hole = record.hole(at.offset).filter(|_| !record.punched);
        let len = hole.map_or(0, |(_, len)| len);
        self.usage.punchable_bytes = self.usage.punchable_bytes.saturating_sub(len);
    }

    fn give_back(
        &mut self,
        number: u32,
        thing: Thing,
        bytes: u64,
        is_last: bool,
    ) -> Result<(), IndexError> {
        let dead = &mut self.tallies(thing).dead;
        dead.bytes = dead.bytes.saturating_sub(bytes);
        dead.count = dead.count.saturating_sub(u64::from(is_last));
        let mut segment = self.query().segment(number)?;
        segment.returned += bytes;
        self.usage.returned_bytes += bytes;
        self.kv.put(keys::segment(number), encode(&segment));
        Ok(())
    }

    fn leave_behind(&mut self, through: u32) -> Result<(), IndexError> {
        while let Some((number, segment)) = self.query().oldest_segment()? {
            if number > through {
                break;
            }
            self.usage.records = self.usage.records.saturating_sub(segment.records);
            self.usage.log_bytes = self.usage.log_bytes.saturating_sub(segment.bytes);
            self.usage.returned_bytes = self.usage.returned_bytes.saturating_sub(segment.returned);
            self.kv.delete(keys::segment(number));
        }
        let through = through.max(self.query().gone_through()?);
        self.kv.put(keys::gone(), encode(&through));
        Ok(())
    }
}
