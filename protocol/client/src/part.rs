// SPDX-License-Identifier: MIT OR Apache-2.0
//! One part of a shard on its way here: what was asked for, what is verified, what is next.
//!
//! Every read of shard bytes goes through a [`Part`], alone or in a batch. It knows what to ask a
//! node for at any moment, so a transfer that was cut goes on from the last verified group, at
//! whichever node. Nothing a node says about lengths is used: they follow from the shard's length
//! and the range, and an answer that states others is a lie.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use supernode_protocol::ids::ShardId;
use supernode_protocol::limits::SHARD_BYTES_MAX;
use supernode_protocol::tree::{
    GROUP_BYTES, RangeVerifier, align_to_groups, group_count, proof_len,
};
use supernode_protocol::wire::{ByteRange, Response, Want};

use crate::call::Call;
use crate::error::ClientError;

/// Verified bytes that are handed out at a time: eight groups.
pub(crate) const BATCH_BYTES: usize = 128 << 10;

/// Bytes of a shard that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The shard.
    pub shard: ShardId,
    /// The shard's length in bytes, from the manifest. It is never taken from a node.
    pub shard_len: u64,
    /// Which bytes of it.
    pub range: Range<u64>,
}

impl Wanted {
    /// All bytes of a shard of `shard_len` bytes.
    pub fn whole(shard: ShardId, shard_len: u64) -> Self {
        Self { shard, shard_len, range: 0..shard_len }
    }
}

/// How far the transfer of what is wanted has come.
#[derive(Debug)]
pub(crate) struct Part {
    wanted: Wanted,
    /// First byte that is not verified; before the first group came, the first one wanted.
    next: u64,
    /// End of the last group that is wanted.
    end: u64,
    /// Of the answer under way.
    verifier: Option<RangeVerifier>,
    /// Verified bytes that were not taken yet, and then what came of the next group.
    buffer: BytesMut,
    verified_bytes: usize,
}

impl Part {
    /// Nothing of `wanted` has come yet.
    ///
    /// # Errors
    /// Says what is wrong with `wanted`.
    pub(crate) fn new(wanted: Wanted) -> Result<Self, String> {
        let Wanted { shard_len, range, .. } = &wanted;
        if *shard_len > SHARD_BYTES_MAX {
            return Err(format!(
                "a shard of {shard_len} bytes is over the limit of {SHARD_BYTES_MAX}"
            ));
        }
        if range.is_empty() {
            return Err("the range is empty".to_owned());
        }
        let aligned =
            align_to_groups(range.clone(), *shard_len).map_err(|error| error.to_string())?;
        let next = range.start;
        let buffer = BytesMut::new();
        Ok(Self { next, end: aligned.end, wanted, verifier: None, buffer, verified_bytes: 0 })
    }

    /// What to ask a node for next. Shards of more than one group come with a proof even if all of
    /// them is wanted, so that each group is checked as it comes; that costs as much time as
    /// hashing the shard in one go, and one part in 256 more bytes.
    pub(crate) fn want(&self) -> Want {
        let Wanted { shard, shard_len, range } = &self.wanted;
        let is_one_group = group_count(*shard_len) == 1 && *range == (0..*shard_len);
        let rest = ByteRange { offset: self.next, len: range.end - self.next };
        Want { shard: *shard, range: (!is_one_group).then_some(rest) }
    }

    /// Judges the frame of an answer to [`Part::want`] and reads the proof after it.
    ///
    /// # Errors
    /// [`ClientError::Lied`] for anything that is not what was due.
    pub(crate) async fn begin(
        &mut self,
        response: &Response,
        call: &mut Call,
    ) -> Result<(), ClientError> {
        let node = call.node();
        let lied = |what, reason| ClientError::Lied { node, what, reason };
        let Response::Shard { shard_len: stated_len, range: stated, proof_len: stated_proof } =
            response
        else {
            let reason = "the answer is of another kind than the request".to_owned();
            return Err(ClientError::Protocol { node, reason });
        };
        let Wanted { shard, shard_len, range } = &self.wanted;
        if stated_len != shard_len {
            let reason = format!("it says {stated_len} bytes, the manifest says {shard_len}");
            return Err(lied("shard length", reason));
        }
        let rest = self.next..range.end;
        let sent = align_to_groups(rest.clone(), *shard_len).expect("checked at the start");
        let proof_bytes = proof_len(*shard_len, rest.clone()).expect("checked at the start");
        let (offset, len) = (sent.start, sent.end - sent.start);
        if *stated != (ByteRange { offset, len }) || u64::from(*stated_proof) != proof_bytes {
            let reason = format!("{len} bytes from {offset} with {proof_bytes} of proof were due");
            return Err(lied("range of a shard", reason));
        }
        call.expect_body(proof_bytes + len);
        let mut proof = BytesMut::new();
        call.fill(&mut proof, in_memory(proof_bytes)).await?;
        let verifier = RangeVerifier::new(shard, *shard_len, rest, &proof)
            .map_err(|error| lied("range proof", error.to_string()))?;
        self.next = sent.start;
        self.verifier = Some(verifier);
        Ok(())
    }

    /// Whether an answer is under way.
    pub(crate) fn has_begun(&self) -> bool {
        self.verifier.is_some()
    }

    /// Reads and checks the next group. Dropping the future loses nothing that came.
    ///
    /// # Errors
    /// [`ClientError::Lied`] for bytes that are not the shard's.
    pub(crate) async fn advance(&mut self, call: &mut Call) -> Result<(), ClientError> {
        let group_bytes = self.verifier.as_ref().and_then(RangeVerifier::next_len);
        let (Some(verifier), Some(group_bytes)) = (self.verifier.as_mut(), group_bytes) else {
            return Ok(());
        };
        let group_end = self.verified_bytes + group_bytes;
        call.fill(&mut self.buffer, group_end).await?;
        verifier.push(&self.buffer[self.verified_bytes..group_end]).map_err(|error| {
            let (node, reason) = (call.node(), error.to_string());
            ClientError::Lied { node, what: "shard", reason }
        })?;
        self.verified_bytes = group_end;
        self.next += group_bytes as u64;
        Ok(())
    }

    /// Forgets the answer under way and what of its last group is not verified.
    pub(crate) fn interrupt(&mut self) {
        self.buffer.truncate(self.verified_bytes);
        self.verifier = None;
    }

    /// Whether every byte that is wanted is verified.
    pub(crate) fn is_complete(&self) -> bool {
        self.next >= self.end
    }

    /// Whether a group is verified already, taken or not.
    pub(crate) fn has_progress(&self) -> bool {
        self.next > self.wanted.range.start
    }

    /// Verified bytes that may be taken.
    pub(crate) fn verified_bytes(&self) -> usize {
        self.verified_bytes
    }

    /// Makes room for the bytes to come, `bytes_max` of them at most.
    pub(crate) fn reserve(&mut self, bytes_max: usize) {
        let missing = in_memory(self.end - self.next.min(self.end)) + GROUP_BYTES;
        self.buffer.reserve(missing.min(bytes_max));
    }

    /// The verified bytes at hand, without those around the range that only served to check it.
    pub(crate) fn take(&mut self) -> Bytes {
        let verified = self.buffer.split_to(self.verified_bytes).freeze();
        self.verified_bytes = 0;
        let first = self.next - verified.len() as u64;
        let within = |byte: u64| in_memory(byte.saturating_sub(first)).min(verified.len());
        let Range { start, end } = self.wanted.range;
        verified.slice(within(start)..within(end))
    }
}

/// A length that was checked against a limit far below what memory can address.
fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("bounded by the largest shard")
}
