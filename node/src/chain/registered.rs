// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who the chain's registry names: a set of peer ids in memory, so that a handshake never waits for
//! an endpoint.
//!
//! - A task reads the registry of a finalised block whole, again and again, and replaces the set in
//!   one step: who has left the registry is in it no longer.
//! - While the chain is away the set stays as it was. Before the first reading it is empty.
//! - It has at most `registry.nodes_max` ids. Those that do not fit are strangers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use supernode_chain::{Chain, ChainError};
use supernode_protocol::ids::NodeId;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::node::RegistrySection;

/// After how long a reading that failed is tried again, if the next one is not due before.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// The registered nodes as they are known now. Cheap to clone; all clones follow the reader.
#[derive(Debug, Clone)]
pub struct Registered(watch::Receiver<Arc<HashSet<NodeId>>>);

impl Registered {
    /// Whether the registry names this peer.
    pub fn contains(&self, peer: NodeId) -> bool {
        self.0.borrow().contains(&peer)
    }

    /// How many peers it is known to name.
    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Reads the registry. Cheap to clone; one clone runs at a time.
#[derive(Clone)]
pub struct RegistryReader {
    chain: Chain,
    settings: RegistrySection,
    known: watch::Sender<Arc<HashSet<NodeId>>>,
}

impl RegistryReader {
    /// A reader that knows nobody yet.
    pub fn new(chain: Chain, settings: RegistrySection) -> Self {
        Self { chain, settings, known: watch::Sender::default() }
    }

    /// What it has read.
    pub fn registered(&self) -> Registered {
        Registered(self.known.subscribe())
    }

    /// Reads until the chain's client is closed; never, where nobody is to be known.
    ///
    /// # Errors
    /// When that has happened.
    pub async fn run(self) -> Result<(), String> {
        if self.settings.nodes_max == 0 {
            return Ok(());
        }
        let mut view = self.chain.view();
        let mut was_whole = true;
        loop {
            // An endpoint that is away says so in its own log lines.
            let seen = view.wait_for(|view| view.finalised.is_some()).await;
            seen.map_err(|_| "the chain's client has ended".to_owned())?;
            let refresh = Duration::from_secs(self.settings.refresh_secs);
            let pause = match self.read().await {
                Ok(is_whole) => {
                    if was_whole && !is_whole {
                        let nodes_max = self.settings.nodes_max;
                        tracing::warn!(nodes_max, "registered nodes do not fit and are strangers");
                    }
                    was_whole = is_whole;
                    refresh
                }
                Err(error) => {
                    tracing::warn!(%error, "registered nodes cannot be read and stay as known");
                    refresh.min(RETRY_PAUSE)
                }
            };
            sleep(pause).await;
        }
    }

    /// Reads it once, and tells whether all of it fitted.
    async fn read(&self) -> Result<bool, ChainError> {
        let at = self.chain.at_finalised().await?;
        let (peers, is_whole) = at.peers(self.settings.nodes_max).await?;
        self.replace(peers);
        Ok(is_whole)
    }

    fn replace(&self, peers: Vec<NodeId>) {
        self.known.send_replace(Arc::new(peers.into_iter().collect()));
    }
}

#[cfg(test)]
mod tests;
