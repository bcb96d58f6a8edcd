// SPDX-License-Identifier: MIT OR Apache-2.0
//! The authenticated QUIC transport under `supernode-shard/1`, as both ends need it.
//!
//! - [`identity`]: TLS 1.3 in which both ends prove their node key, and who the other end is.
//! - [`transport`]: the settings of QUIC that client and server share, and the UDP socket.
//! - [`frames`]: frames of `supernode_protocol::wire` read from a stream without trusting them.
//! - [`codes`]: why a connection was closed or a stream was reset.
//!
//! Neither admission nor pooling is here: the relay server and the client own those.

pub mod codes;
pub mod frames;
pub mod identity;
pub mod transport;
mod verifier;
