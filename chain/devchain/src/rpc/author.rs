// SPDX-License-Identifier: MIT OR Apache-2.0
//! `author_*`: transactions in, and what becomes of them out.

use std::sync::Arc;

use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{PendingSubscriptionSink, RpcModule};
use sp_core::Bytes;
use sp_runtime::transaction_validity::TransactionValidityError;
use tokio::sync::mpsc;

use crate::author::SubmitError;
use crate::pool::PoolError;
use crate::rpc::{Context, RpcResult, internal, send};
use crate::watch::STATUSES_MAX;

// The numbers are Substrate's; clients tell a stale nonce from a full pool by them.
const BAD_FORMAT_CODE: i32 = 1001;
const INVALID_TRANSACTION_CODE: i32 = 1010;
const UNKNOWN_VALIDITY_CODE: i32 = 1011;
const ALREADY_IMPORTED_CODE: i32 = 1013;
const PRIORITY_TOO_LOW_CODE: i32 = 1014;
const IMMEDIATELY_DROPPED_CODE: i32 = 1016;

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_async_method("author_submitExtrinsic", |params, context, _| async move {
        let extrinsic: Bytes = params.one()?;
        context.author.submit(extrinsic.0, None).await.map_err(refusal)
    })?;
    module.register_async_method("author_pendingExtrinsics", |_, context, _| async move {
        let pending = context.author.pending().await;
        let pending: RpcResult<Vec<Bytes>> = pending
            .map(|all| all.into_iter().map(Bytes).collect())
            .ok_or_else(|| internal("the development chain has stopped"));
        pending
    })?;
    module.register_subscription(
        "author_submitAndWatchExtrinsic",
        "author_extrinsicUpdate",
        "author_unwatchExtrinsic",
        |params, pending, context, _| async move { watch(&params, pending, context).await },
    )?;
    Ok(())
}

async fn watch(params: &Params<'_>, pending: PendingSubscriptionSink, context: Arc<Context>) {
    let extrinsic: Bytes = match params.one() {
        Ok(extrinsic) => extrinsic,
        Err(error) => return pending.reject(error).await,
    };
    let (sender, mut statuses) = mpsc::channel(STATUSES_MAX);
    if let Err(error) = context.author.submit(extrinsic.0, Some(sender)).await {
        return pending.reject(refusal(error)).await;
    }
    let Ok(sink) = pending.accept().await else { return };
    loop {
        let status = tokio::select! {
            () = sink.closed() => return,
            status = statuses.recv() => status,
        };
        match status {
            Some(status) if send(&sink, &status).await => {}
            _ => return,
        }
    }
}

fn refusal(error: SubmitError) -> ErrorObjectOwned {
    let (code, title) = match &error {
        SubmitError::Malformed => (BAD_FORMAT_CODE, "Extrinsic has invalid format"),
        SubmitError::Invalid(TransactionValidityError::Invalid(_)) => {
            (INVALID_TRANSACTION_CODE, "Invalid Transaction")
        }
        SubmitError::Invalid(TransactionValidityError::Unknown(_)) => {
            (UNKNOWN_VALIDITY_CODE, "Unknown Transaction Validity")
        }
        SubmitError::Pool(PoolError::Known) => (ALREADY_IMPORTED_CODE, "Already Imported"),
        SubmitError::Pool(PoolError::PriorityTooLow) => {
            (PRIORITY_TOO_LOW_CODE, "Priority is too low")
        }
        SubmitError::Pool(PoolError::Full) => (IMMEDIATELY_DROPPED_CODE, "Immediately Dropped"),
        SubmitError::Exec(_) | SubmitError::Stopped => return internal(error),
    };
    ErrorObjectOwned::owned(code, title, Some(error.to_string()))
}
