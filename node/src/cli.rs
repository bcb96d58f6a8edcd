// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: names, flags and help texts. It decides nothing.
//!
//! Help is kept as text in `docs/cli/` by a test, so that a change of it is seen in review.

mod capability;
mod chain;

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use supernode_protocol::deal::DealId;
use supernode_protocol::ids::Cid;

use crate::config::Overlay;
use crate::exit::Failure;

pub use self::capability::{
    CapabilityArgs, CapabilityCommand, CapabilityShowArgs, CapabilitySignArgs,
};
pub use self::chain::{
    AuditArgs, AuditCommand, AuditListArgs, AuditShowArgs, ChainArgs, ChainCommand, ChainDevArgs,
    ChainKeyArgs, ChainStatusArgs, CleanupArgs, DealArgs, DealCancelArgs, DealCommand,
    DealListArgs, DealRenewArgs, DealShowArgs, NodeArgs, NodeCommand, NodeRegisterArgs,
    NodeShowArgs, RewardsArgs, RewardsCommand, RewardsNodeArgs,
};

/// The release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build was told.
pub const REVISION: &str = match option_env!("SUPERNODE_GIT_HASH") {
    Some(hash) => hash,
    None => "unknown",
};

/// Columns of help texts at most.
const HELP_COLUMNS: usize = 100;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  failed: disk, network, too few nodes
  2  bad usage or config
  3  not found
  4  refused: full, over a limit, not authorised

Ports:
  9002/udp   QUIC relay server: shards in and out        open it
  30333/tcp  libp2p: finding nodes and objects           open it
  9102/tcp   metrics and health, on the loopback         keep it closed

Settings come from flags (--set section.key=value), then SUPERNODE_SECTION__KEY variables, then
the TOML file, then defaults. The file is --config, or SUPERNODE_CONFIG, or
/etc/supernode/supernode.toml for a node and ~/.config/supernode/client.toml or
/etc/supernode/client.toml for a client. A setting that does not exist is an error.

stdout is data and stderr is talk: every command takes --json.

Examples:
  supernode init --data-dir /srv/supernode --set network.region=EU-WEST
  supernode run --config /srv/supernode/supernode.toml
  supernode put holiday.tar
  tar c photos | supernode put -
  supernode get bafyr4i... -o holiday.tar
  supernode get bafyr4i... --range 0-1023 | xxd";

/// A machine with disks as a node of a peer-to-peer storage network.
#[derive(Debug, Parser)]
#[command(
    name = "supernode",
    version,
    after_long_help = AFTER_HELP,
    max_term_width = HELP_COLUMNS,
    disable_help_subcommand = true,
    subcommand_required = true
)]
pub struct Cli {
    /// The configuration file: a node's supernode.toml or a client's client.toml.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "SUPERNODE_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,

    /// Sets any key of the configuration, such as `--set storage.capacity_bytes=2TiB`. Repeatable.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<Assignment>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Writes a commented configuration and a new identity.
    Init(InitArgs),
    /// Runs the node until it is told to stop.
    Run(RunArgs),
    /// Stores a file and prints its CID.
    Put(PutArgs),
    /// Fetches an object by its CID.
    Get(GetArgs),
    /// Shows where an object is and what losses it survives.
    Stat(StatArgs),
    /// Lists what this client keeps on the network.
    Ls(LsArgs),
    /// Ends this client's pin of an object.
    Rm(RmArgs),
    /// Asks nodes how they are: the node of a node's config, every bootstrap node of a client's.
    Status(StatusArgs),
    /// The nodes of the network.
    Peer(PeerArgs),
    /// Grants of a class and of rights, which nodes take from whom they trust.
    Capability(CapabilityArgs),
    /// Deals on the chain: what is paid for, and until when.
    Deal(DealArgs),
    /// Audits on the chain: what nodes have to prove, and whether they did.
    Audit(AuditArgs),
    /// This node in the chain's registry.
    Node(NodeArgs),
    /// What this node has earned.
    Rewards(RewardsArgs),
    /// What a node is about to delete because its deals are over.
    Cleanup(CleanupArgs),
    /// The chain itself.
    Chain(ChainArgs),
    /// The reading check of everything a running node keeps.
    Scrub(ScrubArgs),
    /// The relay server of a running node.
    Relay(RelayArgs),
    /// The data directory of a stopped node, and the disks of a running one.
    Store(StoreArgs),
    /// Runs a network on this machine that stays up until Ctrl-C.
    Dev(DevArgs),
    /// Tells the whole story on this machine, in a temporary directory, and checks every step.
    Demo(DemoArgs),
}

