// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client against a real chain behind real sockets: what it reads, what it signs, and what it
//! does when the other side breaks, lies or is somebody else. One file a story.

mod deals;
mod endpoints;
mod eventually;
mod foreign;
mod harness;
mod one_key;
mod proxy;
mod runtime;
mod secrets;
