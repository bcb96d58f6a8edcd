// SPDX-License-Identifier: MIT OR Apache-2.0
//! A way to a chain that can lose answers: it carries every byte to the chain, and at the right
//! moment none back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A listener before a chain; it ends with the test.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// Bytes that may still go to the chain before answers are held.
    left: AtomicUsize,
    held: CancellationToken,
    cut: CancellationToken,
}

impl Proxy {
    pub async fn start(chain: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (held, cut) = (CancellationToken::new(), CancellationToken::new());
        let shared = Arc::new(Shared { left: AtomicUsize::new(usize::MAX), held, cut });
        let of_task = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let chain = TcpStream::connect(chain).await.expect("the chain listens");
                let ((from_client, to_client), (from_chain, to_chain)) =
                    (client.into_split(), chain.into_split());
                tokio::spawn(forth(from_client, to_chain, Arc::clone(&of_task)));
                tokio::spawn(back(from_chain, to_client, Arc::clone(&of_task)));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Nothing comes back once so many more bytes have gone to the chain; those still go.
    pub fn hold_answers_after(&self, bytes: usize) {
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// Ends every connection, and every one that comes.
    pub fn cut(&self) {
        self.shared.cut.cancel();
    }
}

async fn forth(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: Arc<Shared>) {
    let carry = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let left = shared.left.load(Ordering::SeqCst).saturating_sub(count);
            shared.left.store(left, Ordering::SeqCst);
            // Before the bytes go: their answer must not overtake.
            if left == 0 {
                shared.held.cancel();
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = carry => {}
        () = shared.cut.cancelled() => {}
    }
}

async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: Arc<Shared>) {
    let carry = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if shared.held.is_cancelled() {
                std::future::pending::<()>().await;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = carry => {}
        () = shared.cut.cancelled() => {}
    }
}
