// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signed records: nobody but the signer changes a byte. And ids and tokens as people type them.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use supernode_protocol::capability::Capability;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, UploadId};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::{Signed, SignedBody};

use crate::frames::round_trip;

/// A capability with its signature.
pub fn capability(bytes: &[u8]) -> bool {
    let Some((record, is_signed)) = signed::<Capability>(bytes) else { return false };
    let grant = record.body_unverified();
    let _ = grant.check(grant.audience, &grant.network, 0);
    is_signed
}

/// A node's record with its signature.
pub fn node_record(bytes: &[u8]) -> bool {
    let Some((record, is_signed)) = signed::<NodeRecord>(bytes) else { return false };
    is_signed && record.body_unverified().validate().is_ok()
}

/// A placement record with its signature.
pub fn placement(bytes: &[u8]) -> bool {
    let Some((record, is_signed)) = signed::<PlacementRecord>(bytes) else { return false };
    is_signed && record.body_unverified().validate().is_ok()
}

/// The record, if it is well formed, and whether its signature holds.
fn signed<T>(bytes: &[u8]) -> Option<(Signed<T>, bool)>
where
    T: SignedBody + PartialEq + Debug,
{
    let checked = Signed::<T>::decode(bytes);
    let record = match round_trip::<Signed<T>>(bytes) {
        Some(record) => record,
        None => {
            assert!(checked.is_err() || bytes.len() > 262_144, "signed, and no record");
            return None;
        }
    };
    let is_signed = record.verify().is_ok();
    assert_eq!(checked.is_ok(), is_signed, "two ways to check one signature");
    Some((record, is_signed))
}

/// An id of any kind or a token, as text.
pub fn names(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    [
        name::<Cid>(text),
        name::<NodeId>(text),
        name::<ShardId>(text),
        name::<LeaseId>(text),
        name::<UploadId>(text),
        token(text),
    ]
    .contains(&true)
}

fn token(text: &str) -> bool {
    let Ok(record) = Signed::<Capability>::from_token(text) else { return false };
    assert_eq!(Signed::from_token(&record.token()), Ok(record), "what is printed is read");
    true
}

fn name<T>(text: &str) -> bool
where
    T: FromStr + Display + PartialEq + Debug,
{
    let Ok(id) = text.parse::<T>() else { return false };
    let again = id.to_string().parse::<T>().ok();
    assert_eq!(again.as_ref(), Some(&id), "what is printed is read");
    true
}
