// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes due at a block, and how little of it one block does.
//!
//! Every queue has tasks keyed by the block they are due at, then by id in big-endian order, and
//! a cursor: the earliest block that may still have tasks. A block works from the cursor on, in
//! that order, until it has caught up or its budget is spent; the rest keeps its place and comes
//! first in the next block. Nothing here ever looks at a task that is not due.
//!
//! A budget counts units, and a unit is one step of bounded work: a short task done, a place in a
//! group settled, a slot visited, a block found empty. A step that costs more than what is left
//! still runs if anything is left: a group is settled as a whole, at most 256 units.

use alloc::vec::Vec;

use frame_support::pallet_prelude::Weight;
use frame_support::traits::Get;
use frame_system::pallet_prelude::BlockNumberFor;
use sp_runtime::traits::{One, Saturating};

use crate::pallet::{Agenda, Config, Cursors, Pallet};
use crate::types::{NOBODY, OrderedId, Queue};
use crate::weights;

/// The units of work that one queue may still do in this block.
pub(crate) struct Budget {
    left: u32,
    used: u32,
}

impl Budget {
    /// A budget of `units` steps.
    pub(crate) fn new(units: u32) -> Self {
        Self { left: units, used: 0 }
    }

    /// Whether another step may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.left > 0
    }

    /// Counts a step that has begun.
    pub(crate) fn spend(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
        self.used = self.used.saturating_add(units);
    }
}

/// What became of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is over, or has put itself elsewhere on the agenda.
    Done,
    /// The block has no room for the rest; it keeps its place.
    Unfinished,
}

/// An id as its key.
pub(crate) fn key(id: u64) -> OrderedId {
    id.to_be_bytes()
}

impl<T: Config> Pallet<T> {
    /// Puts a task on the agenda. `due` is a later block than this one.
    pub(crate) fn schedule(queue: Queue, due: BlockNumberFor<T>, id: u64) {
        Agenda::<T>::insert((queue, due, key(id)), NOBODY);
    }

    /// As [`Self::schedule`], for the one kind of task that is kept by node.
    pub(crate) fn schedule_deadline(due: BlockNumberFor<T>, audit: u64, node: u32) {
        Agenda::<T>::insert((Queue::Deadlines, due, key(audit)), node);
    }

    /// Takes a task off the agenda that will not be needed.
    pub(crate) fn unschedule(queue: Queue, due: BlockNumberFor<T>, id: u64) {
        Agenda::<T>::remove((queue, due, key(id)));
    }

    /// Everything a block does by itself; returns what it cost.
    pub(crate) fn work(now: BlockNumberFor<T>) -> Weight {
        let mut weight = Weight::zero();
        for queue in Queue::ALL {
            let units = match queue {
                Queue::Rounds => T::MaxAuditsPerBlock::get(),
                _ => T::MaxTasksPerBlock::get(),
            };
            let mut budget = Budget::new(units);
            Self::serve(queue, now, &mut budget);
            let queue_weight = weights::queue::<T>(queue, budget.used);
            weight = weight.saturating_add(queue_weight);
        }
        weight
    }

    /// Works off one queue until it has caught up or the budget is spent.
    pub(crate) fn serve(queue: Queue, now: BlockNumberFor<T>, budget: &mut Budget) {
        // Tasks are always due later than the block that makes them, so a pallet that has never
        // run has nothing before this block.
        let first = Cursors::<T>::get(queue).unwrap_or(now);
        let mut cursor = first;
        while cursor <= now && budget.has_room() {
            if !Self::serve_block(queue, cursor, now, budget) {
                break;
            }
            budget.spend(1);
            cursor = cursor.saturating_add(One::one());
        }
        Cursors::<T>::insert(queue, cursor);
    }

    /// Works off the tasks of one block; whether it is certain that none is left.
    fn serve_block(
        queue: Queue,
        due: BlockNumberFor<T>,
        now: BlockNumberFor<T>,
        budget: &mut Budget,
    ) -> bool {
        // Taken before any of them runs: a task removes itself, and tasks that come while these
        // run are due at later blocks.
        let limit = usize::try_from(budget.left).unwrap_or(usize::MAX);
        let tasks: Vec<_> = Agenda::<T>::iter_prefix((queue, due)).take(limit).collect();
        let all = tasks.len() < limit;
        for (id, node) in tasks {
            if !budget.has_room() {
                return false;
            }
            let used = budget.used;
            if Self::run(queue, u64::from_be_bytes(id), node, now, budget) == Progress::Unfinished {
                return false;
            }
            // Tasks of many steps count them; that of any other is the task itself.
            if budget.used == used {
                budget.spend(1);
            }
            Agenda::<T>::remove((queue, due, id));
        }
        all && budget.has_room()
    }

    fn run(
        queue: Queue,
        id: u64,
        node: u32,
        now: BlockNumberFor<T>,
        budget: &mut Budget,
    ) -> Progress {
        match queue {
            Queue::Deadlines => Self::miss(node, id, now),
            Queue::Expiries => Self::expire(id, now),
            Queue::Settlements => return Self::settle(id, now, budget),
            Queue::Lapses => Self::lapse(id),
            Queue::Rounds => return Self::open_round(id, now, budget),
            Queue::Tombstones => Self::prune_deal(id),
            Queue::Results => Self::prune_result(id),
        }
        Progress::Done
    }
}
