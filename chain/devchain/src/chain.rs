// SPDX-License-Identifier: MIT OR Apache-2.0
//! What everybody may read: blocks, states, the best and the finalised block.
//!
//! The author (`author.rs`) is the only writer. Readers hold the lock of the tree for a look-up and
//! never over I/O; blocks and states are read from the log beside it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use codec::{Decode, DecodeAll, Encode};
use parking_lot::RwLock;
use sp_core::H256;
use tokio::sync::broadcast;

use crate::exec;
use crate::genesis::{GENESIS_FILE, Genesis, GenesisError};
use crate::log::{Batch, Kind, Log, LogError, Span};
use crate::runtime::Header;
use crate::tree::{Entry, Head, Tree};
use crate::trie::{NewNode, Nodes, State};

/// Name of the log in the chain's directory.
pub(crate) const LOG_FILE: &str = "chain.log";

/// First record of every log: this, the hash of block 0, and the digest of the genesis it came
/// from.
const FORMAT: &[u8] = b"supernode-devchain/1";

/// A subscriber this many blocks behind misses the ones in between, as with a real node.
const NEWS_MAX: usize = 256;

/// Why a chain cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The genesis cannot be used.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The directory cannot be made.
    #[error("cannot create {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory belongs to another chain.
    #[error(
        "{} holds the chain of another genesis ({found:?}, not {wanted:?}); \
         use another directory, or remove it to begin anew", path.display()
    )]
    OtherGenesis {
        /// The directory.
        path: PathBuf,
        /// Hash of its block 0.
        found: H256,
        /// Hash of block 0 that was asked for.
        wanted: H256,
    },
}

/// Something that happened to the chain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News {
    /// A block exists, on whatever fork.
    Imported(Head),
    /// Another block is the best.
    Best(Head),
    /// Finality moved up to this block; blocks below it became final too.
    Finalised(Head),
}

/// The chain as readers see it.
pub(crate) struct Chain {
    pub(crate) genesis: Genesis,
    pub(crate) nodes: Nodes,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) log: Arc<Log>,
    pub(crate) news: broadcast::Sender<News>,
}

/// What reading the log found.
#[derive(Default)]
struct Found {
    /// Hash of block 0 and digest of the genesis.
    identity: Option<(H256, H256)>,
    places: HashMap<H256, Span>,
    tree: Option<Tree>,
    heads: Option<(H256, H256)>,
    /// Of a batch whose end has not been seen yet.
    new_places: Vec<(H256, Span)>,
    new_blocks: Vec<(H256, Entry)>,
}

