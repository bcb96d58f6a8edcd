// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many shards in one request, and answers that are sent while they are read.

use std::sync::atomic::Ordering::SeqCst;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use supernode_protocol::ids::{ShardId, Slot};
use supernode_protocol::limits::{BATCH_BYTES_MAX, BATCH_PARTS_MAX, SHARD_BYTES_MAX};
use supernode_protocol::tree::verify_range;
use supernode_protocol::wire::{ByteRange, ErrorCode, Part, Request, Response, Want};
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::{FrameReadError, at_end, read_frame};

use crate::backend::Lie;
use crate::raw::{Raw, message};
use crate::setup::{Setup, UPLOAD, bytes_of, eventually, put_of};

fn part(index: u16, bytes: &Bytes) -> Part {
    let slot = Slot { stripe: 0, index };
    Part { slot, shard: ShardId::of(bytes), len: bytes.len() as u64 }
}

async fn put_many(raw: &Raw, parts: Vec<Part>, body: &[u8]) -> Response {
    raw.ask(&Request::PutMany { upload: UPLOAD, parts }, body).await
}

async fn read(recv: &mut RecvStream, len: u64) -> Result<Bytes, ReadError> {
    let mut bytes = BytesMut::new();
    let len = usize::try_from(len).expect("in memory");
    while bytes.len() < len {
        let chunk = recv.read_chunk(len - bytes.len(), true).await?.expect("more is due");
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(bytes.freeze())
}

#[tokio::test]
async fn each_part_is_answered_as_if_it_were_asked_for_alone() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let (short, long) = (bytes_of(5000), bytes_of((2 << 20) + 64));
    for bytes in [&short, &long] {
        setup.writer().put_shard(&setup.peer(), put_of(bytes)).await.expect("a put");
    }
    let want = |shard, range| Want { shard, range };
    let range = |offset, len| Some(ByteRange { offset, len });
    let parts = vec![
        want(ShardId::of(&short), None),
        want(ShardId::of(b"nowhere"), None),
        want(ShardId::of(&long), range(1 << 20, 100)),
        want(ShardId::of(&long), range(0, 0)),
        want(ShardId::of(&long), range(0, long.len() as u64)),
        want(ShardId::of(&short), range(4999, 1)),
    ];
    let (mut send, mut recv) = raw.open(&message(&Request::GetMany { parts }, &[])).await;
    send.finish().expect("open");
    let many = read_frame::<Response>(&mut recv).await.expect("an answer");
    assert_eq!(many, Response::Many { parts: 6 });
    let mut answers = Vec::new();
    for _ in 0..6 {
        match read_frame::<Response>(&mut recv).await.expect("a part") {
            Response::Shard { shard_len, range, proof_len } => {
                let proof = read(&mut recv, proof_len.into()).await.expect("a proof");
                let bytes = read(&mut recv, range.len).await.expect("bytes");
                answers.push(Ok((shard_len, range, proof, bytes)));
            }
            Response::Error(error) => answers.push(Err(error.code)),
            other => panic!("{other:?}"),
        }
    }
    assert!(at_end(&mut recv).await.expect("an end"), "nothing follows");
    let whole = ByteRange { offset: 0, len: 5000 };
    assert_eq!(answers[0], Ok((5000, whole, Bytes::new(), short.clone())));
    assert_eq!(answers[1], Err(ErrorCode::NotFound));
    assert_eq!(answers[3], Err(ErrorCode::BadRequest));
    for (answer, bytes) in [(&answers[2], &long), (&answers[4], &long), (&answers[5], &short)] {
        let (shard_len, range, proof, part) = answer.as_ref().expect("a part");
        assert_eq!(*shard_len, bytes.len() as u64);
        let span = range.offset..range.offset + range.len;
        verify_range(&ShardId::of(bytes), *shard_len, span, proof, part).expect("proven");
    }
    assert_eq!(answers[4].as_ref().expect("a part").3, long);
}

