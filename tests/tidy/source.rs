// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that the rules read, and the remarks that the rules make.
//!
//! This is the only part of tidy that touches the disk. A rule gets text and gives back remarks;
//! it never learns where the repository lies.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::TokenStream;

/// One text file of the repository; `path` is relative to its root and uses `/`.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: String,
    pub text: String,
}

/// What a rule has to say about one line of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Counted from 1; 0 speaks of the whole file.
    pub line: usize,
    /// Names the thing and what to do instead.
    pub message: String,
}

impl Remark {
    pub fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl Source {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The file as tokens, comments gone, each token knowing its line.
    ///
    /// # Panics
    /// If the text is not Rust; the compiler says more about that than we could.
    pub fn tokens(&self) -> TokenStream {
        self.text.parse().unwrap_or_else(|error| panic!("{} is not Rust: {error}", self.path))
    }

    /// Whether the whole file is test code: in a test, bench or fuzz crate, or a `tests.rs` or
    /// `crash_tests.rs` beside a module.
    pub fn is_test_code(&self) -> bool {
        let mut parts = self.path.trim_end_matches(".rs").split('/');
        parts.any(|part| ["tests", "benches", "fuzz"].contains(&part) || part.ends_with("_tests"))
    }
}

/// The repository that this crate stands in, asked when the test runs: a build cache may be shared
/// by several checkouts.
pub fn repository_root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the crate lies");
    let here = Path::new(&here);
    here.parent().expect("the tests crate lies one folder below the root").to_path_buf()
}

/// Every text file that is tracked or would be: what `git` lists, or, without git, every file
/// outside `.git` and build directories. Binary files are left out.
pub fn repository_files(root: &Path) -> Vec<Source> {
    let mut paths = listed_by_git(root).unwrap_or_else(|| found_by_walking(root));
    paths.sort();
    paths.dedup();
    paths.into_iter().filter_map(|path| read_text(root, path)).collect()
}

fn read_text(root: &Path, path: String) -> Option<Source> {
    // A path that git still lists but that is gone is somebody's deletion in progress.
    let bytes = fs::read(root.join(&path)).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    Some(Source { path, text })
}

fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let listing = String::from_utf8(output.stdout).ok()?;
    Some(listing.split_terminator('\0').map(str::to_owned).collect())
}

fn found_by_walking(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        // Cargo marks its build directories with this file, whatever they are called.
        if directory.join("CACHEDIR.TAG").exists() || directory.ends_with(".git") {
            continue;
        }
        let entries = fs::read_dir(&directory).expect("a directory of the checkout is readable");
        for entry in entries {
            let path = entry.expect("a directory entry of the checkout is readable").path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(relative) = path.strip_prefix(root) {
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found
}

#[test]
fn walking_finds_what_git_lists() {
    let root = repository_root();
    let walked = found_by_walking(&root);
    assert!(walked.iter().any(|path| path == "tests/tidy/source.rs"), "{walked:?}");
    assert!(!walked.iter().any(|path| path.starts_with(".git/")), "{walked:?}");
    for path in listed_by_git(&root).unwrap_or_default() {
        assert!(walked.contains(&path) || !root.join(&path).exists(), "walking missed {path}");
    }
}

#[test]
fn a_build_directory_is_not_walked() {
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    let built = root.path().join("built");
    fs::create_dir(&built).expect("a directory can be made in a fresh directory");
    fs::write(built.join("CACHEDIR.TAG"), "").expect("a file can be written there");
    fs::write(built.join("made.rs"), "").expect("a file can be written there");
    fs::write(root.path().join("kept.rs"), "").expect("a file can be written there");
    assert_eq!(found_by_walking(root.path()), ["kept.rs"]);
}

#[test]
fn test_code_is_known_by_its_place() {
    let at = |path: &str| Source { path: path.into(), text: String::new() }.is_test_code();
    assert!(at("tests/tidy.rs"));
    assert!(at("benches/benches/encode.rs"));
    assert!(at("protocol/fuzz/src/ranges.rs"));
    assert!(at("node/store/src/index/tests.rs"));
    assert!(at("node/store/src/index/crash_tests.rs"));
    assert!(!at("node/store/src/index.rs"));
}
