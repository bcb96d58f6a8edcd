// SPDX-License-Identifier: MIT OR Apache-2.0
//! An unmodified polkadot.js reserves a deal and reads audits, and sees what `supernode` sees.
//!
//! It knows of the pallet only what the chain's metadata says, so this is how any other tool of the
//! ecosystem sees it. The script is `polkadot-js/reserve.mjs`. Its packages lie outside the
//! checkout, where `SUPERNODE_NPM_DIR` says; without that they are installed for this run alone.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use supernode_tests::eventually::eventually;
use supernode_tests::network::Network;
use supernode_tests::program::{Client, run};
use supernode_tests::random::Seeded;

const PROGRAM: &str = env!("CARGO_BIN_EXE_supernode-under-test");
/// Where somebody else has installed the packages of `package-lock.json`.
const INSTALLED: &str = "SUPERNODE_NPM_DIR";
/// Some rounds of audits: a round comes each half minute, and the network may be slow.
const PATIENCE: Duration = Duration::from_secs(300);
/// What a reservation of the script asks for; no price makes the two numbers look alike.
const BYTES: &str = "123456789";
const DURATION: &str = "4321";

/// The script, ready to run against one chain.
struct PolkadotJs {
    words: Vec<PathBuf>,
    packages: PathBuf,
}

impl PolkadotJs {
    fn of(network: &Network) -> Self {
        let file = fs::read_to_string(network.dir().join("network.json")).expect("it is written");
        let file: Value = serde_json::from_str(&file).expect("it is JSON");
        let of_chain = |key: &str| PathBuf::from(file["chain"][key].as_str().expect("a text"));
        let words = vec![
            sources().join("reserve.mjs"),
            of_chain("endpoint"),
            of_chain("genesis"),
            network.dir().join("chain.key"),
            BYTES.into(),
            DURATION.into(),
        ];
        let packages = env::var_os(INSTALLED).map(PathBuf::from);
        Self { words, packages: packages.unwrap_or_else(|| install(&network.path("npm"))) }
    }

    fn command(&self, words: &[PathBuf]) -> Command {
        let mut command = Command::new("node");
        command.args(words).env(INSTALLED, &self.packages);
        command
    }

    /// Reserves, and says what it saw in the block that is final then.
    fn reserve(&self) -> Value {
        let seen = run(&mut self.command(&self.words)).expect(0).json();
        assert_eq!(seen["warnings"], json!([]), "polkadot.js knows all types");
        seen
    }

    /// The chain is pinned here too: another genesis is refused before anything is signed.
    fn refuses_another_chain(&self) {
        let mut words = self.words.clone();
        words[2] = format!("0x{}", "5a".repeat(32)).into();
        let ended = run(&mut self.command(&words)).expect(1);
        assert!(ended.stdout.is_empty() && ended.stderr.contains("another chain"), "{ended:?}");
    }
}

/// The folder of the script, asked when the test runs: a build may serve several checkouts.
fn sources() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate lies");
    Path::new(&here).join("polkadot-js")
}

fn need(tool: &str, package: &str) {
    let found = Command::new(tool).arg("--version").output();
    assert!(
        found.is_ok_and(|output| output.status.success()),
        "{tool} is missing: install it (Debian package {package}); `.ci/run system` does"
    );
}

fn install(packages: &Path) -> PathBuf {
    need("npm", "npm");
    fs::create_dir_all(packages).expect("an own directory");
    for name in ["package.json", "package-lock.json"] {
        fs::copy(sources().join(name), packages.join(name)).expect("it is in the checkout");
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(packages);
    run(&mut command).expect(0);
    packages.to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn audits(client: &Client) -> Vec<Value> {
    list(&client.run(["audit", "list", "--json"]).expect(0).json()).to_vec()
}

fn ids<'a>(audits: impl Iterator<Item = &'a Value>) -> BTreeSet<u64> {
    audits.map(|audit| audit["audit"].as_u64().expect("audits are numbered")).collect()
}

/// The reservation of the script is one to `supernode` as well.
fn compare_reservation(client: &Client, seen: &Value) {
    let deal = seen["deal"].to_string();
    let shown = client.run(["deal", "show", &deal, "--json"]).expect(0).json();
    let wanted = json!({
        "deal": seen["deal"],
        "state": "reserved",
        "owner": seen["owner"],
        "bytes": BYTES.parse::<u64>().expect("a number"),
        "block": seen["activatesBy"],
        "escrow": seen["escrow"],
    });
    assert_eq!(shown, wanted);
}

/// Everything that the script saw is what `supernode` sees a moment later, and it missed nothing.
fn compare_audits(client: &Client, seen: &Value) {
    let shown = audits(client);
    let everything = || list(&seen["openAudits"]).iter().chain(list(&seen["auditResults"]));
    for audit in everything() {
        let mut twin = shown.iter().find(|it| it["audit"] == audit["audit"]).cloned();
        let ended = |it: &Value| it["state"] != "open" && audit["state"] == "open";
        if let Some(twin) = twin.as_mut().filter(|it| ended(it)) {
            // That may happen between the two looks.
            twin["state"] = json!("open");
            let late = twin["block"].as_u64() > audit["block"].as_u64().map(|block| block + 1);
            assert!(!late, "resolved in time, or in the block after: {twin}, {audit}");
            twin["block"] = audit["block"].clone();
        }
        assert_eq!(Some(audit), twin.as_ref());
    }
    let until = seen["block"].as_u64().expect("a height");
    let known = shown.iter().filter(|it| it["opened_at"].as_u64().is_some_and(|at| at <= until));
    assert_eq!(ids(everything()), ids(known), "audits up to block {until}");
}

#[test]
fn an_unmodified_polkadot_js_reserves_and_reads_audits() {
    need("node", "nodejs");
    let mut random = Seeded::new();
    println!("seed {}", random.seed);
    let mut network = Network::start(PROGRAM);
    let client = network.client();
    let polkadot_js = PolkadotJs::of(&network);
    polkadot_js.refuses_another_chain();

    let file = network.path("object");
    fs::write(&file, random.bytes(1_000_000)).expect("an own directory");
    let words: [&OsStr; 5] = [
        "put".as_ref(),
        file.as_os_str(),
        "--deal".as_ref(),
        "5000blocks".as_ref(),
        "--json".as_ref(),
    ];
    let made = client.run(words).expect(0).json();
    assert_eq!(made["deal"]["deal"], 1, "{made}");
    // Nobody answers for this one: its audits stay open for a while, and fail.
    network.kill(&[0]);
    eventually("audits that have passed", PATIENCE, || {
        audits(&client).iter().any(|audit| audit["state"] == "passed").then_some(())
    });
    let seen = eventually("an open audit in the eyes of polkadot.js", PATIENCE, || {
        let seen = polkadot_js.reserve();
        compare_reservation(&client, &seen);
        compare_audits(&client, &seen);
        (!list(&seen["openAudits"]).is_empty()).then_some(seen)
    });
    let passed = list(&seen["auditResults"]).iter().filter(|audit| audit["state"] == "passed");
    assert!(passed.count() > 0, "it read results as well: {seen}");
    network.stop();
}
