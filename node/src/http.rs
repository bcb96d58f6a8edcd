// SPDX-License-Identifier: MIT OR Apache-2.0
//! Metrics and health over HTTP, on the loopback unless told otherwise.
//!
//! - `/metrics` is the Prometheus text of [`crate::metrics`].
//! - `/livez` answers while the process does: 200.
//! - `/readyz` answers whether the node can serve: 200 or 503, with the reasons as JSON.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Metrics};

/// Whether the node can serve, part by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// All of them.
    pub ready: bool,
    /// The store is open.
    pub store_open: bool,
    /// The relay server listens.
    pub relay_listening: bool,
    /// A bootstrap node has answered, or none is configured.
    pub dht_bootstrapped: bool,
    /// The node is draining.
    pub stopping: bool,
}

impl Readiness {
    /// The verdict over all parts.
    pub fn of(
        store_open: bool,
        relay_listening: bool,
        dht_bootstrapped: bool,
        stopping: bool,
    ) -> Self {
        let ready = store_open && relay_listening && dht_bootstrapped && !stopping;
        Self { ready, store_open, relay_listening, dht_bootstrapped, stopping }
    }
}

/// What the endpoints report on.
pub trait Subject: Send + Sync + 'static {
    /// Whether it can serve now.
    fn readiness(&self) -> Readiness;

    /// All figures as they are now.
    fn metrics(&self) -> Metrics;
}

struct Shared<S> {
    subject: S,
    requests: Semaphore,
}

/// Binds the socket.
///
/// # Errors
/// Names the address and the remedy.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen on {address} (TCP, http.listen): {error}; choose another address")
    })
}

/// Serves until `cancel`; requests under way are finished.
///
/// # Errors
/// When the socket fails.
pub async fn serve<S: Subject>(
    listener: TcpListener,
    subject: S,
    requests_max: usize,
    cancel: CancellationToken,
) -> Result<(), String> {
    let shared = Arc::new(Shared { subject, requests: Semaphore::new(requests_max) });
    let router = Router::new()
        .route("/metrics", get(metrics_page::<S>))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz::<S>))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
        .map_err(|error| format!("the HTTP server ended: {error}"))
}

async fn livez() -> &'static str {
    "live\n"
}

async fn readyz<S: Subject>(State(shared): State<Arc<Shared<S>>>) -> Response {
    let readiness = shared.subject.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_string(&readiness).expect("flags have a JSON form");
    (status, content_type("application/json"), body + "\n").into_response()
}

async fn metrics_page<S: Subject>(State(shared): State<Arc<Shared<S>>>) -> Response {
    let Ok(_permit) = shared.requests.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response();
    };
    match shared.subject.metrics().text() {
        Ok(text) => (content_type(metrics::CONTENT_TYPE), text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics have no text form");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Status code and body of an answer whose connection was closed after it; nothing for other bytes.
pub fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn content_type(value: &'static str) -> [(HeaderName, &'static str); 1] {
    [(CONTENT_TYPE, value)]
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    use super::{Readiness, Subject, bind, parse, serve};
    use crate::metrics::Metrics;

    struct Fixed {
        bootstrapped: bool,
    }

    impl Subject for Fixed {
        fn readiness(&self) -> Readiness {
            Readiness::of(true, true, self.bootstrapped, false)
        }

        fn metrics(&self) -> Metrics {
            Metrics::example()
        }
    }

    async fn asked(bootstrapped: bool, path: &str) -> String {
        let address = "127.0.0.1:0".parse().expect("a socket address");
        let listener = bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Fixed { bootstrapped }, 4, cancel.clone()));
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        cancel.cancel();
        server.await.expect("no panic").expect("an orderly end");
        answer
    }

    #[tokio::test]
    async fn readiness_is_a_status_with_its_reasons() {
        let ready = asked(true, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        assert!(ready.contains("\"ready\":true"), "{ready}");
        let waiting = asked(false, "/readyz").await;
        assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
        assert!(waiting.contains("\"dht_bootstrapped\":false"), "{waiting}");
    }

    #[tokio::test]
    async fn life_metrics_and_nothing_else_are_served() {
        assert!(asked(false, "/livez").await.starts_with("HTTP/1.1 200"));
        let metrics = asked(true, "/metrics").await;
        assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\nsupernode_build_info{"), "{metrics}");
        assert!(asked(true, "/").await.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn only_http_is_an_answer() {
        assert_eq!(parse("HTTP/1.1 503 x\r\na: b\r\n\r\nbody"), Some((503, "body".to_owned())));
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
        assert_eq!(parse("HTTP/1.1"), None);
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = taken.local_addr().expect("it is bound");
        let error = bind(address).await.expect_err("it is taken");
        assert!(error.contains(&address.to_string()) && error.contains("http.listen"), "{error}");
    }
}
