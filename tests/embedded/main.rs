//! The client against the embedded cluster: no service, and mostly under a paused clock.

#![expect(clippy::unwrap_used, reason = "a test that fails should panic")]

mod bad_input;
mod beside;
mod bugs;
mod collection;
mod consumer;
mod distance;
mod edges;
mod ends;
mod fleet;
mod hooks;
mod keys;
mod letters;
mod memory;
mod operations;
mod panics;
mod producer;
mod released;
mod transactions;
mod verdicts;
