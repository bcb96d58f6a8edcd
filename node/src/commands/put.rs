// SPDX-License-Identifier: MIT OR Apache-2.0
//! `put`: a file or stdin into the network. stdout gets the CID and nothing else.

mod deal;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use supernode_chain::Deal;
use supernode_object::{Class, PutOptions, PutReport};
use supernode_protocol::deal::DealId;
use supernode_protocol::ids::{Cid, LeaseId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};

use self::deal::{Begun, MadeDeal, Pending, Wanted};
use super::Given;
use super::network::{Needs, Network, with_network};
use crate::cli::PutArgs;
use crate::config::{ClientConfig, Overlay};
use crate::exit::Failure;
use crate::output::{Output, Report};

/// What was stored.
#[derive(Debug, Serialize)]
struct Stored {
    cid: Cid,
    size: u64,
    content_root: String,
    lease: LeaseId,
    class: String,
    stripes: u32,
    slots_stored: u64,
    slots_total: u64,
    survives_nodes: Option<usize>,
    survives_regions: Option<usize>,
    missing: Vec<Slot>,
    announced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deal: Option<MadeDeal>,
}

/// A put that found its work done.
#[derive(Debug, Serialize)]
struct Already {
    cid: Cid,
    deal: DealId,
    expires_at: u64,
}

impl Report for Already {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.cid)
    }
}

impl Report for Stored {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.cid)
    }
}

/// Does `supernode put`.
pub fn run(given: &Given, args: &PutArgs) -> Result<(), Failure> {
    let mut flags = Vec::new();
    if let Some(class) = &args.class {
        flags.push(Overlay::flag("put.class", class, "--class"));
    }
    if let Some(count) = args.tolerate_nodes {
        flags.push(Overlay::flag("put.tolerate_nodes", count, "--tolerate-nodes"));
    }
    if let Some(lease) = &args.lease {
        flags.push(Overlay::flag("put.lease_secs", lease, "--lease"));
    }
    let config = given.client_config(&args.network, flags)?;
    let output = Output::new(args.json.json);
    let file = args.file.clone();
    let wanted = Wanted::of(args, &config)?;
    with_network(&config, Needs::OwnKey, async |network| match &wanted {
        None => put(network, &config, file, output).await,
        Some(wanted) => put_with_deal(network, &config, file, wanted, output).await,
    })
}

async fn put(
    network: Network,
    config: &ClientConfig,
    path: PathBuf,
    output: Output,
) -> Result<(), Failure> {
    let source = Source::open(&path).await?;
    network.ready().await?;
    let expected = source.expected_bytes;
    let report = upload(&network, config, &path, source, output, |options| options).await?;
    tell(report, None, output)?;
    if let Some(expected) = expected {
        warn_if_grown(&path, expected, output).await;
    }
    Ok(())
}

async fn put_with_deal(
    network: Network,
    config: &ClientConfig,
    path: PathBuf,
    wanted: &Wanted,
    output: Output,
) -> Result<(), Failure> {
    let source = Source::open(&path).await?;
    let expected = source.expected_bytes;
    let class = class_of(config)?;
    network.ready().await?;
    let pending = match Pending::begin(config, wanted, expected, class, output).await? {
        Begun::Pending(pending) => pending,
        Begun::Active(active) => return already(&network, &path, active, output).await,
    };
    let done = async {
        let cover = |options| pending.cover(options);
        let report = upload(&network, config, &path, source, output, cover).await?;
        let deal = pending.activate(&network, &report, class).await?;
        Ok::<_, Failure>((report, deal))
    };
    let story = |failure: Failure| {
        let exit = failure.exit;
        Failure::new(exit, format_args!("{failure}; {}", pending.story(&path)))
    };
    let done = done.await.map_err(story);
    pending.close();
    let (report, deal) = done?;
    tell(report, Some(deal), output)?;
    if let Some(expected) = expected {
        warn_if_grown(&path, expected, output).await;
    }
    Ok(())
}

/// A deal that runs already is this put's only if its object is this file.
async fn already(
    network: &Network,
    path: &Path,
    active: Deal,
    output: Output,
) -> Result<(), Failure> {
    let Deal { object: cid, deal, expires_at, .. } = active;
    let stat = network.objects.stat(cid).await?;
    let hashed = path.to_owned();
    let hash = tokio::task::spawn_blocking(move || {
        blake3::Hasher::new().update_reader(std::fs::File::open(hashed)?).map(|it| it.finalize())
    });
    let hash = hash.await.map_err(Failure::failed)?.map_err(Failure::failed)?;
    if *hash.as_bytes() != stat.root.content_root {
        return Err(Failure::usage(format_args!(
            "deal {deal} runs already and is for {cid}, which is not {}; nothing was put",
            path.display()
        )));
    }
    output.talk(format_args!("deal {deal} runs already for this file; nothing was uploaded"));
    output.report(&Already { cid, deal, expires_at })
}

