// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node acknowledges has reached its disk, as the kernel saw it: an fdatasync that began
//! after the write has returned before the client hears of it, and one that fails is never followed
//! by an acknowledgement. The relaxed mode, which promises less, is seen to be different.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use supernode_tests::eventually::eventually;
use supernode_tests::network::{Network, Shape};
use supernode_tests::process;
use supernode_tests::program::{Client, Ended, Guarded, PATIENCE};

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
/// Far longer than all else that a small put does.
const DELAY: Duration = Duration::from_secs(2);
/// Calls that write segments, make them durable, and answer clients.
const CALLS: &str =
    "trace=pwrite64,pwritev,pwritev2,write,writev,fdatasync,sendmsg,sendmmsg,sendto";

#[test]
fn an_acknowledgement_follows_the_fdatasync() {
    let mut network = Network::start_as(PROGRAM, &Shape { nodes: 1, ..Shape::default() });
    let client = network.client();
    network.stop_node(0);

    for (durability, waits) in [("batched", true), ("strict", true), ("relaxed", false)] {
        let log = network.path(&format!("{durability}.strace"));
        let delay = format!("inject=fdatasync:delay_exit={}", DELAY.as_micros());
        network.restart_with(0, &[("SUPERNODE_STORAGE__DURABILITY", durability)]);
        let mut tracer = trace(&network, &log, &delay);
        let ended = put(&client, &network.path(""), durability).expect(0);
        let heard = now();
        network.stop_node(0);
        tracer.wait(PATIENCE);

        let calls = calls(&fs::read_to_string(&log).expect("strace has a log"));
        let writes = segment_writes(&calls, heard);
        assert!(!writes.is_empty(), "{durability}: no write to a segment was seen");
        let early: Vec<&&Call> =
            writes.iter().filter(|write| !reached_disk(write, &calls, heard)).collect();
        println!(
            "{durability}: {} writes, {early:?} not synced, {:?}",
            writes.len(),
            ended.elapsed
        );
        assert_eq!(early.is_empty(), waits, "{durability}: not synced when the client heard of it");
        if waits {
            assert!(ended.elapsed > DELAY, "{durability}: {:?} is too quick", ended.elapsed);
            the_answer_leaves_last(&calls, heard);
        }
    }
    network.stop();
}

#[test]
fn nothing_is_acknowledged_when_the_fdatasync_fails() {
    let mut network = Network::start_as(PROGRAM, &Shape { nodes: 1, ..Shape::default() });
    let client = network.client();
    let before = put(&client, &network.path(""), "before").expect(0).text().to_owned();

    let log = network.path("failing.strace");
    let mut tracer = trace(&network, &log, "inject=fdatasync:error=EIO");
    let ended = put(&client, &network.path(""), "failing");
    println!("with a failing disk: {ended:?}");
    assert!(ended.stdout.is_empty(), "no CID for what is not stored");
    let line = ended.refusal(1);
    client.fetch_exact(&before, &network.path(""), b"before");
    network.kill(&[0]);
    tracer.wait(PATIENCE);
    let failed = fs::read_to_string(&log).expect("strace has a log");
    assert!(failed.contains("EIO"), "it failed for another reason: {line}");

    network.restart(0);
    let listed = client.run(["ls", "--json"]).expect(0).json();
    let listed: Vec<&str> =
        listed.as_array().expect("a list").iter().filter_map(|pin| pin["cid"].as_str()).collect();
    assert_eq!(listed, [before.as_str()], "only what was acknowledged");
    network.stop();
}

/// Attaches strace to the node, which must not wait for it when it opens its files.
fn trace(network: &Network, log: &Path, inject: &str) -> Guarded {
    let said = log.with_extension("said");
    let node = network.nodes[0].pid.to_string();
    let strace = ["strace", "-f", "-ttt", "-y", "-s", "0", "-e", "signal=none", "-e", CALLS];
    let mut words = process::as_root().iter().copied().chain(strace);
    let mut command = Command::new(words.next().expect("there are words"));
    command.args(words).args(["-e", inject, "-p", &node, "-o"]).arg(log);
    command.stderr(File::create(&said).expect("an own directory"));
    let mut tracer = Guarded::spawn(&mut command);
    eventually("strace to attach", PATIENCE, || {
        let said = fs::read_to_string(&said).expect("strace has a stderr");
        assert!(tracer.status().is_none(), "strace has ended: {said}");
        said.contains(" attached").then_some(())
    });
    tracer
}

/// One copy on one node; the content is the name, so that no two runs share anything.
fn put(client: &Client, dir: &Path, content: &str) -> Ended {
    let file = dir.join("object");
    fs::write(&file, content).expect("an own directory");
    let words = ["put", "--class=1+0", "--tolerate-nodes=0"].map(OsStr::new);
    client.run(words.into_iter().chain([file.as_os_str()]))
}

fn now() -> f64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.expect("it is later than 1970").as_secs_f64()
}

/// A system call as strace shows its beginning.
#[derive(Debug)]
struct Call {
    /// Seconds since 1970.
    at: f64,
    name: String,
    /// The file behind the descriptor.
    path: String,
    failed: bool,
}

/// Lines such as `4711 1700000000.123456 fdatasync(12</dir/1.seg>) = 0`, also when the end of the
/// call stands on a later line. A delay on exit passes after the time that a line shows.
fn calls(log: &str) -> Vec<Call> {
    let call = |line: &str| {
        let (_, rest) = line.trim_start().split_once(' ')?;
        let (at, rest) = rest.trim_start().split_once(' ')?;
        let (name, arguments) = rest.split_once('(')?;
        let path = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        Some(Call {
            at: at.parse().ok()?,
            name: name.to_owned(),
            path: path.map_or_else(String::new, |(path, _)| path.to_owned()),
            failed: line.contains(" = -1 "),
        })
    };
    log.lines().filter_map(call).filter(|call| !call.name.contains("resumed")).collect()
}

fn segment_writes(calls: &[Call], until: f64) -> Vec<&Call> {
    let written = |call: &&Call| call.name.contains("write") && call.path.ends_with(".seg");
    calls.iter().filter(written).filter(|call| call.at < until).collect()
}

/// Whether an fdatasync of the same file began after the write and had returned by `heard`.
fn reached_disk(write: &Call, calls: &[Call], heard: f64) -> bool {
    calls.iter().any(|call| {
        let same = call.name == "fdatasync" && call.path == write.path && !call.failed;
        same && call.at >= write.at && call.at + DELAY.as_secs_f64() <= heard
    })
}

/// Between the last fdatasync that the client waited for and its end, something was sent.
fn the_answer_leaves_last(calls: &[Call], heard: f64) {
    let delay = DELAY.as_secs_f64();
    let synced = calls
        .iter()
        .filter(|call| call.name == "fdatasync" && call.path.ends_with(".seg"))
        .map(|call| call.at + delay)
        .filter(|returned| *returned <= heard)
        .fold(0.0, f64::max);
    assert!(synced > 0.0, "no fdatasync of a segment was seen");
    let sent = calls
        .iter()
        .any(|call| call.name.starts_with("send") && call.at >= synced && call.at <= heard);
    assert!(sent, "nothing left the node between {synced} and {heard}");
}
