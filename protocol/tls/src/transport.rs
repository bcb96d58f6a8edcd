// SPDX-License-Identifier: MIT OR Apache-2.0
//! What QUIC and its UDP socket are set to, on both ends.
//!
//! quinn's own defaults let one peer pin memory without a bound (an unlimited connection window,
//! 100 MiB of buffered handshakes, datagrams, unidirectional streams); here every one of them is a
//! number. A connection pins at most its two windows, plus the bytes it is sending.
//!
//! A node that was killed and came back must tell its peers so, or each of them waits for a
//! time-out. QUIC's stateless reset does that, if the new process can still make the old one's
//! tokens: the reset key and the mark in our connection ids are derived from the identity key.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use libp2p_identity::Keypair;
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::identity::TlsError;

/// Largest UDP payload there is, for loopback: 65,535 less the headers.
pub const MTU_BYTES_MAX: u16 = 65_527;
/// Smallest payload that every QUIC path carries.
pub const MTU_BYTES_MIN: u16 = 1200;

/// Packets that quinn hands the kernel in one call; together they must fit into one datagram's
/// length, or all of them are lost.
const SEGMENTS_MAX: u16 = 10;
/// QUIC payload of an Ethernet frame, which every endpoint accepts.
const ETHERNET_PAYLOAD_BYTES: u16 = 1472;
const RESET_KEY_DOMAIN: &[u8] = b"supernode/quic-reset/1";
const CONNECTION_ID_DOMAIN: &[u8] = b"supernode/quic-connection-id/1";

/// How a sender finds the rate that a path bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Congestion {
    /// CUBIC (RFC 9438), which lives well with everybody else's TCP.
    #[default]
    Cubic,
    /// BBR, an experiment: quinn says so itself. Over 40 ms with 50 packets lost in a million it
    /// moved 21 MiB/s where CUBIC moved 10, on loopback 429 against 490.
    Bbr,
}

/// Settings of the transport that make sense on both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transport {
    /// Bytes one stream may have in flight towards us; it moves at most these per round trip. The
    /// default is for 300 Mbit/s at 100 ms (bandwidth times delay, 3.75 MB).
    pub stream_window_bytes: u32,
    /// Bytes all streams of a connection may have in flight towards us: what a peer can pin. The
    /// default is for 1.3 Gbit/s at 100 ms.
    pub connection_window_bytes: u32,
    /// Bytes of ours that may wait for an acknowledgement on a connection.
    pub send_window_bytes: u32,
    /// Seconds without a packet after which a connection is gone.
    pub idle_timeout_secs: u64,
    /// Largest UDP payload to probe for: 1452 on the internet, up to 65,527 on loopback when both
    /// ends say so. Above 6552 packets go out one by one: ten of them, as offload takes, are more
    /// than a datagram can say, the kernel refuses them, and quinn takes that for a black hole and
    /// sends 1200 bytes for a minute. Measured on loopback, both ends, one by one: packets of
    /// 65,507 cost 0.87 s of processor time per GiB, packets of 1452 in tens 2.1 s.
    pub mtu_bytes_max: u16,
    /// How we find the rate at which to send.
    pub congestion: Congestion,
    /// Bytes we may send on a new connection before anything is acknowledged; ten packets, as
    /// RFC 9002 has it. More gained nothing in the sweep of the bench of the relay.
    pub initial_window_bytes: u32,
    /// Packets that the peer is asked to take without acknowledging them; 1 is QUIC's own every
    /// other packet. What comes out of order, and what is late, is acknowledged all the same.
    /// Neither 3 nor 9 nor 24 changed the processor time per byte on loopback by more than a
    /// fiftieth, so the default asks for nothing.
    pub unacknowledged_packets_max: u32,
    /// Hand the kernel many packets in one call; off only for network cards that get it wrong.
    /// Without it packets of 1452 cost 5.4 s of processor time per GiB on loopback, with it 2.2 s.
    pub segmentation_offload: bool,
    /// Bytes to ask the kernel for in each direction of the UDP socket. More is not better: what
    /// queues there is sent too fast, and is lost in bulk when the queue is full. On a busy machine
    /// with 16 MiB of windows, loopback moved 143 MiB/s with 4 MiB, 418 with 1 MiB, and 483 with
    /// 208 KiB; 1 MiB holds 8 ms of 1 Gbit/s, as long as a busy node may look away.
    pub socket_buffer_bytes: u32,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            stream_window_bytes: 4 << 20,
            connection_window_bytes: 16 << 20,
            send_window_bytes: 16 << 20,
            idle_timeout_secs: 30,
            mtu_bytes_max: 1452,
            congestion: Congestion::Cubic,
            initial_window_bytes: 12_000,
            unacknowledged_packets_max: 1,
            segmentation_offload: true,
            socket_buffer_bytes: 1 << 20,
        }
    }
}

