// SPDX-License-Identifier: MIT OR Apache-2.0
//! Manifest blocks: one object has one encoding, and its sums never overflow.

use supernode_protocol::ids::Cid;
use supernode_protocol::limits::{PAGE_EXTENTS_MAX, STRIPE_WIDTH_MAX};
use supernode_protocol::manifest::{Page, Root};

/// A root.
pub fn root(block: &[u8]) -> bool {
    let Ok(root) = Root::decode(block) else { return false };
    let encoded = root.encode();
    assert!(encoded.bytes == block, "one root has two encodings");
    assert_eq!(encoded.cid, Cid::of(block), "the name of a root is that of its bytes");
    look_at(&root.page_0);
    let (mut end, mut stripes, mut groups) = (0, 0, 0);
    for span in root.groups() {
        assert_eq!((span.bytes.start, span.stripe_first), (end, stripes), "groups follow");
        assert!(root.slots_before(span.group).is_some(), "every group begins somewhere");
        assert!(root.open_page(span.group, block).is_err(), "a root is no page of itself");
        end = span.bytes.end;
        stripes += span.stripe_count;
        groups += 1;
    }
    assert_eq!(end, root.size, "groups cover the object");
    assert_eq!(groups, root.pages.len() + 1, "every page is a group");
    let _ = root.slot_count();
    let _ = root.open_page(u32::MAX, block);
    true
}

/// A page.
pub fn page(block: &[u8]) -> bool {
    let Ok(page) = Page::decode(block) else { return false };
    look_at(&page);
    true
}

fn look_at(page: &Page) {
    assert!(page.extents.len() <= PAGE_EXTENTS_MAX, "more extents than a page has");
    assert_eq!(page.len() == 0, page.is_empty(), "no extent is empty");
    let slots = usize::try_from(page.slot_count()).expect("few");
    assert_eq!(page.entries().count(), slots, "one entry for each slot");
    assert!(slots <= PAGE_EXTENTS_MAX * STRIPE_WIDTH_MAX, "more slots than stripes have");
    assert!(page.stripes().all(|stripe| stripe.width() == stripe.shards.len()), "ids are missing");
}