fn class_of(config: &ClientConfig) -> Result<Class, Failure> {
    config.put.class().map_err(|invalid| Failure::usage(invalid.problem))
}

/// Stores what the source gives.
async fn upload(
    network: &Network,
    config: &ClientConfig,
    path: &Path,
    source: Source,
    output: Output,
    cover: impl FnOnce(PutOptions) -> PutOptions,
) -> Result<PutReport, Failure> {
    let progress = output.progress("put", source.expected_bytes);
    let shown = progress.clone();
    let options = cover(PutOptions {
        class: class_of(config)?,
        tolerate_nodes: config.put.tolerate_nodes,
        kind: LeaseKind::Pin,
        expiry: Expiry::RunningSeconds(config.put.lease_secs),
        lease: None,
        inline_bytes_max: usize::try_from(config.put.inline_bytes_max).unwrap_or(usize::MAX),
        replicates_small: config.put.replicate_small,
        elides_zeros: config.put.elide_zeros,
        expected_bytes: source.expected_bytes,
        progress: Some(Arc::new(move |done| shown.set_done(done))),
    });
    let put = network.objects.put(source.reader, options).await;
    progress.finish();
    put.map_err(|error| Failure::from(error).context(path.display()))
}

fn tell(report: PutReport, deal: Option<MadeDeal>, output: Output) -> Result<(), Failure> {
    let stored = Stored::new(report, deal);
    output.report(&stored)?;
    if !output.is_json() {
        stored.talk(output);
    }
    Ok(())
}

impl Stored {
    fn new(report: PutReport, deal: Option<MadeDeal>) -> Self {
        Self {
            cid: report.cid,
            size: report.size,
            content_root: blake3::Hash::from_bytes(report.content_root).to_hex().to_string(),
            lease: report.lease,
            class: report.class.to_string(),
            stripes: report.stripe_count,
            slots_stored: report.slots_stored,
            slots_total: report.slots_total,
            survives_nodes: report.durability.nodes.0,
            survives_regions: report.durability.regions.0,
            missing: report.missing,
            announced: report.announced,
            deal,
        }
    }

    fn talk(&self, output: Output) {
        let losses = |count: Option<usize>| count.map_or("no".to_owned(), |it| format!("any {it}"));
        output.talk(format_args!(
            "{} of {} slots stored; survives the loss of {} nodes and of {} regions",
            self.slots_stored,
            self.slots_total,
            losses(self.survives_nodes),
            losses(self.survives_regions),
        ));
        if let Some(deal) = &self.deal {
            output.talk(format_args!(
                "deal {} runs until block {}, signed by {} holders",
                deal.deal, deal.expires_at, deal.holders
            ));
        }
        if !self.announced {
            output.talk("the network does not lead to it yet; readers find it as soon as it does");
        }
    }
}

/// What is put.
struct Source {
    reader: Box<dyn AsyncRead + Unpin + Send>,
    /// Known for files; a pipe ends when it ends.
    expected_bytes: Option<u64>,
}

impl Source {
    async fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self { reader: Box::new(tokio::io::stdin()), expected_bytes: None });
        }
        let failed = |error: io::Error| {
            Failure::failed(format_args!("cannot read {}: {error}", path.display()))
        };
        let file = File::open(path).await.map_err(failed)?;
        let metadata = file.metadata().await.map_err(failed)?;
        if metadata.is_dir() {
            return Err(Failure::usage(format_args!(
                "{} is a directory; put one file, or `tar c {} | supernode put -`",
                path.display(),
                path.display()
            )));
        }
        if !metadata.is_file() {
            return Ok(Self { reader: Box::new(file), expected_bytes: None });
        }
        let size = metadata.len();
        // What is appended meanwhile is not part of the object; what is cut off is an error.
        Ok(Self { reader: Box::new(file.take(size)), expected_bytes: Some(size) })
    }
}

async fn warn_if_grown(path: &Path, expected: u64, output: Output) {
    if let Ok(metadata) = tokio::fs::metadata(path).await
        && metadata.len() > expected
    {
        output.talk(format_args!(
            "{} grew while it was read; the object is its first {expected} bytes",
            path.display()
        ));
    }
}
