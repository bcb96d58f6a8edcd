// SPDX-License-Identifier: MIT OR Apache-2.0
//! The help of every command is kept in `docs/cli/`, so that a change of it is seen in review.
//! `UPDATE_HELP=1 cargo test -p supernode --test cli help` writes it anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::names;

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli")
}

#[test]
fn help_is_kept_in_the_repository() {
    let pages = supernode::cli::help_pages();
    let dir = kept();
    if std::env::var_os("UPDATE_HELP").is_some() {
        fs::create_dir_all(&dir).expect("the repository can be written");
        for name in names(&dir) {
            fs::remove_file(dir.join(name)).expect("a page that was kept");
        }
        for (name, text) in &pages {
            fs::write(dir.join(format!("{name}.txt")), text).expect("a page can be written");
        }
    }
    let mut expected: Vec<String> = pages.iter().map(|(name, _)| format!("{name}.txt")).collect();
    expected.sort();
    assert_eq!(names(&dir), expected, "run with UPDATE_HELP=1");
    for (name, text) in &pages {
        let page = fs::read_to_string(dir.join(format!("{name}.txt"))).expect("listed above");
        assert_eq!(&page, text, "the help of {name} changed; run with UPDATE_HELP=1");
    }
}

#[test]
fn help_is_narrow_enough_for_a_page() {
    for (name, text) in supernode::cli::help_pages() {
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
            assert_eq!(line, line.trim_end(), "{name} has a line that ends in blanks");
        }
    }
}
