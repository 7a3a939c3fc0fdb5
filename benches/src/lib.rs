//! Benchmarks of the claims in the README.
