// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold of a commit whatever else is here: its signature, and that it fits its manifest.
//! Blocks are named by their hash, so this can be read before the writer's turn.

use supernode_protocol::ids::Slot;
use supernode_protocol::lease::Commit;
use supernode_protocol::manifest::{Page, Root};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;

use crate::error::StoreError;
use crate::reader::Reader;
use crate::writer::CommitFacts;

/// Checks signature and width of a placement record.
pub(crate) fn check_placement(record: &Signed<PlacementRecord>) -> Result<(), StoreError> {
    let body = record.body_unverified();
    let bad =
        |reason: String| StoreError::BadCommit { object: body.object, group: body.group, reason };
    record.verify().map_err(|error| bad(error.to_string()))?;
    body.validate().map_err(|error| bad(error.to_string()))
}

/// Reads root and page of a commit's group and checks the commit against them.
pub(super) fn read(reader: &Reader, commit: &Commit) -> Result<CommitFacts, StoreError> {
    check_placement(&commit.placement)?;
    let (object, group) = (commit.object, commit.group);
    let bad = |reason: String| StoreError::BadCommit { object, group, reason };
    let block = reader.block(object)?;
    let block = block.ok_or_else(|| bad("its manifest root was not uploaded".to_owned()))?;
    let root = Root::decode(&block).map_err(|error| bad(error.to_string()))?;
    let span = root.groups().find(|span| span.group == group);
    let span = span.ok_or_else(|| bad("the manifest has no such group".to_owned()))?;
    let stated = (commit.page, commit.stripe_first, commit.stripe_count);
    if stated != (span.page, span.stripe_first, span.stripe_count) {
        return Err(bad("its page or stripes are not those of the manifest".to_owned()));
    }
    let page = match commit.page {
        None => root.page_0,
        Some(cid) => {
            let block = reader.block(cid)?;
            let block =
                block.ok_or_else(|| bad("its manifest page was not uploaded".to_owned()))?;
            root.open_page(group, &block).map_err(|error| bad(error.to_string()))?
        }
    };
    Ok(facts_of(root.size, commit.stripe_first, &page))
}

fn facts_of(object_bytes: u64, stripe_first: u32, page: &Page) -> CommitFacts {
    let mut facts = CommitFacts { object_bytes, ..CommitFacts::default() };
    for (stripe, extent) in (stripe_first..).zip(page.stripes()) {
        for (index, shard) in (0..).zip(&extent.shards) {
            facts.shards.insert(Slot { stripe, index }, (*shard, extent.shard_len));
        }
    }
    facts
}
