// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which addresses may be dialled, remembered and passed on.
//!
//! Strangers choose the addresses they show us, and dialling whatever they name would turn nodes
//! into scanners of private networks. One rule serves routing table, provider records and, as the
//! last gate after name resolution, the transport itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Addresses kept of one peer at most.
const ADDRESSES_MAX: usize = 4;
/// Their encoded bytes at most: 20 peers and a value of 8 KiB still fit a 16 KiB packet.
const ADDRESSES_BYTES_MAX: usize = 256;

/// What is allowed beyond public addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddressRule {
    /// Also loopback, private and link-local ranges: development and closed networks.
    pub(crate) allow_private: bool,
}

impl AddressRule {
    /// Whether the address has the one supported form, `/ip4|ip6|dns…/HOST/tcp/PORT[/p2p/PEER]`,
    /// and leads to a place that may be dialled.
    pub(crate) fn allows(self, address: &Multiaddr) -> bool {
        let mut parts = address.iter();
        let host = match parts.next() {
            Some(Protocol::Ip4(ip)) => self.allows_ip(IpAddr::V4(ip)),
            Some(Protocol::Ip6(ip)) => self.allows_ip(IpAddr::V6(ip)),
            Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => {
                self.allows_name(&name)
            }
            _ => false,
        };
        let port = matches!(parts.next(), Some(Protocol::Tcp(port)) if port != 0);
        let end = match parts.next() {
            None => true,
            Some(Protocol::P2p(_)) => parts.next().is_none(),
            Some(_) => false,
        };
        host && port && end
    }

    /// Keeps what may be kept of the addresses a peer shows of itself, within the limits.
    pub(crate) fn keep(self, peer: &PeerId, shown: &[Multiaddr]) -> Vec<Multiaddr> {
        let mut bytes = 0;
        let mut kept: Vec<Multiaddr> = Vec::new();
        let full = shown
            .iter()
            .filter(|address| self.allows(address))
            .filter_map(|address| address.clone().with_p2p(*peer).ok());
        for address in full {
            let fits = bytes + address.as_ref().len() <= ADDRESSES_BYTES_MAX;
            if fits && kept.len() < ADDRESSES_MAX && !kept.contains(&address) {
                bytes += address.as_ref().len();
                kept.push(address);
            }
        }
        kept
    }

    fn allows_ip(self, ip: IpAddr) -> bool {
        let ip = canonical(ip);
        let never = match ip {
            IpAddr::V4(ip) => never_v4(ip),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
        };
        let private = match ip {
            IpAddr::V4(ip) => private_v4(ip),
            IpAddr::V6(ip) => private_v6(ip),
        };
        !never && (self.allow_private || !private)
    }

    fn allows_name(self, name: &str) -> bool {
        let local = name == "localhost" || name.ends_with(".localhost") || name.ends_with(".local");
        !name.is_empty() && (self.allow_private || !local)
    }
}

/// An IPv4 address in IPv6 clothes is judged as what it is.
fn canonical(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, high, low] = v6.segments();
            let embedded = match (a, b, c, d, e, f) {
                // Mapped (::ffff:0:0/96), translated (64:ff9b::/96), and the old compatible form.
                (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => true,
                (0, 0, 0, 0, 0, 0) => high != 0,
                _ => false,
            };
            if embedded {
                let [a, b] = high.to_be_bytes();
                let [c, d] = low.to_be_bytes();
                return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
            }
            ip
        }
        IpAddr::V4(_) => ip,
    }
}

fn never_v4(ip: Ipv4Addr) -> bool {
    // 0.0.0.0/8 means "this host"; 240.0.0.0/4 is reserved.
    ip.octets()[0] == 0 || ip.octets()[0] >= 240 || ip.is_multicast()
}

fn private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || (a == 100 && (b & 0xc0) == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b & 0xfe) == 18)
}

fn private_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    ip.is_loopback()
        || (a & 0xfe00) == 0xfc00
        || (a & 0xffc0) == 0xfe80
        || (a & 0xffc0) == 0xfec0
        || (a == 0x2001 && b == 0xdb8)
        || (a == 0x64 && b == 0xff9b)
        // Tunnels carry an IPv4 address of the sender's choice: 6to4 and Teredo.
        || a == 0x2002
        || (a == 0x2001 && b == 0)
        || (a == 0x100 && b == 0)
}

#[cfg(test)]
mod tests {
    use libp2p::{Multiaddr, PeerId};

    use super::{ADDRESSES_MAX, AddressRule};

    const PUBLIC: AddressRule = AddressRule { allow_private: false };
    const PRIVATE: AddressRule = AddressRule { allow_private: true };

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("a multiaddress")
    }

    #[test]
    fn only_public_places_are_dialled_by_default() {
        for text in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.1.2.3/tcp/1",
            "/ip4/172.31.0.1/tcp/1",
            "/ip4/192.168.0.1/tcp/1",
            "/ip4/169.254.169.254/tcp/80",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
            "/ip6/::7f00:1/tcp/1",
            "/ip6/64:ff9b::a00:1/tcp/1",
            "/ip6/2002:7f00:1::/tcp/1",
            "/dns4/localhost/tcp/1",
        ] {
            assert!(!PUBLIC.allows(&address(text)), "{text}");
        }
        for text in ["/ip4/127.0.0.1/tcp/1", "/ip4/10.1.2.3/tcp/1", "/ip6/fe80::1/tcp/1"] {
            assert!(PRIVATE.allows(&address(text)), "{text}");
        }
        for text in ["/ip4/8.8.8.8/tcp/1", "/ip6/2606:4700::1/tcp/1", "/dns/example.org/tcp/1"] {
            assert!(PUBLIC.allows(&address(text)), "{text}");
        }
    }

    #[test]
    fn other_forms_are_never_dialled() {
        for text in [
            "/ip4/8.8.8.8/udp/1/quic-v1",
            "/ip4/8.8.8.8/tcp/0",
            "/ip4/8.8.8.8",
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip4/255.255.255.255/tcp/1",
            "/ip4/8.8.8.8/tcp/1/ws",
            "/unix/%2ftmp%2fx",
        ] {
            assert!(!PRIVATE.allows(&address(text)), "{text}");
        }
    }

    #[test]
    fn a_peer_that_shows_thousands_of_addresses_keeps_a_few() {
        let peer = PeerId::random();
        let shown: Vec<_> =
            (1..2000).map(|port| address(&format!("/ip4/8.8.8.8/tcp/{port}"))).collect();
        assert_eq!(PUBLIC.keep(&peer, &shown).len(), ADDRESSES_MAX);
        let long = address(&format!("/dns4/{}.example/tcp/1", "a".repeat(230)));
        assert!(PUBLIC.keep(&peer, &[long]).is_empty());
        let other = address("/ip4/8.8.8.8/tcp/1").with_p2p(PeerId::random()).expect("first");
        assert!(PUBLIC.keep(&peer, &[other]).is_empty(), "an address that names somebody else");
    }
}
