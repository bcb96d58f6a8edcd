// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one writer of the chain: takes transactions, builds blocks, moves finality, reorganises.
//!
//! - An actor on a thread of its own, because the runtime computes and the log syncs. Its mailbox
//!   is bounded; who sends waits for an answer, except the clock, whose ticks may be lost.
//! - It owns the pool and the watchers. The tree and the nodes are shared with readers, and it
//!   changes them only after what they point to is durable.
//! - An error of the log ends it: a chain that cannot write must not go on.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread::JoinHandle;

use codec::Encode;
use sp_core::H256;
use sp_runtime::AccountId32;
use sp_runtime::traits::{BlakeTwo256, Hash as HashT};
use sp_runtime::transaction_validity::TransactionValidityError;
use tokio::sync::{mpsc, oneshot};

use crate::chain::{Chain, News, Write, write_block, write_heads};
use crate::exec;
use crate::exec::{Built, Candidate, ExecError};
use crate::log::{Batch, LogError};
use crate::pool::{Pool, PoolError, PoolLimits, Taken};
use crate::runtime::Header;
use crate::tree::{Entry, Head};
use crate::watch::{Status, Watches};

/// Requests that may wait for the author; each holds at most one transaction.
const MAILBOX_MAX: usize = 256;

/// A reorganisation builds at most so many blocks in one go.
const REORG_DEPTH_MAX: u32 = 256;

/// What happens to the transactions of blocks that a reorganisation drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Retracted {
    /// They go back to the pool, as with a real node.
    #[default]
    Return,
    /// They are forgotten, as when no other author has heard of them.
    Lose,
}

/// What is in the blocks that a reorganisation builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fill {
    /// What waits in the pool, and what was retracted unless it is lost.
    #[default]
    Pool,
    /// Nothing.
    Empty,
}

/// A reorganisation: the last `depth` blocks are replaced by `depth + 1` others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reorg {
    /// How many blocks are dropped; at least 1, and never a finalised one.
    pub depth: u32,
    /// What happens to their transactions.
    pub retracted: Retracted,
    /// What the new blocks contain.
    pub fill: Fill,
}

impl From<u32> for Reorg {
    fn from(depth: u32) -> Self {
        Self { depth, ..Self::default() }
    }
}

/// Why the chain did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The chain has ended.
    #[error("the development chain has stopped; start it again")]
    Stopped,
    /// Finality or the beginning is in the way.
    #[error("cannot replace {depth} blocks: 1 to {possible} can be replaced now")]
    Depth {
        /// What was asked for.
        depth: u32,
        /// Blocks above the finalised one, as far as one reorganisation goes.
        possible: u32,
    },
    /// The log failed, and the chain ends.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The runtime or the state failed; no block was built.
    #[error("no block could be built: {0}")]
    Build(String),
}

/// Why a transaction is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("the extrinsic does not decode")]
    Malformed,
    #[error("{}", reason(.0))]
    Invalid(TransactionValidityError),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("the development chain has stopped")]
    Stopped,
}

fn reason(error: &TransactionValidityError) -> &'static str {
    (*error).into()
}

type Reply<T> = oneshot::Sender<T>;

enum Message {
    Submit {
        bytes: Vec<u8>,
        watch: Option<mpsc::Sender<Status>>,
        reply: Reply<Result<H256, SubmitError>>,
    },
    Seal(Option<Reply<Result<Head, ControlError>>>),
    Reorg(Reorg, Reply<Result<Head, ControlError>>),
    Finality {
        lag: Option<u32>,
        stalled: Option<bool>,
        reply: Reply<Result<(), ControlError>>,
    },
    Pending(Reply<Vec<Vec<u8>>>),
    NextIndex(AccountId32, Reply<Result<u32, ExecError>>),
    Stop,
}

/// Sends to the author.
#[derive(Clone)]
pub(crate) struct AuthorHandle {
    mailbox: mpsc::Sender<Message>,
}

