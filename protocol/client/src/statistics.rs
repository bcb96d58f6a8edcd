// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client has done so far: counters that every request moves and anybody may read.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Figures of one client since its start. Each is exact; together they are of about one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Requests sent, every repetition counted.
    pub requests: u64,
    /// Bytes of bodies handed to the transport.
    pub body_bytes_sent: u64,
    /// Bytes of bodies received, proofs included, before they were checked.
    pub body_bytes_received: u64,
    /// Requests repeated because a node was busy or a pooled connection proved dead.
    pub retries: u64,
    /// Reads asked of one more holder because the ones before took long.
    pub hedges: u64,
    /// Those of them that answered first.
    pub hedges_won: u64,
    /// Transfers that were cut and went on from the last verified byte.
    pub resumes: u64,
    /// Answers that were not what their hash, length or signature said.
    pub lies: u64,
    /// Connections made.
    pub connections_opened: u64,
    /// Those of them that ended without this client's doing.
    pub connections_lost: u64,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// [`Statistics`] as they are counted.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Statistics {
                Statistics { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters!(
    requests,
    body_bytes_sent,
    body_bytes_received,
    retries,
    hedges,
    hedges_won,
    resumes,
    lies,
    connections_opened,
    connections_lost,
);

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
