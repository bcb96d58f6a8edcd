// SPDX-License-Identifier: MIT OR Apache-2.0
//! `deal` and `audit`: what the chain says, and an owner's two decisions about a deal.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use supernode_chain::{
    Audit, AuditResult, BlockRef, Call, Chain, ChainConfig, DealState, SecretKey, Until, address,
};
use supernode_protocol::deal::{AuditId, DealId};
use supernode_protocol::ids::Cid;

use super::Given;
use super::onchain::{account, blocks, price_cap, with_chain};
use crate::cli::{
    AuditCommand, AuditListArgs, AuditShowArgs, DealCancelArgs, DealCommand, DealListArgs,
    DealRenewArgs, DealShowArgs, NetworkFlags,
};
use crate::exit::Failure;
use crate::output::{self, Output, Report};

/// One deal, in whatever state.
#[derive(Debug, Serialize)]
struct DealLine {
    deal: DealId,
    state: &'static str,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Cid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Activation deadline of a reservation, end of a deal, block of an end.
    block: u64,
    /// Money not spent yet, in the chain's smallest unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    escrow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<DealDetails>,
}

/// What only a running deal has.
#[derive(Debug, Serialize)]
struct DealDetails {
    shards_root: String,
    data: u16,
    width: u16,
    stripes: u32,
    groups: u32,
    activated_at: u64,
}

impl DealLine {
    fn of(state: DealState) -> Option<Self> {
        Some(match state {
            DealState::Reserved(it) => Self {
                deal: it.deal,
                state: "reserved",
                owner: address(it.owner),
                object: None,
                bytes: Some(it.bytes),
                block: it.activates_by,
                escrow: Some(it.escrow.to_string()),
                details: None,
            },
            DealState::Active(it) => Self {
                deal: it.deal,
                state: "active",
                owner: address(it.owner),
                object: Some(it.object),
                bytes: Some(it.bytes),
                block: it.expires_at,
                escrow: Some(it.escrow.to_string()),
                details: Some(DealDetails {
                    shards_root: blake3::Hash::from_bytes(it.shards_root).to_hex().to_string(),
                    data: it.data,
                    width: it.width,
                    stripes: it.stripe_count,
                    groups: it.group_count,
                    activated_at: it.activated_at,
                }),
            },
            DealState::Ended(it) => Self {
                deal: it.deal,
                state: if it.cancelled { "cancelled" } else { "expired" },
                owner: address(it.owner),
                object: Some(it.object),
                bytes: None,
                block: it.at,
                escrow: None,
                details: None,
            },
            DealState::Unknown => return None,
        })
    }

    /// What its block means.
    fn when(&self) -> String {
        match self.state {
            "reserved" => format!("until block {}", self.block),
            "active" => format!("ends at block {}", self.block),
            _ => format!("at block {}", self.block),
        }
    }
}