/// A setting that is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} = {value} is out of range: {rule}")]
pub struct SettingError {
    /// Its name, as written in the configuration.
    pub setting: &'static str,
    /// What it was set to.
    pub value: u64,
    /// What it may be.
    pub rule: &'static str,
}

/// Passes when `holds`; otherwise names the setting and the rule.
///
/// # Errors
/// [`SettingError`] made of the arguments.
pub fn check_setting(
    holds: bool,
    setting: &'static str,
    value: impl Into<u64>,
    rule: &'static str,
) -> Result<(), SettingError> {
    if holds { Ok(()) } else { Err(SettingError { setting, value: value.into(), rule }) }
}

impl Transport {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first setting that is out of it.
    pub fn validate(&self) -> Result<(), SettingError> {
        const WINDOW: std::ops::RangeInclusive<u32> = 64 << 10..=1 << 30;
        const WINDOW_RULE: &str = "64 KiB to 1 GiB";
        for (setting, value) in [
            ("stream_window_bytes", self.stream_window_bytes),
            ("connection_window_bytes", self.connection_window_bytes),
            ("send_window_bytes", self.send_window_bytes),
        ] {
            check_setting(WINDOW.contains(&value), setting, value, WINDOW_RULE)?;
        }
        check_setting(
            self.stream_window_bytes <= self.connection_window_bytes,
            "stream_window_bytes",
            self.stream_window_bytes,
            "at most connection_window_bytes",
        )?;
        check_setting(
            (1..=3600).contains(&self.idle_timeout_secs),
            "idle_timeout_secs",
            self.idle_timeout_secs,
            "1 to 3600",
        )?;
        check_setting(
            (MTU_BYTES_MIN..=MTU_BYTES_MAX).contains(&self.mtu_bytes_max),
            "mtu_bytes_max",
            self.mtu_bytes_max,
            "1200 to 65527",
        )?;
        check_setting(
            (2400..=16 << 20).contains(&self.initial_window_bytes),
            "initial_window_bytes",
            self.initial_window_bytes,
            "2400 (two packets) to 16 MiB",
        )?;
        check_setting(
            (1..=64).contains(&self.unacknowledged_packets_max),
            "unacknowledged_packets_max",
            self.unacknowledged_packets_max,
            "1 to 64",
        )?;
        check_setting(
            (64 << 10..=256 << 20).contains(&self.socket_buffer_bytes),
            "socket_buffer_bytes",
            self.socket_buffer_bytes,
            "64 KiB to 256 MiB",
        )
    }

