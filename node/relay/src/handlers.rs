// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each kind of request does, between the wire and the backend. Lengths are judged before
//! anything is made ready for them, and an answer is made only from complete requests.

use std::iter;

use bytes::{Bytes, BytesMut};
use quinn::RecvStream;
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::limits::{
    LISTING_ENTRIES_MAX, PAGE_BLOCK_BYTES_MAX, ROOT_BLOCK_BYTES_MAX, SHARD_BYTES_MAX,
    SPAN_PROOF_BYTES_MAX,
};
use supernode_protocol::repair::Repair;
use supernode_protocol::wire::{Ack, ErrorCode, Part, Request, Response, WireError, encode_frame};
use supernode_tls::frames::at_end;

use crate::admission::{Client, Direction, Rejection, Toll};
use crate::answer::{self, Answer, Body};
use crate::backend::{Backend, ShardPlace, ShardSink};
use crate::batch;
use crate::metrics::Reason;
use crate::pace::{Pace, STEP_BYTES};
use crate::request::{Fault, bad_request, in_time};
use crate::server::Shared;

/// Acts on an admitted request.
pub(crate) async fn handle<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    request: Request,
    recv: &mut RecvStream,
) -> Result<Answer<B::Source>, Fault> {
    if let Request::GetShard { shard, range } = request {
        expect_end(recv).await?;
        let (response, body) = answer::open(shared, client, shard, range).await?;
        return Ok(Answer { response, body: Body::Shard(body) });
    }
    // Most requests are reads of shards, and theirs is a small future. They are spared moving the
    // others' about.
    Box::pin(handle_other(shared, client, request, recv)).await
}

async fn handle_other<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    request: Request,
    recv: &mut RecvStream,
) -> Result<Answer<B::Source>, Fault> {
    let backend = &*shared.backend;
    let caller = client.node;
    match request {
        Request::PutShard { upload, slot, shard, len } => {
            return put_shard(shared, client, ShardPlace { upload, slot, shard }, len, recv).await;
        }
        Request::PutBlock { upload, cid, len } => {
            let bytes = receive_block(shared, client, cid, len, recv).await?;
            let ack = in_time(shared, backend.put_block(caller, upload, cid, bytes)).await?;
            return Ok(Response::Stored(ack).into());
        }
        Request::PutMany { upload, parts } => {
            return batch::put(shared, client, upload, &parts, recv).await;
        }
        Request::Repair { repair, root_len, page_len } => {
            return prove_repair(shared, client, *repair, (root_len, page_len), recv).await;
        }
        _ => {}
    }
    expect_end(recv).await?;
    match request {
        Request::GetMany { parts } => {
            let response = Response::Many { parts: batch::count(parts.len())? };
            Ok(Answer { response, body: Body::Many(parts) })
        }
        Request::Group { object, group, with_root } => {
            group_blocks(shared, client, (object, group), with_root).await
        }
        Request::Commit(commit) => {
            let (upload, writer) = (commit.upload, client.commits_as(&commit)?);
            let (ack, slot_count) = backend.commit(writer, *commit).await?;
            client.repaired(upload);
            Ok(Response::Committed { ack, slot_count }.into())
        }
        question => Ok(ask(backend, caller, question).await?.into()),
    }
}

