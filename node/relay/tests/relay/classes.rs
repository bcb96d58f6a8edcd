// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients are to the node: by list, by capability, by what the node itself knows.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use supernode_client::Keypair;
use supernode_protocol::capability::{Capability, ClientClass, Scope};
use supernode_protocol::ids::ShardId;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::{ErrorCode, Request, Response};
use supernode_relay::{Profile, Reason, RelayConfig};

use crate::eventually::pass;
use crate::raw::{Raw, hello};
use crate::setup::{NETWORK, Setup, UPLOAD, bytes_of, id_of, put_of};

const READ: Scope = Scope { read: true, write: false };
const WRITE: Scope = Scope { read: false, write: true };

/// Each class may have another number of requests under way, so that the welcome tells it.
fn told_apart(config: &mut RelayConfig) {
    config.streams_per_connection_max = 64;
    config.class.stranger.requests_max = 1;
    config.class.repair.requests_max = 2;
    config.class.relay.requests_max = 3;
    config.class.gateway.requests_max = 4;
    config.class.operator.requests_max = 5;
}

fn class_in(response: &Response) -> &'static str {
    let Response::Welcome { streams_max, .. } = response else { panic!("{response:?}") };
    ClientClass::ALL[usize::try_from(*streams_max).expect("few") - 1].name()
}

fn seconds_from_now(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    now.as_secs() + seconds
}

fn grant(issuer: &Keypair, audience: &Keypair) -> Capability {
    Capability {
        issuer: id_of(issuer),
        audience: id_of(audience),
        network: NETWORK.to_owned(),
        class: ClientClass::Relay,
        scope: READ,
        bytes: 1 << 30,
        expires_at: seconds_from_now(3600),
    }
}

fn signed(capability: Capability, issuer: &Keypair) -> Vec<u8> {
    Signed::sign(capability, issuer).expect("own key").encode()
}

fn put_request(bytes: &Bytes) -> Request {
    let put = put_of(bytes);
    Request::PutShard { upload: UPLOAD, slot: put.slot, shard: put.shard, len: bytes.len() as u64 }
}

