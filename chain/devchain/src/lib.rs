// SPDX-License-Identifier: MIT OR Apache-2.0
//! A development chain that runs the pallet natively behind Substrate JSON-RPC.
//!
//! One process, one author, no consensus, no wasm: blocks are made by a clock, by transactions or
//! by hand, finality follows as far behind as it is told, and forks happen on request. Clients are
//! the usual ones (subxt with its legacy backend, polkadot.js), unmodified.
//!
//! - [`DevChain::start`] opens or creates a chain and serves it; the value it returns is the
//!   handle.
//! - The author (`author.rs`) is the only writer; readers share the tree of blocks and the trie
//!   nodes.
//! - Everything is in one append-only log (`log.rs`); what was synced survives `kill -9`.
//! - It is for development: no fees, one author, randomness that the author knows in advance.

mod author;
mod chain;
mod exec;
mod genesis;
mod log;
mod pool;
mod rpc;
pub mod runtime;
mod tree;
mod trie;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use jsonrpsee::server::{ServerHandle, stop_channel};
use sp_core::H256;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::author::{Author, AuthorHandle, AuthorOptions};
use crate::chain::Chain;
use crate::rpc::Context;
use crate::rpc::faults::Gate;
use crate::rpc::server::Listener;

pub use crate::author::{ControlError, Fill, Reorg, Retracted};
pub use crate::chain::{OpenError, genesis_hash};
pub use crate::exec::metadata;
pub use crate::genesis::{Genesis, GenesisError};
pub use crate::log::LogError;
pub use crate::pool::PoolLimits;
pub use crate::rpc::faults::Faults;
pub use crate::rpc::server::RpcLimits;
pub use crate::tree::Head;

/// The pallet's prices and periods on this chain.
pub type Parameters =
    supernode_pallet::types::Parameters<crate::runtime::Balance, crate::runtime::BlockNumber>;

/// When a block is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// By the clock, with what waits in the pool.
    Every(Duration),
    /// For each transaction that is ready; without transactions the chain stands still.
    Instant,
    /// When [`DevChain::seal`] or `dev_seal` is called.
    Manual,
}

/// How to run a development chain.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the chain is kept; without a directory it ends with the process.
    pub dir: Option<PathBuf>,
    /// Addresses to listen on, at least one; port 0 takes a free one. Each has its own faults, so
    /// that one chain can be an honest and a faulty endpoint at the same time.
    pub listen: Vec<SocketAddr>,
    /// When a block is made.
    pub seal: Seal,
    /// Blocks between the best and the finalised one; 0 leaves nothing that could be reorganised.
    pub finality_lag: u32,
    /// How the chain begins. `None` takes what the directory has, or the default for a new chain.
    pub genesis: Option<Genesis>,
    /// Offer the `dev_*` controls to whoever can connect.
    pub controls: bool,
    /// Bounds of each listener.
    pub rpc: RpcLimits,
    /// Bounds of the transaction pool.
    pub pool: PoolLimits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            seal: Seal::Every(Duration::from_secs(6)),
            finality_lag: 2,
            genesis: None,
            controls: false,
            rpc: RpcLimits::default(),
            pool: PoolLimits::default(),
        }
    }
}

/// Why a development chain does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The chain itself cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The first block could not be made.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// No address, or none that is free.
    #[error("cannot listen on {address}: {source}; choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// An option makes no sense.
    #[error("{0}")]
    Options(&'static str),
}

/// A running development chain. Dropping it without [`DevChain::stop`] ends it too, in its own
/// time.
pub struct DevChain {
    chain: Arc<Chain>,
    author: AuthorHandle,
    thread: Option<JoinHandle<()>>,
    gates: Vec<Arc<Gate>>,
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
    library: ServerHandle,
    stopping: CancellationToken,
}

impl std::fmt::Debug for DevChain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DevChain").field("addresses", &self.addresses).finish()
    }
}

