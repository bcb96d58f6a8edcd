// SPDX-License-Identifier: MIT OR Apache-2.0
//! A UDP path between one client and a node, which can be cut in either direction and led to
//! another node: what a killed process, a dead cable or a restart look like from outside.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::setup::loopback;

pub struct Proxy {
    pub address: SocketAddr,
    path: Arc<Path>,
    task: JoinHandle<()>,
}

struct Path {
    target: Mutex<SocketAddr>,
    drops_requests: AtomicBool,
    drops_answers: AtomicBool,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let front = UdpSocket::bind(loopback(0)).await.expect("a free port");
        let back = UdpSocket::bind(loopback(0)).await.expect("a free port");
        let address = front.local_addr().expect("bound");
        let path = Arc::new(Path {
            target: Mutex::new(target),
            drops_requests: AtomicBool::new(false),
            drops_answers: AtomicBool::new(false),
        });
        let task = tokio::spawn(forward(Arc::clone(&path), front, back));
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(path: Arc<Path>, front: UdpSocket, back: UdpSocket) {
    let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut request) => {
                client = Some(from);
                let target = *path.target.lock();
                if !path.drops_requests.load(SeqCst) {
                    let _ = back.send_to(&request[..len], target).await;
                }
            }
            Ok((len, _)) = back.recv_from(&mut answer) => {
                if let Some(client) = client.filter(|_| !path.drops_answers.load(SeqCst)) {
                    let _ = front.send_to(&answer[..len], client).await;
                }
            }
        }
    }
}
