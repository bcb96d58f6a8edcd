// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a Rust file opens: its licence, then what it owns and why.

use crate::source::Remark;

const LICENCE_LINE: &str = "// SPDX-License-Identifier: MIT OR Apache-2.0";

/// The first line names the licence.
pub fn licence(text: &str) -> Vec<Remark> {
    if text.lines().next() == Some(LICENCE_LINE) {
        return Vec::new();
    }
    vec![Remark::new(1, format!("the first line must be `{LICENCE_LINE}`"))]
}

/// Right below the licence stands `//!` with at least a sentence of `chars_min` characters.
pub fn module_docs(text: &str, chars_min: usize) -> Vec<Remark> {
    let opening = text.lines().enumerate().skip(1).skip_while(|(_, line)| line.trim().is_empty());
    let docs: Vec<&str> = opening.map_while(|(_, line)| line.strip_prefix("//!")).collect();
    let chars: usize = docs.iter().map(|line| line.trim().chars().count()).sum();
    if chars >= chars_min {
        return Vec::new();
    }
    let message =
        format!("open with `//!`: who owns what and why ({chars} of {chars_min} letters)");
    vec![Remark::new(2, message)]
}

/// `foo.rs` stands beside `foo/`, so that every open file has a name of its own.
pub fn module_file(path: &str) -> Vec<Remark> {
    let Some(folder) = path.strip_suffix("/mod.rs") else { return Vec::new() };
    vec![Remark::new(0, format!("call it {folder}.rs"))]
}

#[cfg(test)]
mod tests {
    use super::{LICENCE_LINE, licence, module_docs, module_file};

    #[test]
    fn a_module_is_named_after_itself() {
        assert_eq!(module_file("src/index/mod.rs").len(), 1);
        assert_eq!(module_file("src/index.rs"), []);
    }

    #[test]
    fn the_licence_stands_first() {
        assert_eq!(licence(&format!("{LICENCE_LINE}\n//! Docs.")), []);
        assert_eq!(licence(&format!("\n{LICENCE_LINE}")).len(), 1);
        assert_eq!(licence("").len(), 1);
    }

    #[test]
    fn docs_stand_below_the_licence_and_say_something() {
        assert_eq!(module_docs(&format!("{LICENCE_LINE}\n//! Owns a thing.\n\nuse a;"), 10), []);
        assert_eq!(module_docs(&format!("{LICENCE_LINE}\n\n//! Owns a thing."), 10), []);
        assert_eq!(module_docs(&format!("{LICENCE_LINE}\n//! Thing."), 10).len(), 1);
        let late = format!("{LICENCE_LINE}\nuse a;\n//! Owns a thing.");
        assert_eq!(module_docs(&late, 10).len(), 1);
    }
}
