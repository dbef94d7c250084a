//! What becomes of the speed when there is much of everything: `cargo bench --bench scale [-- SCENARIO...]`.
//!
//! Each scenario starts the real orchestrator as a process of its own over a new data directory, with every commit synced, and
//! drives it over real sockets. Every figure stands beside the goal that it has to meet. At full size the whole takes half an
//! hour or more and wants a machine without other work; `--quick 100` tries a scenario out.

#[path = "../report/mod.rs"]
#[allow(dead_code, reason = "the bench `parts` uses the rest of it")]
mod report;

#[path = "../../worker/src/backoff.rs"]
#[allow(dead_code, reason = "its tests are run where it belongs")]
mod backoff;

mod finished;
mod idle;
mod load;
mod map;
mod payloads;
mod process;
mod queued;
mod reconnect;
mod restart;
mod turns;
mod worker;
mod workers;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use report::{Cell, Table, progress};

/// Measures the orchestrator with much of everything
#[derive(Parser)]
#[command(name = "scale")]
struct Args {
    /// What to measure [default: everything]
    scenarios: Vec<Scenario>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Divides the numbers of jobs, workers and seconds, to try things out; the goals are meant for 1
    #[arg(long, default_value_t = 1)]
    quick: u32,
    /// Where data directories are made for the time of the bench; must be on the disk that is to be measured
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Memory of an orchestrator that has nothing to do
    Idle,
    /// Throughput and memory with 1,000,000 jobs queued
    Queued,
    /// How soon after a crash work goes on, with 1,000,000 open jobs
    Restart,
    /// Throughput when many jobs are finished and stored, and while they are pruned
    Finished,
    /// Memory and latency with 10,000 connected workers
    Workers,
    /// How soon 10,000 workers are back after a crash, and what clients feel of it
    Reconnect,
    /// Latency of small jobs beside large ones
    Payloads,
    /// Cost of the branches of one large map, against single jobs
    Map,
}

/// How large a scenario is, and where it keeps its data.
struct Size {
    quick: u32,
    dir: PathBuf,
}

impl Size {
    /// So many things, or fewer when trying out.
    fn of(&self, full: u64) -> u64 {
        full.div_ceil(u64::from(self.quick.max(1)))
    }

    /// So much time, or less when trying out.
    fn time(&self, full: std::time::Duration) -> std::time::Duration {
        (full / self.quick.max(1)).max(std::time::Duration::from_secs(1))
    }
}

fn main() {
    let args = Args::parse();
    let size = Size { quick: args.quick, dir: args.dir };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let wanted = |scenario| args.scenarios.is_empty() || args.scenarios.contains(&scenario);
    let mut tables = Vec::new();
    for &scenario in Scenario::value_variants().iter().filter(|&&scenario| wanted(scenario)) {
        tables.push(runtime.block_on(async {
            match scenario {
                Scenario::Idle => idle::measure(&size).await,
                Scenario::Queued => queued::measure(&size).await,
                Scenario::Restart => restart::measure(&size).await,
                Scenario::Finished => finished::measure(&size).await,
                Scenario::Workers => workers::measure(&size).await,
                Scenario::Reconnect => reconnect::measure(&size).await,
                Scenario::Payloads => payloads::measure(&size).await,
                Scenario::Map => map::measure(&size).await,
            }
        }));
    }
    report::print("scale", &tables, args.json);
}

/// A scenario's figures, each with its goal.
struct Figures(Table);

/// What a figure should be.
enum Goal {
    /// It only informs.
    None,
    AtMost(f64),
    AtLeast(f64),
}

impl Figures {
    fn new(name: &'static str, about: &'static str) -> Self {
        Self(Table::new(name, about, &["measured", "goal", "met"]))
    }

    fn add(&mut self, case: impl Into<String>, measured: f64, decimals: usize, goal: Goal) {
        let (goal, met) = match goal {
            Goal::None => (String::new(), ""),
            Goal::AtMost(most) => (format!("≤ {most}"), yes(measured <= most)),
            Goal::AtLeast(least) => (format!("≥ {least}"), yes(measured >= least)),
        };
        self.0.row(case, [Cell::Number(measured, decimals), Cell::Text(goal), Cell::Text(met.to_owned())]);
    }
}

fn yes(met: bool) -> &'static str {
    if met { "yes" } else { "NO" }
}
