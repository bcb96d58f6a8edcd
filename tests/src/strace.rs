// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program run under strace: which of its system calls are looked at, which one is made to fail,
//! and what the log of it says.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What happens to one call of a thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The call's name.
    pub call: String,
    /// In strace's words: `signal=KILL`, `error=EIO`.
    pub what: &'static str,
    /// Which of these calls, counted from 1 in each thread.
    pub when: usize,
    /// Whether all after it fail too.
    pub is_lasting: bool,
}

impl Fault {
    /// Whether it ends the process.
    pub fn is_kill(&self) -> bool {
        self.what == "signal=KILL"
    }
}

/// A call that has returned, or has ended its process.
#[derive(Debug)]
pub struct Call {
    /// The thread.
    pub thread: u32,
    /// Its name.
    pub name: String,
    /// All that stands in its parentheses.
    arguments: String,
    /// All that stands after the equals sign.
    result: String,
}

/// The words that run a program under strace with a log of `calls`, of which one may fail; where
/// there are `paths`, of calls on these alone.
pub fn words(log: &Path, calls: &[&str], paths: &[PathBuf], fault: Option<&Fault>) -> Vec<String> {
    let text = |path: &Path| path.to_str().expect("temporary directories are ASCII").to_owned();
    // Without -ff: one log, in which the order between threads is kept.
    let mut words =
        ["strace", "-f", "-qq", "-y", "-s", "0", "-e", "signal=none"].map(str::to_owned).to_vec();
    // A filter in the kernel spares all other calls the detour; strace 6.1 sends no signals then.
    if !fault.is_some_and(Fault::is_kill) {
        words.push("--seccomp-bpf".to_owned());
    }
    words.extend(["-o".to_owned(), text(log), "-e".to_owned()]);
    words.push(format!("trace={}", calls.join(",")));
    words.extend(paths.iter().flat_map(|path| ["-P".to_owned(), text(path)]));
    if let Some(Fault { call, what, when, is_lasting }) = fault {
        let lasting = if *is_lasting { "+" } else { "" };
        words.extend(["-e".to_owned(), format!("inject={call}:{what}:when={when}{lasting}")]);
    }
    words
}

/// The calls of a log, in the order in which they returned.
pub fn calls(log: &str) -> Vec<Call> {
    let mut unfinished: HashMap<u32, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let Ok(thread) = thread.parse() else { continue };
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, begun.trim_end().to_owned());
            continue;
        }
        let whole = match text.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, rest)) => unfinished.remove(&thread).unwrap_or_default() + rest,
            None => text.to_owned(),
        };
        calls.extend(Call::parse(thread, &whole));
    }
    calls
}

impl Call {
    fn parse(thread: u32, text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ")?;
        let arguments = arguments.trim_end().strip_suffix(')')?;
        let [name, arguments, result] = [name, arguments, result].map(str::to_owned);
        Some(Self { thread, name, arguments, result })
    }

    /// The descriptor and its file, such as `12</dir/1.seg>`: the first argument.
    pub fn file(&self) -> &str {
        self.arguments.split(',').next().unwrap_or_default()
    }

    /// The file behind the descriptor.
    pub fn path(&self) -> Option<PathBuf> {
        let (_, path) = self.file().split_once('<')?;
        Some(path.strip_suffix('>')?.into())
    }

    /// Whether strace had its hand in it.
    pub fn is_injected(&self) -> bool {
        self.result.contains("(INJECTED")
    }

    /// Whether it failed.
    pub fn has_failed(&self) -> bool {
        self.result.starts_with("-1 ")
    }

    /// The bytes of the file that it wrote, if it is a `pwritev` that did.
    pub fn written(&self) -> Option<Range<u64>> {
        let count: u64 = self.result.split(' ').next()?.parse().ok()?;
        let start: u64 = self.arguments.rsplit(", ").next()?.parse().ok()?;
        (self.name == "pwritev").then(|| start..start + count)
    }

    /// Whether it asks for bytes to be on the disk.
    pub fn is_sync(&self) -> bool {
        self.name == "fdatasync" || self.name == "fsync"
    }
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn a_call_in_two_lines_is_one() {
        let log = "7  pwritev(12</d/1.seg>, [...], 1, 8192 <unfinished ...>\n\
                   8  fdatasync(12</d/1.seg>) = -1 EIO (Input/output error) (INJECTED)\n\
                   7  <... pwritev resumed>)            = 9\n\
                   7  +++ killed by SIGKILL +++";
        let calls = calls(log);
        let [sync, write] = &calls[..] else { panic!("two calls: {calls:?}") };
        assert!(sync.is_sync() && sync.has_failed() && sync.is_injected());
        assert_eq!((write.written(), write.file()), (Some(8192..8201), "12</d/1.seg>"));
    }

    #[test]
    fn the_call_that_kills_is_seen() {
        let calls = calls("7 unlink(\"/d/1.seg\") = ? (INJECTED: args)\n");
        assert_eq!((calls.len(), calls[0].name.as_str()), (1, "unlink"));
    }
}
