// SPDX-License-Identifier: MIT OR Apache-2.0
//! The admin socket: what the operator of a running node may ask it, and nobody else.
//!
//! `admin.sock` in the data directory, mode 0600, HTTP/1.1 with JSON bodies:
//!
//! - `GET /v1/cleanup` is what cleanup would end now and why; nothing is changed.
//! - `GET /v1/disks` is each disk of the store by itself, and why it is offline if it is.
//!   `GET /v1/disks/ID/drain` is how far one is from being empty; `POST` to `start` or `cancel`
//!   below it changes what is done about it and answers the same.
//! - `GET /v1/scrub` is how far the scrub is; `POST /v1/scrub/start`, `pause` and `resume` change
//!   what it does and answer the same.
//! - `GET /v1/relay/limits` is every limit of the relay server as it is now; `POST` with a list of
//!   keys and values changes some until the next start and answers the same.
//!
//! The socket belongs to whoever holds the directory's lock: it goes with an orderly stop, and one
//! that a crash left behind is replaced.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{self, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use supernode_audit::{AuditError, Auditor, Planned, Verdict};
use supernode_protocol::deal::DealId;
use supernode_protocol::ids::{Cid, LeaseId};
use supernode_relay::{Relay, RelayConfig};
use supernode_store::{DrainStatus, Store, StoreError};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::config::{NodeConfig, Overlay, layers};

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";
/// The page of the dry run.
pub const CLEANUP: &str = "/v1/cleanup";

/// The page of the disks.
pub const DISKS: &str = "/v1/disks";

/// The page of the scrub.
pub const SCRUB: &str = "/v1/scrub";

/// The page of the relay server's limits.
pub const RELAY_LIMITS: &str = "/v1/relay/limits";

/// Leases that one plan lists at most, the first to go: each is asked about at every endpoint.
const PLAN_LEASES_MAX: usize = 256;

/// One lease whose deal may be over, as the admin socket tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLease {
    /// The lease.
    pub lease: LeaseId,
    /// The deal; nothing for a lease of another chain.
    pub deal: Option<DealId>,
    /// What it keeps.
    pub objects: Vec<Cid>,
    /// Slots under it.
    pub slots: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The finalised block its deal ends at, as stored.
    pub ends_at: u64,
    /// Whether it goes now.
    pub goes: bool,
    /// Why it goes, or stays.
    pub reason: String,
}

impl From<Planned> for PlannedLease {
    fn from(planned: Planned) -> Self {
        let Planned { held, deal, moves_to, verdict } = planned;
        let (goes, reason) = match verdict {
            Verdict::End(end) => (true, end.to_string()),
            Verdict::Keep(keep) => (false, keep.to_string()),
        };
        let ends_at = moves_to.unwrap_or(held.height);
        let (lease, objects) = (held.lease, held.objects);
        Self { lease, deal, objects, slots: held.slots, bytes: held.bytes, ends_at, goes, reason }
    }
}

/// What the socket answers for.
pub struct Administered {
    /// The node's settings at its start.
    pub config: Arc<NodeConfig>,
    /// Its store.
    pub store: Store,
    /// Its relay server.
    pub relay: Relay,
    /// What plans, on a node with a chain.
    pub auditor: Option<Auditor>,
}

/// Makes the socket.
///
/// # Errors
/// Names the path and the remedy.
pub fn bind(data_dir: &path::Path) -> Result<(UnixListener, PathBuf), String> {
    let path = data_dir.join(SOCKET);
    let failed = |error: io::Error| {
        format!("cannot make the admin socket {}: {error}; use a shorter data_dir", path.display())
    };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok((listener, path))
}

/// Serves until `cancel`, and removes the socket. Without a chain there is nothing to plan.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    (listener, path): (UnixListener, PathBuf),
    administered: Administered,
    cancel: CancellationToken,
) -> Result<(), String> {
    let Administered { config, store, relay, auditor } = administered;
    let stored = Router::new()
        .route(DISKS, get(disks))
        .route(&format!("{DISKS}/{{disk}}/drain"), get(drain_status))
        .route(&format!("{DISKS}/{{disk}}/drain/{{command}}"), post(drain_command))
        .route(SCRUB, get(scrub_status))
        .route(&format!("{SCRUB}/{{command}}"), post(scrub_command))
        .with_state(store);
    let relayed = Router::new()
        .route(RELAY_LIMITS, get(relay_limits).post(set_relay_limits))
        .with_state((config, relay));
    let planned = Router::new().route(CLEANUP, get(cleanup)).with_state(Arc::new(auditor));
    let router = planned.merge(stored).merge(relayed);
    let served =
        axum::serve(listener, router).with_graceful_shutdown(cancel.cancelled_owned()).await;
    // A copy of a stopped node's directory is made of files alone.
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!(%error, path = %path.display(), "the admin socket stays");
    }
    served.map_err(|error| format!("the admin socket ended: {error}"))
}

