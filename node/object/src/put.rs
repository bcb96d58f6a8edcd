// SPDX-License-Identifier: MIT OR Apache-2.0
//! Storing an object.
//!
//! Two stages run at the same time: [`source`] reads and encodes the next stripe while
//! [`session`] sends the one before it, so at most two stripes are in memory. What needs no shards,
//! a tiny object or zeros, is only written into the manifest. When the source
//! ends, [`finish`] stores the manifest and commits each group on each of its holders. Until then
//! holders keep everything under an upload lease that ends by itself, so a put that stops half
//! way leaves nothing to clean up.

mod finish;
mod session;
mod source;

use supernode_protocol::ids::{Cid, LeaseId, NodeId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind};
use tokio::io::AsyncRead;

use self::session::Session;
use self::source::Source;
use crate::network::{Directory, Holders};
use crate::{Class, Durability, Objects, Progress, PutError};

/// How to store an object.
#[derive(Clone)]
pub struct PutOptions {
    /// Data and parity shards of every stripe, but for objects that are small.
    pub class: Class,
    /// The put succeeds only if the object survives the loss of any so many nodes.
    pub tolerate_nodes: usize,
    /// Why holders keep it.
    pub kind: LeaseKind,
    /// Until when.
    pub expiry: Expiry,
    /// The lease that is to keep it, where that has a name already; `None` for a new one.
    pub lease: Option<LeaseId>,
    /// An object of at most so many bytes lies in its manifest, whole on each holder of that, and
    /// has no shards. Not in a deal: a chain pays for shards.
    pub inline_bytes_max: usize,
    /// An object is kept as copies, one data shard and as many others as the class has parity
    /// shards, if they take no more room. Not in a deal, whose price is that of its class.
    pub replicates_small: bool,
    /// Stripes of nothing but zeros are noted in the manifest and have no shards. Not in a deal.
    pub elides_zeros: bool,
    /// The source's length, if known: a source that ends earlier is an error.
    pub expected_bytes: Option<u64>,
    /// Called with bytes stored so far.
    pub progress: Option<Progress>,
}

/// What became of a put.
#[derive(Debug, Clone)]
pub struct PutReport {
    /// The object's name.
    pub cid: Cid,
    /// The lease that keeps it.
    pub lease: LeaseId,
    /// Its bytes.
    pub size: u64,
    /// BLAKE3 of its bytes.
    pub content_root: [u8; 32],
    /// Data and parity shards of its stripes.
    pub class: Class,
    /// Stripes it was cut into.
    pub stripe_count: u32,
    /// Slots it should have.
    pub slots_total: u64,
    /// Slots that are durable on a holder.
    pub slots_stored: u64,
    /// Slots that no holder has; their groups' leaders were told.
    pub missing: Vec<Slot>,
    /// Losses it survives now.
    pub durability: Durability,
    /// BLAKE3 over the list of its shards.
    pub shards_root: [u8; 32],
    /// Who was given what.
    pub groups: Vec<PlacedGroup>,
    /// Whether the DHT already leads to it. If not, readers find it as soon as it does.
    pub announced: bool,
}

/// One group of a finished put.
#[derive(Debug, Clone)]
pub struct PlacedGroup {
    /// Its first stripe, counted over the whole object.
    pub stripe_first: u32,
    /// How many stripes it has.
    pub stripe_count: u32,
    /// Slot index to node, as recorded.
    pub vector: Vec<NodeId>,
    /// Bytes of one slot index over all its stripes.
    pub index_bytes: u64,
}

impl<H: Holders, D: Directory> Objects<H, D> {
    /// Stores everything `reader` gives and returns once every slot is durable on a holder or has
    /// failed there and elsewhere.
    ///
    /// # Errors
    /// [`PutError`]; nothing that does not end by itself is left behind then.
    pub async fn put<R: AsyncRead + Unpin + Send>(
        &self,
        reader: R,
        options: PutOptions,
    ) -> Result<PutReport, PutError> {
        let mut source = Source::new(reader, &options)?;
        // The network is asked who is there while the first stripe is read and encoded.
        let (session, first) = futures::join!(Session::open(self, &options), source.next());
        let (mut session, mut ready) = (session?, first?);
        while let Some(piece) = ready {
            let (placed, next) = futures::join!(session.append(piece), source.next());
            placed?;
            ready = next?;
        }
        session.finish(source.content_root()).await
    }
}
