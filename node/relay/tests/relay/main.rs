// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay server and the client against each other on loopback, over a backend in memory.

mod admission;
mod attacks;
mod backend;
mod batches;
mod bodies;
mod cancelled;
mod classes;
mod eventually;
mod flood;
mod frames;
mod lies;
mod malformed;
mod memory;
mod pool;
mod proxy;
mod raw;
mod repairs;
mod round_trips;
mod setup;
mod slow;
mod stop;
mod turns;
mod weather;
