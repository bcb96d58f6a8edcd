// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a crate's `Cargo.toml` says: which layer it stands on, what it may name, and that it takes
//! versions, lints and dependencies from the workspace.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use toml::{Table, Value};

use crate::source::{Remark, Source};
use crate::tokens::{each_run, is_ident, is_punct, reads};

/// One crate's `Cargo.toml`.
pub struct Manifest {
    pub path: String,
    /// The folder it stands in, with a `/` at its end.
    pub folder: String,
    pub name: String,
    table: Table,
}

/// One dependency as a crate declares it.
struct Dependency<'a> {
    name: &'a str,
    value: &'a Value,
    /// Only for tests, examples and benches.
    dev: bool,
}

/// A crate outside the workspace that only some of our crates may name.
pub struct Reserved {
    pub dependency: &'static str,
    pub users: &'static [&'static str],
    pub why: &'static str,
}

impl Manifest {
    /// The crate that `source` describes, if it describes one: the root describes the workspace.
    ///
    /// # Panics
    /// If the file is not TOML; cargo says more about that than we could.
    pub fn of(source: &Source) -> Option<Self> {
        let folder = source.path.strip_suffix("Cargo.toml")?.to_owned();
        let table = parsed(source);
        let name = table.get("package")?.get("name")?.as_str()?.to_owned();
        Some(Self { path: source.path.clone(), folder, name, table })
    }

    fn dependencies(&self) -> Vec<Dependency<'_>> {
        let mut places = vec![&self.table];
        if let Some(targets) = self.table.get("target").and_then(Value::as_table) {
            places.extend(targets.values().filter_map(Value::as_table));
        }
        let sections =
            [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)];
        let mut found = Vec::new();
        for place in places {
            for (section, dev) in sections {
                let entries = place.get(section).and_then(Value::as_table);
                for (name, value) in entries.into_iter().flatten() {
                    found.push(Dependency { name, value, dev });
                }
            }
        }
        found
    }
}

fn parsed(source: &Source) -> Table {
    source.text.parse().unwrap_or_else(|error| panic!("{} is not TOML: {error}", source.path))
}

/// Dependencies point down: to a lower row, and for tests at most to the same one.
pub fn layers(manifest: &Manifest, rows: &[&[&str]]) -> Vec<Remark> {
    let row_of = |name: &str| rows.iter().position(|row| row.contains(&name));
    let Some(own) = row_of(&manifest.name) else {
        let message = format!("{} stands on no row: give it one in tests/tidy.rs", manifest.name);
        return vec![Remark::new(0, message)];
    };
    let mut remarks = Vec::new();
    for dependency in manifest.dependencies() {
        let Some(row) = row_of(dependency.name) else { continue };
        // Rows are listed from the top, so what lies lower has the larger number.
        let allowed = row > own || dependency.dev && row == own;
        if !allowed {
            let message = format!(
                "{} may not depend on {}: let the one that calls own a trait, the binary wires it",
                manifest.name, dependency.name
            );
            remarks.push(Remark::new(0, message));
        }
    }
    remarks
}

/// Some outside crates belong to one place each; tests may borrow them.
pub fn reserved(manifest: &Manifest, table: &[Reserved]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for dependency in manifest.dependencies().into_iter().filter(|dependency| !dependency.dev) {
        let rows = table.iter().filter(|row| row.dependency == dependency.name);
        for row in rows.filter(|row| !row.users.contains(&manifest.name.as_str())) {
            let message = format!("{} may not name {}: {}", manifest.name, row.dependency, row.why);
            remarks.push(Remark::new(0, message));
        }
    }
    remarks
}

/// Versions, lints and dependencies are decided once, in the workspace.
pub fn inherits(manifest: &Manifest) -> Vec<Remark> {
    let from_workspace = |value: Option<&Value>| {
        value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    let mut missing = Vec::new();
    if !from_workspace(manifest.table.get("lints")) {
        missing.push("`[lints] workspace = true`".to_owned());
    }
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !from_workspace(manifest.table["package"].get(key)) {
            missing.push(format!("`{key}.workspace = true`"));
        }
    }
    for dependency in manifest.dependencies() {
        if !from_workspace(Some(dependency.value)) {
            missing.push(format!("`{}.workspace = true`", dependency.name));
        }
    }
    missing.into_iter().map(|what| Remark::new(0, format!("write {what}"))).collect()
}

/// A dependency that no file of the crate names is build time for nothing. `code` is all Rust code
/// of the crate.
pub fn unused(manifest: &Manifest, code: &TokenStream) -> Vec<Remark> {
    let named = path_heads(code);
    let dependencies = manifest.dependencies();
    let names = dependencies.iter().map(|dependency| dependency.name);
    let unused = names.filter(|name| !named.contains(&name.replace('-', "_")));
    unused.map(|name| Remark::new(0, format!("{name} is not used: take it out"))).collect()
}

/// Every name that stands where a crate can: before `::`, after `use`, or in serde's `with = ".."`.
fn path_heads(code: &TokenStream) -> BTreeSet<String> {
    let mut heads = BTreeSet::new();
    each_run(code, &mut |run| {
        for (at, token) in run.iter().enumerate() {
            let path =
                run.len() > at + 2 && is_punct(&run[at + 1], ':') && is_punct(&run[at + 2], ':');
            let used = at > 0 && is_ident(&run[at - 1], "use");
            let with = at > 1 && reads(run, at - 2, &["with", "="]);
            match token {
                TokenTree::Ident(ident) if path || used => heads.insert(ident.to_string()),
                TokenTree::Literal(literal) if with => {
                    let text = literal.to_string();
                    let mut parts = text.trim_matches('"').split("::");
                    parts.next().is_some_and(|head| heads.insert(head.to_owned()))
                }
                _ => false,
            };
        }
    });
    heads
}

