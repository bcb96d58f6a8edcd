// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Makes a reservation and reads audits with an unmodified polkadot.js: no type, no RPC method and
// no signed extension is declared here. What it learns of the pallet it learns from the chain.
//
//   SUPERNODE_NPM_DIR=DIR node reserve.mjs ENDPOINT GENESIS SECRET BYTES DURATION
//
// SECRET is `//Alice` or the like, or a file with a secret. Where the packages are installed is
// said by SUPERNODE_NPM_DIR, for they are kept out of the checkout. Prints one JSON document: the
// reservation, the audits of the block that is final with it, and whatever polkadot.js complained
// about. Numbers that may leave the range of a double are text.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { format } from 'node:util';

const PATIENCE_MS = 90_000;

// stdout carries the document alone, and no complaint goes unseen. Before the first import of
// polkadot.js, which keeps what it finds here.
const warnings = [];
console.log = (...said) => process.stderr.write(`${format(...said)}\n`);
console.warn = console.error = (...said) => {
  warnings.push(format(...said));
  console.log(...said);
};

const { ApiPromise, Keyring, WsProvider } = polkadot();

function polkadot() {
  const directory = process.env.SUPERNODE_NPM_DIR;
  if (!directory) fail('SUPERNODE_NPM_DIR does not say where `npm ci` has installed @polkadot/api');
  return createRequire(join(directory, 'package.json'))('@polkadot/api');
}

function fail(problem) {
  process.stderr.write(`reserve.mjs: ${problem}\n`);
  process.exit(1);
}

async function connect(endpoint, genesis) {
  const provider = new WsProvider(endpoint, false);
  await provider.connect();
  const api = await ApiPromise.create({ provider, throwOnConnect: true });
  if (api.genesisHash.toHex() !== genesis) {
    fail(`${endpoint} is another chain: block 0 is ${api.genesisHash}, wanted ${genesis}`);
  }
  return api;
}

/// Signs, submits, and waits until the block that has it is final: its hash and its events.
function finalised(call, signer) {
  return new Promise((resolve, reject) => {
    call
      .signAndSend(signer, ({ dispatchError, events, status, isError }) => {
        if (dispatchError) reject(new Error(`refused: ${told(call.registry, dispatchError)}`));
        else if (isError) reject(new Error(`not accepted: ${status.type}`));
        else if (status.isFinalized) resolve({ hash: status.asFinalized, events });
      })
      .catch(reject);
  });
}

function told(registry, error) {
  if (!error.isModule) return error.toString();
  const { section, name, docs } = registry.findMetaError(error.asModule);
  return `${section}.${name}: ${docs.join(' ')}`;
}

async function reserve(api, owner, bytes, duration) {
  const { pricePerGibBlock } = await api.query.supernode.parameters();
  const call = api.tx.supernode.reserve(bytes, duration, pricePerGibBlock);
  const { hash, events } = await finalised(call, owner);
  const reserved = events.find(({ event }) => api.events.supernode.Reserved.is(event));
  if (!reserved) fail('the reservation is final and no event tells its number');
  const { deal, owner: payer, bytes: covered, escrow, activatesBy } = reserved.event.data;
  const stored = (await (await api.at(hash)).query.supernode.reservations(deal)).unwrap();
  if (!stored.escrow.eq(escrow)) fail(`event and storage disagree: ${escrow}, ${stored.escrow}`);
  return {
    hash,
    reservation: {
      deal: deal.toNumber(),
      owner: payer.toString(),
      bytes: covered.toNumber(),
      escrow: escrow.toString(),
      activatesBy: activatesBy.toNumber(),
    },
  };
}

const byAudit = (left, right) => left.audit - right.audit;

async function openAudits(at) {
  const entries = await at.query.supernode.openAudits.entries();
  const audits = entries.map(([key, value]) => {
    const [node, audit] = key.args;
    const { deal, stripe, index, openedAt, deadline } = value.unwrap();
    return {
      audit: audit.toNumber(),
      state: 'open',
      node: node.toNumber(),
      deal: deal.toNumber(),
      stripe: stripe.toNumber(),
      index: index.toNumber(),
      opened_at: openedAt.toNumber(),
      block: deadline.toNumber(),
    };
  });
  return audits.sort(byAudit);
}

async function auditResults(at) {
  const entries = await at.query.supernode.auditResults.entries();
  const audits = entries.map(([key, value]) => {
    const { node, deal, stripe, index, passed, openedAt, resolvedAt } = value.unwrap();
    return {
      audit: key.args[0].toNumber(),
      state: passed.isTrue ? 'passed' : 'failed',
      node: node.toNumber(),
      deal: deal.toNumber(),
      stripe: stripe.toNumber(),
      index: index.toNumber(),
      opened_at: openedAt.toNumber(),
      block: resolvedAt.toNumber(),
    };
  });
  return audits.sort(byAudit);
}

async function main([endpoint, genesis, secret, bytes, duration, ...more]) {
  if (!duration || more.length > 0) fail('usage: reserve.mjs ENDPOINT GENESIS SECRET BYTES DURATION');
  const uri = secret.startsWith('//') ? secret : readFileSync(secret, 'utf8').trim();
  const api = await connect(endpoint, genesis);
  const owner = new Keyring({ type: 'sr25519' }).addFromUri(uri);
  const { hash, reservation } = await reserve(api, owner, BigInt(bytes), Number(duration));
  const at = await api.at(hash);
  const document = {
    ...reservation,
    block: (await api.rpc.chain.getHeader(hash)).number.toNumber(),
    openAudits: await openAudits(at),
    auditResults: await auditResults(at),
    warnings,
  };
  await api.disconnect();
  process.stdout.write(`${JSON.stringify(document)}\n`);
}

setTimeout(() => fail(`not done after ${PATIENCE_MS} ms`), PATIENCE_MS).unref();
main(process.argv.slice(2)).catch((error) => fail(error.message));
