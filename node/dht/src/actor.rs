// SPDX-License-Identifier: MIT OR Apache-2.0
//! The actor: owner of the swarm and of every table.
//!
//! - `select` waits for the first of: a message, an event of the swarm, the next deadline, the end.
//!   It changes nothing.
//! - `apply` decides on it and never awaits. It asks the pure parts and drives the swarm.
//! - After each step the figures, and the member list if it changed, are published for the handles.
//!
//! `peers` keeps track of who is there, `records` takes in and publishes records, `lookups` serves
//! queries.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use supernode_protocol::ids::NodeId;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::actor::lookups::Lookups;
use crate::actor::peers::Walk;
use crate::addresses::AddressRule;
use crate::behaviour::{self, Protocols, ProtocolsEvent};
use crate::config::{DhtConfig, Endpoints};
use crate::error::DhtError;
use crate::handle::{MemberList, Message, Reply};
use crate::members::Members;
use crate::metrics::DhtMetrics;
use crate::schedule::{Item, Schedule};
use crate::seeds::Seeds;

mod lookups;
mod peers;
mod records;

/// Expired records dropped in one step.
const SWEEP_RECORDS_MAX: usize = 256;
/// Binding a socket is immediate; its address is reported in the same instant.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The actor's ends of the channels it shares with the handles.
pub(crate) struct Mailbox {
    pub(crate) inbox: mpsc::Receiver<Message>,
    pub(crate) members: watch::Sender<MemberList>,
    pub(crate) metrics: watch::Sender<DhtMetrics>,
}

enum Event {
    Message(Message),
    Swarm(Box<SwarmEvent<ProtocolsEvent>>),
    Deadline,
    End,
}

pub(crate) struct Actor {
    config: DhtConfig,
    rule: AddressRule,
    endpoints: Endpoints,
    identity: Keypair,
    local: NodeId,
    swarm: Swarm<Protocols>,
    mailbox: Mailbox,
    cancel: CancellationToken,
    members: Members,
    seeds: Seeds,
    schedule: Schedule,
    lookups: Lookups,
    walk: Walk,
    // Dials under way on behalf of the member table and of the bootstrap list.
    probes: HashMap<ConnectionId, NodeId>,
    seed_dials: HashMap<ConnectionId, PeerId>,
    own: Option<Signed<NodeRecord>>,
    own_check_due: bool,
    waiting: HashMap<Item, Vec<Reply<()>>>,
    metrics: DhtMetrics,
}

impl Actor {
    pub(crate) fn new(
        config: DhtConfig,
        identity: Keypair,
        local: NodeId,
        mailbox: Mailbox,
        cancel: CancellationToken,
    ) -> Result<Self, DhtError> {
        let now = Instant::now();
        let endpoints = config.endpoints()?;
        let refresh = Duration::from_secs(config.member_refresh_secs);
        let republish = Duration::from_secs(config.republish_interval_secs);
        let peer = identity.public().to_peer_id();
        Ok(Self {
            rule: config.address_rule(),
            swarm: behaviour::swarm(&config, &identity)?,
            members: Members::new(config.members_max, refresh),
            seeds: Seeds::new(&peer, &endpoints.bootstrap, now),
            schedule: Schedule::new(republish),
            lookups: Lookups::default(),
            walk: Walk::new(Duration::from_secs(config.walk_interval_secs), now),
            probes: HashMap::new(),
            seed_dials: HashMap::new(),
            own: None,
            own_check_due: false,
            waiting: HashMap::new(),
            metrics: DhtMetrics::default(),
            config,
            endpoints,
            identity,
            local,
            mailbox,
            cancel,
        })
    }

    /// Binds every configured address and waits until its real port is known.
    pub(crate) async fn listen(&mut self) -> Result<(), DhtError> {
        for address in self.endpoints.listen.clone() {
            let fail = |reason: String| DhtError::Listen { address: address.to_string(), reason };
            let wanted =
                self.swarm.listen_on(address.clone()).map_err(|error| fail(error.to_string()))?;
            let bound = async {
                loop {
                    match self.swarm.select_next_some().await {
                        SwarmEvent::NewListenAddr { listener_id, .. } if listener_id == wanted => {
                            return Ok(());
                        }
                        SwarmEvent::ListenerClosed { listener_id, reason, .. }
                            if listener_id == wanted =>
                        {
                            return Err(reason.map_or_else(|e| e.to_string(), |()| "closed".into()));
                        }
                        // Nothing else can happen yet that matters: nobody knows the address.
                        _ => {}
                    }
                }
            };
            tokio::time::timeout(LISTEN_TIMEOUT, bound)
                .await
                .map_err(|_| fail("no address was reported".into()))?
                .map_err(fail)?;
        }
        Ok(())
    }

