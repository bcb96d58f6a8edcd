// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store on a simulated disk beside its model: every action is done to both, every outcome and
//! every state compared. Restarts come in all flavours.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use supernode_protocol::ids::{Cid, LeaseId, ShardId, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;

use super::model::{Fact, Model, Numbered};
use super::{CommitFacts, Done, Op, ReclaimJob, Reclaimed, Writer, WriterParts};
use crate::buffer::FilledShard;
use crate::catalog::{
    Catalog, DealLease, KvRead, Thing, apply, cached_upload, check, dump_lines, keys, thing_of,
    visit,
};
use crate::config::StoreConfig;
use crate::disk::{Disk, Fault, SimDisk};
use crate::error::StoreError;
use crate::index::{Index, MapKv, Mark, MemoryIndex, OpenFailure};
use crate::metrics::Counters;
use crate::reader::{Reader, Way};
use crate::record::{Kind, Position, Span};
use crate::recovery::{IndexSource, Layout, Recovery, entry_of, replay};
use crate::sample::{Client, Object, Recipe, Terms, object};
use crate::segment::{FooterPlace, FoundRecord, Segments, file_name};

/// The object whose shards have whole disk blocks inside.
pub const LARGE: usize = 3;
/// Deals end below this height: few enough for some to end at the same.
pub const HEIGHT_MAX: u64 = 40;

/// Who and what there is.
pub struct World {
    pub clients: Vec<Client>,
    pub objects: Vec<Object>,
}

/// Something a client does; numbers are positions in the world.
#[derive(Debug, Clone)]
pub enum Action {
    PutShard { client: usize, upload: UploadId, object: usize, group: usize, shard: usize },
    PutBlock { client: usize, upload: UploadId, object: usize, group: usize },
    Commit { client: usize, object: usize, group: usize, terms: Terms },
    Place { client: usize, object: usize, group: usize, epoch: u64 },
    KeepSpan { object: usize, group: u32, len: usize },
    Renew { client: usize, lease: LeaseId, secs: u64 },
    Release { client: usize, lease: LeaseId },
    MoveDeal { lease: LeaseId, height: u64 },
    EndDeal { lease: LeaseId },
}

impl World {
    /// Two clients; objects with several groups, with equal shards, one of zeros, a larger one.
    pub fn new() -> Self {
        let small = Recipe::small(1);
        let zeros = Recipe { zeros: true, widths: (10, 4), ..Recipe::small(4) };
        // Large enough to have whole disk blocks inside its shards.
        let large = Recipe { stripe_bytes: 20_000, ..Recipe::small(5) };
        let recipes = [small, Recipe { group_count: 2, ..Recipe::small(2) }, zeros, large];
        Self {
            clients: vec![Client::new(1), Client::new(2)],
            objects: recipes.into_iter().map(object).collect(),
        }
    }

    /// The manifest block that a group needs: its page, or the root.
    pub fn block(&self, object: usize, group: usize) -> (Cid, Bytes) {
        let object = &self.objects[object];
        let page = object.groups[group].page.clone();
        page.unwrap_or_else(|| (object.cid, object.root.clone()))
    }

    pub fn commit(&self, client: usize, object: usize, group: usize, terms: Terms) -> Commit {
        let group = u32::try_from(group).expect("few groups");
        self.objects[object].commit(&self.clients[client], group, terms)
    }

    pub fn placement(
        &self,
        client: usize,
        object: usize,
        group: usize,
        epoch: u64,
    ) -> Signed<PlacementRecord> {
        let group = u32::try_from(group).expect("few groups");
        self.objects[object].placement(&self.clients[client], group, epoch)
    }