impl Report for DealLine {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let object = self.object.map_or_else(|| "-".to_owned(), |object| object.to_string());
        writeln!(out, "deal    {}", self.deal)?;
        writeln!(out, "state   {} ({})", self.state, self.when())?;
        writeln!(out, "owner   {}", self.owner)?;
        writeln!(out, "object  {object}")?;
        if let Some(bytes) = self.bytes {
            writeln!(out, "bytes   {}", output::bytes(bytes))?;
        }
        if let Some(escrow) = &self.escrow {
            writeln!(out, "escrow  {escrow}")?;
        }
        match &self.details {
            Some(it) => writeln!(
                out,
                "shape   {}+{}, {} stripes in {} groups since block {}",
                it.data,
                it.width - it.data,
                it.stripes,
                it.groups,
                it.activated_at
            ),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct DealListing {
    deals: Vec<DealLine>,
}

impl Report for DealListing {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let row = |deal: &DealLine| {
            let object = deal.object.map_or_else(|| "-".to_owned(), |object| object.to_string());
            vec![deal.deal.to_string(), deal.state.to_owned(), deal.when(), object]
        };
        let rows: Vec<_> = self.deals.iter().map(row).collect();
        output::table(out, &["DEAL", "STATE", "WHEN", "OBJECT"], &rows)
    }
}

/// Does `supernode deal …`.
pub fn run(given: &Given, command: &DealCommand) -> Result<(), Failure> {
    let config = given.client_config(&NetworkFlags::default(), Vec::new())?.chain;
    match command {
        DealCommand::List(args) => list(&config, args),
        DealCommand::Show(args) => show(&config, args),
        DealCommand::Renew(args) => renew(&config, args),
        DealCommand::Cancel(args) => cancel(&config, args),
    }
}

fn list(config: &ChainConfig, args: &DealListArgs) -> Result<(), Failure> {
    let owner = match args.all {
        true => None,
        false => Some(SecretKey::read(&config.key_file)?.account()),
    };
    let deals =
        with_chain(config, async |chain: Chain| Ok(chain.at_best().await?.deals().await?))?;
    let wanted = |deal: &DealState| owner.is_none() || deal.owner() == owner;
    let deals = deals.into_iter().filter(wanted).filter_map(DealLine::of).collect();
    Output::new(args.json.json).report(&DealListing { deals })
}

fn show(config: &ChainConfig, args: &DealShowArgs) -> Result<(), Failure> {
    let line = with_chain(config, async |chain: Chain| line_of(&chain, args.deal).await)?;
    Output::new(args.json.json).report(&line)
}

async fn line_of(chain: &Chain, deal: DealId) -> Result<DealLine, Failure> {
    let state = chain.at_best().await?.deal(deal).await?;
    DealLine::of(state).ok_or_else(|| unknown(deal))
}

fn unknown(deal: DealId) -> Failure {
    Failure::not_found(format_args!(
        "the chain knows no deal {deal} (any more); `deal list --all` shows those it knows"
    ))
}

fn renew(config: &ChainConfig, args: &DealRenewArgs) -> Result<(), Failure> {
    let duration = blocks(&args.duration, config)?;
    let line = with_chain(config, async |chain: Chain| {
        let DealState::Active(active) = chain.at_best().await?.deal(args.deal).await? else {
            return Err(Failure::not_found(format_args!("deal {} does not run", args.deal)));
        };
        let max_price = price_cap(args.max_price, active.bytes, duration);
        let call = Call::Renew { deal: args.deal, duration, max_price };
        let block = submit(&chain, &config.key_file, call).await?;
        let renewed = chain.at(block).await?.deal(args.deal).await?;
        DealLine::of(renewed).ok_or_else(|| unknown(args.deal))
    })?;
    Output::new(args.json.json).report(&line)
}

fn cancel(config: &ChainConfig, args: &DealCancelArgs) -> Result<(), Failure> {
    let deal = args.deal;
    let call = Call::Cancel { deal };
    let output = Output::new(args.json.json);
    let line = with_chain(config, async |chain: Chain| {
        let before = chain.at_best().await?.deal(deal).await?;
        if matches!(before, DealState::Active(_)) && !args.running {
            return Err(Failure::usage(format_args!(
                "deal {deal} runs: cancelling it deletes its object everywhere; say --running if \
                 that is meant"
            )));
        }
        let block = submit(&chain, &config.key_file, call).await?;
        let after = chain.at(block).await?.deal(deal).await?;
        // A reservation that is given back leaves nothing behind on chain.
        let line = match (DealLine::of(after), DealLine::of(before)) {
            (Some(after), _) => Some(after),
            (None, Some(before)) => Some(DealLine { state: "given back", ..before }),
            (None, None) => None,
        };
        line.ok_or_else(|| unknown(deal))
    })?;
    output.report(&line)
}

/// Submits a call; the finalised block that it is in.
async fn submit(chain: &Chain, key_file: &Path, call: Call) -> Result<BlockRef, Failure> {
    Ok(account(chain, key_file)?.submit(call, Until::Finalised).await?.block)
}

/// One audit, open or resolved.
#[derive(Debug, Serialize)]
struct AuditLine {
    audit: AuditId,
    state: &'static str,
    node: u32,
    deal: DealId,
    stripe: u32,
    index: u16,
    opened_at: u64,
    /// Deadline of an open audit, block of the verdict otherwise.
    block: u64,
}

impl AuditLine {
    fn resolved(it: AuditResult) -> Self {
        Self {
            audit: it.audit,
            state: if it.passed { "passed" } else { "failed" },
            node: it.node,
            deal: it.deal,
            stripe: it.stripe,
            index: it.index,
            opened_at: it.opened_at,
            block: it.resolved_at,
        }
    }

