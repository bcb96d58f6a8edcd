// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that the README and its neighbours tell people to type exist.
//!
//! A command is a line of a shell block, or a code span in prose, that starts with `just`,
//! `cargo run` or `supernode`, or with a path of this repository.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::source::Remark;
use crate::tokens::{each_run, is_ident, is_punct};

/// What there is to call.
#[derive(Debug, Default)]
pub struct Callable {
    /// Recipes of the justfile.
    pub recipes: BTreeSet<String>,
    /// Subcommands of the binary.
    pub subcommands: BTreeSet<String>,
    /// Files of the repository.
    pub files: BTreeSet<String>,
}

/// The recipes of a justfile: names at the start of a line, parameters after them, then a colon.
pub fn recipes(justfile: &str) -> BTreeSet<String> {
    let heads = justfile.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let heads = heads.filter(|line| !line.contains(":="));
    let heads = heads.filter_map(|line| line.split_once(':'));
    heads.filter_map(|(head, _)| head.split_whitespace().next()).map(str::to_owned).collect()
}

/// The subcommands that a file declares: variants of the enums that derive clap's `Subcommand`.
pub fn subcommands(code: &TokenStream) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    each_run(code, &mut |run| {
        for at in 0..run.len() {
            if let Some(variants) = subcommand_enum(run, at) {
                found.extend(variant_names(variants));
            }
        }
    });
    found
}

/// The body of the enum whose `#[derive(.., Subcommand, ..)]` stands at `at`.
fn subcommand_enum(run: &[TokenTree], at: usize) -> Option<TokenStream> {
    let TokenTree::Group(attribute) = run.get(at + 1)? else { return None };
    let mut derives = false;
    each_run(&attribute.stream(), &mut |run| {
        derives |= run.iter().any(|token| is_ident(token, "Subcommand"));
    });
    if !is_punct(&run[at], '#') || !derives {
        return None;
    }
    run[at + 2..].iter().find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group.stream()),
        _ => None,
    })
}

fn variant_names(variants: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = variants.into_iter().collect();
    let variants = tokens.split(|token| is_punct(token, ','));
    let named = variants.filter_map(|variant| {
        variant.iter().find_map(|token| match token {
            TokenTree::Ident(ident) => Some(kebab(&ident.to_string())),
            _ => None,
        })
    });
    named.collect()
}

fn kebab(camel: &str) -> String {
    let mut name = String::new();
    for (at, letter) in camel.char_indices() {
        if letter.is_uppercase() && at > 0 {
            name.push('-');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// Every command in `text` that calls something there is not.
pub fn unknown_commands(text: &str, callable: &Callable) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for (line, command) in commands(text) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let unknown = match words[..] {
            ["just", recipe, ..] if !callable.recipes.contains(recipe) => {
                Some(format!("the justfile has no recipe `{recipe}`"))
            }
            ["cargo", "run", ref rest @ ..] => {
                let arguments =
                    rest.iter().position(|word| *word == "--").map(|at| &rest[at + 1..]);
                arguments.and_then(|arguments| unknown_subcommand(arguments, callable))
            }
            ["supernode", ref arguments @ ..] => unknown_subcommand(arguments, callable),
            [path, ..] if path.starts_with(".ci/") && !callable.files.contains(path) => {
                Some(format!("there is no file {path}"))
            }
            _ => None,
        };
        remarks.extend(unknown.map(|message| Remark::new(line, message)));
    }
    remarks
}

fn unknown_subcommand(arguments: &[&str], callable: &Callable) -> Option<String> {
    // The one global setting may stand before the subcommand.
    let arguments = match arguments {
        ["--config", _, rest @ ..] => rest,
        arguments => arguments,
    };
    let word = arguments.first().filter(|word| !word.starts_with('-'))?;
    let known = callable.subcommands.contains(*word);
    (!known).then(|| format!("the binary has no subcommand `{word}`"))
}

/// Lines of shell blocks and code spans of prose, with their line numbers.
fn commands(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut block: Option<bool> = None;
    for (at, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let shell = ["sh", "bash", "console", "shell"].contains(&language.trim());
            block = if block.is_some() { None } else { Some(shell) };
        } else if block == Some(true) {
            let command = line.trim().trim_start_matches("$ ");
            found.push((at + 1, command.to_owned()));
        } else if block.is_none() {
            found.extend(line.split('`').skip(1).step_by(2).map(|span| (at + 1, span.to_owned())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Callable, recipes, subcommands, unknown_commands};

    fn callable() -> Callable {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Callable { recipes: set(&["check"]), subcommands: set(&["put"]), files: set(&[".ci/run"]) }
    }

    fn lines(text: &str) -> Vec<usize> {
        unknown_commands(text, &callable()).into_iter().map(|remark| remark.line).collect()
    }

    #[test]
    fn recipes_are_heads_of_lines() {
        let justfile = "x := \"a\"\n# note: no\ncheck *steps:\n    echo a: b\ntest-system: check\n";
        assert_eq!(recipes(justfile).into_iter().collect::<Vec<_>>(), ["check", "test-system"]);
    }

    #[test]
    fn subcommands_are_variants_in_kebab_case() {
        let code = "#[derive(Debug, Subcommand)]
            pub enum Command {
                /** Doc, with a comma. */ Put(Put),
                #[command(hide = true)] DumpMap { a: u8, b: u8 },
                Ls
            }
            #[derive(Debug)] enum Other { No }";
        let names = subcommands(&code.parse().expect("the sample is Rust"));
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["dump-map", "ls", "put"]);
    }

    #[test]
    fn known_commands_pass() {
        let text = "```sh\n$ just check\ncargo run --release -- put F\nsupernode --config C put F\n\
            supernode --help\n.ci/run fmt\nls\n```\nType `just check` or `supernode put`.\n";
        assert_eq!(lines(text), []);
    }

    #[test]
    fn unknown_commands_are_named_by_line() {
        assert_eq!(lines("```sh\njust make\n```"), [2]);
        assert_eq!(lines("```console\n$ cargo run --release -- make\n```"), [2]);
        assert_eq!(lines("```sh\nsupernode --config C make\n```"), [2]);
        assert_eq!(lines("Start `.ci/make` or `just make`."), [1, 1]);
    }

    #[test]
    fn other_blocks_are_not_commands() {
        assert_eq!(lines("```rust\njust make\n```\n```toml\nsupernode make\n```\n"), []);
    }
}
