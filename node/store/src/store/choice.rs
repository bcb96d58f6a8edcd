// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: on which of several disks a shard or block is put.
//!
//! 1. A slot that an upload has filled is filled again where it is: no disk keeps the older one.
//! 2. What is here already is adopted where it is.
//! 3. What belongs to a group goes where the upload has put the group's first: a disk that dies
//!    costs few groups then.
//! 4. The rest goes by free bytes. Each disk draws a number from the group's name, and is the
//!    better off the more it has free: disks fill in proportion, writers at the same time spread,
//!    and the same group meets the same disk as long as their proportions are about the same.

use supernode_protocol::ids::{Slot, UploadId};

/// Stripes that lie together: as many as a group has at most.
const WINDOW_STRIPES: u32 = 64;

/// What speaks for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Candidate {
    /// Names it, always the same.
    pub(super) id: u64,
    /// Bytes that may still be put there.
    pub(super) free_bytes: u64,
    /// It is held up: what is put there would wait.
    pub(super) hangs: bool,
    /// The upload has something in this slot there.
    pub(super) holds_slot: bool,
    /// Equal bytes are there and count as used.
    pub(super) holds_equal: bool,
    /// The upload has slots of the same group there.
    pub(super) holds_group: bool,
}

/// A run of stripes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// The first.
    pub(super) start: u32,
    /// How many.
    pub(super) len: u32,
}

/// The stripes that lie together with a slot.
pub(super) fn window(slot: Slot) -> Window {
    Window { start: slot.stripe / WINDOW_STRIPES * WINDOW_STRIPES, len: WINDOW_STRIPES }
}

/// What an upload's slot is drawn for; blocks are in no slot and go with the first ones.
pub(super) fn key(upload: UploadId, slot: Option<Slot>) -> [u8; 32] {
    let window = slot.map_or(0, |slot| window(slot).start);
    let mut hasher = blake3::Hasher::new();
    hasher.update(upload.as_bytes()).update(&window.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// The disks to try with `len` bytes, the best first, as positions among the candidates.
pub(super) fn order(key: &[u8; 32], len: u64, candidates: &[Candidate]) -> Vec<usize> {
    if let Some(only) = candidates.iter().position(|candidate| candidate.holds_slot) {
        return vec![only];
    }
    let mut ranked: Vec<_> = candidates
        .iter()
        .enumerate()
        .map(|(position, candidate)| {
            let has_room = candidate.free_bytes >= len;
            let rank = match candidate {
                Candidate { hangs: true, .. } => 4,
                Candidate { holds_equal: true, .. } => 0,
                Candidate { holds_group: true, .. } if has_room => 1,
                _ if has_room => 2,
                // It says best itself why not.
                _ => 3,
            };
            (rank, draw(key, candidate), position)
        })
        .collect();
    ranked.sort_by(|(rank, draw, _), (other, other_draw, _)| {
        rank.cmp(other).then_with(|| draw.total_cmp(other_draw))
    });
    ranked.into_iter().map(|(_, _, position)| position).collect()
}

/// Weighted rendezvous: the smallest of these is a disk's in proportion to its free bytes.
fn draw(key: &[u8; 32], candidate: &Candidate) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key).update(&candidate.id.to_le_bytes());
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    let number = f64::from(u32::from_le_bytes([a, b, c, d]));
    // Strictly between 0 and 1, so that its logarithm is finite and not 0.
    let uniform = (number + 0.5) / (f64::from(u32::MAX) + 1.0);
    -uniform.ln() / (candidate.free_bytes as f64)
}

#[cfg(test)]
mod tests {
    use supernode_protocol::ids::{Slot, UploadId};

    use super::{Candidate, key, order, window};

    fn disks(free: &[u64]) -> Vec<Candidate> {
        let disk = |(id, free_bytes): (u64, &u64)| Candidate {
            id,
            free_bytes: *free_bytes,
            ..Candidate::default()
        };
        (1..).zip(free).map(disk).collect()
    }

    fn key_of(number: u8, stripe: u32) -> [u8; 32] {
        key(UploadId::from_bytes([number; 16]), Some(Slot { stripe, index: 0 }))
    }

    #[test]
    fn disks_are_chosen_in_proportion_to_their_free_bytes() {
        let disks = disks(&[1 << 30, 2 << 30, 5 << 30, 0]);
        let mut counts = [0_i32; 4];
        for upload in 0..=255 {
            for group in 0..32 {
                counts[order(&key_of(upload, group * 64), 1, &disks)[0]] += 1;
            }
        }
        for (count, expected) in counts.into_iter().zip([1024, 2048, 5120, 0]) {
            assert!((count - expected).abs() <= expected / 10, "{counts:?}");
        }
    }

    #[test]
    fn a_group_keeps_its_disk_while_the_disks_fill_alike() {
        let (empty, fuller) = (disks(&[100 << 30, 300 << 30]), disks(&[50 << 30, 150 << 30]));
        for upload in 0..=255 {
            let first = order(&key_of(upload, 0), 1, &empty);
            assert_eq!(first, order(&key_of(upload, 63), 1, &empty), "the same group");
            assert_eq!(first, order(&key_of(upload, 0), 1, &fuller), "the same proportions");
        }
    }

    #[test]
    fn what_is_there_goes_before_what_is_free() {
        let mut disks = disks(&[9 << 30, 1 << 30, 1 << 30, 10]);
        let key = key_of(1, 0);
        disks[3].holds_group = true;
        assert_eq!(order(&key, 11, &disks)[3], 3, "without room nothing else counts");
        assert_eq!(order(&key, 10, &disks)[0], 3);
        disks[2].holds_group = true;
        disks[1].holds_equal = true;
        assert_eq!(order(&key, 11, &disks), [1, 2, 0, 3]);
        disks[1].hangs = true;
        assert_eq!(order(&key, 11, &disks), [2, 0, 3, 1]);
        disks[3].holds_slot = true;
        assert_eq!(order(&key, 11, &disks), [3], "a slot has one disk");
    }

    #[test]
    fn a_window_is_a_group_long() {
        let at = |stripe| window(Slot { stripe, index: 3 }).start;
        assert_eq!([at(0), at(63), at(64), at(u32::MAX)], [0, 0, 64, u32::MAX - 63]);
    }
}
