"""Reads the segments of a stopped node, by docs/DATA_FORMAT.md and with no code of supernode's.

As a program it prints what it counts: .ci/segments.py DATA_DIR...
"""

import base64
import pathlib
import struct
import sys
from dataclasses import dataclass, field

SEGMENT_HEADER_BYTES = 8192
SEGMENT_VERSIONS = (1, 2)
RECORD_VERSION = 1
RECORD_ALIGN = 64
LARGE_PAYLOAD_BYTES = 64 << 10
PAYLOAD_ALIGN = 4096

# The segment header, of which two blocks of 4096 bytes hold a copy each: magic, version, number,
# tag, node, first sequence, end and number of the predecessor, zeros (in version 2 the place of the
# predecessor's footer, which only repeats what its records say), CRC32C of all that.
SEGMENT_HEADER = struct.Struct("<8sIIQ32sQQI48xI")
# Record header: magic, version, kind, zeros, tag, offset, sequence, running seconds, records not
# known to be durable, lengths of meta, outboard and payload, id, CRC32C of the meta, CRC32C of all.
RECORD_HEADER = struct.Struct("<4sBB2xQQQIIIIQ32sII")

SHARD, SLOT, COMMIT, LEASE, TOMBSTONE, RECLAIM = 1, 2, 5, 7, 8, 10
SHARD_COPY, RESTATE = 12, 14
HOLE_ALIGN = 4096


class BadFormat(Exception):
    """The bytes are not what the format says."""


def crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def round_up(value, unit):
    return -(-value // unit) * unit


class Postcard:
    """Just enough of the postcard encoding."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def number(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def id(self):
        length = self.number()
        self.at += length
        return bytes(self.data[self.at - length : self.at])


@dataclass
class Payload:
    """Where a shard's bytes are."""

    path: pathlib.Path
    offset: int
    length: int

    def read(self):
        with self.path.open("rb") as segment:
            segment.seek(self.offset)
            return segment.read(self.length)

    def blocks(self):
        """The whole disk blocks in it: what becomes a hole when it is given back."""
        start = round_up(self.offset, HOLE_ALIGN)
        end = (self.offset + self.length) // HOLE_ALIGN * HOLE_ALIGN
        return Payload(self.path, start, max(0, end - start))


@dataclass
class Commit:
    upload: bytes
    object: bytes
    group: int
    stripes: range
    lease: bytes


@dataclass
class DataDir:
    """What the log of one node says in the end."""

    shards: dict = field(default_factory=dict)  # shard id -> Payload
    uploads: dict = field(default_factory=dict)  # upload -> {(stripe, index): shard id}
    commits: list = field(default_factory=list)
    ended: set = field(default_factory=set)  # leases that ended
    freed: set = field(default_factory=set)  # (object, group) that are gone
    places: dict = field(default_factory=dict)  # (segment, offset) -> Payload, of every record
    buried: dict = field(default_factory=dict)  # shard id -> Payload of the record that died last
    given_back: set = field(default_factory=set)  # places whose blocks are holes
    gone_through: int = 0  # segments up to this one are not needed

    def holes(self):
        """The file ranges that the log says are holes."""
        places = (self.places[place] for place in self.given_back if place in self.places)
        return [blocks for blocks in (place.blocks() for place in places) if blocks.length]

    def slots(self, cid):
        """(stripe, index) -> Payload, for every slot of the object that a live lease covers."""
        found = {}
        for commit in self.commits:
            gone = commit.lease in self.ended or (commit.object, commit.group) in self.freed
            if commit.object != cid or gone:
                continue
            for (stripe, index), shard in self.uploads.get(commit.upload, {}).items():
                if stripe in commit.stripes:
                    if shard not in self.shards:
                        raise BadFormat(f"slot {stripe}/{index} names a shard that is not there")
                    found[(stripe, index)] = self.shards[shard]
        return found


def cid_hash(text):
    """The 32 bytes in a CIDv1 of dag-cbor and BLAKE3, as the log writes objects."""
    if not text.startswith("b"):
        raise BadFormat(f"{text} is no CID in base32")
    body = text[1:].upper()
    data = base64.b32decode(body + "=" * (-len(body) % 8))
    if data[:4] != bytes([1, 0x71, 0x1E, 0x20]) or len(data) != 36:
        raise BadFormat(f"{text} is no CIDv1 of dag-cbor and BLAKE3")
    return data[4:]


def segment_header(path):
    with path.open("rb") as segment:
        block = segment.read(SEGMENT_HEADER_BYTES)
    for start in (0, 4096):
        copy = block[start : start + SEGMENT_HEADER.size]
        if len(copy) < SEGMENT_HEADER.size or copy[:8] != b"SNSEGMNT":
            continue
        _, version, number, tag, _, _, previous_end, previous, crc = SEGMENT_HEADER.unpack(copy)
        if crc != crc32c(copy[:-4]):
            continue
        if version not in SEGMENT_VERSIONS or f"{number:010}.seg" != path.name:
            raise BadFormat(f"{path}: says it is segment {number} of format {version}")
        return number, tag, previous, previous_end
    return None


def records(path, tag, end):
    """(offset, kind, id, meta, Payload) of every record up to `end`; None is the torn tail."""
    size = path.stat().st_size
    limit = size if end is None else end
    with path.open("rb") as segment:
        at = SEGMENT_HEADER_BYTES
        while at < limit:
            segment.seek(at)
            raw = segment.read(RECORD_HEADER.size)
            if len(raw) < RECORD_HEADER.size or crc32c(raw[:-4]).to_bytes(4, "little") != raw[-4:]:
                if end is None:
                    return
                raise BadFormat(f"{path}: no record at {at}, but the log goes on to {end}")
            magic, version, kind, its_tag, its_offset, *rest = RECORD_HEADER.unpack(raw)
            _sequence, _running, _unsynced, *rest = rest
            meta_len, outboard_len, payload_len, subject, meta_crc, _ = rest
            if (magic, version, its_tag, its_offset) != (b"SNRC", RECORD_VERSION, tag, at):
                raise BadFormat(f"{path}: the record at {at} belongs elsewhere")
            meta = segment.read(meta_len)
            if crc32c(meta) != meta_crc:
                raise BadFormat(f"{path}: the record at {at} has a damaged meta")
            align = PAYLOAD_ALIGN if payload_len >= LARGE_PAYLOAD_BYTES else RECORD_ALIGN
            start = round_up(at + RECORD_HEADER.size + meta_len + outboard_len, align)
            yield at, kind, subject, meta, Payload(path, start, payload_len)
            at = round_up(start + payload_len, RECORD_ALIGN)


def apply(state, place, kind, subject, meta, payload):
    state.places[place] = payload
    reader = Postcard(meta)
    if kind in (SHARD, SLOT):
        upload, _owner = reader.id(), reader.id()
        slot = (reader.number(), reader.number())
        state.uploads.setdefault(upload, {})[slot] = subject
        if kind == SHARD:
            state.shards[subject] = payload
    elif kind == COMMIT:
        upload, cid, group = reader.id(), reader.id(), reader.number()
        if reader.byte():
            reader.id()  # the page of a later group
        first = reader.number()
        stripes = range(first, first + reader.number())
        lease = reader.id()
        state.freed.discard((cid, group))
        state.commits.append(Commit(upload, cid, group, stripes, lease))
    elif kind == LEASE:
        change = reader.number()
        name = reader.id()
        if change in (1, 2):  # released, expired
            state.ended.add(name)
        elif change == 3:  # an upload that was abandoned
            state.uploads.pop(name, None)
    elif kind == TOMBSTONE:
        freed = reader.number()
        if freed == 0 and subject in state.shards:
            state.buried[subject] = state.shards.pop(subject)
        elif freed == 2:
            state.freed.add((subject, reader.number()))
    elif kind == SHARD_COPY:
        state.shards[subject] = payload
    elif kind == RESTATE:
        # Compaction begins with a gibibyte of waste, which no run of these checks leaves.
        raise BadFormat(f"{place} says something again after compaction, which is not read here")
    elif kind == RECLAIM:
        what = reader.number()
        if what == 0:  # holes were made
            count = reader.number()
            places = [(reader.number(), reader.number()) for _ in range(count)]
            state.given_back.update(places)
        elif what == 2:
            state.gone_through = max(state.gone_through, reader.number())


def read_data_dir(directory):
    """Everything that the segments of one data directory say."""
    paths = sorted(pathlib.Path(directory).glob("*.seg"))
    if not paths:
        raise BadFormat(f"{directory} has no segments")
    headers = [(path, segment_header(path)) for path in paths]
    if headers[-1][1] is None:
        headers.pop()  # created and never written
    for path, header in headers:
        if header is None:
            raise BadFormat(f"{path} has no whole header")
    ends = {previous: end for _, (_, _, previous, end) in headers}
    state = DataDir()
    for path, (number, tag, _, _) in headers:
        for at, *record in records(path, tag, ends.get(number)):
            apply(state, (number, at), *record)
    return state


def main():
    for directory in sys.argv[1:]:
        state = read_data_dir(directory)
        holes = state.holes()
        print(f"{directory}: {len(state.shards)} shards, {len(state.commits)} commits")
        print(f"  {len(holes)} holes, {sum(hole.length for hole in holes)} bytes given back")
        for cid in sorted({commit.object for commit in state.commits}):
            print(f"  object {cid.hex()}: {len(state.slots(cid))} slots")


if __name__ == "__main__":
    main()
