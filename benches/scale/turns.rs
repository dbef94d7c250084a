//! Two things that are measured in turns, and two orchestrators under the same load.
//!
//! What a machine does in a second changes by a third from minute to minute, when it shares its processors with others. So two figures
//! are compared only as parts of one round.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{
    load::{keep_submitting, refill, throughput},
    process::Orchestrator,
    progress,
    report::median,
    worker::{Tally, Workers},
};

/// Rounds that count, of whatever is measured in turns.
pub const ROUNDS: usize = 5;

const SLOTS: u32 = 256;

/// Medians of the rounds.
pub struct Turns {
    /// What is done in a second by the one that the other is measured against.
    pub usual: f64,
    /// By the other.
    pub other: f64,
    /// Of the other's to the usual's, round by round.
    pub ratio: f64,
}

/// Measures both, one after the other: in one round that warms up, and five that count.
pub async fn in_turns(usual: impl AsyncFn() -> f64, other: impl AsyncFn() -> f64) -> Turns {
    let (mut of_usual, mut of_other, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        progress(&format!("round {round} of {ROUNDS}"));
        let per_second = (usual().await, other().await);
        if round > 0 {
            of_usual.push(per_second.0);
            of_other.push(per_second.1);
            ratios.push(per_second.1 / per_second.0);
        }
    }
    Turns { usual: median(&of_usual), other: median(&of_other), ratio: median(&ratios) }
}

/// An orchestrator and how many jobs shall be open in it.
pub struct Queue<'o> {
    pub orchestrator: &'o Orchestrator,
    pub open: u64,
}

/// A worker that answers each task at once, and clients that submit another job for each that ends. Both end with this.
pub struct Load {
    pub tally: Arc<Tally>,
    _submitting: JoinSet<()>,
    _workers: Workers,
}

impl Queue<'_> {
    /// Begins to work it off and to keep it as long as it shall be.
    pub async fn load(&self, data: &Arc<str>) -> Load {
        let url = self.orchestrator.url();
        // What was under way when an earlier load was broken off has ended, and nothing took its place.
        refill(&url, self.open, data).await;
        let tally = Tally::new();
        let workers = Workers::connect(&url, 1, SLOTS, &tally).await;
        let submitting = keep_submitting(&url, &tally, data).await;
        Load { tally, _submitting: submitting, _workers: workers }
    }

    /// Jobs per second, over so many.
    pub async fn work(&self, jobs: u64, data: &Arc<str>) -> f64 {
        throughput(&self.load(data).await.tally, jobs).await
    }
}
