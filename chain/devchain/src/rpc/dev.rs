// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dev_*`: the controls of the chain, for tests that talk to it from another process.
//!
//! They are offered only where an option says so, and no fault stands in their way.

use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::author::{ControlError, Fill, Reorg, Retracted};
use crate::rpc::faults::Faults;
use crate::rpc::{Context, RpcResult, internal, invalid};
use crate::tree::Head;

/// `dev_reorg`: a depth, then what else is not as usual.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ReorgHow {
    retracted: Retracted,
    fill: Fill,
}

/// `dev_setFinality`: what stays out stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finality {
    lag: Option<u32>,
    stalled: Option<bool>,
}

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_async_method("dev_seal", |_, context, _| async move {
        answer(context.author.seal().await)
    })?;
    module.register_async_method("dev_reorg", |params, context, _| async move {
        let mut params = params.sequence();
        let depth: u32 = params.next()?;
        let how: ReorgHow = params.optional_next()?.unwrap_or_default();
        let reorg = Reorg { depth, retracted: how.retracted, fill: how.fill };
        answer(context.author.reorg(reorg).await)
    })?;
    module.register_async_method("dev_setFinality", |params, context, _| async move {
        let finality: Finality = params.one()?;
        context.author.finality(finality.lag, finality.stalled).await.map_err(refusal)?;
        answer(Ok(context.chain.finalised()))
    })?;
    // `[faults, listener?]`: of this listener, or of the one with that index.
    module.register_method("dev_setFaults", |params, context, _| {
        let mut params = params.sequence();
        let faults: Faults = params.next()?;
        let listener: Option<usize> = params.optional_next()?;
        let gate = match listener {
            None => &context.gate,
            Some(index) => context.gates.get(index).ok_or_else(|| {
                invalid(format!("there are {} listeners, counted from 0", context.gates.len()))
            })?,
        };
        gate.set(faults);
        let done: RpcResult<Value> = Ok(Value::Null);
        done
    })?;
    Ok(())
}

fn answer(head: Result<Head, ControlError>) -> RpcResult<Value> {
    head.map(|head| json!({ "number": head.number, "hash": head.hash })).map_err(refusal)
}

fn refusal(error: ControlError) -> jsonrpsee::types::ErrorObjectOwned {
    match error {
        ControlError::Depth { .. } => invalid(error.to_string()),
        other => internal(other),
    }
}
