// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong with a setting, where it stands, and what to write instead. Always one line.

use std::fmt;
use std::path::PathBuf;

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file; the position is known unless the file could not be read at all.
    File {
        /// Which file.
        path: PathBuf,
        /// Line and column, both from 1.
        position: Option<(usize, usize)>,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
    },
    /// A flag on the command line.
    Flag {
        /// As it is spelled, such as `--set storage.capacity`.
        name: String,
    },
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, position: None } => write!(f, "{}", path.display()),
            Self::File { path, position: Some((line, column)) } => {
                write!(f, "{}: line {line}, column {column}", path.display())
            }
            Self::Env { name } => write!(f, "environment variable {name}"),
            Self::Flag { name } => f.write_str(name),
            Self::Default => f.write_str("default setting"),
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it stands.
    pub origin: Origin,
    /// Its dotted key, where there is one.
    pub key: Option<String>,
    /// What is wrong, and the remedy.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: {key}: {}", self.origin, self.problem),
            None => write!(f, "{}: {}", self.origin, self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A value that parses and yet breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The dotted key.
    pub key: String,
    /// What is wrong, and the remedy.
    pub problem: String,
}

impl Invalid {
    /// States a problem with a key.
    pub fn new(key: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { key: key.into(), problem: problem.to_string() }
    }
}

/// The key that was probably meant, if one is close enough to be worth asking.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let slips_max = (typed.chars().count() / 3).max(1);
    known
        .map(|key| (distance(typed, key), key))
        .filter(|(slips, _)| *slips <= slips_max)
        .min()
        .map(|(_, key)| key)
}

/// Insertions, deletions, changes and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn slips_are_counted() {
        assert_eq!(distance("capacity", "capacity"), 0);
        assert_eq!(distance("capcity", "capacity"), 1);
        assert_eq!(distance("cpaacity", "capacity"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn only_a_near_key_is_offered() {
        let known = ["capacity", "reserve", "durability"];
        assert_eq!(nearest("capcaity", known.into_iter()), Some("capacity"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
