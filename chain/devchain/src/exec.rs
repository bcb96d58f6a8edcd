// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running the runtime over a state: questions that change nothing, and the building of a block.
//!
//! The runtime panics where a wasm blob would trap. Every entry is therefore guarded, arguments are
//! decoded before the runtime sees them, and a transaction that makes it panic is left out of the
//! block and refused.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use codec::{DecodeAll, Encode};
use sp_core::H256;
use sp_core::storage::StateVersion;
use sp_externalities::set_and_run_with_externalities;
use sp_runtime::traits::{BlakeTwo256, Header as HeaderT};
use sp_runtime::transaction_validity::{
    InvalidTransaction, TransactionSource, TransactionValidityError, ValidTransaction,
};
use sp_runtime::{AccountId32, Digest, DigestItem};
use sp_state_machine::backend::Backend;
use sp_state_machine::{Ext, OverlayedChanges};

use crate::genesis::{Genesis, GenesisError, no_extrinsics_root};
use crate::runtime;
use crate::runtime::{Executive, Header, UncheckedExtrinsic};
use crate::trie::{NewNode, Nodes, State};

/// Marks the digest item that makes two blocks on the same parent differ.
const SEAL_ENGINE: [u8; 4] = *b"sndv";

/// Why the runtime gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// There is no such runtime API, or it is one that only an author may call.
    #[error("{0} is not a runtime API that this node answers")]
    UnknownCall(String),
    /// The arguments are not what the API takes.
    #[error("the arguments of {0} do not decode; encode them as its signature says")]
    Arguments(String),
    /// The runtime panicked, which a wasm runtime would report as a trap.
    #[error("the runtime panicked: {0}")]
    Panicked(String),
    /// The state could not be read or written.
    #[error("the state is not readable: {0}")]
    State(String),
}

/// A transaction offered to a block.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// BLAKE2 of the bytes.
    pub(crate) hash: H256,
    /// The extrinsic as it was submitted.
    pub(crate) bytes: Vec<u8>,
}

/// A block that is not written yet.
#[derive(Debug)]
pub(crate) struct Built {
    /// The finished header.
    pub(crate) header: Header,
    /// Hashes of the transactions in the block, in order.
    pub(crate) included: Vec<H256>,
    /// The block's extrinsics, in order.
    pub(crate) extrinsics: Vec<Vec<u8>>,
    /// Candidates that can never be applied any more.
    pub(crate) refused: Vec<H256>,
    /// Trie nodes that the block's state adds.
    pub(crate) nodes: Vec<NewNode>,
}

/// Runs `work` inside the runtime; what it writes stays in `overlay`.
fn enter<T>(
    overlay: &mut OverlayedChanges<BlakeTwo256>,
    state: &State<'_>,
    work: impl FnOnce() -> T,
) -> Result<T, ExecError> {
    let mut ext = Ext::new(overlay, state, None);
    catch_unwind(AssertUnwindSafe(|| set_and_run_with_externalities(&mut ext, work))).map_err(
        |panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            ExecError::Panicked(text.unwrap_or_else(|| "without a message".to_owned()))
        },
    )
}

/// Runs `work` inside the runtime and forgets what it writes.
pub(crate) fn ask<T>(state: &State<'_>, work: impl FnOnce() -> T) -> Result<T, ExecError> {
    enter(&mut OverlayedChanges::default(), state, work)
}

/// Answers `state_call`: a runtime API by name, with SCALE arguments.
pub(crate) fn call(state: &State<'_>, name: &str, arguments: &[u8]) -> Result<Vec<u8>, ExecError> {
    fn decodes<T: DecodeAll>(arguments: &[u8]) -> bool {
        T::decode_all(&mut &arguments[..]).is_ok()
    }
    let decodes = match name {
        "Core_version" | "Metadata_metadata" | "Metadata_metadata_versions" => decodes::<()>,
        "Metadata_metadata_at_version" => decodes::<u32>,
        "AccountNonceApi_account_nonce" => decodes::<AccountId32>,
        "TaggedTransactionQueue_validate_transaction" => {
            decodes::<(TransactionSource, UncheckedExtrinsic, H256)>
        }
        _ => return Err(ExecError::UnknownCall(name.to_owned())),
    };
    if !decodes(arguments) {
        return Err(ExecError::Arguments(name.to_owned()));
    }
    ask(state, || runtime::api::dispatch(name, arguments))?
        .ok_or_else(|| ExecError::UnknownCall(name.to_owned()))
}

/// Asks the runtime whether a transaction may enter the pool, on top of block `at`.
pub(crate) fn validate(
    state: &State<'_>,
    at: H256,
    bytes: &[u8],
) -> Result<Result<ValidTransaction, TransactionValidityError>, ExecError> {
    let extrinsic = UncheckedExtrinsic::decode_all(&mut &bytes[..])
        .map_err(|_| ExecError::Arguments("author_submitExtrinsic".to_owned()))?;
    ask(state, || Executive::validate_transaction(TransactionSource::External, extrinsic, at))
}

