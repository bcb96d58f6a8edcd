// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking a node over plain HTTP, without any of the code under test.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A node that takes longer is as good as dead for a test.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Status code and body of `GET path` at `address`.
///
/// # Errors
/// When nobody answers in HTTP.
pub fn request(address: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parsed.ok_or_else(|| io::Error::other(format!("no HTTP: {answer:.80}")))
}

/// What a node says of itself in figures.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// The value of a figure without labels, as it stands there.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }
}

/// The figures of the node that answers at `address`.
///
/// # Errors
/// When nobody answers in HTTP.
pub fn metrics(address: &str) -> io::Result<Metrics> {
    request(address, "/metrics").map(|(_, page)| Metrics(page))
}
