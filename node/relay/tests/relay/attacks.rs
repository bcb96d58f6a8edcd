// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attackers beside honest clients, each from a prefix of its own: every honest request succeeds,
//! nobody gets more than its share, and when they are gone everything they held is free.
//!
//! An honest client that is told to come back does so when it was told. Nothing is asserted of the
//! clock: what is counted is requests, bytes and permits.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::ReadError;
use supernode_client::{Client, ClientError, Keypair, Peer, Transport};
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::proof_len;
use supernode_protocol::wire::{ErrorCode, Request, Response, encode_frame};
use supernode_relay::{Reason, Relay, RelayError};
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::{FrameReadError, read_frame};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::backend::MemoryBackend;
use crate::eventually::pass;
use crate::proxy::Proxy;
use crate::raw::{Raw, hello, message};
use crate::setup::{NETWORK, Setup, bytes_of, client, config, eventually, number, put_of};

const LATE: Duration = Duration::from_secs(60);
const SHARD_BYTES: usize = 64 << 10;
/// Times that an honest client is told to come back before we say that it starves.
const BUSY_MAX: usize = 10_000;

/// The first address of the nth /24 of loopback, from the 16th block of prefixes on.
fn prefix(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 16 + high, low, 1), 0))
}

fn client_of(number: u16, key: &Keypair) -> Client {
    client(key, |config| {
        config.bind = prefix(number);
        config.connect_timeout = Duration::from_secs(20);
        config.request_timeout = Duration::from_secs(60);
    })
}

