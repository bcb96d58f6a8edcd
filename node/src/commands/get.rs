// SPDX-License-Identifier: MIT OR Apache-2.0
//! `get`: an object, or a part of it, into a file, to stdout, or only to see whether it is whole.
//!
//! With `-o` the bytes gather under another name beside the file and take its name only when they
//! are whole, verified and on disk: what stands under the final name is never wrong or partial.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use supernode_object::{GetOptions, GetReport};
use supernode_protocol::ids::Cid;
use tempfile::{NamedTempFile, TempPath};
use tokio::fs::File;
use tokio::io::AsyncWrite;

use super::Given;
use super::network::{Needs, Network, with_network};
use crate::cli::{GetArgs, Span};
use crate::exit::Failure;
use crate::output::{Output, Progress, Report};

/// What was fetched.
#[derive(Debug, Serialize)]
struct Fetched {
    cid: Cid,
    output: Option<PathBuf>,
    size: u64,
    written: u64,
    verified: u64,
    /// Whether that is all that was wanted.
    #[serde(skip)]
    is_check: bool,
    reconstructed_stripes: u64,
    hedges: u64,
}

impl Report for Fetched {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if !self.is_check {
            // The bytes are where they were wanted; there is nothing to add.
            return Ok(());
        }
        write!(out, "{} bytes are whole", self.verified)?;
        if self.reconstructed_stripes > 0 {
            let Self { reconstructed_stripes: count, hedges, .. } = self;
            write!(out, "; stripes reconstructed: {count}, fetches that were late: {hedges}")?;
        }
        writeln!(out)
    }
}

/// Does `supernode get`.
pub fn run(given: &Given, args: &GetArgs) -> Result<(), Failure> {
    let config = given.client_config(&args.network, Vec::new())?;
    let output = Output::new(args.json.json);
    // Before anything is asked of the network: a place that cannot be written is bad usage.
    let target = args.output.as_deref().map(Target::prepare).transpose()?;
    let range = args.range.map(Span::to_range);
    let cid = args.cid;
    let report = with_network(&config, Needs::AnyKey, async |network| {
        network.ready().await?;
        let progress = output.progress("get", None);
        let fetch = Fetch { network: &network, cid, range, progress: &progress };
        let fetched = match target {
            None if args.verify => fetch.write_to(tokio::io::sink()).await,
            None => fetch.write_to(tokio::io::stdout()).await,
            Some(target) => target.fill(&fetch).await,
        };
        progress.finish();
        fetched
    })?;
    let fetched = Fetched {
        cid,
        output: args.output.clone(),
        size: report.size,
        written: if args.verify { 0 } else { report.written },
        verified: report.written,
        is_check: args.verify,
        reconstructed_stripes: report.degraded_stripes,
        hedges: report.hedges,
    };
    if args.output.is_some() || args.verify {
        return output.report(&fetched);
    }
    if output.is_json() {
        // stdout has the object's bytes.
        output.talk(serde_json::to_string(&fetched).expect("plain values have a JSON form"));
    }
    Ok(())
}

struct Fetch<'a> {
    network: &'a Network,
    cid: Cid,
    range: Option<Range<u64>>,
    progress: &'a Progress,
}

impl Fetch<'_> {
    async fn write_to<W: AsyncWrite + Unpin + Send>(
        &self,
        writer: W,
    ) -> Result<GetReport, Failure> {
        let shown = self.progress.clone();
        let options = GetOptions {
            range: self.range.clone(),
            progress: Some(Arc::new(move |done| shown.set_done(done))),
        };
        Ok(self.network.objects.get(self.cid, writer, options).await?)
    }
}

impl Span {
    /// The span with its end excluded, as the object layer wants it.
    fn to_range(self) -> Range<u64> {
        let end = self.last.map_or(u64::MAX, |last| last.saturating_add(1));
        self.first..end
    }
}

/// Where the bytes go.
#[derive(Debug)]
enum Target {
    /// A file that gets its name in the end.
    Named { path: PathBuf, file: fs::File, gathering: TempPath },
    /// Something that is no file, such as a pipe or a device: nothing can take its place.
    Special { path: PathBuf },
}

impl Target {
    fn prepare(path: &Path) -> Result<Self, Failure> {
        let path = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let path = path.display();
                return Err(Failure::usage(format_args!("{path} is a directory; name a file")));
            }
            Ok(metadata) if !metadata.is_file() => {
                return Ok(Self::Special { path: path.to_owned() });
            }
            // Behind a link, the file it leads to is the one to replace.
            Ok(_) => fs::canonicalize(path).map_err(|error| cannot_write(path, &error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(cannot_write(path, &error)),
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let gathering = tempfile::Builder::new()
            .prefix(".supernode-get-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(parent.unwrap_or(Path::new(".")))
            .map_err(|error| cannot_write(&path, &error))?;
        let (file, gathering) = NamedTempFile::into_parts(gathering);
        Ok(Self::Named { path, file, gathering })
    }

    /// Fetches into the target. What was gathered is removed when that fails.
    async fn fill(self, fetch: &Fetch<'_>) -> Result<GetReport, Failure> {
        match self {
            Self::Special { path } => {
                let file = File::options().write(true).open(&path).await;
                fetch.write_to(file.map_err(|error| cannot_write(&path, &error))?).await
            }
            Self::Named { path, file, gathering } => {
                let mut file = File::from_std(file);
                let report = fetch.write_to(&mut file).await?;
                file.sync_all().await.map_err(|error| cannot_write(&path, &error))?;
                gathering.persist(&path).map_err(|error| cannot_write(&path, &error.error))?;
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                // The name is as durable as the bytes where the file system allows it.
                if let Ok(directory) = File::open(parent.unwrap_or(Path::new("."))).await {
                    let _ = directory.sync_all().await;
                }
                Ok(report)
            }
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format_args!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::Target;
    use crate::cli::Span;
    use crate::exit::Exit;

    #[test]
    fn both_ends_are_included() {
        assert_eq!(Span { first: 0, last: Some(9) }.to_range(), 0..10);
        assert_eq!(Span { first: 5, last: Some(5) }.to_range(), 5..6);
        assert_eq!(Span { first: 7, last: None }.to_range(), 7..u64::MAX);
        assert_eq!(Span { first: 7, last: Some(u64::MAX) }.to_range(), 7..u64::MAX);
    }

    #[test]
    fn a_target_leaves_nothing_behind_until_it_is_filled() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("out");
        fs::write(&path, "old").expect("own directory");
        let target = Target::prepare(&path).expect("it can be written");
        assert_eq!(fs::read_to_string(&path).expect("untouched"), "old");
        drop(target);
        let names = fs::read_dir(dir.path()).expect("own directory").count();
        assert_eq!(names, 1, "what was gathered is gone");
    }

    #[test]
    fn a_link_stays_and_a_device_is_written_to() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").expect("own directory");
        symlink(&real, &link).expect("own directory");
        let Target::Named { path, .. } = Target::prepare(&link).expect("a file") else {
            panic!("a link to a file leads to a file");
        };
        assert_eq!(path, real.canonicalize().expect("it exists"));
        let null = Target::prepare(Path::new("/dev/null")).expect("a device");
        assert!(matches!(null, Target::Special { .. }));
    }

    #[test]
    fn a_directory_is_bad_usage_and_a_missing_one_fails() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(Target::prepare(dir.path()).expect_err("a directory").exit, Exit::Usage);
        let nowhere = dir.path().join("missing/out");
        assert_eq!(Target::prepare(&nowhere).expect_err("no directory").exit, Exit::Failed);
    }
}
