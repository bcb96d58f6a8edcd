// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transfers over bad paths: whatever is lost, late, doubled or out of order, a transfer is exact
//! or ends with a typed error in time; and a client whose address changes is served on.
//!
//! `SUPERNODE_TEST_SEED` decides who is lost; `SUPERNODE_BLACKOUT_SECS` how long the long blackout
//! is, which is a second unless told.

use std::time::Duration;

use bytes::Bytes;
use supernode_client::{Client, ClientError, Peer};
use supernode_protocol::ids::ShardId;
use tokio::time::timeout;

use crate::eventually::pass;
use crate::proxy::{Proxy, Weather};
use crate::setup::{Setup, bytes_of, client, eventually, number, put_of};

/// Longer than any transfer here may take; a hang fails instead of waiting for the harness.
const LATE: Duration = Duration::from_secs(100);
/// How long those clients wait for whom nothing comes any more.
const SOME: Duration = Duration::from_secs(4);
const MIB: usize = 1 << 20;

struct Road {
    setup: Setup,
    proxy: Proxy,
    client: Client,
    peer: Peer,
}

impl Road {
    async fn new(weather: Weather) -> Self {
        Self::with(weather, false, Duration::from_secs(30)).await
    }

    async fn with(weather: Weather, migration: bool, patience: Duration) -> Self {
        let setup = Setup::with(|config| {
            config.migration = migration;
            config.transport.idle_timeout_secs = 5;
        });
        let seed = number("SUPERNODE_TEST_SEED", 1);
        let proxy = Proxy::through(setup.relay.local_addr(), weather, seed).await;
        let client = client(&setup.writer_key, |config| {
            config.connect_timeout = Duration::from_secs(1);
            config.request_timeout = patience;
            // A bad path may be as slow as it likes here; what counts is progress.
            config.transfer_bytes_per_sec_min = 1 << 10;
        });
        let peer = Peer { node: setup.peer().node, addresses: vec![proxy.address] };
        Self { setup, proxy, client, peer }
    }

    async fn put(&self, bytes: &Bytes) -> Result<(), ClientError> {
        let put = self.client.put_shard(&self.peer, put_of(bytes));
        timeout(LATE, put).await.expect("a put ends").map(drop)
    }

    async fn get(&self, bytes: &Bytes) -> Result<Bytes, ClientError> {
        let shard = ShardId::of(bytes);
        let get = self.client.shard(&self.peer, shard, bytes.len() as u64);
        timeout(LATE, get).await.expect("a get ends")
    }

    /// A put, a get and a get of a part, all of them exact.
    async fn carry(&self, len: usize) {
        let bytes = bytes_of(len);
        self.put(&bytes).await.expect("a put");
        assert_eq!(self.get(&bytes).await.expect("a get"), bytes);
        let (shard, part) = (ShardId::of(&bytes), 100_000..300_000);
        let get = self.client.shard_range(&self.peer, shard, len as u64, 100_000..300_000);
        let got = timeout(LATE, get).await.expect("a get ends").expect("a part");
        assert_eq!(got, bytes.slice(part));
        assert!(self.proxy.troubled() > 10, "the weather was fine");
        self.assert_quiet().await;
    }

    async fn assert_quiet(&self) {
        let is_quiet = || self.setup.relay.metrics().requests_inflight == 0;
        eventually("every permit is back", is_quiet).await;
    }
}

#[tokio::test]
async fn transfers_are_exact_where_datagrams_are_lost() {
    let weather =
        Weather { lost_permille: 20, delay: Duration::from_millis(2), ..Weather::default() };
    Road::new(weather).await.carry(MIB).await;
}

#[tokio::test]
async fn transfers_are_exact_where_datagrams_overtake_each_other() {
    let weather = Weather { jitter: Duration::from_millis(10), ..Weather::default() };
    Road::new(weather).await.carry(MIB).await;
}

#[tokio::test]
async fn transfers_are_exact_where_datagrams_come_twice() {
    let weather = Weather { doubled_permille: 500, ..Weather::default() };
    Road::new(weather).await.carry(8 * MIB).await;
}