/// Asks the node what is answered by a frame alone.
async fn ask<B: Backend>(
    backend: &B,
    caller: NodeId,
    question: Request,
) -> Result<Response, Fault> {
    Ok(match question {
        Request::Stat { object, group } => {
            let mut slots = backend.held(caller, object, group).await?;
            fit(&mut slots, usize::MAX, |slots| Response::Held { slots })
        }
        Request::Leases { after } => {
            let mut entries = backend.leases(caller, after).await?;
            fit(&mut entries, LISTING_ENTRIES_MAX, |entries| Response::Leases { entries })
        }
        Request::Release { lease } => Response::Released(backend.release(caller, lease).await?),
        Request::Renew { lease, expiry } => {
            Response::Renewed(backend.renew(caller, lease, expiry).await?)
        }
        Request::Members { after } => {
            let mut nodes = backend.members(after).await?;
            fit(&mut nodes, LISTING_ENTRIES_MAX, |nodes| Response::Members { nodes })
        }
        Request::Status => Response::Status(backend.status().await?),
        Request::Receipt { lease, object, wanted } => {
            Response::Receipt(backend.receipt(caller, lease, object, wanted).await?)
        }
        Request::KeepSpan { object, group, span } => {
            check_len("span proof", span.encode().len() as u64, SPAN_PROOF_BYTES_MAX as u64)?;
            Response::Stored(backend.keep_span(caller, object, group, *span).await?)
        }
        // The others were answered before.
        Request::Hello { .. }
        | Request::Commit(_)
        | Request::Repair { .. }
        | Request::PutShard { .. }
        | Request::PutBlock { .. }
        | Request::PutMany { .. }
        | Request::GetShard { .. }
        | Request::GetMany { .. }
        | Request::Group { .. } => {
            return Err(bad_request("this connection has said hello before"));
        }
    })
}

async fn put_shard<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    place: ShardPlace,
    len: u64,
    recv: &mut RecvStream,
) -> Result<Answer<B::Source>, Fault> {
    check_len("shard", len, SHARD_BYTES_MAX)?;
    let ShardPlace { upload, slot, shard } = place;
    let writer = client.puts_as(upload, iter::once(Part { slot, shard, len }))?;
    client.charge(len)?;
    let _memory = client.claim(len, shared.live.get().queue_wait()).await?;
    let mut sink = in_time(shared, shared.backend.begin_put(writer, len)).await?;
    let mut toll = client.toll(Direction::Ingress, len);
    receive(shared, &mut toll, recv, len, |bytes| sink.write(bytes)).await?;
    expect_body_end(shared, recv, len).await?;
    let ack: Ack = in_time(shared, sink.finish(place)).await?;
    Ok(Response::Stored(ack).into())
}

async fn receive_block<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    cid: Cid,
    len: u64,
    recv: &mut RecvStream,
) -> Result<Bytes, Fault> {
    check_len("manifest block", len, ROOT_BLOCK_BYTES_MAX as u64)?;
    let block = receive_bytes(shared, client, len, recv).await?;
    if Cid::of(&block) != cid {
        return Err(mismatch(format!("the body does not hash to {cid}")));
    }
    Ok(block)
}

/// Stores the manifest that a repair comes with, and lets the client write the rest.
async fn prove_repair<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    repair: Repair,
    (root_len, page_len): (u32, u32),
    recv: &mut RecvStream,
) -> Result<Answer<B::Source>, Fault> {
    check_len("manifest root", root_len.into(), ROOT_BLOCK_BYTES_MAX as u64)?;
    if page_len > 0 {
        check_len("manifest page", page_len.into(), PAGE_BLOCK_BYTES_MAX as u64)?;
    }
    let backend = &*shared.backend;
    let node = backend.node_record().body_unverified().node;
    let owner = client.judge(&repair, node)?;
    let len = u64::from(root_len) + u64::from(page_len);
    let mut root = receive_bytes(shared, client, len, recv).await?;
    let page = root.split_off(usize::try_from(root_len).expect("at most a few MiB"));
    let allowed =
        repair.open(node, &root, &page).map_err(|error| bad_request(error.to_string()))?;
    let (upload, object, page_cid) = (allowed.upload(), allowed.object(), allowed.page());
    client.begin_repair(allowed)?;
    let mut ack = in_time(shared, backend.put_block(owner, upload, object, root)).await?;
    if let Some(cid) = page_cid {
        ack = in_time(shared, backend.put_block(owner, upload, cid, page)).await?;
    }
    Ok(Response::Stored(ack).into())
}

/// A body of `len` bytes, which is within the limits, in memory.
async fn receive_bytes<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    len: u64,
    recv: &mut RecvStream,
) -> Result<Bytes, Fault> {
    client.charge(len)?;
    let _memory = client.claim(len, shared.live.get().queue_wait()).await?;
    let mut body = BytesMut::new();
    let mut toll = client.toll(Direction::Ingress, len);
    receive(shared, &mut toll, recv, len, |bytes| {
        body.extend_from_slice(bytes);
        Ok(())
    })
    .await?;
    expect_body_end(shared, recv, len).await?;
    Ok(body.freeze())
}

