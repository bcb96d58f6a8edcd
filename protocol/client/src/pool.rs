// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection per node, shared by all requests.
//!
//! - A node is dialled by one task, however many requests wait for it; the task outlives waiters
//!   that lose interest.
//! - A connection that dies is forgotten the moment the transport notices, and looked at again
//!   before every use.
//! - The number of connections is bounded: the least recently used one without a request makes
//!   room for a new one.
//! - The lock guards the table only; nothing is awaited under it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quinn::{ConnectionError, Endpoint};
use supernode_protocol::ids::NodeId;
use supernode_tls::codes::CloseCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::call::{Pace, timed_out};
use crate::config::ClientConfig;
use crate::dial;
use crate::error::ClientError;
use crate::health::Nodes;
use crate::link::Link;
use crate::peer::Peer;
use crate::statistics::{Counters, count};

type DialOutcome = Result<Arc<Link>, ClientError>;
type Waiting = watch::Receiver<Option<DialOutcome>>;

/// A link, and whether it was dialled for this very request.
pub(crate) struct Lease {
    pub(crate) link: Arc<Link>,
    pub(crate) is_fresh: bool,
}

enum Entry {
    Dialling { addresses: Vec<SocketAddr>, outcome: Waiting },
    Ready(Arc<Link>),
}

