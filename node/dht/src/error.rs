// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong with the DHT, and what to do about it.

use supernode_protocol::ids::Cid;
use supernode_protocol::node_record::NodeRecordError;
use supernode_protocol::signed::SignatureError;

use crate::config::DhtConfigError;

/// An operation of the DHT that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DhtError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] DhtConfigError),
    /// The identity cannot name a node.
    #[error("the identity cannot be used in the DHT: {reason}; create one with `supernode init`")]
    Identity {
        /// Why.
        reason: String,
    },
    /// A listening address cannot be bound.
    #[error("cannot listen on {address}: {reason}; choose another address or port")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Names of bootstrap peers cannot be resolved on this machine.
    #[error("bootstrap names cannot be resolved: {reason}; repair the resolver or use addresses")]
    Resolver {
        /// What the resolver said.
        reason: String,
    },
    /// No bootstrap peer has answered.
    #[error("no bootstrap peer answered within {seconds} s; check bootstrap and the network name")]
    NotReady {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The query did not end in time and found nothing.
    #[error("the lookup of {what} did not end within {seconds} s; try again")]
    Timeout {
        /// What was looked for.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// More lookups than allowed at the same time.
    #[error("{limit} lookups are running already; try again, or raise lookups_max")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// A table of our own records is full.
    #[error("no more than {limit} records of our own are published; raise {setting}")]
    Full {
        /// The limit.
        limit: usize,
        /// The setting to raise.
        setting: &'static str,
    },
    /// A client publishes nothing.
    #[error("a client of the DHT cannot {operation}; set mode to server")]
    ClientMode {
        /// What it was asked for.
        operation: &'static str,
    },
    /// The block is too large for a value record; announce it only.
    #[error("a manifest block of {size} bytes is too large for the DHT; at most {max}")]
    ManifestTooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// The block is another one than the CID names.
    #[error("the block given for {cid} hashes to {actual}")]
    ManifestHash {
        /// The CID it was given for.
        cid: Cid,
        /// Its own.
        actual: Cid,
    },
    /// Our node record names another node or network.
    #[error("the node record says {field} {given}, this node's is {own}")]
    ForeignRecord {
        /// `node` or `network`.
        field: &'static str,
        /// As in the record.
        given: String,
        /// Ours.
        own: String,
    },
    /// Our node record breaks a limit.
    #[error(transparent)]
    Record(#[from] NodeRecordError),
    /// An address in our node record is none.
    #[error("the node record's libp2p address {address:?} is no multiaddress")]
    RecordAddress {
        /// The text.
        address: String,
    },
    /// Our node record cannot be signed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Our node record is no newer than the one before.
    #[error("the node record's sequence is {given}, it must be above {current}")]
    StaleSequence {
        /// As in the record.
        given: u64,
        /// The highest one known.
        current: u64,
    },
    /// The DHT has ended.
    #[error("the DHT has stopped; restart the node")]
    Stopped,
}
