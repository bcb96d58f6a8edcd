// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever is wrong with what a person gives, the answer is one line that names the thing and one
//! of five exit codes. Where nothing was done, nothing is left behind.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use supernode_tests::eventually::eventually;
use supernode_tests::network::{Network, Shape};
use supernode_tests::program::{Client, Guarded, PATIENCE, Program, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
/// The CID of an object that nobody has: a hash of nothing in particular.
const UNKNOWN: &str = "bafyr4idnun7ycjbmwcsfqkhxjf2ofmtqdaveycukwrjtdeu6wtnuoja3ai";
/// An unknown object is known to be unknown within this time.
const UNKNOWN_WITHIN: Duration = Duration::from_secs(15);
/// Far more than a put can read ahead, and no room on disk at all: the file is one hole.
const HOLE_BYTES: u64 = 16 << 30;

#[test]
fn bad_input_on_a_network() {
    let network = Network::start_as(PROGRAM, &Shape { nodes: 3, ..Shape::default() });
    let dir = network.path("");
    let client = network.client();

    unknown_objects(&client, &dir);
    a_file_that_shrinks(&client, &dir);
    let cid = a_stranger_may_not_write(&network, &dir);
    stdout_that_nobody_reads(&client, &dir, &cid);
    a_directory_in_use(&network);
    let listed = client.run(["ls", "--json"]).expect(0).json();
    let kept = listed.as_array().expect("a list").len();
    assert_eq!(kept, 1, "only the one put that succeeded has left anything: {listed}");
    network.stop();
}

fn unknown_objects(client: &Client, dir: &Path) {
    let output = dir.join("unknown.out");
    let ended = client.get(UNKNOWN, &output);
    assert!(ended.elapsed < UNKNOWN_WITHIN, "{:?}", ended.elapsed);
    assert!(ended.refusal(3).contains(UNKNOWN));
    assert!(!output.exists());
    for command in ["stat", "rm"] {
        let ended = client.run([command, UNKNOWN]);
        assert!(ended.elapsed < UNKNOWN_WITHIN, "{command}: {:?}", ended.elapsed);
        assert!(ended.refusal(3).contains(UNKNOWN), "{command} names the object");
    }
}

/// Cut off as soon as the put has read from it, when it has long asked for its size.
fn a_file_that_shrinks(client: &Client, dir: &Path) {
    let file = dir.join("shrinking");
    let hole = File::create(&file).expect("an own directory");
    hole.set_len(HOLE_BYTES).expect("a hole needs no room");
    let said = dir.join("shrinking.err");
    let mut command = client.command([OsStr::new("put"), file.as_os_str()]);
    command.args(["--class", "2+1"]).stdout(Stdio::null());
    command.stderr(File::create(&said).expect("an own directory"));
    let mut put = Guarded::spawn(&mut command);
    let pid = put.pid();
    eventually("the put to read", PATIENCE, || (read_so_far(pid, &file)? > 0).then_some(()));
    hole.set_len(1 << 20).expect("an own file");
    let status = put.wait(PATIENCE);
    let said = fs::read_to_string(said).expect("it has a stderr");
    assert_eq!((status.code(), said.lines().count()), (Some(1), 1), "{said}");
    let names_both = said.contains(&HOLE_BYTES.to_string()) && said.contains("shrinking");
    assert!(names_both, "the error names the file and the size that was promised: {said}");
}

/// How far a process has read a file, if it has it open.
fn read_so_far(pid: u32, file: &Path) -> Option<u64> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let mut open = open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == file));
    let descriptor = open.next()?.file_name().into_string().ok()?;
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("pos:"))?.trim().parse().ok()
}

/// Gives the CID of an object that somebody else could put.
fn a_stranger_may_not_write(network: &Network, dir: &Path) -> String {
    let key = dir.join("stranger");
    let config = key.join("client.toml");
    fs::create_dir(&key).expect("an own directory");
    let program = &network.program;
    let address = &network.nodes[0].libp2p;
    let mut init = program.command(["init", "--client", "--config"]);
    init.arg(&config).args(["--set", "network.name=dev", "--set"]);
    run(init.arg(format!("network.bootstrap={address}"))).expect(0);
    let stranger = Client::new(program.clone(), config);
    let file = dir.join("small");
    fs::write(&file, "a few bytes").expect("an own directory");
    let line = stranger.run([OsStr::new("put"), file.as_os_str()]).refusal(4);
    assert!(line.contains("not authorised") && line.contains("writers"), "{line}");
    // Reading is open to everybody.
    let cid = network.client().run(["put", "--class", "1+2", path(&file)]).expect(0);
    stranger.fetch_exact(cid.text(), dir, b"a few bytes");
    cid.text().to_owned()
}

