// SPDX-License-Identifier: MIT OR Apache-2.0
//! `init`: a commented configuration and a new identity.
//!
//! Nothing that exists is lost: a configuration is replaced only with `--force`, and a key never.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use supernode_protocol::ids::NodeId;

use super::Given;
use crate::cli::InitArgs;
use crate::config::layers::{self, Settings};
use crate::config::{self, ClientConfig, NodeConfig, Overlay, template};
use crate::exit::Failure;
use crate::identity::{Identity, IdentityError};
use crate::output::{Output, Report};

/// What `init` made.
#[derive(Debug, Serialize)]
struct Made {
    peer_id: NodeId,
    config: PathBuf,
    identity_file: PathBuf,
    identity_created: bool,
}

impl Report for Made {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.peer_id)
    }
}

/// Where things go.
struct Plan {
    config: PathBuf,
    identity: PathBuf,
    /// A directory that only this node may use; clients need none.
    data_dir: Option<PathBuf>,
    text: String,
}

/// Does `supernode init`.
pub fn run(given: Given, args: &InitArgs) -> Result<(), Failure> {
    let output = Output::new(args.json.json);
    let plan = if args.client { plan_client(given, args)? } else { plan_node(given, args)? };
    if !args.force {
        refuse_to_overwrite(&plan)?;
    }
    if let Some(dir) = &plan.data_dir {
        make_dir(dir)?;
    }
    for parent in [&plan.config, &plan.identity].into_iter().filter_map(|path| parent(path)) {
        make_dir(parent)?;
    }
    let (identity, identity_created) = make_identity(&plan.identity)?;
    write_config(&plan.config, &plan.text)
        .map_err(|error| Failure::failed(format_args!("{}: {error}", plan.config.display())))?;
    output.report(&Made {
        peer_id: identity.node,
        config: plan.config.clone(),
        identity_file: plan.identity.clone(),
        identity_created,
    })?;
    let (config, key) = (plan.config.display(), plan.identity.display());
    if identity_created {
        output.talk(format_args!("back up {key}: it is this identity, and nobody can restore it"));
    } else {
        output.talk(format_args!("kept the identity in {key}"));
    }
    if args.client {
        output.talk(format_args!(
            "next: name a node in network.bootstrap of {config}, and have the nodes' owners add \
             the peer id to relay.writers or sign a capability for it"
        ));
    } else {
        output.talk(format_args!("next: supernode run --config {config}"));
    }
    Ok(())
}

fn plan_node(given: Given, args: &InitArgs) -> Result<Plan, Failure> {
    let config = match (given.config, &args.data_dir) {
        (Some(config), _) => config,
        (None, Some(dir)) => dir.join("supernode.toml"),
        (None, None) => PathBuf::from(config::NODE_CONFIG_PATH),
    };
    let mut values = given.set;
    if let Some(dir) = &args.data_dir {
        // Beside its configuration a data directory is `.`, so that both can be moved together.
        let beside = parent(&config).is_some_and(|parent| parent == dir);
        let dir = if beside { PathBuf::from(".") } else { absolute(dir)? };
        let dir = dir.to_str().ok_or_else(|| Failure::usage("--data-dir must be UTF-8"))?;
        values.push(Overlay::flag("data_dir", dir, "--data-dir"));
    }
    let text = template::fill::<NodeConfig>(template::NODE, &values)?;
    let node: NodeConfig = as_written(&config, &text)?;
    Ok(Plan { config, identity: node.identity_path(), data_dir: Some(node.data_dir), text })
}

fn plan_client(given: Given, args: &InitArgs) -> Result<Plan, Failure> {
    if args.data_dir.is_some() {
        return Err(Failure::usage("a client has no data directory; leave out --data-dir"));
    }
    let usual = || config::client_config_paths().into_iter().next();
    let config = given.config.or_else(usual).expect("there is always one usual place");
    let mut values = vec![Overlay::flag("identity_file", "client.key", "--client")];
    values.extend(given.set);
    let text = template::fill::<ClientConfig>(template::CLIENT, &values)?;
    let client: ClientConfig = as_written(&config, &text)?;
    Ok(Plan { config, identity: client.identity_file, data_dir: None, text })
}

/// The settings as they will be read from the file, relative paths and all.
fn as_written<T: Settings>(path: &Path, text: &str) -> Result<T, Failure> {
    let file = config::File { path: path.to_owned(), text: text.to_owned() };
    Ok(layers::load(Some(&file), &[])?)
}

fn refuse_to_overwrite(plan: &Plan) -> Result<(), Failure> {
    let remedy = "give another place, or --force (an identity is kept even then)";
    if plan.config.exists() {
        let config = plan.config.display();
        return Err(Failure::usage(format_args!("{config} exists; {remedy}")));
    }
    let Some(dir) = &plan.data_dir else { return Ok(()) };
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => {
            let dir = dir.display();
            Err(Failure::usage(format_args!("directory {dir} is not empty; {remedy}")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::usage(format_args!("{}: {error}", dir.display()))),
    }
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|error| {
        Failure::failed(format_args!("cannot make directory {}: {error}", dir.display()))
    })
}

fn make_identity(path: &Path) -> Result<(Identity, bool), Failure> {
    match Identity::create(path) {
        Ok(identity) => Ok((identity, true)),
        Err(IdentityError::Exists { .. }) => Ok((Identity::load(path)?, false)),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file in one step, so that a crash leaves the old one or the new one.
fn write_config(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(parent(path).unwrap_or(Path::new(".")))?.sync_all()
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
}
