// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writers side by side, each of which stores objects, keeps a few and releases its oldest, until
//! it is cut off together with the node. What each has asked for outlives it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::load::{Door, Object, Recipe};
use crate::segments::Name;

/// Objects that a writer keeps; beyond that it releases its oldest one first. Few, so that much is
/// freed.
const KEPT: usize = 1;

/// What one writer has asked for and has not seen released.
#[derive(Debug, Clone, Copy)]
struct Held {
    number: u64,
    name: Name,
    /// Whether all of it was acknowledged.
    is_whole: bool,
    /// Whether its release was asked for, and may have been done.
    is_leaving: bool,
}

/// What all writers share.
#[derive(Debug)]
pub struct Desk {
    recipe: Recipe,
    numbers: AtomicU64,
    held: Vec<Mutex<VecDeque<Held>>>,
}

impl Desk {
    /// A desk for so many writers, whose objects are numbered from `first`.
    pub fn new(recipe: Recipe, writers: usize, first: u64) -> Arc<Self> {
        let held = (0..writers).map(|_| Mutex::default()).collect();
        Arc::new(Self { recipe, numbers: AtomicU64::new(first), held })
    }

    /// Lets all writers write through these doors. None of them ends by itself: one that has ended
    /// says what it was refused with.
    ///
    /// # Panics
    /// If the node takes no connections.
    pub async fn open(self: &Arc<Self>, doors: &[Door]) -> JoinSet<String> {
        for door in doors {
            door.knock().await.expect("a node that is up takes connections");
        }
        let mut writers = JoinSet::new();
        for (writer, door) in (0..self.held.len()).zip(doors.iter().cycle()) {
            writers.spawn(Arc::clone(self).write(writer, door.clone()));
        }
        writers
    }

    async fn write(self: Arc<Self>, writer: usize, door: Door) -> String {
        // What was cut off is uploaded again, as a client would; or else released as it is.
        let last = self.with(writer, |held| held.back().copied());
        let again = last.filter(|held| !held.is_whole && !held.is_leaving && held.number % 2 == 0);
        if let Some(held) = again
            && let Err(refusal) = self.store(writer, &door, held.number).await
        {
            return refusal;
        }
        loop {
            let outcome = match self.with(writer, oldest_to_go) {
                Some(held) => self.release(writer, &door, held).await,
                None => self.store_next(writer, &door).await,
            };
            if let Err(refusal) = outcome {
                return refusal;
            }
        }
    }

    async fn store_next(&self, writer: usize, door: &Door) -> Result<(), String> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let name = self.object(number).name;
        let held = Held { number, name, is_whole: false, is_leaving: false };
        self.with(writer, |all| all.push_back(held));
        self.store(writer, door, number).await
    }

    async fn store(&self, writer: usize, door: &Door, number: u64) -> Result<(), String> {
        door.store(&self.object(number)).await.map_err(|error| error.to_string())?;
        self.with(writer, |held| held.back_mut().expect("it was put there").is_whole = true);
        Ok(())
    }

    async fn release(&self, writer: usize, door: &Door, held: Held) -> Result<(), String> {
        let mut was_there = false;
        // What was uploaded again after its commit is an upload beside the pin, of the same name.
        while door.release(held.name).await.map_err(|error| error.to_string())? {
            was_there = true;
        }
        self.with(writer, VecDeque::pop_front);
        if was_there || held.is_leaving || !held.is_whole {
            return Ok(());
        }
        Err(format!("{held:?} was acknowledged and is not there to be released"))
    }

    fn object(&self, number: u64) -> Object {
        self.recipe.object(number)
    }

    fn with<T>(&self, writer: usize, act: impl FnOnce(&mut VecDeque<Held>) -> T) -> T {
        act(&mut self.held[writer].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The oldest object of a writer that has enough, marked as leaving; as it was before.
fn oldest_to_go(held: &mut VecDeque<Held>) -> Option<Held> {
    let oldest = (held.len() > KEPT).then(|| held.front_mut()).flatten()?;
    let before = *oldest;
    oldest.is_leaving = true;
    Some(before)
}
