// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay server: how relays, gateways and other nodes reach this node's shards over QUIC.
//!
//! - [`Relay`] owns the QUIC endpoint. It admits connections by address, authenticates them by
//!   the node key in their certificate, and answers the requests of `supernode_protocol::wire`.
//! - Admission owns the permit pools and rate limiters: one budget per known client, one per
//!   address prefix for all others. A limit that is reached is answered with `Busy` and a time to
//!   come back.
//! - [`Backend`] is what the node behind it must do; the binary implements it. Bytes of shards
//!   pass through without being copied: from the backend's buffer into the transport, and from
//!   the transport into the backend's buffer.
//!
//! What is *not* decided here: who owns a lease, what a shard's bytes must hash to, and when
//! bytes are durable. Those are the backend's.

mod admission;
mod backend;
mod config;
mod connection;
mod doors;
mod handlers;
mod metrics;
mod request;
mod server;

pub use supernode_tls::transport::{SettingError, Transport};

pub use self::backend::{Backend, GroupRead, RangeRead, ShardPlace, ShardSink};
pub use self::config::{ClientLimits, Profile, RelayConfig};
pub use self::metrics::{Histogram, RETRIEVAL_BOUNDS_SECONDS, Reason, RelayMetrics, RequestKind};
pub use self::server::{Relay, RelayError};
