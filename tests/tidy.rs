// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taste and layering as a test.
//!
//! This file owns the limits and the tables, and runs each rule over every file of the
//! repository. A rule is a pure function over text in `tidy/`, with a test of its own that shows
//! it fire. What a rule says is what to do; where it seems wrong, change the rule for everybody
//! rather than asking for an exception.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/commands.rs"]
mod commands;
#[path = "tidy/header.rs"]
mod header;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/purity.rs"]
mod purity;
#[path = "tidy/size.rs"]
mod size;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/tokens.rs"]
mod tokens;
#[path = "tidy/words.rs"]
mod words;

use std::collections::BTreeSet;

use commands::Callable;
use manifests::{Manifest, Reserved};
use proc_macro2::TokenStream;
use source::{Remark, Source, repository_files, repository_root};

/// A file that a reader holds in mind has one reason to change. We aim at 500.
const FILE_LINES_MAX: usize = 800;

/// A function that fits on a screen can be checked by looking at it. Tests are read too.
const FUNCTION_LINES_MAX: usize = 70;

/// Two files side by side on one screen.
const LINE_COLUMNS_MAX: usize = 100;

/// Shorter than this, a module's opening is a title and says neither who owns what nor why.
const MODULE_DOC_CHARS_MIN: usize = 20;

/// Who may depend on whom, from the top row down: a crate names crates of lower rows only, its
/// tests may name its own row as well. Crates of one row never import each other; the one that
/// calls owns the trait and the binary wires the two.
const ROWS: &[&[&str]] = &[
    &["supernode-tests", "supernode-benches", "supernode-fuzz"],
    &["supernode"],
    &["supernode-object"],
    &[
        "supernode-audit",
        "supernode-chain",
        "supernode-client",
        "supernode-devchain",
        "supernode-dht",
        "supernode-relay",
        "supernode-store",
    ],
    &["supernode-pallet", "supernode-tls"],
    &["supernode-protocol"],
];

/// Outside crates that have a home, so that replacing one is a change in one place.
const RESERVED: &[Reserved] = &[
    Reserved {
        dependency: "libp2p",
        users: &["supernode-dht"],
        why: "the swarm is the business of node/dht alone",
    },
    Reserved {
        dependency: "libp2p-identity",
        users: &[
            "supernode",
            "supernode-client",
            "supernode-dht",
            "supernode-object",
            "supernode-protocol",
            "supernode-relay",
            "supernode-tls",
        ],
        why: "keys are handled where peers are named; the store names none",
    },
    Reserved {
        dependency: "libp2p-tls",
        users: &["supernode-tls"],
        why: "identities meet TLS in one place",
    },
    Reserved {
        dependency: "quinn",
        users: &["supernode-client", "supernode-relay", "supernode-tls"],
        why: "QUIC has two ends",
    },
    Reserved {
        dependency: "quinn-proto",
        users: &["supernode-tls"],
        why: "what quinn does not export is wrapped once",
    },
    Reserved {
        dependency: "subxt",
        users: &["supernode-chain"],
        why: "its API moves; everybody else sees facts in our own terms",
    },
    Reserved {
        dependency: "subxt-signer",
        users: &["supernode-chain"],
        why: "secrets are handled in one place",
    },
    Reserved {
        dependency: "frame-support",
        users: &["supernode-devchain", "supernode-pallet"],
        why: "a runtime is what runs on a chain, not in a node",
    },
    Reserved {
        dependency: "sled",
        users: &["supernode-store"],
        why: "the index is rebuildable and belongs to the store",
    },
    Reserved {
        dependency: "clap",
        users: &["supernode"],
        why: "the command line is the business of the binary",
    },
    Reserved {
        dependency: "anyhow",
        users: &["supernode", "supernode-benches", "supernode-tests"],
        why: "a library's errors are an enum that callers can match",
    },
];

/// Folders and files that decide without looking: the clock and randomness are arguments. Any
/// other module that opens with `//! Pure:` is held to the same.
const PURE: &[&str] = &["protocol/src/"];

