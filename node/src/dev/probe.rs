// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking at a node from outside: its health and metrics over plain HTTP.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::http::parse;

/// A node that does not answer within this time counts as down.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer longer than this is not one of ours.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Status code and body of `GET path`.
///
/// # Errors
/// When nobody answers in HTTP within five seconds.
pub async fn http_get(address: &str, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        parse(&answer).ok_or_else(|| io::Error::other("the answer is no HTTP"))
    };
    timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether the node says it is ready.
pub async fn is_ready(address: &str) -> bool {
    matches!(http_get(address, "/readyz").await, Ok((200, _)))
}

/// The sum of a metric over its labels; `None` when the node does not answer or has no such one.
pub async fn metric(address: &str, name: &str) -> Option<f64> {
    let (status, body) = http_get(address, "/metrics").await.ok()?;
    (status == 200).then(|| sum_of(&body, name)).flatten()
}

fn sum_of(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let labels_or_value = rest.starts_with('{') || rest.starts_with(' ');
        labels_or_value.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::sum_of;

    #[test]
    fn metrics_are_summed_over_labels_and_not_over_names() {
        let text = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3.5\nab 100\nb 7\n";
        assert_eq!(sum_of(text, "a"), Some(5.5));
        assert_eq!(sum_of(text, "b"), Some(7.0));
        assert_eq!(sum_of(text, "c"), None);
    }
}