    /// These settings as quinn wants them; the peer may have `peer_streams_max` requests open.
    pub fn to_quinn(&self, peer_streams_max: u32) -> TransportConfig {
        let idle = Duration::from_secs(self.idle_timeout_secs);
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.mtu_bytes_max);
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(peer_streams_max))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(self.stream_window_bytes))
            .receive_window(VarInt::from_u32(self.connection_window_bytes))
            .send_window(u64::from(self.send_window_bytes))
            .max_idle_timeout(Some(
                IdleTimeout::try_from(idle).expect("validated to an hour at most"),
            ))
            .mtu_discovery_config(Some(discovery))
            .ack_frequency_config(self.ack_frequency())
            .congestion_controller_factory(self.controller())
            .enable_segmentation_offload(
                self.segmentation_offload && self.mtu_bytes_max < u16::MAX / SEGMENTS_MAX,
            );
        config
    }

    /// `None` for a peer that is asked for nothing special.
    fn ack_frequency(&self) -> Option<AckFrequencyConfig> {
        (self.unacknowledged_packets_max > 1).then(|| {
            let mut config = AckFrequencyConfig::default();
            config.ack_eliciting_threshold(VarInt::from_u32(self.unacknowledged_packets_max));
            config
        })
    }

    fn controller(&self) -> Arc<dyn ControllerFactory + Send + Sync> {
        let window = u64::from(self.initial_window_bytes);
        match self.congestion {
            Congestion::Cubic => {
                let mut config = CubicConfig::default();
                config.initial_window(window);
                Arc::new(config)
            }
            Congestion::Bbr => {
                let mut config = BbrConfig::default();
                config.initial_window(window);
                Arc::new(config)
            }
        }
    }

    /// The endpoint's side of these settings, with reset tokens that survive a restart.
    ///
    /// # Errors
    /// [`TlsError::KeyType`].
    pub fn endpoint(&self, identity: &Keypair) -> Result<EndpointConfig, TlsError> {
        let secret = |domain| identity.derive_secret(domain).ok_or(TlsError::KeyType);
        let mark = secret(CONNECTION_ID_DOMAIN)?;
        let (mark, _) = mark.split_first_chunk::<8>().expect("32 bytes hold 8");
        let mark = u64::from_le_bytes(*mark);
        let mut config = EndpointConfig::new(Arc::new(ResetKey(secret(RESET_KEY_DOMAIN)?)));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(mark)));
        config
            .max_udp_payload_size(self.mtu_bytes_max.max(ETHERNET_PAYLOAD_BYTES))
            .expect("validated to be within QUIC's range");
        Ok(config)
    }

    /// Opens the UDP socket. IPv6 addresses take IPv4 too, where the system allows it.
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub fn bind(&self, address: SocketAddr) -> io::Result<BoundSocket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        let wanted = usize::try_from(self.socket_buffer_bytes).unwrap_or(usize::MAX);
        // The kernel clips to its own limit instead of failing, so the result is read back. Linux
        // counts its bookkeeping in and reports twice of what it granted.
        socket.set_recv_buffer_size(wanted)?;
        socket.set_send_buffer_size(wanted)?;
        let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?) / 2;
        Ok(BoundSocket {
            socket: socket.into(),
            buffer_bytes: granted,
            is_clipped: granted < wanted,
        })
    }
}

/// An open UDP socket and what the kernel really gave it.
#[derive(Debug)]
pub struct BoundSocket {
    /// The socket.
    pub socket: UdpSocket,
    /// Buffer bytes in the smaller direction.
    pub buffer_bytes: usize,
    /// Whether that is less than was asked for; `net.core.rmem_max` and `wmem_max` decide.
    pub is_clipped: bool,
}

/// Keyed BLAKE3 in the place of an HMAC.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = blake3::keyed_hash(&self.0, data);
        let given = <[u8; blake3::OUT_LEN]>::try_from(signature).map_err(|_| CryptoError)?;
        // Comparing two hashes takes the same time wherever they differ.
        if expected == blake3::Hash::from_bytes(given) { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use super::Transport;

    type Damage = fn(&mut Transport);

    #[test]
    fn the_defaults_are_valid_and_each_bound_is_checked() {
        Transport::default().validate().expect("the defaults");
        let broken: [(&str, Damage); 8] = [
            ("stream_window_bytes", |t| t.stream_window_bytes = 1),
            ("connection_window_bytes", |t| t.connection_window_bytes = u32::MAX),
            ("send_window_bytes", |t| t.send_window_bytes = 0),
            ("stream_window_bytes", |t| t.stream_window_bytes = 32 << 20),
            ("mtu_bytes_max", |t| t.mtu_bytes_max = 65_528),
            ("idle_timeout_secs", |t| t.idle_timeout_secs = 0),
            ("initial_window_bytes", |t| t.initial_window_bytes = 2399),
            ("unacknowledged_packets_max", |t| t.unacknowledged_packets_max = 0),
        ];
        for (setting, damage) in broken {
            let mut transport = Transport::default();
            damage(&mut transport);
            let error = transport.validate().expect_err(setting);
            assert_eq!(error.setting, setting);
        }
    }
}
