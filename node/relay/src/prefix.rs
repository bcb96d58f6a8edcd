// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pure: the networks that addresses are counted by. Ids cost nothing and addresses do.

use std::net::IpAddr;

/// A network: /24 in IPv4, /56 in IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Prefix {
    V4([u8; 3]),
    V6([u8; 7]),
}

impl Prefix {
    pub(crate) fn of(address: IpAddr) -> Self {
        // On a socket that takes both, IPv4 addresses come dressed as IPv6.
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g])
            }
        }
    }
}
