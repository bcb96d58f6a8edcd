// SPDX-License-Identifier: MIT OR Apache-2.0
//! Headers and metas: round trips, and every way to damage them.

use bytes::Bytes;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, Slot, UploadId};
use supernode_protocol::lease::Expiry;

use super::{
    Body, Draft, Freed, HEADER_BYTES, Header, HeaderError, Holder, Kind, LeaseChange, Payload,
    Placed, Position, Reclaim, Shape, Span,
};

fn holder() -> Holder {
    Holder { upload: UploadId::from_bytes([7; 16]), owner: NodeId::from_bytes([9; 32]) }
}

fn bodies() -> Vec<Body> {
    let placed = Placed { holder: holder(), slot: Slot { stripe: 3, index: 13 } };
    let lease = LeaseId::from_bytes([4; 16]);
    vec![
        Body::Shard(placed),
        Body::Slot(placed),
        Body::Block(holder()),
        Body::BlockRef(holder()),
        Body::Lease(LeaseChange::Renew { lease, expiry: Expiry::RunningSeconds(60) }),
        Body::Lease(LeaseChange::Release { lease }),
        Body::Lease(LeaseChange::Expire { lease }),
        Body::Lease(LeaseChange::Abandon { upload: UploadId::from_bytes([1; 16]) }),
        Body::Tombstone(Freed::Shard),
        Body::Tombstone(Freed::Block),
        Body::Tombstone(Freed::Group { group: 2 }),
        Body::Clock { stopped: true },
        Body::Reclaim(Reclaim::Punched { records: vec![Position { segment: 1, offset: 8192 }] }),
        Body::Reclaim(Reclaim::Cleared { segment: 1, until: 1 << 20 }),
        Body::Reclaim(Reclaim::Gone { through: 7 }),
        Body::Span(Span { group: 3, bytes: vec![9; 100] }),
        Body::Journal(vec![1, 2, 3]),
    ]
}

fn draft(body: Body, payload: &'static [u8]) -> Draft {
    let id = *Cid::of(payload).as_bytes();
    Draft {
        sequence: 5,
        running_secs: 77,
        durable: 2,
        id,
        body,
        payload: Payload::Block(Bytes::from_static(payload)),
    }
}

#[test]
fn every_body_survives_its_encoding_and_nothing_longer_or_shorter_does() {
    for body in bodies() {
        let bytes = body.encode();
        assert_eq!(Body::decode(body.kind(), &bytes).as_ref(), Some(&body));
        if matches!(body, Body::Journal(_)) {
            continue;
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Body::decode(body.kind(), &longer), None, "{body:?}");
        assert_eq!(Body::decode(body.kind(), &bytes[..bytes.len() - 1]), None, "{body:?}");
    }
}

#[test]
fn a_record_is_laid_out_as_its_shape_says() {
    static LARGE: [u8; 65_536] = [3; 65_536];
    for payload in [&b""[..], b"x", &LARGE[..65_535], &LARGE] {
        for offset in [4096, 4160, 8128] {
            let draft = draft(Body::Block(holder()), payload);
            let encoded = draft.encode(11, offset);
            let shape = draft.shape();
            let start = offset + encoded.head.len() as u64;
            assert_eq!(encoded.head.len() as u64, shape.payload_start(offset));
            assert_eq!(start % if payload.len() >= 65_536 { 4096 } else { 64 }, 0);
            let end = start + payload.len() as u64 + encoded.tail_len as u64;
            assert_eq!(end, offset + shape.record_len(offset));
            assert_eq!(end % 64, 0);
            let header = Header::decode_at(&encoded.head, 11, offset).expect("as written");
            assert_eq!((header.sequence, header.running_secs, header.unsynced), (5, 77, 2));
            assert_eq!(header.durable_before(), 2);
            assert_eq!(header.shape, shape);
        }
    }
}

#[test]
fn a_header_with_any_bit_flipped_or_cut_anywhere_is_refused() {
    let head = draft(Body::Block(holder()), b"x").encode(11, 4096).head;
    let good: [u8; HEADER_BYTES] = *head.first_chunk().expect("a whole header");
    Header::decode_at(&good, 11, 4096).expect("as written");
    for bit in 0..HEADER_BYTES * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Header::decode_at(&bad, 11, 4096), Err(HeaderError::Invalid), "bit {bit}");
        assert_eq!(Header::decode(&bad), Err(HeaderError::Invalid), "bit {bit}");
    }
    for len in 0..HEADER_BYTES {
        assert_eq!(Header::decode(&good[..len]), Err(HeaderError::Invalid), "{len} bytes");
    }
    assert_eq!(Header::decode_at(&good, 12, 4096), Err(HeaderError::Invalid), "foreign segment");
    assert_eq!(Header::decode_at(&good, 11, 4160), Err(HeaderError::Invalid), "misplaced");
}

#[test]
fn a_whole_header_from_the_future_is_named_as_such() {
    let head = draft(Body::Block(holder()), b"x").encode(11, 4096).head;
    for (at, value) in [(4, 2), (5, 16)] {
        let mut newer: [u8; HEADER_BYTES] = *head.first_chunk().expect("a whole header");
        newer[at] = value;
        let crc = crc32c::crc32c(&newer[..92]).to_le_bytes();
        newer[92..].copy_from_slice(&crc);
        let error = Header::decode(&newer).expect_err("unknown");
        assert!(matches!(error, HeaderError::Unknown { .. }), "byte {at}");
    }
}

#[test]
fn lengths_out_of_range_are_refused_even_with_a_good_checksum() {
    let shape = Shape { meta_len: 0, outboard_len: 0, payload_len: u64::MAX };
    let header = Header {
        kind: Kind::Shard,
        tag: 1,
        offset: 4096,
        sequence: 1,
        running_secs: 0,
        unsynced: 0,
        shape,
        id: [0; 32],
        meta_crc: 0,
    };
    assert_eq!(Header::decode(&header.encode()), Err(HeaderError::Invalid));
}
