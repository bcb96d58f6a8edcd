// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chapters about the chain: deals are made, audited, damaged, and end.
//!
//! Three objects: one whose deal ends during the demo, one whose deal lives on, and one of which a
//! shard is damaged on one node's disk, from outside its process. What the chain says is read from
//! its storage by plain RPC, and what the nodes keep from their segments.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::try_join_all;
use supernode_protocol::ids::{Cid, Slot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::child::Client;
use super::ledger::{Ledger, LedgerAudit};
use super::slots::{self, Payload};
use super::story::{NODES, STRIPE_SLOTS, Stored, Story, describe, failed, sha256};
use crate::dev::layout::NodePlan;
use crate::dev::probe;
use crate::exit::Failure;

/// Bytes of the objects: one stripe each, shards of many chunks.
const OBJECT_BYTES: usize = 3 << 20;
/// How long the deal that ends is to last.
const SHORT: &str = "72blocks";
/// How long the others are to last: far beyond the demo.
const LONG: &str = "100000blocks";
/// A provider record lives for 40 s in the demo; a busy machine takes its time to forget it.
const RECORD_PATIENCE: Duration = Duration::from_secs(90);
/// How long the chain may take to bring something about, at a quarter of a second a block.
const CHAIN_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// The node whose disk is damaged.
const VICTIM: usize = 2;

/// An object with a deal.
pub(super) struct Paid {
    stored: Stored,
    deal: u64,
}

/// What the chapters hand on to each other.
pub(super) struct Deals {
    ledger: Ledger,
    ends: Paid,
    lives: Paid,
    damaged: Paid,
    /// Where the bytes of the object that ends were.
    payloads: Vec<Payload>,
    slots_before: f64,
    bytes_before: f64,
    /// Finds the last finalised block at which that object was whole.
    watcher: JoinHandle<Result<u64, Failure>>,
}

/// The damage that was done.
pub(super) struct Damage {
    slot: Slot,
    node: u32,
    /// Audits opened after this block have to notice.
    height: u32,
}

impl Story {
    /// Three objects are put with deals, which must then be on chain and on disk.
    pub(super) async fn make_deals(&mut self, client: &Client) -> Result<Deals, Failure> {
        self.chapter("Three objects are put with deals: reserved, uploaded, activated");
        let endpoint = self.cluster.layout.chain.endpoint.clone();
        let ledger = Ledger::new(&endpoint);
        let slots_before = self.sum("supernode_slots").await;
        let bytes_before = self.sum("supernode_stored_bytes").await;
        let ends = self.put_paid(client, 1, SHORT).await?;
        let lives = self.put_paid(client, 2, LONG).await?;
        let damaged = self.put_paid(client, 3, LONG).await?;
        let mut active = 0;
        for paid in [&ends, &lives, &damaged] {
            let deal = ledger.deal(paid.deal).await?;
            let is_it = deal.is_some_and(|deal| {
                deal.object == paid.stored.cid && deal.bytes > 0 && deal.expires_at > 0
            });
            active += usize::from(is_it);
        }
        self.checks.equal("three deals are active in the chain's storage", &active, &3);
        let (mut payloads, mut sound) = (Vec::new(), 0);
        for node in self.cluster.layout.nodes.clone() {
            let disk = slots::read(&node.data_dir)?;
            sound += [&ends, &lives, &damaged]
                .map(|paid| disk.sound_slots(paid.stored.cid))
                .iter()
                .sum::<u64>();
            payloads.extend(disk.payloads_of(ends.stored.cid).into_iter().map(|(_, it)| it));
        }
        self.checks.equal("every slot of the three deals is on disk", &sound, &(3 * STRIPE_SLOTS));
        let dirs = self.seven().into_iter().map(|node| node.data_dir).collect();
        let watcher = tokio::spawn(last_whole(Ledger::new(&endpoint), dirs, ends.stored.cid));
        Ok(Deals { ledger, ends, lives, damaged, payloads, slots_before, bytes_before, watcher })
    }

    async fn put_paid(
        &mut self,
        client: &Client,
        number: u64,
        duration: &str,
    ) -> Result<Paid, Failure> {
        let path = self.dir.join(format!("paid-{number}"));
        fs::write(&path, content(number)).map_err(|error| failed(&path, &error))?;
        let sha256 = sha256(&path)?;
        let ended = client
            .run([
                "put".into(),
                path.into_os_string(),
                "--json".into(),
                "--deal".into(),
                duration.into(),
            ])
            .await?;
        let report: Option<serde_json::Value> = serde_json::from_str(&ended.stdout).ok();
        let cid = report.as_ref().and_then(|it| it.get("cid")?.as_str()?.parse::<Cid>().ok());
        let deal = report.as_ref().and_then(|it| it.get("deal")?.get("deal")?.as_u64());
        self.checks.note(
            &format!("put --deal of object {number} exits 0 and names object and deal"),
            ended.code == 0 && cid.is_some() && deal.is_some(),
            describe(&ended, duration),
        );
        match (cid, deal) {
            (Some(cid), Some(deal)) => {
                Ok(Paid { stored: Stored { cid, size: OBJECT_BYTES as u64, sha256 }, deal })
            }
            _ => Err(Failure::failed(format_args!("the put failed: {}", ended.said))),
        }
    }

    /// The first round over all three deals: every slot is drawn, every proof passes.
    pub(super) async fn audits_pass(&mut self, deals: &Deals) -> Result<(), Failure> {
        self.chapter("Every slot of the three deals is audited");
        let wanted = 3 * STRIPE_SLOTS;
        let ids = deals.ids();
        let drawn = |audits: &[LedgerAudit]| {
            let slots: BTreeSet<_> =
                of(audits, &ids).map(|it| (it.deal, it.stripe, it.index)).collect();
            slots.len() as u64
        };
        let audits = self.await_audits(deals, |audits| drawn(audits) >= wanted).await?;
        self.checks.equal("each of their slots was audited on chain", &drawn(&audits), &wanted);
        let nodes: BTreeSet<u32> = of(&audits, &ids).map(|audit| audit.node).collect();
        self.checks.equal("every node was audited", &nodes.len(), &NODES);
        let passed = of(&audits, &ids).filter(|audit| audit.passed).count();
        let all = of(&audits, &ids).count();
        self.checks.equal("every proof was accepted in the chain's storage", &passed, &all);
        Ok(())
    }

    /// Every chunk of one shard is changed in the segment file of one node.
    pub(super) async fn damage_a_shard(&mut self, deals: &Deals) -> Result<Damage, Failure> {
        self.chapter("A shard is damaged on one node's disk, from outside its process");
        let plan = self.cluster.layout.nodes[VICTIM].clone();
        let node = deals.ledger.index_of(plan.peer_id).await?;
        let node = node.ok_or_else(|| Failure::failed("the damaged node is not registered"))?;
        let disk = slots::read(&plan.data_dir)?;
        let (slot, payload) = disk
            .payloads_of(deals.damaged.stored.cid)
            .into_iter()
            .next()
            .ok_or_else(|| Failure::failed("the node to be damaged has no shard"))?;
        let height = deals.ledger.finalised().await?;
        payload.damage().map_err(|error| failed(&plan.data_dir, &error))?;
        let disk = slots::read(&plan.data_dir)?;
        self.checks.equal(
            "one shard on the damaged disk does not hash to its id",
            &disk.unsound_shards.len(),
            &1,
        );
        Ok(Damage { slot, node, height })
    }

    /// A round that began after the damage: that slot's audit fails, the node's others pass.
    pub(super) async fn damage_is_noticed(
        &mut self,
        deals: &Deals,
        damage: &Damage,
    ) -> Result<(), Failure> {
        self.chapter("Audits of the damaged slot fail, and no others");
        // A few blocks may have been under way while the bytes were changed.
        let since = damage.height + 4;
        let later = |audits: &[LedgerAudit]| -> Vec<LedgerAudit> {
            audits.iter().filter(|audit| audit.opened_at > since).cloned().collect()
        };
        let is_hit = |audit: &LedgerAudit| {
            (audit.deal, audit.node) == (deals.damaged.deal, damage.node)
                && (audit.stripe, audit.index) == (damage.slot.stripe, damage.slot.index)
        };
        let audits = self.await_audits(deals, |audits| later(audits).iter().any(is_hit)).await?;
        let audits = later(&audits);
        let hits = audits.iter().filter(|audit| is_hit(audit)).count();
        let failed = audits.iter().filter(|audit| is_hit(audit) && !audit.passed).count();
        self.checks.note(
            "audits of the damaged slot fail on chain",
            hits > 0 && failed == hits,
            format!("{failed} of {hits}"),
        );
        let wrongly = audits.iter().filter(|audit| !audit.passed && !is_hit(audit)).count();
        self.checks.equal("no other audit fails", &wrongly, &0);
        let others =
            audits.iter().filter(|audit| audit.node == damage.node && audit.passed).count();
        self.checks.note(
            "the damaged node proves its other slots",
            others > 0,
            format!("{others} passed"),
        );
        let all = deals.ledger.audits().await?;
        self.report.audits_passed = all.iter().filter(|audit| audit.passed).count() as u64;
        self.report.audits_failed = all.iter().filter(|audit| !audit.passed).count() as u64;
        let http = self.cluster.layout.nodes[VICTIM].http.clone();
        let counted =
            self.await_metric(&http, r#"supernode_audits_total{result="unprovable"}"#).await;
        self.checks.note(
            "the damaged node counts the audit it could not prove",
            counted.is_some_and(|count| count > 0.0),
            counted.map_or_else(|| "no answer".to_owned(), |count| count.to_string()),
        );
        Ok(())
    }

    /// The short deal ends: chain, disks, figures and network agree that its object is gone.
    pub(super) async fn a_deal_ends(
        &mut self,
        client: &Client,
        deals: &mut Deals,
    ) -> Result<(), Failure> {
        self.chapter("The deal of the first object ends, and its bytes go");
        let ends = &deals.ends;
        let until = Instant::now() + CHAIN_PATIENCE;
        let mut end = deals.ledger.end(ends.deal).await?;
        while end.is_none() && Instant::now() < until {
            sleep(LOOK_PAUSE).await;
            end = deals.ledger.end(ends.deal).await?;
        }
        let not_before = end.as_ref().map_or(0, |end| end.at);
        let last_whole = match timeout(CHAIN_PATIENCE, &mut deals.watcher).await {
            Ok(Ok(watched)) => watched?,
            _ => 0,
        };
        self.checks.note(
            "no slot of it went before its end was final",
            not_before > 0 && last_whole >= u64::from(not_before),
            format!("all there at block {last_whole}, end at block {not_before}"),
        );
        let expired = end.as_ref().is_some_and(|it| it.object == ends.stored.cid && !it.cancelled);
        let told = end.map_or_else(|| "no tombstone".to_owned(), |it| format!("block {}", it.at));
        self.checks.note("the deal has expired in the chain's storage", expired, told);
        let left = self.await_gone(ends.stored.cid).await?;
        self.report.slots_after_expiry = left;
        self.checks.equal("no slot of it is left in any segment", &left, &0);
        let holes = self.await_holes(&deals.payloads).await?;
        let wanted = deals.payloads.len();
        self.checks.equal("the file systems have its payloads back", &holes, &wanted);
        let slots = deals.slots_before + 2.0 * STRIPE_SLOTS as f64;
        let counted = self.await_sum_down("supernode_slots", slots).await;
        self.checks.equal(
            "the nodes count the slots of the two other deals alone",
            &counted,
            &slots,
        );
        let bytes = self.await_sum_down("supernode_stored_bytes", 0.0).await - deals.bytes_before;
        let two = 2.0 * STRIPE_SLOTS as f64 * shard_bytes() as f64;
        self.checks.note(
            "the bytes in use are back",
            bytes >= two && bytes < 1.1 * two,
            format!("{bytes} more than before the deals, {two} are shards of the two others"),
        );
        let found = self.leading_to(deals.lives.stored.cid).await?;
        self.checks.equal(
            "each of the seven nodes leads to the object that lives on",
            &found.len(),
            &NODES,
        );
        let found = self.await_unknown(ends.stored.cid).await?;
        self.checks.equal("none of the seven nodes leads to it any more", &found, &0);
        self.another_lives(client, deals).await
    }

    async fn another_lives(&mut self, client: &Client, deals: &Deals) -> Result<(), Failure> {
        let lives = &deals.lives;
        let deal = deals.ledger.deal(lives.deal).await?;
        let mut sound = 0;
        for node in self.cluster.layout.nodes.clone() {
            sound += slots::read(&node.data_dir)?.sound_slots(lives.stored.cid);
        }
        let (ended, digest) = self.get(client, &lives.stored, "paid").await?;
        let exact = ended.code == 0 && digest.as_ref() == Some(&lives.stored.sha256);
        self.report.other_object_intact = exact && deal.is_some() && sound == STRIPE_SLOTS;
        self.checks.note(
            "the object whose deal lives on is untouched",
            self.report.other_object_intact,
            describe(&ended, &format!("{sound} slots")),
        );
        Ok(())
    }

    async fn await_audits(
        &self,
        deals: &Deals,
        enough: impl Fn(&[LedgerAudit]) -> bool,
    ) -> Result<Vec<LedgerAudit>, Failure> {
        let until = Instant::now() + CHAIN_PATIENCE;
        loop {
            let audits = deals.ledger.audits().await?;
            if enough(&audits) || Instant::now() >= until {
                return Ok(audits);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Slots of an object that the nodes' logs still name.
    fn slots_left(&self, object: Cid) -> Result<u64, Failure> {
        let left = self.seven().into_iter().map(|node| slots::named(&node.data_dir, object));
        left.sum()
    }

    /// A metric with its labels, as soon as it is more than nothing or at the deadline.
    async fn await_metric(&self, address: &str, name: &str) -> Option<f64> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let value = probe::metric(address, name).await;
            if value.is_some_and(|value| value > 0.0) || Instant::now() >= until {
                return value;
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Slots of an object that are left, as soon as none is or at the deadline.
    async fn await_gone(&self, object: Cid) -> Result<u64, Failure> {
        let until = Instant::now() + CHAIN_PATIENCE;
        loop {
            let left = self.slots_left(object)?;
            if left == 0 || Instant::now() >= until {
                return Ok(left);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Payloads that the file systems keep nothing of, as soon as that is all or at the deadline.
    async fn await_holes(&self, payloads: &[Payload]) -> Result<usize, Failure> {
        let until = Instant::now() + CHAIN_PATIENCE;
        loop {
            let mut holes = 0;
            for payload in payloads {
                let hole = payload.is_hole();
                holes += usize::from(hole.map_err(|error| failed(&self.dir, &error))?);
            }
            if holes == payloads.len() || Instant::now() >= until {
                return Ok(holes);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Of seven clients that each know one node, those that still find an object, as soon as none
    /// does or at the deadline.
    async fn await_unknown(&self, object: Cid) -> Result<usize, Failure> {
        let until = Instant::now() + RECORD_PATIENCE;
        loop {
            let found = self.leading_to(object).await?;
            if found.is_empty() {
                return Ok(0);
            }
            if Instant::now() >= until {
                // What they say tells a record that stays from a client that cannot ask.
                found.iter().for_each(|said| self.checks.talk(format_args!("  {said}")));
                return Ok(found.len());
            }
        }
    }

    /// Of seven clients that each know one node, what those say that do not find an object unknown.
    /// They ask at the same time: each of them looks until it has waited long enough to say no.
    async fn leading_to(&self, object: Cid) -> Result<Vec<String>, Failure> {
        let asked = self.seven().into_iter().map(|node| async move {
            let words =
                ["stat".to_owned(), object.to_string(), "--bootstrap".to_owned(), node.libp2p];
            self.client(&self.cluster.layout.client_config()).run(words).await
        });
        let ended = try_join_all(asked).await?;
        let told = ended.into_iter().filter(|ended| ended.code != 3);
        Ok(told.map(|ended| format!("exit {}: {}", ended.code, ended.said.trim())).collect())
    }

    async fn await_sum_down(&self, name: &str, expected: f64) -> f64 {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let sum = self.sum(name).await;
            if sum <= expected || expected == 0.0 || Instant::now() >= until {
                return sum;
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    async fn sum(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for node in self.seven() {
            sum += probe::metric(&node.http, name).await.unwrap_or(0.0);
        }
        sum
    }

    fn seven(&self) -> Vec<NodePlan> {
        self.cluster.layout.nodes.iter().take(NODES).cloned().collect()
    }
}

/// Looks at an object's slots until one is gone: the last finalised block before whose look all of
/// them were there.
async fn last_whole(ledger: Ledger, data_dirs: Vec<PathBuf>, object: Cid) -> Result<u64, Failure> {
    let mut last = 0;
    loop {
        let height = ledger.finalised().await?;
        let left: u64 =
            data_dirs.iter().map(|dir| slots::named(dir, object)).sum::<Result<u64, Failure>>()?;
        if left < STRIPE_SLOTS {
            return Ok(last);
        }
        last = u64::from(height);
        sleep(LOOK_PAUSE).await;
    }
}

impl Deals {
    fn ids(&self) -> [u64; 3] {
        [self.ends.deal, self.lives.deal, self.damaged.deal]
    }
}

/// Audits of these deals.
fn of<'a>(audits: &'a [LedgerAudit], deals: &'a [u64]) -> impl Iterator<Item = &'a LedgerAudit> {
    audits.iter().filter(|audit| deals.contains(&audit.deal))
}

/// Bytes that no other object has and that no file system finds zeros in.
fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; OBJECT_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"supernode demo").update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Bytes of each shard of such an object.
fn shard_bytes() -> u64 {
    supernode_protocol::geometry::shard_len(OBJECT_BYTES as u64, 10)
}
