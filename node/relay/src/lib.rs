// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay server: how relays, gateways and other nodes reach this node's shards over QUIC.
//!
//! - [`Relay`] owns the QUIC endpoint. It admits connections by address, authenticates them by
//!   the node key in their certificate, and answers the requests of `supernode_protocol::wire`.
//! - Admission owns permits, rates and the memory of bodies in flight, by classes of clients: one
//!   budget for each client that somebody vouches for, one per address prefix for all others.
//!   Clients take turns; a limit that is reached is answered with `Busy` and a time to come back.
//! - [`Backend`] is what the node behind it must do; the binary implements it. Bytes of shards
//!   pass through without being copied: from the backend's buffer into the transport, and from
//!   the transport into the backend's buffer.
//!
//! What is *not* decided here: who owns a lease, what a shard's bytes must hash to, and when
//! bytes are durable. Those are the backend's.

mod admission;
mod answer;
mod backend;
mod batch;
mod config;
mod connection;
mod doors;
mod gate;
mod grants;
mod handlers;
mod live;
mod metrics;
mod pace;
mod prefix;
mod rates;
mod repairs;
mod request;
mod server;
mod turns;
mod turnstile;

pub use supernode_tls::transport::{SettingError, Transport};

pub use self::backend::{Backend, GroupRead, PIECE_BYTES, ShardPlace, ShardSink, ShardSource};
pub use self::config::{Classes, ClientLimits, Members, Profile, RelayConfig};
pub use self::metrics::{Histogram, RETRIEVAL_BOUNDS_SECONDS, Reason, RelayMetrics, RequestKind};
pub use self::server::{Relay, RelayError};
