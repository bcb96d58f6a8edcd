// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client is told at its start.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use libp2p_identity::Keypair;
use supernode_protocol::capability::Capability;
use supernode_protocol::ids::NodeId;
use supernode_protocol::limits::{CAPABILITY_BYTES_MAX, NETWORK_NAME_BYTES_MAX};
use supernode_protocol::signed::Signed;
use supernode_tls::transport::{SettingError, Transport, check_setting};

/// Settings of a [`crate::Client`]. Start from [`ClientConfig::new`] and change what you need.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The key that names this client to nodes; writers are allowed by it.
    pub identity: Keypair,
    /// The network to talk to; nodes of another one refuse.
    pub network: String,
    /// Program and version, for the logs of nodes.
    pub agent: String,
    /// Shown to every node; a node that trusts its issuer treats this client as it says.
    pub capability: Option<Signed<Capability>>,
    /// Local UDP address. The default `[::]:0` reaches IPv4 and IPv6; on a machine without IPv6
    /// `0.0.0.0:0` takes its place.
    pub bind: SocketAddr,
    /// How long one address may take to answer a dial, and a node to acknowledge a request.
    pub connect_timeout: Duration,
    /// How long a call may take in all, waiting for busy nodes included. While a body is read,
    /// only the time spent waiting for the node counts. [`crate::Client::with_deadline`] changes
    /// it for some calls.
    pub deadline: Duration,
    /// How long of that a call may wait for nodes that are busy; at zero it ends with their answer.
    pub busy_wait_max: Duration,
    /// How often the transfer of a body that was cut is taken up again at most.
    pub resumes_max: u32,
    /// How long a request may go without any progress.
    pub request_timeout: Duration,
    /// Bytes per second below which a transfer is given up, counted from its start with
    /// `request_timeout` as grace.
    pub transfer_bytes_per_sec_min: u64,
    /// After how long an unused connection is closed.
    pub idle_timeout: Duration,
    /// Connections to keep at most; the least recently used idle one makes room.
    pub connections_max: usize,
    /// Nodes whose health is remembered at most; those not used for longest are forgotten.
    pub nodes_max: usize,
    /// Requests under way on one connection at most; the server may allow fewer.
    pub streams_per_connection_max: u32,
    /// Settings of QUIC. `idle_timeout` above takes the place of the one in here.
    pub transport: Transport,
}

impl ClientConfig {
    /// The defaults for this key on this network.
    pub fn new(identity: Keypair, network: impl Into<String>) -> Self {
        Self {
            identity,
            network: network.into(),
            agent: concat!("supernode-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            capability: None,
            bind: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
            connect_timeout: Duration::from_secs(3),
            deadline: Duration::from_secs(300),
            busy_wait_max: Duration::from_secs(60),
            resumes_max: 4,
            request_timeout: Duration::from_secs(10),
            transfer_bytes_per_sec_min: 64 << 10,
            idle_timeout: Duration::from_secs(30),
            connections_max: 1024,
            nodes_max: 4096,
            streams_per_connection_max: 64,
            transport: Transport::default(),
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// Names the first setting that is out of it.
    pub fn validate(&self) -> Result<(), SettingError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let network = self.network.len();
        check_setting(
            (1..=NETWORK_NAME_BYTES_MAX).contains(&network),
            "network",
            count(network),
            "a name of 1 to 64 bytes",
        )?;
        self.check_capability()?;
        for (setting, time) in [
            ("connect_timeout", self.connect_timeout),
            ("deadline", self.deadline),
            ("request_timeout", self.request_timeout),
        ] {
            let holds = !time.is_zero() && time <= Duration::from_secs(3600);
            check_setting(holds, setting, millis(time), "1 ms to 1 h")?;
        }
        check_setting(
            self.busy_wait_max <= Duration::from_secs(3600),
            "busy_wait_max",
            millis(self.busy_wait_max),
            "at most 1 h",
        )?;
        check_setting(
            (1..=3600).contains(&self.idle_timeout.as_secs()),
            "idle_timeout",
            millis(self.idle_timeout),
            "1 s to 1 h",
        )?;
        check_setting(
            self.transfer_bytes_per_sec_min > 0,
            "transfer_bytes_per_sec_min",
            self.transfer_bytes_per_sec_min,
            "at least 1",
        )?;
        check_setting(
            self.connections_max > 0,
            "connections_max",
            count(self.connections_max),
            "at least 1",
        )?;
        check_setting(self.nodes_max > 1, "nodes_max", count(self.nodes_max), "at least 2")?;
        check_setting(
            (1..=4096).contains(&self.streams_per_connection_max),
            "streams_per_connection_max",
            self.streams_per_connection_max,
            "1 to 4096",
        )?;
        self.transport.validate()
    }

    /// Whether it can be worth anything; its end is for the nodes' clocks to judge.
    fn check_capability(&self) -> Result<(), SettingError> {
        let Some(capability) = &self.capability else { return Ok(()) };
        let len = capability.encode().len();
        let holds = len <= CAPABILITY_BYTES_MAX
            && capability.verify().is_ok_and(|grant| {
                grant.network == self.network
                    && NodeId::from_public(&self.identity.public())
                        .is_ok_and(|node| node == grant.audience)
            });
        let rule = "signed, for this identity on this network, at most 1024 bytes";
        check_setting(holds, "capability", u64::try_from(len).unwrap_or(u64::MAX), rule)
    }
}
