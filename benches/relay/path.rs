// SPDX-License-Identifier: MIT OR Apache-2.0
//! A long way between two sockets of this machine: packets take their time, the narrowest place
//! lets so many bytes through and queues only so long, and some packets get lost.
//!
//! Times are kept to a millisecond. Loss is drawn from a fixed seed, so every contender of a sweep
//! loses as many.

use std::future::pending;
use std::net::{SocketAddr, UdpSocket as Blocking};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::server::loopback;

/// Packets on their way at a time, each direction; far more than the queue lets in.
const PACKETS_MAX: usize = 1 << 16;
const PACKET_BYTES_MAX: usize = 1 << 16;

/// What a way is like.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// There and back.
    pub round_trip: Duration,
    /// Through the narrowest place.
    pub bytes_per_sec: u64,
    /// How long packets may wait in front of it.
    pub queue: Duration,
    /// Packets that get lost on the way.
    pub lost_per_million: u64,
}

impl Path {
    /// Opens a way to a server; whoever sends to the address returned gets there. It stays open as
    /// long as this process.
    pub fn open(self, target: SocketAddr) -> SocketAddr {
        let [front, back] = [(); 2].map(|()| {
            let socket = Blocking::bind(loopback(0)).expect("a free port of loopback");
            socket.set_nonblocking(true).expect("a socket of our own");
            socket
        });
        back.connect(target).expect("an address of this machine");
        let address = front.local_addr().expect("it is bound");
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a thread");
            runtime.block_on(async move {
                let [front, back] =
                    [front, back].map(|it| Arc::new(UdpSocket::from_std(it).expect("a runtime")));
                let client = Arc::new(OnceLock::new());
                let there = self.carry(&front, &back, &client, false);
                let back = self.carry(&back, &front, &client, true);
                tokio::join!(there, back);
            });
        });
        address
    }

    /// Moves what comes to one socket out of the other, late.
    async fn carry(
        self,
        from: &Arc<UdpSocket>,
        to: &Arc<UdpSocket>,
        client: &Arc<OnceLock<SocketAddr>>,
        is_back: bool,
    ) {
        let (sender, mut packets) = mpsc::channel::<(Instant, Vec<u8>)>(PACKETS_MAX);
        let (to, addressee) = (Arc::clone(to), Arc::clone(client));
        tokio::spawn(async move {
            while let Some((due, packet)) = packets.recv().await {
                // Until then there is nothing to wait for but time.
                let _ = timeout_at(due, pending::<()>()).await;
                // What the kernel has no room for is lost, as anywhere.
                let _ = match addressee.get() {
                    Some(client) if is_back => to.send_to(&packet, client).await,
                    _ => to.send(&packet).await,
                };
            }
        });
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut free = Instant::now();
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        while let Ok((len, sender_address)) = from.recv_from(&mut buffer).await {
            if !is_back {
                client.get_or_init(|| sender_address);
            }
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let now = Instant::now();
            free = free.max(now);
            if seed % 1_000_000 < self.lost_per_million || free - now > self.queue {
                continue;
            }
            free += Duration::from_nanos(len as u64 * 1_000_000_000 / self.bytes_per_sec);
            let due = free + self.round_trip / 2;
            let _ = sender.try_send((due, buffer[..len].to_vec()));
        }
    }
}
