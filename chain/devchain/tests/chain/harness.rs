// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every story needs: a chain, a client, transfers, and a limit on how long to wait.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use subxt::backend::LegacyBackend;
use subxt::config::{HashFor, PolkadotExtrinsicParamsBuilder};
use subxt::ext::scale_decode::DecodeAsType;
use subxt::rpcs::RpcClient;
use subxt::rpcs::client::{RpcSubscription, rpc_params};
use subxt::tx::Payload;
use subxt::{OnlineClient, PolkadotConfig, dynamic};
use subxt_signer::sr25519::{Keypair, PublicKey};
use supernode_devchain::{DevChain, Options, Seal};

/// Far longer than anything here takes; a test that hangs fails instead.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Client = OnlineClient<PolkadotConfig>;

/// A chain in memory whose blocks are made by hand.
pub fn by_hand() -> Options {
    Options { seal: Seal::Manual, controls: true, ..Options::default() }
}

pub async fn start(options: Options) -> DevChain {
    DevChain::start(options).await.expect("the options are good")
}

/// Fails the test if `work` does not end.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

pub async fn rpc(url: &str) -> RpcClient {
    soon("a connection", RpcClient::from_insecure_url(url)).await.expect("the chain listens")
}

pub async fn client(chain: &DevChain) -> Client {
    let backend = LegacyBackend::builder().build(rpc(&chain.url()).await);
    OnlineClient::from_backend(Arc::new(backend)).await.expect("the chain answers")
}

/// An account nobody has a key for.
pub fn stranger(id: u8) -> [u8; 32] {
    [id; 32]
}

/// `Balances.transfer_keep_alive`, as a dynamic call.
pub fn transfer(to: [u8; 32], amount: u128) -> impl Payload {
    let to = PublicKey(to).to_address::<()>();
    dynamic::transaction("Balances", "transfer_keep_alive", (to, amount))
}

/// The bytes of a signed transfer with a nonce of the caller's choice, as hex.
pub async fn signed_transfer(client: &Client, from: &Keypair, to: [u8; 32], nonce: u64) -> String {
    let at = client.at_current_block().await.expect("there is a block");
    let params = PolkadotExtrinsicParamsBuilder::new().mortal(64).nonce(nonce).build();
    let signed = at
        .transactions()
        .create_signed(&transfer(to, 1_000), from, params)
        .await
        .expect("the call is in the metadata");
    hex(signed.encoded())
}

pub fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// Free balance of an account after a block.
pub async fn balance_at(
    client: &Client,
    block: impl Into<HashFor<PolkadotConfig>>,
    account: [u8; 32],
) -> u128 {
    #[derive(DecodeAsType)]
    #[decode_as_type(crate_path = "subxt::ext::scale_decode")]
    struct Info {
        data: Data,
    }
    #[derive(DecodeAsType)]
    #[decode_as_type(crate_path = "subxt::ext::scale_decode")]
    struct Data {
        free: u128,
    }
    let at = client.at_block(block.into()).await.expect("the block is known");
    let address = dynamic::storage::<([u8; 32],), Info>("System", "Account");
    let info = at.storage().fetch(address, (account,)).await.expect("accounts have a default");
    info.decode().expect("it is an account").data.free
}

/// Submits and watches with the raw method, because subxt hides some of the statuses.
pub async fn watch(rpc: &RpcClient, extrinsic: &str) -> RpcSubscription<Value> {
    rpc.subscribe(
        "author_submitAndWatchExtrinsic",
        rpc_params![extrinsic],
        "author_unwatchExtrinsic",
    )
    .await
    .expect("the transaction is valid")
}

/// The next item of a subscription.
pub async fn next(subscription: &mut RpcSubscription<Value>) -> Value {
    let item = soon("the next item", subscription.next()).await;
    item.expect("the subscription is open").expect("the item decodes")
}

/// The height in a header.
pub fn height(header: &Value) -> u64 {
    let digits = header["number"].as_str().expect("a header has a number");
    u64::from_str_radix(digits.trim_start_matches("0x"), 16).expect("it is hex")
}