/// Where text for people is written to stdout or stderr.
const PRINTING: &[&str] =
    &["node/src/output.rs", "node/src/output/", "node/src/demo.rs", "node/src/demo/"];

/// Polling with a deadline is the one honest use of sleep in a test; files of this name have it.
const SLEEPING: &str = "/eventually.rs";

/// What tells people what to type.
const GUIDES: &[&str] = &["README.md", "CONTRIBUTING.md"];

/// Files nobody writes by hand, or whose wording is law.
const FOREIGN: &[&str] = &[
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "tests/polkadot-js/package-lock.json",
    words::TABLE_PATH,
];

/// The one list of exceptions, for all rules: path, rule, why. It is empty and should stay so:
/// an entry needs a reason that the next reader will accept, and goes when the reason does.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// Collects what the rules say about the repository and fails with all of it at once.
struct Report {
    rule: &'static str,
    lines: Vec<String>,
}

impl Report {
    fn new(rule: &'static str) -> Self {
        Self { rule, lines: Vec::new() }
    }

    fn add(&mut self, path: &str, remarks: Vec<Remark>) {
        if EXCEPTIONS.iter().any(|(at, rule, _)| *at == path && *rule == self.rule) {
            return;
        }
        let lines = remarks.into_iter().map(|it| format!("{path}:{}: {}", it.line, it.message));
        self.lines.extend(lines);
    }

    fn finish(self) {
        assert!(self.lines.is_empty(), "rule {}:\n{}\n", self.rule, self.lines.join("\n"));
    }
}

/// Runs `check` over every file of ours that passes `choose`.
fn check_files(
    rule: &'static str,
    choose: impl Fn(&Source) -> bool,
    check: impl Fn(&Source) -> Vec<Remark>,
) {
    let mut report = Report::new(rule);
    let files = repository_files(&repository_root());
    let mut chosen = files.iter().filter(|file| choose(file)).peekable();
    assert!(chosen.peek().is_some(), "rule {rule}: no file to look at");
    for file in chosen.filter(|file| !FOREIGN.contains(&file.path.as_str())) {
        report.add(&file.path, check(file));
    }
    report.finish();
}

/// Runs `check` over the tokens of all Rust code.
fn check_code(rule: &'static str, check: impl Fn(&TokenStream) -> Vec<Remark>) {
    check_files(rule, Source::is_rust, |file| check(&file.tokens()));
}

fn check_crates(rule: &'static str, check: impl Fn(&Manifest) -> Vec<Remark>) {
    let crates = |file: &Source| Manifest::of(file).is_some();
    check_files(rule, crates, |file| Manifest::of(file).map_or_else(Vec::new, |it| check(&it)));
}

fn is_pure(file: &Source) -> bool {
    let listed = PURE.iter().any(|pure| file.path.starts_with(pure));
    let pure = listed || purity::declares_purity(&file.text);
    file.is_rust() && pure && !file.is_test_code()
}

#[test]
fn files_are_short() {
    check_files("file-lines", Source::is_rust, |file| size::file_lines(&file.text, FILE_LINES_MAX));
}

#[test]
fn functions_are_short() {
    check_code("function-lines", |code| size::function_lines(code, FUNCTION_LINES_MAX));
}

#[test]
fn lines_are_short() {
    check_files("line-columns", Source::is_rust, |file| {
        size::line_columns(&file.text, LINE_COLUMNS_MAX)
    });
}

#[test]
fn files_open_with_their_licence() {
    check_files("licence", Source::is_rust, |file| header::licence(&file.text));
}

#[test]
fn modules_say_what_they_own() {
    check_files("module-docs", Source::is_rust, |file| {
        header::module_docs(&file.text, MODULE_DOC_CHARS_MIN)
    });
}

#[test]
fn modules_are_files_beside_their_folder() {
    check_files("mod-rs", Source::is_rust, |file| header::module_file(&file.path));
}

#[test]
fn words_are_well_chosen() {
    let bans = words::table();
    check_files("words", |_| true, |file| words::banned(file, &bans));
}

#[test]
fn imports_name_what_they_use() {
    check_code("glob-imports", code::glob_imports);
}

