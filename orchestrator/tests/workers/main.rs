//! The life and death of workers, with real processes: the orchestrator's program, and workers that are killed, stopped and
//! continued by the system, or cut off by a network that resets or swallows.
//!
//! A worker's process is this test program once more (`support::stock_worker`, `support::sdk_worker`), because the workers' own program
//! belongs to another package.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod checkpoints;
mod drain;
mod failover;
mod loss;
mod relay;
mod restart;
mod stop;
mod support;
