// SPDX-License-Identifier: MIT OR Apache-2.0
//! `state_*`: metadata, runtime calls and storage, of any block there ever was.

use std::sync::Arc;

use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::Params;
use jsonrpsee::{PendingSubscriptionSink, RpcModule};
use serde_json::{Value, json};
use sp_core::{Bytes, H256};
use sp_state_machine::IterArgs;
use sp_state_machine::backend::Backend;
use tokio::sync::broadcast::error::RecvError;

use crate::chain::News;
use crate::exec;
use crate::rpc::{Context, RpcResult, internal, invalid, send};
use crate::runtime::{Runtime, VERSION};

/// Keys one `state_getKeysPaged` answers with, as on a real node.
const KEYS_PAGE_MAX: u32 = 1000;

/// Keys one `state_queryStorageAt` or `state_subscribeStorage` may name.
const KEYS_QUERY_MAX: usize = 1000;

/// A key longer than this is not one a pallet makes.
const KEY_BYTES_MAX: usize = 4096;

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("state_getMetadata", |params, context, _| {
        let at: Option<H256> = params.sequence().optional_next()?;
        context.state(context.at(at))?;
        let answer: RpcResult<Bytes> = Ok(Bytes(Runtime::metadata().into()));
        answer
    })?;
    module.register_method("state_getRuntimeVersion", |params, context, _| {
        let at: Option<H256> = params.sequence().optional_next()?;
        context.state(context.at(at))?;
        let answer: RpcResult<_> = Ok(VERSION);
        answer
    })?;
    module.register_blocking_method("state_call", |params, context, _| call(&params, &context))?;
    module.register_blocking_method("state_getStorage", |params, context, _| {
        read(&params, &context, |state, key| Ok(state.storage(key)?.map(Bytes)))
    })?;
    module.register_blocking_method("state_getStorageHash", |params, context, _| {
        read(&params, &context, |state, key| state.storage_hash(key))
    })?;
    module.register_blocking_method("state_getStorageSize", |params, context, _| {
        read(&params, &context, |state, key| Ok(state.storage(key)?.map(|value| value.len())))
    })?;
    module.register_blocking_method("state_getKeysPaged", |params, context, _| {
        keys_paged(&params, &context)
    })?;
    module.register_blocking_method("state_queryStorageAt", |params, context, _| {
        let mut params = params.sequence();
        let keys: Vec<Bytes> = params.next()?;
        let at: Option<H256> = params.optional_next()?;
        let block = context.at(at);
        let values = values(&context, block, &bounded(keys)?)?;
        let answer: RpcResult<Value> = Ok(json!([{ "block": block, "changes": values }]));
        answer
    })?;
    module.register_subscription(
        "state_subscribeRuntimeVersion",
        "state_runtimeVersion",
        "state_unsubscribeRuntimeVersion",
        |_, pending, _, _| runtime_version(pending),
    )?;
    module.register_subscription(
        "state_subscribeStorage",
        "state_storage",
        "state_unsubscribeStorage",
        |params, pending, context, _| async move { storage(&params, pending, context).await },
    )?;
    for (alias, name) in [
        ("chain_getRuntimeVersion", "state_getRuntimeVersion"),
        ("state_callAt", "state_call"),
        ("state_getStorageAt", "state_getStorage"),
        ("state_getStorageHashAt", "state_getStorageHash"),
        ("state_getStorageSizeAt", "state_getStorageSize"),
        ("state_getKeysPagedAt", "state_getKeysPaged"),
        ("chain_subscribeRuntimeVersion", "state_subscribeRuntimeVersion"),
        ("chain_unsubscribeRuntimeVersion", "state_unsubscribeRuntimeVersion"),
    ] {
        module.register_alias(alias, name)?;
    }
    Ok(())
}

fn call(params: &Params<'_>, context: &Context) -> RpcResult<Bytes> {
    let mut params = params.sequence();
    let name: String = params.next()?;
    let arguments: Bytes = params.next()?;
    let at: Option<H256> = params.optional_next()?;
    let state = context.state(context.at(at))?;
    exec::call(&state, &name, &arguments).map(Bytes).map_err(internal)
}

