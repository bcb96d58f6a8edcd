// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client reads. Nothing is returned that was not checked, and nothing is allocated for a
//! length that only the node claims.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot};
use supernode_protocol::limits::{PAGE_BLOCK_BYTES_MAX, ROOT_BLOCK_BYTES_MAX, SHARD_BYTES_MAX};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::{RangeVerifier, align_to_groups, proof_len};
use supernode_protocol::wire::{ByteRange, LeaseEntry, NodeStatus, Request, Response};

use crate::client::{Client, unexpected};
use crate::error::ClientError;
use crate::peer::Peer;

/// Bytes hashed at a time: enough for BLAKE3 to use the widest instructions.
const HASH_STEP_BYTES: usize = 128 << 10;

/// Manifest and placement of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAnswer {
    /// The manifest root, if it was asked for; it hashes to the object's CID.
    pub root: Option<Bytes>,
    /// The group's page, except for group 0, whose page is in the root. **Not yet checked**: only
    /// the root knows its hash. Open it with `manifest::Root::open_page`.
    pub page: Option<Bytes>,
    /// Who holds what. The signature holds and it is of this object and group; whether its
    /// writer may place is for the caller to judge.
    pub placement: Signed<PlacementRecord>,
}

impl Client {
    /// Reads a whole shard. `shard_len` is what the manifest says; the bytes are hashed as they
    /// come.
    ///
    /// # Errors
    /// [`ClientError::Lied`] when the node's bytes or their length are not the shard's.
    pub async fn shard(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
    ) -> Result<Bytes, ClientError> {
        let len = addressable(peer, shard_len)?;
        let request = Request::GetShard { shard, range: None };
        let (mut call, response) = self.ask(peer, &request, Bytes::new()).await?;
        let whole = ByteRange { offset: 0, len: shard_len };
        check_header(peer, &response, shard_len, whole, 0)?;
        let mut bytes = BytesMut::with_capacity(len);
        let mut hasher = blake3::Hasher::new();
        let mut body = call.body(shard_len);
        while bytes.len() < len {
            let hashed = bytes.len();
            body.append(&mut bytes, HASH_STEP_BYTES.min(len - hashed)).await?;
            hasher.update(&bytes[hashed..]);
        }
        if ShardId::from_bytes(*hasher.finalize().as_bytes()) != shard {
            let reason = format!("the bytes do not hash to {shard}");
            return Err(lied(peer, "shard", reason));
        }
        call.end().await?;
        Ok(bytes.freeze())
    }

    /// Reads exactly `range` of a shard, checked group by group against the shard's id. The node
    /// sends whole groups of 16 KiB; what was not asked for is cut off.
    ///
    /// # Errors
    /// [`ClientError::BadRequest`] for a range that is not within the shard,
    /// [`ClientError::Lied`] when proof, bytes or length are not the shard's.
    pub async fn shard_range(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
        range: Range<u64>,
    ) -> Result<Bytes, ClientError> {
        addressable(peer, shard_len)?;
        let no_range = |error: &dyn std::fmt::Display| ClientError::BadRequest {
            node: peer.node,
            reason: error.to_string(),
        };
        if range.is_empty() {
            return Err(no_range(&"the range is empty"));
        }
        let aligned =
            align_to_groups(range.clone(), shard_len).map_err(|error| no_range(&error))?;
        let proof_bytes = proof_len(shard_len, range.clone()).map_err(|error| no_range(&error))?;
        let wanted = ByteRange { offset: range.start, len: range.end - range.start };
        let request = Request::GetShard { shard, range: Some(wanted) };
        let (mut call, response) = self.ask(peer, &request, Bytes::new()).await?;
        let sent = ByteRange { offset: aligned.start, len: aligned.end - aligned.start };
        check_header(peer, &response, shard_len, sent, proof_bytes)?;

        let mut body = call.body(proof_bytes + sent.len);
        let mut proof = BytesMut::new();
        body.append(&mut proof, in_memory(proof_bytes)).await?;
        let mut verifier = RangeVerifier::new(&shard, shard_len, range.clone(), &proof)
            .map_err(|error| lied(peer, "range proof", error))?;
        let mut bytes = BytesMut::with_capacity(in_memory(sent.len));
        while let Some(group_bytes) = verifier.next_len() {
            let checked = bytes.len();
            body.append(&mut bytes, group_bytes).await?;
            verifier
                .push(&bytes[checked..])
                .map_err(|error| lied(peer, "range of a shard", error))?;
        }
        verifier.finish().map_err(|error| lied(peer, "range of a shard", error))?;
        call.end().await?;
        let start = in_memory(range.start - aligned.start);
        Ok(bytes.freeze().slice(start..start + in_memory(wanted.len)))
    }

