"""Reads deals from a chain's storage by plain JSON-RPC, with no code of supernode's.

As a program it prints one deal: .ci/ledger.py ENDPOINT DEAL
"""

import json
import struct
import sys
import urllib.request
from dataclasses import dataclass

MASK = (1 << 64) - 1
PRIMES = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
TIMEOUT_SECONDS = 10

# A deal in SCALE, up to its escrow: owner, object, root over the shards, data shards, width,
# stripes, groups, bytes, price, its block and what had accrued then, first block, end, escrow.
DEAL = struct.Struct("<32s32s32sHHIIQ16sI16sII16s")


def rotated(value, bits):
    return (value << bits | value >> 64 - bits) & MASK


def mixed(lane, word):
    return rotated(lane + word * PRIMES[1] & MASK, 31) * PRIMES[0] & MASK


def xxh64(data, seed):
    one, two, three, four, five = PRIMES
    at = 0
    if len(data) >= 32:
        lanes = [seed + one + two, seed + two, seed, seed - one]
        for at in range(0, len(data) - 31, 32):
            words = struct.unpack_from("<4Q", data, at)
            lanes = [mixed(lane & MASK, word) for lane, word in zip(lanes, words)]
        at += 32
        value = sum(rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & MASK
        for lane in lanes:
            value = ((value ^ mixed(0, lane)) * one + four) & MASK
    else:
        value = seed + five & MASK
    value = value + len(data) & MASK
    while at + 8 <= len(data):
        value ^= mixed(0, struct.unpack_from("<Q", data, at)[0])
        value = (rotated(value, 27) * one + four) & MASK
        at += 8
    if at + 4 <= len(data):
        value ^= struct.unpack_from("<I", data, at)[0] * one & MASK
        value = (rotated(value, 23) * two + three) & MASK
        at += 4
    for byte in data[at:]:
        value = rotated(value ^ byte * five & MASK, 11) * one & MASK
    value = (value ^ value >> 33) * two & MASK
    value = (value ^ value >> 29) * three & MASK
    return value ^ value >> 32


def twox(data, bits):
    """The hasher of that many bits that names storage in FRAME."""
    return b"".join(struct.pack("<Q", xxh64(data, seed)) for seed in range(bits // 64))


def ask(endpoint, method, *parameters):
    """One answer of the chain, over HTTP on the port where it speaks WebSocket too."""
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    request = urllib.request.Request(
        endpoint.replace("ws://", "http://", 1),
        json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        return json.load(response)["result"]


@dataclass
class Deal:
    """What is compared of a deal."""

    object: bytes
    data: int
    width: int
    stripes: int
    groups: int
    bytes: int
    activated_at: int
    expires_at: int
    escrow: int


def deal(endpoint, number):
    """The deal of that number, or None."""
    name = struct.pack("<Q", number)
    key = twox(b"Supernode", 128) + twox(b"Deals", 128) + twox(name, 64) + name
    value = ask(endpoint, "state_getStorage", "0x" + key.hex())
    if value is None:
        return None
    fields = DEAL.unpack_from(bytes.fromhex(value.removeprefix("0x")))
    _, about, _, data, width, stripes, groups, size, _, _, _, begun, end, escrow = fields
    escrow = int.from_bytes(escrow, "little")
    return Deal(about, data, width, stripes, groups, size, begun, end, escrow)


if __name__ == "__main__":
    print(deal(sys.argv[1], int(sys.argv[2])))