    fn op(&self, action: &Action) -> Op {
        match *action {
            Action::PutShard { client, upload, object, group, shard } => {
                let (slot, id, bytes) = &self.objects[object].groups[group].shards[shard];
                Op::PutShard {
                    caller: self.clients[client].id,
                    upload,
                    slot: *slot,
                    shard: *id,
                    filled: FilledShard::of(bytes),
                    seen_at: None,
                }
            }
            Action::PutBlock { client, upload, object, group } => {
                let (cid, bytes) = self.block(object, group);
                let caller = self.clients[client].id;
                Op::PutBlock { caller, upload, cid, bytes, seen_at: None }
            }
            Action::Commit { client, object, group, terms } => Op::Commit {
                caller: self.clients[client].id,
                commit: Box::new(self.commit(client, object, group, terms)),
                facts: self.facts(object, group),
            },
            Action::Place { client, object, group, epoch } => {
                Op::Place { record: Box::new(self.placement(client, object, group, epoch)) }
            }
            Action::KeepSpan { object, group, len } => Op::KeepSpan {
                object: self.objects[object].cid,
                span: Span { group, bytes: vec![7; len] },
            },
            Action::Renew { client, lease, secs } => Op::Renew {
                caller: self.clients[client].id,
                lease,
                expiry: Expiry::RunningSeconds(secs),
            },
            Action::Release { client, lease } => {
                Op::Release { caller: self.clients[client].id, lease }
            }
            Action::MoveDeal { lease, height } => Op::MoveDeal { lease, height },
            Action::EndDeal { lease } => Op::EndDeal { lease },
        }
    }

    fn facts(&self, object: usize, group: usize) -> CommitFacts {
        let object = &self.objects[object];
        let shards = object.groups[group].shards.iter();
        CommitFacts {
            object_bytes: object.size,
            shards: shards.map(|(slot, id, bytes)| (*slot, (*id, bytes.len() as u64))).collect(),
        }
    }

    /// All it takes to put a group and commit it.
    pub fn whole_group(
        &self,
        client: usize,
        object: usize,
        group: usize,
        terms: Terms,
    ) -> Vec<Action> {
        let upload = terms.upload;
        let shards = 0..self.objects[object].groups[group].shards.len();
        let mut actions: Vec<_> =
            shards.map(|shard| Action::PutShard { client, upload, object, group, shard }).collect();
        actions.push(Action::PutBlock { client, upload, object, group: 0 });
        actions.push(Action::PutBlock { client, upload, object, group });
        actions.push(Action::Commit { client, object, group, terms });
        actions
    }

    /// The upload under which the node would cache a shard.
    fn cached(&self, object: usize, group: usize, shard: usize) -> UploadId {
        cached_upload(self.objects[object].groups[group].shards[shard].1)
    }

    /// Anything, sensible or not.
    pub fn random(&self, random: &mut ChaCha8Rng) -> Vec<Action> {
        let client = random.random_range(0..self.clients.len());
        let object = random.random_range(0..self.objects.len());
        let group = random.random_range(0..self.objects[object].groups.len());
        let height = random.random_range(1..HEIGHT_MAX);
        // Mostly a deal of this object; some ids are asked for as both kinds.
        let deal = if random.random_bool(0.8) { object } else { random.random_range(0..4) };
        let deal = LeaseId::from_bytes([14 + u8::try_from(deal).expect("few objects"); 16]);
        let (kind, expiry, lease) = if random.random_bool(0.4) {
            (LeaseKind::Deal, Expiry::FinalisedHeight(height), deal)
        } else {
            let secs = random.random_range(1..400);
            let lease = LeaseId::from_bytes([random.random_range(11..15); 16]);
            (LeaseKind::Pin, Expiry::RunningSeconds(secs), lease)
        };
        let epoch = random.random_range(0..3);
        let upload = UploadId::from_bytes([random.random_range(1..4); 16]);
        let terms = Terms { upload, lease, expiry, kind, epoch };
        // Not the large ones, whose holes are looked for.
        let caches = object != LARGE && upload == UploadId::from_bytes([3; 16]);
        let released = if caches { self.cached(object, group, 0) } else { upload };
        let any =
            if random.random_bool(0.2) { LeaseId::from_bytes(*released.as_bytes()) } else { lease };
        match random.random_range(0..16) {
            0..3 => self.whole_group(client, object, group, terms),
            3..6 => {
                let shards = self.objects[object].groups[group].shards.len();
                let shard = random.random_range(0..shards);
                let upload = if caches { self.cached(object, group, shard) } else { upload };
                vec![Action::PutShard { client, upload, object, group, shard }]
            }
            6 => vec![Action::PutBlock { client, upload, object, group }],
            7 => vec![Action::Commit { client, object, group, terms }],
            8 => vec![Action::Place { client, object, group, epoch: terms.epoch }],
            9 => {
                let group = u32::try_from(group).expect("few groups");
                vec![Action::KeepSpan { object, group, len: random.random_range(0..3000) }]
            }
            10 => vec![Action::Renew { client, lease, secs: random.random_range(1..400) }],
            11..13 => vec![Action::MoveDeal { lease: deal, height }],
            13 => vec![Action::EndDeal { lease: deal }],
            _ => vec![Action::Release { client, lease: any }],
        }
    }
}

