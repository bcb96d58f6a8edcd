// SPDX-License-Identifier: MIT OR Apache-2.0
//! What commands ask the node that runs in a data directory, over its admin socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::admin;
use crate::exit::Failure;
use crate::http;

/// A plan of the cleanup asks every endpoint about every lease that is due.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// An answer longer than this is not one of ours.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Asks for a page.
///
/// # Errors
/// Nobody answers, or the node says no.
pub(super) async fn ask<T: DeserializeOwned>(
    data_dir: &Path,
    method: &str,
    page: &str,
) -> Result<T, Failure> {
    answer(data_dir, exchange(data_dir, method, page, "").await)
}

/// Tells something, as JSON.
///
/// # Errors
/// As [`ask`].
pub(super) async fn tell<T: DeserializeOwned>(
    data_dir: &Path,
    page: &str,
    value: &impl Serialize,
) -> Result<T, Failure> {
    let body = serde_json::to_string(value).expect("plain values have a JSON form");
    answer(data_dir, exchange(data_dir, "POST", page, &body).await)
}

async fn exchange(
    data_dir: &Path,
    method: &str,
    page: &str,
    body: &str,
) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = UnixStream::connect(data_dir.join(admin::SOCKET)).await?;
        let request = format!(
            "{method} {page} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        http::parse(&answer).ok_or_else(|| io::Error::other("the answer is no HTTP"))
    };
    timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn answer<T: DeserializeOwned>(
    data_dir: &Path,
    asked: io::Result<(u16, String)>,
) -> Result<T, Failure> {
    let (status, body) = asked.map_err(|error| {
        let data_dir = data_dir.display();
        match error.kind() {
            io::ErrorKind::TimedOut => Failure::failed(format_args!(
                "the node in {data_dir} has no answer within {} seconds; look at its log",
                ANSWER_TIMEOUT.as_secs()
            )),
            _ => Failure::failed(format_args!(
                "no node answers in {data_dir} ({error}); start it with `supernode run`"
            )),
        }
    })?;
    match status {
        200 => serde_json::from_str(&body).map_err(|error| {
            Failure::failed(format_args!("the node's answer cannot be read: {error}"))
        }),
        400 => Err(Failure::usage(body)),
        _ => Err(Failure::failed(body)),
    }
}
