// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node's life: it comes up, says so, keeps its directory to itself, and stops in order.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use crate::program::{NodeDir, finish};

fn http(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn a_node_comes_up_reports_and_stops_on_sigterm() {
    let node = NodeDir::new();
    let running = node.start(&[]);
    assert_eq!(running.up["peer_id"].as_str(), Some(node.peer_id.as_str()));
    let ready = http(running.http(), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(http(running.http(), "/livez").starts_with("HTTP/1.1 200"));
    let metrics = http(running.http(), "/metrics");
    assert!(metrics.contains("\nsupernode_shards 0\n"), "{metrics}");
    assert!(metrics.contains("\nprocess_resident_memory_bytes "), "{metrics}");
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
}

#[test]
fn a_directory_in_use_is_refused_with_the_pid() {
    let node = NodeDir::new();
    let running = node.start(&[]);
    let pid = running.pid().to_string();
    let second = finish(&mut node.command(&["run", "--set", "log.filter=off"]));
    let directory = node.path().display().to_string();
    second.assert_failed(1, &[&pid, directory.trim_end_matches("/.")]);
    let stats = finish(&mut node.command(&["store", "stats", "--set", "log.filter=off"]));
    stats.assert_failed(1, &[&pid]);
    running.signal("INT");
    assert_eq!(running.ended(), 0);
    let restarted = node.start(&[]);
    assert_eq!(restarted.up["peer_id"].as_str(), Some(node.peer_id.as_str()));
}

#[test]
fn status_asks_the_node_of_a_nodes_configuration() {
    let node = NodeDir::new();
    let port = {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("it is bound").port()
    };
    let listen = format!("relay.listen=127.0.0.1:{port}");
    let running = node.start(&["--set", &listen]);
    let status = finish(&mut node.command(&["status", "--json", "--set", &listen]));
    status.assert_done();
    let answers: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(answers["ok"], true);
    assert_eq!(answers["nodes"][0]["peer_id"].as_str(), Some(node.peer_id.as_str()));
    assert_eq!(answers["nodes"][0]["status"]["slot_count"], 0);
    running.signal("TERM");
    assert_eq!(running.ended(), 0);
    let status = finish(&mut node.command(&["status", "--json", "--set", &listen]));
    assert_eq!(status.code, 1, "{status:?}");
    assert!(status.stderr.contains(&node.peer_id), "{}", status.stderr);
}

#[test]
fn session_keys_are_never_written() {
    let node = NodeDir::new();
    let mut command = node.command(&["run"]);
    finish(command.env("SSLKEYLOGFILE", "/tmp/keys")).assert_failed(2, &["SSLKEYLOGFILE", "unset"]);
}

#[test]
fn a_taken_port_fails_and_leaves_the_directory_free() {
    let node = NodeDir::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let listen = format!("relay.listen={address}");
    let mut command = node.command(&["run", "--set", "log.filter=off", "--set", &listen]);
    finish(&mut command).assert_failed(1, &[&address, "UDP"]);
    node.start(&[]);
}
