// SPDX-License-Identifier: MIT OR Apache-2.0
//! A demo whose results are spoiled on purpose says so and exits 1. The flag exists in a test build
//! alone; see the feature `fault-injection`.

use std::fs;

use supernode_tests::process;
use supernode_tests::program::{Program, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");

#[test]
fn a_sabotaged_demo_fails() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let program = Program::new(PROGRAM, &scratch.path().join("home"));
    let (file, out) = (scratch.path().join("file"), scratch.path().join("out.json"));
    fs::write(&file, vec![3; 300_000]).expect("an own directory");

    let mut command = program.command(["demo", "--sabotage", "--file"]);
    command.arg(&file).arg("--json").arg(&out).env("TMPDIR", scratch.path());
    let ended = run(&mut command).expect(1);
    let report = fs::read_to_string(&out).expect("a failed demo reports as well");
    let report: serde_json::Value = serde_json::from_str(&report).expect("it is JSON");
    let checks = report["checks"].as_array().expect("checks is a list");
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| check["ok"] == false)
        .filter_map(|check| check["name"].as_str())
        .collect();
    assert!(!failed.is_empty() && failed.len() < checks.len(), "what was spoiled, and no more");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(failed.iter().all(|name| last.contains(name)), "{failed:?} in: {last}");
    assert_ne!(report["sha256_out"], report["sha256_in"]);
    assert!(process::working_in(scratch.path()).is_empty(), "the demo leaves nothing running");
}
