// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client's way into the network: one QUIC client, one DHT that only asks, and the object layer
//! over both. Made for one command and closed after it.

use std::future::{Future, pending};
use std::time::Duration;

use supernode_client::{Client, ClientConfig as QuicConfig};
use supernode_dht::Dht;
use supernode_object::network::live::LiveDirectory;
use supernode_object::{ErrorKind, GetError, Objects, PutError};
use supernode_protocol::capability::Capability;
use supernode_protocol::ids::NodeId;
use supernode_protocol::signed::Signed;
use tokio::signal::unix::{SignalKind, signal};

use super::runtime;
use crate::capability::{self, unix_seconds};
use crate::config::ClientConfig;
use crate::exit::{Exit, Failure};
use crate::identity::Identity;

/// How long closing connections may take after the work is done.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a first answer of a bootstrap node is waited for.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// The object layer as commands use it.
pub type LiveObjects = Objects<Client, LiveDirectory>;

/// The parts of a connection to the network.
pub struct Network {
    /// Asks nodes directly.
    pub client: Client,
    /// Finds nodes.
    pub dht: Dht,
    /// Finds nodes by asking those that are found.
    pub directory: LiveDirectory,
    /// Puts and gets objects.
    pub objects: LiveObjects,
}

impl Network {
    /// Waits until a bootstrap node has answered.
    pub async fn ready(&self) -> Result<(), Failure> {
        let ready = self.dht.wait_ready(READY_TIMEOUT).await;
        ready.map_err(|error| Failure::of(Exit::Failed, &error))
    }
}

/// Whether a command can do with a key that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Reading is open to everybody.
    AnyKey,
    /// What it does belongs to somebody: this key's owner.
    OwnKey,
}

/// Runs `work` on the network and closes everything after it, whatever came of it.
pub fn with_network<T, F>(
    config: &ClientConfig,
    needs: Needs,
    work: impl FnOnce(Network) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    if config.network.bootstrap.is_empty() {
        return Err(Failure::usage(
            "no node to start from; give --bootstrap, or network.bootstrap in client.toml",
        ));
    }
    let identity = identity(config, needs)?;
    let capability = capability(config, identity.node)?;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let client = quic_client(&identity, &config.network.name, capability)?;
        let dht = Dht::start(config.dht(), identity.keypair.clone())
            .await
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        let directory = LiveDirectory::new(dht.clone(), client.clone());
        let objects = Objects::new(client.clone(), directory.clone(), identity.keypair.clone())
            .map_err(|error| Failure::of(Exit::Usage, &error))?;
        let network = Network { client: client.clone(), dht: dht.clone(), directory, objects };
        let done = tokio::select! {
            done = work(network) => done,
            name = interrupted() => Err(Failure::failed(format_args!("interrupted by {name}"))),
        };
        let close = async { futures::join!(client.close(), dht.stop()) };
        if tokio::time::timeout(CLOSE_TIMEOUT, close).await.is_err() {
            tracing::debug!("connections were left open");
        }
        done
    });
    runtime.shutdown_background();
    done
}

/// A QUIC client with this key, which shows this capability.
pub fn quic_client(
    identity: &Identity,
    network: &str,
    capability: Option<Signed<Capability>>,
) -> Result<Client, Failure> {
    let mut config = QuicConfig::new(identity.keypair.clone(), network);
    config.agent = concat!("supernode/", env!("CARGO_PKG_VERSION")).to_owned();
    config.capability = capability;
    Client::new(config).map_err(|error| Failure::of(Exit::Failed, &error))
}

/// Returns when the user or the system wants the command to end. Uploads end by themselves then;
/// what a put had committed by that moment stays pinned until its lease ends.
pub async fn interrupted() -> &'static str {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return pending().await };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// The key of a configuration; where any will do and it names none, a fresh one.
pub fn identity(config: &ClientConfig, needs: Needs) -> Result<Identity, Failure> {
    match (config.identity_file.as_os_str().is_empty(), needs) {
        (false, _) => Ok(Identity::load(&config.identity_file)?),
        (true, Needs::AnyKey) => Ok(Identity::generate()),
        (true, Needs::OwnKey) => Err(Failure::usage(
            "this needs a key of your own; `supernode init --client` makes one, --identity or \
             identity_file in client.toml names it",
        )),
    }
}

/// What the configuration has to show, if anything.
fn capability(
    config: &ClientConfig,
    client: NodeId,
) -> Result<Option<Signed<Capability>>, Failure> {
    let path = &config.capability_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    if config.identity_file.as_os_str().is_empty() {
        return Err(Failure::usage(format_args!(
            "capability file {} counts for the key that it names; name that key as identity_file",
            path.display()
        )));
    }
    Ok(Some(capability::load(path, client, &config.network.name, unix_seconds())?))
}

fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Failed => Exit::Failed,
        ErrorKind::Usage => Exit::Usage,
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::Refused => Exit::Refused,
    }
}

impl From<PutError> for Failure {
    fn from(error: PutError) -> Self {
        Self::of(exit_of(error.kind()), &error)
    }
}

impl From<GetError> for Failure {
    fn from(error: GetError) -> Self {
        Self::of(exit_of(error.kind()), &error)
    }
}
