// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the command line that speaks of the chain: names, flags and help texts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use supernode_protocol::deal::{AuditId, DealId};

use super::JsonFlag;

/// `deal`.
#[derive(Debug, Args)]
pub struct DealArgs {
    /// What about deals.
    #[command(subcommand)]
    pub command: DealCommand,
}

/// What about deals.
#[derive(Debug, Subcommand)]
pub enum DealCommand {
    /// Lists reservations, running deals and those that ended lately.
    List(DealListArgs),
    /// Shows one deal.
    Show(DealShowArgs),
    /// Prolongs a deal and sets the money for it aside.
    Renew(DealRenewArgs),
    /// Ends a deal, or gives a reservation back; what is left of the money returns.
    Cancel(DealCancelArgs),
}

/// `deal list`.
#[derive(Debug, Args)]
pub struct DealListArgs {
    /// Deals of every owner, not only of this configuration's key.
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `deal cancel`.
#[derive(Debug, Args)]
pub struct DealCancelArgs {
    /// The deal or reservation.
    pub deal: DealId,

    /// Ends it although it runs: its object is deleted everywhere.
    #[arg(long)]
    pub running: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `deal show`.
#[derive(Debug, Args)]
pub struct DealShowArgs {
    /// The deal.
    pub deal: DealId,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `deal renew`.
#[derive(Debug, Args)]
pub struct DealRenewArgs {
    /// The deal.
    pub deal: DealId,

    /// By how much: a time such as 30days, or blocks such as 1000blocks.
    pub duration: String,

    /// What it may cost at most, in the chain's smallest unit.
    #[arg(long, value_name = "AMOUNT")]
    pub max_price: Option<u128>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What about audits.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What about audits.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Lists open audits and the results that the chain still remembers.
    List(AuditListArgs),
    /// Shows one audit.
    Show(AuditShowArgs),
}

/// `audit list`.
#[derive(Debug, Args)]
pub struct AuditListArgs {
    /// Only those of the node at this place in the registry.
    #[arg(long, value_name = "INDEX")]
    pub node: Option<u32>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `audit show`.
#[derive(Debug, Args)]
pub struct AuditShowArgs {
    /// The audit.
    pub audit: AuditId,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// What about the registry.
    #[command(subcommand)]
    pub command: NodeCommand,
}

/// What about the registry.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Registers the node of this configuration; the key of --owner-key pays and is paid.
    ///
    /// The node's own key signs that it belongs to the owner and the operator. The operator is the
    /// account of the configuration's chain.key_file, which `supernode chain key` makes.
    Register(NodeRegisterArgs),
    /// Shows the registry's entry of this configuration's node, or of all nodes.
    Show(NodeShowArgs),
}

/// `node register`.
#[derive(Debug, Args)]
pub struct NodeRegisterArgs {
    /// File with the owner's secret; without it, the operator is the owner too.
    #[arg(long, value_name = "FILE")]
    pub owner_key: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `node show`.
#[derive(Debug, Args)]
pub struct NodeShowArgs {
    /// Every registered node.
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `rewards`.
#[derive(Debug, Args)]
pub struct RewardsArgs {
    /// What about rewards.
    #[command(subcommand)]
    pub command: RewardsCommand,
}

/// What about rewards.
#[derive(Debug, Subcommand)]
pub enum RewardsCommand {
    /// Shows what this configuration's node has earned and not claimed.
    Show(RewardsNodeArgs),
    /// Pays it to the node's owner.
    Claim(RewardsNodeArgs),
}

/// `rewards show` and `rewards claim`.
#[derive(Debug, Args)]
pub struct RewardsNodeArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Says what would go and why, and changes nothing. There is no other way to call this: a
    /// running node ends deals by itself.
    #[arg(long, required = true)]
    pub dry_run: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `chain`.
#[derive(Debug, Args)]
pub struct ChainArgs {
    /// What about the chain.
    #[command(subcommand)]
    pub command: ChainCommand,
}

/// What about the chain.
#[derive(Debug, Subcommand)]
pub enum ChainCommand {
    /// Runs a development chain with the pallet: for tests and development, never for value.
    Dev(ChainDevArgs),
    /// Makes a file with a new secret for transactions and prints its account.
    Key(ChainKeyArgs),
    /// Shows the heads of the configured endpoints and whether they may be believed.
    Status(ChainStatusArgs),
}

/// `chain key`.
#[derive(Debug, Args)]
pub struct ChainKeyArgs {
    /// Where to write it; a file that exists is never replaced.
    pub file: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `chain status`.
#[derive(Debug, Args)]
pub struct ChainStatusArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `chain dev`.
#[derive(Debug, Args)]
pub struct ChainDevArgs {
    /// Where its state is kept; without it, in memory.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Where JSON-RPC is served (WebSocket and HTTP).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9944")]
    pub listen: SocketAddr,

    /// The genesis as JSON: balances and parameters. Without it, the well-known development
    /// accounts and the defaults. A directory keeps the one it was begun with.
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,

    /// Time between blocks, such as 6s or 500ms.
    #[arg(long, value_name = "DURATION", default_value = "6s", value_parser = block_time)]
    pub block_time: Duration,

    /// Makes a block for each transaction instead of one at a time.
    #[arg(long, conflicts_with = "block_time")]
    pub instant: bool,

    /// Blocks by which finality lags behind the best block.
    #[arg(long, value_name = "BLOCKS", default_value_t = 0)]
    pub finality_lag: u32,

    /// Lets anybody who can connect seal, reorganise and disturb: the dev_* methods.
    #[arg(long)]
    pub control: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// A time between blocks that a development chain can keep.
pub(super) fn block_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (Duration::from_millis(10)..=Duration::from_secs(600)).contains(&time) => {
            Ok(time)
        }
        _ => Err("write a time between blocks from 10ms to 10min".to_owned()),
    }
}
