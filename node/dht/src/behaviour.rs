// SPDX-License-Identifier: MIT OR Apache-2.0
//! The protocols of the swarm and how each is set.

use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{StreamProtocol, Swarm, connection_limits, identify, kad, ping, swarm};

use crate::admission::VALUE_BYTES_MAX;
use crate::config::{ConnectionLimits, DhtConfig, Mode};
use crate::error::DhtError;
use crate::keys::{identify_protocol, kad_protocol};
use crate::table::RecordTable;
use crate::transport;

/// Bytes of one Kademlia message at most.
const PACKET_BYTES_MAX: usize = 16 << 10;
/// A peer that does not answer a request within this is passed over by the query.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

// A largest value must leave room for twenty peers with their addresses in the same message.
const _: () = assert!(VALUE_BYTES_MAX + 20 * 320 < PACKET_BYTES_MAX);

/// Everything the node speaks over libp2p.
#[derive(NetworkBehaviour)]
pub(crate) struct Protocols {
    // First, so that it can deny a connection before anybody else hears of it.
    limits: connection_limits::Behaviour,
    pub(crate) kad: kad::Behaviour<RecordTable>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// Builds the swarm; it neither listens nor dials yet.
pub(crate) fn swarm(config: &DhtConfig, identity: &Keypair) -> Result<Swarm<Protocols>, DhtError> {
    let names_needed = config.bootstrap.iter().any(|address| address.starts_with("/dns"));
    let transport = transport::build(identity, config.address_rule(), names_needed)?;
    let local = identity.public().to_peer_id();
    let idle = Duration::from_secs(config.idle_connection_secs);
    let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(idle);
    Ok(Swarm::new(transport, protocols(config, identity)?, local, settings))
}

fn protocols(config: &DhtConfig, identity: &Keypair) -> Result<Protocols, DhtError> {
    let local = identity.public().to_peer_id();
    let table = RecordTable::new(local, config.records.clone());
    let mut kad = kad::Behaviour::with_config(local, table, kad_config(config)?);
    // Left alone it would wait for somebody to confirm an address, and not serve until then.
    kad.set_mode(Some(match config.mode {
        Mode::Server => kad::Mode::Server,
        Mode::Client => kad::Mode::Client,
    }));
    let identify = identify::Config::new(identify_protocol(&config.network), identity.public())
        .with_agent_version(concat!("supernode/", env!("CARGO_PKG_VERSION")).into())
        .with_push_listen_addr_updates(true)
        // Its cache would hand unfiltered addresses to every dial.
        .with_cache_size(0);
    let ping = ping::Config::new()
        .with_interval(Duration::from_secs(config.ping_interval_secs))
        .with_timeout(PING_TIMEOUT);
    Ok(Protocols {
        limits: connection_limits::Behaviour::new(limits(&config.connections)),
        kad,
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
    })
}

fn kad_config(config: &DhtConfig) -> Result<kad::Config, DhtError> {
    let name = StreamProtocol::try_from_owned(kad_protocol(&config.network))
        .map_err(|error| DhtError::Identity { reason: error.to_string() })?;
    let mut kad = kad::Config::new(name);
    kad.set_query_timeout(config.query_timeout())
        .set_substreams_timeout(REQUEST_TIMEOUT)
        .set_max_packet_size(PACKET_BYTES_MAX)
        .disjoint_query_paths(true)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_caching(kad::Caching::Disabled)
        .set_record_ttl(Some(config.ttl()))
        .set_provider_record_ttl(Some(config.ttl()))
        // The library's jobs start everything at once and copy the whole table; the schedule
        // publishes instead, and walks are the actor's.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(None);
    Ok(kad)
}

fn limits(config: &ConnectionLimits) -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(config.pending_max))
        .with_max_pending_outgoing(Some(config.pending_max))
        .with_max_established_incoming(Some(config.incoming_max))
        .with_max_established_outgoing(Some(config.outgoing_max))
        .with_max_established_per_peer(Some(config.per_peer_max))
}