/// What becomes of the index when a store goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexFate {
    Kept,
    Lost,
    /// It is the one of the last restart.
    Older,
}

struct MemorySource(Mutex<Arc<MemoryIndex>>);

impl IndexSource for MemorySource {
    fn open(&self) -> Result<Arc<dyn Index>, OpenFailure> {
        let index: Arc<dyn Index> = Arc::clone(&*self.0.lock()) as Arc<dyn Index>;
        Ok(index)
    }

    fn discard(&self) -> std::io::Result<()> {
        *self.0.lock() = Arc::default();
        Ok(())
    }
}

type Outcome = Arc<Mutex<Option<Result<Done, StoreError>>>>;

/// See the module.
pub struct Lab {
    pub world: World,
    pub model: Model,
    pub disk: SimDisk,
    pub config: StoreConfig,
    pub writer: Writer,
    pub reader: Arc<Reader>,
    index: Arc<MemoryIndex>,
    index_at_boot: Arc<MemoryIndex>,
    /// A slice whose outcome the writer has not heard of yet.
    outstanding: Option<Reclaimed>,
    /// Footers that the last start read.
    pub footers: u64,
    /// Footers were damaged on purpose.
    pub rotten_footers: bool,
    /// Holes made and segments removed so far.
    pub punched: usize,
    pub unlinked: usize,
    /// Slices that compaction read.
    pub gathered: usize,
    seed: u64,
}

pub fn config() -> StoreConfig {
    StoreConfig {
        // The first client is the node itself, which may cache.
        node: Client::new(1).id,
        capacity_bytes: 1 << 30,
        reserve_bytes: 0,
        segment_bytes_max: 24 << 10,
        trash_secs: 100,
        upload_idle_secs: 200,
        ..StoreConfig::default()
    }
}

/// What a start gives.
struct Booted {
    writer: Writer,
    reader: Arc<Reader>,
    index: Arc<MemoryIndex>,
    footers: u64,
}

fn boot(
    disk: &SimDisk,
    index: &Arc<MemoryIndex>,
    config: &StoreConfig,
) -> Result<Booted, StoreError> {
    let source = MemorySource(Mutex::new(Arc::clone(index)));
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let relaxed = config.acknowledges_early();
    let recovered = Recovery { disk, node: Some(config.node), index: &source, relaxed }.run()?;
    let counters = Arc::new(Counters::default());
    let (segments, overlay) = (Arc::clone(&recovered.segments), Arc::clone(&recovered.overlay));
    let reader = Arc::new(Reader::new(segments, overlay, Arc::clone(&counters)));
    let parts = WriterParts {
        config: config.clone(),
        reader: Arc::clone(&reader),
        counters,
        on_event: Box::new(drop),
    };
    let writer = Writer::new(parts, &recovered)?;
    let (index, footers) = (source.0.into_inner(), recovered.replayed.footers);
    Ok(Booted { writer, reader, index, footers })
}

fn read_log(disk: &SimDisk, mut visit: impl FnMut(FoundRecord)) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let layout = Layout::read(&Segments::new(disk)).expect("readable headers").without_footers();
    replay(&layout, Mark::default(), |found, _| {
        visit(found);
        Ok(())
    })
    .expect("a readable log");
}

