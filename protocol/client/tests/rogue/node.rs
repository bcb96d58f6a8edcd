// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node whose answers a test writes, a client for it, and shards to serve.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, RecvStream, SendStream, TokioRuntime, VarInt};
use supernode_client::{Client, ClientConfig, Keypair, Peer, Transport, Wanted};
use supernode_protocol::ids::{NodeId, ShardId};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::{GROUP_BYTES, TreeHasher, align_to_groups, range_proof};
use supernode_protocol::wire::{ByteRange, ErrorCode, Request, Response, WireError, encode_frame};
use supernode_tls::frames::read_frame;
use supernode_tls::identity::server_config;

/// Far more than anything here takes.
pub const SOON: Duration = Duration::from_secs(20);
pub const NETWORK: &str = "test";
pub const GROUP: u64 = GROUP_BYTES as u64;

pub fn id_of(key: &Keypair) -> NodeId {
    NodeId::from_public(&key.public()).expect("Ed25519")
}

pub fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub fn record_of(key: &Keypair, network: &str) -> Signed<NodeRecord> {
    let record = NodeRecord {
        node: id_of(key),
        sequence: 1,
        network: network.to_owned(),
        region: "EU-WEST".to_owned(),
        capacity_bytes: 0,
        quic: Vec::new(),
        libp2p: Vec::new(),
    };
    Signed::sign(record, key).expect("own key")
}

pub fn welcome(node: Signed<NodeRecord>, streams_max: u32) -> Response {
    Response::Welcome { node: Box::new(node), agent: "rogue".to_owned(), streams_max }
}

pub fn frame(response: &Response) -> Bytes {
    encode_frame(response).expect("a short frame")
}

/// A client that gives up soon.
pub fn client_with(change: impl FnOnce(&mut ClientConfig)) -> Client {
    let mut config = ClientConfig::new(Keypair::generate_ed25519(), NETWORK);
    config.bind = loopback();
    change(&mut config);
    Client::new(config).expect("a free port")
}

pub fn client() -> Client {
    client_with(|_| {})
}

/// One request that came, and the stream to answer on.
pub struct Ask {
    /// Requests after the hello that came to this node before it.
    pub number: usize,
    pub request: Request,
    pub send: SendStream,
    pub recv: RecvStream,
    pub connection: Connection,
}

impl Ask {
    /// Writes bytes; a client that wants no more is not this node's problem.
    pub async fn write(&mut self, bytes: Bytes) {
        let _ = self.send.write_chunk(bytes).await;
    }

    /// Answers with a frame and nothing after it.
    pub async fn say(mut self, response: &Response) {
        self.write(frame(response)).await;
        self.end().await;
    }

    pub async fn say_error(self, code: ErrorCode, retry_after_ms: Option<u32>) {
        let error = WireError { code, message: "as scripted".to_owned(), retry_after_ms };
        self.say(&Response::Error(error)).await;
    }

    /// Ends the answer and stays until the client has it.
    pub async fn end(mut self) {
        let _ = self.send.finish();
        let _ = self.send.stopped().await;
    }

    /// Waits until the client gives up on the answer; the code it gives.
    pub async fn given_up(&self) -> Option<VarInt> {
        self.send.stopped().await.ok().flatten()
    }

    /// The range that a request for a shard names.
    pub fn range(&self) -> Option<ByteRange> {
        let Request::GetShard { range, .. } = &self.request else { panic!("{:?}", self.request) };
        *range
    }
}

/// A running node. Dropping it closes all its connections.
pub struct Node {
    pub key: Keypair,
    pub peer: Peer,
    pub endpoint: Endpoint,
    /// What came after the hello.
    pub requests: Arc<Mutex<Vec<Request>>>,
    pub hellos: Arc<Mutex<Vec<Request>>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.endpoint.close(VarInt::from_u32(4), b"the test is over");
    }
}

impl Node {
    /// Offsets of the ranges that were asked for, in order.
    pub fn offsets(&self) -> Vec<u64> {
        let requests = self.requests.lock();
        let offset = |request: &Request| match request {
            Request::GetShard { range, .. } => range.map_or(0, |range| range.offset),
            request => panic!("{request:?}"),
        };
        requests.iter().map(offset).collect()
    }
}

/// Starts a node that welcomes everybody and hands each request to `answer`.
pub fn node<A, F>(answer: A) -> Node
where
    A: Fn(Ask) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let key = Keypair::generate_ed25519();
    let hello = frame(&welcome(record_of(&key, NETWORK), 64));
    node_at(&key, loopback(), hello, answer).expect("a free port")
}

