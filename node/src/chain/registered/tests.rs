// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is registered on a real chain is known without asking, for as long as that is so.

use libp2p_identity::Keypair;
use supernode_chain::{Account, Call, ChainConfig, SecretKey, Until};
use supernode_devchain::{DevChain, Faults, Genesis, Options, Seal};
use supernode_protocol::deal::registration_message;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Arc, Chain, Duration, HashSet, NodeId, Registered, RegistryReader, RegistrySection};

const PATIENCE: Duration = Duration::from_secs(60);
const STRANGER: NodeId = NodeId::from_bytes([9; 32]);

/// A chain, an account on it that registers nodes, and a reader that reads each second.
struct Setup {
    chain: DevChain,
    link: Chain,
    account: Account,
    payer: [u8; 32],
}

impl Setup {
    async fn start() -> Self {
        let secret = SecretKey::from_seed([1; 32]).expect("a seed like any other");
        let payer = secret.account();
        let mut genesis = Genesis::default();
        genesis.balances.push((payer.into(), 1_000_000_000_000));
        let options = Options {
            seal: Seal::Instant,
            finality_lag: 0,
            genesis: Some(genesis),
            ..Options::default()
        };
        let chain = DevChain::start(options).await.expect("the options are good");
        let genesis = format!("0x{}", blake3::Hash::from_bytes(chain.genesis_hash().0).to_hex());
        let endpoints = vec![chain.url()];
        let config =
            ChainConfig { endpoints, genesis, heartbeat_secs: 1, ..ChainConfig::default() };
        let link = Chain::start(config).expect("the settings are good");
        link.ready(PATIENCE).await.expect("the chain is there");
        let account = Account::start(link.clone(), secret);
        Self { chain, link, account, payer }
    }

    /// Registers the node of this seed, and waits until that is final.
    async fn register(&self, seed: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).expect("any 32 bytes are a key");
        let peer = NodeId::from_public(&key.public()).expect("an Ed25519 key");
        let message = registration_message(&self.link.genesis(), &self.payer, &self.payer);
        let signature = key.sign(&message).expect("a key signs");
        let register = Call::RegisterNode {
            operator: self.payer,
            peer,
            signature: signature.try_into().expect("64 bytes"),
            region: "EU-WEST".to_owned(),
            addresses: Vec::new(),
            capacity: 1 << 40,
        };
        let done = timeout(PATIENCE, self.account.submit(register, Until::Finalised)).await;
        done.expect("in time").expect("it is signed");
        peer
    }

    fn reader(&self, nodes_max: usize) -> RegistryReader {
        RegistryReader::new(self.link.clone(), RegistrySection { refresh_secs: 1, nodes_max })
    }
}

/// What is known, once it is so; each reading is looked at.
async fn once(known: &mut Registered, is_so: impl Fn(&HashSet<NodeId>) -> bool) {
    let seen = timeout(PATIENCE, known.0.wait_for(|known: &Arc<_>| is_so(known))).await;
    seen.expect("in time").expect("the reader runs");
}

fn run(reader: &RegistryReader) -> JoinHandle<Result<(), String>> {
    tokio::spawn(reader.clone().run())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_follows_the_registry_and_outlasts_the_chain() {
    let setup = Setup::start().await;
    let first = setup.register(1).await;
    let reader = setup.reader(100);
    let mut known = reader.registered();
    assert!(!known.contains(first), "nobody before the first reading");
    let task = run(&reader);
    once(&mut known, |known| *known == [first].into()).await;
    let second = setup.register(2).await;
    once(&mut known, |known| *known == [first, second].into()).await;

    // Somebody who is not in the registry any more is gone with the next reading.
    reader.replace(vec![first, second, STRANGER]);
    assert!(known.contains(STRANGER));
    once(&mut known, |known| !known.contains(&STRANGER)).await;
    assert!(known.contains(first) && known.contains(second) && known.count() == 2);

    let faults = Faults { refuse_connections: true, ..Faults::default() };
    setup.chain.set_faults(0, faults);
    let mut view = setup.link.view();
    let lost = timeout(PATIENCE, view.wait_for(|view| view.finalised.is_none())).await;
    lost.expect("in time").expect("the client runs");
    assert!(known.contains(first) && known.contains(second), "as last known");
    assert!(!task.is_finished());
    setup.link.close();
    let ended = timeout(PATIENCE, task).await.expect("in time").expect("no panic");
    ended.expect_err("nobody is left to ask");
    setup.chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_a_stranger() {
    let setup = Setup::start().await;
    for seed in 1..=3 {
        setup.register(seed).await;
    }
    let reader = setup.reader(2);
    assert_eq!(reader.read().await, Ok(false), "one was left out");
    assert_eq!(reader.registered().count(), 2);
    let reader = setup.reader(3);
    assert_eq!(reader.read().await, Ok(true), "exactly as many as fit");
    assert_eq!(reader.registered().count(), 3);
    let reader = setup.reader(0);
    assert_eq!(reader.clone().run().await, Ok(()), "switched off");
    assert_eq!(reader.registered().count(), 0);
    setup.link.close();
    setup.chain.stop().await;
}