impl Lab {
    pub fn new(seed: u64) -> Self {
        Self::with_config(seed, config())
    }

    pub fn with_config(seed: u64, config: StoreConfig) -> Self {
        let disk = SimDisk::new(seed);
        let booted = boot(&disk, &Arc::default(), &config).expect("an empty disk");
        let Booted { writer, reader, index, .. } = booted;
        Self {
            world: World::new(),
            model: Model::new(),
            disk,
            config,
            writer,
            reader,
            index_at_boot: Arc::new(index.snapshot()),
            index,
            outstanding: None,
            footers: 0,
            rotten_footers: false,
            punched: 0,
            unlinked: 0,
            gathered: 0,
            seed,
        }
    }

    /// Gives freed bytes back, step by step: a slice is run in one and noted in the next, whatever
    /// comes between them.
    pub fn reclaim(&mut self, steps: u32) {
        self.writer.advance(self.model.now);
        let before = self.segment_files();
        for _ in 0..steps {
            let outcome = match self.outstanding.take() {
                Some(done) => self.writer.reclaimed(done),
                None => self.writer.reclaim().map(|job| {
                    self.punched += usize::from(matches!(job, Some(ReclaimJob::Punch(_))));
                    let is_gather = matches!(job, Some(ReclaimJob::Gather { .. }));
                    self.gathered += usize::from(is_gather);
                    self.outstanding = job.map(|job| job.run(&self.reader));
                }),
            };
            if self.disk.is_off() {
                break;
            }
            outcome.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        }
        self.unlinked += before.saturating_sub(self.segment_files());
        self.follow();
        if !self.disk.is_off() {
            self.compare_live();
        }
    }

    /// Asks for all that is older than now to be written anew; it is done by [`Self::reclaim`].
    pub fn compact(&mut self) {
        self.writer.advance(self.model.now);
        let outcome = self.writer.compact();
        if !self.disk.is_off() {
            outcome.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        }
        self.follow();
    }

    /// The writer wrote of its own accord.
    fn follow(&mut self) {
        let mark = self.writer.mark;
        self.model.follow(mark.sequence + 1, mark.running_secs);
    }

    pub fn segment_files(&self) -> usize {
        self.reader.segments().numbers().expect("a directory in memory").len()
    }

    /// Does a batch to store and model; with the power cut somewhere, the store is down afterwards
    /// and must be restarted.
    pub fn run(&mut self, actions: &[Action]) {
        let mut ahead = self.model.clone();
        let mut planned = Vec::new();
        for action in actions {
            let fact = ahead.plan(&self.world, action).map(|fact| ahead.number(fact));
            fact.iter().for_each(|fact| ahead.apply(fact));
            planned.push(fact);
        }
        let outcomes = self.perform(actions);
        if self.disk.is_off() {
            self.model.sequence_next = self.reconcile(&planned, &outcomes);
            return;
        }
        for ((action, fact), outcome) in actions.iter().zip(&planned).zip(&outcomes) {
            let outcome = outcome.lock().take().expect("every operation is answered");
            let sequence = outcome.as_ref().ok().map(|done| done.ack.sequence);
            let expected = fact.as_ref().map(|fact| fact.sequence);
            assert_eq!(sequence, expected, "seed {}: {action:?}: {outcome:?}", self.seed);
        }
        self.model = ahead;
    }

    /// Does a batch to the store alone.
    pub fn perform(&mut self, actions: &[Action]) -> Vec<Outcome> {
        let outcomes: Vec<Outcome> = actions.iter().map(|_| Outcome::default()).collect();
        let batch: Vec<(Op, super::Answer)> = actions
            .iter()
            .zip(&outcomes)
            .map(|(action, outcome)| (self.world.op(action), self.answer_into(outcome)))
            .collect();
        self.writer.advance(self.model.now);
        self.writer.run(batch);
        outcomes
    }

