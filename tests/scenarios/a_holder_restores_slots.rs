// SPDX-License-Identifier: MIT OR Apache-2.0
//! A holder restores slots on a node that nobody has told to take them: it is refused until it
//! shows that the owner has named it, and then everything is there. Both of the first holders die,
//! and the object comes back from the third node alone.

use std::fs;

use supernode_client::{Client, ClientConfig, ClientError, GroupAnswer, Keypair, Peer, PutShard};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind, LeaseTerms};
use supernode_protocol::manifest::Root;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::repair::Repair;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::ErrorCode;
use supernode_tests::network::{Network, Node, Shape};
use supernode_tests::random::Seeded;
use tokio::runtime::Runtime;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const NODES: usize = 3;
const OBJECT_BYTES: usize = 1_000_000;

fn peer_of(node: &Node) -> Peer {
    let (_, id) = node.libp2p.rsplit_once("/p2p/").expect("a libp2p address with its peer id");
    Peer { node: id.parse().expect("an id"), addresses: vec![node.quic.parse().expect("QUIC")] }
}

/// The key of a node, which `dev` has made beside its data.
fn key_of(node: &Node) -> Keypair {
    let file = fs::read(node.data_dir.join("identity.key")).expect("it has an identity");
    Keypair::from_protobuf_encoding(&file).expect("in libp2p's encoding")
}

/// What a holder has of an object, asked with the holder's own key.
struct Holder {
    key: Keypair,
    client: Client,
    answer: GroupAnswer,
}

impl Holder {
    async fn of(node: &Node, object: Cid) -> Option<Self> {
        let key = key_of(node);
        let client = Client::new(ClientConfig::new(key.clone(), "dev")).expect("a socket");
        let answer = client.group(&peer_of(node), object, 0, true).await.ok()?;
        Some(Self { key, client, answer })
    }

    /// Both slots for `node`, under a lease of whoever has signed the first placement.
    fn repair(&self, node: NodeId) -> Repair {
        let warrant = self.answer.placement.clone();
        let writer = NodeId::from_public(&self.key.public()).expect("Ed25519");
        let first = warrant.body_unverified().clone();
        let owner = first.writer;
        let body = PlacementRecord { epoch: 1, nodes: vec![node; 2], writer, ..first };
        Repair {
            terms: LeaseTerms {
                lease: LeaseId::from_bytes([5; 16]),
                owner,
                kind: LeaseKind::Pin,
                expiry: Expiry::RunningSeconds(3600),
            },
            warrant,
            placement: Signed::sign(body, &self.key).expect("own key"),
        }
    }

    async fn put(&self, from: &[Peer], to: &Peer, repair: &Repair) -> Result<u32, ClientError> {
        let root = Root::decode(self.answer.root.as_deref().expect("asked for")).expect("a root");
        let stripe = root.page_0.stripes().next().expect("one stripe");
        for (index, shard) in (0_u16..).zip(&stripe.shards) {
            let nodes = &repair.warrant.body_unverified().nodes;
            let holder = from.iter().find(|peer| peer.node == nodes[usize::from(index)]);
            let holder = holder.expect("one of the nodes");
            let bytes = self.client.shard(holder, *shard, stripe.shard_len).await?;
            let slot = Slot { stripe: 0, index };
            let put = PutShard { upload: repair.upload(), slot, shard: *shard, bytes };
            self.client.put_shard(to, put).await?;
        }
        let span = root.groups().next().expect("one group");
        let commit = repair.commit(&span);
        Ok(self.client.commit(to, commit).await?.slot_count)
    }
}

#[test]
fn a_holder_restores_slots_and_the_first_holders_may_die() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let bytes = random.bytes(OBJECT_BYTES);
    let shape = Shape { nodes: NODES, ..Shape::default() };
    let mut network = Network::start_as(PROGRAM, &shape);
    let file = network.path("object");
    fs::write(&file, &bytes).expect("an own directory");
    let put = network.client().run(["put", "--class=1+1", file.to_str().expect("ASCII")]);
    let cid = put.expect(0).text().to_owned();

    let holders = Runtime::new().expect("threads").block_on(restore(&network, &cid));
    network.kill(&holders);
    network.client().fetch_exact(&cid, &network.path(""), &bytes);
    network.stop();
}

/// Restores both slots on the node that has none; returns the positions of those that had them.
async fn restore(network: &Network, cid: &str) -> Vec<usize> {
    let object: Cid = cid.parse().expect("put prints a CID");
    let peers: Vec<Peer> = network.nodes.iter().map(peer_of).collect();
    let mut holders = Vec::new();
    let mut holder = None;
    for (position, node) in network.nodes.iter().enumerate() {
        if let Some(found) = Holder::of(node, object).await {
            holders.push(position);
            holder = Some(found);
        }
    }
    assert_eq!(holders.len(), 2, "each slot of 1+1 is on a node of its own");
    let holder = holder.expect("there are two");
    let empty = (0..NODES).find(|position| !holders.contains(position)).expect("the third");
    let to = &peers[empty];

    let repair = holder.repair(to.node);
    let unproven = holder.put(&peers, to, &repair).await.expect_err("on no list of writers");
    assert_eq!(unproven.code(), Some(ErrorCode::Refused), "{unproven}");
    let root = holder.answer.root.clone().expect("asked for");
    holder.client.repair(to, repair.clone(), root, Default::default()).await.expect("proven");
    assert_eq!(holder.put(&peers, to, &repair).await.expect("it may"), 2);

    let held = holder.client.stat(to, object, 0).await.expect("it answers");
    assert_eq!(held.len(), 2, "{held:?}");
    let group = holder.client.group(to, object, 0, false).await.expect("it has the group");
    assert_eq!(group.placement, repair.placement, "and says who holds it now");
    holders
}
