// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything but the segments is deleted from a stopped node, and nothing is lost: the map is what
//! it was, and the node goes on. The map changes with what it maps, and damage is found.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use supernode_tests::network::{Network, Shape};
use supernode_tests::program::{Client, Ended, Program};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
/// The node whose directory is looked at. It gets one slot of every object.
const NODE: usize = 1;
const OBJECT_BYTES: usize = 3 << 20;

#[test]
fn the_log_is_the_truth() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let mut network = Network::start_as(PROGRAM, &Shape { nodes: 3, ..Shape::default() });
    let client = network.client();
    let objects: Vec<Vec<u8>> = (0..3).map(|_| random.bytes(OBJECT_BYTES)).collect();
    let cids: Vec<String> = objects.iter().map(|bytes| put(&network, &client, bytes)).collect();
    client.run(["rm", &cids[1]]).expect(0);
    network.kill(&[NODE]);
    network.restart(NODE);
    network.stop_node(NODE);

    let directory = Directory::of(&network);
    assert!(!directory.path.join("admin.sock").exists(), "a stopped node leaves files alone");
    let before = directory.hash("index");
    nothing_but_segments(&network, &directory, &before);

    // The keys are no part of the log: a node without them would be another node.
    network.restart(NODE);
    client.fetch_exact(&cids[0], &network.path(""), &objects[0]);
    let fourth = put(&network, &client, b"one object more");
    network.stop_node(NODE);
    let after_put = directory.hash("index");
    assert_ne!(after_put, before, "one more object changes the map");
    assert_eq!(directory.hash("log"), after_put);

    network.restart(NODE);
    client.run(["rm", &fourth]).expect(0);
    network.stop_node(NODE);
    let after_release = directory.hash("index");
    assert_ne!(after_release, after_put, "one lease less changes the map");
    assert_eq!(directory.hash("log"), after_release);

    let stopped = directory.fsck().expect(0).json();
    assert_eq!(stopped["clean"], true, "{stopped}");
    damage_is_found(&network, &objects[0]);
    network.stop();
}

/// Two data shards and one of parity, one for each node.
fn put(network: &Network, client: &Client, bytes: &[u8]) -> String {
    let file = network.path("object");
    fs::write(&file, bytes).expect("an own directory");
    let words = [OsStr::new("put"), "--class=2+1".as_ref(), file.as_os_str()];
    client.run(words).expect(0).text().to_owned()
}

fn nothing_but_segments(network: &Network, directory: &Directory, before: &str) {
    assert_eq!(directory.hash("log"), before, "index and log agree");
    assert_eq!(directory.hash("index"), before, "looking changes nothing");
    let keys = ["identity.key", "chain.key"].map(|name| {
        let path = directory.path.join(name);
        (fs::read(&path).expect("the node has its keys"), path)
    });
    for entry in fs::read_dir(&directory.path).expect("it is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            fs::remove_dir_all(&path).expect("an own directory");
        } else if path.extension().is_none_or(|extension| extension != "seg") {
            fs::remove_file(&path).expect("an own file");
        }
    }
    assert_eq!(directory.hash("log"), before, "the segments alone have the map");
    assert_eq!(directory.hash("index"), before, "the index is made from them");
    let stats = directory.run(["stats", "--json"]).expect(0).json();
    assert_eq!(stats["usage"]["live_slots"], 2, "two of three objects are kept: {stats}");
    assert_eq!(stats["usage"]["shards"]["trash"]["count"], 1, "one was let go: {stats}");
    let rebuilt = directory.run(["rebuild-index", "--json"]).expect(0).json();
    assert!(rebuilt["records"].as_u64() > Some(0), "{rebuilt}");
    assert_eq!(directory.hash("index"), before);
    let checked = directory.fsck().expect(0).json();
    assert_eq!(checked["clean"], true);
    assert!(checked["verified_bytes"].as_u64() > Some(OBJECT_BYTES as u64), "{checked}");
    for command in ["stats", "fsck", "rebuild-index"] {
        let ended = directory.run([command]).expect(0);
        assert!(!ended.text().is_empty(), "{command} says something to people");
    }
    for (key, path) in keys {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(path).expect("it was deleted");
        file.write_all(&key).expect("an own file");
    }
    let empty = network.path("empty");
    fs::create_dir(&empty).expect("an own directory");
    let none = network.program.run([
        OsStr::new("store"),
        "stats".as_ref(),
        "--data-dir".as_ref(),
        empty.as_os_str(),
    ]);
    assert!(none.refusal(2).contains("*.seg"), "an empty directory is no node's");
}

/// One bit of a payload, in whichever directory has the object's first shard.
fn damage_is_found(network: &Network, bytes: &[u8]) {
    let needle = &bytes[..64];
    let (segment, at) = network
        .nodes
        .iter()
        .flat_map(|node| segments(&node.data_dir))
        .find_map(|path| {
            let log = fs::read(&path).expect("a segment can be read");
            log.windows(needle.len()).position(|window| window == needle).map(|at| (path, at))
        })
        .expect("some node has the first shard");
    let from = segment.parent().expect("a segment lies in a data directory");
    // A copy of the segments, so that it does not matter whether the node runs.
    let damaged = network.path("damaged");
    fs::create_dir(&damaged).expect("an own directory");
    for path in segments(from) {
        let name = path.file_name().expect("a segment has a name");
        fs::copy(&path, damaged.join(name)).expect("an own directory");
    }
    let directory = Directory { program: network.program.clone(), path: damaged.clone() };
    directory.fsck().expect(0);
    assert_eq!(directory.run(["scrub", "--json"]).expect(0).json()["damaged"], 0);
    let copy = damaged.join(segment.file_name().expect("a segment has a name"));
    let mut log = fs::read(&copy).expect("just copied");
    log[at + 1000] ^= 1;
    fs::write(&copy, log).expect("an own file");
    let ended = directory.fsck().expect(1);
    let found = ended.json();
    assert_eq!(found["clean"], false);
    assert_eq!(found["damaged"].as_array().map(Vec::len), Some(1), "one shard: {found}");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let scrubbed = directory.run(["scrub", "--json"]).expect(1).json();
    assert_eq!((&scrubbed["damaged"], &scrubbed["passes"]), (&1.into(), &2.into()), "{scrubbed}");
}

fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data_dir).expect("it is there").flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect()
}

/// A data directory that no node works in.
struct Directory {
    program: Program,
    path: PathBuf,
}

impl Directory {
    fn of(network: &Network) -> Self {
        let path = network.nodes[NODE].data_dir.clone();
        Self { program: network.program.clone(), path }
    }

    fn run<const N: usize>(&self, words: [&str; N]) -> Ended {
        let words = ["store"].into_iter().chain(words).chain(["--data-dir"]).map(OsStr::new);
        self.program.run(words.chain([self.path.as_os_str()]))
    }

    fn fsck(&self) -> Ended {
        self.run(["fsck", "--json"])
    }

    /// The last line of the map with a hash, which is that of all lines before.
    fn hash(&self, from: &str) -> String {
        let ended = self.run(["dump-map", "--hash", "--from", from]).expect(0);
        let text = ended.text();
        assert!(text.lines().count() > 3, "a map of several things: {text}");
        let hash = text.lines().last().expect("a last line").to_owned();
        assert!(hash.len() == 64 && hash.chars().all(|digit| digit.is_ascii_hexdigit()), "{hash}");
        let json = self.run(["dump-map", "--hash", "--json", "--from", from]).expect(0).json();
        assert_eq!(json["hash"], hash.as_str());
        hash
    }
}
