// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chain as a part of a running node: client, operator account and audit actor together.

use libp2p_identity::Keypair;
use supernode_audit::{AuditError, AuditMetrics, AuditOptions, Auditor, BlockHash};
use supernode_chain::{Account, Chain, ConfigError, KeyError, SecretKey};
use supernode_protocol::ids::NodeId;
use supernode_store::Store;

use super::keeper::StoreKeeper;
use super::link::ChainLink;
use super::receipts::Notary;
use super::registered::{Registered, RegistryReader};
use crate::config::NodeConfig;

/// Where the last processed finalised block is kept, in the data directory.
const CURSOR: &str = "chain-cursor";

/// Why the chain's part did not start. That the chain does not answer is no reason.
#[derive(Debug, thiserror::Error)]
pub enum ChainPartError {
    /// A setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operator's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The actor.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// See the module.
#[derive(Clone)]
pub struct ChainPart {
    chain: Chain,
    auditor: Auditor,
    registry: RegistryReader,
}

impl ChainPart {
    /// Starts what the configuration asks for; nothing without endpoints.
    ///
    /// # Errors
    /// A key file that cannot be used, or a cursor file that is damaged.
    pub async fn start(
        config: &NodeConfig,
        node: NodeId,
        store: &Store,
    ) -> Result<Option<Self>, ChainPartError> {
        if !config.chain.is_configured() {
            return Ok(None);
        }
        if config.chain.endpoints.len() == 1 {
            tracing::warn!(
                "chain.endpoints names one endpoint: what is deleted rests on its word alone"
            );
        }
        let key = SecretKey::read(&config.chain_key_path())?;
        let chain = Chain::start(config.chain.clone())?;
        let account = Account::start(chain.clone(), key);
        let genesis = chain.genesis();
        let auditor = Auditor::start(AuditOptions {
            chain: ChainLink::new(chain.clone(), account, node, store.clone()),
            keeper: StoreKeeper::new(store.clone(), genesis),
            genesis: BlockHash::from_bytes(genesis),
            cursor_path: config.data_dir.join(CURSOR),
            config: config.audit.clone(),
        });
        let registry = RegistryReader::new(chain.clone(), config.registry.clone());
        Ok(Some(Self { chain, auditor: auditor.await?, registry }))
    }

    /// What signs receipts and lets deals in.
    pub fn notary(&self, identity: &Keypair, node: NodeId) -> Notary {
        Notary { chain: self.chain.clone(), identity: identity.clone(), node }
    }

    /// What keeps the registered nodes known; somebody has to run it.
    pub fn registry(&self) -> &RegistryReader {
        &self.registry
    }

    /// The registered nodes.
    pub fn registered(&self) -> Registered {
        self.registry.registered()
    }

    /// The actor.
    pub fn auditor(&self) -> &Auditor {
        &self.auditor
    }

    /// Its figures.
    pub fn metrics(&self) -> AuditMetrics {
        self.auditor.metrics()
    }
}
