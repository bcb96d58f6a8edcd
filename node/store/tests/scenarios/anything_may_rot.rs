// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bit flips in some file of a stopped store, or a file is cut short, gone, or an older one: what
//! is read is right or an error, what matters is found by the scrub, and what rots outside the
//! segments costs nothing.
//!
//! `SUPERNODE_ROTS` says how many times, `SUPERNODE_SEED` where to begin: each time has the next
//! seed and is repeated by it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use supernode_store::offline::{Source, dump_map};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::support::{open, put};
use super::the_index_is_a_cache::copy;
use super::the_scrub_finds_all::{filled, flip, settings, whole_pass};
use crate::sample::{Client, Object, Recipe, Terms, object};

/// Times that the test goes through, unless it is told otherwise, and how many of them at once.
const ROTS: u64 = 500;
const AT_ONCE: usize = 8;

/// What happened to a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rot {
    file: String,
    what: &'static str,
    /// Whether it was a segment.
    matters: bool,
}

/// Two states of one store, the older first.
struct Before {
    older: PathBuf,
    newer: PathBuf,
    kept: Vec<Object>,
    map: Vec<String>,
}

/// All files of a directory and of those in it, by their path from there, in order.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).expect("a directory").flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                let path = entry.path();
                let name = path.strip_prefix(directory).expect("it was found there");
                found.push(name.to_str().expect("our own names").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Lets one file rot.
fn rot(directory: &Path, older: &Path, random: &mut ChaCha8Rng) -> Rot {
    let all = files(directory);
    let is_segment = |name: &&String| name.ends_with(".seg");
    let (segments, others): (Vec<_>, Vec<_>) = all.iter().partition(is_segment);
    let matters = random.random_bool(0.6);
    let among = if matters { segments } else { others };
    let file = among[random.random_range(..among.len())].clone();
    let path = directory.join(&file);
    let len = fs::metadata(&path).expect("it is there").len();
    let what = match random.random_range(0..20) {
        0..15 if len > 0 => {
            flip(&path, random.random_range(..len), random.random_range(..8));
            "a bit is flipped"
        }
        15..18 if len > 0 => {
            let cut = fs::OpenOptions::new().write(true).open(&path).expect("it is there");
            cut.set_len(random.random_range(..len)).expect("it can be cut");
            "it is cut short"
        }
        18 if !matters && older.join(&file).exists() => {
            fs::copy(older.join(&file), &path).expect("there is room");
            "it is an older one"
        }
        _ if !matters => {
            fs::remove_file(&path).expect("it is there");
            "it is gone"
        }
        _ => "nothing",
    };
    Rot { file, what, matters }
}

/// Opens a directory in which something has rotted; says whether anything was found or missing.
async fn look(before: &Before, seed: u64) -> (bool, bool) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    copy(&before.newer, path);
    let rotten = rot(path, &before.older, &mut random);
    let context = format!("seed {seed}: {rotten:?}");
    let store = open(settings(path)).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = whole_pass(&store).await.damaged > 0 || store.metrics().damaged_ranges > 0;
    let mut missing = 0;
    for (_, shard, bytes) in before.kept.iter().flat_map(|it| &it.groups).flat_map(|it| &it.shards)
    {
        match store.shard(*shard).await {
            Ok(read) => assert_eq!(read.bytes, bytes, "{context}"),
            Err(_) => missing += 1,
        }
    }
    for object in &before.kept {
        for group in 0..2 {
            missing += u32::from(store.group(object.cid, group).await.is_err());
        }
    }
    store.close().await.unwrap_or_else(|error| panic!("{context}: {error}"));
    if rotten.matters {
        // What it has cost was found; what was found need not have cost anything by now.
        assert!(missing == 0 || found, "{context}: {missing} things are missing");
    } else {
        assert!(missing == 0 && !found, "{context}: {missing} things are missing, {found}");
        let map = dump_map(path, Source::Index, false).expect("at rest");
        assert_eq!(map, before.map, "{context}");
    }
    (found, rotten.matters)
}

/// A store with an index of some age, and what it was before its last objects.
async fn before(directory: &Path) -> Before {
    let (older, newer) = (directory.join("older"), directory.join("newer"));
    let mut kept = filled(&newer).await;
    copy(&newer, &older);
    let store = open(settings(&newer)).await.expect("a whole store");
    let recipe = Recipe { stripe_bytes: 50_000, group_count: 2, ..Recipe::small(50) };
    let another = object(recipe);
    put(&store, &Client::new(1), &another, Terms::pin(50, 50)).await.expect("there is room");
    kept.push(another);
    // Leaves a file that says how far it is.
    whole_pass(&store).await;
    store.close().await.expect("an orderly stop");
    let map = dump_map(&newer, Source::Log, false).expect("at rest");
    Before { older, newer, kept, map }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_is_never_served_and_never_missed() {
    let given = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = given("SUPERNODE_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let rots = given("SUPERNODE_ROTS").unwrap_or(ROTS);
    println!("{rots} times from seed {seed}");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let before = Arc::new(before(directory.path()).await);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = JoinSet::new();
    for seed in seed..seed + rots {
        let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
        let before = Arc::clone(&before);
        looks.spawn(async move {
            let looked = look(&before, seed).await;
            drop(place);
            looked
        });
    }
    let looked = looks.join_all().await;
    let count = |wanted| looked.iter().filter(|look| **look == wanted).count();
    let (found, harmless, others) =
        (count((true, true)), count((false, true)), count((false, false)));
    println!("found {found}, in padding and what is dead {harmless}, beside the segments {others}");
    assert!(rots < ROTS || found.min(harmless).min(others) > 20, "too dull");
}
