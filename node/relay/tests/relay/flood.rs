// SPDX-License-Identifier: MIT OR Apache-2.0
//! A flood of first packets from senders that never answer: none of them gets more than three
//! bytes for each of its own, and those who mean it still get in.
//!
//! First packets are made by a client that dials a socket of ours, where they are caught, so each
//! is a different and flawless beginning. They go out again from sockets of many addresses, which
//! count what comes back. What the kernel drops is counted in nobody's favour: senders' sockets
//! are read until the node has forgotten them all.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, TokioRuntime};
use supernode_client::{Keypair, Transport};
use supernode_tls::identity::{SERVER_NAME, client_config};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::setup::{Setup, client, eventually, loopback};

const SENDERS: u16 = 200;
const HONEST: u16 = 120;
const LATE: Duration = Duration::from_secs(60);
/// The flight of a server is this many times what it was sent, at most, before it knows the sender.
const FACTOR: u64 = 3;

fn address(block: u8, number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, block + high, low, 1), 0))
}

/// The first packets of as many connections.
async fn first_flights(count: u16) -> Vec<Vec<Vec<u8>>> {
    let net = UdpSocket::bind(loopback(0)).await.expect("a free port");
    let to = net.local_addr().expect("bound");
    let key = Keypair::generate_ed25519();
    let transport = Transport::default();
    let mut config = client_config(&key).expect("Ed25519");
    config.transport_config(Arc::new(transport.to_quinn(0)));
    let settings = transport.endpoint(&key).expect("Ed25519");
    let socket = transport.bind(loopback(0)).expect("a free port").socket;
    let endpoint =
        Endpoint::new(settings, None, socket, Arc::new(TokioRuntime)).expect("on a runtime");
    // None is dropped before all are made: a dial that is given up sends a packet, too.
    let (mut dials, mut buffer) = (Vec::new(), vec![0; 65_536]);
    let mut packets = BTreeMap::new();
    while packets.len() < usize::from(count) {
        dials.push(endpoint.connect_with(config.clone(), to, SERVER_NAME).expect("an address"));
        // The hello of TLS may need more than one packet. What is repeated later, because nobody
        // answers, is one more of the same connection.
        while let Ok(received) =
            timeout(Duration::from_millis(20), net.recv_from(&mut buffer)).await
        {
            let (len, _) = received.expect("a packet");
            let flight: &mut Vec<_> = packets.entry(connection_id(&buffer).to_vec()).or_default();
            flight.push(buffer[..len].to_vec());
        }
    }
    packets.into_values().collect()
}

/// The connection that a first packet is for: behind its type, four bytes of version and a length.
fn connection_id(packet: &[u8]) -> &[u8] {
    &packet[6..6 + usize::from(packet[5])]
}

/// One sender that never answers.
struct Sender {
    socket: UdpSocket,
    flight: Vec<Vec<u8>>,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Sender {
    async fn new(number: u16, flight: Vec<Vec<u8>>) -> Self {
        let socket = UdpSocket::bind(address(32, number)).await.expect("a free port");
        Self { socket, flight, sent_bytes: 0, received_bytes: 0 }
    }

    async fn send(&mut self, to: SocketAddr) {
        for packet in &self.flight {
            let sent = self.socket.send_to(packet, to).await.expect("loopback takes it");
            self.sent_bytes += sent as u64;
        }
    }

    fn count_what_came(&mut self) {
        let mut buffer = [0; 65_536];
        while let Ok((len, _)) = self.socket.try_recv_from(&mut buffer) {
            self.received_bytes += len as u64;
        }
    }
}

/// Clients of other prefixes, each of which connects once. Gives how many got in.
async fn honest_connects(setup: &Setup) -> u16 {
    let mut connects = JoinSet::new();
    for number in 0..HONEST {
        let honest = client(&Keypair::generate_ed25519(), |config| {
            config.bind = address(64, number);
            config.connect_timeout = Duration::from_secs(10);
        });
        let peer = setup.peer();
        connects.spawn(async move {
            let welcome = timeout(LATE, honest.connect(&peer)).await.expect("not for ever");
            honest.close().await;
            u16::from(welcome.is_ok())
        });
    }
    let mut inside = 0;
    while let Some(outcome) = connects.join_next().await {
        inside += outcome.expect("no task fails");
    }
    inside
}

#[tokio::test]
async fn a_flood_of_first_packets_is_not_amplified_and_keeps_nobody_out() {
    let (sent, received) = flood(32).await;
    println!("{received} bytes for {sent}");
    assert!(received > 0, "the node answered first packets at all");
}

#[tokio::test]
async fn a_flood_is_not_amplified_where_every_first_packet_begins_a_handshake() {
    let (sent, received) = flood(1024).await;
    println!("{received} bytes for {sent}");
    assert!(received > u64::from(SENDERS) * 1200, "each was answered with a certificate");
}

/// Gives the bytes that all senders sent, and got, together. Beyond so many half-open connections,
/// senders must prove their address.
async fn flood(retry_from: u32) -> (u64, u64) {
    let setup = Setup::with(|config| {
        config.handshakes_max = 1024;
        config.handshakes_retry_from = retry_from;
        config.hello_timeout_ms = 3000;
    });
    let to = setup.relay.local_addr();
    let mut senders = Vec::new();
    for (number, flight) in (0..).zip(first_flights(SENDERS).await) {
        senders.push(Sender::new(number, flight).await);
    }
    let flood = async {
        for _ in 0..2 {
            for sender in &mut senders {
                sender.send(to).await;
                sender.count_what_came();
                tokio::task::yield_now().await;
            }
        }
    };
    let (inside, ()) = tokio::join!(honest_connects(&setup), flood);
    assert!(inside * 100 >= HONEST * 99, "{inside} of {HONEST} honest clients got in");

    // Until then the node may still be repeating itself.
    eventually("half-open connections are forgotten", || setup.relay.metrics().connections == 0)
        .await;
    let (mut sent, mut received) = (0, 0);
    for sender in &mut senders {
        sender.count_what_came();
        let (took, gave) = (sender.received_bytes, sender.sent_bytes);
        assert!(took <= FACTOR * gave, "{took} bytes for {gave}");
        (sent, received) = (sent + gave, received + took);
    }
    (sent, received)
}
