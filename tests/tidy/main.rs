//! The `tidy` tests.
