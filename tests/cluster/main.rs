//! The `cluster` tests.
