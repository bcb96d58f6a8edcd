// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client of `supernode-shard/1`: what relays, gateways and nodes link to read from nodes and
//! to write to them.
//!
//! - One UDP socket and one connection per node, shared by any number of requests.
//! - Whom you ask is whom you get: a node proves its id in TLS, and an address that answers as
//!   somebody else is an error.
//! - Nothing is returned that was not checked: bytes of shards in groups of 16 KiB as they come,
//!   manifest roots against the CID, records against their signature. A node that lies is told
//!   from one that fails ([`ClientError::Lied`]).
//! - Reads are streams ([`ShardReader`]) that hold little and go on from the last verified byte
//!   when they are cut, at the same node or at another holder; many go into one request
//!   ([`Client::read_many`]), and a slow holder is overtaken by the next ([`Client::read_hedged`]).
//! - Every call ends within a deadline, waits for busy nodes as long as it may, and names the node
//!   it failed at. Dropping a future or a reader cancels its request on both ends.
//! - [`Client::health`] and [`Client::statistics`] say how it went.
//!
//! It does not find nodes or decode stripes; the object layer does.
//!
//! Reading a shard from its holders into something that takes its time, say a socket:
//!
//! ```no_run
//! use supernode_client::{Client, ClientConfig, ClientError, Hedge, Keypair, Peer, Wanted};
//! use supernode_protocol::ids::ShardId;
//!
//! async fn copy(
//!     client: &Client,
//!     holders: &[Peer],
//!     (shard, shard_len): (ShardId, u64),
//!     take: &mut impl AsyncFnMut(bytes::Bytes),
//! ) -> Result<(), ClientError> {
//!     let wanted = Wanted::whole(shard, shard_len);
//!     // The next holder is asked when the one before is slower than usual.
//!     let hedge = Hedge { holders, after: None };
//!     let mut reader = client.read_hedged(hedge, wanted).await?;
//!     while let Some(bytes) = reader.next().await? {
//!         // While this waits, the transport's window fills and the node waits too.
//!         take(bytes).await;
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), ClientError> {
//! let config = ClientConfig::new(Keypair::generate_ed25519(), "main");
//! let client = Client::new(config)?;
//! # Ok(())
//! # }
//! ```
//!
//! Many small shards of one node in one round trip, within a second:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use supernode_client::{Client, ClientError, Peer, Wanted};
//! async fn fetch(
//!     client: &Client,
//!     node: &Peer,
//!     wants: Vec<Wanted>,
//! ) -> Result<Vec<Option<bytes::Bytes>>, ClientError> {
//!     let mut batch = client.with_deadline(Duration::from_secs(1)).read_many(node, wants)?;
//!     let mut found = Vec::new();
//!     while let Some(part) = batch.next().await {
//!         match part {
//!             Ok(bytes) => found.push(Some(bytes)),
//!             // The node answered for this part: it is not there, or not to be had now.
//!             Err(ClientError::Refused { .. }) => found.push(None),
//!             Err(error) => return Err(error),
//!         }
//!     }
//!     Ok(found)
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