    fn open(it: Audit) -> Self {
        Self {
            audit: it.audit,
            state: "open",
            node: it.node,
            deal: it.deal,
            stripe: it.stripe,
            index: it.index,
            opened_at: it.opened_at,
            block: it.deadline,
        }
    }
}

impl Report for AuditLine {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let when = if self.state == "open" { "deadline" } else { "resolved" };
        writeln!(out, "audit   {}", self.audit)?;
        writeln!(out, "state   {} ({when} at block {})", self.state, self.block)?;
        writeln!(out, "node    {}", self.node)?;
        writeln!(out, "deal    {}", self.deal)?;
        writeln!(out, "slot    stripe {}, index {}", self.stripe, self.index)?;
        writeln!(out, "opened  at block {}", self.opened_at)
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct AuditListing {
    audits: Vec<AuditLine>,
}

impl Report for AuditListing {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let row = |it: &AuditLine| {
            let slot = format!("{}/{}", it.stripe, it.index);
            let (audit, node, deal) = (it.audit.to_string(), it.node.to_string(), it.deal);
            vec![audit, it.state.to_owned(), node, deal.to_string(), slot, it.block.to_string()]
        };
        let rows: Vec<_> = self.audits.iter().map(row).collect();
        output::table(out, &["AUDIT", "STATE", "NODE", "DEAL", "SLOT", "BLOCK"], &rows)
    }
}

/// Does `supernode audit …`.
pub fn audits(given: &Given, command: &AuditCommand) -> Result<(), Failure> {
    let config = given.client_config(&NetworkFlags::default(), Vec::new())?.chain;
    match command {
        AuditCommand::List(args) => list_audits(&config, args),
        AuditCommand::Show(args) => show_audit(&config, args),
    }
}

fn list_audits(config: &ChainConfig, args: &AuditListArgs) -> Result<(), Failure> {
    let mut audits = with_chain(config, async |chain: Chain| all_audits(&chain).await)?;
    audits.retain(|audit| args.node.is_none_or(|node| audit.node == node));
    Output::new(args.json.json).report(&AuditListing { audits })
}

fn show_audit(config: &ChainConfig, args: &AuditShowArgs) -> Result<(), Failure> {
    let found = with_chain(config, async |chain: Chain| {
        let at = chain.at_best().await?;
        if let Some(result) = at.audit_result(args.audit).await? {
            return Ok(Some(AuditLine::resolved(result)));
        }
        let open = at.all_open_audits().await?.into_iter();
        Ok(open.map(AuditLine::open).find(|audit| audit.audit == args.audit))
    })?;
    let line = found.ok_or_else(|| {
        Failure::not_found(format_args!(
            "the chain knows no audit {} (any more); `audit list` shows those it knows",
            args.audit
        ))
    })?;
    Output::new(args.json.json).report(&line)
}

async fn all_audits(chain: &Chain) -> Result<Vec<AuditLine>, Failure> {
    let at = chain.at_best().await?;
    let results = at.audit_results().await?.into_iter().map(AuditLine::resolved);
    let open = at.all_open_audits().await?.into_iter().map(AuditLine::open);
    let mut audits: Vec<_> = results.chain(open).collect();
    audits.sort_by_key(|audit| audit.audit);
    Ok(audits)
}
