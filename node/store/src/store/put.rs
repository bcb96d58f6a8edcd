// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting: a shard or block goes to one disk, as [`super::choice`] orders them, and to the next
//! one where that refuses for want of room or of a working disk.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use supernode_protocol::ids::{Cid, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::limits::ROOT_BLOCK_BYTES_MAX;
use supernode_protocol::wire::Ack;
use tokio::time::timeout;

use super::choice::{Candidate, key, order};
use super::lane::{Lane, Outlook};
use super::{PutBlock, PutShard, Shared, Store};
use crate::buffer::FilledShard;
use crate::catalog::Thing;
use crate::error::StoreError;
use crate::record::{Holder, Placed, Position};
use crate::writer::Op;

/// How long a lane may take to say what it has before others are chosen without it: what hangs
/// there must not keep anybody from writing elsewhere.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// What is put, as far as the choice of a disk goes.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub(super) caller: NodeId,
    pub(super) upload: UploadId,
    pub(super) slot: Option<Slot>,
    pub(super) thing: Thing,
    pub(super) len: u64,
}

impl Store {
    /// Stores a shard under an upload; the first put of an upload opens it for its caller.
    ///
    /// # Errors
    /// [`StoreError::BodyMismatch`], [`StoreError::Full`], [`StoreError::NotOwner`].
    pub async fn put_shard(&self, put: PutShard) -> Result<Ack, StoreError> {
        let PutShard { caller, upload, slot, shard, buffer } = put;
        let filled = buffer.finish(shard)?;
        let placed = Placed { holder: Holder { upload, owner: caller }, slot };
        self.put_filled(placed, shard, filled).await
    }

    /// Stores a shard whose bytes are known to be its own.
    pub(crate) async fn put_filled(
        &self,
        placed: Placed,
        shard: ShardId,
        filled: FilledShard,
    ) -> Result<Ack, StoreError> {
        let Placed { holder: Holder { upload, owner: caller }, slot } = placed;
        let (thing, len) = (Thing::Shard(shard), filled.bytes().len() as u64);
        let _claim = self.claim_room(len).await;
        let item = Item { caller, upload, slot: Some(slot), thing, len };
        let op = |seen_at| {
            let filled = filled.clone();
            Op::PutShard { caller, upload, slot, shard, filled, seen_at }
        };
        self.shared.put(item, op).await
    }

    /// Stores a manifest root or page under an upload.
    ///
    /// # Errors
    /// As [`Self::put_shard`].
    pub async fn put_block(&self, put: PutBlock) -> Result<Ack, StoreError> {
        let PutBlock { caller, upload, cid, bytes } = put;
        let (len, max) = (bytes.len() as u64, ROOT_BLOCK_BYTES_MAX as u64);
        if len == 0 || len > max {
            return Err(StoreError::ShardLength { len, max });
        }
        let actual = Cid::of(&bytes);
        if actual != cid {
            let reason = format!("the bytes hash to {actual}, announced was {cid}");
            return Err(StoreError::BodyMismatch { reason });
        }
        let _claim = self.claim_room(len).await;
        let item = Item { caller, upload, slot: None, thing: Thing::Block(cid), len };
        let op = |seen_at| {
            let bytes = bytes.clone();
            Op::PutBlock { caller, upload, cid, bytes, seen_at }
        };
        self.shared.put(item, op).await
    }
}

impl Shared {
    pub(super) async fn put(
        &self,
        item: Item,
        op: impl Fn(Option<Position>) -> Op,
    ) -> Result<Ack, StoreError> {
        if let Some(lane) = self.only() {
            let seen_at = lane.seen(item.thing).await?;
            return Ok(lane.perform(op(seen_at)).await?.ack);
        }
        // A drain that is about to end waits for it.
        let _change = self.grace.begin().await;
        self.put_on(item, op, self.outlooks(item).await?).await
    }

    /// As [`Self::put`], but never on a disk that is drained.
    pub(super) async fn put_elsewhere(
        &self,
        item: Item,
        op: impl Fn(Option<Position>) -> Op,
    ) -> Result<Ack, StoreError> {
        let mut outlooks = self.outlooks(item).await?;
        outlooks.retain(|(lane, _)| !lane.is_draining());
        self.put_on(item, op, outlooks).await
    }

    async fn put_on(
        &self,
        item: Item,
        op: impl Fn(Option<Position>) -> Op,
        outlooks: Vec<(&Arc<Lane>, Outlook)>,
    ) -> Result<Ack, StoreError> {
        let candidates: Vec<_> =
            outlooks.iter().map(|(lane, outlook)| candidate(lane, outlook, item)).collect();
        let mut refusal = None;
        for position in order(&key(item.upload, item.slot), item.len, &candidates) {
            let (lane, outlook) = &outlooks[position];
            // It may have come to be drained while another one refused.
            if lane.is_draining() && !outlook.holds_slot {
                continue;
            }
            match self.judge(lane, lane.perform(op(outlook.seen_at)).await) {
                Ok(done) => return Ok(done.ack),
                Err(error) if may_go_elsewhere(&error) => {
                    // Where all refuse, the want of room is what the caller can do something about.
                    let is_full = matches!(refusal, Some(StoreError::Full { .. }));
                    refusal = refusal.filter(|_| is_full).or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(refusal.or_else(|| self.offline()).unwrap_or_else(|| {
            let (wanted_bytes, reason) = (item.len, "no disk takes new records");
            StoreError::Full { wanted_bytes, reason }
        }))
    }

    /// What each lane that answers in time has of an upload and a thing.
    async fn outlooks(&self, item: Item) -> Result<Vec<(&Arc<Lane>, Outlook)>, StoreError> {
        let Item { caller, upload, slot, thing, .. } = item;
        let looks = self.online().map(|lane| async move {
            let look = timeout(LOOK_PATIENCE, lane.outlook(upload, slot, thing));
            (lane, look.await.map(|outlook| self.judge(lane, outlook)))
        });
        let mut outlooks = Vec::new();
        for (lane, look) in join_all(looks).await {
            match look {
                Ok(Ok(outlook)) => {
                    if outlook.owner.is_some_and(|owner| owner != caller) {
                        let what = format!("upload {upload}");
                        return Err(StoreError::NotOwner { what, caller });
                    }
                    // What an upload has on a disk that is drained is replaced there.
                    if !lane.is_draining() || outlook.holds_slot {
                        outlooks.push((lane, outlook));
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(disk = %lane.path().display(), %error, "puts pass it over");
                }
                Err(_) => {
                    tracing::warn!(disk = %lane.path().display(), "puts pass it over: it is slow");
                }
            }
        }
        Ok(outlooks)
    }
}

fn candidate(lane: &Lane, outlook: &Outlook, item: Item) -> Candidate {
    let Outlook { holds_slot, holds_group, is_counted, .. } = *outlook;
    // A block is small and has to be with its group in the end.
    let holds_equal = is_counted && (item.slot.is_some() || holds_group);
    let (id, free_bytes, hangs) = (lane.id(), lane.free_bytes(), lane.hangs());
    Candidate { id, free_bytes, hangs, holds_slot, holds_equal, holds_group }
}

/// Whether another disk may take what this one refused.
fn may_go_elsewhere(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Full { .. }
            | StoreError::Io { .. }
            | StoreError::Index { .. }
            | StoreError::Stopped { .. }
            | StoreError::Offline { .. }
    )
}