fn refusal(response: &Response) -> &str {
    match response {
        Response::Error(error) if error.code == ErrorCode::Refused => &error.message,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn the_highest_class_that_somebody_gives_counts() {
    let keys: Vec<Keypair> = (0..5).map(|_| Keypair::generate_ed25519()).collect();
    let setup = Setup::with(|config| {
        told_apart(config);
        config.members.repair = [id_of(&keys[0]), id_of(&keys[3])].into();
        config.members.relay = [id_of(&keys[1])].into();
        config.members.gateway = [id_of(&keys[2])].into();
        config.members.operator = [id_of(&keys[3])].into();
    });
    let class = async |key: &Keypair| {
        let raw = Raw::connect(&setup, key).await;
        class_in(&raw.ask(&hello(NETWORK), &[]).await)
    };
    let mut classes = Vec::new();
    for key in &keys {
        classes.push(class(key).await);
    }
    assert_eq!(classes, ["repair", "relay", "gateway", "operator", "stranger"]);
    assert_eq!(class(&setup.writer_key).await, "gateway", "who writes is a front door");
    *setup.backend.class.lock() = Some(ClientClass::Repair);
    assert_eq!(class(&keys[4]).await, "repair", "the node itself knows it");
    assert_eq!(class(&keys[1]).await, "relay", "the list says more");
}

#[tokio::test]
async fn a_capability_raises_the_class_and_adds_rights() {
    let (issuer, client) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let setup = Setup::with(|config| {
        told_apart(config);
        config.issuers = [id_of(&issuer)].into();
    });
    let (raw, response) =
        Raw::showing(&setup, &client, signed(grant(&issuer, &client), &issuer)).await;
    assert_eq!(class_in(&response), "relay");
    let bytes = bytes_of(1000);
    let refused = raw.ask(&put_request(&bytes), &bytes).await;
    assert!(refusal(&refused).contains("writers"), "{refused:?}");
    // A writer passes on what it has: writing, and its class.
    let writer = &setup.writer_key;
    let passed_on =
        Capability { class: ClientClass::Gateway, scope: WRITE, ..grant(writer, &client) };
    let (raw, response) = Raw::showing(&setup, &client, signed(passed_on.clone(), writer)).await;
    assert_eq!(class_in(&response), "gateway");
    let stored = raw.ask(&put_request(&bytes), &bytes).await;
    assert!(matches!(stored, Response::Stored(_)), "{stored:?}");
    let status = raw.ask(&Request::Status, &[]).await;
    assert!(matches!(status, Response::Status(_)), "reads are open without a scope: {status:?}");
    let too_high = Capability { class: ClientClass::Operator, ..passed_on };
    let (_, response) = Raw::showing(&setup, &client, signed(too_high, writer)).await;
    assert!(refusal(&response).contains("more than its issuer has"), "{response:?}");
}

#[tokio::test]
async fn a_bad_capability_refuses_the_hello_and_says_why() {
    let (issuer, client) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let setup = Setup::with(|config| config.issuers = [id_of(&issuer)].into());
    let good = grant(&issuer, &client);
    let stranger = Keypair::generate_ed25519();
    let mut forged = signed(good.clone(), &issuer);
    *forged.last_mut().expect("a signature") ^= 1;
    let other = |change: fn(&mut Capability)| {
        let mut capability = good.clone();
        change(&mut capability);
        signed(capability, &issuer)
    };
    let audience = Capability { audience: id_of(&stranger), ..good.clone() };
    let cases = [
        (forged, "does not hold"),
        (vec![0; 1025], "1025 bytes"),
        (vec![1, 2, 3], "cannot be read"),
        (other(|it| it.network = "elsewhere".to_owned()), "another network"),
        (other(|it| it.expires_at = 1), "expired"),
        (signed(audience, &issuer), "somebody else"),
        (signed(grant(&stranger, &client), &stranger), "not trusted"),
    ];
    let count = cases.len() as u64;
    for (capability, why) in cases {
        let (_, response) = Raw::showing(&setup, &client, capability).await;
        assert!(refusal(&response).contains(why), "{why}: {response:?}");
    }
    assert_eq!(setup.relay.metrics().rejected(Reason::BadCapability), count);
    let (_, response) = Raw::showing(&setup, &client, signed(good, &issuer)).await;
    assert!(matches!(response, Response::Welcome { .. }), "{response:?}");
}

#[tokio::test]
async fn its_bytes_are_counted_on_all_connections_together() {
    let (issuer, client) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let setup = Setup::with(|config| {
        config.issuers = [id_of(&issuer)].into();
        config.capabilities_max = 1;
    });
    let bytes = bytes_of(60_000);
    setup.backend.content.lock().shards.insert(ShardId::of(&bytes), bytes.clone());
    let get = Request::GetShard { shard: ShardId::of(&bytes), range: None };
    let capability = Capability { bytes: 100_000, ..grant(&issuer, &client) };
    let encoded = signed(capability.clone(), &issuer);
    let (first, _) = Raw::showing(&setup, &client, encoded.clone()).await;
    let (second, _) = Raw::showing(&setup, &client, encoded.clone()).await;
    let got = first.ask(&get, &[]).await;
    assert!(matches!(got, Response::Shard { .. }), "{got:?}");
    let spent = second.ask(&get, &[]).await;
    assert!(refusal(&spent).contains("used up"), "{spent:?}");
    drop((first, second));
    let (third, _) = Raw::showing(&setup, &client, encoded).await;
    assert!(refusal(&third.ask(&get, &[]).await).contains("used up"), "coming back is no help");
    assert_eq!(setup.relay.metrics().rejected(Reason::CapabilitySpent), 2);
    assert_eq!(setup.relay.metrics().capabilities, 1);
    let another = signed(Capability { bytes: 100_001, ..capability }, &issuer);
    let (_, response) = Raw::showing(&setup, &client, another).await;
    let Response::Error(error) = &response else { panic!("{response:?}") };
    assert_eq!(error.code, ErrorCode::Busy, "the table is full: {error}");
}

#[tokio::test]
async fn it_expires_under_a_running_connection() {
    let (issuer, client) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let setup = Setup::with(|config| config.issuers = [id_of(&issuer)].into());
    let capability = Capability { expires_at: seconds_from_now(2), ..grant(&issuer, &client) };
    let (raw, response) = Raw::showing(&setup, &client, signed(capability, &issuer)).await;
    assert!(matches!(response, Response::Welcome { .. }), "{response:?}");
    pass(Duration::from_secs(2)).await;
    let response = raw.ask(&Request::Status, &[]).await;
    assert!(refusal(&response).contains("expired"), "{response:?}");
}

#[tokio::test]
async fn a_private_node_reads_out_to_who_may_read() {
    let (issuer, client) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let setup = Setup::with(|config| {
        config.profile = Profile::Private;
        config.issuers = [id_of(&issuer)].into();
    });
    *setup.backend.class.lock() = Some(ClientClass::Repair);
    let show = async |capability: Capability| {
        Raw::showing(&setup, &client, signed(capability, &issuer)).await.1
    };
    let welcome = show(grant(&issuer, &client)).await;
    assert!(matches!(welcome, Response::Welcome { .. }), "{welcome:?}");
    let no_scope = show(Capability { scope: WRITE, ..grant(&issuer, &client) }).await;
    assert!(refusal(&no_scope).contains("lists"), "{no_scope:?}");
}
