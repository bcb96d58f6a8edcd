// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings in layers: flags over environment over TOML file over defaults.
//!
//! - The schema is the default value itself: a key that the defaults do not have is unknown. That
//!   is why no setting is an `Option`. Keys that the program fills in from others are hidden.
//! - Sizes and durations may be text: [`Unit`] reads them before anything is decoded.
//! - Every error knows its layer: a file error names line and column, an overlay its variable or
//!   flag. For that the file is decoded alone first and each overlay on its own after it.
//! - Pure but for [`read_file`]: the environment arrives as a list.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::error::{ConfigError, Invalid, Origin, nearest};
use super::units::Unit;

/// The prefix of every environment variable that is a setting.
pub const ENV_PREFIX: &str = "SUPERNODE_";

/// A whole configuration: plain data with a default for everything.
pub trait Settings: Default + Serialize + DeserializeOwned {
    /// Dotted keys that exist in a section and are filled in from another key, named second.
    const HIDDEN: &'static [(&'static str, &'static str)];

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Names the first key whose value breaks a rule.
    fn validate(&self) -> Result<(), Invalid>;

    /// Replaces relative paths from a file by paths from that file's directory.
    fn resolve_paths(&mut self, directory: &Path);
}

/// One setting from outside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Dotted key.
    pub key: String,
    /// Its value as text.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
}

/// A configuration file as read.
#[derive(Debug, Clone)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Reads a configuration file.
///
/// # Errors
/// When it is missing, unreadable or no UTF-8.
pub fn read_file(path: &Path) -> Result<File, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| ConfigError {
        origin: Origin::File { path: path.to_owned(), position: None },
        key: None,
        problem: format!("cannot be read ({error}); `supernode init` writes a new one"),
    })?;
    Ok(File { path: path.to_owned(), text })
}

impl Overlay {
    /// A setting from a flag.
    pub fn flag(key: &str, value: impl ToString, flag: impl ToString) -> Self {
        let origin = Origin::Flag { name: flag.to_string() };
        Self { key: key.to_owned(), value: value.to_string(), origin }
    }

    /// Settings among environment variables: `SUPERNODE_SECTION__KEY`, or `SUPERNODE_KEY` for the
    /// keys without a section.
    ///
    /// A variable with `__` must name a setting. One without is left alone when it names none:
    /// others use the prefix as well (Kubernetes sets `SUPERNODE_PORT` for a service).
    pub fn from_env<T: Settings>(variables: impl Iterator<Item = (String, String)>) -> Vec<Self> {
        let schema = schema::<T>();
        let mut overlays: Vec<Self> = variables
            .filter_map(|(name, value)| {
                let key = name.strip_prefix(ENV_PREFIX)?.to_lowercase();
                let sectioned = key.contains("__");
                let key = key.replace("__", ".");
                let named = sectioned || schema.get(&key).is_some_and(|value| !value.is_table());
                named.then_some(Self { key, value, origin: Origin::Env { name } })
            })
            .collect();
        overlays.sort_by(|a, b| a.key.cmp(&b.key));
        overlays
    }
}

/// Puts the layers together; later overlays win.
///
/// # Errors
/// Names the layer, the key and the remedy.
pub fn load<T: Settings>(file: Option<&File>, overlays: &[Overlay]) -> Result<T, ConfigError> {
    let mut settings = match file {
        Some(file) => decode_file::<T>(file)?,
        None => T::default(),
    };
    if let Some(directory) = file.and_then(|file| file.path.parent()) {
        settings.resolve_paths(directory);
    }
    overlaid(settings, file, overlays)
}

/// Settings with others over them; later overlays win.
///
/// # Errors
/// Names the overlay, the key and the remedy.
pub fn change<T: Settings>(settings: T, overlays: &[Overlay]) -> Result<T, ConfigError> {
    overlaid(settings, None, overlays)
}

/// Settings that came from `file`, with others over them.
fn overlaid<T: Settings>(
    mut settings: T,
    file: Option<&File>,
    overlays: &[Overlay],
) -> Result<T, ConfigError> {
    let mut merged = Table::try_from(&settings).expect("settings are tables of plain values");
    for overlay in overlays {
        apply::<T>(&mut merged, &schema::<T>(), overlay)?;
        // Decoded one at a time, so that an error is the last overlay's.
        settings = merged.clone().try_into().map_err(|error: toml::de::Error| {
            let problem = plain(error.message());
            ConfigError { origin: overlay.origin.clone(), key: Some(overlay.key.clone()), problem }
        })?;
    }
    settings.validate().map_err(|invalid| ConfigError {
        origin: origin_of(&invalid.key, file, overlays),
        key: Some(invalid.key),
        problem: invalid.problem,
    })?;
    Ok(settings)
}

