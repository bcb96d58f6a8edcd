// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is on the chain, by plain JSON-RPC: storage keys are made here, values read byte by byte.
//!
//! Neither the chain client nor its types are used, so that what the commands say about the chain
//! can be compared with what the chain says. The layout is that of `chain/pallet`; every field read
//! has a fixed width.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use sp_crypto_hashing::{twox_64, twox_128};
use supernode_protocol::ids::{Cid, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::exit::Failure;
use crate::http::parse;

/// A chain that does not answer within this time counts as gone.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer longer than this is not one of ours.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Keys asked for in one page.
const KEYS_PAGE: usize = 500;

/// A chain's storage at its finalised block.
pub(super) struct Ledger {
    address: String,
}

/// A running deal, as far as the demo needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LedgerDeal {
    pub(super) object: Cid,
    pub(super) bytes: u64,
    pub(super) expires_at: u32,
}

/// A resolved audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LedgerAudit {
    pub(super) audit: u64,
    pub(super) node: u32,
    pub(super) deal: u64,
    pub(super) stripe: u32,
    pub(super) index: u16,
    pub(super) passed: bool,
    pub(super) opened_at: u32,
}

/// The tombstone of a deal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LedgerEnd {
    pub(super) object: Cid,
    pub(super) at: u32,
    pub(super) cancelled: bool,
}

impl Ledger {
    /// The chain behind a WebSocket endpoint, asked over HTTP.
    pub(super) fn new(endpoint: &str) -> Self {
        Self { address: endpoint.trim_start_matches("ws://").to_owned() }
    }

    /// A running deal.
    pub(super) async fn deal(&self, deal: u64) -> Result<Option<LedgerDeal>, Failure> {
        let Some(value) = self.value(&map_key("Deals", &deal.to_le_bytes())).await? else {
            return Ok(None);
        };
        // owner 32, object 32, shards_root 32, data 2, width 2, stripes 4, groups 4, bytes 8, price
        // 16, priced_at 4, accrued 16, activated_at 4, expires_at 4, escrow ...
        let mut fields = Fields(&value);
        let (_owner, object) = (fields.take::<32>()?, fields.take::<32>()?);
        fields.skip(32 + 2 + 2 + 4 + 4)?;
        let bytes = u64::from_le_bytes(fields.take()?);
        fields.skip(16 + 4 + 16 + 4)?;
        let expires_at = u32::from_le_bytes(fields.take()?);
        Ok(Some(LedgerDeal { object: Cid::from_bytes(object), bytes, expires_at }))
    }

    /// The tombstone of a deal.
    pub(super) async fn end(&self, deal: u64) -> Result<Option<LedgerEnd>, Failure> {
        let Some(value) = self.value(&map_key("EndedDeals", &deal.to_le_bytes())).await? else {
            return Ok(None);
        };
        let mut fields = Fields(&value);
        let (_owner, object) = (fields.take::<32>()?, fields.take::<32>()?);
        let at = u32::from_le_bytes(fields.take()?);
        let cancelled = fields.take::<1>()? == [1];
        Ok(Some(LedgerEnd { object: Cid::from_bytes(object), at, cancelled }))
    }

    /// Every resolved audit that is remembered.
    pub(super) async fn audits(&self) -> Result<Vec<LedgerAudit>, Failure> {
        let prefix = prefix("AuditResults");
        let mut audits = Vec::new();
        for key in self.keys(&prefix).await? {
            let Some(value) = self.value(&key).await? else { continue };
            // A Twox64Concat key ends with what was hashed.
            let audit = key.last_chunk().copied().map(u64::from_le_bytes);
            let audit = audit.ok_or_else(|| malformed("a key of audits"))?;
            let mut fields = Fields(&value);
            audits.push(LedgerAudit {
                audit,
                node: u32::from_le_bytes(fields.take()?),
                deal: u64::from_le_bytes(fields.take()?),
                stripe: u32::from_le_bytes(fields.take()?),
                index: u16::from_le_bytes(fields.take()?),
                passed: fields.take::<1>()? == [1],
                opened_at: u32::from_le_bytes(fields.take()?),
            });
        }
        audits.sort_by_key(|audit| audit.audit);
        Ok(audits)
    }

