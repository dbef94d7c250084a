//! What a real orchestrator does when the machine below it fails: disks, clocks, files, memory. The number of each test is that of the
//! fault; docs/operating.md tells operators what to expect.
//!
//! A disk that fails and a clock that jumps are played by a few C functions ([`shim.c`](shim.c)) that stand between the process and the
//! C library, so that no test needs root and nothing is skipped where there is a C compiler; cargo needed one to build the
//! orchestrator. Read-only file systems, full ones, and limits of memory are the real thing.

// A test that cannot go on may say so by panicking.
#![allow(clippy::unwrap_used)]

mod clocks;
mod disks;
mod house;
mod memory;
#[allow(dead_code)] // The tests of the process itself need the rest.
#[path = "../process/running.rs"]
mod running;