#[tokio::test]
async fn transfers_are_exact_where_everything_is_bad_at_once() {
    let weather = Weather {
        lost_permille: 30,
        doubled_permille: 30,
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(10),
    };
    Road::new(weather).await.carry(MIB).await;
}

#[tokio::test]
async fn eight_mebibytes_pass_where_little_is_lost() {
    let weather = Weather {
        lost_permille: 2,
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(1),
        ..Weather::default()
    };
    Road::new(weather).await.carry(8 * MIB).await;
}

#[tokio::test]
async fn a_put_that_makes_progress_is_not_given_up() {
    let weather = Weather { delay: Duration::from_millis(100), ..Weather::default() };
    let road = Road::with(weather, false, Duration::from_millis(500)).await;
    // Slow start alone takes it more round trips than the client is patient for.
    road.put(&bytes_of(2 * MIB)).await.expect("bytes flow all the time");
}

/// A slow path, on which a get is certainly under way after some datagrams.
async fn under_way(road: &Road, bytes: &Bytes, then: impl Future<Output = ()>) -> Got {
    let start = road.proxy.delivered();
    let moment = async {
        eventually("the get is under way", || road.proxy.delivered() > start + 100).await;
        then.await;
    };
    let (got, ()) = tokio::join!(road.get(bytes), moment);
    got
}

type Got = Result<Bytes, ClientError>;

fn slow() -> Weather {
    Weather { delay: Duration::from_millis(10), ..Weather::default() }
}

#[tokio::test]
async fn a_blackout_that_is_short_is_not_noticed() {
    let road = Road::with(slow(), false, SOME).await;
    let bytes = bytes_of(8 * MIB);
    road.put(&bytes).await.expect("a put");
    let dark = async {
        road.proxy.black_out(true);
        pass(Duration::from_millis(300)).await;
        road.proxy.black_out(false);
    };
    let got = under_way(&road, &bytes, dark).await;
    assert_eq!(got.expect("long before the time-out"), bytes);
    assert_eq!(road.setup.relay.metrics().connections_total, 1);
    road.assert_quiet().await;
}

#[tokio::test]
async fn a_blackout_that_is_long_is_a_typed_error_and_light_again_is_service_again() {
    let road = Road::with(slow(), false, SOME).await;
    let bytes = bytes_of(8 * MIB);
    road.put(&bytes).await.expect("a put");
    let dark = async { road.proxy.black_out(true) };
    let error = under_way(&road, &bytes, dark).await.expect_err("nothing comes any more");
    let is_typed = matches!(error, ClientError::Timeout { .. } | ClientError::Unreachable { .. });
    assert!(is_typed && error.retryable(), "{error}");
    assert_eq!(error.node(), Some(road.peer.node));
    let error = road.get(&bytes).await.expect_err("it is still dark");
    assert!(error.retryable(), "{error}");
    pass(Duration::from_secs(number("SUPERNODE_BLACKOUT_SECS", 1))).await;
    road.proxy.black_out(false);
    assert_eq!(road.get(&bytes).await.expect("it is light"), bytes);
    road.assert_quiet().await;
}

#[tokio::test]
async fn a_client_whose_port_changes_is_served_on_where_that_is_allowed() {
    let road = Road::with(slow(), true, SOME).await;
    let bytes = bytes_of(8 * MIB);
    road.put(&bytes).await.expect("a put");
    let got = under_way(&road, &bytes, async { road.proxy.rebind() }).await;
    assert_eq!(got.expect("the connection moves with its client"), bytes);
    assert_eq!(road.setup.relay.metrics().connections_total, 1);
    road.assert_quiet().await;
}

#[tokio::test]
async fn a_client_whose_port_changes_dials_again_where_moving_is_not_allowed() {
    let road = Road::with(slow(), false, SOME).await;
    let bytes = bytes_of(8 * MIB);
    road.put(&bytes).await.expect("a put");
    let got = under_way(&road, &bytes, async { road.proxy.rebind() }).await;
    assert!(got.expect("it goes on over another connection") == bytes, "other bytes");
    assert_eq!(road.setup.relay.metrics().connections_total, 2);
    road.assert_quiet().await;
}