    /// The registry's place of a node.
    pub(super) async fn index_of(&self, node: NodeId) -> Result<Option<u32>, Failure> {
        for key in self.keys(&prefix("Nodes")).await? {
            let Some(value) = self.value(&key).await? else { continue };
            let mut fields = Fields(&value);
            fields.skip(32 + 32)?;
            if fields.take::<32>()? == *node.as_bytes() {
                let index = key.last_chunk().copied().map(u32::from_le_bytes);
                return Ok(index);
            }
        }
        Ok(None)
    }

    /// Height of the finalised block.
    pub(super) async fn finalised(&self) -> Result<u32, Failure> {
        let head = self.ask("chain_getFinalizedHead", json!([])).await?;
        let header = self.ask("chain_getHeader", json!([head])).await?;
        let number = header.get("number").and_then(Value::as_str);
        let number = number.and_then(|number| number.strip_prefix("0x"));
        number
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| malformed("a header"))
    }

    async fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let head = self.ask("chain_getFinalizedHead", json!([])).await?;
        match self.ask("state_getStorage", json!([hex(key), head])).await? {
            Value::Null => Ok(None),
            Value::String(text) => bytes(&text).map(Some).ok_or_else(|| malformed("a value")),
            _ => Err(malformed("a value")),
        }
    }

    async fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let head = self.ask("chain_getFinalizedHead", json!([])).await?;
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let after = keys.last().map_or_else(|| hex(prefix), |last| hex(last));
            let asked = json!([hex(prefix), KEYS_PAGE, after, head]);
            let page = self.ask("state_getKeysPaged", asked).await?;
            let page = page.as_array().ok_or_else(|| malformed("a page of keys"))?;
            if page.is_empty() {
                return Ok(keys);
            }
            for key in page {
                let key = key.as_str().and_then(bytes);
                keys.push(key.ok_or_else(|| malformed("a key"))?);
            }
        }
    }

    async fn ask(&self, method: &str, params: Value) -> Result<Value, Failure> {
        let body =
            json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let answer = timeout(TIMEOUT, self.post(&body)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let answer = answer.map_err(|error| {
            Failure::failed(format_args!("the chain does not answer {method}: {error}"))
        })?;
        let mut answer: Value = serde_json::from_str(&answer).map_err(Failure::failed)?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(Failure::failed(format_args!("the chain refuses {method}: {answer}"))),
        }
    }

    async fn post(&self, body: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\
             \r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        match parse(&answer) {
            Some((200, body)) => Ok(body),
            _ => Err(io::Error::other("the answer is no JSON-RPC")),
        }
    }
}

/// Fixed-width fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(|| malformed("a record"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn skip(&mut self, count: usize) -> Result<(), Failure> {
        self.0 = self.0.get(count..).ok_or_else(|| malformed("a record"))?;
        Ok(())
    }
}

fn prefix(item: &str) -> Vec<u8> {
    [twox_128(b"Supernode"), twox_128(item.as_bytes())].concat()
}

/// The key of an entry whose hasher is Twox64Concat.
fn map_key(item: &str, key: &[u8]) -> Vec<u8> {
    [&prefix(item)[..], &twox_64(key), key].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.is_ascii())?;
    let pairs = (0..digits.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

fn malformed(what: &str) -> Failure {
    Failure::failed(format_args!("the chain's storage holds something else than {what}"))
}

#[cfg(test)]
mod tests {
    use super::{Fields, bytes, hex, map_key};

    #[test]
    fn keys_are_those_of_substrate() {
        // xxh128 of both names, and 8 bytes of xxh64 before what was hashed.
        let key = map_key("Deals", &1_u64.to_le_bytes());
        assert_eq!(key.len(), 16 + 16 + 8 + 8);
        assert!(key.ends_with(&1_u64.to_le_bytes()));
        // The best known prefix of all: System.Account.
        let account =
            [sp_crypto_hashing::twox_128(b"System"), sp_crypto_hashing::twox_128(b"Account")];
        let known = "0x26aa394eea5630e07c48ae0c9558cef7b99d880ec681799c0cf30e8886371da9";
        assert_eq!(hex(&account.concat()), known);
        assert_eq!(bytes(known).expect("hex"), account.concat());
    }

    #[test]
    fn a_record_that_is_too_short_is_an_error() {
        let mut fields = Fields(&[1, 2, 3]);
        assert_eq!(fields.take::<2>().expect("two bytes"), [1, 2]);
        assert!(fields.take::<2>().is_err());
        assert!(fields.skip(2).is_err());
    }
}
