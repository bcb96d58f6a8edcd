// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many parts in one request: framing, errors of single parts, lies, cuts and limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use supernode_client::{BatchReader, ClientError, PutPart, Wanted};
use supernode_protocol::ids::{ShardId, Slot, UploadId};
use supernode_protocol::limits::{BATCH_BYTES_MAX, BATCH_PARTS_MAX};
use supernode_protocol::wire::{Ack, ErrorCode, Part, Request, Response, Want, WireError};
use tokio::time::timeout;

use crate::node::{Ask, GROUP, Node, SOON, Shard, client, client_with, frame, node};

const UPLOAD: UploadId = UploadId::from_bytes([7; 16]);

/// Shards of one group, of some, and of exactly two.
fn shards() -> Vec<Shard> {
    [("a", 100), ("b", 70_000), ("c", 2 * 16_384), ("d", 16_384)]
        .map(|(name, len)| Shard::new(name, len))
        .to_vec()
}

/// The true answer to each want, in order; `NotFound` for what is not in `shards`.
fn answers(shards: &[Shard], wants: &[Want]) -> Vec<Bytes> {
    let answer = |want: &Want| match shards.iter().find(|shard| shard.id == want.shard) {
        Some(shard) => shard.answer(want.range).to_bytes(),
        None => frame(&Response::Error(error_of(ErrorCode::NotFound))),
    };
    wants.iter().map(answer).collect()
}

fn error_of(code: ErrorCode) -> WireError {
    WireError { code, message: "as scripted".to_owned(), retry_after_ms: None }
}

fn wants_of(ask: &Ask) -> Vec<Want> {
    let Request::GetMany { parts } = &ask.request else { panic!("{:?}", ask.request) };
    parts.clone()
}

fn count_of(parts: usize) -> Bytes {
    frame(&Response::Many { parts: u32::try_from(parts).expect("few") })
}

/// A node that has all shards and whose list of answers `spoil` changes.
fn server(spoil: impl Fn(&mut Vec<Bytes>) + Send + Sync + 'static) -> Node {
    let shards = shards();
    node(move |mut ask| {
        let wants = wants_of(&ask);
        let mut answers = answers(&shards, &wants);
        spoil(&mut answers);
        async move {
            ask.write(count_of(wants.len())).await;
            for answer in answers {
                ask.write(answer).await;
            }
            ask.end().await;
        }
    })
}

async fn all(mut reader: BatchReader) -> Vec<Result<Bytes, ClientError>> {
    let mut results = Vec::new();
    while let Some(result) = timeout(SOON, reader.next()).await.expect("soon") {
        results.push(result);
    }
    results
}

#[tokio::test]
async fn parts_come_in_order_and_an_error_is_of_one_part_alone() {
    let node = server(|_| {});
    let shards = shards();
    let absent = Wanted::whole(ShardId::of(b"absent"), 50);
    let part = Wanted { range: 20_000..50_000, ..shards[1].wanted() };
    let mut wants: Vec<_> = shards.iter().map(Shard::wanted).collect();
    wants.extend([absent.clone(), part, absent, shards[0].wanted()]);
    let client = client();
    let results = all(client.read_many(&node.peer, wants).expect("a batch")).await;
    assert_eq!(results.len(), 8);
    for (shard, result) in shards.iter().zip(&results) {
        assert_eq!(result.as_ref().expect("held"), &shard.bytes);
    }
    for absent in [4, 6] {
        let error = results[absent].as_ref().expect_err("not held");
        assert_eq!(error.code(), Some(ErrorCode::NotFound));
        assert_eq!(error.node(), Some(node.peer.node));
    }
    assert_eq!(results[5].as_ref().expect("a part"), &shards[1].bytes[20_000..50_000]);
    assert_eq!(results[7].as_ref().expect("again"), &shards[0].bytes);
    assert_eq!(node.requests.lock().len(), 1, "one round trip");
    assert_eq!(client.health(node.peer.node).failures_in_a_row, 0);
}