pub(crate) struct Pool {
    endpoint: Endpoint,
    pub(crate) config: ClientConfig,
    pub(crate) nodes: Nodes,
    pub(crate) counters: Arc<Counters>,
    entries: Mutex<HashMap<NodeId, Entry>>,
    places: Arc<Semaphore>,
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint, config: ClientConfig) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(config.connections_max));
        Arc::new(Self {
            endpoint,
            nodes: Nodes::new(config.nodes_max),
            counters: Arc::default(),
            config,
            entries: Mutex::new(HashMap::new()),
            places,
        })
    }

    /// The connection to `peer`, dialled if there is none.
    pub(crate) async fn link(self: &Arc<Self>, peer: &Peer) -> Result<Lease, ClientError> {
        let mut is_last_try = false;
        loop {
            let (mut outcome, covers) = match self.look_up(peer) {
                Ok(link) => return Ok(Lease { link, is_fresh: false }),
                Err(waiting) => waiting,
            };
            let outcome = match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().expect("waited for"),
                Err(_) => Err(ClientError::Unreachable {
                    node: peer.node,
                    reason: "the dial was abandoned".to_owned(),
                }),
            };
            match outcome {
                Ok(link) => return Ok(Lease { link, is_fresh: true }),
                // The dial that failed was somebody else's and did not try our addresses.
                Err(_) if !covers && !is_last_try => is_last_try = true,
                Err(error) => return Err(error),
            }
        }
    }

    /// An open link, or a dial to wait for and whether it tries all addresses of `peer`.
    fn look_up(self: &Arc<Self>, peer: &Peer) -> Result<Arc<Link>, (Waiting, bool)> {
        let mut entries = self.entries.lock();
        match entries.get(&peer.node) {
            Some(Entry::Ready(link)) if link.is_open() => {
                *link.last_used.lock() = Instant::now();
                return Ok(Arc::clone(link));
            }
            Some(Entry::Dialling { addresses, outcome }) => {
                let covers = peer.addresses.iter().all(|address| addresses.contains(address));
                return Err((outcome.clone(), covers));
            }
            Some(Entry::Ready(_)) | None => {}
        }
        let (sender, outcome) = watch::channel(None);
        let entry = Entry::Dialling { addresses: peer.addresses.clone(), outcome: outcome.clone() };
        let replaced = entries.insert(peer.node, entry);
        drop(entries);
        drop(replaced);
        tokio::spawn(Arc::clone(self).dial(peer.clone(), sender));
        Err((outcome, true))
    }

    async fn dial(self: Arc<Self>, peer: Peer, sender: watch::Sender<Option<DialOutcome>>) {
        let outcome = self.establish(&peer).await;
        match &outcome {
            Ok(link) => {
                count(&self.counters.connections_opened);
                self.nodes.answered(peer.node, None);
                self.entries.lock().insert(peer.node, Entry::Ready(Arc::clone(link)));
                tokio::spawn(forget_when_closed(Arc::downgrade(&self), link));
            }
            Err(error) => {
                tracing::debug!(node = %peer.node, %error, "dial failed");
                self.entries.lock().remove(&peer.node);
            }
        }
        // Nobody may be waiting any more.
        let _ = sender.send(Some(outcome));
    }

    async fn establish(&self, peer: &Peer) -> DialOutcome {
        let permit = self.place(peer.node).await?;
        let connection = dial::dial(&self.endpoint, peer, self.config.connect_timeout).await?;
        let welcome = match dial::hello(&connection, peer.node, &self.config).await {
            Ok(welcome) => welcome,
            Err(error) => {
                connection.close(CloseCode::Done.to_varint(), b"");
                return Err(error);
            }
        };
        let streams = welcome.streams_max.min(self.config.streams_per_connection_max);
        let streams = usize::try_from(streams).unwrap_or(Semaphore::MAX_PERMITS);
        Ok(Arc::new(Link {
            node: peer.node,
            connection,
            welcome,
            streams: Arc::new(Semaphore::new(streams)),
            pace: Pace {
                contact: self.config.connect_timeout,
                progress: self.config.request_timeout,
                bytes_per_sec_min: self.config.transfer_bytes_per_sec_min,
            },
            counters: Arc::clone(&self.counters),
            last_used: Mutex::new(Instant::now()),
            _permit: permit,
        }))
    }

    /// A place for one more connection, made by closing an idle one if need be.
    async fn place(&self, node: NodeId) -> Result<OwnedSemaphorePermit, ClientError> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(permit);
        }
        drop(self.take_idle());
        let limit = self.config.connect_timeout;
        let permit = timeout(limit, Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_| timed_out(node, "get a place among connections_max", limit))?;
        Ok(permit.expect("the semaphore is never closed"))
    }

    fn take_idle(&self) -> Option<Entry> {
        let mut entries = self.entries.lock();
        let idle = |entry: &Entry| match entry {
            Entry::Ready(link) if Arc::strong_count(link) == 1 => Some(*link.last_used.lock()),
            Entry::Ready(_) | Entry::Dialling { .. } => None,
        };
        let oldest = entries
            .iter()
            .filter_map(|(node, entry)| idle(entry).map(|used| (used, *node)))
            .min_by_key(|(used, _)| *used);
        oldest.and_then(|(_, node)| entries.remove(&node))
    }

    /// Forgets a link that turned out to be dead, unless it was replaced already.
    pub(crate) fn forget(&self, dead: &Link) {
        self.remove(dead.node, dead.connection.stable_id());
    }

    fn remove(&self, node: NodeId, stable_id: usize) {
        let mut entries = self.entries.lock();
        let removed = match entries.get(&node) {
            Some(Entry::Ready(link)) if link.connection.stable_id() == stable_id => {
                entries.remove(&node)
            }
            _ => None,
        };
        // Dropping a link closes its connection; that is not for under the lock.
        drop(entries);
        drop(removed);
    }

    /// Connections that are open now.
    pub(crate) fn connection_count(&self) -> usize {
        let entries = self.entries.lock();
        entries.values().filter(|entry| matches!(entry, Entry::Ready(_))).count()
    }

    pub(crate) async fn close(&self) {
        let entries = std::mem::take(&mut *self.entries.lock());
        drop(entries);
        self.endpoint.close(CloseCode::Done.to_varint(), b"");
        // Peers that are gone would be waited for; their own time-outs do the rest.
        let _ = timeout(self.config.connect_timeout, self.endpoint.wait_idle()).await;
    }
}

/// Takes a link out of the pool when its connection ends, for whatever reason.
fn forget_when_closed(pool: Weak<Pool>, link: &Arc<Link>) -> impl Future<Output = ()> + use<> {
    let connection = link.connection.clone();
    let (node, counters) = (link.node, Arc::clone(&link.counters));
    async move {
        let reason = connection.closed().await;
        if reason != ConnectionError::LocallyClosed {
            count(&counters.connections_lost);
        }
        tracing::debug!(%node, %reason, "connection ended");
        if let Some(pool) = pool.upgrade() {
            pool.remove(node, connection.stable_id());
        }
    }
}
