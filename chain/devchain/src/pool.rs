// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transactions that wait for a block: pure bookkeeping, the runtime has been asked before.
//!
//! - The runtime names for each transaction the tags it needs and the tags it gives; with nonces, a
//!   tag is (account, nonce). A transaction is *ready* when what it needs is given by ready ones in
//!   the pool or has been given by a block; otherwise its nonce is ahead and it waits.
//! - One tag is given by one transaction: another one with a higher priority takes its place.
//! - Transactions leave in the order they came, as far as their tags allow.
//! - Bounded in number and bytes. A full pool refuses; nothing inside is pushed out.

use std::collections::{BTreeMap, HashMap, HashSet};

use sp_core::H256;
use sp_runtime::transaction_validity::ValidTransaction;

use crate::exec::Candidate;
use crate::runtime::BlockNumber;

/// What a transaction needs or gives.
type Tag = Vec<u8>;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Transactions.
    pub transactions_max: usize,
    /// Their bytes together.
    pub bytes_max: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        // Four full blocks by bytes. Taking one looks at all that wait, so their number is small.
        Self { transactions_max: 2048, bytes_max: 20 << 20 }
    }
}

/// Why a transaction is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PoolError {
    /// It is here.
    #[error("the transaction is in the pool already")]
    Known,
    /// Another one with the same nonce has the same or a higher priority.
    #[error("a transaction with the same nonce waits; raise the priority to replace it")]
    PriorityTooLow,
    /// No room.
    #[error("the pool is full; try again after the next block")]
    Full,
}

/// What happened when a transaction was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whether the next block may have it.
    pub(crate) ready: bool,
    /// Transactions that gave way.
    pub(crate) usurped: Vec<H256>,
    /// Transactions that waited for this one and are ready now.
    pub(crate) promoted: Vec<H256>,
}

struct Waiting {
    arrival: u64,
    bytes: Vec<u8>,
    requires: Vec<Tag>,
    provides: Vec<Tag>,
    priority: u64,
    /// Last block that may contain it.
    valid_till: BlockNumber,
}

