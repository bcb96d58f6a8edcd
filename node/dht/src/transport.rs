// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP, names, Noise, Yamux; and the gate that no dial gets around.
//!
//! The gate sits below name resolution, so a name that leads to a forbidden address is refused as
//! well. Which addresses to listen on is not its business: what is configured there is meant.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent,
};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport, dns, noise, tcp, yamux};

use crate::addresses::AddressRule;
use crate::error::DhtError;

/// From the first packet to an authenticated, multiplexed connection.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Builds the stack. Without a resolver configuration on this machine it works for addresses, and
/// fails only if `names_needed`.
pub(crate) fn build(
    identity: &Keypair,
    rule: AddressRule,
    names_needed: bool,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, DhtError> {
    let gate =
        || Gate { inner: tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)), rule };
    match dns::tokio::Transport::system(gate()) {
        Ok(transport) => secure(transport, identity),
        Err(error) if names_needed => Err(DhtError::Resolver { reason: error.to_string() }),
        Err(error) => {
            tracing::warn!(%error, "no resolver on this machine; only addresses can be dialled");
            secure(gate(), identity)
        }
    }
}

fn secure<T>(transport: T, identity: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, DhtError>
where
    T: Transport<Output = tcp::tokio::TcpStream> + Send + Unpin + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    T::Error: Send + Sync + 'static,
{
    let noise = noise::Config::new(identity)
        .map_err(|error| DhtError::Identity { reason: error.to_string() })?;
    Ok(transport
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed())
}

/// Refuses to dial what [`AddressRule`] does not allow, and to share a port.
///
/// Beneath it every listening socket is bound so that others may bind the same port, and dials
/// start from that port. The first lets two nodes share a port unnoticed, each getting half of the
/// connections; the second makes two nodes that dial each other at once meet in one TCP connection
/// with two initiators, which no handshake survives. Neither is wanted here.
struct Gate<T> {
    inner: T,
    rule: AddressRule,
}

impl<T> Transport for Gate<T>
where
    T: Transport<Error = io::Error> + Unpin,
{
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = T::Dial;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        if let Some(socket) = socket_of(&address).filter(|socket| socket.port() != 0) {
            TcpListener::bind(socket).map_err(TransportError::Other)?;
        }
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        if self.rule.allows(&address) {
            self.inner.dial(address, DialOpts { port_use: PortUse::New, ..options })
        } else {
            Err(TransportError::MultiaddrNotSupported(address))
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

fn socket_of(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::Endpoint;
    use libp2p::core::transport::{DialOpts, PortUse, TransportError};
    use libp2p::{Multiaddr, Transport, tcp};

    use super::Gate;
    use crate::addresses::AddressRule;

    fn dials(allow_private: bool, address: &str) -> bool {
        let inner = tcp::tokio::Transport::new(tcp::Config::default());
        let mut gate = Gate { inner, rule: AddressRule { allow_private } };
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
        let address: Multiaddr = address.parse().expect("a multiaddress");
        // The future is dropped: nothing is sent.
        match gate.dial(address, options) {
            Ok(_) => true,
            Err(TransportError::MultiaddrNotSupported(_)) => false,
            Err(TransportError::Other(error)) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn no_dial_gets_around_the_address_rule() {
        assert!(dials(false, "/ip4/8.8.8.8/tcp/1"));
        assert!(!dials(false, "/ip4/127.0.0.1/tcp/1"));
        assert!(!dials(false, "/ip4/169.254.169.254/tcp/80"));
        assert!(dials(true, "/ip4/127.0.0.1/tcp/1"));
    }
}