    /// Takes an answer; who is told that something is on disk finds it there at that moment.
    fn answer_into(&self, outcome: &Outcome) -> super::Answer {
        let (outcome, reader) = (Arc::clone(outcome), Arc::clone(&self.reader));
        let (waits, seed) = (!self.config.acknowledges_early(), self.seed);
        Box::new(move |result| {
            let acked = result.as_ref().map_or(0, |done| done.ack.sequence);
            let published = reader.overlay().mark().expect("a sound index").sequence;
            assert!(!waits || acked <= published, "seed {seed}: {acked} is answered, and not seen");
            *outcome.lock() = Some(result);
        })
    }

    /// Lets time pass, and what is due happen.
    pub fn tick(&mut self, secs: u64) {
        self.model.now += secs;
        let mut ahead = self.model.clone();
        let due = ahead.due(self.config.upload_idle_secs, self.config.trash_secs);
        let due: Vec<_> = due.into_iter().map(|fact| ahead.number(fact)).collect();
        due.iter().for_each(|fact| ahead.apply(fact));
        self.writer.advance(self.model.now);
        let outcome = self.writer.tick();
        if self.disk.is_off() {
            let planned: Vec<_> = due.into_iter().map(Some).collect();
            self.model.sequence_next = self.reconcile(&planned, &[]);
        } else {
            outcome.expect("index and disk are sound");
            self.model = ahead;
        }
    }

    /// The store is down. Notes what must and what may have survived; the restart decides.
    fn reconcile(&mut self, planned: &[Option<Numbered>], outcomes: &[Outcome]) -> u64 {
        for (fact, outcome) in planned.iter().zip(outcomes) {
            let acked = outcome.lock().as_ref().is_some_and(Result::is_ok);
            if acked {
                self.model.apply(fact.as_ref().expect("refused by the model, acked by the store"));
            }
        }
        self.model.maybe = planned.iter().flatten().cloned().collect();
        self.model.sequence_next
    }

    /// Restarts after a crash of the machine (or only of the process), and compares everything.
    pub fn restart(&mut self, power_cut: bool, fate: IndexFate) {
        self.disk = if power_cut {
            self.disk.crash()
        } else {
            self.disk.heal();
            self.disk.clone()
        };
        self.index = match fate {
            IndexFate::Kept => Arc::new(self.index.snapshot()),
            IndexFate::Lost => Arc::default(),
            IndexFate::Older => Arc::new(self.index_at_boot.snapshot()),
        };
        self.outstanding = None;
        self.adopt_survivors();
        self.boot();
        self.model.now = self.model.recorded.max(self.writer.now());
        assert_eq!(self.writer.now(), self.model.recorded, "seed {}: time", self.seed);
        assert!(self.writer.reclaiming.is_whole, "seed {}: a crash is no damage", self.seed);
        self.check_footers();
        self.compare();
    }

