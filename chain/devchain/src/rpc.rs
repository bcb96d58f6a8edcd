// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chain's JSON-RPC, with the names and shapes of Substrate's legacy interface.
//!
//! - `rpc/server.rs` owns sockets: it accepts, bounds, and cuts connections.
//! - `rpc/faults.rs` stands between a connection and the methods, and misbehaves on demand.
//! - `rpc/{system,chain,state,author,dev}.rs` are the methods, one family a file.
//!
//! No method of the newer `chainHead_v1` or `archive_v1` families is offered: a client that sees
//! one of their names takes the whole family for granted.

pub(crate) mod author;
pub(crate) mod chain;
pub(crate) mod dev;
pub(crate) mod faults;
pub(crate) mod server;
pub(crate) mod state;
pub(crate) mod system;

use std::sync::Arc;

use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use jsonrpsee::types::error::{INTERNAL_ERROR_CODE, INVALID_PARAMS_CODE};
use jsonrpsee::{RpcModule, SubscriptionMessage, SubscriptionSink};
use serde::Serialize;
use sp_core::H256;

use crate::author::AuthorHandle;
use crate::chain::Chain;
use crate::rpc::faults::Gate;
use crate::trie::State;

/// A block that was asked for by a hash nobody knows; Substrate uses the same number.
const UNKNOWN_BLOCK_CODE: i32 = 4003;

/// What every method can use.
pub(crate) struct Context {
    pub(crate) chain: Arc<Chain>,
    pub(crate) author: AuthorHandle,
    /// The listener this context belongs to.
    pub(crate) gate: Arc<Gate>,
    /// All listeners, for the controls.
    pub(crate) gates: Vec<Arc<Gate>>,
    /// Whether `dev_*` methods are offered.
    pub(crate) controls: bool,
}

type RpcResult<T> = Result<T, ErrorObjectOwned>;

/// The methods of one listener.
pub(crate) fn module(context: Context) -> Result<RpcModule<Context>, RegisterMethodError> {
    let controls = context.controls;
    let mut module = RpcModule::new(context);
    system::register(&mut module)?;
    chain::register(&mut module)?;
    state::register(&mut module)?;
    author::register(&mut module)?;
    if controls {
        dev::register(&mut module)?;
    }
    let mut names: Vec<_> = module.method_names().chain(["rpc_methods"]).collect();
    names.sort_unstable();
    let answer = serde_json::json!({ "methods": names });
    module.register_method("rpc_methods", move |_, _, _| answer.clone())?;
    Ok(module)
}

impl Context {
    /// The block a request means: the one it names, or the best one.
    fn at(&self, hash: Option<H256>) -> H256 {
        hash.unwrap_or_else(|| self.chain.best().hash)
    }

    fn state(&self, hash: H256) -> RpcResult<State<'_>> {
        self.chain.state(&hash).ok_or_else(|| {
            let text = format!("UnknownBlock: no block {hash:?} here");
            ErrorObjectOwned::owned(UNKNOWN_BLOCK_CODE, text, None::<()>)
        })
    }
}

fn internal(error: impl std::fmt::Display) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(INTERNAL_ERROR_CODE, error.to_string(), None::<()>)
}

fn invalid(reason: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(INVALID_PARAMS_CODE, reason, None::<()>)
}

/// Sends one item of a subscription; `false` when nobody listens any more.
async fn send(sink: &SubscriptionSink, item: &impl Serialize) -> bool {
    let raw = serde_json::value::to_raw_value(item).expect("answers are plain data");
    sink.send(SubscriptionMessage::from(raw)).await.is_ok()
}
