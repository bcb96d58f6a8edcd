// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only place that prints. stdout is data, stderr is talk.
//!
//! - A command hands a [`Report`] to [`Output::report`]; it comes out as text for people or, with
//!   `--json`, as one JSON document. Nothing else ever reaches stdout, except object bytes.
//! - Progress bars, hints and errors go to stderr; bars only when a person watches.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::exit::Failure;

/// What a command has to say on stdout, in both forms.
pub trait Report: Serialize {
    /// Writes the form for people.
    ///
    /// # Errors
    /// Whatever `out` returns.
    fn human(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Output in the form that was asked for.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether stdout speaks JSON.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints a report to stdout.
    ///
    /// # Errors
    /// When stdout cannot be written, such as a pipe whose reader has gone.
    pub fn report<R: Report>(self, report: &R) -> Result<(), Failure> {
        self.write(|out| {
            if self.json {
                serde_json::to_writer(&mut *out, report)?;
                out.write_all(b"\n")
            } else {
                report.human(out)
            }
        })
    }

    /// Hands buffered stdout to `write`, for listings too long to be held in memory.
    ///
    /// # Errors
    /// When stdout cannot be written, or `write` says so.
    pub fn write(
        self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        write(&mut out).and_then(|()| out.flush()).map_err(|error| stdout_failed(&error))
    }

    /// Says something to the person at the terminal.
    pub fn talk(self, text: impl std::fmt::Display) {
        say(&format!("{text}\n"));
    }

    /// A bar of steps on stderr, for work that is no transfer.
    pub fn steps(self, doing: &'static str, total_count: u64) -> Progress {
        let progress = self.progress(doing, Some(total_count));
        let style = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len} {elapsed}");
        progress.bar.set_style(style.expect("the template is fixed and valid"));
        progress
    }

    /// A progress bar on stderr, which draws only on a terminal and never beside JSON.
    pub fn progress(self, doing: &'static str, total_bytes: Option<u64>) -> Progress {
        if self.json || !io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden() };
        }
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(total_bytes, target).with_message(doing);
        bar.set_style(style(total_bytes.is_some()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar }
    }
}

/// How far a transfer has come. Erased when it is dropped.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// States how many bytes there are in all, once that is known.
    pub fn set_total(&self, total_bytes: u64) {
        if self.bar.length() != Some(total_bytes) {
            self.bar.set_style(style(true));
            self.bar.set_length(total_bytes);
        }
    }

    /// States how many bytes are done.
    pub fn set_done(&self, done_bytes: u64) {
        self.bar.set_position(done_bytes);
    }

    /// Counts one more step as done.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// Says something without disturbing the bar.
    pub fn talk(&self, text: impl std::fmt::Display) {
        self.bar.suspend(|| say(&format!("{text}\n")));
    }

    /// Erases the bar, so that what is printed next starts on a clean line.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(total_known: bool) -> ProgressStyle {
    let template = if total_known {
        "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
    } else {
        "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}"
    };
    ProgressStyle::with_template(template)
        .expect("the templates above are fixed and valid")
        .progress_chars("=> ")
}

/// What stdout's refusal means for the command.
pub fn stdout_failed(error: &io::Error) -> Failure {
    Failure::failed(format_args!("cannot write to stdout: {error}"))
}

/// Prints the one line that a failed command ends with.
pub fn failure(failure: &Failure) {
    say(&format!("supernode: error: {failure}\n"));
}

/// Prints help or version text that was asked for.
pub fn help(text: &str) {
    // A pager that was closed early is no reason to fail.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

fn say(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A table for people: columns as wide as their widest cell, headed by `header`.
///
/// # Errors
/// Whatever `out` returns.
pub fn table(out: &mut dyn Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let text = padded.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", text.trim_end())
    };
    line(&mut header.iter().copied())?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}

/// A count of bytes for people.
pub fn bytes(count: u64) -> String {
    bytesize::ByteSize(count).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::{bytes, table};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        table(&mut out, &["NAME", "N"], &rows).expect("memory takes all");
        let text = String::from_utf8(out).expect("only text was written");
        assert_eq!(text, "NAME    N\na       1\nlonger\n");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(200 << 20), "200.0 MiB");
    }
}
