// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes by their ids, as the kernel shows them. Only ids of processes that a test has started
//! are ever signalled.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

/// Sends a signal; whoever has ended already needs none.
///
/// # Panics
/// If the id is none, or the kernel refuses.
pub fn signal(pid: u32, signal: Signal) {
    let raw = i32::try_from(pid).expect("process ids are small");
    let target = Pid::from_raw(raw).expect("process ids are not 0");
    match kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("cannot signal {pid}: {error}"),
    }
}

/// Whether a process runs. One that has ended and was not waited for does not.
pub fn is_running(pid: u32) -> bool {
    // The state follows the name, which stands in parentheses and may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Whether the kernel still knows a process. One that ends looks dead as soon as its first thread
/// is, while the others still hold files and locks; when its parent has collected it, all is free.
pub fn is_known(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A process's arguments, joined by spaces; empty when it has ended.
pub fn arguments(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Running processes with this path in their arguments. A test's temporary directory has a name
/// that nobody else uses.
///
/// # Panics
/// If `/proc` cannot be read.
pub fn working_in(dir: &Path) -> Vec<u32> {
    let dir = dir.to_str().expect("temporary directories are named in ASCII");
    let entries = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| arguments(*pid).contains(dir) && is_running(*pid))
        .collect()
}

/// The words that run a command as root: none for root itself, else `sudo` without a password. The
/// second tier of tests may ask for that; where it cannot have it, it fails.
pub fn as_root() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() { &[] } else { &["sudo", "-n"] }
}

/// Highest resident memory so far, if the process still runs.
pub fn peak_memory_bytes(pid: u32) -> Option<u64> {
    memory_bytes(pid, "VmHWM:")
}

/// Resident memory now, if the process still runs.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    memory_bytes(pid, "VmRSS:")
}

fn memory_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}
