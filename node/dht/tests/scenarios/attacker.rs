// SPDX-License-Identifier: MIT OR Apache-2.0
//! A peer that speaks the protocol and checks nothing: it sends whatever it is told to.

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig, RecordStore};
use libp2p::kad::{self, QueryResult, Quorum, Record, RecordKey};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};
use supernode_dht::{Dht, identify_protocol, kad_protocol};

use crate::network::{NETWORK, address};

#[derive(NetworkBehaviour)]
struct Protocols {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

pub(crate) struct Attacker {
    pub(crate) key: Keypair,
    swarm: Swarm<Protocols>,
    victim: PeerId,
}

fn protocols(key: &Keypair, posing_as: PeerId) -> Protocols {
    let name = StreamProtocol::try_from_owned(kad_protocol(NETWORK)).expect("it has a slash");
    let room = MemoryStoreConfig {
        max_records: 1 << 20,
        max_provided_keys: 1 << 20,
        max_value_bytes: 1 << 20,
        ..MemoryStoreConfig::default()
    };
    let mut config = kad::Config::new(name);
    config.set_max_packet_size(1 << 20);
    let mut kad =
        kad::Behaviour::with_config(posing_as, MemoryStore::with_config(posing_as, room), config);
    kad.set_mode(Some(kad::Mode::Server));
    let identify = identify::Config::new(identify_protocol(NETWORK), key.public());
    Protocols { kad, identify: identify::Behaviour::new(identify) }
}

impl Attacker {
    /// Connects to its victim and learns its address, so that queries reach it.
    pub(crate) async fn of(victim: &Dht) -> Self {
        let key = Keypair::generate_ed25519();
        let own = key.public().to_peer_id();
        Self::posing_as(own, key, victim).await
    }

    /// Connects as `key`, and says in all it sends that it is `name`.
    pub(crate) async fn posing_as(name: PeerId, key: Keypair, victim: &Dht) -> Self {
        let mut swarm = SwarmBuilder::with_existing_identity(key.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .expect("a transport")
            .with_behaviour(|key| protocols(key, name))
            .expect("no fallible part")
            .with_swarm_config(|config| {
                config.with_idle_connection_timeout(std::time::Duration::from_secs(600))
            })
            .build();
        let listen = "/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddress");
        swarm.listen_on(listen).expect("a free port");
        let peer = victim.local().peer_id();
        let target: Multiaddr = address(victim).await.parse().expect("a multiaddress");
        swarm.behaviour_mut().kad.add_address(&peer, target.clone());
        swarm.dial(target).expect("it listens");
        let mut attacker = Self { key, swarm, victim: peer };
        attacker.until(|event| matches!(event, SwarmEvent::ConnectionEstablished { .. })).await;
        attacker
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.key.public().to_peer_id()
    }

    /// Sends a value record; returns when the victim has answered or closed the stream.
    pub(crate) async fn put(&mut self, key: RecordKey, value: Vec<u8>) {
        let record = Record { key, value, publisher: Some(self.peer()), expires: None };
        let to = vec![self.victim].into_iter();
        let id = self.swarm.behaviour_mut().kad.put_record_to(record, to, Quorum::One);
        self.until_done(id).await;
    }

    /// Says that it holds `key`; returns when that is on its way.
    pub(crate) async fn provide(&mut self, key: RecordKey) {
        let id = self.swarm.behaviour_mut().kad.start_providing(key).expect("room of its own");
        self.until_done(id).await;
    }

    /// Answers queries with this value from now on.
    pub(crate) fn serve(&mut self, key: RecordKey, value: Vec<u8>) {
        let record = Record { key, value, publisher: None, expires: None };
        self.swarm.behaviour_mut().kad.store_mut().put(record).expect("room of its own");
    }

    /// Keeps answering until `end` is over.
    pub(crate) async fn while_answering<T>(&mut self, end: impl Future<Output = T>) -> T {
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                result = &mut end => return result,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    async fn until_done(&mut self, wanted: kad::QueryId) {
        self.until(|event| {
            matches!(
                event,
                SwarmEvent::Behaviour(ProtocolsEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id,
                    result: QueryResult::PutRecord(_) | QueryResult::StartProviding(_),
                    ..
                })) if *id == wanted
            )
        })
        .await;
    }

    async fn until(&mut self, wanted: impl Fn(&SwarmEvent<ProtocolsEvent>) -> bool) {
        let events = async { while !wanted(&self.swarm.select_next_some().await) {} };
        tokio::time::timeout(crate::eventually::PATIENCE, events).await.expect("it happens");
    }
}
