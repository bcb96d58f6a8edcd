// SPDX-License-Identifier: MIT OR Apache-2.0
//! A development chain for this folder's tests, and an account on it that has money.

use std::time::Duration;

use libp2p_identity::Keypair;
use supernode_chain::{Account, Call, Chain, ChainConfig, SecretKey, Until};
use supernode_devchain::{DevChain, Genesis, Options, Seal};
use supernode_protocol::deal::registration_message;
use supernode_protocol::ids::NodeId;
use tokio::time::timeout;

/// What a chain on this machine has not done by then it never does.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The chain, and who uses it.
pub(super) struct Testbed {
    pub(super) chain: DevChain,
    pub(super) link: Chain,
    pub(super) account: Account,
    payer: [u8; 32],
}

impl Testbed {
    /// Starts a chain whose blocks are final at once.
    pub(super) async fn start(change: impl FnOnce(&mut Genesis)) -> Self {
        let secret = SecretKey::from_seed([1; 32]).expect("a seed like any other");
        let payer = secret.account();
        let mut genesis = Genesis::default();
        genesis.balances.push((payer.into(), 1_000_000_000_000));
        change(&mut genesis);
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

    /// Registers a node, and waits until that is final.
    pub(super) async fn register(&self, key: &Keypair) -> NodeId {
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

    /// Ends client and chain.
    pub(super) async fn stop(self) {
        self.link.close();
        self.chain.stop().await;
    }
}