/// Reads the shard as often as told. Busy answers are waited for as they say.
async fn read(
    client: &Client,
    peer: &Peer,
    bytes: &Bytes,
    times: usize,
) -> Result<(), ClientError> {
    let (shard, len) = (ShardId::of(bytes), bytes.len() as u64);
    for _ in 0..times {
        let mut busy = 0;
        loop {
            match client.shard(peer, shard, len).await {
                Ok(got) => {
                    assert_eq!(got, bytes);
                    break;
                }
                Err(error) if error.code() == Some(ErrorCode::Busy) && busy < BUSY_MAX => {
                    busy += 1;
                    pass(error.retry_after().expect("busy says when")).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// `count` clients of one prefix each, who all read.
fn honest(setup: &Setup, bytes: &Bytes, count: u16, times: usize) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..count {
        let client = client_of(number, &Keypair::generate_ed25519());
        let (peer, bytes) = (setup.peer(), bytes.clone());
        clients.spawn(async move {
            let read = read(&client, &peer, &bytes, times);
            let read = timeout(LATE, read).await.expect("nobody honest starves");
            read.expect("honest requests succeed");
            client.close().await;
        });
    }
    clients
}

async fn all(mut tasks: JoinSet<()>) {
    while let Some(outcome) = tasks.join_next().await {
        outcome.expect("no task fails");
    }
}

/// A shard that everybody may read.
fn stored(setup: &Setup, len: usize) -> Bytes {
    let bytes = bytes_of(len);
    setup.backend.content.lock().shards.insert(ShardId::of(&bytes), bytes.clone());
    bytes
}

fn get(bytes: &Bytes) -> Request {
    Request::GetShard { shard: ShardId::of(bytes), range: None }
}

/// Everything that clients can hold is free again.
async fn assert_all_is_free(setup: &Setup, requests_max: u32) {
    let is_free = || {
        let metrics = setup.relay.metrics();
        (metrics.requests_inflight, metrics.connections) == (0, 0)
            && metrics.permits_free == u64::from(requests_max)
    };
    eventually("all permits and places are free", is_free).await;
}

const REQUESTS_MAX: u32 = 64;

/// A node with little to give and time-outs that a test can wait for.
fn narrow(requests_max: u32) -> Setup {
    Setup::with(|config| {
        config.requests_max = requests_max;
        config.connections_per_client_max = 256;
        config.retry_after_ms = 5;
        config.class.stranger.requests_max = 16;
        config.class.stranger.requests_burst = 1 << 20;
        config.class.stranger.requests_per_sec = 1 << 20;
        config.streams_per_connection_max = 8;
        config.frame_timeout_ms = 2000;
        config.request_timeout_ms = 4000;
        config.body_bytes_per_sec_min = 1 << 20;
        // Memory is not what is short here.
        config.body_bytes_in_flight_max = 1 << 30;
        config.all_strangers.in_flight_bytes_max = 1 << 30;
        config.transport.send_window_bytes = 64 << 10;
    })
}

#[tokio::test]
async fn a_hog_with_a_thousand_requests_does_not_keep_fifty_from_theirs() {
    let setup = narrow(REQUESTS_MAX);
    let bytes = stored(&setup, SHARD_BYTES);
    let hog = client_of(1000, &Keypair::generate_ed25519());
    let mut greed = JoinSet::new();
    for _ in 0..1000 {
        let (hog, peer, bytes) = (hog.clone(), setup.peer(), bytes.clone());
        greed.spawn(async move { read(&hog, &peer, &bytes, 1).await.expect("its turn comes") });
    }
    all(honest(&setup, &bytes, 50, 4)).await;
    timeout(LATE, all(greed)).await.expect("the hog makes progress, too");
    hog.close().await;
    assert_all_is_free(&setup, REQUESTS_MAX).await;
    let sent = setup.relay.metrics().body_bytes_sent;
    let whole = SHARD_BYTES as u64;
    let each = whole + proof_len(whole, 0..whole).expect("all of it");
    assert_eq!(sent, (1000 + 50 * 4) * each, "every request was served once");
}

/// Requests of a hog that are served between an honest client's question and its answer, at most.
///
/// The node serves as many at a time as it has permits; all of those may be the hog's when the
/// honest request comes, and while it waits for its turn each other client in the round has one
/// turn. A round of everybody else here is 51 turns of one shard each; an answer may be noticed by
/// its client a window of the node later.
const OVERTAKES_MAX: u64 = 2 * (FEW as u64 + 51);
/// So few permits that one client alone may have all of them.
const FEW: u32 = 16;

#[tokio::test]
async fn nobody_is_overtaken_by_more_than_a_round() {
    let setup = narrow(FEW);
    let bytes = stored(&setup, SHARD_BYTES);
    let served = Arc::new(AtomicU64::new(0));
    let mut greed = JoinSet::new();
    // More connections than a client needs: on one of them QUIC would hold most requests back.
    let hogs: Vec<Client> = (0..8).map(|_| client_of(1000, &Keypair::generate_ed25519())).collect();
    for hog in hogs.iter().cycle().take(1000) {
        let (hog, peer, bytes) = (hog.clone(), setup.peer(), bytes.clone());
        let served = Arc::clone(&served);
        greed.spawn(async move {
            // For as long as anybody honest is there.
            while read(&hog, &peer, &bytes, 1).await.is_ok() {
                served.fetch_add(1, SeqCst);
            }
        });
    }
    let mut clients = JoinSet::new();
    for number in 0..50 {
        let client = client_of(number, &Keypair::generate_ed25519());
        let (peer, bytes, served) = (setup.peer(), bytes.clone(), Arc::clone(&served));
        clients.spawn(async move {
            client.connect(&peer).await.expect("a connection");
            let mut worst = 0;
            for _ in 0..4 {
                let before = served.load(SeqCst);
                read(&client, &peer, &bytes, 1).await.expect("honest requests succeed");
                worst = worst.max(served.load(SeqCst) - before);
            }
            worst
        });
    }
    let mut worst = 0;
    while let Some(outcome) = timeout(LATE, clients.join_next()).await.expect("nobody starves") {
        worst = worst.max(outcome.expect("no task fails"));
    }
    greed.shutdown().await;
    println!("overtaken by {worst} at most, of {} served to the hog", served.load(SeqCst));
    assert!(served.load(SeqCst) > 0, "the hog was there");
    assert!(worst <= OVERTAKES_MAX, "overtaken by {worst}");
}

#[tokio::test]
async fn ten_thousand_keys_behind_one_prefix_are_one_stranger() {
    const PLACES: u32 = 8;
    const BURST: u32 = 20;
    // Handshakes take their time; what counts is that a key more is nothing more.
    let keys = number("SUPERNODE_KEYS", 250);
    let setup = Setup::with(|config| {
        config.requests_max = REQUESTS_MAX;
        config.connections_per_prefix_max = PLACES;
        // Places are what is short here, not attempts.
        config.handshakes_per_prefix_per_sec = 1 << 20;
        config.class.stranger.requests_burst = BURST;
        config.class.stranger.requests_per_sec = 1;
    });
    let bytes = stored(&setup, 1000);
    let begun = Instant::now();
    let crowd = async {
        let (mut served, mut refused, mut inside) = (0, 0, Vec::new());
        for number in 0..keys {
            let key = Keypair::generate_ed25519();
            let host = u8::try_from(number % 250 + 1).expect("small");
            let from = SocketAddr::from((Ipv4Addr::new(127, 15, 0, host), 0));
            let to = setup.relay.local_addr();
            match Raw::dial(to, &key, from, &Transport::default()).await {
                Ok(raw) => inside.push(raw.greet().await),
                Err(_) => refused += 1,
            }
            assert!(setup.relay.metrics().connections <= u64::from(PLACES) + 20);
            for raw in &inside {
                served +=
                    u64::from(matches!(raw.ask(&get(&bytes), &[]).await, Response::Shard { .. }));
            }
            // Every other key makes room for the next: all of them are tried.
            if number % 2 == 0 && !inside.is_empty() {
                inside.remove(0).connection.close(0_u32.into(), b"");
            }
        }
        (served, refused)
    };
    let ((served, refused), ()) = tokio::join!(crowd, all(honest(&setup, &bytes, 20, 10)));
    let allowed = u64::from(BURST) + begun.elapsed().as_secs() + 1;
    assert!(served <= allowed, "{served} requests of one prefix, {allowed} allowed");
    assert!(served >= u64::from(BURST), "the prefix has its share");
    assert!(refused > 0, "there were never too many");
    let metrics = setup.relay.metrics();
    assert_eq!(metrics.rejected(Reason::PrefixConnections), refused);
    assert!(metrics.rejected(Reason::RequestRate) > 0);
    assert_all_is_free(&setup, REQUESTS_MAX).await;
}

/// A byte each second for as long as the server wants it; gives the code it was stopped with.
async fn drip(mut send: quinn::SendStream) -> Option<quinn::VarInt> {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            stopped = send.stopped() => return stopped.ok().flatten(),
            _ = second.tick() => {
                let _ = send.write_all(b"x").await;
            }
        }
    }
}

/// Announces a long body and sends a byte of it each second.
async fn slow_writer(raw: Arc<Raw>, put: Vec<u8>) {
    let (send, mut recv) = raw.open(&put).await;
    let (stopped, answer) = tokio::join!(drip(send), read_frame::<Response>(&mut recv));
    let cut = CloseCode::Deadline.to_varint();
    assert_eq!(stopped, Some(cut), "{answer:?}");
    let Err(FrameReadError::Read(ReadError::Reset(code))) = answer else { panic!("{answer:?}") };
    assert_eq!(code, cut);
}

/// Asks for a long body and reads a byte of it each second.
async fn slow_reader(raw: Arc<Raw>, get: Vec<u8>) {
    let (mut send, mut recv) = raw.open(&get).await;
    send.finish().expect("an open stream");
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut byte = [0];
    let code = loop {
        second.tick().await;
        match recv.read(&mut byte).await {
            Ok(Some(_)) => {}
            Err(quinn::ReadError::Reset(code)) => break code,
            other => panic!("a slow reader got {other:?}"),
        }
    };
    assert_eq!(code, CloseCode::Deadline.to_varint());
}

#[tokio::test]
async fn two_hundred_slow_readers_and_writers_are_cut() {
    // The slow take all but some of the permits.
    let setup = narrow(256);
    let bytes = stored(&setup, SHARD_BYTES);
    let long = stored(&setup, 2 << 20);
    // A hundred of them fit into their writer's share of the memory.
    let put = put_of(&bytes_of(512 << 10));
    let (slot, shard, len) = (put.slot, put.shard, put.bytes.len() as u64);
    let put = Request::PutShard { upload: put.upload, slot, shard, len };
    // What a slow reader does not read stays with the node.
    let narrow = Transport {
        stream_window_bytes: 64 << 10,
        connection_window_bytes: 64 << 10,
        ..Transport::default()
    };
    let to = setup.relay.local_addr();
    let mut slow = JoinSet::new();
    // Writers are on the list of writers, or they would be refused at once.
    for number in 0..50 {
        let writer = Raw::dial(to, &setup.writer_key, prefix(2000 + number), &narrow).await;
        let writer = Arc::new(writer.expect("a handshake").greet().await);
        let stranger = Keypair::generate_ed25519();
        let reader = Raw::dial(to, &stranger, prefix(3000 + number), &narrow).await;
        let reader = Arc::new(reader.expect("a handshake").greet().await);
        for _ in 0..2 {
            let (writer, put) = (Arc::clone(&writer), message(&put, b"x"));
            slow.spawn(slow_writer(writer, put));
            let (reader, get) = (Arc::clone(&reader), message(&get(&long), &[]));
            slow.spawn(slow_reader(reader, get));
        }
    }
    let honest = honest(&setup, &bytes, 20, 5);
    let (slow, ()) = tokio::join!(timeout(LATE, all(slow)), all(honest));
    slow.expect("every slow client is cut");
    assert_eq!(setup.backend.content.lock().shards.len(), 2, "nothing of theirs is kept");
    assert_all_is_free(&setup, 256).await;
}

/// Opens streams until the node allows no more, begins a request on each and finishes none.
async fn exhaust(raw: &Raw, begun: &[u8]) -> Vec<(quinn::SendStream, quinn::RecvStream)> {
    let mut streams = Vec::new();
    // The node allows more as it sees more begun.
    for _ in 0..7 {
        streams.push(timeout(LATE, raw.open(begun)).await.expect("within the limit"));
    }
    while let Ok(stream) = timeout(Duration::from_millis(100), raw.open(begun)).await {
        streams.push(stream);
    }
    // A stream that is freed is announced together with the next one, so that the hello's may
    // still count.
    assert!((7..=8).contains(&streams.len()), "{} streams, the limit is 8", streams.len());
    streams
}

#[tokio::test]
async fn streams_to_the_limit_and_one_more_on_a_hundred_connections() {
    let setup = narrow(REQUESTS_MAX);
    let bytes = stored(&setup, SHARD_BYTES);
    let opened = Arc::new(AtomicU64::new(0));
    let mut attackers = JoinSet::new();
    for number in 0..100 {
        let (to, opened) = (setup.relay.local_addr(), Arc::clone(&opened));
        let begun = message(&get(&bytes), &[])[..9].to_vec();
        attackers.spawn(async move {
            let key = Keypair::generate_ed25519();
            let raw = Raw::dial(to, &key, prefix(2000 + number), &Transport::default()).await;
            let raw = raw.expect("a handshake").greet().await;
            let streams = exhaust(&raw, &begun).await;
            opened.fetch_add(streams.len() as u64, SeqCst);
            // The node gives its streams up, one by one, and then there is room for another.
            for (send, mut recv) in streams {
                let answer = read_frame::<Response>(&mut recv).await.expect("an answer");
                let Response::Error(error) = answer else { panic!("{answer:?}") };
                assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
                drop(send);
            }
            let response = raw.ask(&Request::Status, &[]).await;
            assert!(matches!(response, Response::Status(_)), "{response:?}");
        });
    }
    all(honest(&setup, &bytes, 20, 5)).await;
    timeout(LATE, all(attackers)).await.expect("every stream is given up");
    assert_eq!(setup.relay.metrics().rejected(Reason::Deadline), opened.load(SeqCst));
    assert_all_is_free(&setup, REQUESTS_MAX).await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_cost_nobody_else_anything() {
    let setup = narrow(REQUESTS_MAX);
    let bytes = stored(&setup, SHARD_BYTES);
    // A put, so that a request may be cut with its permit in hand.
    let body = bytes_of(1000);
    let put = put_of(&body);
    let (upload, slot, shard) = (put.upload, put.slot, put.shard);
    let whole = message(&Request::PutShard { upload, slot, shard, len: 1000 }, &body);
    let mut churn = JoinSet::new();
    for number in 0..5 {
        let (to, from) = (setup.relay.local_addr(), prefix(2000 + number));
        let raw = Raw::dial(to, &setup.writer_key, from, &Transport::default()).await;
        let raw = raw.expect("a handshake").greet().await;
        let whole = whole.clone();
        churn.spawn(async move {
            for round in 0..500 {
                let (mut send, mut recv) = raw.open(&whole[..round * 7 % whole.len()]).await;
                if round % 3 == 0 {
                    // Long enough for the node to have it.
                    tokio::task::yield_now().await;
                }
                send.reset(1_u32.into()).expect("an open stream");
                let _ = recv.stop(1_u32.into());
            }
        });
    }
    let honest = honest(&setup, &bytes, 20, 10);
    let (churn, ()) = tokio::join!(timeout(LATE, all(churn)), all(honest));
    churn.expect("resetting does not block");
    assert_all_is_free(&setup, REQUESTS_MAX).await;
}

#[tokio::test]
async fn clients_vanish_at_every_byte() {
    let setup = Setup::with(|config| {
        config.requests_max = REQUESTS_MAX;
        config.connections_per_prefix_max = 1024;
        config.connections_per_client_max = 1024;
        config.handshakes_per_prefix_per_sec = 1 << 20;
        config.handshakes_retry_from = 512;
        config.hello_timeout_ms = 2000;
        config.frame_timeout_ms = 2000;
        config.request_timeout_ms = 2000;
        config.transport.idle_timeout_secs = 2;
    });
    let bytes = stored(&setup, SHARD_BYTES);
    let body = bytes_of(20);
    let put = put_of(&body);
    let (upload, slot, shard) = (put.upload, put.slot, put.shard);
    let put = message(&Request::PutShard { upload, slot, shard, len: 20 }, &body);
    let greeting = encode_frame(&hello(NETWORK)).expect("short");
    for end in 0..greeting.len() + put.len() {
        let proxy = Proxy::to(setup.relay.local_addr()).await;
        let (from, path) = (crate::setup::loopback(0), Transport::default());
        let raw = Raw::dial(proxy.address, &setup.writer_key, from, &path).await;
        let raw = raw.expect("a handshake");
        let (raw, bytes) = match end.checked_sub(greeting.len()) {
            None => (raw, &greeting[..end]),
            Some(end) => (raw.greet().await, &put[..end]),
        };
        let sent = raw.connection.stats().frame_tx.stream;
        let stream = raw.open(bytes).await;
        let is_there = || {
            let stats = raw.connection.stats();
            (stats.frame_tx.stream > sent || bytes.is_empty())
                && proxy.requests() >= stats.udp_tx.datagrams
        };
        eventually("the node has the bytes", is_there).await;
        // What closes the connection is swallowed: nobody tells the node that this client is gone.
        proxy.black_out(true);
        drop((stream, raw, proxy));
    }
    all(honest(&setup, &bytes, 10, 5)).await;
    assert_eq!(setup.backend.begun.load(SeqCst), 20, "each that got as far as its body");
    assert!(!setup.backend.content.lock().shards.contains_key(&shard), "nothing was whole");
    assert_all_is_free(&setup, REQUESTS_MAX).await;
}

#[tokio::test]
async fn a_server_that_restarts_under_its_clients_loses_no_honest_request() {
    let setup = Setup::new();
    let bytes = stored(&setup, SHARD_BYTES);
    let (peer, address) = (setup.peer(), setup.relay.local_addr());
    let served = Arc::new(AtomicU64::new(0));
    let (over, is_over) = tokio::sync::watch::channel(false);
    let mut clients = JoinSet::new();
    for number in 0..20 {
        let client = client_of(number, &Keypair::generate_ed25519());
        let (peer, bytes, served) = (peer.clone(), bytes.clone(), Arc::clone(&served));
        let is_over = is_over.clone();
        clients.spawn(async move {
            while !*is_over.borrow() {
                match read(&client, &peer, &bytes, 1).await {
                    Ok(()) => served.fetch_add(1, SeqCst),
                    Err(error) => {
                        assert!(error.retryable(), "{error}");
                        pass(Duration::from_millis(20)).await;
                        0
                    }
                };
            }
            read(&client, &peer, &bytes, 1).await.expect("the last server serves");
        });
    }
    let Setup { mut relay, backend, node_key, writer_key } = setup;
    for restart in 1..=3 {
        let so_far = served.load(SeqCst);
        eventually("all are served", || served.load(SeqCst) > so_far + 100).await;
        assert!(relay.stop(Duration::from_secs(20)).await, "restart {restart} cut a request off");
        relay.ended().await;
        drop(relay);
        relay = timeout(LATE, started_again(address, &backend, &node_key, &writer_key))
            .await
            .expect("the port is free again");
    }
    over.send_replace(true);
    timeout(LATE, all(clients)).await.expect("everybody ends");
    let metrics = relay.metrics();
    assert_eq!(metrics.requests_inflight, 0);
}

/// The same node at the same address, as soon as the socket of the one before is closed.
async fn started_again(
    address: SocketAddr,
    backend: &Arc<MemoryBackend>,
    node_key: &Keypair,
    writer_key: &Keypair,
) -> Relay {
    loop {
        let config = config(writer_key, |config| config.listen = address);
        match Relay::start(config, node_key, Arc::clone(backend), CancellationToken::new()) {
            Ok(relay) => return relay,
            Err(RelayError::Bind { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}
