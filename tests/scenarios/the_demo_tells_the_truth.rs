// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo on a small file: exit code, report and figures, judged against the file itself. Only
//! in a test build can it sabotage itself, and then it has to notice.

use std::fs;

use supernode_tests::process;
use supernode_tests::program::Program;
use supernode_tests::random::{Seeded, sha256};

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
const FILE_BYTES: usize = (2 << 20) + 77;

#[test]
fn the_demo_tells_the_truth() {
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let program = Program::new(PROGRAM, &scratch.path().join("home"));
    let (file, out) = (scratch.path().join("file"), scratch.path().join("out.json"));
    fs::write(&file, random.bytes(FILE_BYTES)).expect("an own directory");

    let mut command = program.command(["demo", "--file"]);
    command.arg(&file).arg("--json").arg(&out).env("TMPDIR", scratch.path());
    let ended = supernode_tests::program::run(&mut command).expect(0);
    let report = fs::read_to_string(&out).expect("it was asked for");
    let report: serde_json::Value = serde_json::from_str(&report).expect("it is JSON");
    let checks = report["checks"].as_array().expect("checks is a list");
    assert!(checks.len() >= 15, "the story has many turns: {}", checks.len());
    for check in checks {
        let name = check["name"].as_str().expect("a check has a name");
        assert_eq!(check["ok"], true, "{check}");
        assert!(ended.text().contains(name), "people are told of {name}");
    }
    assert_eq!(report["object_bytes"], FILE_BYTES);
    for digest in ["sha256_in", "sha256_out", "sha256_degraded"] {
        assert_eq!(report[digest], sha256(&file).as_str(), "{digest}");
    }
    for figure in ["put_seconds", "get_seconds", "degraded_get_seconds"] {
        assert!(report[figure].as_f64() > Some(0.0), "{figure}: {report}");
    }
    assert_eq!(report["slots_stored"], 14);
    assert!(report["audits_passed"].as_u64() >= Some(42), "every slot of three deals: {report}");
    assert!(report["audits_failed"].as_u64() >= Some(1), "damage is noticed: {report}");
    assert_eq!(report["slots_after_expiry"], 0);
    assert_eq!(report["other_object_intact"], true);
    assert!(report["nodes_killed"].as_u64() >= Some(7), "two, two and three: {report}");

    assert!(process::working_in(scratch.path()).is_empty(), "the demo leaves nothing running");
    let left = fs::read_dir(scratch.path()).expect("an own directory").flatten();
    let left = left.filter(|it| it.file_name().to_string_lossy().starts_with("supernode-demo-"));
    assert_eq!(left.count(), 0, "nor anything on disk");
}
