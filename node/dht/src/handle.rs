// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle: cheap to clone, all the rest of the program sees of the DHT.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libp2p::identity::Keypair;
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, Mailbox};
use crate::admission::VALUE_BYTES_MAX;
use crate::config::{DhtConfig, Mode};
use crate::error::DhtError;
use crate::metrics::DhtMetrics;

/// After the first provider, how long others are waited for.
const PROVIDERS_SETTLE: Duration = Duration::from_millis(500);

/// The verified records of the nodes believed alive, ordered by node id.
pub type MemberList = Arc<[Signed<NodeRecord>]>;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, DhtError>>;

/// What the actor can be asked for.
pub(crate) enum Message {
    ListenAddresses(Reply<Vec<String>>),
    Present(Box<NodeRecord>, Reply<()>),
    Announce(Cid, Reply<()>),
    AnnounceStored(Vec<Cid>, Reply<()>),
    Withdraw(Cid, Reply<()>),
    PublishManifest(Cid, Bytes, Reply<()>),
    Providers(Cid, mpsc::Sender<Result<NodeId, DhtError>>),
    Manifest(Cid, Reply<Option<Bytes>>),
    Node(NodeId, Reply<Option<Signed<NodeRecord>>>),
}

/// The DHT of this process. It ends with [`Dht::stop`], or when the last handle is dropped.
#[derive(Clone)]
pub struct Dht {
    mailbox: mpsc::Sender<Message>,
    members: watch::Receiver<MemberList>,
    metrics: watch::Receiver<DhtMetrics>,
    cancel: CancellationToken,
    config: Arc<DhtConfig>,
    local: NodeId,
}

impl fmt::Debug for Dht {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dht").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Dht {
    /// Binds the listening addresses, starts the actor, and begins to dial the bootstrap peers.
    /// Returns once it listens; see [`Dht::wait_ready`] for the rest.
    ///
    /// # Errors
    /// A setting that cannot be used, an identity that is no Ed25519 key, an address that cannot
    /// be bound.
    pub async fn start(config: DhtConfig, identity: Keypair) -> Result<Self, DhtError> {
        config.validate()?;
        let local = NodeId::from_public(&identity.public())
            .map_err(|error| DhtError::Identity { reason: error.to_string() })?;
        let (mailbox, inbox) = mpsc::channel(config.mailbox_messages_max);
        let (members_tx, members) = watch::channel(MemberList::from(vec![]));
        let (metrics_tx, metrics) = watch::channel(DhtMetrics::default());
        let cancel = CancellationToken::new();
        let ends = Mailbox { inbox, members: members_tx, metrics: metrics_tx };
        let mut actor = Actor::new(config.clone(), identity, local, ends, cancel.clone())?;
        actor.listen().await?;
        tokio::spawn(actor.run());
        Ok(Self { mailbox, members, metrics, cancel, config: Arc::new(config), local })
    }

    /// The node id of our identity.
    pub fn local(&self) -> NodeId {
        self.local
    }

    /// The multiaddresses we listen on, each with `/p2p/PEER` at its end.
    ///
    /// # Errors
    /// [`DhtError::Stopped`].
    pub async fn listen_addresses(&self) -> Result<Vec<String>, DhtError> {
        self.ask(Message::ListenAddresses).await
    }

    /// Whether a bootstrap peer has answered, or none is configured.
    pub fn ready(&self) -> bool {
        self.metrics.borrow().ready
    }

    /// Waits for [`Dht::ready`].
    ///
    /// # Errors
    /// [`DhtError::NotReady`] after `limit`, [`DhtError::Stopped`].
    pub async fn wait_ready(&self, limit: Duration) -> Result<(), DhtError> {
        let mut metrics = self.metrics.clone();
        match timeout(limit, metrics.wait_for(|metrics| metrics.ready)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(DhtError::Stopped),
            Err(_) => Err(DhtError::NotReady { seconds: limit.as_secs() }),
        }
    }

