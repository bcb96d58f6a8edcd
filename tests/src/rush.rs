// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients at one node: each with a connection, a key and an address prefix of its own, so
//! many of them active at a time, storing, reading and reading parts of what others stored.
//!
//! Every byte read is held against what was written, whatever the client says of it; a busy answer
//! is waited for as told; any other refusal is a fault. Afterwards the node must have all of its
//! permits back, no connection, and by the ledger nothing lost.

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use supernode_client::{ClientError, Keypair, Peer};
use supernode_protocol::ids::ShardId;
use supernode_protocol::wire::ErrorCode;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::eventually::{before, pass};
use crate::http;
use crate::ledger::{self, Ledger, Owed};
use crate::load::{Door, Object, Recipe};
use crate::lone::{Lone, Running};
use crate::process::resident_bytes;
use crate::program::Program;
use crate::random::Seeded;
use crate::segments::{Hash, Log};
use crate::verdict::judge;

/// Small segments that are compacted early: bytes are given back all the time. Who waits for its
/// turn to be active stays connected.
const SETTINGS: [&str; 6] = [
    "relay.transport.idle_timeout_secs=3600",
    // All that write are one client.
    "relay.connections_per_client_max=1024",
    "storage.segment_bytes_max=64MiB",
    "storage.compact_waste_percent=10",
    "storage.trash_secs=0",
    "storage.reserve_bytes=0",
];
/// One client in so many writes, too; the others are strangers.
const WRITERS_ONE_IN: usize = 8;
/// Objects that a writer keeps; then its oldest goes.
const KEPT: usize = 3;
/// Handshakes at a time: a crowd that comes on one day does not come in one moment.
const DIALS: usize = 32;
/// How long the node may take to notice that everybody has left.
const EMPTY_PATIENCE: Duration = Duration::from_secs(60);
/// What a node of these settings may have in memory: bodies in flight (256 MiB), buffers of puts
/// and idle ones (80), the cache (64), pieces of reads (64), the index (64), the program (112).
const RESIDENT_BYTES_MAX: u64 = 640 << 20;
/// The same for each connection.
const CONNECTION_BYTES_MAX: u64 = 256 << 10;
/// Memory is flat when its last quarter is at most so much above the quarter before, in percent.
const GROWTH_PERCENT_MAX: u64 = 15;

/// How many, how long, what.
#[derive(Debug, Clone)]
pub struct Rush {
    /// Clients, each with a connection of its own.
    pub connections: usize,
    /// Those of them that do something at a time.
    pub active: usize,
    /// For how long.
    pub time: Duration,
    /// Between two looks at the node.
    pub look_every: Duration,
    /// Decides what is stored, and what is read when.
    pub seed: u64,
}

/// What was done so far.
#[derive(Debug, Default)]
struct Done {
    puts: AtomicU64,
    gets: AtomicU64,
    ranges: AtomicU64,
    bytes: AtomicU64,
    busy: AtomicU64,
}

/// What all clients share.
struct Hall {
    rush: Rush,
    recipe: Recipe,
    until: Instant,
    active: Semaphore,
    numbers: AtomicU64,
    /// What there is to read.
    shelf: Mutex<Vec<(ShardId, Bytes)>>,
    done: Done,
}

impl Rush {
    /// Starts a node in `dir`, lets everybody in, looks, lets everybody out, and judges. Writes a
    /// line for each look.
    ///
    /// # Errors
    /// The first fault.
    pub fn run(
        &self,
        program: &str,
        dir: &Path,
        out: &mut impl Write,
    ) -> Result<(), Box<dyn Error>> {
        let program = Program::new(program, &dir.join("home"));
        let node = Lone::init(&program, &dir.join("node"), &SETTINGS);
        let mut process = node.start(&[], &[]);
        let peer = process.up().ok_or("the node does not start")?;
        let permits = figure(&process, "supernode_relay_free_permits")?;
        let path = dir.join("ledger");
        let ledger = Arc::new(Ledger::open(&path));
        writeln!(
            out,
            "seed {}, {} connections, {} active",
            self.seed, self.connections, self.active
        )?;
        writeln!(out, "seconds resident_bytes connections puts gets ranges bytes busy")?;
        let runtime = Runtime::new()?;
        let resident = runtime.block_on(async {
            let doors = self.doors(&peer, &node.writer, &ledger).await?;
            let resident = self.attend(&doors, &process, out).await?;
            for door in &doors {
                door.close().await;
            }
            Ok::<_, Box<dyn Error>>(resident)
        })?;
        expect_empty(&process, permits)?;
        let owed = Owed::of(&ledger::read(&path));
        let shards: Vec<Hash> = owed.shards.keys().copied().collect();
        let faults = runtime.block_on(async {
            let door = Door::new(&peer, &node.writer, &ledger);
            let mut faults = door.read_shards(&owed, &shards).await;
            faults.extend(door.read_pins(&owed).await);
            door.close().await;
            faults
        });
        process.stop();
        let verdict = judge(&ledger::read(&path), &Log::read(node.dir())?)?;
        let (lost, wrong) = (verdict.lost.len(), verdict.wrong.len());
        writeln!(out, "{lost} lost, {wrong} wrong, {} faults", faults.len())?;
        if !faults.is_empty() || !verdict.is_clean() {
            return Err(format!("{faults:#?} {verdict:#?}").into());
        }
        expect_bounded(&resident, self.connections, out)?;
        expect_flat(&resident, out)
    }