async fn cleanup(State(auditor): State<Arc<Option<Auditor>>>) -> Response {
    let Some(auditor) = &*auditor else {
        return told(StatusCode::NOT_FOUND, "this node serves no chain: name chain.endpoints");
    };
    match auditor.plan(PLAN_LEASES_MAX).await {
        Ok(planned) => {
            let leases: Vec<PlannedLease> = planned.into_iter().map(PlannedLease::from).collect();
            json(&leases)
        }
        Err(AuditError::Busy) => {
            told(StatusCode::SERVICE_UNAVAILABLE, "another plan is being made; ask again")
        }
        Err(error) => told(StatusCode::BAD_GATEWAY, &error.to_string()),
    }
}

async fn disks(State(store): State<Store>) -> Response {
    json(&store.disks())
}

async fn drain_status(State(store): State<Store>, Path(disk): Path<String>) -> Response {
    drained(store.drain_status(&disk))
}

async fn drain_command(
    State(store): State<Store>,
    Path((disk, command)): Path<(String, String)>,
) -> Response {
    match command.as_str() {
        "start" => drained(store.drain(&disk).await),
        "cancel" => drained(store.cancel_drain(&disk).await),
        _ => told(StatusCode::NOT_FOUND, "a drain is told to start or cancel"),
    }
}

fn drained(status: Result<DrainStatus, StoreError>) -> Response {
    match status {
        Ok(status) => json(&status),
        Err(error) => told(StatusCode::CONFLICT, &error.to_string()),
    }
}

async fn scrub_status(State(store): State<Store>) -> Response {
    json(&store.scrub_status())
}

async fn scrub_command(State(store): State<Store>, Path(command): Path<String>) -> Response {
    match command.parse() {
        Ok(command) => json(&store.scrub(command)),
        Err(error) => told(StatusCode::NOT_FOUND, &format!("{error}")),
    }
}

type Relayed = (Arc<NodeConfig>, Relay);

async fn relay_limits(State((_, relay)): State<Relayed>) -> Response {
    json(&shown(&relay.limits()))
}

async fn set_relay_limits(State((config, relay)): State<Relayed>, body: String) -> Response {
    let Ok(changes) = serde_json::from_str::<Vec<(String, String)>>(&body) else {
        return told(StatusCode::BAD_REQUEST, "limits are given as a list of keys and values");
    };
    match changed(&config, relay.limits(), &changes) {
        Ok(limits) => match relay.set_limits(&limits) {
            Ok(()) => json(&shown(&relay.limits())),
            Err(error) => told(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        Err(problem) => told(StatusCode::BAD_REQUEST, &problem),
    }
}

/// `limits` with some of them changed, by the same rules as a node's configuration.
fn changed(
    config: &NodeConfig,
    limits: RelayConfig,
    changes: &[(String, String)],
) -> Result<RelayConfig, String> {
    let mut overlays = Vec::new();
    for (key, value) in changes {
        let section = key.strip_prefix("relay.").and_then(|key| key.split('.').next());
        match section {
            Some(section) if !RelayConfig::FIXED.contains(&section) => {
                overlays.push(Overlay::flag(key, value, format_args!("--set {key}")));
            }
            _ => return Err(format!("{key} cannot be changed while the node runs")),
        }
    }
    let running = NodeConfig { relay: limits, ..config.clone() };
    let changed = layers::change(running, &overlays).map_err(|error| error.to_string())?;
    Ok(changed.relay())
}

/// What can be changed, by its keys.
fn shown(limits: &RelayConfig) -> serde_json::Map<String, serde_json::Value> {
    let value = serde_json::to_value(limits).expect("plain values have a JSON form");
    let serde_json::Value::Object(mut table) = value else { return serde_json::Map::new() };
    table.retain(|key, _| !RelayConfig::FIXED.contains(&key.as_str()));
    table
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_string(value).expect("plain values have a JSON form");
    (StatusCode::OK, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn told(status: StatusCode, message: &str) -> Response {
    (status, message.to_owned()).into_response()
}
