// SPDX-License-Identifier: MIT OR Apache-2.0
//! `system_*`: what this node is.

use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use serde_json::json;
use sp_runtime::AccountId32;

use crate::rpc::{Context, RpcResult, internal};
use crate::runtime::{SS58_PREFIX, TOKEN_DECIMALS, TOKEN_SYMBOL};

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_method("system_name", |_, _, _| "supernode-devchain")?;
    module.register_method("system_version", |_, _, _| env!("CARGO_PKG_VERSION"))?;
    module.register_method("system_chain", |_, context, _| context.chain.genesis.name.clone())?;
    module.register_method("system_chainType", |_, _, _| "Development")?;
    module.register_method("system_properties", |_, _, _| {
        json!({
            "ss58Format": SS58_PREFIX,
            "tokenDecimals": TOKEN_DECIMALS,
            "tokenSymbol": TOKEN_SYMBOL,
        })
    })?;
    module.register_method(
        "system_health",
        |_, _, _| json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false }),
    )?;
    // A chain of one node has no network identity; the hash of block 0 at least tells chains apart.
    module.register_method("system_localPeerId", |_, context, _| {
        format!("{:?}", context.chain.genesis_hash())
    })?;
    module.register_method("system_localListenAddresses", |_, _, _| json!([]))?;
    module.register_method("system_nodeRoles", |_, _, _| json!(["Authority"]))?;
    module.register_method("system_peers", |_, _, _| json!([]))?;
    module.register_method("system_syncState", |_, context, _| {
        let best = context.chain.best().number;
        json!({ "startingBlock": 0, "currentBlock": best, "highestBlock": best })
    })?;
    module.register_async_method("system_accountNextIndex", |params, context, _| async move {
        let account: AccountId32 = params.one()?;
        let index = context.author.next_index(account).await;
        let index: RpcResult<u32> =
            index.ok_or_else(|| internal("the development chain has stopped"))?.map_err(internal);
        index
    })?;
    module.register_alias("account_nextIndex", "system_accountNextIndex")?;
    Ok(())
}
