// SPDX-License-Identifier: MIT OR Apache-2.0
//! A put with a deal that fails after the money was set aside says what became of the money: the
//! reservation is taken up again with `--resume`, or given back with `deal cancel`. Balances are
//! read from the chain itself.

use std::ffi::OsStr;
use std::fs;

use supernode_tests::chain::balances;
use supernode_tests::network::{Network, Shape};
use supernode_tests::program::{Client, Ended};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const NODES: usize = 4;

fn put(client: &Client, file: &OsStr, terms: &str) -> Ended {
    client.run(["put".as_ref(), "--json".as_ref(), "--class=2+2".as_ref(), terms.as_ref(), file])
}

/// The error of a put that has reserved and not uploaded; JSON on stdout stays empty.
#[track_caller]
fn story(ended: Ended, deal: u64) {
    let line = ended.refusal(1);
    let cancel = format!("supernode deal cancel {deal}");
    for words in
        [format!("deal {deal} stays reserved until block "), format!("--resume {deal}"), cancel]
    {
        assert!(line.contains(&words), "{words:?} is not in: {line}");
    }
}

#[test]
fn a_deal_can_be_taken_up_again() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    // Nodes that offer nothing refuse everything, and hold nothing of what was refused.
    let nothing = [("SUPERNODE_STORAGE__CAPACITY_BYTES", "0")];
    let mut network =
        Network::start_as(PROGRAM, &Shape { nodes: NODES, settings: &nothing, ..Shape::default() });
    let (client, dir, endpoint) = (network.client(), network.path(""), network.endpoint());
    let bytes = random.bytes(300_000);
    let file = dir.join("object");
    fs::write(&file, &bytes).expect("an own directory");
    let shown =
        |deal: u64| client.run(["deal", "show", &deal.to_string(), "--json"]).expect(0).json();

    let before = balances(&endpoint);
    story(put(&client, file.as_os_str(), "--deal=1000blocks"), 1);
    let reserved = shown(1);
    assert_eq!(reserved["state"], "reserved");
    let escrow: u128 = reserved["escrow"].as_str().and_then(|it| it.parse().ok()).expect("money");
    assert!(escrow > 0, "{reserved}");
    // Exactly one account has paid, and exactly one (the pallet's) has it now.
    let set_aside = balances(&endpoint);
    let changed: Vec<_> = before.iter().filter(|(key, free)| set_aside[*key] != **free).collect();
    assert_eq!(changed.len(), 2, "who pays and who holds");
    assert!(changed.iter().any(|(key, free)| set_aside[*key] + escrow == **free));
    assert!(changed.iter().any(|(key, free)| set_aside[*key] == **free + escrow));

    client.run(["deal", "cancel", "1"]).expect(0);
    assert_eq!(balances(&endpoint), before, "all of it is back");
    let again = client.run(["deal", "cancel", "1"]);
    assert_ne!(again.code, 0, "there is nothing left to give back");
    assert_eq!(balances(&endpoint), before, "and it is back once");

    story(put(&client, file.as_os_str(), "--deal=1000blocks"), 2);
    // Nothing has changed for the nodes: the same story, of the same reservation.
    story(put(&client, file.as_os_str(), "--resume=2"), 2);
    let everyone: Vec<usize> = (0..NODES).collect();
    network.kill(&everyone);
    network.restart_all_with(&everyone, &[("SUPERNODE_STORAGE__CAPACITY_BYTES", "1GiB")]);
    let done = put(&client, file.as_os_str(), "--resume=2").expect(0).json();
    assert_eq!((&done["deal"]["deal"], &done["deal"]["holders"]), (&2.into(), &NODES.into()));
    assert_eq!(done["deal"]["without_receipt"], serde_json::json!([]), "every holder is paid");
    let active = shown(2);
    assert_eq!((&active["state"], &active["object"]), (&"active".into(), &done["cid"]));
    client.fetch_exact(done["cid"].as_str().expect("a CID"), &dir, &bytes);
    network.stop();
}
