// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DHT: who holds what, and who is there. The only crate that names libp2p's swarm.
//!
//! ```text
//! Dht (handle) ──mailbox──► actor ──► swarm: TCP, Noise, Yamux; Kademlia, identify, ping
//!                             │
//!                             ├─ admission   what arriving records must prove      (pure)
//!                             ├─ table       what is kept, under quotas            (pure)
//!                             ├─ schedule    when our own records go out again     (pure)
//!                             ├─ members     who is alive, who is probed           (pure)
//!                             └─ seeds       which bootstrap peer is dialled when  (pure)
//! ```
//!
//! - The handle [`Dht`] is all that other crates see. Its mailbox is bounded: callers wait.
//! - The actor owns the swarm and every table. `select` waits and decides nothing, `apply` decides
//!   and never awaits. The pure parts take time as a parameter.
//! - Nothing a peer sends is believed or stored before it is checked, and everything foreign that
//!   is stored has an owner, a quota and an end.
//! - What the DHT says is a hint. Whoever uses it verifies what it leads to.
//!
//! The wire is libp2p's Kademlia under a protocol name per network ([`kad_protocol`]); keys and
//! values are described in [`keys`].

#![warn(unreachable_pub)]

mod actor;
mod addresses;
mod admission;
mod behaviour;
mod config;
mod error;
mod handle;
pub mod keys;
mod members;
mod metrics;
mod schedule;
mod seeds;
mod table;
mod transport;

pub use crate::admission::{Rejection, VALUE_BYTES_MAX};
pub use crate::config::{ConnectionLimits, DhtConfig, DhtConfigError, Mode, RecordLimits};
pub use crate::error::DhtError;
pub use crate::handle::{Dht, MemberList};
pub use crate::keys::{identify_protocol, kad_protocol};
pub use crate::metrics::DhtMetrics;
