// SPDX-License-Identifier: MIT OR Apache-2.0
//! QUIC application error codes: why a connection was closed or a stream was cut.
//!
//! They are for logs and for telling a cut from an end; what a request was answered is always a
//! `WireError` frame.

use quinn::VarInt;

/// Why one end stopped. The numbers are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing is wrong: the work is done.
    Done = 0,
    /// Whoever asked does not want the answer any more.
    Cancelled = 1,
    /// The other end was too slow.
    Deadline = 2,
    /// The request was answered with an error; the rest of its body is not wanted.
    Refused = 3,
    /// The node is stopping.
    Stopping = 4,
    /// The other end broke a rule of the protocol.
    Protocol = 5,
    /// The other end is not the node that was dialled.
    WrongPeer = 6,
    /// The node failed in the middle of an answer.
    Failed = 7,
}

impl CloseCode {
    /// As QUIC carries it.
    pub fn to_varint(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}