#[tokio::test]
async fn a_part_that_is_not_what_was_wanted_is_a_lie_and_ends_the_batch() {
    type Spoil = Box<dyn Fn(&mut Vec<Bytes>) + Send + Sync>;
    let lies: Vec<(&str, usize, Spoil)> = vec![
        ("another part first", 1, Box::new(|answers| answers.swap(1, 2))),
        ("a wrong byte", 1, Box::new(|answers| answers[1] = flipped(&answers[1]))),
        ("a part left out", 3, Box::new(|answers| drop(answers.pop()))),
        ("short of a byte", 3, Box::new(|answers| drop(answers[3].split_off(16_384)))),
        ("a part of the right length", 0, Box::new(|answers| answers[0] = flipped(&answers[0]))),
    ];
    for (lie, good, spoil) in lies {
        let node = server(spoil);
        let client = client();
        let wants: Vec<_> = shards().iter().map(Shard::wanted).collect();
        let results = all(client.read_many(&node.peer, wants).expect("a batch")).await;
        assert_eq!(results.len(), 4, "{lie}");
        for (position, result) in results.iter().enumerate() {
            assert_eq!(result.is_ok(), position < good, "{lie}, part {position}: {result:?}");
        }
        let error = results[good].as_ref().expect_err("a lie");
        let is_named = matches!(error, ClientError::Lied { .. } | ClientError::Protocol { .. });
        assert!(is_named && error.node() == Some(node.peer.node), "{lie}: {error}");
        assert_eq!(node.requests.lock().len(), 1, "{lie}: a liar is not asked again");
    }
}

fn flipped(answer: &Bytes) -> Bytes {
    let mut changed = answer.to_vec();
    *changed.last_mut().expect("not empty") ^= 1;
    changed.into()
}

#[tokio::test]
async fn an_answer_to_another_number_of_parts_is_a_protocol_error() {
    for stated in [0, 3, 5, u32::MAX] {
        let shards = shards();
        let wants: Vec<_> = shards.iter().map(Shard::wanted).collect();
        // All that follows is true.
        let node = node(move |mut ask| {
            let answers = answers(&shards, &wants_of(&ask));
            async move {
                ask.write(frame(&Response::Many { parts: stated })).await;
                for answer in answers {
                    ask.write(answer).await;
                }
                ask.end().await;
            }
        });
        let results = all(client().read_many(&node.peer, wants).expect("a batch")).await;
        assert_eq!(results.len(), 4, "every part has a result");
        for result in results {
            let error = result.expect_err("a wrong number");
            assert!(matches!(error, ClientError::Protocol { .. }), "{stated}: {error}");
        }
    }
}

