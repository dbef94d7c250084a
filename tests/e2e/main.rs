//! The pair, end to end: an orchestrator, workers and clients over real sockets, each test with its own.

// A test that panics has failed, which is what tests are for.
#![allow(clippy::unwrap_used)]

mod jobs;
mod stack;
mod workers;
