// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node on several disks: what it says of them, how one is drained, and what it does without one.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;

use serde_json::Value;

use crate::program::{NodeDir, Running, finish};

/// A node on two disks beside its data directory, and where it listens.
struct TwoDisks {
    node: NodeDir,
    disks: [PathBuf; 2],
    listen: String,
}

impl TwoDisks {
    fn new() -> Self {
        let node = NodeDir::new();
        let disks = ["a", "b"].map(|name| node.path().with_file_name(name));
        let entry = |disk: &PathBuf| {
            format!("{{ path = {:?}, capacity_bytes = \"1GiB\" }}", disk.display().to_string())
        };
        let list = disks.each_ref().map(entry).join(", ");
        let text = fs::read_to_string(node.config()).expect("`init` wrote it");
        let text = text.replace("\ndisks = []\n", &format!("\ndisks = [{list}]\n"));
        fs::write(node.config(), text).expect("an own directory");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        Self { node, disks, listen: format!("relay.listen=127.0.0.1:{port}") }
    }

    fn start(&self) -> Running {
        self.node.start(&["--set", &self.listen, "--set", "log.filter=off"])
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut command = self.node.command(arguments);
        let ended = finish(command.args(["--json", "--set", &self.listen]));
        ended.assert_done();
        serde_json::from_str(&ended.stdout).expect("JSON")
    }

    fn online(&self, running: &Running) -> [bool; 2] {
        let mut stream = TcpStream::connect(running.http()).expect("it listens");
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).expect("it reads");
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).expect("it answers");
        self.disks.each_ref().map(|disk| {
            let name = format!("supernode_store_disk_online{{disk=\"{}\"}} ", disk.display());
            let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
            value.expect("each disk has a line") == "1"
        })
    }
}

#[test]
fn a_disk_is_drained_through_the_running_node() {
    let two = TwoDisks::new();
    let running = two.start();
    assert_eq!(two.online(&running), [true, true]);
    let path = two.disks[0].display().to_string();
    assert_eq!(two.json(&["store", "drain", &path, "--status"])["state"], "off");
    let mut drain = two.json(&["store", "drain", &path]);
    while drain["state"] != "done" {
        assert_eq!(drain["state"], "draining");
        drain = two.json(&["store", "drain", &path, "--status"]);
    }
    assert_eq!(drain["disk"].as_str(), Some(&*path));
    let said = finish(&mut two.node.command(&["store", "drain", &path, "--status"]));
    assert!(said.stdout.contains("take it out of storage.disks"), "{said:?}");
    let other = two.disks[1].display().to_string();
    let refused = finish(&mut two.node.command(&["store", "drain", &other]));
    refused.assert_failed(1, &[&other, "room"]);
    let unknown = finish(&mut two.node.command(&["store", "drain", "/nowhere"]));
    unknown.assert_failed(2, &["/nowhere", &path, &other]);
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
    let running = two.start();
    assert_ne!(two.json(&["store", "drain", &path, "--status"])["state"], "off");
    assert_eq!(two.json(&["store", "drain", &path, "--cancel"])["state"], "off");
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
    let stats = finish(&mut two.node.command(&["store", "stats"]));
    stats.assert_failed(2, &["--data-dir", &path, &other]);
    finish(&mut two.node.command(&["store", "stats", "--data-dir", &path])).assert_done();
}

#[test]
fn a_node_runs_without_one_of_its_disks_and_says_so() {
    let two = TwoDisks::new();
    let running = two.start();
    let status = two.json(&["status"]);
    let disks = status["nodes"][0]["disks"].as_array().expect("it has several").clone();
    assert!(disks.len() == 2 && disks.iter().all(|disk| disk["offline"].is_null()), "{status}");
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
    fs::rename(&two.disks[1], two.disks[1].with_file_name("aside")).expect("own directories");
    let running = two.start();
    assert_eq!(two.online(&running), [true, false]);
    let status = two.json(&["status"]);
    let reason = status["nodes"][0]["disks"][1]["offline"].as_str().expect("it is offline");
    assert!(reason.contains("mount the disk"), "{reason}");
    let table = finish(two.node.command(&["status"]).args(["--set", &two.listen]));
    assert!(table.stdout.contains("OFFLINE"), "{table:?}");
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
    fs::remove_dir_all(&two.disks[0]).expect("an own directory");
    let run = finish(&mut two.node.command(&["run", "--set", "log.filter=off"]));
    run.assert_failed(1, &["mount the disk"]);
}