/// `dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where the nodes, client.toml and network.json are; a network that is there is started again.
    #[arg(long, value_name = "DIR", default_value = "supernode-dev")]
    pub dir: PathBuf,

    /// How many nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 7)]
    pub nodes: usize,

    /// Time between the blocks of a new network's chain; a network that is there keeps its own.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = chain::block_time)]
    pub block_time: Duration,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The real file of the story. Without it, this program itself.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Writes figures and checks to this file as JSON.
    #[arg(long, value_name = "OUT")]
    pub json: Option<PathBuf>,

    /// Spoils what was got before it is checked: the demo has to fail.
    #[cfg(feature = "fault-injection")]
    #[arg(long, hide = true)]
    pub sabotage: bool,
}

/// Whether stdout speaks JSON.
#[derive(Debug, Clone, Copy, Args)]
pub struct JsonFlag {
    /// Prints JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// A way into the network, over what the client's configuration says.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkFlags {
    /// A node to start from, as a multiaddress that ends in /p2p/ and its peer id. Repeatable.
    #[arg(long, value_name = "MULTIADDR")]
    pub bootstrap: Vec<String>,

    /// The name of the network.
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,

    /// The file with the client's key.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Directory for segments, index and identity; it must be empty or absent.
    ///
    /// The configuration goes to --config. Without it, to supernode.toml in this directory; and
    /// without this flag too, to /etc/supernode/supernode.toml with data in /var/lib/supernode.
    #[arg(long, value_name = "DIR", env = "SUPERNODE_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,

    /// Makes a client's configuration and key instead: client.toml and client.key.
    #[arg(long)]
    pub client: bool,

    /// Replaces a configuration that exists and accepts a directory that is not empty. An
    /// identity that exists is kept in any case.
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The file to store; `-` reads stdin.
    pub file: PathBuf,

    /// Data and parity shards of each stripe, as k+m.
    #[arg(long, value_name = "K+M")]
    pub class: Option<String>,

    /// Succeed only if the object survives the loss of any this many nodes.
    #[arg(long, value_name = "COUNT")]
    pub tolerate_nodes: Option<usize>,

    /// How long to keep it, at most 30days.
    #[arg(long, value_name = "DURATION", conflicts_with = "deal")]
    pub lease: Option<String>,

    /// Pays for it on chain: reserves, uploads and activates a deal of this duration, such as
    /// 30days or 1000blocks.
    #[arg(long, value_name = "DURATION")]
    pub deal: Option<String>,

    /// What the deal may cost at most, in the chain's smallest unit.
    #[arg(long, value_name = "AMOUNT", requires = "deal")]
    pub max_price: Option<u128>,

    /// Goes on with a reservation that an earlier put left behind, instead of making one.
    #[arg(long, value_name = "DEAL", conflicts_with_all = ["deal", "lease"])]
    pub resume: Option<DealId>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub network: NetworkFlags,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The object.
    pub cid: Cid,

    /// Where to write it; appears only when it is whole. Without it, bytes go to stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Only these bytes, both ends included, such as 0-1023; without an end, all from there on.
    #[arg(long, value_name = "A-B")]
    pub range: Option<Span>,

