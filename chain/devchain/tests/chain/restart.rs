// SPDX-License-Identifier: MIT OR Apache-2.0
//! A chain survives its process: an orderly end, a `kill -9`, and a tail that was torn.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sp_core::H256;
use subxt_signer::sr25519::dev;
use supernode_devchain::{DevChain, Genesis, LogError, OpenError, Options, Seal, StartError};

use super::harness::{balance_at, by_hand, client, rpc, signed_transfer, start, stranger, watch};

/// Names the directory to the child of the `kill -9` story.
const CHILD_DIR: &str = "DEVCHAIN_TEST_DIR";

fn kept(dir: &Path) -> Options {
    Options { dir: Some(dir.to_owned()), ..by_hand() }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("there is room");
    let chain = start(kept(dir.path())).await;
    let paid = {
        let client = client(&chain).await;
        let rpc = rpc(&chain.url()).await;
        let transfer = signed_transfer(&client, &dev::alice(), stranger(8), 0).await;
        let _watched = watch(&rpc, &transfer).await;
        chain.seal().await.expect("the chain runs")
    };
    for _ in 0..3 {
        chain.seal().await.expect("the chain runs");
    }
    chain.reorg(1).await.expect("it is not final");
    let (best, finalised) = (chain.best(), chain.finalised());
    let root = chain.state_root(best.hash);
    // Somebody who is connected and listens does not keep the directory in use.
    let listener = client(&chain).await;
    let mut heads = listener.stream_best_blocks().await.expect("it is a stream");
    heads.next().await.expect("the stream is open").expect("the block is known");
    chain.stop().await;

    let chain = start(kept(dir.path())).await;
    assert_eq!((chain.best(), chain.finalised()), (best, finalised));
    assert_eq!(chain.state_root(best.hash), root);
    let client = client(&chain).await;
    assert_eq!(balance_at(&client, paid.hash.0, stranger(8)).await, 1_000);
    assert_eq!(chain.seal().await.expect("the chain runs").number, best.number + 1);
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_genesis_and_one_process() {
    let dir = tempfile::tempdir().expect("there is room");
    let chain = start(kept(dir.path())).await;
    let genesis_hash = chain.genesis_hash();
    let second = DevChain::start(kept(dir.path())).await;
    let in_use = matches!(second, Err(StartError::Open(OpenError::Log(LogError::InUse { .. }))));
    assert!(in_use, "{second:?}");
    chain.stop().await;

    let other = Genesis { name: "Another".to_owned(), ..Genesis::default() };
    let wrong = DevChain::start(Options { genesis: Some(other), ..kept(dir.path()) }).await;
    assert!(matches!(wrong, Err(StartError::Open(OpenError::OtherGenesis { .. }))), "{wrong:?}");
    let chain = start(Options { genesis: Some(Genesis::default()), ..kept(dir.path()) }).await;
    assert_eq!(chain.genesis_hash(), genesis_hash);
    chain.stop().await;

    // A file that was edited no longer fits the log beside it.
    let file = dir.path().join("genesis.json");
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, text.replace("Supernode", "Other")).expect("it is writable");
    let edited = DevChain::start(kept(dir.path())).await;
    assert!(matches!(edited, Err(StartError::Open(OpenError::OtherGenesis { .. }))), "{edited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_and_a_damaged_middle_is_refused() {
    let dir = tempfile::tempdir().expect("there is room");
    let log = dir.path().join("chain.log");
    let chain = start(kept(dir.path())).await;
    for _ in 0..5 {
        chain.seal().await.expect("the chain runs");
    }
    let (best, finalised) = (chain.best(), chain.finalised());
    let whole = std::fs::metadata(&log).expect("it is there").len();
    chain.seal().await.expect("the chain runs");
    chain.stop().await;
    let longer = std::fs::metadata(&log).expect("it is there").len();
    let image = std::fs::read(&log).expect("it is readable");

    // Every length of a last batch that did not make it, in steps that are no record's length.
    for length in (whole..longer).step_by(97) {
        let torn = OpenOptions::new().write(true).open(&log).expect("it is writable");
        torn.set_len(length).expect("it is writable");
        let chain = start(kept(dir.path())).await;
        assert_eq!((chain.best(), chain.finalised()), (best, finalised), "cut at {length}");
        chain.stop().await;
        assert_eq!(std::fs::metadata(&log).expect("it is there").len(), whole);
        std::fs::write(&log, &image).expect("it is writable");
    }
    // A tail of zeros, as some file systems leave it, and one of noise.
    for tail in [vec![0; 5000], vec![0xa5; 5000]] {
        let mut file = OpenOptions::new().append(true).open(&log).expect("it is writable");
        file.write_all(&tail).expect("there is room");
        let chain = start(kept(dir.path())).await;
        assert_eq!(chain.best().number, best.number + 1);
        chain.stop().await;
    }
    for offset in (9..image.len() / 2).step_by(411) {
        let mut damaged = image.clone();
        damaged[offset] ^= 1;
        std::fs::write(&log, &damaged).expect("it is writable");
        let refused = DevChain::start(kept(dir.path())).await;
        let refused = refused.expect_err("blocks were promised").to_string();
        assert!(refused.contains("damaged at byte"), "{offset}: {refused}");
    }
}

/// Not a test of its own: the process that `kill_nine_loses_nothing_that_was_told` kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is started by another test, and only ends by being killed"]
async fn the_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    let seal = Seal::Every(Duration::from_millis(5));
    let chain = start(Options { seal, ..kept(&dir) }).await;
    loop {
        let head = chain.finalised();
        let root = chain.state_root(head.hash).expect("it is known");
        println!("\nhead {} {:?} {root:?}", head.number, head.hash);
        chain.seal().await.expect("the chain runs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_loses_nothing_that_was_told() {
    let dir = tempfile::tempdir().expect("there is room");
    for round in 1..=3u32 {
        let mut child = Command::new(std::env::current_exe().expect("it runs"))
            .args(["restart::the_child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is this program");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut told = Vec::new();
        for line in output.lines() {
            let line = line.expect("it is text");
            let mut words = line.split(' ');
            if words.next() != Some("head") {
                continue;
            }
            let number: u32 =
                words.next().and_then(|word| word.parse().ok()).expect("a number follows");
            let hashes: Vec<H256> =
                words.map(|word| word.parse().expect("a hash follows")).collect();
            told.push((number, hashes[0], hashes[1]));
            if number >= round * 20 {
                break;
            }
        }
        child.kill().expect("it runs");
        child.wait().expect("it was killed");
        let chain = start(kept(dir.path())).await;
        let (number, hash, root) = *told.last().expect("it told something");
        assert!(chain.finalised().number >= number, "round {round}");
        assert_eq!(chain.state_root(hash), Some(root), "round {round}");
        let client = client(&chain).await;
        let at = client.at_block(u64::from(number)).await.expect("the number is known");
        assert_eq!(at.block_hash().0, hash.0, "round {round}: what was final is canonical");
        chain.stop().await;
    }
}
