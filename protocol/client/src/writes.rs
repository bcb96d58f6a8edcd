// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client writes. Every call may be repeated with the same arguments: a node that did it
//! already answers as if it did it now, except [`Client::release`], which then finds no lease.

use bytes::Bytes;
use supernode_protocol::ids::{Cid, LeaseId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::limits::{
    PAGE_BLOCK_BYTES_MAX, ROOT_BLOCK_BYTES_MAX, SHARD_BYTES_MAX, SPAN_PROOF_BYTES_MAX,
};
use supernode_protocol::repair::Repair;
use supernode_protocol::tree::SpanProof;
use supernode_protocol::wire::{Ack, HeldIndexes, Receipt, Request, Response};

use crate::client::{Client, unexpected};
use crate::error::ClientError;
use crate::peer::Peer;

/// One shard to store.
#[derive(Debug, Clone)]
pub struct PutShard {
    /// The upload it belongs to.
    pub upload: UploadId,
    /// Its position.
    pub slot: Slot,
    /// What `bytes` hash to. The node checks it.
    pub shard: ShardId,
    /// The padded bytes.
    pub bytes: Bytes,
}

/// A commit that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The durable record behind it.
    pub ack: Ack,
    /// Slots of the group the node now counts under the object.
    pub slot_count: u32,
}

impl Client {
    /// Stores one shard and returns once it is as durable as the node's setting says.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn put_shard(&self, peer: &Peer, put: PutShard) -> Result<Ack, ClientError> {
        let PutShard { upload, slot, shard, bytes } = put;
        let len = bytes.len() as u64;
        check_shard_len(peer, len)?;
        self.stored(peer, &Request::PutShard { upload, slot, shard, len }, &[bytes]).await
    }

    /// Stores a manifest root or page under an upload.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn put_block(
        &self,
        peer: &Peer,
        upload: UploadId,
        cid: Cid,
        bytes: Bytes,
    ) -> Result<Ack, ClientError> {
        let len = bytes.len() as u64;
        check_len(peer, "manifest block", len, ROOT_BLOCK_BYTES_MAX as u64)?;
        self.stored(peer, &Request::PutBlock { upload, cid, len }, &[bytes]).await
    }

    /// Binds what was uploaded to the object it is part of.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn commit(&self, peer: &Peer, commit: Commit) -> Result<Committed, ClientError> {
        let request = Request::Commit(Box::new(commit));
        match self.ask_plain(peer, &request, &[]).await? {
            Response::Committed { ack, slot_count } => Ok(Committed { ack, slot_count }),
            _ => Err(unexpected(peer)),
        }
    }

    /// Proves to a node that the caller may restore slots of a group there, and stores the group's
    /// manifest. Shards and commit are then put under [`Repair::upload`], at the slots that the
    /// placement gives the node. `page` is empty for group 0. A node that has forgotten the proof
    /// (it has restarted, or nothing was written for ten minutes) refuses writes until it is shown
    /// again.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn repair(
        &self,
        peer: &Peer,
        repair: Repair,
        root: Bytes,
        page: Bytes,
    ) -> Result<Ack, ClientError> {
        let lens = (root.len() as u64, page.len() as u64);
        check_len(peer, "manifest root", lens.0, ROOT_BLOCK_BYTES_MAX as u64)?;
        if lens.1 > 0 {
            check_len(peer, "manifest page", lens.1, PAGE_BLOCK_BYTES_MAX as u64)?;
        }
        let len = |len| u32::try_from(len).expect("checked above");
        let (root_len, page_len) = (len(lens.0), len(lens.1));
        let request = Request::Repair { repair: Box::new(repair), root_len, page_len };
        self.stored(peer, &request, &[root, page]).await
    }

    /// Ends one of the caller's leases.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn release(&self, peer: &Peer, lease: LeaseId) -> Result<Ack, ClientError> {
        match self.ask_plain(peer, &Request::Release { lease }, &[]).await? {
            Response::Released(ack) => Ok(ack),
            _ => Err(unexpected(peer)),
        }
    }

    /// Moves the end of one of the caller's leases.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn renew(
        &self,
        peer: &Peer,
        lease: LeaseId,
        expiry: Expiry,
    ) -> Result<Ack, ClientError> {
        match self.ask_plain(peer, &Request::Renew { lease, expiry }, &[]).await? {
            Response::Renewed(ack) => Ok(ack),
            _ => Err(unexpected(peer)),
        }
    }

    /// What a holder signs for the chain about an object under one of the caller's deal leases.
    /// The signature is not checked here: that takes the chain's name.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn receipt(
        &self,
        peer: &Peer,
        lease: LeaseId,
        object: Cid,
        wanted: Vec<HeldIndexes>,
    ) -> Result<Receipt, ClientError> {
        let request = Request::Receipt { lease, object, wanted };
        match self.ask_plain(peer, &request, &[]).await? {
            Response::Receipt(receipt) => Ok(receipt),
            _ => Err(unexpected(peer)),
        }
    }

    /// Gives a holder of a group the proof of its span in the object's list of shards.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn keep_span(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        span: SpanProof,
    ) -> Result<Ack, ClientError> {
        let len = span.encode().len() as u64;
        check_len(peer, "span proof", len, SPAN_PROOF_BYTES_MAX as u64)?;
        let request = Request::KeepSpan { object, group, span: Box::new(span) };
        self.stored(peer, &request, &[]).await
    }

    async fn stored(
        &self,
        peer: &Peer,
        request: &Request,
        body: &[Bytes],
    ) -> Result<Ack, ClientError> {
        match self.ask_plain(peer, request, body).await? {
            Response::Stored(ack) => Ok(ack),
            _ => Err(unexpected(peer)),
        }
    }
}

pub(crate) fn check_shard_len(peer: &Peer, len: u64) -> Result<(), ClientError> {
    check_len(peer, "shard", len, SHARD_BYTES_MAX)
}

fn check_len(peer: &Peer, what: &str, len: u64, bytes_max: u64) -> Result<(), ClientError> {
    if (1..=bytes_max).contains(&len) {
        return Ok(());
    }
    let reason = format!("a {what} of {len} bytes is out of range; it has 1 to {bytes_max}");
    Err(ClientError::BadRequest { node: peer.node, reason })
}
