// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens in the demo, chapter by chapter.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use supernode_protocol::ids::Cid;
use tokio::time::{Instant, sleep};

use super::DemoReport;
use super::checks::Checks;
use super::child::{Client, Ended};
use super::slots;
use crate::cli::DemoArgs;
use crate::dev::chain::Pace;
use crate::dev::cluster::Cluster;
use crate::dev::layout::{Layout, NodePlan, NodeTraits};
use crate::dev::probe;
use crate::exit::Failure;
use crate::output::{self, Output};

/// Nodes of the network before the late one joins.
pub(super) const NODES: usize = 7;
/// Data and parity shards of a stripe in the demo: the default class.
pub(super) const STRIPE_SLOTS: u64 = 14;
/// Bytes of a full stripe.
const STRIPE_BYTES: u64 = 64 << 20;
/// The file of zeros. Every stripe of it has fourteen equal shards.
const ZEROS_BYTES: usize = 3 << 20;
/// With too few nodes left, a get has to say so within this time.
const TYPED_ERROR_SECONDS: f64 = 30.0;
/// Exit codes that a read with too few nodes may end with: failed, not found.
const TYPED_ERROR_CODES: [i32; 2] = [1, 3];
/// How long a counter may take to show what was done.
const METRICS_PATIENCE: Duration = Duration::from_secs(10);

/// The demo under way.
pub(super) struct Story {
    pub(super) dir: PathBuf,
    input: PathBuf,
    program: PathBuf,
    pub(super) cluster: Cluster,
    pub(super) checks: Checks,
    pub(super) report: DemoReport,
    #[cfg(feature = "fault-injection")]
    sabotage: bool,
}

/// An object of the story.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) cid: Cid,
    pub(super) size: u64,
    pub(super) sha256: String,
}