/// The defaults as a table: every key that may be set.
fn schema<T: Settings>() -> Table {
    let mut schema = Table::try_from(T::default()).expect("settings are tables of plain values");
    for (key, _) in T::HIDDEN {
        let (section, name) = key.split_once('.').expect("hidden keys are in sections");
        let section = schema.get_mut(section).and_then(Value::as_table_mut);
        section.and_then(|section| section.remove(name)).expect("hidden keys exist");
    }
    schema
}

/// The defaults as a table, for those who compare them with something.
#[cfg(test)]
pub(super) fn defaults<T: Settings>() -> Value {
    Value::Table(schema::<T>())
}

/// Whether `table` says more of `T` than of other settings: how many of its keys `T` lacks.
pub fn unknown_keys<T: Settings>(text: &str) -> usize {
    let Ok(table) = DeTable::parse(text) else { return 0 };
    let schema = schema::<T>();
    table.get_ref().keys().filter(|key| !schema.contains_key(key.get_ref().as_ref())).count()
}

fn decode_file<T: Settings>(file: &File) -> Result<T, ConfigError> {
    let fail = |span: Option<Range<usize>>, key: Option<String>, problem: String| ConfigError {
        origin: Origin::File {
            path: file.path.clone(),
            position: span.map(|span| position(&file.text, span.start)),
        },
        key,
        problem,
    };
    let syntax = |error: toml::de::Error| {
        let found = error.span().and_then(|span| file.text.get(span)).unwrap_or_default().trim();
        let short = !found.is_empty() && found.len() <= 40 && !found.contains('\n');
        let problem = plain(error.message());
        let problem = if short { format!("{problem} at `{found}`") } else { problem };
        fail(error.span(), None, problem)
    };
    let table = DeTable::parse(&file.text).map_err(syntax)?;
    if let Some(unknown) = first_unknown::<T>(table.get_ref(), &schema::<T>(), "") {
        return Err(fail(Some(unknown.span), Some(unknown.key), unknown.problem));
    }
    let mut edits = Vec::new();
    number_edits(table.get_ref(), "", &mut edits)
        .map_err(|wrong| fail(Some(wrong.span), Some(wrong.key), wrong.problem))?;
    let text = replace_all(&file.text, edits);
    let table = DeTable::parse(&text).expect("a number is put where a text was");
    let written: Table = toml::from_str(&text).expect("it was parsed before");
    // Over our defaults, not over those of a section's own type, which may differ.
    let mut merged = Table::try_from(T::default()).expect("settings are tables of plain values");
    merge(&mut merged, written);
    merged.try_into().map_err(|error: toml::de::Error| {
        // Only the text itself knows places.
        let error = toml::from_str::<T>(&text).err().unwrap_or(error);
        let key = error.span().and_then(|span| key_at(table.get_ref(), span.start, ""));
        // A number may be longer than its text; lines and what is before it are where they were.
        let position = error.span().map(|span| position(&text, span.start));
        let origin = Origin::File { path: file.path.clone(), position };
        ConfigError { origin, key, problem: plain(error.message()) }
    })
}

/// Puts the values of `over` in place of those of `under`, section by section.
fn merge(under: &mut Table, over: Table) {
    for (name, value) in over {
        match (under.get_mut(&name), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(name, value);
            }
        }
    }
}

/// A key that is wrong, and where it stands.
struct Wrong {
    key: String,
    span: Range<usize>,
    problem: String,
}

