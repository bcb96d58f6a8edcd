// SPDX-License-Identifier: MIT OR Apache-2.0
//! `put`: a file or stdin into the network. stdout gets the CID and nothing else.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use supernode_object::{PutOptions, PutReport};
use supernode_protocol::ids::{Cid, LeaseId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};

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
    with_network(&config, Needs::OwnKey, async |network| put(network, &config, file, output).await)
}

async fn put(
    network: Network,
    config: &ClientConfig,
    path: PathBuf,
    output: Output,
) -> Result<(), Failure> {
    let source = Source::open(&path).await?;
    network.ready().await?;
    let progress = output.progress("put", source.expected_bytes);
    let shown = progress.clone();
    let class = config.put.class().map_err(|invalid| Failure::usage(invalid.problem))?;
    let options = PutOptions {
        class,
        tolerate_nodes: config.put.tolerate_nodes,
        kind: LeaseKind::Pin,
        expiry: Expiry::RunningSeconds(config.put.lease_secs),
        expected_bytes: source.expected_bytes,
        progress: Some(Arc::new(move |done| shown.set_done(done))),
    };
    let put = network.objects.put(source.reader, options).await;
    progress.finish();
    let report = put.map_err(|error| Failure::from(error).context(path.display()))?;
    if let Some(expected) = source.expected_bytes {
        warn_if_grown(&path, expected, output).await;
    }
    let stored = Stored::new(report, class.to_string());
    output.report(&stored)?;
    if !output.is_json() {
        stored.talk(output);
    }
    Ok(())
}

impl Stored {
    fn new(report: PutReport, class: String) -> Self {
        Self {
            cid: report.cid,
            size: report.size,
            content_root: blake3::Hash::from_bytes(report.content_root).to_hex().to_string(),
            lease: report.lease,
            class,
            stripes: report.stripe_count,
            slots_stored: report.slots_stored,
            slots_total: report.slots_total,
            survives_nodes: report.durability.nodes.0,
            survives_regions: report.durability.regions.0,
            missing: report.missing,
            announced: report.announced,
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
