// SPDX-License-Identifier: MIT OR Apache-2.0
//! Banned words and texts; the table is `words.txt`, so that no rule has to spell one out.

use crate::source::{Remark, Source};

const TABLE: &str = include_str!("words.txt");

/// The path of the table, which is the one file that may contain the words.
pub const TABLE_PATH: &str = "tests/tidy/words.txt";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Rust,
    Text,
}

/// One row of the table.
#[derive(Debug)]
pub struct Ban {
    scope: Scope,
    pattern: String,
    instead: String,
}

/// Reads the table.
///
/// # Panics
/// If a row is not `scope | pattern | instead`.
pub fn table() -> Vec<Ban> {
    let rows = TABLE.lines().filter(|row| !row.starts_with('#') && !row.trim().is_empty());
    rows.map(|row| {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let [scope, pattern, instead] = columns[..] else {
            panic!("{TABLE_PATH}: `{row}` is not `scope | pattern | instead`");
        };
        let scope = match scope {
            "all" => Scope::All,
            "rust" => Scope::Rust,
            "text" => Scope::Text,
            other => panic!("{TABLE_PATH}: `{other}` is no scope, use all, rust or text"),
        };
        Ban { scope, pattern: pattern.into(), instead: instead.into() }
    })
    .collect()
}

/// Every banned word in the text of `source` and in its path.
pub fn banned(source: &Source, bans: &[Ban]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let applies = |ban: &&Ban| ban.scope != Scope::Rust || source.is_rust();
    let bans: Vec<&Ban> = bans.iter().filter(applies).collect();
    let lines = std::iter::once(source.path.as_str()).chain(source.text.lines());
    for (number, line) in lines.enumerate() {
        let words = words_of(line);
        for ban in &bans {
            let found = match ban.scope {
                Scope::Text => number > 0 && line.contains(&ban.pattern),
                Scope::All | Scope::Rust => contains_words(&words, &ban.pattern),
            };
            if found {
                let message = format!("`{}`: {}", ban.pattern, ban.instead);
                remarks.push(Remark::new(number, message));
            }
        }
    }
    remarks
}

/// The words of a line as written; `snake_case` and `CamelCase` fall into their parts.
fn words_of(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for chunk in line.split(|letter: char| !letter.is_alphanumeric()) {
        let mut start = 0;
        let mut lower_before = false;
        for (at, letter) in chunk.char_indices() {
            if letter.is_uppercase() && lower_before {
                words.push(&chunk[start..at]);
                start = at;
            }
            lower_before = letter.is_lowercase();
        }
        words.push(&chunk[start..]);
    }
    words.retain(|word| !word.is_empty());
    words
}

fn contains_words(words: &[&str], pattern: &str) -> bool {
    let wanted: Vec<&str> = pattern.split(' ').collect();
    let capitals = pattern.chars().all(char::is_uppercase);
    words.windows(wanted.len()).any(|run| {
        run.iter().zip(&wanted).all(|(word, wanted)| {
            if capitals { word == wanted } else { word.eq_ignore_ascii_case(wanted) }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{Ban, Scope, banned, table, words_of};
    use crate::source::Source;

    fn remarks(path: &str, text: &str, bans: &[Ban]) -> usize {
        banned(&Source { path: path.into(), text: text.into() }, bans).len()
    }

    #[test]
    fn every_row_fires() {
        let bans = table();
        assert!(bans.len() > 10, "the table lost its rows");
        for ban in &bans {
            let line = format!("one\nof {}.", ban.pattern);
            assert!(remarks("a.rs", &line, &bans) > 0, "{} never fires", ban.pattern);
        }
    }

    #[test]
    fn words_match_inside_names_but_not_inside_words() {
        assert_eq!(
            words_of("a string_of HttpClient2, XML"),
            ["a", "string", "of", "Http", "Client2", "XML"]
        );
        let bans = [Ban { scope: Scope::All, pattern: "odd".into(), instead: "even".into() }];
        assert_eq!(remarks("a.md", "fn odd_name()\nOddName\nbe odd.", &bans), 3);
        assert_eq!(remarks("a.md", "oddly\nnodding", &bans), 0);
    }

    #[test]
    fn capitals_match_only_capitals() {
        let bans = [Ban { scope: Scope::All, pattern: "ODD".into(), instead: "even".into() }];
        assert_eq!(remarks("a.md", "ODD: x\nodd = 1", &bans), 1);
    }

    #[test]
    fn a_path_counts_and_a_rust_row_spares_prose() {
        let bans = [Ban { scope: Scope::Rust, pattern: "odd".into(), instead: "even".into() }];
        assert_eq!(remarks("src/odd.rs", "", &bans), 1);
        assert_eq!(remarks("docs/odd.md", "odd", &bans), 0);
    }

    #[test]
    fn two_words_match_in_order() {
        let bans = [Ban { scope: Scope::All, pattern: "odd one".into(), instead: "none".into() }];
        assert_eq!(remarks("a.md", "the Odd one out\none odd", &bans), 1);
    }
}