/// The next nonce of an account in this state, without a look at the pool.
pub(crate) fn account_nonce(state: &State<'_>, account: AccountId32) -> Result<u32, ExecError> {
    ask(state, || runtime::System::account_nonce(account))
}

/// Block 0 and the nodes of its state.
pub(crate) fn genesis(
    nodes: &Nodes,
    genesis: &Genesis,
) -> Result<(Header, Vec<NewNode>), GenesisError> {
    let pairs = genesis.storage()?;
    let state = nodes.empty_state();
    let delta = pairs.iter().map(|(key, value)| (key.as_slice(), Some(value.as_slice())));
    let (state_root, transaction) = state.storage_root(delta, StateVersion::V1);
    let header = Header::new(0, no_extrinsics_root(), state_root, H256::zero(), Digest::default());
    Ok((header, nodes.additions(transaction)))
}

/// Builds the child of `parent` from the candidates that apply, in their order.
///
/// `seal` must not repeat: it is what makes an empty block on the same parent another block.
pub(crate) fn build(
    nodes: &Nodes,
    parent: &Header,
    seal: u64,
    candidates: &[Candidate],
) -> Result<Built, ExecError> {
    let mut panicked = HashSet::new();
    loop {
        match attempt(nodes, parent, seal, candidates, &panicked) {
            Ok(mut built) => {
                built.refused.extend(panicked);
                return Ok(built);
            }
            Err((Some(culprit), error)) => {
                tracing::warn!(transaction = ?culprit, %error, "left out a transaction");
                panicked.insert(culprit);
            }
            Err((None, error)) => return Err(error),
        }
    }
}

/// One attempt at a block; a panic names the transaction that caused it.
fn attempt(
    nodes: &Nodes,
    parent: &Header,
    seal: u64,
    candidates: &[Candidate],
    skip: &HashSet<H256>,
) -> Result<Built, (Option<H256>, ExecError)> {
    let state = nodes.state(parent.state_root);
    let mut overlay = OverlayedChanges::default();
    let digest = Digest { logs: vec![DigestItem::PreRuntime(SEAL_ENGINE, seal.encode())] };
    let draft = Header::new(parent.number + 1, H256::zero(), H256::zero(), parent.hash(), digest);
    enter(&mut overlay, &state, || Executive::initialize_block(&draft))
        .map_err(|error| (None, error))?;

    let mut included = Vec::new();
    let mut extrinsics = Vec::new();
    let mut refused = Vec::new();
    for candidate in candidates.iter().filter(|candidate| !skip.contains(&candidate.hash)) {
        match apply(&mut overlay, &state, &candidate.bytes)
            .map_err(|error| (Some(candidate.hash), error))?
        {
            Applied::Yes => {
                included.push(candidate.hash);
                extrinsics.push(candidate.bytes.clone());
            }
            Applied::Later => {}
            Applied::Never => refused.push(candidate.hash),
            Applied::Full => break,
        }
    }
    let header =
        enter(&mut overlay, &state, Executive::finalize_block).map_err(|error| (None, error))?;
    let changes = overlay
        .drain_storage_changes(&state, StateVersion::V1)
        .map_err(|error| (None, ExecError::State(error)))?;
    debug_assert_eq!(header.state_root, changes.transaction_storage_root);
    let nodes = nodes.additions(changes.transaction);
    Ok(Built { header, included, extrinsics, refused, nodes })
}

/// What became of one transaction.
enum Applied {
    Yes,
    /// Its nonce is ahead; a later block may take it.
    Later,
    /// It will never apply: the nonce is used, the era is over, the signature is wrong.
    Never,
    /// The block is full.
    Full,
}

fn apply(
    overlay: &mut OverlayedChanges<BlakeTwo256>,
    state: &State<'_>,
    bytes: &[u8],
) -> Result<Applied, ExecError> {
    let Ok(extrinsic) = UncheckedExtrinsic::decode_all(&mut &bytes[..]) else {
        return Ok(Applied::Never);
    };
    overlay.start_transaction();
    let outcome = enter(overlay, state, || Executive::apply_extrinsic(extrinsic))?;
    let applied = match outcome {
        Ok(_dispatched) => Applied::Yes,
        Err(TransactionValidityError::Invalid(InvalidTransaction::Future)) => Applied::Later,
        Err(TransactionValidityError::Invalid(InvalidTransaction::ExhaustsResources)) => {
            Applied::Full
        }
        Err(_) => Applied::Never,
    };
    let closed = match applied {
        Applied::Yes => overlay.commit_transaction(),
        _ => overlay.rollback_transaction(),
    };
    closed.map_err(|_| ExecError::State("a storage transaction was left open".to_owned()))?;
    Ok(applied)
}

/// The metadata of the runtime, newest version that is stable, as `subxt metadata` would save it.
pub fn metadata() -> Vec<u8> {
    let newest = runtime::Runtime::metadata_versions()
        .into_iter()
        .filter(|version| *version != u32::MAX)
        .max()
        .expect("every FRAME runtime has metadata");
    let metadata = runtime::Runtime::metadata_at_version(newest);
    metadata.expect("the version was offered just now").to_vec()
}
