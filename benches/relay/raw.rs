// SPDX-License-Identifier: MIT OR Apache-2.0
//! The baseline: quinn itself, moving the same bytes with as little around them as there can be.
//!
//! A request is one stream: what is wanted and how many bytes, in nine bytes. Bytes that a server
//! sends lie in memory, bytes that anybody receives are counted and dropped. The handshake and the
//! cipher are those of the relay server; everything else is quinn's, with the best of the settings
//! that `--sweep` tried.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::Keypair;
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn::{
    AckFrequencyConfig, Connection, Endpoint, IdleTimeout, MtuDiscoveryConfig, RecvStream,
    SendStream, TokioRuntime, TransportConfig, VarInt,
};
use serde::{Deserialize, Serialize};
use supernode_benches::seeded;
use supernode_tls::identity::{SERVER_NAME, client_config, server_config};
use supernode_tls::transport::Transport;
use tokio::runtime::{Builder, Runtime};

/// The most bytes that one request asks for.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Bytes handed to the transport at a time on the way up.
const STEP_BYTES: usize = 256 << 10;
const HEAD_BYTES: usize = 9;
/// How long connections may be idle before either side forgets them.
const IDLE_SECS: u32 = 600;

/// How a sender finds its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Congestion {
    /// quinn's default.
    Cubic,
    /// The textbook's.
    NewReno,
    /// Experimental, says quinn.
    Bbr,
}

/// What of quinn can be set that may matter for speed. `None` leaves quinn's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Largest UDP payload that is probed for.
    pub mtu_bytes_max: u16,
    /// Receive window of a stream; the connection's and the send window are four times as large.
    pub window_bytes: Option<u32>,
    /// Whether the kernel gets many packets in one call.
    pub segmentation_offload: bool,
    /// Packets that may come without being acknowledged.
    pub unacknowledged_packets_max: Option<u32>,
    /// Congestion control.
    pub congestion: Congestion,
    /// Bytes that may be sent before anything is acknowledged.
    pub initial_window_bytes: Option<u64>,
    /// Bytes of the socket's buffers, each direction.
    pub socket_buffer_bytes: u32,
    /// Whether tokio may use all processors, or one thread on each side.
    pub has_many_threads: bool,
}

impl Setting {
    /// Where the sweep begins: quinn as it is, but for the size of packets.
    pub fn plain(mtu_bytes_max: u16) -> Self {
        Self {
            mtu_bytes_max,
            window_bytes: None,
            segmentation_offload: true,
            unacknowledged_packets_max: None,
            congestion: Congestion::Cubic,
            initial_window_bytes: None,
            socket_buffer_bytes: 208 << 10,
            has_many_threads: true,
        }
    }

    /// A runtime of this setting, for either side.
    pub fn runtime(&self) -> Runtime {
        let mut builder = if self.has_many_threads {
            Builder::new_multi_thread()
        } else {
            Builder::new_current_thread()
        };
        builder.enable_all().build().expect("threads")
    }

    /// The same for the relay server, as far as it has such settings.
    pub fn for_relay(&self) -> Transport {
        let mut transport = Transport {
            mtu_bytes_max: self.mtu_bytes_max,
            socket_buffer_bytes: self.socket_buffer_bytes,
            segmentation_offload: self.segmentation_offload,
            idle_timeout_secs: u64::from(IDLE_SECS),
            ..Transport::default()
        };
        if let Some(bytes) = self.window_bytes {
            transport.stream_window_bytes = bytes;
            transport.connection_window_bytes = 4 * bytes;
            transport.send_window_bytes = 4 * bytes;
        }
        if let Some(packets) = self.unacknowledged_packets_max {
            transport.unacknowledged_packets_max = packets;
        }
        transport
    }

