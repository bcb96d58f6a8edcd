// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configuration: where it is found, how its layers stack, and what it may say.
//!
//! - [`NodeConfig`] is `supernode.toml`, what `init` writes and `run` reads. [`ClientConfig`] is
//!   `client.toml`, what the object commands read.
//! - Both are plain data with a default for everything. Rules that belong to a crate are checked by
//!   that crate's own configuration, which ours is converted into; this module adds only units,
//!   layers and errors that name file, line, key and remedy.

pub mod client;
pub mod error;
pub mod layers;
pub mod log;
pub mod node;
pub mod template;
pub mod units;

use std::env;
use std::path::{Path, PathBuf};

pub use self::client::ClientConfig;
pub use self::error::{ConfigError, Invalid, Origin};
pub use self::layers::{File, Overlay, Settings};
pub use self::node::NodeConfig;

/// Where a node's configuration is, unless said otherwise.
pub const NODE_CONFIG_PATH: &str = "/etc/supernode/supernode.toml";

/// Where a client's configuration is looked for, in this order, unless said otherwise.
pub fn client_config_paths() -> Vec<PathBuf> {
    let xdg = env::var_os("XDG_CONFIG_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let user = xdg.or_else(|| home.map(|home| home.join(".config")));
    let mut paths: Vec<PathBuf> =
        user.map(|dir| dir.join("supernode/client.toml")).into_iter().collect();
    paths.push(PathBuf::from("/etc/supernode/client.toml"));
    paths
}

/// Loads one kind of settings: the file that was named, else the first usual one that exists.
///
/// # Errors
/// When a named file cannot be read, or a layer holds something unusable.
pub fn load<T: Settings>(
    named: Option<&Path>,
    usual: &[PathBuf],
    flags: Vec<Overlay>,
) -> Result<T, ConfigError> {
    let path = named.or_else(|| usual.iter().map(PathBuf::as_path).find(|path| path.exists()));
    let file = path.map(layers::read_file).transpose()?;
    load_file(file.as_ref(), flags)
}

/// Loads one kind of settings from a file already read, environment and flags.
///
/// # Errors
/// When a layer holds something unusable.
pub fn load_file<T: Settings>(file: Option<&File>, flags: Vec<Overlay>) -> Result<T, ConfigError> {
    // A variable that is no UTF-8 cannot be one of ours: keys and values are text.
    let variables = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut overlays = Overlay::from_env::<T>(variables);
    overlays.extend(flags);
    layers::load(file, &overlays)
}

/// Which of the two kinds a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A node's.
    Node,
    /// A client's.
    Client,
}

impl Kind {
    /// Tells a file by its keys: the kind that knows more of them; a client's when both do.
    pub fn of(file: &File) -> Self {
        let strange_to_client = layers::unknown_keys::<ClientConfig>(&file.text);
        let strange_to_node = layers::unknown_keys::<NodeConfig>(&file.text);
        if strange_to_node < strange_to_client { Self::Node } else { Self::Client }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{File, Kind};

    fn kind(text: &str) -> Kind {
        Kind::of(&File { path: PathBuf::from("x.toml"), text: text.to_owned() })
    }

    #[test]
    fn a_file_is_told_by_its_keys() {
        assert_eq!(kind("data_dir = \"d\"\n[network]\nname = \"n\""), Kind::Node);
        assert_eq!(kind("[network]\nname = \"n\"\n[put]\nclass = \"10+4\""), Kind::Client);
        assert_eq!(kind(""), Kind::Client);
    }
}
