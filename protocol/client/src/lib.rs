// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client of `supernode-shard/1`: what relays, gateways and nodes link to read from nodes and
//! to write to them.
//!
//! - One UDP socket and one connection per node, shared by any number of requests.
//! - Whom you ask is whom you get: a node proves its id in TLS, and an address that answers as
//!   somebody else is an error.
//! - Nothing is returned that was not checked: shards against their id while they stream, ranges
//!   group by group against the same id, manifest roots against the CID, records against their
//!   signature. A node that lies is told from one that fails ([`ClientError::Lied`]).
//! - Dropping a future cancels its request on both ends.
//!
//! It does not choose nodes, decode stripes or retry elsewhere; the object layer does.
//!
//! ```no_run
//! use std::ops::Range;
//!
//! use libp2p_identity::Keypair;
//! use supernode_client::{Client, ClientConfig, ClientError, Peer};
//! use supernode_protocol::ids::{Cid, NodeId, ShardId};
//!
//! /// Reads a part of a shard from the first of its holders that delivers.
//! async fn read(
//!     holders: &[Peer],
//!     shard: ShardId,
//!     shard_len: u64,
//!     range: Range<u64>,
//! ) -> Result<bytes::Bytes, ClientError> {
//!     let client = Client::new(ClientConfig::new(Keypair::generate_ed25519(), "main"))?;
//!     let mut last = ClientError::Setup { reason: "no holder is known".to_owned() };
//!     for holder in holders {
//!         match client.shard_range(holder, shard, shard_len, range.clone()).await {
//!             Ok(bytes) => return Ok(bytes),
//!             Err(error) => last = error,
//!         }
//!     }
//!     client.close().await;
//!     Err(last)
//! }
//! ```

mod batch;
mod call;
mod client;
mod config;
mod dial;
mod error;
mod health;
mod hedge;
mod link;
mod part;
mod peer;
mod pool;
mod reader;
mod reads;
mod statistics;
mod writes;

pub use libp2p_identity::Keypair;
pub use supernode_tls::transport::Transport;

pub use self::batch::{BatchReader, PutPart};
pub use self::client::Client;
pub use self::config::ClientConfig;
pub use self::error::ClientError;
pub use self::health::Health;
pub use self::hedge::Hedge;
pub use self::link::Welcome;
pub use self::part::Wanted;
pub use self::peer::Peer;
pub use self::reader::ShardReader;
pub use self::reads::GroupAnswer;
pub use self::statistics::Statistics;
pub use self::writes::{Committed, PutShard};