    /// One connected client for each connection.
    async fn doors(
        &self,
        peer: &Peer,
        writer: &Keypair,
        ledger: &Arc<Ledger>,
    ) -> Result<Vec<Door>, ClientError> {
        let mut doors = Vec::new();
        for number in 0..self.connections {
            let key = match number % WRITERS_ONE_IN {
                0 => writer.clone(),
                _ => Keypair::generate_ed25519(),
            };
            doors.push(Door::with(peer, &key, ledger, |config| {
                config.bind = prefix(number);
                config.connect_timeout = Duration::from_secs(20);
                config.request_timeout = Duration::from_secs(60);
                // It stays although others are active.
                config.idle_timeout = Duration::from_secs(3600);
            }));
        }
        for some in doors.chunks(DIALS) {
            let mut dials = JoinSet::new();
            for door in some {
                let door = door.clone();
                dials.spawn(async move { door.knock().await });
            }
            while let Some(outcome) = dials.join_next().await {
                outcome.expect("a dial does not panic")?;
            }
        }
        Ok(doors)
    }

    /// Has everybody do what they came for. Gives the node's memory at each look.
    async fn attend(
        &self,
        doors: &[Door],
        process: &Running,
        out: &mut impl Write,
    ) -> Result<Vec<u64>, Box<dyn Error>> {
        let hall = Arc::new(Hall {
            rush: self.clone(),
            recipe: Recipe { seed: self.seed, shard_bytes: 4096..=8 << 20, is_sharing: false },
            until: Instant::now() + self.time,
            active: Semaphore::new(self.active),
            numbers: AtomicU64::new(0),
            shelf: Mutex::default(),
            done: Done::default(),
        });
        let mut guests = JoinSet::new();
        for (number, door) in doors.iter().cloned().enumerate() {
            guests.spawn(Arc::clone(&hall).attend(number, door));
        }
        let mut looks = interval(self.look_every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun = Instant::now();
        let mut resident = Vec::new();
        loop {
            tokio::select! {
                ended = guests.join_next() => match ended {
                    Some(ended) => ended??,
                    None => break,
                },
                _ = looks.tick() => {
                    let bytes = resident_bytes(process.pid()).ok_or("the node has ended")?;
                    resident.push(bytes);
                    let connections = figure(process, "supernode_relay_connections")?;
                    let (seconds, done) = (begun.elapsed().as_secs(), hall.done.line());
                    writeln!(out, "{seconds} {bytes} {connections} {done}")?;
                }
            }
        }
        let Done { puts, gets, ranges, .. } = &hall.done;
        if [puts, gets, ranges].iter().any(|count| count.load(Relaxed) == 0) {
            return Err(format!("too little was done: {}", hall.done.line()).into());
        }
        writeln!(out, "{}", hall.done.line())?;
        Ok(resident)
    }
}

impl Done {
    fn line(&self) -> String {
        let Self { puts, gets, ranges, bytes, busy } = self;
        let counts = [puts, gets, ranges, bytes, busy].map(|count| count.load(Relaxed).to_string());
        counts.join(" ")
    }
}

impl Hall {
    async fn attend(self: Arc<Self>, number: usize, door: Door) -> Result<(), String> {
        let mut random = Seeded::with(self.rush.seed ^ (number as u64 + 1) << 32);
        let is_writer = number.is_multiple_of(WRITERS_ONE_IN);
        let mut held = VecDeque::new();
        while Instant::now() < self.until {
            let _place = self.active.acquire().await.expect("never closed");
            match random.below(if is_writer { 4 } else { 2 }) {
                0 => self.read(&door, &mut random, false).await?,
                1 => self.read(&door, &mut random, true).await?,
                _ => self.store(&door, &mut held).await?,
            }
        }
        Ok(())
    }

