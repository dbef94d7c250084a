//! The pair, end to end: an orchestrator, workers and clients over real sockets, each test with its own.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod acting;
mod code;
mod examples;
mod explain;
mod families;
mod jobs;
mod monitoring;
mod pipeline;
mod placement;
mod protocol;
mod schedules;
mod stack;
mod tls;
mod versions;
mod workers;