impl DevChain {
    /// Opens or creates the chain, makes block 1 if it is new, and listens.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        if options.listen.is_empty() {
            return Err(StartError::Options("name at least one address to listen on"));
        }
        if options.seal == Seal::Every(Duration::ZERO) {
            return Err(StartError::Options("the time between blocks must be longer than zero"));
        }
        let mut sockets = Vec::new();
        for address in options.listen.iter().copied() {
            let listen = |source| StartError::Listen { address, source };
            let socket = TcpListener::bind(address).await.map_err(listen)?;
            sockets.push((socket.local_addr().map_err(listen)?, socket));
        }
        let author_options = AuthorOptions {
            instant: options.seal == Seal::Instant,
            finality_lag: options.finality_lag,
            pool: options.pool,
        };
        let (dir, genesis) = (options.dir.clone(), options.genesis.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let chain = Arc::new(Chain::open(dir.as_deref(), genesis)?);
            let (author, thread) = Author::start(chain.clone(), author_options)?;
            Ok::<_, StartError>((chain, author, thread))
        });
        let (chain, author, thread) = opened.await.expect("opening a chain does not panic")?;

        let stopping = CancellationToken::new();
        let (library_stop, library) = stop_channel();
        let requests_max = options.rpc.requests_max.max(1);
        let gates: Vec<_> = sockets
            .iter()
            .map(|_| Arc::new(Gate::new(requests_max, stopping.child_token())))
            .collect();
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for ((address, socket), gate) in sockets.into_iter().zip(&gates) {
            let context = Context {
                chain: chain.clone(),
                author: author.clone(),
                gate: gate.clone(),
                gates: gates.clone(),
                controls: options.controls,
            };
            let methods = rpc::module(context).expect("each method is registered once").into();
            addresses.push(address);
            let listener = Listener {
                socket,
                methods,
                gate: gate.clone(),
                limits: options.rpc,
                library_stop: library_stop.clone(),
                stopping: stopping.clone(),
            };
            tasks.spawn(listener.run());
        }
        if let Seal::Every(period) = options.seal {
            tasks.spawn(clock(period, author.clone(), stopping.clone()));
        }
        let thread = Some(thread);
        Ok(Self { chain, author, thread, gates, addresses, tasks, library, stopping })
    }

    /// The first address the chain listens on.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses, in the order of [`Options::listen`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The URL that clients connect to, of the first address.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address())
    }

    /// Makes a block now, with what waits in the pool.
    pub async fn seal(&self) -> Result<Head, ControlError> {
        self.author.seal().await
    }

    /// Replaces the last blocks by one more than there were; returns the new best block.
    ///
    /// A depth alone will do; then dropped transactions return, and land in the new blocks.
    pub async fn reorg(&self, reorg: impl Into<Reorg>) -> Result<Head, ControlError> {
        self.author.reorg(reorg.into()).await
    }

    /// Changes how many blocks finality stays behind. What is final stays final.
    pub async fn set_finality_lag(&self, blocks: u32) -> Result<(), ControlError> {
        self.author.finality(Some(blocks), None).await
    }

    /// Holds finality where it is, or lets it catch up at once.
    pub async fn stall_finality(&self, stalled: bool) -> Result<(), ControlError> {
        self.author.finality(None, Some(stalled)).await
    }

    /// Makes a listener misbehave, counted as in [`Options::listen`]; `false` if there is none.
    pub fn set_faults(&self, listener: usize, faults: Faults) -> bool {
        let gate = self.gates.get(listener);
        if let Some(gate) = gate {
            gate.set(faults);
        }
        gate.is_some()
    }

    /// The best block.
    pub fn best(&self) -> Head {
        self.chain.best()
    }

    /// The finalised block.
    pub fn finalised(&self) -> Head {
        self.chain.finalised()
    }

    /// Root of the state after a block, on whatever fork.
    pub fn state_root(&self, block: H256) -> Option<H256> {
        self.chain.header(&block).map(|header| header.state_root)
    }

    /// Hash of block 0, the identity of the chain.
    pub fn genesis_hash(&self) -> H256 {
        self.chain.genesis_hash()
    }

    /// Ends the chain: no new connections, the ones there are closed, the last block is on disk.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        let _already_stopped = self.library.stop();
        while self.tasks.join_next().await.is_some() {}
        self.author.stop().await;
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the author of the development chain panicked");
            }
        }
        // Connections are cut, but who served them may still hold on to the log for a moment.
        self.chain.log.release();
    }
}

impl Drop for DevChain {
    fn drop(&mut self) {
        self.stopping.cancel();
        let _already_stopped = self.library.stop();
    }
}

/// Asks for a block in even steps; steps that a slow machine missed are left out.
async fn clock(period: Duration, author: AuthorHandle, stopping: CancellationToken) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = ticks.tick() => if !author.tick() {
                return;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DevChain, Options, Seal};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_that_outlives_the_chain_does_not_keep_its_directory() {
        let dir = tempfile::tempdir().expect("there is room");
        let options =
            Options { dir: Some(dir.path().to_owned()), seal: Seal::Manual, ..Options::default() };
        let first = DevChain::start(options.clone()).await.expect("the options are good");
        let (reader, best) = (first.chain.clone(), first.best());
        first.stop().await;
        let second = DevChain::start(options).await.expect("the directory is free");
        assert_eq!(second.best(), best);
        assert!(reader.extrinsics(&best.hash).is_ok_and(|block| block.is_some()));
        second.stop().await;
    }
}
