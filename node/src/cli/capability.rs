// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the command line that speaks of capabilities: names, flags and help texts.

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Subcommand};
use supernode_protocol::capability::ClientClass;
use supernode_protocol::ids::NodeId;

use super::JsonFlag;
use crate::config::units::Unit;

/// Broken where a page ends, which clap does not do.
const SIGN_USAGE: &str = "\
supernode capability sign [OPTIONS] --audience <PEER_ID> --class <CLASS>
           --bytes <SIZE> --expires <DURATION> <--read|--write>";

/// `capability`.
#[derive(Debug, Args)]
pub struct CapabilityArgs {
    /// What about capabilities.
    #[command(subcommand)]
    pub command: CapabilityCommand,
}

/// What about capabilities.
#[derive(Debug, Subcommand)]
pub enum CapabilityCommand {
    /// Signs a capability with this configuration's key and prints its token.
    ///
    /// The key is the identity of a node's configuration or of a client's, whichever --config
    /// names, and the network is that of the configuration. Nodes take what is signed by a key of
    /// their relay.issuers; what is signed by one of their relay.writers they take as far as that
    /// writer's own class. Whoever is to use it saves the token to a file and names that as
    /// capability_file in client.toml.
    Sign(CapabilitySignArgs),
    /// Shows what a token says, and whether it was signed by who it says.
    ///
    /// Ends with exit code 4 when no node would take it: its signature does not hold, or it has
    /// expired. Whether a node trusts its issuer, only that node knows.
    Show(CapabilityShowArgs),
}

/// `capability sign`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("scope").required(true).multiple(true).args(["read", "write"]),
    override_usage = SIGN_USAGE
)]
pub struct CapabilitySignArgs {
    /// Who may show it: the peer id of a client, as `supernode init --client` prints it.
    #[arg(long, value_name = "PEER_ID")]
    pub audience: NodeId,

    /// What nodes are to treat it as, which is what it may use at a time (relay.class).
    #[arg(long, value_name = "CLASS", value_parser = class())]
    pub class: ClientClass,

    /// It may read, also where a node is closed to strangers.
    #[arg(long)]
    pub read: bool,

    /// It may store, commit, and manage leases of its own.
    #[arg(long)]
    pub write: bool,

    /// Bytes that each node moves under it in all, both directions together, such as 10GiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub bytes: u64,

    /// After which time it is worth nothing, such as 30d or 12h.
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    pub expires: Duration,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `capability show`.
#[derive(Debug, Args)]
pub struct CapabilityShowArgs {
    /// The token, or a file that holds it.
    #[arg(value_name = "TOKEN|FILE")]
    pub token: String,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

fn class() -> impl TypedValueParser<Value = ClientClass> {
    PossibleValuesParser::new(ClientClass::ALL.map(ClientClass::name))
        .try_map(|name| ClientClass::named(&name).ok_or("there is no such class"))
}

fn size(text: &str) -> Result<u64, String> {
    match Unit::Bytes.parse(text) {
        Ok(0) => Err("a capability for no bytes is worth nothing; write such as 10GiB".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

/// Capabilities end at full seconds.
fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_secs(1) => Ok(time),
        Ok(_) => Err("it would have expired at once; write such as 30d or 12h".to_owned()),
        Err(error) => Err(format!("{error}; write such as 30d or 12h")),
    }
}
