//! A simulation of the whole: the real conductor, the real engine and the real dispatch, on a disk, behind a network, among
//! workers and clients that do whatever can be done wrong; one seed per run, and the same seed gives the same run.
//!
//! docs/testing.md says how to use it.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used, missing_docs)]

mod blueprints;
mod client;
mod clock;
mod due;
mod editions;
mod faults;
mod invariants;
mod keys;
mod model;
mod movers;
#[cfg(feature = "museum")]
mod museum;
mod network;
mod owed;
mod process;
mod quick;
mod random;
mod regressions;
mod runs;
mod schedules;
mod sometimes;
mod store;
mod tale;
mod trace;
mod webhooks;
mod worker;
mod world;

/// The one that the orchestrator runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use runs::{Limits, Outcome, run_one, run_seeds};
use trace::Detail;

#[test]
fn nothing_that_was_promised_breaks_and_everything_ends() {
    let limits = Limits::from_env();
    let done = run_seeds(&limits);
    println!("{done}");
    assert!(done.failures.is_empty(), "{}", done.failures.join("\n"));
    let missed = done.met.missed();
    // On a machine that is slow or busy the time is over before everything can have been met.
    let is_enough = done.steps >= runs::ENOUGH && !limits.is_chosen;
    assert!(!is_enough || missed.is_empty(), "never met: {missed:#?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..4 {
        let sum = || match run_one(seed, Detail::Sum) {
            Outcome::Done { sum, .. } => sum,
            Outcome::Failed(report) => panic!("{report}"),
        };
        assert_eq!(sum(), sum(), "seed {seed}");
    }
}