/// The pool.
pub(crate) struct Pool {
    limits: PoolLimits,
    waiting: HashMap<H256, Waiting>,
    by_arrival: BTreeMap<u64, H256>,
    by_tag: HashMap<Tag, H256>,
    bytes: usize,
    arrivals: u64,
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            waiting: HashMap::new(),
            by_arrival: BTreeMap::new(),
            by_tag: HashMap::new(),
            bytes: 0,
            arrivals: 0,
        }
    }

    /// Takes a transaction that the runtime calls valid on top of block `best`.
    pub(crate) fn take(
        &mut self,
        transaction: Candidate,
        valid: ValidTransaction,
        best: BlockNumber,
    ) -> Result<Taken, PoolError> {
        if self.waiting.contains_key(&transaction.hash) {
            return Err(PoolError::Known);
        }
        let usurped: HashSet<H256> =
            valid.provides.iter().filter_map(|tag| self.by_tag.get(tag).copied()).collect();
        if usurped.iter().any(|hash| self.waiting[hash].priority >= valid.priority) {
            return Err(PoolError::PriorityTooLow);
        }
        let bytes = self.bytes + transaction.bytes.len();
        let count = self.waiting.len() + 1 - usurped.len();
        if count > self.limits.transactions_max || bytes > self.limits.bytes_max {
            return Err(PoolError::Full);
        }
        let ready_before = self.ready_set();
        for hash in &usurped {
            self.remove(hash);
        }
        let longevity = BlockNumber::try_from(valid.longevity).unwrap_or(BlockNumber::MAX);
        self.arrivals += 1;
        self.bytes += transaction.bytes.len();
        self.by_arrival.insert(self.arrivals, transaction.hash);
        self.by_tag.extend(valid.provides.iter().map(|tag| (tag.clone(), transaction.hash)));
        self.waiting.insert(
            transaction.hash,
            Waiting {
                arrival: self.arrivals,
                bytes: transaction.bytes,
                requires: valid.requires,
                provides: valid.provides,
                priority: valid.priority,
                valid_till: best.saturating_add(longevity),
            },
        );
        let mut promoted = self.ready();
        promoted.retain(|hash| !ready_before.contains(hash));
        let ready = promoted.contains(&transaction.hash);
        promoted.retain(|hash| *hash != transaction.hash);
        Ok(Taken { ready, usurped: usurped.into_iter().collect(), promoted })
    }

    /// Takes a transaction out. What it gives counts as missing from now on.
    pub(crate) fn remove(&mut self, hash: &H256) -> Option<Candidate> {
        let waiting = self.waiting.remove(hash)?;
        self.by_arrival.remove(&waiting.arrival);
        self.bytes -= waiting.bytes.len();
        for tag in &waiting.provides {
            self.by_tag.remove(tag);
        }
        Some(Candidate { hash: *hash, bytes: waiting.bytes })
    }

    /// Takes a transaction out because a block has it. What it gives is given for good.
    pub(crate) fn included(&mut self, hash: &H256) {
        let Some(waiting) = self.waiting.get(hash) else { return };
        let given: HashSet<Tag> = waiting.provides.iter().cloned().collect();
        self.remove(hash);
        for other in self.waiting.values_mut() {
            other.requires.retain(|tag| !given.contains(tag));
        }
    }

    /// Transactions that no later block than `best` may contain.
    pub(crate) fn expired(&self, best: BlockNumber) -> Vec<H256> {
        self.waiting
            .iter()
            .filter(|(_, waiting)| waiting.valid_till <= best)
            .map(|(hash, _)| *hash)
            .collect()
    }

    /// Everything that waits, in order of arrival.
    pub(crate) fn all(&self) -> Vec<Candidate> {
        self.by_arrival.values().map(|hash| self.candidate(hash)).collect()
    }

    /// The transactions the next block may have, in an order that meets every need.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        self.ready().iter().map(|hash| self.candidate(hash)).collect()
    }

    /// Whether somebody here gives this tag.
    pub(crate) fn gives(&self, tag: &[u8]) -> bool {
        self.by_tag.contains_key(tag)
    }

    /// Empties the pool.
    pub(crate) fn drain(&mut self) -> Vec<Candidate> {
        let all = self.all();
        *self = Self::new(self.limits);
        all
    }

    fn candidate(&self, hash: &H256) -> Candidate {
        Candidate { hash: *hash, bytes: self.waiting[hash].bytes.clone() }
    }

    fn ready_set(&self) -> HashSet<H256> {
        self.ready().into_iter().collect()
    }

    /// Follows the tags from those who need nothing; each transaction is looked at once per need.
    fn ready(&self) -> Vec<H256> {
        let mut open: HashMap<H256, usize> = HashMap::new();
        let mut needed_by: HashMap<&[u8], Vec<H256>> = HashMap::new();
        let mut next = BTreeMap::new();
        for (hash, waiting) in &self.waiting {
            open.insert(*hash, waiting.requires.len());
            for tag in &waiting.requires {
                needed_by.entry(tag).or_default().push(*hash);
            }
            if waiting.requires.is_empty() {
                next.insert(waiting.arrival, *hash);
            }
        }
        let mut order = Vec::new();
        while let Some((_, hash)) = next.pop_first() {
            order.push(hash);
            for tag in &self.waiting[&hash].provides {
                for dependent in needed_by.remove(tag.as_slice()).unwrap_or_default() {
                    let left = open.get_mut(&dependent).expect("all are counted above");
                    *left -= 1;
                    if *left == 0 {
                        next.insert(self.waiting[&dependent].arrival, dependent);
                    }
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use sp_core::H256;
    use sp_runtime::transaction_validity::ValidTransaction;

    use super::Candidate;
    use super::Pool;
    use super::PoolError;
    use super::PoolLimits;
    use super::Taken;

    fn transaction(id: u8) -> Candidate {
        Candidate { hash: H256::repeat_byte(id), bytes: vec![id; 10] }
    }

    fn valid(requires: &[u8], provides: u8, priority: u64) -> ValidTransaction {
        ValidTransaction {
            priority,
            requires: requires.iter().map(|tag| vec![*tag]).collect(),
            provides: vec![vec![provides]],
            longevity: 5,
            propagate: true,
        }
    }

    fn hashes(candidates: &[Candidate]) -> Vec<u8> {
        candidates.iter().map(|candidate| candidate.hash.0[0]).collect()
    }

    #[test]
    fn nonces_ahead_wait_for_the_gap_to_close() {
        let mut pool = Pool::new(PoolLimits::default());
        let late = pool.take(transaction(3), valid(&[2], 3, 0), 7).expect("there is room");
        assert!(!late.ready);
        assert!(pool.candidates().is_empty());
        pool.take(transaction(1), valid(&[], 1, 0), 7).expect("there is room");
        let gap = pool.take(transaction(2), valid(&[1], 2, 0), 7).expect("there is room");
        assert_eq!(
            gap,
            Taken { ready: true, usurped: vec![], promoted: vec![H256::repeat_byte(3)] }
        );
        assert_eq!(hashes(&pool.candidates()), [1, 2, 3]);

        pool.included(&H256::repeat_byte(1));
        assert_eq!(hashes(&pool.candidates()), [2, 3]);
        pool.remove(&H256::repeat_byte(2));
        assert!(pool.candidates().is_empty(), "3 waits for its nonce again");
        assert_eq!(pool.expired(11), vec![]);
        assert_eq!(pool.expired(12), vec![H256::repeat_byte(3)]);
    }

    #[test]
    fn one_nonce_is_used_once_and_the_bounds_hold() {
        let limits = PoolLimits { transactions_max: 2, bytes_max: 25 };
        let mut pool = Pool::new(limits);
        pool.take(transaction(1), valid(&[], 1, 5), 0).expect("there is room");
        assert_eq!(pool.take(transaction(1), valid(&[], 1, 5), 0), Err(PoolError::Known));
        assert_eq!(pool.take(transaction(2), valid(&[], 1, 5), 0), Err(PoolError::PriorityTooLow));
        let taken = pool.take(transaction(2), valid(&[], 1, 6), 0).expect("it pays more");
        assert_eq!(taken.usurped, vec![H256::repeat_byte(1)]);
        pool.take(transaction(3), valid(&[], 3, 0), 0).expect("there is room");
        assert_eq!(pool.take(transaction(4), valid(&[], 4, 9), 0), Err(PoolError::Full));
        assert!(pool.gives(&[3]) && !pool.gives(&[4]));
        assert_eq!(hashes(&pool.drain()), [2, 3]);
        pool.take(transaction(4), valid(&[], 4, 0), 0).expect("the pool is empty again");
    }
}