    /// Stores another object, and has the oldest one go when there are enough.
    async fn store(&self, door: &Door, held: &mut VecDeque<Object>) -> Result<(), String> {
        let object = self.recipe.object(self.numbers.fetch_add(1, Relaxed));
        self.patiently(|| door.store(&object)).await.map_err(|error| error.to_string())?;
        self.done.puts.fetch_add(1, Relaxed);
        let bytes: usize = object.shards().iter().map(|(_, bytes)| bytes.len()).sum();
        self.done.bytes.fetch_add(bytes as u64, Relaxed);
        self.shelf().extend(object.shards().iter().cloned());
        held.push_back(object);
        if held.len() > KEPT
            && let Some(oldest) = held.pop_front()
        {
            // Nobody may ask for it any more before it goes.
            self.shelf().retain(|(id, _)| !oldest.shards().iter().any(|(gone, _)| gone == id));
            let released = self.patiently(|| door.release(oldest.name)).await;
            if !released.map_err(|error| error.to_string())? {
                return Err("an object that was stored is not there to be released".to_owned());
            }
        }
        Ok(())
    }

    /// Reads something from the shelf, or a part of it.
    async fn read(&self, door: &Door, random: &mut Seeded, in_part: bool) -> Result<(), String> {
        let Some((id, bytes)) = self.pick(random) else {
            // Writers have yet to begin.
            tokio::task::yield_now().await;
            return Ok(());
        };
        let len = bytes.len() as u64;
        let range = in_part.then(|| {
            let start = random.below(len);
            start..start + 1 + random.below(len - start)
        });
        let read = self.patiently(|| door.read(id, len, range.clone())).await;
        let due = match range {
            None => bytes,
            Some(Range { start, end }) => bytes.slice(position(start)..position(end)),
        };
        match read {
            Ok(got) if got == due => {}
            Ok(_) => return Err(format!("shard {id} came back with other bytes")),
            Err(error) if error.code() == Some(ErrorCode::NotFound) && !self.is_there(id) => {}
            Err(error) => return Err(format!("shard {id}: {error}")),
        }
        let count = if in_part { &self.done.ranges } else { &self.done.gets };
        count.fetch_add(1, Relaxed);
        self.done.bytes.fetch_add(due.len() as u64, Relaxed);
        Ok(())
    }

    /// Asks again when a busy node wants to be asked again.
    async fn patiently<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        loop {
            match ask().await {
                Err(error) if error.code() == Some(ErrorCode::Busy) => {
                    self.done.busy.fetch_add(1, Relaxed);
                    pass(error.retry_after().unwrap_or_default()).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn pick(&self, random: &mut Seeded) -> Option<(ShardId, Bytes)> {
        let shelf = self.shelf();
        let at = (!shelf.is_empty()).then(|| random.index(shelf.len()))?;
        shelf.get(at).cloned()
    }

    fn is_there(&self, id: ShardId) -> bool {
        self.shelf().iter().any(|(each, _)| *each == id)
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Vec<(ShardId, Bytes)>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn position(at: u64) -> usize {
    usize::try_from(at).expect("in memory")
}

/// The first address of a /24 of loopback that no other client has.
fn prefix(number: usize) -> SocketAddr {
    let number = u16::try_from(number).expect("loopback has prefixes for as many");
    let [high, low] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 16 + high, low, 1), 0))
}

fn figure(process: &Running, name: &str) -> Result<u64, Box<dyn Error>> {
    let page = http::metrics(process.http())?;
    let text = page.value(name).ok_or_else(|| format!("the node does not say {name}"))?;
    Ok(text.parse()?)
}

/// Everybody has left, and nothing that they held is missing.
fn expect_empty(process: &Running, permits: u64) -> Result<(), Box<dyn Error>> {
    let names = [
        "supernode_relay_inflight_requests",
        "supernode_relay_connections",
        "supernode_relay_free_permits",
    ];
    let figures = || names.map(|name| figure(process, name).unwrap_or(u64::MAX));
    let is_empty = before(EMPTY_PATIENCE, || (figures() == [0, 0, permits]).then_some(()));
    is_empty.ok_or_else(|| format!("{names:?} are {:?}, of {permits} permits", figures()).into())
}

/// Holds memory at its largest against what all that the node bounds may take together.
fn expect_bounded(
    resident: &[u64],
    connections: usize,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let most = resident.iter().copied().max().unwrap_or(u64::MAX);
    let bound = RESIDENT_BYTES_MAX + connections as u64 * CONNECTION_BYTES_MAX;
    writeln!(out, "resident bytes: at most {most}, of {bound}")?;
    if most > bound { Err(format!("{most} bytes resident, of {bound}").into()) } else { Ok(()) }
}

/// Compares the last quarter with the one before it: by then caches are full.
fn expect_flat(resident: &[u64], out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let quarter = resident.len() / 4;
    if quarter == 0 {
        return Err("too short to say whether memory grows".into());
    }
    let mean = |looks: &[u64]| looks.iter().sum::<u64>() / looks.len() as u64;
    let last = resident.len() - quarter;
    let (then, now) = (mean(&resident[last - quarter..last]), mean(&resident[last..]));
    writeln!(out, "resident bytes: {then} in the third quarter, {now} in the last")?;
    if now * 100 > then * (100 + GROWTH_PERCENT_MAX) {
        return Err(format!("memory grows: {then} bytes, then {now}").into());
    }
    Ok(())
}
