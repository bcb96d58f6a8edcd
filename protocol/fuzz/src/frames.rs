// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames: what decodes encodes again, to the same bytes or to fewer.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use supernode_protocol::deal::{DealId, HeldDigest, ReceiptClaim};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::limits::FRAME_BYTES_MAX;
use supernode_protocol::wire::{
    FRAME_PREFIX_BYTES, Receipt, Request, Response, decode_frame, decode_prefix, encode_frame,
};

/// A request's frame, without its length.
pub fn request(bytes: &[u8]) -> bool {
    round_trip::<Request>(bytes).is_some()
}

/// An answer's frame, without its length.
pub fn response(bytes: &[u8]) -> bool {
    round_trip::<Response>(bytes).is_some()
}

/// A holder's receipt, and what its signature is over.
pub fn receipt(bytes: &[u8]) -> bool {
    let Some(receipt) = round_trip::<Receipt>(bytes) else { return false };
    let mut held = HeldDigest::new();
    for run in &receipt.held {
        for index in &run.indexes {
            held.push(run.group, run.stripe_first, run.stripe_count, *index);
        }
    }
    let claim = ReceiptClaim {
        genesis: [1; 32],
        deal: DealId(2),
        object: Cid::from_bytes([3; 32]),
        shards_root: receipt.shards_root,
        width: 14,
        stripe_count: 8,
        node: NodeId::from_bytes([5; 32]),
        bytes: receipt.bytes,
        held: held.finish(),
    };
    assert_eq!(claim.message().len(), 202, "fields of a claim are as wide as ever");
    true
}

/// Decodes, and holds the message against its own encoding.
pub fn round_trip<T>(bytes: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    if bytes.len() > FRAME_BYTES_MAX {
        return None;
    }
    let message: T = decode_frame(bytes).ok()?;
    let frame = encode_frame(&message).expect("what fitted a frame fits one");
    let (prefix, body) = frame.split_at(FRAME_PREFIX_BYTES);
    let len = decode_prefix(prefix.try_into().expect("four bytes")).expect("within the limit");
    assert_eq!(len, body.len(), "the length before the frame is the frame's");
    // Numbers may come with more bytes than they need; we never send them so.
    assert!(body.len() <= bytes.len(), "an encoding grew");
    assert!(body.len() < bytes.len() || body == bytes, "two encodings of one length");
    assert_eq!(decode_frame::<T>(body).as_ref(), Ok(&message), "an encoding says another thing");
    Some(message)
}
