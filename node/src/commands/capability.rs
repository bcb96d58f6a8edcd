// SPDX-License-Identifier: MIT OR Apache-2.0
//! `capability`: signs a grant with the key of a configuration, and shows what one says.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use supernode_protocol::capability::{Capability, ClientClass, Scope};
use supernode_protocol::ids::NodeId;
use supernode_protocol::signed::Signed;

use super::Given;
use super::network::{Needs, identity};
use crate::capability::{read, unix_seconds};
use crate::cli::{CapabilityCommand, CapabilityShowArgs, CapabilitySignArgs, NetworkFlags};
use crate::config::Kind;
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::output::{self, Output, Report};

/// The last second of the year 9999, after which dates have no usual form.
const DATES_END: u64 = 253_402_300_799;

/// What a capability says.
#[derive(Debug, Serialize)]
struct Grant {
    issuer: NodeId,
    audience: NodeId,
    network: String,
    class: ClientClass,
    scope: Scope,
    bytes: u64,
    /// Seconds since the Unix epoch.
    expires_at: u64,
}

impl From<Capability> for Grant {
    fn from(capability: Capability) -> Self {
        let Capability { issuer, audience, network, class, scope, bytes, expires_at } = capability;
        Self { issuer, audience, network, class, scope, bytes, expires_at }
    }
}

/// A new capability.
#[derive(Debug, Serialize)]
struct Made {
    token: String,
    #[serde(flatten)]
    grant: Grant,
}

impl Report for Made {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.token)
    }
}

/// A capability that was looked at.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    grant: Grant,
    is_expired: bool,
    is_signature_valid: bool,
}

impl Report for Shown {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let Grant { issuer, audience, network, class, scope, bytes, expires_at } = &self.grant;
        let rights = [(scope.read, "read"), (scope.write, "write")];
        let rights: Vec<&str> =
            rights.into_iter().filter(|(has, _)| *has).map(|(_, right)| right).collect();
        let state = if self.is_expired { ", which is over" } else { "" };
        let holds = if self.is_signature_valid { "holds" } else { "does NOT hold" };
        writeln!(out, "issuer     {issuer}")?;
        writeln!(out, "audience   {audience}")?;
        // Whoever wrote it wrote this too: nothing in it may reach a terminal as it is.
        writeln!(out, "network    {}", network.escape_debug())?;
        writeln!(out, "class      {}", class.name())?;
        writeln!(out, "scope      {}", rights.join(", "))?;
        writeln!(out, "bytes      {} on each node", output::bytes(*bytes))?;
        writeln!(out, "expires    {}{state}", date(*expires_at))?;
        writeln!(out, "signature  {holds}")
    }
}

impl Shown {
    fn verdict(&self) -> Result<(), Failure> {
        if !self.is_signature_valid {
            let issuer = self.grant.issuer;
            return Err(Failure::refused(format_args!(
                "the signature is not that of {issuer}: no node takes it; ask for it again"
            )));
        }
        if self.is_expired {
            let message = "the capability has expired; ask its issuer for a new one";
            return Err(Failure::refused(message));
        }
        Ok(())
    }
}

/// Does `supernode capability …`.
pub fn run(given: &Given, command: &CapabilityCommand) -> Result<(), Failure> {
    match command {
        CapabilityCommand::Sign(args) => sign(given, args),
        CapabilityCommand::Show(args) => show(args),
    }
}

fn sign(given: &Given, args: &CapabilitySignArgs) -> Result<(), Failure> {
    let (identity, network) = issuer(given, args.class)?;
    let expires_at = unix_seconds().checked_add(args.expires.as_secs()).ok_or_else(|| {
        Failure::usage("--expires is later than any clock can show; write such as 30d")
    })?;
    let capability = Capability {
        issuer: identity.node,
        audience: args.audience,
        network,
        class: args.class,
        scope: Scope { read: args.read, write: args.write },
        bytes: args.bytes,
        expires_at,
    };
    let signed = Signed::sign(capability.clone(), &identity.keypair)
        .map_err(|error| Failure::of(Exit::Usage, &error))?;
    let output = Output::new(args.json.json);
    output.report(&Made { token: signed.token(), grant: capability.into() })?;
    output.talk(format_args!(
        "nodes take it that have {} in relay.issuers{}; the client names a file with the token as \
         capability_file in client.toml",
        identity.node,
        if args.class <= ClientClass::Gateway { " or relay.writers" } else { "" }
    ));
    Ok(())
}

/// Who signs, and for which network.
fn issuer(given: &Given, class: ClientClass) -> Result<(Identity, String), Failure> {
    match given.kind()? {
        Kind::Client => {
            let config = given.client_config(&NetworkFlags::default(), Vec::new())?;
            Ok((identity(&config, Needs::OwnKey)?, config.network.name))
        }
        Kind::Node => {
            let config = given.node_config(Vec::new())?;
            let identity = Identity::load(&config.identity_path())?;
            // A node that is on no list of its own may be on those of others.
            match config.relay.grants_max(identity.node) {
                Some(most) if class > most => Err(Failure::usage(format_args!(
                    "--class {} is more than {} at most, which relay.writers lets this key grant; \
                     a key of relay.issuers grants every class",
                    class.name(),
                    most.name()
                ))),
                _ => Ok((identity, config.network.name)),
            }
        }
    }
}

fn show(args: &CapabilityShowArgs) -> Result<(), Failure> {
    let signed = match Signed::<Capability>::from_token(args.token.trim()) {
        Ok(signed) => signed,
        Err(error) => {
            let path = Path::new(&args.token);
            // What looks like a path, or is one, is meant as one.
            if !path.exists() && !args.token.contains(['/', '.']) {
                return Err(Failure::usage(format_args!(
                    "this is no token ({error}), and no file has that name"
                )));
            }
            read(path)?
        }
    };
    let capability = signed.body_unverified().clone();
    let shown = Shown {
        is_expired: unix_seconds() >= capability.expires_at,
        is_signature_valid: signed.verify().is_ok(),
        grant: capability.into(),
    };
    Output::new(args.json.json).report(&shown)?;
    shown.verdict()
}

/// A time for people.
fn date(unix_seconds: u64) -> String {
    if unix_seconds > DATES_END {
        return format!("{unix_seconds} seconds after 1970, which no calendar shows");
    }
    let time = UNIX_EPOCH + Duration::from_secs(unix_seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::{DATES_END, date};

    #[test]
    fn every_time_has_a_text() {
        assert_eq!(date(2_000_000_000), "2033-05-18T03:33:20Z");
        assert_eq!(date(DATES_END), "9999-12-31T23:59:59Z");
        assert!(date(DATES_END + 1).contains("253402300800"));
        assert!(date(u64::MAX).contains("18446744073709551615"));
    }
}