/// `get | head` with a head that has gone.
fn stdout_that_nobody_reads(client: &Client, dir: &Path, cid: &str) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let said = dir.join("pipe.err");
    let mut command = client.command(["get", cid]);
    command.stdout(writer).stderr(File::create(&said).expect("an own directory"));
    let status = Guarded::spawn(&mut command).wait(PATIENCE);
    let said = fs::read_to_string(said).expect("it has a stderr");
    assert_eq!((status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("cannot write the output"), "{said}");
}

fn a_directory_in_use(network: &Network) {
    let node = &network.nodes[1];
    let config = node.data_dir.with_file_name("supernode.toml");
    let owner = node.pid.to_string();
    let second = network.program.run(["run", "--config", path(&config)]).expect(1);
    let last = second.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(&owner) && last.contains(path(&node.data_dir)), "{last}");
    for command in ["stats", "fsck", "rebuild-index", "dump-map"] {
        let line = network.program.run(["store", command, "--data-dir", path(&node.data_dir)]);
        assert!(line.refusal(1).contains(&owner), "store {command} names the process");
    }
    assert!(node.is_ready(), "the owner does not mind");
}

#[test]
fn bad_input_before_any_network() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let dir = scratch.path();
    let program = Program::new(PROGRAM, &dir.join("home"));
    let config = dir.join("client.toml");
    let init = ["init", "--client", "--config", path(&config)];
    program.run(init).expect(0);
    let client = Client::new(program.clone(), config.clone());
    let nowhere = "network.bootstrap=/ip4/127.0.0.1/tcp/9/p2p/\
        12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    for word in ["holiday.tar", "", &UNKNOWN[1..], &format!("{UNKNOWN}a")] {
        let line = client.run(["get", word]).refusal(2);
        assert!(line.contains("CID"), "the error says what was wanted: {line}");
    }
    assert!(
        client.run(["put", "--set", nowhere, "missing.tar"]).refusal(1).contains("missing.tar")
    );
    assert!(client.run(["put", "--set", nowhere, path(dir)]).refusal(2).contains("directory"));
    let target = dir.join("missing/out");
    let line = client.run(["get", UNKNOWN, "--set", nowhere, "-o", path(&target)]).refusal(1);
    assert!(line.contains(path(&target)), "the error names the file: {line}");
    assert!(!target.exists() && !dir.join("missing").exists());
    assert!(client.run(["ls"]).refusal(2).contains("--bootstrap"), "nothing to start from");
    program.run(["fly"]).refusal(2);
    program.run::<&str>([]).refusal(2);

    an_exposed_key(&client, dir, nowhere);
    settings_that_are_none(&program, dir);
}

fn an_exposed_key(client: &Client, dir: &Path, nowhere: &str) {
    let key = dir.join("client.key");
    fs::set_permissions(&key, Permissions::from_mode(0o640)).expect("an own file");
    let line = client.run(["ls", "--set", nowhere]).refusal(2);
    let remedy = format!("chmod 600 {}", path(&key));
    assert!(line.contains("0640") && line.contains(&remedy), "{line}");
    fs::remove_file(&key).expect("an own file");
    assert!(client.run(["ls", "--set", nowhere]).refusal(2).contains(path(&key)));
}

/// Line and key of a file's setting, and what to write instead.
fn settings_that_are_none(program: &Program, dir: &Path) {
    let table = [
        ("[storage]\n\ncapacity_byte = 1", ["line 3", "storage.capacity_byte", "capacity_bytes"]),
        ("[storage]\ncapacity_bytes = \"2 TiBs\"", ["line 2", "storage.capacity_bytes", "TiB"]),
        (
            "[network]\nname = \"x\"\n[shutdown]\ndeadline_secs = \"soon\"",
            ["line 4", "shutdown.deadline_secs", "90s"],
        ),
        (
            "data_dir = \"d\"\n[relay]\nrequests_max = \"many\"",
            ["line 3", "relay.requests_max", "many"],
        ),
        ("[network\nname = 1", ["line 1", "supernode.toml", ""]),
    ];
    let config = dir.join("supernode.toml");
    for (text, expected) in table {
        fs::write(&config, text).expect("an own directory");
        let line = program.run(["run", "--config", path(&config)]).refusal(2);
        for part in expected {
            assert!(line.contains(part), "{part} is missing in: {line}");
        }
    }
    fs::write(&config, "").expect("an own directory");
    let mut command = program.command(["run", "--config", path(&config)]);
    let line = run(command.env("SUPERNODE_STORAGE__CAPACITY", "1")).refusal(2);
    assert!(line.contains("SUPERNODE_STORAGE__CAPACITY"), "{line}");
    let line = program.run(["run", "--set", "storage.durability=most", "--config", path(&config)]);
    assert!(line.refusal(2).contains("storage.durability"));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary directories are named in ASCII")
}
