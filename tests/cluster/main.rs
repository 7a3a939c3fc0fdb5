//! The client beside other clients and on real Apache Kafka. Every test here needs something that a
//! bare machine does not have, so none runs unless it is asked for:
//!
//! ```text
//! tests/kafka/kafka start
//! cargo test -p ottla-tests --test cluster -- --ignored --test-threads 1 --skip soak_
//! ```
//!
//! One at a time, because some kill the brokers they share. Those named `soak_` take minutes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails should panic"
)]

mod access;
mod blocked;
mod command;
mod corpus;
mod embedded;
mod endurance;
mod exporter;
mod foreign;
mod fresh;
mod groups;
mod kafka;
mod kills;
mod lag;
mod operations;
mod order;
mod parts;
mod process;
mod python;
mod records;
mod steering;
mod stuck;
mod text;
mod topics;
mod transactions;
mod watching;
