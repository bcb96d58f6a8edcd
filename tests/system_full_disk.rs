// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node whose disk is really full refuses new bytes with a reason, gives back and lets go of old
//! ones, and takes new ones again as soon as there is room.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;
use supernode_tests::network::{Network, Shape};
use supernode_tests::process;
use supernode_tests::program::{Client, Ended};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const DISK: &str = "size=96m";
const RESERVE: &str = "8MiB";
/// Leaves less than the reserve together with what is stored before.
const FILLER_BYTES: usize = 78 << 20;

/// A file system in memory over a node's data directory.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts it over the directory, whose files move into it.
    fn over(at: &Path) -> Self {
        let aside = at.with_file_name("aside");
        fs::rename(at, &aside).expect("an own directory");
        fs::create_dir(at).expect("an own directory");
        as_root(&["mount", "-t", "tmpfs", "-o", DISK, "supernode-test"], at);
        let disk = Self { at: at.to_owned() };
        let me = geteuid().as_raw().to_string();
        as_root(&["chown", &me], at);
        for entry in fs::read_dir(&aside).expect("an own directory").flatten() {
            copy(&entry.path(), &at.join(entry.file_name()));
        }
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        as_root(&["umount", "--lazy"], &self.at);
    }
}

fn as_root(words: &[&str], path: &Path) {
    let mut words = process::as_root().iter().chain(words);
    let mut command = Command::new(words.next().expect("there are words"));
    let status = command.args(words).arg(path).status().expect("the command exists");
    assert!(status.success(), "{command:?} needs root");
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).expect("an own directory");
        for entry in fs::read_dir(from).expect("an own directory").flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else if from.is_file() {
        // A socket is left behind with the process that listened there.
        fs::copy(from, to).expect("there is room for an empty node");
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let settings = [("SUPERNODE_STORAGE__RESERVE_BYTES", RESERVE)];
    let mut network =
        Network::start_as(PROGRAM, &Shape { nodes: 1, settings: &settings, ..Shape::default() });
    let (client, dir) = (network.client(), network.path(""));
    network.stop_node(0);
    let data_dir = network.nodes[0].data_dir.clone();
    let disk = Disk::over(&data_dir);
    network.restart(0);

    let (kept, refused) = (random.bytes(4 << 20), random.bytes(16 << 20));
    let cid = put(&client, &dir, &kept).expect(0).text().to_owned();
    let filler = data_dir.join("filler");
    let mut file = File::create(&filler).expect("there is room for it");
    file.write_all(&random.bytes(FILLER_BYTES)).expect("there is room for it");
    // An open file keeps its room even when it is deleted.
    drop(file);

    let line = put(&client, &dir, &refused).refusal(4);
    assert!(line.contains("full") && line.contains("reserve"), "{line}");
    client.fetch_exact(&cid, &dir, &kept);
    client.run(["rm", &cid]).expect(0);
    assert_eq!(client.run(["ls", "--json"]).expect(0).json(), serde_json::json!([]));

    fs::remove_file(&filler).expect("an own file");
    let later = put(&client, &dir, &refused).expect(0).text().to_owned();
    client.fetch_exact(&later, &dir, &refused);
    network.stop_node(0);
    network.restart(0);
    client.fetch_exact(&later, &dir, &refused);
    // Unmounted before the network's directory is removed, and after the node has left it.
    network.stop_node(0);
    drop(disk);
    network.stop();
}

/// One copy on one node is all that this network can do.
fn put(client: &Client, dir: &Path, bytes: &[u8]) -> Ended {
    let file = dir.join("object");
    fs::write(&file, bytes).expect("an own directory");
    let words = ["put", "--class=1+0", "--tolerate-nodes=0"].map(OsStr::new);
    client.run(words.into_iter().chain([file.as_os_str()]))
}