    /// Fetches and checks every byte, writes none, and says how many there were.
    #[arg(long, conflicts_with = "output")]
    pub verify: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub network: NetworkFlags,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `stat`.
#[derive(Debug, Args)]
pub struct StatArgs {
    /// The object.
    pub cid: Cid,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub network: NetworkFlags,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub network: NetworkFlags,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The object.
    pub cid: Cid,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub network: NetworkFlags,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub network: NetworkFlags,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `peer`.
#[derive(Debug, Args)]
pub struct PeerArgs {
    /// What about them.
    #[command(subcommand)]
    pub command: PeerCommand,
}

/// What about peers.
#[derive(Debug, Subcommand)]
pub enum PeerCommand {
    /// Lists the nodes that can be found.
    List(PeerListArgs),
}

/// `peer list`.
#[derive(Debug, Args)]
pub struct PeerListArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub network: NetworkFlags,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// What about it.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What about a data directory.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Shows what it keeps.
    Stats(StoreDirArgs),
    /// Reads every record and checks every hash.
    Fsck(StoreDirArgs),
    /// Reads everything that is kept from the disk itself; goes on where the last scrub stopped.
    Scrub(StoreScrubArgs),
    /// Makes the index anew from the log.
    RebuildIndex(StoreDirArgs),
    /// Writes what is kept anew and removes the segments it was in. A node does so by itself when
    /// much of its log is of no use (`storage.compact_waste_percent`).
    Compact(StoreDirArgs),
    /// Lists shards, slots, leases, manifests and tombstones, in an order that does not depend on
    /// where they lie.
    DumpMap(DumpMapArgs),
    /// Moves what a disk keeps to the others while the node runs, so that it can be removed; goes
    /// on by itself after a restart.
    Drain(DrainArgs),
}

/// `store drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The disk's directory, as `storage.disks` names it.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// Only shows how far it is.
    #[arg(long, conflicts_with = "cancel")]
    pub status: bool,

    /// Uses the disk again; what was moved stays where it is.
    #[arg(long)]
    pub cancel: bool,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// A data directory.
#[derive(Debug, Args)]
pub struct StoreDirArgs {
    /// The data directory; without it, the one of the node's configuration.
    #[arg(long, value_name = "DIR", env = "SUPERNODE_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `store scrub`.
#[derive(Debug, Args)]
pub struct StoreScrubArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub dir: StoreDirArgs,

    /// How many MiB to read per second at most. Without it, as fast as it goes.
    #[arg(long, value_name = "MIB", default_value_t = 0, hide_default_value = true)]
    pub rate: u32,
}

/// `scrub`.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// What the scrub is to do.
    #[command(subcommand)]
    pub command: ScrubAction,
}

/// What `scrub` does.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ScrubAction {
    /// Shows how far it is and what it found.
    Status(ScrubFlags),
    /// Begins a scrub now.
    Start(ScrubFlags),
    /// Stops it where it is, also over restarts.
    Pause(ScrubFlags),
    /// Goes on.
    Resume(ScrubFlags),
}

/// Of every `scrub` command.
#[derive(Debug, Clone, Copy, Args)]
pub struct ScrubFlags {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `relay`.
#[derive(Debug, Args)]
pub struct RelayArgs {
    /// What to ask of it.
    #[command(subcommand)]
    pub command: RelayCommand,
}

/// What `relay` does.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum RelayCommand {
    /// Shows the limits of the relay server, and changes those that are given.
    ///
    /// `--set relay.KEY=VALUE` changes a limit until the next start; what is to stay goes into the
    /// configuration. Requests and transfers under way go on.
    Limits(RelayLimitsArgs),
}

/// `relay limits`.
#[derive(Debug, Clone, Copy, Args)]
pub struct RelayLimitsArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub json: JsonFlag,
}

/// `store dump-map`.
#[derive(Debug, Args)]
pub struct DumpMapArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub dir: StoreDirArgs,

    /// What to read. The index is rebuilt first when it is missing or doubtful.
    #[arg(long, value_enum, default_value_t = MapSource::Index)]
    pub from: MapSource,

    /// Ends with the hash of all lines before.
    #[arg(long)]
    pub hash: bool,
}

/// What `dump-map` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MapSource {
    /// The index.
    Index,
    /// The segments.
    Log,
}

/// `KEY=VALUE` of `--set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    key: String,
    value: String,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            "write a key and a value, such as storage.capacity_bytes=2TiB".to_owned()
        })?;
        Ok(Self { key: key.trim().to_owned(), value: value.to_owned() })
    }
}

impl From<&Assignment> for Overlay {
    fn from(assignment: &Assignment) -> Self {
        let Assignment { key, value } = assignment;
        Self::flag(key, value, format_args!("--set {key}={value}"))
    }
}