#[tokio::test]
async fn bytes_after_the_last_part_are_a_protocol_error() {
    let node = server(|answers| answers.push(Bytes::from_static(b"x")));
    let wants: Vec<_> = shards().iter().map(Shard::wanted).collect();
    let mut results = all(client().read_many(&node.peer, wants).expect("a batch")).await;
    let error = results.pop().expect("four").expect_err("one byte too many");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    assert!(results.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_batch_that_is_cut_goes_on_inside_the_part_that_was_cut() {
    let shards = shards();
    let asked: Arc<Mutex<Vec<Vec<Want>>>> = Arc::default();
    let (served, seen) = (shards.clone(), Arc::clone(&asked));
    let node = node(move |mut ask| {
        let wants = wants_of(&ask);
        seen.lock().push(wants.clone());
        let answers = answers(&served, &wants);
        let second = served[1].answer(served[1].whole()).first(3 * GROUP + 7);
        async move {
            ask.write(count_of(wants.len())).await;
            if ask.number == 0 {
                ask.write(answers[0].clone()).await;
                ask.write(second).await;
                // The client gives up on the silence.
                ask.given_up().await;
                return;
            }
            for answer in answers {
                ask.write(answer).await;
            }
            ask.end().await;
        }
    });
    let client = client_with(|config| config.request_timeout = Duration::from_secs(1));
    let wants: Vec<_> = shards.iter().map(Shard::wanted).collect();
    let results = all(client.read_many(&node.peer, wants).expect("a batch")).await;
    for (shard, result) in shards.iter().zip(results) {
        assert_eq!(result.expect("it goes on"), shard.bytes);
    }
    let asked = asked.lock();
    assert_eq!(asked.len(), 2);
    let rest: Vec<_> = asked[1].iter().map(|want| want.shard).collect();
    assert_eq!(rest, shards[1..].iter().map(|shard| shard.id).collect::<Vec<_>>());
    assert_eq!(asked[1][0].range.expect("the rest of it").offset, 3 * GROUP);
    assert_eq!(client.statistics().resumes, 1);
}

#[tokio::test]
async fn batches_over_the_limits_are_refused_before_anything_is_sent() {
    let node = server(|_| {});
    let client = client();
    let wanted = Wanted::whole(ShardId::of(b"x"), 10);
    let bad = |error: ClientError| {
        assert!(matches!(error, ClientError::BadRequest { .. }), "{error}");
        assert_eq!(error.node(), Some(node.peer.node));
    };
    for wants in [vec![], vec![wanted.clone(); BATCH_PARTS_MAX + 1]] {
        bad(client.read_many(&node.peer, wants).expect_err("a wrong number"));
    }
    let beyond = Wanted { range: 5..11, ..wanted };
    bad(client.read_many(&node.peer, [beyond]).expect_err("not within the shard"));
    let part = |len: u64| PutPart {
        slot: Slot { stripe: 0, index: 0 },
        shard: ShardId::of(b"x"),
        bytes: vec![0; usize::try_from(len).expect("in memory")].into(),
    };
    let half = part(BATCH_BYTES_MAX / 2);
    for parts in [
        vec![],
        vec![part(1); BATCH_PARTS_MAX + 1],
        vec![part(1), part(0)],
        vec![half.clone(), half, part(1)],
    ] {
        bad(client.put_many(&node.peer, UPLOAD, parts).await.expect_err("over a limit"));
    }
    assert_eq!(client.statistics().connections_opened, 0);
    assert!(node.hellos.lock().is_empty());
}

#[tokio::test]
async fn a_batch_of_puts_is_one_body_and_each_part_has_its_result() {
    let bodies: Arc<Mutex<Vec<u8>>> = Arc::default();
    let kept = Arc::clone(&bodies);
    let node = node(move |mut ask| {
        let kept = Arc::clone(&kept);
        async move {
            let body = ask.recv.read_to_end(1 << 20).await.expect("the whole body");
            *kept.lock() = body;
            let results = vec![
                Ok(Ack { sequence: 9 }),
                Err(error_of(ErrorCode::BodyMismatch)),
                Ok(Ack { sequence: 8 }),
            ];
            ask.say(&Response::StoredMany { results }).await;
        }
    });
    let client = client();
    let shards = &shards()[..3];
    let slot = |index| Slot { stripe: 4, index };
    let parts: Vec<_> = (0..)
        .zip(shards)
        .map(|(index, shard)| PutPart {
            slot: slot(index),
            shard: shard.id,
            bytes: shard.bytes.clone(),
        })
        .collect();
    let results = client.put_many(&node.peer, UPLOAD, parts.clone()).await.expect("an answer");
    assert_eq!(results[0], Ok(Ack { sequence: 9 }));
    assert_eq!(results[1].as_ref().expect_err("refused").code(), Some(ErrorCode::BodyMismatch));
    assert_eq!(results[2], Ok(Ack { sequence: 8 }));
    let sent: Vec<u8> = shards.iter().flat_map(|shard| shard.bytes.to_vec()).collect();
    assert_eq!(*bodies.lock(), sent);
    assert_eq!(client.statistics().body_bytes_sent, sent.len() as u64);
    let announced = (0..).zip(shards).map(|(index, shard)| Part {
        slot: slot(index),
        shard: shard.id,
        len: shard.len(),
    });
    let expected = Request::PutMany { upload: UPLOAD, parts: announced.collect() };
    assert_eq!(*node.requests.lock(), [expected]);
    // Three results for two parts are no answer.
    let error = client.put_many(&node.peer, UPLOAD, parts[..2].to_vec()).await;
    let error = error.expect_err("a wrong number");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}
