// SPDX-License-Identifier: MIT OR Apache-2.0
//! One peer that sends more than its share takes nothing from others.

use libp2p::kad::RecordKey;
use supernode_dht::{DhtConfig, Rejection};
use supernode_protocol::ids::Cid;

use crate::attacker::Attacker;
use crate::eventually;
use crate::network::{address, server, start};

const QUOTA: usize = 10;
const FLOOD: u32 = 60;

fn bounded() -> DhtConfig {
    let mut config = server(&[]);
    config.records.providers_per_peer_max = QUOTA;
    config.records.manifests_per_peer_max = QUOTA;
    config
}

fn content_key(cid: Cid) -> RecordKey {
    RecordKey::from(cid.to_ipld().to_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_provider_records_evicts_nobody() {
    let victim = start(bounded()).await;
    let honest = start(server(&[address(&victim).await])).await;
    eventually::members(&[&victim, &honest], 2).await;
    let before = Cid::of(b"announced before the flood");
    honest.announce(before).await.expect("a server");
    let own = Cid::of(b"the victim's own");
    victim.announce(own).await.expect("a server");

    let mut attacker = Attacker::of(&victim).await;
    for number in 0..FLOOD {
        attacker.provide(content_key(Cid::of(&number.to_le_bytes()))).await;
    }
    let wanted = u64::from(FLOOD) - 10;
    let counted = eventually::figures(&victim, "counted", |m| {
        m.rejected_total(Rejection::PeerQuota) >= wanted
    });
    attacker.while_answering(counted).await;
    assert_eq!(victim.metrics().providers, QUOTA + 1);

    let after = Cid::of(b"announced after the flood");
    attacker.while_answering(honest.announce(after)).await.expect("a server");
    let kept = eventually::figures(&victim, "room for others", |m| m.providers == QUOTA + 2);
    attacker.while_answering(kept).await;
    for (cid, holder) in [(before, &honest), (after, &honest), (own, &victim)] {
        let found = attacker.while_answering(victim.providers(cid)).await.expect("ready");
        assert_eq!(found, [holder.local()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_true_manifests_stops_at_the_quota() {
    let victim = start(bounded()).await;
    let mut attacker = Attacker::of(&victim).await;
    for number in 0..FLOOD {
        let block = number.to_le_bytes();
        attacker.put(content_key(Cid::of(&block)), block.to_vec()).await;
    }
    let wanted = u64::from(FLOOD) - 10;
    let counted = eventually::figures(&victim, "counted", |m| {
        m.rejected_total(Rejection::PeerQuota) == wanted
    });
    attacker.while_answering(counted).await;
    assert_eq!(victim.metrics().manifests, QUOTA);
}