impl AuthorHandle {
    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(message(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Offers a transaction; statuses go to `watch` from the answer on.
    pub(crate) async fn submit(
        &self,
        bytes: Vec<u8>,
        watch: Option<mpsc::Sender<Status>>,
    ) -> Result<H256, SubmitError> {
        let answer = self.ask(|reply| Message::Submit { bytes, watch, reply }).await;
        answer.unwrap_or(Err(SubmitError::Stopped))
    }

    /// Builds a block now.
    pub(crate) async fn seal(&self) -> Result<Head, ControlError> {
        let answer = self.ask(|reply| Message::Seal(Some(reply))).await;
        answer.unwrap_or(Err(ControlError::Stopped))
    }

    /// Replaces the last blocks.
    pub(crate) async fn reorg(&self, reorg: Reorg) -> Result<Head, ControlError> {
        let answer = self.ask(|reply| Message::Reorg(reorg, reply)).await;
        answer.unwrap_or(Err(ControlError::Stopped))
    }

    /// Changes how finality follows the best block.
    pub(crate) async fn finality(
        &self,
        lag: Option<u32>,
        stalled: Option<bool>,
    ) -> Result<(), ControlError> {
        let answer = self.ask(|reply| Message::Finality { lag, stalled, reply }).await;
        answer.unwrap_or(Err(ControlError::Stopped))
    }

    /// What waits for a block.
    pub(crate) async fn pending(&self) -> Option<Vec<Vec<u8>>> {
        self.ask(Message::Pending).await
    }

    /// The nonce an account uses next, counting what waits in the pool.
    pub(crate) async fn next_index(&self, account: AccountId32) -> Option<Result<u32, ExecError>> {
        self.ask(|reply| Message::NextIndex(account, reply)).await
    }

    /// The clock: a block is due. If the author is that busy, this one is left out.
    pub(crate) fn tick(&self) -> bool {
        !matches!(
            self.mailbox.try_send(Message::Seal(None)),
            Err(mpsc::error::TrySendError::Closed(_))
        )
    }

    /// Ends the author after what it has been told so far.
    pub(crate) async fn stop(&self) {
        let _already_stopped = self.mailbox.send(Message::Stop).await;
    }
}

/// How the author behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuthorOptions {
    /// Build a block for every transaction that is ready.
    pub(crate) instant: bool,
    /// Blocks between the best and the finalised one.
    pub(crate) finality_lag: u32,
    /// Bounds of the pool.
    pub(crate) pool: PoolLimits,
}

/// The state of the actor.
pub(crate) struct Author {
    chain: Arc<Chain>,
    pool: Pool,
    watches: Watches,
    instant: bool,
    lag: u32,
    stalled: bool,
}

/// What a batch of messages may end with.
enum Flow {
    Continue,
    Stop,
}

impl Author {
    /// Starts the author; a new chain gets its first block before this returns.
    pub(crate) fn start(
        chain: Arc<Chain>,
        options: AuthorOptions,
    ) -> Result<(AuthorHandle, JoinHandle<()>), ControlError> {
        let mut author = Self {
            chain,
            pool: Pool::new(options.pool),
            watches: Watches::default(),
            instant: options.instant,
            lag: options.finality_lag,
            stalled: false,
        };
        if author.chain.best().number == 0 {
            // Clients take the block after the genesis as a sign of life.
            author.seal()?;
        }
        let (mailbox, inbox) = mpsc::channel(MAILBOX_MAX);
        let thread = std::thread::Builder::new()
            .name("devchain-author".to_owned())
            .spawn(move || author.run(inbox))
            .map_err(|error| ControlError::Build(format!("no thread: {error}")))?;
        Ok((AuthorHandle { mailbox }, thread))
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        while let Some(message) = inbox.blocking_recv() {
            if let Flow::Stop = self.apply(message) {
                break;
            }
        }
    }

    fn apply(&mut self, message: Message) -> Flow {
        match message {
            Message::Submit { bytes, watch, reply } => {
                let outcome = self.submit(bytes, watch);
                let ready = matches!(outcome, Ok((_, true)));
                let _gone = reply.send(outcome.map(|(hash, _)| hash));
                if ready && self.instant {
                    let sealed = self.seal();
                    return self.after(&sealed.map(|_| ()));
                }
            }
            Message::Seal(reply) => {
                let sealed = self.seal();
                return self.answer(sealed, reply);
            }
            Message::Reorg(reorg, reply) => {
                let done = self.reorganise(reorg);
                return self.answer(done, Some(reply));
            }
            Message::Finality { lag, stalled, reply } => {
                self.lag = lag.unwrap_or(self.lag);
                self.stalled = stalled.unwrap_or(self.stalled);
                let done = self.catch_up_finality();
                return self.answer(done, Some(reply));
            }
            Message::Pending(reply) => {
                let pending = self.pool.all().into_iter().map(|waiting| waiting.bytes).collect();
                let _gone = reply.send(pending);
            }
            Message::NextIndex(account, reply) => {
                let _gone = reply.send(self.next_index(account));
            }
            Message::Stop => return Flow::Stop,
        }
        Flow::Continue
    }

    fn answer<T>(
        &self,
        outcome: Result<T, ControlError>,
        reply: Option<Reply<Result<T, ControlError>>>,
    ) -> Flow {
        let flow = self.after(&outcome);
        if let Some(reply) = reply {
            let _gone = reply.send(outcome);
        }
        flow
    }

