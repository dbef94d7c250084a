//! How fast each part is by itself: `cargo bench --bench parts [-- PART...]`.
//!
//! The engine decides, the store commits, dispatch hands out: each is measured alone, on one thread, with what the others would
//! give it prepared beforehand. Every figure is the median of several rounds. What a figure contains stands above
//! its table. For the whole, use `avtomatika bench`; for size, the bench `scale`.

#[path = "../report/mod.rs"]
#[allow(dead_code, reason = "the bench `scale` uses the rest of it")]
mod report;

mod dispatch;
mod engine;
mod fixture;
mod store;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Parser;

use report::{Cell, median};

/// Measures the parts of the orchestrator, each by itself
#[derive(Parser)]
#[command(name = "parts")]
struct Args {
    /// What to measure: engine, store, dispatch [default: all of them]
    #[arg(value_parser = ["engine", "store", "dispatch"])]
    parts: Vec<String>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Rounds; what is printed is their median
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one round, in seconds
    #[arg(long, default_value_t = 0.6)]
    seconds: f64,
    /// Divides the numbers of workers and of queued tasks, to try things out
    #[arg(long, default_value_t = 1)]
    quick: usize,
    /// Where stores are made for the time of the bench; must be on the disk that is to be measured
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let rounds =
        Rounds { count: args.rounds.max(1), length: Duration::from_secs_f64(args.seconds.clamp(0.01, 60.0)) };
    let wanted = |name: &str| args.parts.is_empty() || args.parts.iter().any(|part| part == name);
    let mut tables = Vec::new();
    if wanted("engine") {
        tables.push(engine::measure(rounds));
    }
    if wanted("store") {
        tables.push(store::measure(rounds, &args.dir));
    }
    if wanted("dispatch") {
        tables.push(dispatch::measure(rounds, args.quick.max(1)));
    }
    report::print("parts", &tables, args.json);
}

/// How often and how long each case is measured.
#[derive(Clone, Copy)]
struct Rounds {
    count: usize,
    length: Duration,
}

impl Rounds {
    /// Calls `some`, which does a number of things and says how many, until a round is over; once more than it counts, so that
    /// the first round finds everything warm. Returns things per second, one figure for each round.
    fn per_second(self, mut some: impl FnMut() -> usize) -> Vec<f64> {
        let mut round = || {
            let (started, mut done) = (Instant::now(), 0);
            while started.elapsed() < self.length {
                done += some();
            }
            done as f64 / started.elapsed().as_secs_f64()
        };
        round();
        (0..self.count).map(|_| round()).collect()
    }
}

/// The median, and how far the rounds lie apart.
fn median_and_spread(per_second: &[f64]) -> [Cell; 2] {
    let middle = median(per_second);
    let (least, most) =
        per_second.iter().fold((f64::MAX, f64::MIN), |(least, most), &x| (least.min(x), most.max(x)));
    [Cell::Number(middle, 0), Cell::Number((most - least) / middle * 100.0, 0)]
}
