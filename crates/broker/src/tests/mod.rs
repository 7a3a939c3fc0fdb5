//! The cluster as a client sees it, in memory and under a paused clock.

mod faults;
mod fetch;
mod groups;
mod nodes;
mod produce;
mod topics;
mod transactions;
mod versions;
