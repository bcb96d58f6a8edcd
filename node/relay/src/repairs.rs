// SPDX-License-Identifier: MIT OR Apache-2.0
//! The repairs that clients have proven, and so what they may write although they are on no
//! list of writers.
//!
//! A repair is remembered for the client that proved it, on all its connections, until it is
//! committed or has not been used for [`IDLE`]. Forgetting one harms nobody: it is shown again.
//! What is remembered is bounded by the slots that it speaks of, and for each client by a part of
//! them that any single repair fits into.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use supernode_protocol::ids::{NodeId, UploadId};
use supernode_protocol::limits::{PAGE_EXTENTS_MAX, STRIPE_WIDTH_MAX};
use supernode_protocol::repair::Allowed;
use tokio::time::Instant;

/// How long a repair without writes is remembered.
const IDLE: Duration = Duration::from_secs(600);
/// Slots of the largest group: more than these a client never needs at a time.
pub(crate) const CLIENT_SLOTS_MAX: usize = PAGE_EXTENTS_MAX * STRIPE_WIDTH_MAX;

/// Who repairs, and under which upload.
type Key = (NodeId, UploadId);

struct Open {
    allowed: Arc<Allowed>,
    used: Instant,
}

/// All repairs under way.
#[derive(Default)]
pub(crate) struct Repairs {
    open: HashMap<Key, Open>,
    /// Slots of all of them; an entry costs something without any.
    slots: usize,
    slots_of: HashMap<NodeId, usize>,
}

impl Repairs {
    /// Remembers what a client may write; false if that is too much to remember now.
    pub(crate) fn begin(
        &mut self,
        client: NodeId,
        allowed: Allowed,
        slots_max: usize,
        now: Instant,
    ) -> bool {
        let key = (client, allowed.upload());
        self.forget(key);
        let cost = cost(&allowed);
        let of_client = self.slots_of.get(&client).copied().unwrap_or(0);
        if self.slots + cost > slots_max || of_client + cost > CLIENT_SLOTS_MAX {
            return false;
        }
        self.slots += cost;
        self.slots_of.insert(client, of_client + cost);
        self.open.insert(key, Open { allowed: Arc::new(allowed), used: now });
        true
    }

    /// What a client may write under an upload.
    pub(crate) fn find(
        &mut self,
        client: NodeId,
        upload: UploadId,
        now: Instant,
    ) -> Option<Arc<Allowed>> {
        let open = self.open.get_mut(&(client, upload))?;
        open.used = now;
        Some(Arc::clone(&open.allowed))
    }

    /// A client has committed.
    pub(crate) fn end(&mut self, client: NodeId, upload: UploadId) {
        self.forget((client, upload));
    }

    /// Forgets what nobody has used for long.
    pub(crate) fn prune(&mut self, now: Instant) {
        let is_idle = |open: &Open| now.duration_since(open.used) >= IDLE;
        let idle: Vec<Key> =
            self.open.iter().filter(|(_, open)| is_idle(open)).map(|(key, _)| *key).collect();
        idle.into_iter().for_each(|key| self.forget(key));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    fn forget(&mut self, key: Key) {
        let Some(open) = self.open.remove(&key) else { return };
        let (client, cost) = (key.0, cost(&open.allowed));
        self.slots -= cost;
        match self.slots_of.get_mut(&client) {
            Some(slots) if *slots > cost => *slots -= cost,
            _ => drop(self.slots_of.remove(&client)),
        }
    }
}

/// A group of no slots takes memory too.
fn cost(allowed: &Allowed) -> usize {
    allowed.slot_count().max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p_identity::Keypair;
    use supernode_protocol::erasure::Codec;
    use supernode_protocol::geometry;
    use supernode_protocol::ids::{LeaseId, NodeId, ShardId};
    use supernode_protocol::lease::{Expiry, LeaseKind, LeaseTerms};
    use supernode_protocol::manifest::{Builder, Extent, Stripe};
    use supernode_protocol::placement::PlacementRecord;
    use supernode_protocol::repair::{Allowed, Repair};
    use supernode_protocol::signed::Signed;
    use tokio::time::Instant;

    use super::{CLIENT_SLOTS_MAX, IDLE, Repairs};

    const NODE: NodeId = NodeId::from_bytes([9; 32]);
    const CLIENT: NodeId = NodeId::from_bytes([8; 32]);
    const SECOND: Duration = Duration::from_secs(1);

    /// A repair of a stripe of that many shards, all of them for one node.
    fn allowed(width: usize, lease: u8) -> Allowed {
        let mut builder = Builder::new();
        let stripe = Stripe {
            len: 1,
            codec: Codec::default_for(1, width - 1),
            data_count: 1,
            parity_count: width - 1,
            shard_len: geometry::shard_len(1, 1),
            shards: vec![ShardId::of(b"shard"); width],
        };
        builder.push(Extent::Stripe(stripe)).expect("a valid stripe");
        let (_, manifest) = builder.finish([0; 32]).expect("a manifest");
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let writer = NodeId::from_public(&key.public()).expect("Ed25519");
        let placement = PlacementRecord {
            object: manifest.block.cid,
            group: 0,
            epoch: 0,
            nodes: vec![NODE; width],
            writer,
        };
        let placement = Signed::sign(placement, &key).expect("own key");
        let terms = LeaseTerms {
            lease: LeaseId::from_bytes([lease; 16]),
            owner: writer,
            kind: LeaseKind::Pin,
            expiry: Expiry::RunningSeconds(1),
        };
        let repair = Repair { terms, warrant: placement.clone(), placement };
        repair.open(NODE, &manifest.block.bytes, &[]).expect("its manifest")
    }

    #[test]
    fn what_is_not_used_is_forgotten_and_makes_room() {
        let (mut repairs, start) = (Repairs::default(), Instant::now());
        let (first, second, third) = (allowed(4, 1), allowed(3, 2), allowed(4, 3));
        let uploads = [&first, &second].map(Allowed::upload);
        assert!(repairs.begin(CLIENT, first.clone(), 7, start));
        assert!(repairs.begin(CLIENT, second, 7, start));
        assert!(!repairs.begin(NODE, third.clone(), 7, start), "no room");
        assert!(repairs.begin(CLIENT, first, 7, start), "the same one is no second one");
        assert_eq!(repairs.len(), 2);

        let later = start + IDLE - SECOND;
        assert!(repairs.find(CLIENT, uploads[1], later).is_some());
        assert!(repairs.find(NODE, uploads[1], later).is_none(), "it is somebody else's");
        repairs.prune(start + IDLE);
        assert!(repairs.find(CLIENT, uploads[0], start + IDLE).is_none());
        assert!(repairs.find(CLIENT, uploads[1], start + IDLE).is_some());
        assert!(repairs.begin(NODE, third, 7, start + IDLE), "there is room again");
        repairs.end(CLIENT, uploads[1]);
        repairs.prune(start + IDLE * 3);
        assert_eq!((repairs.len(), repairs.slots, repairs.slots_of.len()), (0, 0, 0));
    }

    #[test]
    fn one_client_has_room_for_the_largest_repair_and_no_more() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let mut count = 0;
        while repairs.begin(CLIENT, allowed(256, count), usize::MAX, now) {
            count += 1;
        }
        assert_eq!(usize::from(count) * 256, CLIENT_SLOTS_MAX);
        assert!(repairs.begin(NODE, allowed(256, 0), usize::MAX, now), "others have theirs");
    }
}
