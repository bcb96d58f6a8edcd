// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client reads. Nothing is returned that was not checked, and nothing is allocated for a
//! length that only the node claims.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot};
use supernode_protocol::limits::{PAGE_BLOCK_BYTES_MAX, ROOT_BLOCK_BYTES_MAX};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::{LeaseEntry, NodeStatus, Request, Response};

use crate::client::{Client, unexpected};
use crate::error::ClientError;
use crate::part::Wanted;
use crate::peer::Peer;

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
    /// Reads a whole shard into memory. `shard_len` is what the manifest says.
    ///
    /// # Errors
    /// As [`Client::read_shard`] and its reader.
    pub async fn shard(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
    ) -> Result<Bytes, ClientError> {
        let wanted = Wanted::whole(shard, shard_len);
        self.read_shard(std::slice::from_ref(peer), wanted)?.rest().await
    }

    /// Reads exactly `range` of a shard into memory. The node sends whole groups of 16 KiB; what
    /// was not asked for is cut off.
    ///
    /// # Errors
    /// As [`Client::read_shard`] and its reader.
    pub async fn shard_range(
        &self,
        peer: &Peer,
        shard: ShardId,
        shard_len: u64,
        range: Range<u64>,
    ) -> Result<Bytes, ClientError> {
        let wanted = Wanted { shard, shard_len, range };
        self.read_shard(std::slice::from_ref(peer), wanted)?.rest().await
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
        self.in_time(peer, self.read_group(peer, object, group, with_root)).await
    }

    async fn read_group(
        &self,
        peer: &Peer,
        object: Cid,
        group: u32,
        with_root: bool,
    ) -> Result<GroupAnswer, ClientError> {
        let request = Request::Group { object, group, with_root };
        let (mut call, response) = self.ask(peer, &request, &[]).await?;
        let Response::Group { root_len, page_len, placement } = response else {
            return Err(unexpected(peer));
        };
        check_placement(peer, &placement, object, group)?;
        let root_len = block_len(peer, "manifest root", root_len, with_root, ROOT_BLOCK_BYTES_MAX)?;
        let page_len =
            block_len(peer, "manifest page", page_len, group != 0, PAGE_BLOCK_BYTES_MAX)?;
        call.expect_body((root_len + page_len) as u64);
        let mut root = BytesMut::new();
        call.fill(&mut root, root_len).await?;
        if with_root && Cid::of(&root) != object {
            return Err(lied(peer, "manifest root", format!("it does not hash to {object}")));
        }
        let mut page = BytesMut::new();
        call.fill(&mut page, page_len).await?;
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
        match self.ask_plain(peer, &request, &[]).await? {
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
        match self.ask_plain(peer, &Request::Leases { after }, &[]).await? {
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
        let response = self.ask_plain(peer, &Request::Members { after }, &[]).await?;
        let Response::Members { mut nodes } = response else {
            return Err(unexpected(peer));
        };
        nodes.retain(|record| match check_member(record, &self.config().network) {
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
        match self.ask_plain(peer, &Request::Status, &[]).await? {
            Response::Status(status) => Ok(status),
            _ => Err(unexpected(peer)),
        }
    }
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
