// SPDX-License-Identifier: MIT OR Apache-2.0
//! A listener that misbehaves on demand, so that a client's patience can be tested.
//!
//! - `Faults` say what goes wrong; a `Gate` holds them for one listener and takes effect at once.
//! - `Guard` stands before the methods of one connection: it counts, delays, refuses and cuts, and
//!   it bounds how many requests a listener works on at a time.
//! - The `dev_*` controls pass untouched: what was broken must be mendable over the same
//!   connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jsonrpsee::MethodResponse;
use jsonrpsee::core::middleware::{Batch, BatchEntry, Notification, Request};
use jsonrpsee::core::server::BatchResponseBuilder;
use jsonrpsee::server::middleware::rpc::RpcServiceT;
use jsonrpsee::types::ErrorObjectOwned;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The error number of an injected fault, in the range that JSON-RPC leaves to servers.
const INJECTED_CODE: i32 = -32_099;

/// What a listener does wrong. The default does everything right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Faults {
    /// Connections are closed: those that are open, and each new one before it says a word.
    pub refuse_connections: bool,
    /// A connection is cut when it sends one request more than this.
    pub drop_after_requests: Option<u32>,
    /// Milliseconds that every answer is late.
    pub delay_millis: u64,
    /// Methods, by the exact name in the request, that answer with an error.
    pub failing_methods: BTreeSet<String>,
    /// Subscriptions to heads and storage stay open and say nothing.
    pub silent_heads: bool,
}

/// The faults of one listener.
pub(crate) struct Gate {
    faults: Mutex<Faults>,
    stopping: CancellationToken,
    /// Cancelled to cut every connection there is, then replaced.
    connections: Mutex<CancellationToken>,
    requests: Arc<Semaphore>,
}

impl Gate {
    /// A listener that works on at most `requests_max` requests at a time, until `stopping`.
    pub(crate) fn new(requests_max: usize, stopping: CancellationToken) -> Self {
        Self {
            faults: Mutex::default(),
            connections: Mutex::new(stopping.child_token()),
            stopping,
            requests: Arc::new(Semaphore::new(requests_max)),
        }
    }

    /// The faults of this moment.
    pub(crate) fn current(&self) -> Faults {
        self.faults.lock().clone()
    }

    /// Other faults from now on.
    pub(crate) fn set(&self, faults: Faults) {
        let refuse = faults.refuse_connections;
        *self.faults.lock() = faults;
        if refuse {
            let fresh = self.stopping.child_token();
            std::mem::replace(&mut *self.connections.lock(), fresh).cancel();
        }
    }

    /// What cuts a new connection; `None` if there shall be none.
    pub(crate) fn connect(&self) -> Option<CancellationToken> {
        // The token first: a refusal between the two steps cancels it.
        let cut = self.connections.lock().child_token();
        (!self.faults.lock().refuse_connections).then_some(cut)
    }
}

/// Stands before the methods of one connection.
#[derive(Clone)]
pub(crate) struct Guard<S> {
    service: S,
    gate: Arc<Gate>,
    cut: CancellationToken,
    count: Arc<AtomicU32>,
}

impl<S> Guard<S> {
    /// A guard before `service` on a connection that `cut` ends.
    pub(crate) fn new(service: S, gate: Arc<Gate>, cut: CancellationToken) -> Self {
        Self { service, gate, cut, count: Arc::default() }
    }

    /// Lets a request pass, late perhaps, or says why not.
    async fn admit(&self, method: &str) -> Result<Option<OwnedSemaphorePermit>, ErrorObjectOwned> {
        if method.starts_with("dev_") {
            return Ok(None);
        }
        let faults = self.gate.current();
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        if faults.drop_after_requests.is_some_and(|most| count >= most) {
            self.cut.cancel();
            return Err(injected("the connection is cut"));
        }
        if faults.delay_millis > 0 {
            tokio::time::sleep(Duration::from_millis(faults.delay_millis)).await;
        }
        if faults.failing_methods.contains(method) {
            return Err(injected("this method fails"));
        }
        let permit = self.gate.requests.clone().acquire_owned().await;
        Ok(Some(permit.expect("nobody closes the semaphore")))
    }
}

fn injected(what: &str) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(INJECTED_CODE, format!("injected fault: {what}"), None::<()>)
}

impl<S> RpcServiceT for Guard<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            NotificationResponse = MethodResponse,
            BatchResponse = MethodResponse,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let guard = self.clone();
        async move {
            match guard.admit(request.method_name()).await {
                Ok(_permit) => guard.service.call(request).await,
                Err(error) => MethodResponse::error(request.id, error),
            }
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let guard = self.clone();
        async move {
            let mut notified = false;
            let mut answers = BatchResponseBuilder::new_with_limit(RESPONSE_BYTES_MAX);
            for entry in batch {
                let answer = match entry {
                    Ok(BatchEntry::Call(request)) => guard.call(request).await,
                    Ok(BatchEntry::Notification(notification)) => {
                        guard.notification(notification).await;
                        notified = true;
                        continue;
                    }
                    Err(malformed) => {
                        let (error, id) = malformed.into_parts();
                        MethodResponse::error(id, error)
                    }
                };
                if let Err(too_long) = answers.append(answer) {
                    return too_long;
                }
            }
            if answers.is_empty() && notified {
                return MethodResponse::notification();
            }
            MethodResponse::from_batch(answers.finish())
        }
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = MethodResponse> + Send + 'a {
        self.service.notification(notification)
    }
}

/// An answer, alone or as a batch, is at most this long. Metadata is the longest one.
pub(crate) const RESPONSE_BYTES_MAX: usize = 16 << 20;
