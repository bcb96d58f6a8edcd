// SPDX-License-Identifier: MIT OR Apache-2.0
//! `chain_*`: blocks, headers, and the streams of heads.

use std::sync::Arc;

use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::Params;
use jsonrpsee::{PendingSubscriptionSink, RpcModule};
use serde_json::{Value, json};
use sp_core::{Bytes, H256};
use tokio::sync::broadcast::error::RecvError;

use crate::chain::News;
use crate::rpc::{Context, RpcResult, internal, invalid, send};
use crate::runtime::BlockNumber;
use crate::tree::Head;

/// Numbers one `chain_getBlockHash` may ask for.
const NUMBERS_MAX: usize = 1000;

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module
        .register_method("chain_getBlockHash", |params, context, _| block_hash(&params, context))?;
    module.register_alias("chain_getHead", "chain_getBlockHash")?;
    module.register_method("chain_getFinalizedHead", |_, context, _| {
        let hash: RpcResult<H256> = Ok(context.chain.finalised().hash);
        hash
    })?;
    module.register_alias("chain_getFinalisedHead", "chain_getFinalizedHead")?;
    module.register_method("chain_getHeader", |params, context, _| {
        let hash: Option<H256> = params.sequence().optional_next()?;
        let header: RpcResult<_> = Ok(context.chain.header(&context.at(hash)));
        header
    })?;
    module.register_blocking_method("chain_getBlock", |params, context, _| {
        block(&params, &context)
    })?;
    register_heads(module)
}

fn register_heads(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_subscription(
        "chain_subscribeNewHeads",
        "chain_newHead",
        "chain_unsubscribeNewHeads",
        |_, pending, context, _| heads(pending, context, Stream::Best),
    )?;
    module.register_subscription(
        "chain_subscribeFinalizedHeads",
        "chain_finalizedHead",
        "chain_unsubscribeFinalizedHeads",
        |_, pending, context, _| heads(pending, context, Stream::Finalised),
    )?;
    module.register_subscription(
        "chain_subscribeAllHeads",
        "chain_allHead",
        "chain_unsubscribeAllHeads",
        |_, pending, context, _| heads(pending, context, Stream::All),
    )?;
    for (alias, name) in [
        ("chain_subscribeNewHead", "chain_subscribeNewHeads"),
        ("subscribe_newHead", "chain_subscribeNewHeads"),
        ("chain_unsubscribeNewHead", "chain_unsubscribeNewHeads"),
        ("unsubscribe_newHead", "chain_unsubscribeNewHeads"),
        ("chain_subscribeFinalisedHeads", "chain_subscribeFinalizedHeads"),
        ("chain_unsubscribeFinalisedHeads", "chain_unsubscribeFinalizedHeads"),
    ] {
        module.register_alias(alias, name)?;
    }
    Ok(())
}

/// Without a number the best block, with one the canonical block, with a list a list.
fn block_hash(params: &Params<'_>, context: &Context) -> RpcResult<Value> {
    let asked: Option<Value> = params.sequence().optional_next()?;
    match asked {
        None | Some(Value::Null) => Ok(json!(context.chain.best().hash)),
        Some(Value::Array(numbers)) if numbers.len() <= NUMBERS_MAX => {
            numbers.iter().map(|number| hash_of(number, context)).collect()
        }
        Some(Value::Array(_)) => {
            Err(invalid(format!("ask for at most {NUMBERS_MAX} numbers at a time")))
        }
        Some(number) => hash_of(&number, context),
    }
}

fn hash_of(number: &Value, context: &Context) -> RpcResult<Value> {
    let parsed = match number {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => {
            text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok())
        }
        _ => None,
    };
    let parsed = parsed.ok_or_else(|| invalid(format!("{number} is not a block number")))?;
    // A number beyond the format is a block that does not exist.
    let hash = BlockNumber::try_from(parsed)
        .ok()
        .and_then(|number| context.chain.tree.read().canonical_hash(number));
    Ok(json!(hash))
}

fn block(params: &Params<'_>, context: &Context) -> RpcResult<Value> {
    let hash: Option<H256> = params.sequence().optional_next()?;
    let hash = context.at(hash);
    let header = context.chain.header(&hash);
    let extrinsics = context.chain.extrinsics(&hash).map_err(internal)?;
    let (Some(header), Some(extrinsics)) = (header, extrinsics) else { return Ok(Value::Null) };
    let extrinsics: Vec<Bytes> = extrinsics.into_iter().map(Bytes).collect();
    Ok(json!({
        "block": { "header": header, "extrinsics": extrinsics },
        "justifications": null,
    }))
}

/// Which heads a subscription shows.
#[derive(Clone, Copy)]
enum Stream {
    Best,
    Finalised,
    All,
}

impl Stream {
    /// What a new subscriber hears first, and one that missed something next.
    fn current(self, context: &Context) -> Head {
        match self {
            Self::Best | Self::All => context.chain.best(),
            Self::Finalised => context.chain.finalised(),
        }
    }

    fn pick(self, news: News) -> Option<Head> {
        match (self, news) {
            (Self::Best, News::Best(head))
            | (Self::Finalised, News::Finalised(head))
            | (Self::All, News::Imported(head)) => Some(head),
            _ => None,
        }
    }
}

async fn heads(pending: PendingSubscriptionSink, context: Arc<Context>, stream: Stream) {
    let mut news = context.chain.news.subscribe();
    let Ok(sink) = pending.accept().await else { return };
    let mut next = Some(stream.current(&context));
    loop {
        if let Some(head) = next.filter(|_| !context.gate.current().silent_heads) {
            let header = context.chain.header(&head.hash);
            if !send(&sink, &header).await {
                return;
            }
        }
        next = tokio::select! {
            () = sink.closed() => return,
            heard = news.recv() => match heard {
                Ok(heard) => stream.pick(heard),
                Err(RecvError::Lagged(_)) => Some(stream.current(&context)),
                Err(RecvError::Closed) => return,
            },
        };
    }
}