/// As [`node`], at an address that may be taken, with a hello of its own.
pub fn node_at<A, F>(
    key: &Keypair,
    address: SocketAddr,
    hello: Bytes,
    answer: A,
) -> std::io::Result<Node>
where
    A: Fn(Ask) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let transport = Transport::default();
    let mut server = server_config(key).expect("Ed25519");
    server.transport_config(Arc::new(transport.to_quinn(64)));
    let socket = transport.bind(address)?.socket;
    let settings = transport.endpoint(key).expect("Ed25519");
    let endpoint = Endpoint::new(settings, Some(server), socket, Arc::new(TokioRuntime))?;
    let peer = Peer { node: id_of(key), addresses: vec![endpoint.local_addr()?] };
    let node = Node {
        key: key.clone(),
        peer,
        endpoint: endpoint.clone(),
        requests: Arc::default(),
        hellos: Arc::default(),
    };
    let (requests, hellos) = (Arc::clone(&node.requests), Arc::clone(&node.hellos));
    let answer = Arc::new(answer);
    let number = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let (answer, hello, number) = (Arc::clone(&answer), hello.clone(), Arc::clone(&number));
            let (requests, hellos) = (Arc::clone(&requests), Arc::clone(&hellos));
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                    let Ok(request) = read_frame::<Request>(&mut recv).await else { continue };
                    if matches!(request, Request::Hello { .. }) {
                        hellos.lock().push(request);
                        let _ = send.write_chunk(hello.clone()).await;
                        let _ = send.finish();
                        continue;
                    }
                    requests.lock().push(request.clone());
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    let connection = connection.clone();
                    tokio::spawn(answer(Ask { number, request, send, recv, connection }));
                }
            });
        }
    });
    Ok(node)
}

/// Bytes of a shard and what proves them.
#[derive(Clone)]
pub struct Shard {
    pub id: ShardId,
    pub bytes: Bytes,
    outboard: Bytes,
}

impl Shard {
    /// Bytes that differ everywhere, and from those of another `name`.
    pub fn new(name: &str, len: usize) -> Self {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
        let mut hasher = TreeHasher::new(len as u64);
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish().expect("as announced");
        Self { id, bytes: bytes.into(), outboard: outboard.into() }
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub fn wanted(&self) -> Wanted {
        Wanted::whole(self.id, self.len())
    }

    /// All of it, as a range.
    pub fn whole(&self) -> Option<ByteRange> {
        Some(ByteRange { offset: 0, len: self.len() })
    }

    /// The true answer to a request for all of it or a range.
    pub fn answer(&self, range: Option<ByteRange>) -> Answer {
        let shard_len = self.len();
        let Some(ByteRange { offset, len }) = range else {
            let range = ByteRange { offset: 0, len: shard_len };
            let header = Response::Shard { shard_len, range, proof_len: 0 };
            return Answer { header, proof: Bytes::new(), bytes: self.bytes.clone() };
        };
        let wanted = offset..offset + len;
        let sent = align_to_groups(wanted.clone(), shard_len).expect("within the shard");
        let proof = range_proof(&self.outboard, shard_len, wanted).expect("within the shard");
        let position = |byte| usize::try_from(byte).expect("in memory");
        let range = ByteRange { offset: sent.start, len: sent.end - sent.start };
        let proof_len = u32::try_from(proof.len()).expect("short");
        Answer {
            header: Response::Shard { shard_len, range, proof_len },
            proof: proof.into(),
            bytes: self.bytes.slice(position(sent.start)..position(sent.end)),
        }
    }
}

/// An answer in its three pieces, to be spoilt.
pub struct Answer {
    pub header: Response,
    pub proof: Bytes,
    pub bytes: Bytes,
}

impl Answer {
    /// All of it as it goes over the wire.
    pub fn to_bytes(&self) -> Bytes {
        [&frame(&self.header)[..], &self.proof, &self.bytes].concat().into()
    }

    /// The head, and `bytes` of the body after the proof.
    pub fn first(&self, bytes: u64) -> Bytes {
        let kept = usize::try_from(bytes).expect("in memory");
        [&frame(&self.header)[..], &self.proof, &self.bytes[..kept]].concat().into()
    }
}

/// A node that serves `shard` as it should.
pub fn honest(shard: &Shard) -> Node {
    let shard = shard.clone();
    node(move |mut ask| {
        let answer = shard.answer(ask.range());
        async move {
            ask.write(answer.to_bytes()).await;
            ask.end().await;
        }
    })
}