    /// Sets or changes what this node says of itself: signed, kept under its key from now on, sent
    /// to the peers closest to the key, and sent again before it runs out.
    ///
    /// `record.sequence` is the caller's: it must rise with every change, over restarts as well, so
    /// it belongs into the data directory; no clock is trusted for it. The same record again is
    /// fine. Others keep what they have until the sequence is above theirs; if the network knows a
    /// higher one than ours (a data directory restored from a backup), it appears as
    /// [`DhtMetrics::newer_own_sequence`] and the caller presents a higher one.
    ///
    /// # Errors
    /// A record of another node or network, beyond the limits, or with a sequence that is not above
    /// the one before; [`DhtError::ClientMode`].
    pub async fn present(&self, record: NodeRecord) -> Result<(), DhtError> {
        self.server("present itself")?;
        let record = Box::new(record);
        self.ask(|reply| Message::Present(record, reply)).await
    }

    /// Announces that we hold `cid`, and keeps announcing it until [`Dht::withdraw`]. Returns when
    /// the first announcement went out, or at once if there is nobody to tell yet; a caller that
    /// stops waiting loses nothing once the message is in the mailbox.
    ///
    /// # Errors
    /// [`DhtError::Full`], [`DhtError::ClientMode`], [`DhtError::Stopped`].
    pub async fn announce(&self, cid: Cid) -> Result<(), DhtError> {
        self.server("announce")?;
        self.ask(|reply| Message::Announce(cid, reply)).await
    }

    /// Takes over what we announced before a restart. The network still knows it, so it is
    /// announced again over time; this returns at once.
    ///
    /// # Errors
    /// As [`Dht::announce`]; with [`DhtError::Full`] those that fitted are announced.
    pub async fn announce_stored(&self, cids: Vec<Cid>) -> Result<(), DhtError> {
        self.server("announce")?;
        for part in cids.chunks(1024) {
            let part = part.to_vec();
            self.ask(|reply| Message::AnnounceStored(part, reply)).await?;
        }
        Ok(())
    }

    /// Ends the announcement of `cid` and the publication of its manifest. This is local: nothing
    /// in Kademlia takes a record back, so what others hold ends with its time to live.
    ///
    /// # Errors
    /// [`DhtError::Stopped`].
    pub async fn withdraw(&self, cid: Cid) -> Result<(), DhtError> {
        self.ask(|reply| Message::Withdraw(cid, reply)).await
    }

    /// Publishes a small manifest block under its CID, and keeps publishing it until
    /// [`Dht::withdraw`]. Returns like [`Dht::announce`].
    ///
    /// # Errors
    /// A block that is too large or another one than `cid` names; otherwise as [`Dht::announce`].
    pub async fn publish_manifest(&self, cid: Cid, block: Bytes) -> Result<(), DhtError> {
        self.server("publish a manifest")?;
        if block.len() > VALUE_BYTES_MAX {
            let max = VALUE_BYTES_MAX;
            return Err(DhtError::ManifestTooLarge { size: block.len(), max });
        }
        let actual = Cid::of(&block);
        if actual != cid {
            return Err(DhtError::ManifestHash { cid, actual });
        }
        self.ask(|reply| Message::PublishManifest(cid, block, reply)).await
    }

    /// Who says to hold `cid`, those believed alive first. Returns at the limit of providers per
    /// lookup, at the end of the query, or half a second after the first one was found. Nobody is
    /// an empty list.
    ///
    /// # Errors
    /// [`DhtError::NotReady`], [`DhtError::Busy`]; [`DhtError::Timeout`] if nothing was found in
    /// time.
    pub async fn providers(&self, cid: Cid) -> Result<Vec<NodeId>, DhtError> {
        let mut stream = self.provider_stream(cid).await?;
        let mut found = Vec::new();
        let mut until: Option<Instant> = None;
        loop {
            let next = match until {
                None => stream.recv().await,
                Some(at) => timeout_at(at, stream.recv()).await.unwrap_or(None),
            };
            match next {
                None => break,
                Some(Ok(node)) => found.push(node),
                Some(Err(error)) if found.is_empty() => return Err(error),
                Some(Err(_)) => break,
            }
            until.get_or_insert_with(|| Instant::now() + PROVIDERS_SETTLE);
        }
        let members = self.members.borrow().clone();
        let alive: HashSet<NodeId> = members.iter().map(|m| m.body_unverified().node).collect();
        found.sort_by_key(|node| !alive.contains(node));
        Ok(found)
    }