/// Reads one key: `[key, at?]`.
fn read<T>(
    params: &Params<'_>,
    context: &Context,
    look: impl FnOnce(&crate::trie::State<'_>, &[u8]) -> Result<Option<T>, String>,
) -> RpcResult<Option<T>> {
    let mut params = params.sequence();
    let key: Bytes = params.next()?;
    let at: Option<H256> = params.optional_next()?;
    let state = context.state(context.at(at))?;
    look(&state, &key).map_err(internal)
}

/// `[prefix, count, start?, at?]`: keys after `start`, in order.
fn keys_paged(params: &Params<'_>, context: &Context) -> RpcResult<Vec<Bytes>> {
    let mut params = params.sequence();
    let prefix: Option<Bytes> = params.next()?;
    let count: u32 = params.next()?;
    let start: Option<Bytes> = params.optional_next()?;
    let at: Option<H256> = params.optional_next()?;
    if count > KEYS_PAGE_MAX {
        return Err(invalid(format!("count is {count}; ask for at most {KEYS_PAGE_MAX} keys")));
    }
    let state = context.state(context.at(at))?;
    let mut range = IterArgs::default();
    range.prefix = prefix.as_ref().map(|prefix| prefix.0.as_slice());
    range.start_at = start.as_ref().map(|start| start.0.as_slice());
    range.start_at_exclusive = true;
    let keys = state.keys(range).map_err(internal)?;
    keys.take(count as usize).map(|key| key.map(Bytes).map_err(internal)).collect()
}

fn bounded(keys: Vec<Bytes>) -> RpcResult<Vec<Bytes>> {
    if keys.is_empty() || keys.len() > KEYS_QUERY_MAX {
        return Err(invalid(format!("name 1 to {KEYS_QUERY_MAX} keys, not {}", keys.len())));
    }
    if keys.iter().any(|key| key.len() > KEY_BYTES_MAX) {
        return Err(invalid(format!("a key has at most {KEY_BYTES_MAX} bytes")));
    }
    Ok(keys)
}

type Pair = (Bytes, Option<Bytes>);

fn values(context: &Context, block: H256, keys: &[Bytes]) -> RpcResult<Vec<Pair>> {
    let state = context.state(block)?;
    keys.iter()
        .map(|key| {
            let value = state.storage(key).map_err(internal)?;
            Ok((key.clone(), value.map(Bytes)))
        })
        .collect()
}

/// The version never changes under a running node of this chain: one item, then silence.
async fn runtime_version(pending: PendingSubscriptionSink) {
    let Ok(sink) = pending.accept().await else { return };
    if send(&sink, &VERSION).await {
        sink.closed().await;
    }
}

/// All values first, then those that differ from what was told, block by block.
async fn storage(params: &Params<'_>, pending: PendingSubscriptionSink, context: Arc<Context>) {
    let keys = params.sequence().optional_next::<Vec<Bytes>>();
    let keys = match keys.and_then(|keys| bounded(keys.unwrap_or_default())) {
        Ok(keys) => Arc::new(keys),
        Err(error) => return pending.reject(error).await,
    };
    let mut news = context.chain.news.subscribe();
    let Ok(sink) = pending.accept().await else { return };
    let mut told: Vec<Pair> = Vec::new();
    let mut next = Some(context.chain.best().hash);
    loop {
        if let Some(block) = next {
            let reader = (context.clone(), keys.clone());
            let read = tokio::task::spawn_blocking(move || values(&reader.0, block, &reader.1));
            let Ok(Ok(now)) = read.await else { return };
            let changes: Vec<_> = now.iter().filter(|pair| !told.contains(pair)).collect();
            let silent = changes.is_empty() || context.gate.current().silent_heads;
            if !silent && !send(&sink, &json!({ "block": block, "changes": changes })).await {
                return;
            }
            if !silent {
                told = now;
            }
        }
        next = tokio::select! {
            () = sink.closed() => return,
            heard = news.recv() => match heard {
                Ok(News::Best(head)) => Some(head.hash),
                Ok(_) => None,
                Err(RecvError::Lagged(_)) => Some(context.chain.best().hash),
                Err(RecvError::Closed) => return,
            },
        };
    }
}