/// An entry of the workspace's table that no crate takes is a decision nobody needs.
pub fn unused_in_workspace(root: &Source, manifests: &[Manifest]) -> Vec<Remark> {
    let dependencies = manifests.iter().flat_map(Manifest::dependencies);
    let taken: BTreeSet<&str> = dependencies.map(|dependency| dependency.name).collect();
    let table = parsed(root);
    let entries = table.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let entries = entries.and_then(Value::as_table).into_iter().flat_map(Table::keys);
    let unused = entries.filter(|name| !taken.contains(name.as_str()));
    unused.map(|name| Remark::new(0, format!("no crate takes {name}: take it out"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        Manifest, Remark, Reserved, inherits, layers, reserved, unused, unused_in_workspace,
    };
    use crate::source::Source;

    const ROWS: &[&[&str]] = &[&["top"], &["left", "right"], &["ground"]];

    fn source(text: &str) -> Source {
        Source { path: "some/Cargo.toml".into(), text: text.into() }
    }

    fn manifest(name: &str, rest: &str) -> Manifest {
        let text = format!("[package]\nname = \"{name}\"\n{rest}");
        Manifest::of(&source(&text)).expect("the sample describes a crate")
    }

    fn messages(remarks: &[Remark]) -> String {
        remarks.iter().map(|remark| remark.message.as_str()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_workspace_root_describes_no_crate() {
        assert!(Manifest::of(&source("[workspace]\nmembers = []")).is_none());
    }

    #[test]
    fn down_is_allowed_and_up_or_sideways_is_not() {
        let of = |section: &str, to: &str| {
            layers(&manifest("left", &format!("[{section}]\n{to}.workspace = true")), ROWS).len()
        };
        assert_eq!(of("dependencies", "ground"), 0);
        assert_eq!(of("dependencies", "right"), 1);
        assert_eq!(of("dependencies", "top"), 1);
        assert_eq!(of("build-dependencies", "right"), 1);
        assert_eq!(of("target.'cfg(unix)'.dependencies", "right"), 1);
        assert_eq!(of("dev-dependencies", "right"), 0);
        assert_eq!(of("dev-dependencies", "top"), 1);
        assert_eq!(of("dependencies", "outsider"), 0);
    }

    #[test]
    fn a_crate_without_a_row_is_named() {
        assert!(messages(&layers(&manifest("new", ""), ROWS)).contains("no row"));
    }

    #[test]
    fn reserved_crates_stay_with_their_users() {
        let table = [Reserved { dependency: "swarm", users: &["left"], why: "one place" }];
        let of = |name: &str, section: &str| {
            let rest = format!("[{section}]\nswarm.workspace = true\nother.workspace = true");
            messages(&reserved(&manifest(name, &rest), &table))
        };
        assert_eq!(of("left", "dependencies"), "");
        assert_eq!(of("right", "dependencies"), "right may not name swarm: one place");
        assert_eq!(of("right", "dev-dependencies"), "");
    }

    #[test]
    fn what_is_not_inherited_is_listed() {
        let whole = "version.workspace = true\nedition.workspace = true\n\
            rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\
            [lints]\nworkspace = true\n[dependencies]\na = { workspace = true, features = [] }";
        assert_eq!(messages(&inherits(&manifest("left", whole))), "");
        let own = whole.replace("version.workspace = true\ned", "version = \"1\"\ned");
        assert_eq!(
            messages(&inherits(&manifest("left", &own))),
            "write `version.workspace = true`"
        );
        let own =
            whole.replace("[lints]\nworkspace = true", "[lints.rust]\nmissing_docs = \"allow\"");
        assert_eq!(
            messages(&inherits(&manifest("left", &own))),
            "write `[lints] workspace = true`"
        );
        let own = whole.replace("workspace = true, features", "version = \"1\", features");
        assert_eq!(messages(&inherits(&manifest("left", &own))), "write `a.workspace = true`");
    }

    #[test]
    fn a_dependency_must_be_named_in_the_code() {
        let left = manifest("left", "[dependencies]\nsome-crate.workspace = true");
        let said =
            |code: &str| messages(&unused(&left, &code.parse().expect("the sample is Rust")));
        assert_eq!(said("use some_crate::A;"), "");
        assert_eq!(said("#[serde(with = \"some_crate::hex\")] struct A;"), "");
        assert_eq!(said("fn f() { g(|| some_crate::call()) }"), "");
        for code in ["let some_crate = 1;", "use some_crate_else::A;", "f(\"some_crate::A\")"] {
            assert_eq!(said(code), "some-crate is not used: take it out", "{code}");
        }
    }

    #[test]
    fn a_workspace_dependency_must_be_taken() {
        let root = source("[workspace.dependencies]\na = \"1\"\nb = \"2\"");
        let taker = manifest("left", "[dev-dependencies]\na.workspace = true");
        let remarks = unused_in_workspace(&root, &[taker]);
        assert_eq!(messages(&remarks), "no crate takes b: take it out");
    }
}