    fn transport(&self) -> TransportConfig {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_bytes_max);
        let mut config = TransportConfig::default();
        config
            .mtu_discovery_config(Some(discovery))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_SECS * 1000))))
            .enable_segmentation_offload(self.segmentation_offload)
            .congestion_controller_factory(self.controller());
        if let Some(bytes) = self.window_bytes {
            config
                .stream_receive_window(VarInt::from_u32(bytes))
                .receive_window(VarInt::from_u32(4 * bytes))
                .send_window(4 * u64::from(bytes));
        }
        if let Some(packets) = self.unacknowledged_packets_max {
            let mut frequency = AckFrequencyConfig::default();
            frequency.ack_eliciting_threshold(VarInt::from_u32(packets));
            config.ack_frequency_config(Some(frequency));
        }
        config
    }

    fn controller(&self) -> Arc<dyn ControllerFactory + Send + Sync> {
        macro_rules! controller {
            ($config:ty) => {{
                let mut config = <$config>::default();
                if let Some(bytes) = self.initial_window_bytes {
                    config.initial_window(bytes);
                }
                Arc::new(config)
            }};
        }
        match self.congestion {
            Congestion::Cubic => controller!(CubicConfig),
            Congestion::NewReno => controller!(NewRenoConfig),
            Congestion::Bbr => controller!(BbrConfig),
        }
    }

    fn endpoint(&self, key: &Keypair, address: SocketAddr, is_server: bool) -> Endpoint {
        let settings = self.for_relay();
        let transport = Arc::new(self.transport());
        let server = is_server.then(|| {
            let mut server = server_config(key).expect("an Ed25519 key");
            server.transport_config(Arc::clone(&transport));
            server
        });
        let socket = settings.bind(address).expect("a free port of loopback").socket;
        let endpoint = settings.endpoint(key).expect("an Ed25519 key");
        let mut endpoint = Endpoint::new(endpoint, server, socket, Arc::new(TokioRuntime))
            .expect("a socket of our own");
        let mut client = client_config(key).expect("an Ed25519 key");
        client.transport_config(transport);
        endpoint.set_default_client_config(client);
        endpoint
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Wish {
    /// So many bytes from the server.
    Download,
    /// One byte back when so many have come.
    Upload,
    /// So many bytes, back again.
    Echo,
}

/// Starts a server; it ends with its runtime.
pub fn serve(setting: Setting, key: &Keypair, address: SocketAddr) -> SocketAddr {
    let endpoint = setting.endpoint(key, address, true);
    let address = endpoint.local_addr().expect("it is bound");
    let body = Bytes::from(seeded(BODY_BYTES_MAX));
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let body = body.clone();
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((send, recv)) = connection.accept_bi().await {
                    tokio::spawn(answer(send, recv, body.clone()));
                }
            });
        }
    });
    address
}

/// Serves one stream; whatever fails is the client's to notice.
async fn answer(mut send: SendStream, mut recv: RecvStream, body: Bytes) -> Option<()> {
    let mut head = [0; HEAD_BYTES];
    recv.read_exact(&mut head).await.ok()?;
    let (len, wish) = head.split_first_chunk::<8>()?;
    let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
    match wish {
        [wish] if *wish == Wish::Download as u8 => {
            send.write_chunk(body.slice(..len.min(BODY_BYTES_MAX))).await.ok()?;
        }
        [wish] if *wish == Wish::Upload as u8 => {
            count(&mut recv).await;
            send.write_chunk(body.slice(..1)).await.ok()?;
        }
        _ => {
            while let Some(chunk) = recv.read_chunk(STEP_BYTES, true).await.ok()? {
                send.write_chunk(chunk.bytes).await.ok()?;
            }
        }
    }
    send.finish().ok()?;
    send.stopped().await.ok().map(drop)
}

/// Reads a stream to its end; returns how many bytes came.
pub async fn count(recv: &mut RecvStream) -> usize {
    let mut total = 0;
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await.expect("an open stream") {
        total += chunk.bytes.len();
    }
    total
}

/// One connection to a server of this module.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    body: Bytes,
    /// Keeps the socket open.
    _endpoint: Endpoint,
}

impl Client {
    /// Connects. Must be called on a runtime.
    pub async fn connect(setting: Setting, key: &Keypair, server: SocketAddr) -> Self {
        let mut clients = Self::connect_many(setting, key, server, 1).await;
        clients.pop().expect("one was asked for")
    }

    /// So many connections from one socket.
    pub async fn connect_many(
        setting: Setting,
        key: &Keypair,
        server: SocketAddr,
        count: usize,
    ) -> Vec<Self> {
        let endpoint = setting.endpoint(key, SocketAddr::from(([127, 0, 0, 1], 0)), false);
        let body = Bytes::from(seeded(BODY_BYTES_MAX));
        let mut clients = Vec::new();
        for _ in 0..count {
            let connecting = endpoint.connect(server, SERVER_NAME).expect("a valid address");
            let connection = connecting.await.expect("a server on this machine");
            clients.push(Self { connection, body: body.clone(), _endpoint: endpoint.clone() });
        }
        clients
    }

    /// Has the server send so many bytes.
    pub async fn download(&self, len: usize) {
        let mut recv = self.request(Wish::Download, len, 0).await;
        assert_eq!(count(&mut recv).await, len, "all bytes come");
    }

    /// Sends so many bytes and waits until they have arrived.
    pub async fn upload(&self, len: usize) {
        let mut recv = self.request(Wish::Upload, len, len).await;
        assert_eq!(count(&mut recv).await, 1, "the server counted");
    }

    /// Sends so many bytes and gets them back.
    pub async fn echo(&self, len: usize) {
        let mut recv = self.request(Wish::Echo, len, len).await;
        assert_eq!(count(&mut recv).await, len, "all bytes come back");
    }

    async fn request(&self, wish: Wish, len: usize, sent: usize) -> RecvStream {
        let (mut send, recv) = self.connection.open_bi().await.expect("an open connection");
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&(len as u64).to_le_bytes());
        head[8] = wish as u8;
        let mut pieces = vec![Bytes::copy_from_slice(&head)];
        pieces.extend(
            (0..sent)
                .step_by(STEP_BYTES)
                .map(|start| self.body.slice(start..sent.min(start + STEP_BYTES))),
        );
        send.write_all_chunks(&mut pieces).await.expect("an open stream");
        send.finish().expect("it is open");
        recv
    }
}
