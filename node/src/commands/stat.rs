// SPDX-License-Identifier: MIT OR Apache-2.0
//! `stat`: what an object is, who holds which slot of it, and what losses it survives.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use supernode_object::{ObjectStat, SlotHealth, SlotStat};
use supernode_protocol::ids::{Cid, NodeId, ShardId, Slot};

use super::Given;
use super::network::{Needs, with_network};
use crate::cli::StatArgs;
use crate::exit::Failure;
use crate::output::{self, Output, Report};

/// People are shown every slot of an object that has no more than these, and of others those that
/// are not as they should be.
const SLOTS_SHOWN: usize = 100;

/// An object as its holders describe it.
#[derive(Debug, Serialize)]
struct Described {
    cid: Cid,
    size: u64,
    content_root: String,
    shards_root: String,
    slots_total: u64,
    /// Held by the holder that is recorded, where readers look for them.
    slots_healthy: usize,
    survives_nodes: Option<usize>,
    survives_regions: Option<usize>,
    missing: Vec<Slot>,
    slots: Vec<SlotLine>,
    groups: Vec<Group>,
}

/// One slot.
#[derive(Debug, Serialize)]
struct SlotLine {
    stripe: u32,
    index: u16,
    shard: ShardId,
    holder: Option<NodeId>,
    /// Who has it instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_by: Option<NodeId>,
    health: &'static str,
}

impl SlotLine {
    fn new(stat: &SlotStat) -> Self {
        let SlotStat { slot: Slot { stripe, index }, shard, holder, health } = *stat;
        let (health, held_by) = match health {
            SlotHealth::Healthy => ("healthy", None),
            SlotHealth::Elsewhere(other) => ("elsewhere", Some(other)),
            SlotHealth::Missing => ("missing", None),
            SlotHealth::Unknown => ("unknown", None),
        };
        Self { stripe, index, shard, holder, held_by, health }
    }

    fn row(&self) -> Vec<String> {
        let health = match self.held_by {
            Some(other) => format!("{} on {other}", self.health),
            None => self.health.to_owned(),
        };
        let holder = self.holder.map_or("nobody".to_owned(), |holder| holder.to_string());
        vec![format!("{}/{}", self.stripe, self.index), holder, health]
    }
}

/// One group and its holders.
#[derive(Debug, Serialize)]
struct Group {
    group: u32,
    stripes: u32,
    slots: u32,
    /// Slot index to node, as recorded.
    placement: Vec<NodeId>,
    /// Slots that a node says it holds; nodes that did not answer are absent.
    held: BTreeMap<NodeId, usize>,
    missing: Vec<Slot>,
}

impl Described {
    fn new(cid: Cid, stat: ObjectStat) -> Self {
        let slots: Vec<SlotLine> =
            stat.groups.iter().flat_map(|group| &group.slots).map(SlotLine::new).collect();
        let slots_healthy = slots.iter().filter(|slot| slot.health == "healthy").count();
        let groups: Vec<Group> = stat
            .groups
            .into_iter()
            .map(|group| Group {
                group: group.group,
                stripes: group.page.stripe_count(),
                slots: group.page.slot_count(),
                placement: group.placement,
                held: group.held.iter().map(|(node, slots)| (*node, slots.len())).collect(),
                missing: group.missing,
            })
            .collect();
        let missing: Vec<Slot> = groups.iter().flat_map(|group| group.missing.clone()).collect();
        Self {
            cid,
            size: stat.root.size,
            content_root: blake3::Hash::from_bytes(stat.root.content_root).to_hex().to_string(),
            shards_root: blake3::Hash::from_bytes(stat.root.shards_root).to_hex().to_string(),
            slots_total: stat.root.slot_count(),
            slots_healthy,
            survives_nodes: stat.durability.nodes.0,
            survives_regions: stat.durability.regions.0,
            missing,
            slots,
            groups,
        }
    }
}

impl Report for Described {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let losses = |count: Option<usize>| count.map_or("none".to_owned(), |it| it.to_string());
        writeln!(out, "cid               {}", self.cid)?;
        writeln!(out, "size              {} ({})", self.size, output::bytes(self.size))?;
        writeln!(out, "content root      {}", self.content_root)?;
        writeln!(out, "slots healthy     {} of {}", self.slots_healthy, self.slots_total)?;
        writeln!(out, "survives nodes    {}", losses(self.survives_nodes))?;
        writeln!(out, "survives regions  {}", losses(self.survives_regions))?;
        for group in &self.groups {
            writeln!(
                out,
                "\ngroup {}: {} stripes, {} slots",
                group.group, group.stripes, group.slots
            )?;
            let mut nodes: Vec<NodeId> = group.placement.clone();
            nodes.extend(group.held.keys());
            nodes.sort_unstable();
            nodes.dedup();
            let rows: Vec<Vec<String>> = nodes
                .iter()
                .map(|node| {
                    let held = group.held.get(node);
                    let held = held.map_or("no answer".to_owned(), |count| count.to_string());
                    vec![node.to_string(), held]
                })
                .collect();
            output::table(out, &["HOLDER", "SLOTS"], &rows)?;
        }
        let is_small = self.slots.len() <= SLOTS_SHOWN;
        let shown = self.slots.iter().filter(|slot| is_small || slot.health != "healthy");
        let rows: Vec<Vec<String>> = shown.map(SlotLine::row).collect();
        if !rows.is_empty() {
            writeln!(out)?;
            output::table(out, &["SLOT", "HOLDER", "HEALTH"], &rows)?;
        }
        if rows.len() < self.slots.len() {
            let healthy = self.slots.len() - rows.len();
            writeln!(out, "\n{healthy} healthy slots are not listed; --json lists all")?;
        }
        Ok(())
    }
}

/// Does `supernode stat`.
pub fn run(given: &Given, args: &StatArgs) -> Result<(), Failure> {
    let config = given.client_config(&args.network, Vec::new())?;
    let output = Output::new(args.json.json);
    let stat = with_network(&config, Needs::AnyKey, async |network| {
        network.ready().await?;
        Ok(network.objects.stat(args.cid).await?)
    })?;
    output.report(&Described::new(args.cid, stat))
}
