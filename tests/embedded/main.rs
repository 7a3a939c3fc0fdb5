//! The `embedded` tests.