impl Found {
    fn visit(&mut self, kind: Kind, span: Span, body: &[u8]) -> Result<(), String> {
        match kind {
            Kind::Format => {
                let identity = body
                    .strip_prefix(FORMAT)
                    .and_then(|mut identity| DecodeAll::decode_all(&mut identity).ok())
                    .ok_or("it was written by another version of this program")?;
                self.identity = Some(identity);
            }
            Kind::Node => {
                let hash = body.get(..32).ok_or("a trie node is shorter than its hash")?;
                self.new_places.push((H256::from_slice(hash), span.skip(32)));
            }
            Kind::Block => {
                let header = Header::decode(&mut &body[..])
                    .map_err(|error| format!("a block does not decode: {error}"))?;
                self.new_blocks.push((header.hash(), Entry { header, body: span }));
            }
            Kind::Heads => {
                let heads = DecodeAll::decode_all(&mut &body[..])
                    .map_err(|error| format!("a record of heads does not decode: {error}"))?;
                self.heads = Some(heads);
                self.places.extend(self.new_places.drain(..));
                for (hash, entry) in self.new_blocks.drain(..) {
                    match &mut self.tree {
                        None => self.tree = Some(Tree::new(hash, entry)),
                        Some(tree) => {
                            tree.insert(hash, entry).map_err(|error| error.to_string())?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The tree with the heads that were written last; `None` if block 0 was not written whole.
    fn tree(self) -> Result<Option<Tree>, String> {
        let (Some(mut tree), Some((best, finalised))) = (self.tree, self.heads) else {
            return Ok(None);
        };
        tree.set_best(best).map_err(|error| error.to_string())?;
        let number = tree
            .entry(&finalised)
            .map(|entry| entry.header.number)
            .filter(|number| tree.canonical_hash(*number) == Some(finalised))
            .ok_or("the finalised block is not on the best chain")?;
        tree.finalise(number);
        Ok(Some(tree))
    }
}

impl Chain {
    /// Opens the chain in `dir`, or creates it; without a directory it lives in memory.
    ///
    /// Without a `genesis` the chain's own is taken, or the default one for a new chain.
    pub(crate) fn open(dir: Option<&Path>, genesis: Option<Genesis>) -> Result<Self, OpenError> {
        let Some(dir) = dir else {
            let log = Arc::new(Log::in_memory());
            return Self::create(log, HashMap::new(), genesis.unwrap_or_default());
        };
        std::fs::create_dir_all(dir)
            .map_err(|source| OpenError::Directory { path: dir.to_owned(), source })?;
        let stored = Genesis::read(dir)?;
        let path = dir.join(LOG_FILE);
        let mut found = Found::default();
        let log = Log::open(&path, |kind, span, body| found.visit(kind, span, body))?;
        let genesis = genesis.or_else(|| stored.clone()).unwrap_or_default();
        refuse_another(dir, &genesis, stored.as_ref(), found.identity)?;
        if stored.is_none() {
            tracing::info!(file = GENESIS_FILE, dir = %dir.display(), "created a chain");
            genesis.write(dir)?;
        }
        let log = Arc::new(log);
        let places = std::mem::take(&mut found.places);
        let damaged = |reason| LogError::Damaged { path: path.clone(), offset: 0, reason };
        match found.tree().map_err(damaged)? {
            Some(tree) => Ok(Self::assemble(genesis, Nodes::new(log.clone(), places), tree, log)),
            None => Self::create(log, places, genesis),
        }
    }

    /// Writes block 0.
    fn create(
        log: Arc<Log>,
        places: HashMap<H256, Span>,
        genesis: Genesis,
    ) -> Result<Self, OpenError> {
        let nodes = Nodes::new(log.clone(), places);
        let (header, additions) = exec::genesis(&nodes, &genesis)?;
        let hash = header.hash();
        let mut batch = Batch::default();
        batch.push(Kind::Format, &[FORMAT, &(hash, genesis.digest()).encode()]);
        let head = Head { number: 0, hash };
        let write = Write { header: &header, extrinsics: &[], nodes: &additions };
        let body = write_block(&log, &nodes, batch, &write, (head, head))?;
        let tree = Tree::new(hash, Entry { header, body });
        Ok(Self::assemble(genesis, nodes, tree, log))
    }

    fn assemble(genesis: Genesis, nodes: Nodes, tree: Tree, log: Arc<Log>) -> Self {
        tracing::info!(
            best = tree.best().number,
            finalised = tree.finalised().number,
            nodes = nodes.count(),
            "opened the development chain"
        );
        let (news, _) = broadcast::channel(NEWS_MAX);
        Self { genesis, nodes, tree: RwLock::new(tree), log, news }
    }

    /// The best block.
    pub(crate) fn best(&self) -> Head {
        self.tree.read().best()
    }

    /// The finalised block.
    pub(crate) fn finalised(&self) -> Head {
        self.tree.read().finalised()
    }

    /// Hash of block 0.
    pub(crate) fn genesis_hash(&self) -> H256 {
        self.tree.read().genesis_hash()
    }

    /// The header of a block.
    pub(crate) fn header(&self, hash: &H256) -> Option<Header> {
        self.tree.read().entry(hash).map(|entry| entry.header.clone())
    }

    /// The extrinsics of a block.
    pub(crate) fn extrinsics(&self, hash: &H256) -> Result<Option<Vec<Vec<u8>>>, LogError> {
        let Some(span) = self.tree.read().entry(hash).map(|entry| entry.body) else {
            return Ok(None);
        };
        let bytes = self.log.read(span)?;
        let (_, extrinsics): (Header, Vec<Vec<u8>>) =
            DecodeAll::decode_all(&mut &bytes[..]).expect("the checksum held when it was opened");
        Ok(Some(extrinsics))
    }

    /// The state after a block.
    pub(crate) fn state(&self, hash: &H256) -> Option<State<'_>> {
        let root = self.tree.read().entry(hash)?.header.state_root;
        Some(self.nodes.state(root))
    }
}

/// Fails if a directory belongs to another chain than `genesis` begins.
///
/// Making block 0 again takes seconds with a hundred thousand accounts, so equal data is taken for
/// an equal chain first.
fn refuse_another(
    dir: &Path,
    genesis: &Genesis,
    stored: Option<&Genesis>,
    identity: Option<(H256, H256)>,
) -> Result<(), OpenError> {
    let same_file = stored.is_none_or(|stored| stored == genesis);
    let same_log = identity.is_none_or(|(_, digest)| digest == genesis.digest());
    if same_file && same_log {
        return Ok(());
    }
    let wanted = genesis_hash(genesis)?;
    let of_file = stored.map(genesis_hash).transpose()?;
    let of_log = identity.map(|(hash, _)| hash);
    match of_file.into_iter().chain(of_log).find(|found| *found != wanted) {
        Some(found) => Err(OpenError::OtherGenesis { path: dir.to_owned(), found, wanted }),
        None => Ok(()),
    }
}

/// A block to be written.
pub(crate) struct Write<'a> {
    pub(crate) header: &'a Header,
    pub(crate) extrinsics: &'a [Vec<u8>],
    pub(crate) nodes: &'a [NewNode],
}

/// Makes a block durable together with the heads that hold from then on; returns where it lies.
pub(crate) fn write_block(
    log: &Log,
    nodes: &Nodes,
    mut batch: Batch,
    block: &Write<'_>,
    (best, finalised): (Head, Head),
) -> Result<Span, LogError> {
    let places: Vec<_> = block
        .nodes
        .iter()
        .map(|(hash, node)| (*hash, batch.push(Kind::Node, &[hash.as_bytes(), node]).skip(32)))
        .collect();
    let header = block.header.encode();
    let body = batch.push(Kind::Block, &[&header, &block.extrinsics.to_vec().encode()]);
    batch.push(Kind::Heads, &[&(best.hash, finalised.hash).encode()]);
    let base = log.append(&batch)?;
    let placed = |span: Span| Span { offset: base + span.offset, ..span };
    nodes.insert(places.into_iter().map(|(hash, span)| (hash, placed(span))));
    Ok(placed(body))
}

/// Makes a change of heads durable.
pub(crate) fn write_heads(log: &Log, best: Head, finalised: Head) -> Result<(), LogError> {
    let mut batch = Batch::default();
    batch.push(Kind::Heads, &[&(best.hash, finalised.hash).encode()]);
    log.append(&batch).map(|_| ())
}

/// The hash of block 0 that a genesis gives, which is the identity of its chain.
pub fn genesis_hash(genesis: &Genesis) -> Result<H256, GenesisError> {
    let nodes = Nodes::new(Arc::new(Log::in_memory()), HashMap::new());
    exec::genesis(&nodes, genesis).map(|(header, _)| header.hash())
}