#[test]
fn getters_are_called_what_they_give() {
    check_code("getters", code::getters);
}

#[test]
fn nothing_is_unwrapped() {
    check_code("unwraps", code::unwraps);
}

#[test]
fn queues_are_bounded() {
    check_code("unbounded-queues", code::unbounded_queues);
}

#[test]
fn lints_are_switched_off_for_a_reason() {
    check_code("unreasoned-allows", code::unreasoned_allows);
}

#[test]
fn no_state_belongs_to_the_process() {
    let ours = |file: &Source| file.is_rust() && !file.is_test_code();
    check_files("statics", ours, |file| code::statics(&tokens::part(&file.tokens()).production));
}

#[test]
fn printing_has_one_home() {
    let ours = |file: &Source| {
        let allowed = PRINTING.iter().any(|home| file.path.starts_with(home));
        file.is_rust() && !file.is_test_code() && !allowed
    };
    check_files("prints", ours, |file| code::prints(&tokens::part(&file.tokens()).production));
}

#[test]
fn tests_wait_for_events() {
    let ours = |file: &Source| file.is_rust() && !file.path.ends_with(SLEEPING);
    check_files("sleeps", ours, |file| {
        let code = file.tokens();
        let tests = if file.is_test_code() { code } else { tokens::part(&code).tests };
        code::sleeps(&tests)
    });
}

#[test]
fn pure_modules_take_time_and_bytes_as_arguments() {
    check_files("purity", is_pure, |file| {
        purity::impurities(&tokens::part(&file.tokens()).production)
    });
}

#[test]
fn dependencies_point_down() {
    check_crates("layers", |manifest| manifests::layers(manifest, ROWS));
}

#[test]
fn outside_crates_stay_in_their_home() {
    check_crates("reserved", |manifest| manifests::reserved(manifest, RESERVED));
}

#[test]
fn crates_inherit_from_the_workspace() {
    check_crates("inherits", manifests::inherits);
}

#[test]
fn tables_name_crates_that_exist() {
    let files = repository_files(&repository_root());
    let crates: BTreeSet<String> =
        files.iter().filter_map(Manifest::of).map(|manifest| manifest.name).collect();
    let named = ROWS.iter().copied().flatten();
    let named = named.chain(RESERVED.iter().flat_map(|row| row.users));
    let gone: Vec<_> = named.filter(|name| !crates.contains(**name)).collect();
    assert!(gone.is_empty(), "tests/tidy.rs names crates that are gone: {gone:?}");
}

#[test]
fn dependencies_are_used() {
    let mut report = Report::new("unused-dependencies");
    let files = repository_files(&repository_root());
    let crates: Vec<Manifest> = files.iter().filter_map(Manifest::of).collect();
    for manifest in &crates {
        // A file belongs to the innermost crate around it: node/store lies inside node.
        let owned = |file: &&Source| {
            let around = crates.iter().filter(|it| file.path.starts_with(&it.folder));
            around.max_by_key(|it| it.folder.len()).is_some_and(|it| it.name == manifest.name)
        };
        let code = files.iter().filter(|file| file.is_rust()).filter(owned);
        let code = code.map(Source::tokens).collect();
        report.add(&manifest.path, manifests::unused(manifest, &code));
    }
    let root = files.iter().find(|file| file.path == "Cargo.toml");
    let root = root.expect("the workspace has a root");
    report.add(&root.path, manifests::unused_in_workspace(root, &crates));
    report.finish();
}

#[test]
fn guides_name_commands_that_exist() {
    let files = repository_files(&repository_root());
    let mut callable = Callable::default();
    for file in &files {
        callable.files.insert(file.path.clone());
        if file.path == "justfile" {
            callable.recipes = commands::recipes(&file.text);
        }
        if file.is_rust() && file.path.starts_with("node/src/") {
            callable.subcommands.extend(commands::subcommands(&file.tokens()));
        }
    }
    let guide = |file: &Source| GUIDES.contains(&file.path.as_str());
    check_files("commands", guide, |file| commands::unknown_commands(&file.text, &callable));
}
