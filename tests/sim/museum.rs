//! The simulation finds the mistakes of the museum, each within a minute.

use std::time::{Duration, Instant};

use avtomatika_orchestrator::museum::{Mistake, plant};

use crate::{
    runs::{Outcome, run_one},
    trace::Detail,
};

/// How long a mistake may stay unnoticed.
const WITHIN: Duration = Duration::from_secs(60);

/// Runs seeds with this mistake until one of them fails. Returns what was found.
fn found(mistake: Mistake) -> Option<(u64, String)> {
    plant(Some(mistake));
    let started = Instant::now();
    let outcomes =
        (1..).take_while(|_| started.elapsed() < WITHIN).map(|seed| (seed, run_one(seed, Detail::Sum)));
    let failed = outcomes.into_iter().find_map(|(seed, outcome)| match outcome {
        Outcome::Failed(report) => Some((seed, report)),
        Outcome::Done { .. } => None,
    });
    plant(None);
    failed
}

#[test]
fn every_mistake_of_the_museum_is_found() {
    let mut unnoticed = Vec::new();
    for &(mistake, name) in Mistake::ALL {
        let started = Instant::now();
        match found(mistake) {
            Some((seed, report)) => {
                let what =
                    report.lines().next().unwrap_or_default().split("not true: ").last().unwrap_or_default();
                println!("{name}: after {:.1} s, {seed} runs: {what}", started.elapsed().as_secs_f64());
            }
            None => unnoticed.push(name),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed within {WITHIN:?}: {unnoticed:#?}");
}