    pub(crate) async fn run(mut self) {
        tracing::info!(node = %self.local, network = self.config.network, "dht started");
        self.publish_state();
        loop {
            let event = self.select().await;
            if matches!(event, Event::End) {
                break;
            }
            self.apply(event, Instant::now());
            self.publish_state();
        }
        tracing::info!(node = %self.local, "dht stopped");
    }

    /// Waits for the next thing to decide on.
    async fn select(&mut self) -> Event {
        let deadline = self.next_deadline();
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.cancel.cancelled() => Event::End,
            message = self.mailbox.inbox.recv() => message.map_or(Event::End, Event::Message),
            event = self.swarm.select_next_some() => Event::Swarm(Box::new(event)),
            () = sleep => Event::Deadline,
        }
    }

    fn apply(&mut self, event: Event, now: Instant) {
        match event {
            Event::Message(message) => self.on_message(message, now),
            Event::Swarm(event) => self.on_swarm(*event, now),
            Event::Deadline | Event::End => {}
        }
        // Whatever happened may have made something due.
        self.upkeep(now);
    }

    fn on_message(&mut self, message: Message, now: Instant) {
        match message {
            Message::ListenAddresses(reply) => {
                let peer = *self.swarm.local_peer_id();
                let full = |address: &Multiaddr| address.clone().with_p2p(peer).ok();
                let all = self.swarm.listeners().filter_map(full);
                answer(reply, Ok(all.map(|address| address.to_string()).collect()));
            }
            Message::Present(record, reply) => {
                let result = self.present(*record, now);
                self.answer(reply, result);
            }
            Message::Announce(cid, reply) => self.announce(cid, reply, now),
            Message::AnnounceStored(cids, reply) => {
                let result = self.announce_stored(&cids, now);
                self.answer(reply, result);
            }
            Message::Withdraw(cid, reply) => {
                self.withdraw(cid);
                self.answer(reply, Ok(()));
            }
            Message::PublishManifest(cid, block, reply) => {
                self.publish_manifest(cid, &block, reply, now);
            }
            Message::Providers(cid, sink) => self.look_up_providers(cid, sink, now),
            Message::Manifest(cid, reply) => self.look_up_manifest(cid, reply, now),
            Message::Node(node, reply) => self.look_up_node(node, reply, now),
        }
    }

    /// Everything that is done because its time has come.
    fn upkeep(&mut self, now: Instant) {
        self.dial_seeds(now);
        self.serve_members(now);
        self.walk_network(now);
        self.publish_due(now);
        self.settle_lookups(now);
        self.check_own_record();
        self.swarm.behaviour_mut().kad.store_mut().sweep(now, SWEEP_RECORDS_MAX);
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let expiry = self.swarm.behaviour_mut().kad.store_mut().next_expiry();
        let peers = self.members.len();
        let room = self.lookups.publications() < self.config.publications_max;
        [
            self.seeds.next_due(),
            self.members.next_wake(),
            self.walk.next_due().filter(|_| peers > 0),
            self.schedule.next_due().filter(|_| peers > 0 && room),
            self.lookups.next_settle(),
            expiry,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Answers a caller who changed something: figures and members show it by then.
    fn answer<T>(&mut self, reply: Reply<T>, result: Result<T, DhtError>) {
        self.publish_state();
        answer(reply, result);
    }

    fn publish_state(&mut self) {
        if self.members.take_changed() {
            let mut all: Vec<_> = self.members.records().chain(&self.own).cloned().collect();
            all.sort_by_key(|member| member.body_unverified().node);
            self.mailbox.members.send_replace(all.into());
        }
        self.measure();
        let figures = self.metrics;
        self.mailbox.metrics.send_if_modified(|published| {
            let changed = *published != figures;
            *published = figures;
            changed
        });
    }

    fn measure(&mut self) {
        let connected = self.swarm.network_info().num_peers();
        let table = self.swarm.behaviour_mut().kad.store_mut();
        let (usage, keys) = (table.usage(), table.provider_keys());
        let metrics = &mut self.metrics;
        metrics.ready = self.seeds.answered();
        metrics.connected_peers = connected;
        metrics.routing_peers = self.members.len();
        metrics.members = self.mailbox.members.borrow().len();
        metrics.manifests = usage.manifests;
        metrics.manifest_bytes = usage.manifest_bytes;
        metrics.node_records = usage.nodes;
        metrics.provider_keys = keys;
        metrics.providers = usage.providers;
        metrics.announced = usage.own_providers;
        metrics.published_manifests = usage.own_manifests;
        metrics.lookups = self.lookups.running();
    }
}

/// Answers a caller; one that no longer waits is no error.
fn answer<T>(reply: Reply<T>, result: Result<T, DhtError>) {
    let _ = reply.send(result);
}