    /// A log that fails is the end; a block that could not be built is not.
    fn after<T>(&self, outcome: &Result<T, ControlError>) -> Flow {
        match outcome {
            Err(ControlError::Log(error)) => {
                tracing::error!(%error, "the development chain ends");
                Flow::Stop
            }
            Err(ControlError::Build(error)) => {
                tracing::error!(%error, "no block was built");
                Flow::Continue
            }
            _ => Flow::Continue,
        }
    }

    fn submit(
        &mut self,
        bytes: Vec<u8>,
        watch: Option<mpsc::Sender<Status>>,
    ) -> Result<(H256, bool), SubmitError> {
        let hash = BlakeTwo256::hash(&bytes);
        let taken = self.take(Candidate { hash, bytes })?;
        if let Some(watch) = watch {
            self.watches.begin(hash, watch);
        }
        self.watches.tell(&hash, if taken.ready { Status::Ready } else { Status::Future });
        for other in &taken.usurped {
            self.watches.tell(other, Status::Usurped(hash));
        }
        for other in &taken.promoted {
            self.watches.tell(other, Status::Ready);
        }
        Ok((hash, taken.ready))
    }

    /// Asks the runtime at the best block, then the pool.
    fn take(&mut self, transaction: Candidate) -> Result<Taken, SubmitError> {
        let best = self.chain.best();
        let state = self.chain.state(&best.hash).expect("the best block is known");
        let valid = exec::validate(&state, best.hash, &transaction.bytes)
            .map_err(|error| match error {
                ExecError::Arguments(_) => SubmitError::Malformed,
                other => SubmitError::Exec(other),
            })?
            .map_err(SubmitError::Invalid)?;
        Ok(self.pool.take(transaction, valid, best.number)?)
    }

    fn next_index(&self, account: AccountId32) -> Result<u32, ExecError> {
        let best = self.chain.best();
        let state = self.chain.state(&best.hash).expect("the best block is known");
        let mut nonce = exec::account_nonce(&state, account.clone())?;
        while self.pool.gives(&(&account, nonce).encode()) {
            nonce += 1;
        }
        Ok(nonce)
    }

    /// Builds a block from the pool on top of the best one.
    fn seal(&mut self) -> Result<Head, ControlError> {
        let best = self.chain.best();
        let parent = self.chain.header(&best.hash).expect("the best block is known");
        let built = self.build(&parent, &self.pool.candidates())?;
        let refused = built.refused.clone();
        let head = self.import(built, true)?;
        for hash in refused.into_iter().chain(self.pool.expired(head.number)) {
            self.pool.remove(&hash);
            self.watches.tell(&hash, Status::Invalid);
        }
        Ok(head)
    }

    fn build(&self, parent: &Header, candidates: &[Candidate]) -> Result<Built, ControlError> {
        // How many blocks there are never repeats, so neither does a block.
        let seal = self.chain.tree.read().count() as u64;
        exec::build(&self.chain.nodes, parent, seal, candidates)
            .map_err(|error| ControlError::Build(error.to_string()))
    }

    /// Makes a block durable, then visible; as the best one or as part of a fork.
    fn import(&mut self, built: Built, as_best: bool) -> Result<Head, ControlError> {
        let head = Head { number: built.header.number, hash: built.header.hash() };
        let (best, finalised) = if as_best {
            (head, self.finalised_under(head, built.header.parent_hash))
        } else {
            (self.chain.best(), self.chain.finalised())
        };
        let write =
            Write { header: &built.header, extrinsics: &built.extrinsics, nodes: &built.nodes };
        let heads = (best, finalised);
        let chain = self.chain.clone();
        let body = write_block(&chain.log, &chain.nodes, Batch::default(), &write, heads)?;
        let mut tree = chain.tree.write();
        tree.insert(head.hash, Entry { header: built.header, body })
            .expect("a block is built on one that is known");
        let switched = as_best.then(|| {
            tree.set_best(head.hash).expect("forks begin at or above the finalised block")
        });
        let final_now = tree.finalise(finalised.number);
        drop(tree);

        self.announce(News::Imported(head));
        if let Some(switch) = switched {
            self.announce(News::Best(head));
            for retracted in &switch.retracted {
                for transaction in self.transactions(*retracted)? {
                    self.watches.tell(&transaction.hash, Status::Retracted(retracted.hash));
                }
            }
            for enacted in &switch.enacted {
                for transaction in self.transactions(*enacted)? {
                    self.pool.included(&transaction.hash);
                    self.watches.included(&transaction.hash, *enacted);
                }
            }
            self.tell_final(&final_now);
        }
        Ok(head)
    }

