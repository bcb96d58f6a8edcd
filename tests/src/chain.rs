// SPDX-License-Identifier: MIT OR Apache-2.0
//! A chain by plain JSON-RPC over HTTP, without any of the code under test.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

/// A chain that takes longer is as good as dead for a test.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where the storage map `System.Account` begins: the hashes of the two names.
const ACCOUNTS: &str = "0x26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9";
/// Accounts asked for at once; a development chain has a few dozen.
const ACCOUNTS_MAX: usize = 500;
/// Hex digits before an account's free balance: a nonce and three counts of 32 bits.
const DIGITS_BEFORE_FREE: usize = 2 + 4 * 8;

/// What a chain answers to a question.
///
/// # Errors
/// When nobody answers in JSON-RPC.
pub fn ask(endpoint: &str, method: &str, params: &Value) -> io::Result<Value> {
    let address = endpoint.trim_start_matches("ws://");
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: \
         {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let mut answer: Value = serde_json::from_str(body).map_err(io::Error::other)?;
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(io::Error::other(format!("{method}: {answer}"))),
    }
}

/// Height of the best block.
///
/// # Panics
/// If the chain does not answer.
pub fn height(endpoint: &str) -> u64 {
    let header = ask(endpoint, "chain_getHeader", &json!([])).expect("the chain answers");
    let number = header["number"].as_str().and_then(|number| number.strip_prefix("0x"));
    u64::from_str_radix(number.expect("a header has a number"), 16).expect("it is hex")
}

/// Free balance of every account, by the account's place in storage.
///
/// # Panics
/// If the chain does not answer.
pub fn balances(endpoint: &str) -> BTreeMap<String, u128> {
    let read = |method, params: Value| ask(endpoint, method, &params).expect("the chain answers");
    let keys = read("state_getKeysPaged", json!([ACCOUNTS, ACCOUNTS_MAX]));
    let keys = keys.as_array().expect("a list").iter().filter_map(Value::as_str);
    let free = |key: &str| {
        let value = read("state_getStorage", json!([key]));
        let value = value.as_str().expect("an account has a value").to_owned();
        u128::from_str_radix(&value[DIGITS_BEFORE_FREE..][..32], 16).expect("hex").swap_bytes()
    };
    keys.map(|key| (key.to_owned(), free(key))).collect()
}