impl Story {
    pub(super) fn new(dir: &Path, args: &DemoArgs, output: Output) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format_args!("cannot find this program: {error}")))?;
        let layout = Layout::open(&dir.join("network"), NODES, Pace::demo())?;
        Ok(Self {
            dir: dir.to_owned(),
            input: args.file.clone().unwrap_or_else(|| program.clone()),
            program,
            cluster: Cluster::new(layout),
            checks: Checks::new(output),
            report: DemoReport::default(),
            #[cfg(feature = "fault-injection")]
            sabotage: args.sabotage,
        })
    }

    /// Everything, in order.
    pub(super) async fn tell(&mut self) -> Result<(), Failure> {
        self.start_network().await?;
        let client = self.owner()?;
        let (real, zeros) = self.put_both(&client).await?;
        self.look_at_disks(&real, &zeros).await?;
        let mut deals = self.make_deals(&client).await?;
        self.audits_pass(&deals).await?;
        let damage = self.damage_a_shard(&deals).await?;
        let stranger = self.late_node().await?;
        self.read_by_cid_alone(&stranger, &real).await?;
        self.damage_is_noticed(&deals, &damage).await?;
        self.a_deal_ends(&client, &mut deals).await?;
        self.lose_two(&stranger, &real).await?;
        self.lose_two_others(&stranger, &real).await?;
        self.lose_three(&stranger, &real, &zeros).await
    }

    /// Stops whatever runs.
    pub(super) async fn end(&mut self) {
        self.cluster.stop_all().await;
        self.checks.finish();
    }

    pub(super) fn into_report(mut self) -> (DemoReport, Checks) {
        self.report.checks = self.checks.to_vec();
        (self.report, self.checks)
    }

    async fn start_network(&mut self) -> Result<(), Failure> {
        self.chapter("A chain and seven nodes, one in each region, each its own process");
        self.checks.talk(format_args!("  {}", Pace::demo().told()));
        let network = self.cluster.start_all().await?;
        let mut pids: Vec<u32> = network.nodes.iter().map(|node| node.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        let alive = pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).count();
        self.checks.equal("seven nodes run as processes of their own", &alive, &NODES);
        let mut ready = 0;
        for node in &network.nodes {
            ready += usize::from(probe::is_ready(&node.plan.http).await);
        }
        self.checks.equal("every node says over HTTP that it is ready", &ready, &NODES);
        Ok(())
    }

    async fn put_both(&mut self, client: &Client) -> Result<(Stored, Stored), Failure> {
        self.chapter("A real file and a file of zeros are put");
        let zeros = self.dir.join("zeros");
        fs::write(&zeros, vec![0; ZEROS_BYTES]).map_err(|error| failed(&zeros, &error))?;
        let input = self.input.clone();
        let (real, seconds) = self.put(client, "real file", &input).await?;
        self.report.object_bytes = real.size;
        self.report.put_seconds = seconds;
        self.report.sha256_in.clone_from(&real.sha256);
        let (zeros, _) = self.put(client, "zeros", &zeros).await?;
        Ok((real, zeros))
    }

    async fn put(
        &mut self,
        client: &Client,
        what: &str,
        path: &Path,
    ) -> Result<(Stored, f64), Failure> {
        let size = fs::metadata(path).map_err(|error| failed(path, &error))?.len();
        let sha256 = sha256(path)?;
        let ended = client.run(["put".into(), path.as_os_str().to_owned()]).await?;
        self.checks.note(
            &format!("put of the {what} exits 0"),
            ended.code == 0,
            describe(&ended, &output::bytes(size)),
        );
        let cid = ended.stdout.parse::<Cid>();
        self.checks.note(
            &format!("put of the {what} prints a CID and nothing else"),
            cid.is_ok(),
            ended.stdout.clone(),
        );
        let cid =
            cid.map_err(|_| Failure::failed(format_args!("the put failed: {}", ended.said)))?;
        Ok((Stored { cid, size, sha256 }, ended.seconds))
    }

    /// Where the slots went, read from the segment files.
    async fn look_at_disks(&mut self, real: &Stored, zeros: &Stored) -> Result<(), Failure> {
        self.chapter("Where the slots went, read from the segment files");
        let (mut real_slots, mut zero_slots, mut unsound) = (Vec::new(), Vec::new(), 0);
        for node in self.cluster.layout.nodes.clone() {
            let disk = slots::read(&node.data_dir)?;
            let (reals, zeros) = (disk.sound_slots(real.cid), disk.sound_slots(zeros.cid));
            self.checks.talk(format_args!(
                "  {:8} {:8} {reals:3} slots of the real file, {zeros:2} of the zeros",
                node.name, node.region
            ));
            real_slots.push(reals);
            zero_slots.push(zeros);
            unsound += disk.unsound_shards.len();
        }
        let stripes = real.size.div_ceil(STRIPE_BYTES);
        self.report.slots_stored = real_slots.iter().sum();
        self.checks.equal(
            "all slots of the real file are on disk",
            &self.report.slots_stored,
            &(stripes * STRIPE_SLOTS),
        );
        self.checks.note(
            "each node holds two slots of every stripe",
            real_slots.iter().all(|slots| *slots == stripes * 2),
            format!("{real_slots:?}"),
        );
        self.checks.equal(
            "all fourteen slots of the zeros are on disk",
            &zero_slots.iter().sum(),
            &STRIPE_SLOTS,
        );
        self.checks.equal("every shard on disk hashes to its id", &unsound, &0);
        let expected = (stripes + 1) * STRIPE_SLOTS;
        let counted = self.await_sum("supernode_slots", expected as f64).await;
        self.checks.equal("the nodes' metrics count the same slots", &counted, &(expected as f64));
        Ok(())
    }

    /// An eighth node without room, and a client that knows only that one.
    async fn late_node(&mut self) -> Result<Client, Failure> {
        self.chapter("An eighth node joins late, with capacity 0");
        let door = self.cluster.layout.nodes[3].libp2p.clone();
        let traits = NodeTraits {
            name: "node-8".to_owned(),
            region: "EU-WEST",
            capacity: "0B",
            writers: &[],
        };
        let plan = self.cluster.layout.add_node(&traits, &[door])?;
        self.cluster.spawn(&plan)?;
        self.cluster.await_ready(&plan, NODES + 1).await?;
        let bootstrap = [plan.libp2p.clone()];
        let (config, _) = self.cluster.layout.add_client(&self.dir.join("stranger"), &bootstrap)?;
        let ended = self.client(&config).run(["status"]).await?;
        self.checks.note(
            "status exits 0 for a client that knows only the eighth node",
            ended.code == 0,
            describe(&ended, &plan.libp2p),
        );
        Ok(self.client(&config))
    }

    async fn read_by_cid_alone(&mut self, client: &Client, real: &Stored) -> Result<(), Failure> {
        self.chapter("The real file is got by its CID alone, through the DHT");
        let (ended, digest) = self.get(client, real, "whole").await?;
        self.report.get_seconds = ended.seconds;
        self.report.sha256_out = digest.clone().unwrap_or_default();
        self.expect_exact("get by CID alone gives the exact bytes", &ended, digest, real);
        let eighth = self.cluster.layout.nodes[NODES].clone();
        let held = probe::metric(&eighth.http, "supernode_shards").await;
        self.checks.note(
            "the eighth node holds no shard",
            held == Some(0.0),
            held.map_or_else(|| "no answer".to_owned(), |held| held.to_string()),
        );
        Ok(())
    }

    async fn lose_two(&mut self, client: &Client, real: &Stored) -> Result<(), Failure> {
        self.chapter("Two nodes are killed in one instant");
        let before = self.slots_by_node(&[0, 1]).await;
        let killed = self.kill(&[0, 1]).await;
        let (ended, digest) = self.get(client, real, "degraded").await?;
        self.report.degraded_get_seconds = ended.seconds;
        self.report.sha256_degraded = digest.clone().unwrap_or_default();
        self.expect_exact("get with two nodes dead gives the exact bytes", &ended, digest, real);
        self.chapter("Both are started again");
        self.restart(&killed).await?;
        let after = self.slots_by_node(&[0, 1]).await;
        self.checks.note(
            "the two restarted nodes hold what they held",
            before == after && before.iter().all(Option::is_some),
            format!("{before:?} before, {after:?} after"),
        );
        Ok(())
    }

    /// The restarted nodes must serve: without them only eight shards of a stripe would be left.
    async fn lose_two_others(&mut self, client: &Client, real: &Stored) -> Result<(), Failure> {
        self.chapter("Two others are killed, so that the restarted ones have to serve");
        let killed = self.kill(&[4, 5]).await;
        let (ended, digest) = self.get(client, real, "restarted").await?;
        self.expect_exact("the restarted nodes serve what they had", &ended, digest, real);
        self.restart(&killed).await
    }

    async fn lose_three(
        &mut self,
        client: &Client,
        real: &Stored,
        zeros: &Stored,
    ) -> Result<(), Failure> {
        self.chapter("Three nodes are killed in one instant: more than the code can lose");
        self.kill(&[1, 3, 6]).await;
        let (ended, digest) = self.get(client, real, "lost").await?;
        self.checks.note(
            "get with three nodes dead is a typed error in time, without a file",
            TYPED_ERROR_CODES.contains(&ended.code)
                && digest.is_none()
                && ended.seconds < TYPED_ERROR_SECONDS,
            describe(&ended, &ended.said),
        );
        let (ended, digest) = self.get(client, zeros, "zeros").await?;
        let exact = ended.code == 0 && digest.as_ref() == Some(&zeros.sha256);
        let typed = TYPED_ERROR_CODES.contains(&ended.code) && digest.is_none();
        self.checks.note(
            "the zeros come back exactly, or as a typed error in time",
            (exact || typed) && ended.seconds < TYPED_ERROR_SECONDS,
            describe(&ended, if exact { "exact" } else { &ended.said }),
        );
        Ok(())
    }

    /// Runs `get -o`; the digest is of the file it left, if any.
    pub(super) async fn get(
        &mut self,
        client: &Client,
        stored: &Stored,
        name: &str,
    ) -> Result<(Ended, Option<String>), Failure> {
        let path = self.dir.join(format!("{name}.out"));
        let arguments = ["get".into(), stored.cid.to_string().into(), "-o".into()];
        let arguments = arguments.into_iter().chain([path.as_os_str().to_owned()]);
        let ended = client.run(arguments).await?;
        #[cfg(feature = "fault-injection")]
        self.spoil(&path)?;
        let digest = if path.exists() { Some(sha256(&path)?) } else { None };
        Ok((ended, digest))
    }

    /// Changes a byte of what was got: the demo has to notice.
    #[cfg(feature = "fault-injection")]
    fn spoil(&self, path: &Path) -> Result<(), Failure> {
        if self.sabotage && path.exists() {
            let mut bytes = fs::read(path).map_err(|error| failed(path, &error))?;
            if let Some(byte) = bytes.first_mut() {
                *byte ^= 1;
            }
            fs::write(path, bytes).map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }

    fn expect_exact(&mut self, name: &str, ended: &Ended, digest: Option<String>, real: &Stored) {
        let ok = ended.code == 0 && digest.as_ref() == Some(&real.sha256);
        let said = if ok { "SHA-256 equal" } else { &ended.said };
        self.checks.note(name, ok, describe(ended, said));
    }

    async fn kill(&mut self, positions: &[usize]) -> Vec<NodePlan> {
        let nodes = &self.cluster.layout.nodes;
        let plans: Vec<NodePlan> =
            positions.iter().map(|position| nodes[*position].clone()).collect();
        self.cluster.kill(&plans).await;
        self.report.nodes_killed += u32::try_from(plans.len()).expect("a handful of nodes");
        let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        let mut answering = 0;
        for plan in &plans {
            answering += usize::from(probe::http_get(&plan.http, "/livez").await.is_ok());
        }
        let names = names.join(", ");
        self.checks.equal(&format!("{names} are dead after SIGKILL"), &answering, &0);
        plans
    }

    async fn restart(&mut self, plans: &[NodePlan]) -> Result<(), Failure> {
        for plan in plans {
            self.cluster.spawn(plan)?;
        }
        for plan in plans {
            self.cluster.await_ready(plan, NODES).await?;
        }
        Ok(())
    }

    async fn slots_by_node(&self, positions: &[usize]) -> Vec<Option<f64>> {
        let mut slots = Vec::new();
        for position in positions {
            let http = &self.cluster.layout.nodes[*position].http;
            slots.push(probe::metric(http, "supernode_slots").await);
        }
        slots
    }

    /// The sum of a metric over the seven nodes, as soon as it is `expected` or at the deadline.
    async fn await_sum(&self, name: &str, expected: f64) -> f64 {
        let give_up = Instant::now() + METRICS_PATIENCE;
        loop {
            let mut sum = 0.0;
            for node in &self.cluster.layout.nodes {
                sum += probe::metric(&node.http, name).await.unwrap_or(0.0);
            }
            if sum >= expected || Instant::now() >= give_up {
                return sum;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn owner(&self) -> Result<Client, Failure> {
        let home = self.dir.join("home");
        fs::create_dir_all(&home).map_err(|error| failed(&home, &error))?;
        Ok(self.client(&self.cluster.layout.client_config()))
    }

    pub(super) fn client(&self, config: &Path) -> Client {
        Client::new(&self.program, config, &self.dir.join("home"))
    }

    pub(super) fn chapter(&self, title: &str) {
        self.checks.talk(format_args!("\n{title}"));
    }
}

pub(super) fn describe(ended: &Ended, said: &str) -> String {
    format!("exit {}, {:.2} s, {said}", ended.code, ended.seconds)
}

pub(super) fn sha256(path: &Path) -> Result<String, Failure> {
    let digest = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    };
    digest().map_err(|error| failed(path, &error))
}

pub(super) fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("{}: {error}", path.display()))
}
