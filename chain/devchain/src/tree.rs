// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which blocks there are and which of them count: pure bookkeeping, no I/O and no runtime.
//!
//! Invariants:
//! - `canonical[n]` is the block of number `n` on the best chain, without gaps, from block 0.
//! - the finalised block is canonical, and no change of the best block removes it.
//! - a block is inserted after its parent.
//!
//! Blocks that lost stay readable, as in a real archive node. A header costs about 250 bytes.

use std::collections::HashMap;

use sp_core::H256;

use crate::log::Span;
use crate::runtime::{BlockNumber, Header};

/// A block by number and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// Height, 0 for the genesis.
    pub number: BlockNumber,
    /// Hash of the header.
    pub hash: H256,
}

/// What the tree knows of one block.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The header.
    pub(crate) header: Header,
    /// Where header and extrinsics lie in the log.
    pub(crate) body: Span,
}

/// What changed when another block became the best.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switch {
    /// Blocks that no longer count, highest first.
    pub(crate) retracted: Vec<Head>,
    /// Blocks that count now, lowest first.
    pub(crate) enacted: Vec<Head>,
}

/// Why the tree refuses a change.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeError {
    /// The block, or an ancestor of it, is not here.
    #[error("block {0:?} is not known")]
    Unknown(H256),
    /// The change would undo a finalised block.
    #[error("block {0:?} does not descend from the finalised block")]
    Finalised(H256),
}

/// The blocks.
pub(crate) struct Tree {
    blocks: HashMap<H256, Entry>,
    canonical: Vec<H256>,
    finalised: BlockNumber,
}

impl Tree {
    /// A tree with block 0 only.
    pub(crate) fn new(hash: H256, genesis: Entry) -> Self {
        Self { blocks: HashMap::from([(hash, genesis)]), canonical: vec![hash], finalised: 0 }
    }

    /// Adds a block without making it count.
    pub(crate) fn insert(&mut self, hash: H256, entry: Entry) -> Result<(), TreeError> {
        if !self.blocks.contains_key(&entry.header.parent_hash) {
            return Err(TreeError::Unknown(entry.header.parent_hash));
        }
        self.blocks.insert(hash, entry);
        Ok(())
    }

    /// Makes `hash` the best block.
    pub(crate) fn set_best(&mut self, hash: H256) -> Result<Switch, TreeError> {
        let mut enacted = Vec::new();
        let mut cursor = hash;
        let fork = loop {
            let entry = self.blocks.get(&cursor).ok_or(TreeError::Unknown(cursor))?;
            let number = entry.header.number;
            if self.canonical_hash(number) == Some(cursor) {
                break number;
            }
            enacted.push(Head { number, hash: cursor });
            cursor = entry.header.parent_hash;
        };
        if fork < self.finalised {
            return Err(TreeError::Finalised(hash));
        }
        enacted.reverse();
        let mut retracted = Vec::new();
        while self.best().number > fork {
            retracted.push(self.best());
            self.canonical.pop();
        }
        self.canonical.extend(enacted.iter().map(|head| head.hash));
        Ok(Switch { retracted, enacted })
    }

    /// Moves finality up to `number` on the best chain; returns what became final, lowest first.
    pub(crate) fn finalise(&mut self, number: BlockNumber) -> Vec<Head> {
        let target = number.min(self.best().number);
        let from = self.finalised + 1;
        self.finalised = self.finalised.max(target);
        (from..=target).filter_map(|number| self.canonical_head(number)).collect()
    }

    /// The best block.
    pub(crate) fn best(&self) -> Head {
        let hash = *self.canonical.last().expect("block 0 is always there");
        let number = BlockNumber::try_from(self.canonical.len() - 1)
            .expect("numbers of headers are u32, and they count this list");
        Head { number, hash }
    }

    /// The finalised block.
    pub(crate) fn finalised(&self) -> Head {
        self.canonical_head(self.finalised).expect("the finalised block is canonical")
    }

    /// Block 0.
    pub(crate) fn genesis_hash(&self) -> H256 {
        self.canonical[0]
    }

    /// The hash of a number on the best chain.
    pub(crate) fn canonical_hash(&self, number: BlockNumber) -> Option<H256> {
        self.canonical.get(number as usize).copied()
    }

    /// The block of a number on the best chain.
    pub(crate) fn canonical_head(&self, number: BlockNumber) -> Option<Head> {
        self.canonical_hash(number).map(|hash| Head { number, hash })
    }

    /// What is known of a block.
    pub(crate) fn entry(&self, hash: &H256) -> Option<&Entry> {
        self.blocks.get(hash)
    }

    /// Number of blocks of all forks.
    pub(crate) fn count(&self) -> usize {
        self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use sp_runtime::traits::Header as HeaderT;

    use super::Entry;
    use super::Head;
    use super::Header;
    use super::Span;
    use super::Switch;
    use super::Tree;
    use super::TreeError;
    use sp_core::H256;

    fn child(parent: H256, number: u32, salt: u8) -> (H256, Entry) {
        let state_root = H256::repeat_byte(salt);
        let header =
            Header::new(number, H256::zero(), state_root, parent, sp_runtime::Digest::default());
        (header.hash(), Entry { header, body: Span { offset: 0, length: 0 } })
    }

    fn grow(tree: &mut Tree, parent: Head, count: u32, salt: u8) -> Vec<Head> {
        let mut tip = parent;
        let mut heads = Vec::new();
        for _ in 0..count {
            let (hash, entry) = child(tip.hash, tip.number + 1, salt);
            tip = Head { number: entry.header.number, hash };
            tree.insert(hash, entry).expect("the parent is there");
            heads.push(tip);
        }
        heads
    }

    #[test]
    fn a_longer_fork_retracts_what_it_replaces_but_nothing_final() {
        let (hash, entry) = child(H256::zero(), 0, 0);
        let mut tree = Tree::new(hash, entry);
        let trunk = grow(&mut tree, Head { number: 0, hash }, 5, 1);
        let switch = tree.set_best(trunk[4].hash).expect("it is known");
        assert_eq!(switch, Switch { retracted: vec![], enacted: trunk.clone() });
        assert_eq!(tree.finalise(2), trunk[..2].to_vec());
        assert_eq!(tree.finalise(1), vec![], "finality never goes back");

        let fork = grow(&mut tree, trunk[2], 3, 2);
        let switch = tree.set_best(fork[2].hash).expect("it is known");
        assert_eq!(switch.retracted, vec![trunk[4], trunk[3]]);
        assert_eq!(switch.enacted, fork);
        assert_eq!(tree.best(), fork[2]);
        assert_eq!(tree.canonical_hash(4), Some(fork[0].hash));
        assert!(tree.entry(&trunk[4].hash).is_some(), "what lost stays readable");

        let late = grow(&mut tree, trunk[0], 7, 3);
        assert_eq!(tree.set_best(late[6].hash), Err(TreeError::Finalised(late[6].hash)));
        assert_eq!(tree.best(), fork[2]);
        let unknown = H256::repeat_byte(9);
        assert_eq!(tree.set_best(unknown), Err(TreeError::Unknown(unknown)));
    }
}