/// Finds every size and duration that is text, and the number to write in its place.
fn number_edits(
    table: &DeTable<'_>,
    prefix: &str,
    edits: &mut Vec<(Range<usize>, String)>,
) -> Result<(), Wrong> {
    for (name, value) in table {
        let key = join(prefix, name.get_ref());
        match (value.get_ref(), Unit::of(name.get_ref())) {
            (DeValue::Table(table), _) => number_edits(table, &key, edits)?,
            (DeValue::Array(entries), _) => {
                for (number, entry) in (1..).zip(entries) {
                    if let DeValue::Table(table) = entry.get_ref() {
                        number_edits(table, &format!("{key}[{number}]"), edits)?;
                    }
                }
            }
            (DeValue::String(text), Some(unit)) => {
                let span = value.span();
                let number = unit.parse(text).map_err(|error| Wrong {
                    key,
                    span: span.clone(),
                    problem: error.to_string(),
                })?;
                edits.push((span, number.to_string()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Applies edits that do not overlap.
pub(super) fn replace_all(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(span, _)| span.start);
    let mut replaced = text.to_owned();
    // From the end, so that the spans before an edit stay true.
    for (span, with) in edits.into_iter().rev() {
        replaced.replace_range(span, &with);
    }
    replaced
}

/// The first key, in file order, that the schema does not have.
fn first_unknown<T: Settings>(table: &DeTable<'_>, schema: &Table, prefix: &str) -> Option<Wrong> {
    let mut found: Vec<Wrong> = Vec::new();
    for (name, value) in table {
        let (key, span) = (join(prefix, name.get_ref()), name.span());
        match (schema.get(name.get_ref().as_ref()), value.get_ref()) {
            (Some(Value::Table(inner)), DeValue::Table(table)) => {
                found.extend(first_unknown::<T>(table, inner, &key));
            }
            (Some(_), _) => {}
            (None, _) => {
                let problem = unknown_problem::<T>(&key, name.get_ref(), schema);
                found.push(Wrong { key, span, problem });
            }
        }
    }
    found.into_iter().min_by_key(|wrong| wrong.span.start)
}

fn unknown_problem<T: Settings>(key: &str, name: &str, schema: &Table) -> String {
    if let Some((_, instead)) = T::HIDDEN.iter().find(|(hidden, _)| *hidden == key) {
        return format!("is not set here; set `{instead}`");
    }
    match nearest(name, schema.keys().map(String::as_str)) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None => {
            let known: Vec<&str> = schema.keys().map(String::as_str).collect();
            format!("unknown key; known here: {}", known.join(", "))
        }
    }
}

/// The dotted key whose value or name stands at `offset`.
fn key_at(table: &DeTable<'_>, offset: usize, prefix: &str) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let key = join(prefix, name.get_ref());
        let inside = match value.get_ref() {
            DeValue::Table(table) => key_at(table, offset, &key),
            _ => None,
        };
        let here = value.span().contains(&offset) || name.span().contains(&offset);
        inside.or_else(|| here.then_some(key))
    })
}

/// Where the value of a dotted key stands in the text.
pub fn value_span(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let (name, rest) = key.split_once('.').unwrap_or((key, ""));
    let value = table.iter().find(|(it, _)| it.get_ref() == name)?.1;
    match value.get_ref() {
        _ if rest.is_empty() => Some(value.span()),
        DeValue::Table(table) => value_span(table, rest),
        _ => None,
    }
}

fn origin_of(key: &str, file: Option<&File>, overlays: &[Overlay]) -> Origin {
    if let Some(overlay) = overlays.iter().rev().find(|overlay| overlay.key == key) {
        return overlay.origin.clone();
    }
    let in_file = file.and_then(|file| {
        let table = DeTable::parse(&file.text).ok()?;
        let span = value_span(table.get_ref(), key)?;
        let position = Some(position(&file.text, span.start));
        Some(Origin::File { path: file.path.clone(), position })
    });
    in_file.unwrap_or(Origin::Default)
}

/// Sets one key of `merged`, taking the type of its value from the schema.
fn apply<T: Settings>(
    merged: &mut Table,
    schema: &Table,
    overlay: &Overlay,
) -> Result<(), ConfigError> {
    let fail = |problem: String| ConfigError {
        origin: overlay.origin.clone(),
        key: Some(overlay.key.clone()),
        problem,
    };
    let (mut merged, mut schema) = (merged, schema);
    let mut path: Vec<&str> = overlay.key.split('.').collect();
    let name = path.pop().expect("splitting gives at least one part");
    for section in path {
        let unknown = || fail(unknown_problem::<T>(&overlay.key, section, schema));
        schema = schema.get(section).and_then(Value::as_table).ok_or_else(unknown)?;
        let inner = merged.get_mut(section).and_then(Value::as_table_mut);
        merged = inner.expect("the merged table has every section of the schema");
    }
    let value = match schema.get(name) {
        None => return Err(fail(unknown_problem::<T>(&overlay.key, name, schema))),
        Some(Value::Table(inner)) => {
            let known: Vec<&str> = inner.keys().map(String::as_str).collect();
            return Err(fail(format!("is a section; set one of its keys: {}", known.join(", "))));
        }
        Some(like) => typed(name, &overlay.value, like).map_err(fail)?,
    };
    merged.insert(name.to_owned(), value);
    Ok(())
}

/// Text as a value of the same type as `like`. Lists are separated by commas.
fn typed(name: &str, text: &str, like: &Value) -> Result<Value, String> {
    if let Some(unit) = Unit::of(name) {
        let number = unit.parse(text).map_err(|error| error.to_string())?;
        return Ok(Value::Integer(i64::try_from(number).expect("units stay within 63 bits")));
    }
    match like {
        Value::Integer(_) => {
            text.parse().map(Value::Integer).map_err(|_| format!("{text:?} is no whole number"))
        }
        Value::Float(_) => {
            text.parse().map(Value::Float).map_err(|_| format!("{text:?} is no number"))
        }
        Value::Boolean(_) => {
            text.parse().map(Value::Boolean).map_err(|_| format!("{text:?} is not true or false"))
        }
        Value::Array(_) => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            Ok(Value::Array(entries.map(|entry| Value::String(entry.to_owned())).collect()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Line and column of a byte offset, both counted from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn plain(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