/// Hands out exactly `len` bytes of body as they come.
pub(crate) async fn receive<B: Backend>(
    shared: &Shared<B>,
    toll: &mut Toll<'_>,
    recv: &mut RecvStream,
    len: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), WireError>,
) -> Result<(), Fault> {
    let pace = Pace::of(&shared.live.get());
    let mut missing = len;
    while missing > 0 {
        let step = missing.min(STEP_BYTES as u64);
        toll.pay(step).await;
        let work = receive_step(recv, toll, (step, missing), &mut take);
        pace.keep(step, work).await??;
        missing -= step;
    }
    Ok(())
}

/// Demands that the body ends where it was to.
pub(crate) async fn expect_body_end<B>(
    shared: &Shared<B>,
    recv: &mut RecvStream,
    len: u64,
) -> Result<(), Fault> {
    let pace = Pace::of(&shared.live.get());
    if pace.keep(0, at_end(recv)).await?.map_err(|_| Fault::Gone)? {
        Ok(())
    } else {
        Err(mismatch(format!("the body is longer than the {len} bytes announced")))
    }
}

/// Hands out the next `step` bytes of the `missing` ones.
async fn receive_step(
    recv: &mut RecvStream,
    toll: &Toll<'_>,
    (step, missing): (u64, u64),
    take: &mut impl FnMut(&[u8]) -> Result<(), WireError>,
) -> Result<(), Fault> {
    let mut arrived = 0;
    while arrived < step {
        let left = usize::try_from(step - arrived).unwrap_or(STEP_BYTES);
        let chunk = recv.read_chunk(left, true).await.map_err(|_| Fault::Gone)?;
        let Some(chunk) = chunk else {
            let early = missing - arrived;
            return Err(mismatch(format!("the body ended {early} bytes early")));
        };
        take(&chunk.bytes)?;
        arrived += chunk.bytes.len() as u64;
        toll.moved(chunk.bytes.len() as u64);
    }
    Ok(())
}

async fn group_blocks<B: Backend>(
    shared: &Shared<B>,
    client: &Client,
    (object, group): (Cid, u32),
    with_root: bool,
) -> Result<Answer<B::Source>, Fault> {
    let read = shared.backend.group(client.node, object, group, with_root).await?;
    let (root, page) = (read.root.unwrap_or_default(), read.page.unwrap_or_default());
    client.charge((root.len() + page.len()) as u64)?;
    let response = Response::Group {
        root_len: length(&root),
        page_len: length(&page),
        placement: Box::new(read.placement),
    };
    Ok(Answer { response, body: Body::Blocks([root, page]) })
}

/// Demands that a request without a body has none.
async fn expect_end(recv: &mut RecvStream) -> Result<(), Fault> {
    match at_end(recv).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(bad_request("bytes follow a request that has no body")),
        Err(_) => Err(Fault::Gone),
    }
}

pub(crate) fn check_len(what: &str, len: u64, bytes_max: u64) -> Result<(), Fault> {
    if (1..=bytes_max).contains(&len) {
        return Ok(());
    }
    let message = format!("a {what} of {len} bytes is out of range; it has 1 to {bytes_max}");
    Err(Rejection::new(Reason::TooLarge, ErrorCode::BadRequest, message).into())
}

fn mismatch(message: String) -> Fault {
    Rejection::new(Reason::BodyMismatch, ErrorCode::BodyMismatch, message).into()
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).expect("blocks and proofs are a few MiB at most")
}

/// A listing cut to what one frame takes; whoever asks goes on after the last entry.
fn fit<T: Clone>(
    entries: &mut Vec<T>,
    entries_max: usize,
    respond: impl Fn(Vec<T>) -> Response,
) -> Response {
    entries.truncate(entries_max);
    loop {
        let response = respond(entries.clone());
        if entries.is_empty() || encode_frame(&response).is_ok() {
            return response;
        }
        entries.truncate(entries.len() * 3 / 4);
    }
}