/// A span of bytes as people name it: both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub first: u64,
    /// Last byte; `None` is the end of the object.
    pub last: Option<u64>,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
            Some(Self { first: first.parse().ok()?, last })
        });
        match parsed {
            None => Err("write the first and the last byte, such as 0-1023".to_owned()),
            Some(Self { first, last: Some(last) }) if last < first => {
                Err(format!("the last byte, {last}, is before the first, {first}"))
            }
            Some(span) => Ok(span),
        }
    }
}

/// What came of reading the command line.
#[derive(Debug)]
pub enum Parsed {
    /// A command to run.
    Run(Box<Cli>),
    /// A text that was asked for: help or the version.
    Text(String),
}

/// Reads the command line.
///
/// # Errors
/// Bad usage, in one line.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Parsed, Failure> {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => Ok(Parsed::Run(Box::new(cli))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp => Ok(Parsed::Text(error.to_string())),
            ErrorKind::DisplayVersion => {
                Ok(Parsed::Text(format!("supernode {VERSION} ({REVISION})\n")))
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                Err(Failure::usage("no command was given; `supernode --help` lists them"))
            }
            _ => Err(Failure::usage(usage_problem(&error.to_string()))),
        },
    }
}

/// The first paragraph of clap's message, without its label; the rest is a copy of the help.
fn usage_problem(message: &str) -> String {
    let paragraph = message.lines().take_while(|line| !line.trim().is_empty());
    let text = paragraph.map(str::trim).collect::<Vec<_>>().join(" ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    format!("{text} (try --help)")
}

/// Every command with its long help, `supernode` itself first.
pub fn help_pages() -> Vec<(String, String)> {
    let mut root = Cli::command();
    root.build();
    let mut pages = Vec::new();
    collect_help(&root, "supernode", &mut pages);
    pages
}

fn collect_help(command: &clap::Command, name: &str, pages: &mut Vec<(String, String)>) {
    // Of a fixed width, whatever terminal this runs on.
    let help = command.clone().term_width(HELP_COLUMNS).render_long_help().to_string();
    // clap pads some lines; nobody can see that, and every editor takes it away.
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    pages.push((name.to_owned(), lines.join("\n") + "\n"));
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        collect_help(child, &format!("{name}-{}", child.get_name()), pages);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Cli, Command, Parsed, Span, parse};
    use clap::CommandFactory;

    fn parsed(line: &str) -> Result<Box<Cli>, String> {
        match parse(line.split(' ').map(OsString::from)) {
            Ok(Parsed::Run(cli)) => Ok(cli),
            Ok(Parsed::Text(text)) => Err(text),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn config_stands_before_or_after_the_command() {
        for line in ["supernode --config c.toml ls", "supernode ls --config c.toml"] {
            let cli = parsed(line).expect("both are usual");
            assert_eq!(cli.config.as_deref().and_then(|path| path.to_str()), Some("c.toml"));
        }
        let cli = parsed("supernode peer list --config c.toml --json").expect("nested");
        assert!(cli.config.is_some());
    }

    #[test]
    fn every_leaf_command_takes_json() {
        fn walk(command: &clap::Command) {
            if command.get_subcommands().next().is_none() {
                let has = command.get_arguments().any(|it| it.get_long() == Some("json"));
                assert!(has, "{} has no --json", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        Cli::command().get_subcommands().for_each(walk);
    }

    #[test]
    fn spans_include_both_ends() {
        assert_eq!("0-9".parse(), Ok(Span { first: 0, last: Some(9) }));
        assert_eq!("5-5".parse(), Ok(Span { first: 5, last: Some(5) }));
        assert_eq!("7-".parse(), Ok(Span { first: 7, last: None }));
        for text in ["", "-", "-5", "9-3", "a-b", "1"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn bad_usage_is_one_line() {
        let error = parsed("supernode get nonsense").expect_err("no CID");
        assert!(error.contains("nonsense") && error.contains("CID"), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(parsed("supernode").expect_err("no command").contains("--help"));
        assert!(parsed("supernode lss").expect_err("a slip").contains("ls"));
    }

    #[test]
    fn settings_are_assigned_in_any_number() {
        let cli = parsed("supernode run --set a.b=c --set d.e=f=g").expect("two settings");
        assert_eq!(cli.set.len(), 2);
        assert!(matches!(cli.command, Command::Run(_)));
        assert!(parsed("supernode run --set a.b").expect_err("no value").contains("such as"));
    }
}
