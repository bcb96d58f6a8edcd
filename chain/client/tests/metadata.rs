// SPDX-License-Identifier: MIT OR Apache-2.0
//! The committed metadata is that of the runtime in this repository.
//!
//! `UPDATE_METADATA=1 cargo test -p supernode-chain --test metadata` writes it anew; what is
//! compiled from it is seen with the next build.

use std::path::Path;

use supernode_chain::runtime::METADATA;

#[test]
fn the_metadata_is_that_of_the_development_runtime() {
    let now = supernode_devchain::metadata();
    if std::env::var_os("UPDATE_METADATA").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("metadata/supernode-dev.scale");
        std::fs::write(path, &now).expect("the file can be written");
        return;
    }
    assert!(METADATA == now, "the runtime has changed: run with UPDATE_METADATA=1");
}
