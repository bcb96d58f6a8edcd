// SPDX-License-Identifier: MIT OR Apache-2.0
//! A secret with a pattern of its own goes through a whole life of failures, and is looked for in
//! everything that is written: `Debug`, errors, and every log line of every crate.

use std::io;
use std::sync::{Arc, Mutex};

use supernode_chain::{Account, Call, ChainConfig, SecretKey, TxError, Until};
use supernode_devchain::{DevChain, Faults, Genesis, Options};
use supernode_protocol::deal::DealId;
use tracing_subscriber::fmt::MakeWriter;

use super::eventually::{answer, soon, view};
use super::harness::{by_hand, config_of, connect, genesis, hex, pending, reserve, start};

/// Not a pattern that anything else has.
const CANARY: [u8; 32] = *b"canary-seed-that-never-is-shown!";
/// Money for the account that the canary makes.
const WEALTH: u128 = 1_000_000_000;

/// Everything that was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn note(&self, text: impl AsRef<[u8]>) {
        self.0.lock().expect("no writer panics").extend_from_slice(text.as_ref());
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no writer panics")).into_owned()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.note(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The ways in which bytes get into text, whole and in part.
fn spellings(secret: &[u8]) -> Vec<String> {
    let (whole, half) = (secret, &secret[..secret.len() / 2]);
    let mut found = Vec::new();
    for bytes in [whole, half] {
        let listed = format!("{bytes:?}");
        found.push(hex(bytes));
        found.push(hex(bytes).to_uppercase());
        found.push(listed.trim_matches(['[', ']']).to_owned());
        found.push(String::from_utf8_lossy(bytes).into_owned());
    }
    found
}

#[track_caller]
fn assert_hidden(text: &str) {
    for spelling in spellings(&CANARY) {
        assert!(!text.contains(&spelling), "the secret is shown as {spelling}");
    }
}

fn funded() -> Options {
    let account = SecretKey::from_seed(CANARY).expect("a seed").account();
    let mut genesis: Genesis = genesis();
    genesis.balances.push((account.into(), WEALTH));
    let mut options = Options { genesis: Some(genesis), ..by_hand() };
    options.listen = vec![options.listen[0]; 2];
    options
}

async fn fails(account: &Account, call: Call, written: &Written) -> TxError {
    let error = soon("a failure", account.submit(call, Until::InBlock)).await;
    let error = error.expect_err("the call is bad");
    written.note(format!("{error} {error:?} {error:#?}"));
    error
}

async fn seals(chain: &DevChain, account: &Account, call: Call) -> Result<(), TxError> {
    let account = account.clone();
    let work = tokio::spawn(async move { account.submit(call, Until::InBlock).await });
    answer("the call waits", || pending(chain), |count| *count == 1).await;
    chain.seal().await.expect("the chain runs");
    soon("the call", work).await.expect("no panic").map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_log_no_error_and_no_debug_output() {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(written.clone())
        .finish();
    // Of all threads, other stories' too: their lines do no harm. A subscriber of one thread alone
    // would miss every line that another thread came across first.
    tracing::subscriber::set_global_default(subscriber).expect("nobody else listens");

    let dir = tempfile::tempdir().expect("there is room");
    let file = dir.path().join("chain.key");
    SecretKey::create(&file, CANARY).expect("a new file");
    let key = SecretKey::read(&file).expect("what was written");
    let again = SecretKey::create(&file, CANARY).expect_err("it exists");
    written.note(format!("{key:?} {key:#?} {again} {again:?}"));

    let chain = start(funded()).await;
    let faulty = format!("ws://{}", chain.addresses()[1]);
    let config = ChainConfig {
        endpoints: vec![faulty.clone()],
        key_file: file,
        inclusion_timeout_secs: 1,
        ..config_of(&chain)
    };
    written.note(format!("{config:?} {config:#?}"));
    let client = connect(config).await;
    let account = Account::start(client.clone(), key);
    seals(&chain, &account, reserve(5)).await.expect("there is money");
    let refused = seals(&chain, &account, Call::Cancel { deal: DealId(9) }).await;
    written.note(format!("{refused:?}"));
    assert!(matches!(refused, Err(TxError::Refused { .. })), "{refused:?}");

    let unknown = fails(&account, reserve(6), &written).await;
    assert!(matches!(unknown, TxError::Unknown { .. }), "{unknown}");
    let failing = ["author_submitAndWatchExtrinsic".to_owned()];
    chain.set_faults(1, Faults { failing_methods: failing.into(), ..Faults::default() });
    let not_accepted = fails(&account, reserve(7), &written).await;
    assert!(matches!(not_accepted, TxError::NotAccepted { .. }), "{not_accepted}");
    chain.set_faults(1, Faults { refuse_connections: true, ..Faults::default() });
    view(&client, "the loss is seen", |view| view.best.is_none()).await;
    let unreachable = fails(&account, reserve(8), &written).await;
    assert!(matches!(unreachable, TxError::Chain(_)), "{unreachable}");
    chain.stop().await;

    let text = written.text();
    // Something was listened to, and what may be shown is.
    for word in ["the chain is connected", "the chain is lost", "TRACE", "jsonrpsee", &faulty] {
        assert!(text.contains(word), "{word:?} is not in {} bytes of log", text.len());
    }
    assert!(text.contains(&supernode_chain::address(account.id())), "the address is no secret");
    assert_hidden(&text);
}

#[test]
fn a_panic_that_shows_a_key_shows_its_address() {
    let key = SecretKey::from_seed(CANARY).expect("a seed");
    let shown = key.clone();
    let panic = std::panic::catch_unwind(move || panic!("on purpose: {shown:?}"));
    let Err(told) = panic;
    let told = told.downcast_ref::<String>().expect("with a text");
    assert!(told.contains(&key.address()), "{told}");
    assert_hidden(told);
}

#[test]
fn a_secret_that_is_shown_would_be_found() {
    for shown in [format!("{CANARY:?}"), hex(&CANARY), format!("seed {:02X?}", CANARY)] {
        let compact = shown.replace("0x", "");
        let is_found = spellings(&CANARY).iter().any(|spelling| {
            compact.contains(spelling) || compact.replace(", ", "").contains(spelling)
        });
        assert!(is_found, "{shown}");
    }
}