#[tokio::test]
async fn a_part_that_is_not_what_it_should_be_is_the_only_one_that_is_lost() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let all: Vec<_> = [100, 70_000, 300_000].map(bytes_of).into();
    let mut parts: Vec<_> = (0..).zip(&all).map(|(index, bytes)| part(index, bytes)).collect();
    parts[1].shard = ShardId::of(b"something else");
    let Response::StoredMany { results } = put_many(&raw, parts, &all.concat()).await else {
        panic!("another answer");
    };
    let codes: Vec<_> = results.iter().map(|it| it.as_ref().map_err(|error| error.code)).collect();
    assert!(matches!(codes[..], [Ok(_), Err(ErrorCode::BodyMismatch), Ok(_)]), "{codes:?}");
    let content = setup.backend.content.lock();
    assert_eq!(content.shards.get(&ShardId::of(&all[0])), Some(&all[0]));
    assert_eq!(content.shards.get(&ShardId::of(&all[2])), Some(&all[2]));
    assert_eq!(content.shards.len(), 2);
}

#[tokio::test]
async fn a_batch_is_as_long_as_it_says() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let bytes = bytes_of(1000);
    let parts = vec![part(0, &bytes), part(1, &bytes)];
    for len in [0, 999, 1000, 1999, 2001, 5000] {
        let body = vec![bytes.clone(); 5].concat();
        let answer = put_many(&raw, parts.clone(), &body[..len]).await;
        let Response::Error(error) = answer else { panic!("{len} bytes: {answer:?}") };
        assert_eq!(error.code, ErrorCode::BodyMismatch, "{len} bytes: {error}");
    }
    eventually("nothing is left", || setup.relay.metrics().requests_inflight == 0).await;
}

#[tokio::test]
async fn a_batch_over_a_limit_is_refused_before_anything_is_made_ready() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let one = part(0, &bytes_of(64));
    let with_len = |len| vec![Part { len, ..one }];
    let half = Part { len: BATCH_BYTES_MAX / 2 + 1, ..one };
    let batches = [
        Vec::new(),
        vec![one; BATCH_PARTS_MAX + 1],
        with_len(0),
        with_len(SHARD_BYTES_MAX + 1),
        with_len(u64::MAX),
        vec![half; 2],
        vec![Part { len: u64::MAX, ..one }; 3],
    ];
    for parts in batches {
        let answer = put_many(&raw, parts.clone(), &[]).await;
        let Response::Error(error) = answer else { panic!("{answer:?}") };
        assert_eq!(error.code, ErrorCode::BadRequest, "{} parts: {error}", parts.len());
    }
    assert_eq!(setup.backend.begun.load(SeqCst), 0);
    let want = Want { shard: one.shard, range: None };
    for parts in [Vec::new(), vec![want; BATCH_PARTS_MAX + 1]] {
        let answer = raw.ask(&Request::GetMany { parts }, &[]).await;
        assert!(
            matches!(answer, Response::Error(ref error) if error.code == ErrorCode::BadRequest)
        );
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_in_the_middle_a_cut() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let bytes = bytes_of(3 << 20);
    let shard = ShardId::of(&bytes);
    setup.writer().put_shard(&setup.peer(), put_of(&bytes)).await.expect("a put");
    let request = Request::GetShard { shard, range: None };

    *setup.backend.lie.lock() = Some(Lie::NoPieceFrom(0));
    let answer = raw.ask(&request, &[]).await;
    assert!(matches!(answer, Response::Error(ref error) if error.code == ErrorCode::Internal));

    *setup.backend.lie.lock() = Some(Lie::NoPieceFrom(1));
    let (mut send, mut recv) = raw.open(&message(&request, &[])).await;
    send.finish().expect("open");
    // A cut may overtake what was sent before it, the frame included.
    let cut = match read_frame::<Response>(&mut recv).await {
        Ok(Response::Shard { proof_len: 0, .. }) => {
            read(&mut recv, 3 << 20).await.expect_err("a cut")
        }
        Err(FrameReadError::Read(cut)) => cut,
        other => panic!("{other:?}"),
    };
    assert_eq!(cut, ReadError::Reset(CloseCode::Failed.to_varint()));
    eventually("nothing is left", || setup.relay.metrics().requests_inflight == 0).await;
}
