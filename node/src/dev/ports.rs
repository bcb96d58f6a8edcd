// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports for processes that are started later.
//!
//! They lie below the range from which systems take the ports of outgoing connections (32768 and up
//! on Linux), or a node that dials could take the port on which the next one is to listen. Programs
//! that choose at the same time begin at different places.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use crate::exit::Failure;

const FIRST: u16 = 10_000;
const END: u16 = 32_000;

/// `count` neighbouring ports of 127.0.0.1 that nobody uses now. Somebody may take one before
/// its time; who finds it taken says so, and the directory can be made again.
///
/// # Errors
/// When there are not that many.
pub(super) fn free(count: u16) -> Result<Vec<u16>, Failure> {
    let blocks = (END - FIRST) / count.max(1);
    let chosen = std::process::id() % u32::from(blocks.max(1));
    let chosen = u16::try_from(chosen).expect("less than the number of blocks");
    (0..blocks)
        .map(|step| FIRST + (chosen + step) % blocks * count)
        .map(|first| (first..first + count).collect::<Vec<_>>())
        .find(|block| are_free(block))
        .ok_or_else(|| {
            let range = format!("{FIRST} to {END}");
            Failure::failed(format_args!(
                "no {count} free ports on 127.0.0.1 side by side ({range}); stop other networks"
            ))
        })
}

fn are_free(block: &[u16]) -> bool {
    block.iter().all(|port| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::{Ipv4Addr, TcpListener, UdpSocket, free};

    #[test]
    fn a_port_that_is_taken_is_not_chosen() {
        let [port, ..] = free(3).expect("there are some")[..] else { panic!("three") };
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it was free");
        let next = free(3).expect("there are more");
        assert!(!next.contains(&port), "{next:?} has {port}");
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, next[2])).expect("it was free");
        let last = free(3).expect("there are more");
        assert!(!last.contains(&next[2]), "{last:?} has {taken:?}");
    }
}
