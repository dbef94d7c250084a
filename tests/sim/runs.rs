//! Many runs: which seeds, how long, and what came of them.

use std::{
    env, fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use avtomatika_orchestrator::metrics::Metrics;

use crate::{
    sometimes::Met,
    trace::Detail,
    world::{World, report},
};

/// Steps of the standing run.
const STEPS: u64 = 10_000_000;

/// Steps after which every case must have been met.
pub const ENOUGH: u64 = 1_000_000;

/// How long the standing run may take, however slow the machine is.
const TIME: Duration = Duration::from_secs(60);

/// Failing seeds after which a run ends.
const FAILURES_MAX: usize = 3;

/// When to stop.
pub struct Limits {
    seeds: Range<u64>,
    steps: u64,
    time: Duration,
    threads: usize,
    detail: Detail,
    /// Whether somebody wants certain seeds: then nothing is said about cases that were not met.
    pub is_chosen: bool,
}

impl Limits {
    /// `AVTOMATIKA_SIM_SEEDS=a..b`, `AVTOMATIKA_SIM_STEPS`, `AVTOMATIKA_SIM_SECONDS`, `AVTOMATIKA_SIM_THREADS`,
    /// `AVTOMATIKA_SIM_TRACE=1`.
    pub fn from_env() -> Self {
        let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
        let seeds = env::var("AVTOMATIKA_SIM_SEEDS").ok().map(|text| {
            let (from, to) = text.split_once("..").expect("AVTOMATIKA_SIM_SEEDS is a..b");
            from.parse().expect("a number")..to.parse().expect("a number")
        });
        let is_chosen = seeds.is_some();
        let without_end = if is_chosen { Duration::MAX } else { TIME };
        let steps = number("AVTOMATIKA_SIM_STEPS");
        let time = number("AVTOMATIKA_SIM_SECONDS").map(Duration::from_secs);
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get().min(2));
        Self {
            is_chosen,
            steps: steps.unwrap_or(if is_chosen || time.is_some() { u64::MAX } else { STEPS }),
            time: time.unwrap_or(if steps.is_some() { Duration::MAX } else { without_end }),
            threads: number("AVTOMATIKA_SIM_THREADS").map_or(cores, |threads| threads as usize),
            detail: if env::var("AVTOMATIKA_SIM_TRACE").is_ok() { Detail::Print } else { Detail::Sum },
            seeds: seeds.unwrap_or(1..u64::MAX),
        }
    }
}

/// What came of many runs.
pub struct Done {
    pub steps: u64,
    pub runs: u64,
    pub virtual_seconds: u64,
    took: Duration,
    /// Processor time, of all threads.
    busy: Duration,
    pub met: Met,
    pub failures: Vec<String>,
}

/// What came of one run.
pub enum Outcome {
    Done { steps: u64, virtual_seconds: u64, sum: u64, met: Met },
    Failed(String),
}

/// The run of one seed.
pub fn run_one(seed: u64, detail: Detail) -> Outcome {
    run_with(seed, &Arc::new(Metrics::new()), detail)
}

fn run_with(seed: u64, metrics: &Arc<Metrics>, detail: Detail) -> Outcome {
    let mut world = World::new(seed, metrics, detail);
    let checked = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(checked) => checked.map_err(|violation| report(seed, &world, &violation)),
        Err(_) => Err(format!(
            "seed {seed}, step {}: a panic, see above\nthe last that happened:\n{}",
            world.steps, world.trace
        )),
    };
    match checked {
        Ok(()) => Outcome::Done {
            steps: world.steps,
            virtual_seconds: world.now as u64 / 1_000_000,
            sum: world.trace.sum(),
            met: world.model.met.clone(),
        },
        // Once more, with every line: the same seed fails in the same way.
        Err(_) if detail == Detail::Sum => run_with(seed, metrics, Detail::Last),
        Err(report) => {
            let again = format!(
                "to see all of it: AVTOMATIKA_SIM_SEEDS={seed}..{} AVTOMATIKA_SIM_TRACE=1 cargo test --test sim nothing -- --nocapture",
                seed + 1
            );
            Outcome::Failed(format!("{report}{again}\n"))
        }
    }
}

/// Runs seeds until a limit is reached, on as many threads as the limits say.
pub fn run_seeds(limits: &Limits) -> Done {
    let started = Instant::now();
    let met = Met::none();
    let done = Done {
        steps: 0,
        runs: 0,
        virtual_seconds: 0,
        took: Duration::ZERO,
        busy: Duration::ZERO,
        met,
        failures: Vec::new(),
    };
    let (done, next) = (Mutex::new(done), AtomicU64::new(limits.seeds.start));
    let work = || {
        let metrics = Arc::new(Metrics::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_over = {
                let done = done.lock().unwrap();
                done.steps >= limits.steps || done.failures.len() >= FAILURES_MAX
            };
            if is_over || seed >= limits.seeds.end || started.elapsed() >= limits.time {
                return;
            }
            let began = thread_time();
            let outcome = run_with(seed, &metrics, limits.detail);
            let mut done = done.lock().unwrap();
            done.busy += thread_time().saturating_sub(began);
            match outcome {
                Outcome::Done { steps, virtual_seconds, met, .. } => {
                    done.steps += steps;
                    done.runs += 1;
                    done.virtual_seconds += virtual_seconds;
                    done.met.add(&met);
                }
                Outcome::Failed(report) => done.failures.push(report),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..limits.threads {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap();
    done.took = started.elapsed();
    done
}

/// The processor time that this thread has taken: whoever else uses the machine does not change it.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (took, busy) = (self.took.as_secs_f64(), self.busy.as_secs_f64());
        writeln!(
            f,
            "{} steps in {} runs, {:.1} h of virtual time, in {took:.1} s, {busy:.1} s of processor time: {:.0} steps/s on one core",
            self.steps,
            self.runs,
            self.virtual_seconds as f64 / 3600.0,
            self.steps as f64 / busy.max(1e-9),
        )?;
        self.met.counts().try_for_each(|(name, count)| writeln!(f, "{count:>12}  {name}"))
    }
}