    /// The block that is final once `head`, a child of `parent`, is the best.
    fn finalised_under(&self, head: Head, parent: H256) -> Head {
        let tree = self.chain.tree.read();
        let current = tree.finalised();
        let target = head.number.saturating_sub(self.lag);
        if self.stalled || target <= current.number {
            return current;
        }
        let mut cursor = Head { hash: parent, number: head.number - 1 };
        if target == head.number {
            return head;
        }
        while cursor.number > target {
            let entry = tree.entry(&cursor.hash).expect("ancestors are known");
            cursor = Head { hash: entry.header.parent_hash, number: cursor.number - 1 };
        }
        cursor
    }

    /// Moves finality to where the settings want it, without a new block.
    fn catch_up_finality(&mut self) -> Result<(), ControlError> {
        let best = self.chain.best();
        let target = best.number.saturating_sub(self.lag);
        if self.stalled || target <= self.chain.finalised().number {
            return Ok(());
        }
        let finalised = self.chain.tree.read().canonical_head(target);
        write_heads(&self.chain.log, best, finalised.expect("it is below the best block"))?;
        let final_now = self.chain.tree.write().finalise(target);
        self.tell_final(&final_now);
        Ok(())
    }

    fn tell_final(&mut self, blocks: &[Head]) {
        if let Some(last) = blocks.last() {
            self.announce(News::Finalised(*last));
        }
        self.watches.finalised(blocks, self.chain.best().number);
    }

    fn announce(&self, news: News) {
        // Nobody listening is fine.
        let _nobody = self.chain.news.send(news);
    }

    fn transactions(&self, block: Head) -> Result<Vec<Candidate>, ControlError> {
        let extrinsics = self.chain.extrinsics(&block.hash)?.unwrap_or_default();
        let candidate = |bytes: Vec<u8>| Candidate { hash: BlakeTwo256::hash(&bytes), bytes };
        Ok(extrinsics.into_iter().map(candidate).collect())
    }

    /// Replaces the last blocks by a longer fork.
    fn reorganise(&mut self, reorg: Reorg) -> Result<Head, ControlError> {
        let best = self.chain.best();
        let finalised = self.chain.finalised();
        let possible = (best.number - finalised.number).min(REORG_DEPTH_MAX);
        if reorg.depth == 0 || reorg.depth > possible {
            return Err(ControlError::Depth { depth: reorg.depth, possible });
        }
        let fork = best.number - reorg.depth;
        let mut lost = Vec::new();
        for number in fork + 1..=best.number {
            let head = self.chain.tree.read().canonical_head(number);
            lost.extend(self.transactions(head.expect("it is at most the best block"))?);
        }
        let mut candidates = match reorg.retracted {
            Retracted::Return => lost.clone(),
            Retracted::Lose => Vec::new(),
        };
        candidates.extend(self.pool.all());
        let fork_hash = self.chain.tree.read().canonical_hash(fork).expect("it is below the best");
        let mut parent = self.chain.header(&fork_hash).expect("canonical blocks are known");
        let mut placed = HashSet::new();
        let mut head = best;
        for built_so_far in 0..=reorg.depth {
            let offered: &[Candidate] = if reorg.fill == Fill::Pool { &candidates } else { &[] };
            let built = self.build(&parent, offered)?;
            placed.extend(built.included.iter().copied());
            candidates.retain(|candidate| !placed.contains(&candidate.hash));
            parent = built.header.clone();
            head = self.import(built, built_so_far == reorg.depth)?;
        }
        lost.retain(|transaction| !placed.contains(&transaction.hash));
        self.settle(lost, reorg.retracted);
        Ok(head)
    }

    /// After a fork nothing the pool was told holds: everything is asked again.
    fn settle(&mut self, lost: Vec<Candidate>, retracted: Retracted) {
        let mut again = Vec::new();
        match retracted {
            Retracted::Return => again = lost,
            Retracted::Lose => {
                for transaction in lost {
                    self.watches.tell(&transaction.hash, Status::Dropped);
                }
            }
        }
        again.extend(self.pool.drain());
        for transaction in again {
            let hash = transaction.hash;
            let status = match self.take(transaction) {
                Ok(taken) if taken.ready => Status::Ready,
                Ok(_) => Status::Future,
                Err(SubmitError::Pool(PoolError::Known)) => continue,
                Err(SubmitError::Pool(_)) => Status::Dropped,
                Err(_) => Status::Invalid,
            };
            self.watches.tell(&hash, status);
        }
    }
}
