// SPDX-License-Identifier: MIT OR Apache-2.0
//! Withdrawing is local at once, and everywhere after the time to live.

use bytes::Bytes;
use supernode_dht::DhtConfig;
use supernode_protocol::ids::Cid;

use crate::eventually;
use crate::network::{address, server, start};

fn short_lived(bootstrap: &[String]) -> DhtConfig {
    DhtConfig { provider_ttl_secs: 2, republish_interval_secs: 1, ..server(bootstrap) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_record_ends_everywhere_and_others_live_on() {
    let holder = start(short_lived(&[])).await;
    let other = start(short_lived(&[address(&holder).await])).await;
    eventually::members(&[&holder, &other], 2).await;
    let block = Bytes::from_static(b"withdrawn");
    let (gone, kept) = (Cid::of(&block), Cid::of(b"kept"));
    holder.announce(gone).await.expect("a server");
    holder.announce(kept).await.expect("a server");
    holder.publish_manifest(gone, block).await.expect("its own hash");
    eventually::figures(&other, "both arrived", |m| m.providers == 2 && m.manifests == 1).await;
    assert_eq!(other.providers(gone).await, Ok(vec![holder.local()]));

    holder.withdraw(gone).await.expect("it runs");
    let figures = holder.metrics();
    assert_eq!((figures.announced, figures.published_manifests), (1, 0));
    eventually::figures(&other, "its time is over", |m| m.providers == 1 && m.manifests == 0).await;
    assert_eq!(other.providers(gone).await, Ok(vec![]));
    assert_eq!(other.manifest(gone).await, Ok(None));

    // What is still announced has been renewed several times by now.
    let renewed = holder.metrics().publications_total;
    eventually::figures(&holder, "renewed", |m| m.publications_total >= renewed + 4).await;
    assert_eq!(other.providers(kept).await, Ok(vec![holder.local()]));
}
