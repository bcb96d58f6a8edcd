// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many shards in one request: the bytes of one follow those of the other, and while later ones
//! arrive the earlier are stored, so that they share what the disk does at once.

use quinn::RecvStream;
use supernode_protocol::ids::UploadId;
use supernode_protocol::limits::{BATCH_BYTES_MAX, BATCH_PARTS_MAX, SHARD_BYTES_MAX};
use supernode_protocol::wire::{ErrorCode, Part, Response, WireError};
use tokio::task::JoinSet;

use crate::admission::{Client, Direction, Rejection};
use crate::answer::Answer;
use crate::backend::{Backend, ShardPlace, ShardSink};
use crate::handlers::{check_len, expect_body_end, receive};
use crate::metrics::Reason;
use crate::request::{Fault, bad_request, in_time};
use crate::server::Shared;

/// How many parts a batch has; nothing and too much are refused.
pub(crate) fn count(parts: usize) -> Result<u32, Fault> {
    let count = u32::try_from(parts).ok().filter(|_| (1..=BATCH_PARTS_MAX).contains(&parts));
    count.ok_or_else(|| {
        bad_request(format!("a batch of {parts} parts is out of range; 1 to {BATCH_PARTS_MAX}"))
    })
}

/// Stores the shards of a batch. One that is not what it should be, or has no room, is the only
/// one that is lost.
pub(crate) async fn put<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    upload: UploadId,
    parts: &[Part],
    recv: &mut RecvStream,
) -> Result<Answer<B::Source>, Fault> {
    let total = check(parts)?;
    let writer = client.puts_as(upload, parts.iter().copied())?;
    client.charge(total)?;
    let _memory = client.claim(total, shared.live.get().queue_wait()).await?;
    let mut toll = client.toll(Direction::Ingress, total);
    let mut results = vec![Err(unanswered()); parts.len()];
    let mut under_way = JoinSet::new();
    for (number, part) in parts.iter().enumerate() {
        let place = ShardPlace { upload, slot: part.slot, shard: part.shard };
        let mut sink = shared.backend.begin_put(writer, part.len).await;
        receive(shared, &mut toll, recv, part.len, |bytes| {
            // What has failed is read on, for what follows it.
            if let Ok(open) = &mut sink
                && let Err(error) = open.write(bytes)
            {
                sink = Err(error);
            }
            Ok(())
        })
        .await?;
        match sink {
            Ok(sink) => {
                under_way.spawn(async move { (number, sink.finish(place).await) });
            }
            Err(error) => results[number] = Err(error),
        }
    }
    expect_body_end(shared, recv, total).await?;
    let all = async {
        while let Some(ended) = under_way.join_next().await {
            // One that panicked keeps the answer it began with.
            if let Ok((number, result)) = ended {
                results[number] = result;
            }
        }
        Ok::<_, Fault>(())
    };
    in_time(shared, all).await?;
    Ok(Response::StoredMany { results }.into())
}

fn unanswered() -> WireError {
    WireError {
        code: ErrorCode::Internal,
        message: "the node failed to store this shard; ask another holder".to_owned(),
        retry_after_ms: None,
    }
}

fn check(parts: &[Part]) -> Result<u64, Fault> {
    count(parts.len())?;
    let mut total: u64 = 0;
    for part in parts {
        check_len("shard", part.len, SHARD_BYTES_MAX)?;
        total += part.len;
    }
    if total > BATCH_BYTES_MAX {
        let message = format!("a batch of {total} bytes is over the limit of {BATCH_BYTES_MAX}");
        return Err(Rejection::new(Reason::TooLarge, ErrorCode::BadRequest, message).into());
    }
    Ok(total)
}
