// SPDX-License-Identifier: MIT OR Apache-2.0
//! A UDP path between one client and a node, which can be cut in either direction, led to another
//! node, given a new address towards the node, and made as bad as a network gets: what a killed
//! process, a dead cable, a restart, a NAT and the weather look like from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use crate::eventually::pass;
use crate::setup::loopback;

/// Datagrams that may be delayed at a time in one direction; a router drops what is beyond, too.
const DELAYED_MAX: usize = 4096;

/// What happens to datagrams on their way, in both directions alike.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Of a thousand datagrams so many are lost.
    pub lost_permille: u32,
    /// Of a thousand datagrams so many arrive twice.
    pub doubled_permille: u32,
    /// How long each takes at least.
    pub delay: Duration,
    /// How much longer some take, evenly spread: those behind overtake them.
    pub jitter: Duration,
}

pub struct Proxy {
    pub address: SocketAddr,
    path: Arc<Path>,
    task: JoinHandle<()>,
}

struct Path {
    target: Mutex<SocketAddr>,
    drops_requests: AtomicBool,
    drops_answers: AtomicBool,
    weather: Mutex<(Weather, ChaCha8Rng)>,
    delayed: Arc<Semaphore>,
    is_rebound: Notify,
    requests: AtomicU64,
    delivered: AtomicU64,
    troubled: AtomicU64,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        Self::through(target, Weather::default(), 0).await
    }

    /// A path on which `seed` decides who is lost.
    pub async fn through(target: SocketAddr, weather: Weather, seed: u64) -> Self {
        let front = UdpSocket::bind(loopback(0)).await.expect("a free port");
        let back = UdpSocket::bind(loopback(0)).await.expect("a free port");
        let address = front.local_addr().expect("bound");
        let path = Arc::new(Path {
            target: Mutex::new(target),
            drops_requests: AtomicBool::new(false),
            drops_answers: AtomicBool::new(false),
            weather: Mutex::new((weather, ChaCha8Rng::seed_from_u64(seed))),
            delayed: Arc::new(Semaphore::new(DELAYED_MAX)),
            is_rebound: Notify::new(),
            requests: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            troubled: AtomicU64::new(0),
        });
        let task = tokio::spawn(forward(Arc::clone(&path), Arc::new(front), Arc::new(back)));
        Self { address, path, task }
    }

    pub fn lead_to(&self, target: SocketAddr) {
        *self.path.target.lock() = target;
    }

    pub fn drop_requests(&self, drops: bool) {
        self.path.drops_requests.store(drops, SeqCst);
    }

    pub fn drop_answers(&self, drops: bool) {
        self.path.drops_answers.store(drops, SeqCst);
    }

    /// Nothing passes in either direction.
    pub fn black_out(&self, is_dark: bool) {
        self.drop_requests(is_dark);
        self.drop_answers(is_dark);
    }

    /// From the next datagram on the node sees the client at another port.
    pub fn rebind(&self) {
        self.path.is_rebound.notify_one();
    }

    /// Datagrams of the client that were let through.
    pub fn requests(&self) -> u64 {
        self.path.requests.load(SeqCst)
    }

    /// Datagrams that the weather did something to.
    pub fn troubled(&self) -> u64 {
        self.path.troubled.load(SeqCst)
    }

    /// Datagrams that arrived, in both directions together.
    pub fn delivered(&self) -> u64 {
        self.path.delivered.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(path: Arc<Path>, front: Arc<UdpSocket>, mut back: Arc<UdpSocket>) {
    let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut request) => {
                client = Some(from);
                let target = *path.target.lock();
                if !path.drops_requests.load(SeqCst) {
                    path.carry(&back, &request[..len], target).await;
                    path.requests.fetch_add(1, SeqCst);
                }
            }
            Ok((len, _)) = back.recv_from(&mut answer) => {
                if let Some(client) = client.filter(|_| !path.drops_answers.load(SeqCst)) {
                    path.carry(&front, &answer[..len], client).await;
                }
            }
            () = path.is_rebound.notified() => {
                back = Arc::new(UdpSocket::bind(loopback(0)).await.expect("a free port"));
            }
        }
    }
}

impl Path {
    /// Has a datagram arrive as often and as late as the weather wants.
    async fn carry(self: &Arc<Self>, through: &Arc<UdpSocket>, bytes: &[u8], to: SocketAddr) {
        let fate = self.fate();
        if fate != [Duration::ZERO] {
            self.troubled.fetch_add(1, SeqCst);
        }
        for delay in fate {
            if delay.is_zero() {
                self.deliver(through, bytes, to).await;
                continue;
            }
            let Ok(place) = Arc::clone(&self.delayed).try_acquire_owned() else { continue };
            let (path, through, bytes) = (Arc::clone(self), Arc::clone(through), bytes.to_vec());
            tokio::spawn(async move {
                pass(delay).await;
                path.deliver(&through, &bytes, to).await;
                drop(place);
            });
        }
    }

    async fn deliver(&self, through: &UdpSocket, bytes: &[u8], to: SocketAddr) {
        // A send that the system refuses is one more loss.
        if through.send_to(bytes, to).await.is_ok() {
            self.delivered.fetch_add(1, SeqCst);
        }
    }

    /// When each copy of a datagram arrives.
    fn fate(&self) -> Vec<Duration> {
        let (weather, random) = &mut *self.weather.lock();
        let mut is_one_of = |permille| random.random_range(0..1000) < permille;
        let copies = match (is_one_of(weather.lost_permille), is_one_of(weather.doubled_permille)) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        };
        (0..copies).map(|_| weather.delay + weather.jitter.mul_f64(random.random())).collect()
    }
}