    /// As [`Dht::providers`], one by one as they are found, each once. The channel ends with the
    /// query; one whose receiver was dropped makes room for others. An error, if any, is the last
    /// item.
    ///
    /// # Errors
    /// [`DhtError::NotReady`], [`DhtError::Stopped`].
    pub async fn provider_stream(
        &self,
        cid: Cid,
    ) -> Result<mpsc::Receiver<Result<NodeId, DhtError>>, DhtError> {
        self.wait_ready(self.config.query_timeout()).await?;
        // Room for all of them and the error, so the actor never meets a full channel.
        let (sink, stream) = mpsc::channel(self.config.providers_per_lookup_max + 1);
        self.send(Message::Providers(cid, sink)).await?;
        Ok(stream)
    }

    /// The manifest block of `cid`, if somebody publishes it; it hashes to the CID.
    ///
    /// # Errors
    /// As [`Dht::providers`].
    pub async fn manifest(&self, cid: Cid) -> Result<Option<Bytes>, DhtError> {
        self.wait_ready(self.config.query_timeout()).await?;
        self.ask(|reply| Message::Manifest(cid, reply)).await
    }

    /// The record of `node`: of a member as known, of others looked up. Its signature holds, it is
    /// within its limits and of our network. The node need not be alive.
    ///
    /// # Errors
    /// As [`Dht::providers`].
    pub async fn node(&self, node: NodeId) -> Result<Option<Signed<NodeRecord>>, DhtError> {
        let members = self.members.borrow().clone();
        let known = members.binary_search_by_key(&node, |member| member.body_unverified().node);
        if let Ok(at) = known {
            return Ok(members.get(at).cloned());
        }
        self.wait_ready(self.config.query_timeout()).await?;
        self.ask(|reply| Message::Node(node, reply)).await
    }

    /// The records of the nodes believed alive, our own included once it was presented.
    pub fn members(&self) -> Vec<Signed<NodeRecord>> {
        self.members.borrow().to_vec()
    }

    /// The member list and its changes.
    pub fn watch_members(&self) -> watch::Receiver<MemberList> {
        self.members.clone()
    }

    /// Figures for monitoring.
    pub fn metrics(&self) -> DhtMetrics {
        let mut metrics = *self.metrics.borrow();
        metrics.mailbox_depth = self.mailbox.max_capacity() - self.mailbox.capacity();
        metrics
    }

    /// The figures and their changes; `mailbox_depth` is not kept in them.
    pub fn watch_metrics(&self) -> watch::Receiver<DhtMetrics> {
        self.metrics.clone()
    }

    /// Closes all connections and ends the actor. Calls that wait get [`DhtError::Stopped`].
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.mailbox.closed().await;
    }

    /// Resolves when the actor has ended, for whatever reason: for its supervisor.
    pub async fn stopped(&self) {
        self.mailbox.closed().await;
    }

    fn server(&self, operation: &'static str) -> Result<(), DhtError> {
        match self.config.mode {
            Mode::Server => Ok(()),
            Mode::Client => Err(DhtError::ClientMode { operation }),
        }
    }

    async fn send(&self, message: Message) -> Result<(), DhtError> {
        self.mailbox.send(message).await.map_err(|_| DhtError::Stopped)
    }

    async fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, DhtError> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply)).await?;
        answer.await.map_err(|_| DhtError::Stopped)?
    }
}