    /// Reads manifest and placement of a group.
    ///
    /// # Errors
    /// [`ClientError::Lied`] when the root does not hash to the CID or the placement is not a
    /// signed one of this group.
    pub async fn group(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        with_root: bool,
    ) -> Result<GroupAnswer, ClientError> {
        let request = Request::Group { object, group, with_root };
        let (mut call, response) = self.ask(peer, &request, Bytes::new()).await?;
        let Response::Group { root_len, page_len, placement } = response else {
            return Err(unexpected(peer));
        };
        check_placement(peer, &placement, object, group)?;
        let root_len = block_len(peer, "manifest root", root_len, with_root, ROOT_BLOCK_BYTES_MAX)?;
        let page_len =
            block_len(peer, "manifest page", page_len, group != 0, PAGE_BLOCK_BYTES_MAX)?;
        let mut body = call.body((root_len + page_len) as u64);
        let mut root = BytesMut::new();
        body.append(&mut root, root_len).await?;
        if with_root && Cid::of(&root) != object {
            return Err(lied(peer, "manifest root", format!("it does not hash to {object}")));
        }
        let mut page = BytesMut::new();
        body.append(&mut page, page_len).await?;
        call.end().await?;
        Ok(GroupAnswer {
            root: with_root.then(|| root.freeze()),
            page: (group != 0).then(|| page.freeze()),
            placement: *placement,
        })
    }

    /// Which slots of a group the node says it holds. A claim, not a proof.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn stat(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
    ) -> Result<Vec<(Slot, ShardId)>, ClientError> {
        let request = Request::Stat { object, group };
        match self.ask_plain(peer, &request, Bytes::new()).await? {
            Response::Held { slots } => Ok(slots),
            _ => Err(unexpected(peer)),
        }
    }

    /// One page of the caller's own leases on the node, in `(lease, object, group)` order. Ask
    /// again after the last entry until none come.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn leases(
        &self,
        peer: &Peer,
        after: Option<(LeaseId, Cid, u32)>,
    ) -> Result<Vec<LeaseEntry>, ClientError> {
        match self.ask_plain(peer, &Request::Leases { after }, Bytes::new()).await? {
            Response::Leases { entries } => Ok(entries),
            _ => Err(unexpected(peer)),
        }
    }

    /// One page of the nodes the node knows, in id order. Those of another network, and those
    /// whose signature or limits do not hold, are left out. Ask again after the last one until
    /// none come.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn members(
        &self,
        peer: &Peer,
        after: Option<NodeId>,
    ) -> Result<Vec<Signed<NodeRecord>>, ClientError> {
        let response = self.ask_plain(peer, &Request::Members { after }, Bytes::new()).await?;
        let Response::Members { mut nodes } = response else {
            return Err(unexpected(peer));
        };
        nodes.retain(|record| match check_member(record, self.network()) {
            Ok(()) => true,
            Err(reason) => {
                tracing::debug!(node = %peer.node, reason, "left out a node record");
                false
            }
        });
        Ok(nodes)
    }

    /// What the node says it keeps.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn status(&self, peer: &Peer) -> Result<NodeStatus, ClientError> {
        match self.ask_plain(peer, &Request::Status, Bytes::new()).await? {
            Response::Status(status) => Ok(status),
            _ => Err(unexpected(peer)),
        }
    }
}

fn addressable(peer: &Peer, shard_len: u64) -> Result<usize, ClientError> {
    if shard_len > SHARD_BYTES_MAX {
        let reason = format!("a shard of {shard_len} bytes is over the limit of {SHARD_BYTES_MAX}");
        return Err(ClientError::BadRequest { node: peer.node, reason });
    }
    Ok(in_memory(shard_len))
}

/// A length that was checked against a limit far below what memory can address.
fn in_memory(len: u64) -> usize {
    usize::try_from(len).expect("bounded by the largest shard")
}

fn check_header(
    peer: &Peer,
    response: &Response,
    shard_len: u64,
    range: ByteRange,
    proof_bytes: u64,
) -> Result<(), ClientError> {
    let Response::Shard { shard_len: stated_len, range: stated, proof_len } = response else {
        return Err(unexpected(peer));
    };
    if *stated_len != shard_len {
        let reason = format!("it says {stated_len} bytes, the manifest says {shard_len}");
        return Err(lied(peer, "shard length", reason));
    }
    if *stated != range || u64::from(*proof_len) != proof_bytes {
        let ByteRange { offset, len } = range;
        let reason = format!("{len} bytes from {offset} with {proof_bytes} of proof were due");
        return Err(lied(peer, "range of a shard", reason));
    }
    Ok(())
}

/// The length of a manifest block, which is there exactly when it was asked for.
fn block_len(
    peer: &Peer,
    what: &'static str,
    len: u32,
    is_due: bool,
    bytes_max: usize,
) -> Result<usize, ClientError> {
    match usize::try_from(len) {
        Ok(len) if (len > 0) == is_due && len <= bytes_max => Ok(len),
        _ => Err(lied(peer, what, format!("its length of {len} bytes cannot be"))),
    }
}

fn check_placement(
    peer: &Peer,
    placement: &Signed<PlacementRecord>,
    object: Cid,
    group: u32,
) -> Result<(), ClientError> {
    let body = placement.verify().map_err(|error| lied(peer, "placement", error))?;
    body.validate().map_err(|error| lied(peer, "placement", error))?;
    if (body.object, body.group) != (object, group) {
        let reason = format!("it is of group {} of {}", body.group, body.object);
        return Err(lied(peer, "placement", reason));
    }
    Ok(())
}

fn check_member(record: &Signed<NodeRecord>, network: &str) -> Result<(), String> {
    let body = record.verify().map_err(|error| error.to_string())?;
    body.validate().map_err(|error| error.to_string())?;
    if body.network == network { Ok(()) } else { Err("it is of another network".to_owned()) }
}

fn lied(peer: &Peer, what: &'static str, reason: impl std::fmt::Display) -> ClientError {
    ClientError::Lied { node: peer.node, what, reason: reason.to_string() }
}
