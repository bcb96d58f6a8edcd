// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects over shards.
//!
//! - [`placement`] decides, purely, which node gets which slot of a new group.
//! - [`put`](Objects::put) streams a source into stripes, encodes, sends, commits, and says which
//!   losses the object now survives.
//! - [`get`](Objects::get) finds an object by its CID alone and streams verified bytes out,
//!   reconstructing what its holders have lost.
//! - [`assignment`](Objects::assignment) collects what the chain wants to see of a put.
//! - [`stat`](Objects::stat), [`list`](Objects::list) and [`release`](Objects::release) look at
//!   and end what is kept.
//!
//! The layer owns no bytes and no state beyond the calls under way. It meets the network through
//! [`network::Holders`] and [`network::Directory`].

pub mod class;
pub mod network;
pub mod placement;

mod deal;
mod durability;
mod error;
mod get;
mod locate;
mod put;
mod stat;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use libp2p_identity::Keypair;
use supernode_protocol::ids::{NodeId, ParseIdError};

pub use self::class::Class;
pub use self::deal::{AssignedGroup, Assignment, HolderReceipt};
pub use self::durability::Durability;
pub use self::error::{ErrorKind, GetError, PutError, SurvivedLosses};
pub use self::get::{GetOptions, GetReport};
pub use self::locate::LOCATE_TIMEOUT;
pub use self::put::{PlacedGroup, PutOptions, PutReport};
pub use self::stat::{GroupStat, ListedObject, ObjectStat, ReleaseReport, SlotHealth, SlotStat};

/// Bytes of an operation done so far: the callback of a progress bar.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// The object layer of one client or node.
pub struct Objects<H, D> {
    holders: Arc<H>,
    directory: Arc<D>,
    identity: Keypair,
    owner: NodeId,
    locate_timeout: Duration,
}

impl<H, D> Clone for Objects<H, D> {
    fn clone(&self) -> Self {
        Self {
            holders: Arc::clone(&self.holders),
            directory: Arc::clone(&self.directory),
            identity: self.identity.clone(),
            owner: self.owner,
            locate_timeout: self.locate_timeout,
        }
    }
}

impl<H: network::Holders, D: network::Directory> Objects<H, D> {
    /// An object layer that writes as `identity`.
    ///
    /// # Errors
    /// When the key is no Ed25519 key.
    pub fn new(holders: H, directory: D, identity: Keypair) -> Result<Self, ParseIdError> {
        let owner = NodeId::from_public(&identity.public())?;
        let (holders, directory) = (Arc::new(holders), Arc::new(directory));
        Ok(Self { holders, directory, identity, owner, locate_timeout: LOCATE_TIMEOUT })
    }

    /// Reports an object as not found after this time instead of [`LOCATE_TIMEOUT`].
    #[must_use]
    pub fn with_locate_timeout(self, locate_timeout: Duration) -> Self {
        Self { locate_timeout, ..self }
    }
}
