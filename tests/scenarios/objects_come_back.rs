// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sizes at the edges go in by file and by pipe, and come back whole, in ranges and on stdout.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;

use supernode_tests::network::Network;
use supernode_tests::program::{Client, run};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const STRIPE_BYTES: usize = 64 << 20;

#[test]
fn objects_come_back() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let network = Network::start(PROGRAM);
    let (client, dir) = (network.client(), network.path(""));

    for bytes in [Vec::new(), vec![7], vec![0; 3 << 20], random.bytes(STRIPE_BYTES)] {
        println!("{} bytes", bytes.len());
        let cid = client.put_bytes(&dir, &bytes);
        client.fetch_exact(&cid, &dir, &bytes);
        assert_eq!(client.put_bytes(&dir, &bytes), cid, "the name of bytes is theirs");
    }
    let bytes = random.bytes(STRIPE_BYTES + 1);
    let cid = through_pipes(&client, &dir, &bytes);
    assert_eq!(client.put_bytes(&dir, &bytes), cid, "a pipe and a file give one name");
    ranges(&client, &dir, &cid, &bytes);
    json_says_what_was_done(&client, &dir, &cid);
    a_check_writes_nothing(&client, &cid);
    network.stop();
}

/// `put -` from a pipe, `get` into one.
fn through_pipes(client: &Client, dir: &Path, bytes: &[u8]) -> String {
    let file = dir.join("pipe.in");
    fs::write(&file, bytes).expect("a temporary file");
    let mut source = std::process::Command::new("cat");
    let mut source = source.arg(&file).stdout(std::process::Stdio::piped()).spawn().expect("cat");
    let pipe = source.stdout.take().expect("it has a pipe");
    let ended = run(client.command(["put", "-"]).stdin(pipe)).expect(0);
    assert!(source.wait().expect("cat ends").success());
    let cid = ended.text().to_owned();
    let ended = client.run(["get", &cid]).expect(0);
    assert!(ended.stdout == bytes, "stdout has other bytes");
    assert_eq!(ended.stderr, "", "there is nothing to say");
    cid
}

fn ranges(client: &Client, dir: &Path, cid: &str, bytes: &[u8]) {
    let last = bytes.len() - 1;
    let border = STRIPE_BYTES;
    let spans = [
        ("0-0".to_owned(), 0..=0),
        ("0-1023".to_owned(), 0..=1023),
        (format!("{}-{}", 7 << 20, (7 << 20) + 100_000), 7 << 20..=(7 << 20) + 100_000),
        (format!("{}-{border}", border - 1), border - 1..=border),
        (format!("{last}-{last}"), last..=last),
        (format!("{}-", border - 4096), border - 4096..=last),
        // An end behind the object's is the object's.
        (format!("{}-{}", last - 9, u64::MAX), last - 9..=last),
    ];
    for (text, span) in spans {
        let ended = client.run(["get", cid, "--range", &text]).expect(0);
        assert!(ended.stdout == bytes[span], "range {text} gives other bytes");
    }
    let output = dir.join("range.out");
    client
        .run([
            OsStr::new("get"),
            cid.as_ref(),
            "--range=5-14".as_ref(),
            "-o".as_ref(),
            output.as_ref(),
        ])
        .expect(0);
    assert_eq!(fs::read(&output).expect("get has made the file"), &bytes[5..=14]);

    let line = client.run(["get", cid, "--range", &format!("{}-", last + 1)]).refusal(2);
    assert!(line.contains(&(last + 1).to_string()), "the error names the range: {line}");
    client.run(["get", cid, "--range", "9-3"]).refusal(2);
    client.run(["get", cid, "--range", "first"]).refusal(2);
}

fn json_says_what_was_done(client: &Client, dir: &Path, cid: &str) {
    let file = dir.join("pipe.in");
    let stored =
        run(client.command(["put", "-", "--json"]).stdin(File::open(&file).expect("made above")));
    let stored = stored.expect(0).json();
    assert_eq!(stored["cid"], cid);
    assert_eq!(stored["size"], STRIPE_BYTES + 1);
    assert_eq!(stored["class"], "10+4");
    assert_eq!(stored["stripes"], 2);
    assert_eq!((&stored["slots_stored"], &stored["slots_total"]), (&28.into(), &28.into()));
    assert_eq!(stored["survives_nodes"], 2, "two slots of fourteen a node, four may go");
    assert_eq!(stored["missing"], serde_json::json!([]));
    let output = dir.join("json.out");
    let fetched = client.run([
        OsStr::new("get"),
        cid.as_ref(),
        "--json".as_ref(),
        "-o".as_ref(),
        output.as_ref(),
    ]);
    let fetched = fetched.expect(0).json();
    assert_eq!((&fetched["cid"], &fetched["written"]), (&cid.into(), &(STRIPE_BYTES + 1).into()));
}

fn a_check_writes_nothing(client: &Client, cid: &str) {
    let ended = client.run(["get", cid, "--verify"]).expect(0);
    assert_eq!(ended.text(), format!("{} bytes are whole", STRIPE_BYTES + 1));
    let found = client.run(["get", cid, "--verify", "--range=5-14", "--json"]).expect(0).json();
    assert_eq!((&found["written"], &found["verified"]), (&0.into(), &10.into()));
    client.run(["get", cid, "--verify", "-o", "nowhere"]).refusal(2);
}