    /// A footer that is stated is whole, and says what the records say.
    pub fn check_footers(&self) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let layout = Layout::read(&Segments::new(disk)).expect("readable headers");
        let footers = layout.check_footers().expect("a readable log");
        let is_sound = self.rotten_footers || footers.damaged.is_empty();
        assert!(is_sound, "seed {}: a footer was stated and is not whole: {footers:?}", self.seed);
    }

    /// Restarts after a power cut; the model knows nothing of what was done.
    pub fn restart_without_model(&mut self) {
        self.disk = self.disk.crash();
        self.index = Arc::default();
        self.outstanding = None;
        self.boot();
    }

    /// Restarts on a disk that lacks what the model knows of.
    pub fn restart_damaged(&mut self, fate: IndexFate) {
        self.writer.close().expect("a sound disk");
        if fate == IndexFate::Lost {
            self.index = Arc::default();
        }
        self.outstanding = None;
        self.boot();
    }

    fn boot(&mut self) {
        let booted = boot(&self.disk, &self.index, &self.config);
        let Booted { writer, reader, index, footers } =
            booted.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        (self.writer, self.reader, self.index, self.footers) = (writer, reader, index, footers);
        self.index_at_boot = Arc::new(self.index.snapshot());
    }

    /// Flips a bit in each copy of a segment's header; the second time restores it.
    pub fn flip_headers(&self, segment: u32) {
        for copy in [0, 4096] {
            self.disk.corrupt(&file_name(segment), copy, 1);
        }
    }

    /// Flips a bit in a record's header; the second time restores it.
    pub fn flip_record(&self, at: Position) {
        let offset = usize::try_from(at.offset).expect("a small file");
        self.disk.corrupt(&file_name(at.segment), offset + 60, 1);
    }

    /// Flips a bit in a shard's payload; the second time restores it.
    pub fn flip_payload(&self, shard: ShardId) {
        let kept = self.reader.catalog().kept(Thing::Shard(shard)).expect("a sound index");
        let kept = kept.expect("it is here");
        let offset = usize::try_from(kept.at.offset + kept.payload_start).expect("a small file");
        self.disk.corrupt(&file_name(kept.at.segment), offset, 1);
    }

    /// The footers that are stated, and their segments.
    pub fn stated_footers(&self) -> Vec<(u32, FooterPlace)> {
        let segments = self.reader.segments();
        let numbers = segments.numbers().expect("a directory in memory");
        let headers = numbers.iter().filter_map(|number| segments.segment(*number).ok());
        let previous = headers.map(|segment| segment.header.previous);
        previous.filter_map(|previous| Some((previous.number, previous.footer?))).collect()
    }

    /// Flips a bit of a footer; the second time restores it.
    pub fn flip_footer(&self, (segment, place): (u32, FooterPlace), bit: u64) {
        let at = usize::try_from(place.offset + bit / 8).expect("a small file");
        self.disk.corrupt(&file_name(segment), at, 1 << (bit % 8));
    }

    /// Replays the last records of the log, from each one on, and walks over what comes of it.
    pub fn check_every_end(&self) {
        let mut records = Vec::new();
        read_log(&self.disk, |found| records.push(found));
        for from in 0..records.len() {
            let mut map = MapKv::default();
            for found in &records[from..] {
                apply(&mut map, &entry_of(found)).expect("a map in memory");
            }
            let differences = check(&map).expect("a map in memory");
            let (seed, first) = (self.seed, &records[from].at);
            assert!(differences.is_empty(), "seed {seed}: from {first:?} on: {differences:#?}");
        }
    }

    /// Where the records of a kind are.
    pub fn records(&self, kind: Kind) -> Vec<Position> {
        let mut places = Vec::new();
        read_log(&self.disk, |found| {
            places.extend((found.header.kind == kind).then_some(found.at));
        });
        places
    }

    /// Reads the log: what was acknowledged must be there, what was not may be.
    fn adopt_survivors(&mut self) {
        let maybe = std::mem::take(&mut self.model.maybe);
        let base = self.model.sequence_next;
        let mut last = 0;
        let (disk, model, seed) = (&self.disk, &mut self.model, self.seed);
        read_log(disk, |found| {
            last = found.header.sequence;
            if last < base {
                return;
            }
            let (sequence, at) = (found.header.sequence, found.header.running_secs);
            let survivor = Numbered { sequence, at, fact: Fact::of(&found) };
            let own = matches!(survivor.fact, Fact::Clock | Fact::Reclaim | Fact::Restate);
            // Uploads that are idle at the same tick end in the order of their last use, roughly.
            let is_idle = matches!(survivor.fact, Fact::Abandon(_));
            let planned = |maybe: &Numbered| is_idle && maybe.fact == survivor.fact;
            let expected = own || maybe.contains(&survivor) || maybe.iter().any(planned);
            assert!(expected, "seed {seed}: {survivor:?}");
            model.apply(&survivor);
        });
        assert!(last + 1 >= base, "seed {}: acknowledged up to {base}, found {last}", self.seed);
    }

    /// Ends in good order and starts again.
    pub fn close_and_open(&mut self, fate: IndexFate) {
        self.writer.advance(self.model.now);
        self.writer.close().expect("a sound disk");
        if self.model.sequence_next > 1 {
            let clock = self.model.number(Fact::Clock);
            self.model.apply(&clock);
        }
        self.restart(false, fate);
    }

    /// Lets the index follow, as its thread would.
    pub fn flush_index(&self) {
        self.reader.overlay().flush().expect("a sound index");
    }

    /// Store, log and model say the same, and every byte is readable.
    pub fn compare(&self) {
        self.compare_live();
        self.compare_log();
        self.read_everything();
    }

    /// The map is what the records themselves say.
    pub fn compare_log(&self) {
        let (seed, overlay) = (self.seed, self.reader.overlay());
        let mut log = MapKv::default();
        read_log(&self.disk, |found| {
            apply(&mut log, &entry_of(&found)).expect("a map in memory");
        });
        for (key, value) in overlay.range(&[0], &[255], usize::MAX).expect("a sound index") {
            let replayed = log.0.remove(&key);
            assert_eq!(Some(value), replayed, "seed {seed}: index and log differ at {key:?}");
        }
        assert!(log.0.is_empty(), "seed {seed}: the index lacks {:?}", log.0);
    }

    /// Readers see what the model says, and figures and references hold.
    pub fn compare_live(&self) {
        let differences = check(&**self.reader.overlay()).expect("a sound index");
        assert!(differences.is_empty(), "seed {}: a walk: {differences:#?}", self.seed);
        let is_tombstone = |line: &String| line.starts_with("tombstone ");
        let lines = dump_lines(&**self.reader.overlay()).expect("a sound index");
        let (buried, lines): (Vec<_>, Vec<_>) = lines.into_iter().partition(is_tombstone);
        let (all, expected): (Vec<_>, Vec<_>) =
            self.model.lines().into_iter().partition(is_tombstone);
        assert_eq!(lines, expected, "seed {}: store and model", self.seed);
        let deals = self.reader.catalog().deals(None, usize::MAX).expect("a sound index");
        assert_eq!(deals, self.model.deals(), "seed {}: deals", self.seed);
        let known = buried.iter().all(|line| all.contains(line));
        let catalog = self.reader.catalog();
        let gone = catalog.gone_through().expect("a sound index") > 0;
        let oldest = catalog.oldest_segment().expect("a sound index");
        let leaving = gone || oldest.is_some_and(|(_, segment)| segment.returned > 0);
        assert!(known && (leaving || buried == all), "seed {}: tombstones", self.seed);
    }

    /// Looks up, page by page, the deals that end at a height or before it. Returns how many.
    pub fn look_up_deals(&self, height: u64, page: usize) -> usize {
        let mut due: Vec<DealLease> = Vec::new();
        loop {
            let after = due.last().map(|deal| (deal.height, deal.lease));
            let more = self.reader.catalog().deals_due(height, after, page);
            let more = more.expect("a sound index");
            if more.is_empty() {
                break;
            }
            due.extend(more);
        }
        let mut expected = self.model.deals();
        expected.retain(|deal| deal.height <= height);
        expected.sort_by_key(|deal| (deal.height, deal.lease));
        assert_eq!(due, expected, "seed {}: deals that end by {height}", self.seed);
        due.len()
    }

    fn read_everything(&self) {
        let overlay = self.reader.overlay();
        let mut things = Vec::new();
        for prefix in [keys::SHARD, keys::BLOCK] {
            visit(&**overlay, prefix, |key, _| {
                things.extend(thing_of(key, 0));
                Ok(())
            })
            .expect("a sound index");
        }
        for thing in things {
            let kept = Catalog(&**overlay).kept(thing).expect("a sound index");
            let kept = kept.expect("just listed");
            let seed = self.seed;
            self.reader.verify(thing, &kept).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            if let Thing::Shard(shard) = thing {
                let read = self.reader.shard(shard, Way::Kept);
                assert_eq!(read.is_ok(), kept.live > 0, "seed {seed}: {read:?}");
            }
        }
    }

    /// Lets something go wrong.
    pub fn inject(&self, fault: Fault) {
        self.disk.inject(fault);
    }
}
