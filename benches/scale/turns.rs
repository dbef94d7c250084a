//! Two orchestrators under the same load, in turns.
//!
//! What a machine does in a second changes by a third from minute to minute, when it shares its processors with others. So two figures
//! are compared only as parts of one round.

use std::sync::Arc;

use crate::{
    load::{keep_submitting, refill, throughput},
    process::Orchestrator,
    progress,
    report::median,
    worker::{Tally, Workers},
};

const ROUNDS: usize = 5;
const SLOTS: u32 = 256;

/// Medians of the rounds.
pub struct Turns {
    /// Jobs per second of the one that the other is measured against.
    pub usual: f64,
    /// Jobs per second of the other.
    pub other: f64,
    /// Of the other's to the usual's, round by round.
    pub ratio: f64,
}

/// An orchestrator and how many jobs shall be open in it.
pub struct Queue<'o> {
    pub orchestrator: &'o Orchestrator,
    pub open: u64,
}

/// Lets each work off and be given so many jobs: one round that warms up, and five that count.
pub async fn in_turns(usual: Queue<'_>, other: Queue<'_>, jobs: u64, data: &Arc<str>) -> Turns {
    let (mut of_usual, mut of_other, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        progress(&format!("round {round} of {ROUNDS}"));
        let per_second = (usual.work(jobs, data).await, other.work(jobs, data).await);
        if round > 0 {
            of_usual.push(per_second.0);
            of_other.push(per_second.1);
            ratios.push(per_second.1 / per_second.0);
        }
    }
    Turns { usual: median(&of_usual), other: median(&of_other), ratio: median(&ratios) }
}

impl Queue<'_> {
    /// Jobs per second, while a worker answers each task at once and for each job that ends another is submitted.
    pub async fn work(&self, jobs: u64, data: &Arc<str>) -> f64 {
        let url = self.orchestrator.url();
        // What was under way when the last round was broken off has ended, and nothing took its place.
        refill(&url, self.open, data).await;
        let tally = Tally::new(0);
        let workers = Workers::connect(&url, 1, SLOTS, &tally).await;
        let submitting = keep_submitting(&url, &tally, data).await;
        let per_second = throughput(&tally, jobs).await;
        drop((submitting, workers));
        per_second
    }
}
