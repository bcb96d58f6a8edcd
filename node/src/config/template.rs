// SPDX-License-Identifier: MIT OR Apache-2.0
//! The annotated examples, and new configuration files made from them.
//!
//! The examples are part of the program, so that what `init` writes is what the repository shows
//! and a test keeps true.

use std::collections::BTreeMap;

use toml::Value;
use toml::de::DeTable;

use super::error::ConfigError;
use super::layers::{self, Overlay, Settings, replace_all, value_span};
use super::units::Unit;

/// The annotated example of a node's configuration: every key with its default.
pub const NODE: &str = include_str!("../../../configs/supernode.toml");

/// The annotated example of a client's configuration: every key with its default.
pub const CLIENT: &str = include_str!("../../../configs/client.toml");

/// An example with some values replaced; comments and order stay.
///
/// # Errors
/// When a value does not fit its key, as [`layers::load`] tells it.
pub fn fill<T: Settings>(example: &str, values: &[Overlay]) -> Result<String, ConfigError> {
    let settings: T = layers::load(None, values)?;
    let all = Value::try_from(&settings).expect("settings are tables of plain values");
    let table = DeTable::parse(example).expect("the examples are tested");
    let mut edits = BTreeMap::new();
    for overlay in values {
        let span = value_span(table.get_ref(), &overlay.key).expect("examples have every key");
        let name = overlay.key.rsplit('.').next().unwrap_or_default();
        let value = match Unit::of(name) {
            // As it was written, because people will read it.
            Some(_) => Value::String(overlay.value.clone()),
            None => {
                let value = overlay.key.split('.').try_fold(&all, |value, name| value.get(name));
                value.expect("a loaded overlay names a key").clone()
            }
        };
        edits.insert(span.start, (span, value.to_string()));
    }
    Ok(replace_all(example, edits.into_values().collect()))
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::{CLIENT, NODE, fill};
    use crate::config::layers::{File, Settings, defaults, load};
    use crate::config::{ClientConfig, NodeConfig, Overlay};

    fn keys(value: &Value, prefix: &str, found: &mut Vec<String>) {
        match value {
            Value::Table(table) => {
                for (name, value) in table {
                    keys(value, &format!("{prefix}.{name}"), found);
                }
            }
            _ => found.push(prefix.to_owned()),
        }
    }

    fn assert_shows_every_key<T: Settings>(example: &str) {
        let shown: Value = toml::from_str(example).expect("the example is TOML");
        let (mut in_example, mut in_defaults) = (Vec::new(), Vec::new());
        keys(&shown, "", &mut in_example);
        keys(&defaults::<T>(), "", &mut in_defaults);
        in_example.sort();
        in_defaults.sort();
        assert_eq!(in_example, in_defaults);
    }

    fn file(text: &str) -> File {
        File { path: "x.toml".into(), text: text.to_owned() }
    }

    #[test]
    fn the_examples_show_every_key_with_its_default() {
        assert_shows_every_key::<NodeConfig>(NODE);
        let node: NodeConfig = load(Some(&file(NODE)), &[]).expect("the example is valid");
        assert_eq!(node, NodeConfig::default());
        assert_shows_every_key::<ClientConfig>(CLIENT);
        let client: ClientConfig = load(Some(&file(CLIENT)), &[]).expect("the example is valid");
        assert_eq!(client, ClientConfig::default());
    }

    #[test]
    fn filling_changes_the_named_values_and_nothing_else() {
        let values = [
            Overlay::flag("data_dir", "d \"quoted\"", "--data-dir"),
            Overlay::flag("network.region", "FIRST", "--set"),
            Overlay::flag("dht.listen", "/ip4/1.2.3.4/tcp/1,/ip4/1.2.3.5/tcp/2", "--set"),
            Overlay::flag("network.region", "APAC", "--set"),
            Overlay::flag("storage.capacity_bytes", "2TiB", "--set"),
        ];
        let text = fill::<NodeConfig>(NODE, &values).expect("good values");
        assert!(text.contains("capacity_bytes = \"2TiB\""), "{text}");
        let filled: NodeConfig = load(Some(&file(&text)), &[]).expect("still valid");
        assert!(filled.data_dir.ends_with("d \"quoted\""));
        assert_eq!(filled.network.region, "APAC");
        assert_eq!(filled.dht.listen.len(), 2);
        assert_eq!(filled.storage.capacity_bytes, 2 << 40);
        assert_eq!(filled.relay, NodeConfig::default().relay);
        let comments = |text: &str| text.lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(comments(&text), comments(NODE));
    }

    #[test]
    fn a_bad_value_is_refused_by_its_flag() {
        let values = [Overlay::flag("storage.capacity_bytes", "12XB", "--set a")];
        let error = fill::<NodeConfig>(NODE, &values).expect_err("no unit").to_string();
        assert!(error.starts_with("--set a: storage.capacity_bytes: "), "{error}");
    }
}
