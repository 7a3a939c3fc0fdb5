//! The bugs that other clients have had, each as a test that bears its name.

mod transactions;
