//! The report: settings, figures, floor and machine, as lines for people and as JSON with units in its keys.

use serde::Serialize;

use super::{
    args::{Plan, Target, WorkerKind},
    figures::{Percentiles, median},
    floor::Floor,
    machine::Machine,
    run::Run,
    subject::Usage,
    tickets::Pace,
};
use crate::render::table::{Cell, Overflow, Table, Tone, fields};

/// Everything that a benchmark has to tell.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    settings: Settings,
    /// Medians of the runs, each figure for itself; of one run, its figures.
    #[serde(flatten)]
    result: Option<Outcome>,
    floor: Option<Floor>,
    machine: Machine,
    runs: Vec<Run>,
    /// Whether every job of every run ended exactly once.
    ok: bool,
    interrupted: bool,
}

/// What was measured, and how.
#[derive(Debug, Serialize)]
struct Settings {
    api: &'static str,
    /// `closed` or `open`.
    pace: &'static str,
    rate_per_s: Option<f64>,
    in_flight: usize,
    connections: usize,
    payload_bytes: usize,
    tasks_per_job: u32,
    /// Absent when jobs take none.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u32>,
    worker: &'static str,
    slots: Option<u32>,
    warm_up_jobs: u64,
    repeat: u32,
    /// Absent when the orchestrator was started for the benchmark.
    url: Option<String>,
    data_dir: Option<String>,
    file_system: Option<String>,
    /// When commits are synced; absent of an orchestrator that was there before.
    fsync: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
struct Outcome {
    jobs_per_s: f64,
    floor_jobs_per_s: Option<f64>,
    ratio: Option<f64>,
    submit_to_finished_ms: Option<Percentiles>,
    ready_to_started_ms: Option<Percentiles>,
    orchestrator: Option<Usage>,
    store: String,
}

/// What the figures were taken on.
pub(super) struct Circumstances {
    pub(super) machine: Machine,
    pub(super) url: Option<String>,
    pub(super) file_system: Option<String>,
    pub(super) interrupted: bool,
}

impl Report {
    pub(super) fn new(plan: &Plan, around: Circumstances, runs: Vec<Run>, floor: Option<Floor>) -> Self {
        Self {
            settings: Settings::new(plan, around.url, around.file_system),
            result: outcome(plan, &runs, floor.as_ref()),
            floor,
            machine: around.machine,
            ok: runs.iter().all(|run| run.faults.is_empty()),
            runs,
            interrupted: around.interrupted,
        }
    }

    /// Measured / floor, where both are known and the loop was closed.
    pub(super) fn ratio(&self) -> Option<f64> {
        self.result.as_ref()?.ratio
    }

    /// What was wrong, over all runs.
    pub(super) fn faults(&self) -> impl Iterator<Item = &str> {
        self.runs.iter().flat_map(|run| &run.faults).map(String::as_str)
    }

    /// For people.
    pub(super) fn page(&self) -> String {
        let mut page = fields(self.heads());
        if let Some(outcome) = &self.result {
            page += &latencies(outcome);
        }
        if self.runs.len() > 1 {
            page += &runs(&self.runs);
        }
        if let Some(floor) = &self.floor {
            page += &parts(floor);
        }
        page
    }

    fn heads(&self) -> Vec<(&'static str, Cell)> {
        let mut heads = Vec::new();
        if let Some(outcome) = &self.result {
            heads.push(("Load", self.settings.load().into()));
            heads.push(("Jobs", self.verdict()));
            heads.push(("Throughput", throughput(outcome, self.runs.len()).into()));
            heads.push(("Orchestrator", outcome.orchestrator.as_ref().map_or(String::new(), usage).into()));
            heads.push(("Store", self.settings.store(&outcome.store).into()));
        }
        if let Some(floor) = &self.floor {
            heads.push(("Floor", floor_line(floor, self.ratio()).into()));
        }
        heads.push(("Machine", self.machine.line().into()));
        heads
    }

    fn verdict(&self) -> Cell {
        let jobs: u64 = self.runs.iter().map(|run| run.jobs).sum();
        let seconds: f64 = self.runs.iter().map(|run| run.seconds).sum();
        let verified: u64 = self.runs.iter().map(|run| run.verified_jobs).sum();
        let warm_up = verified.saturating_sub(jobs);
        let held_back = self.runs.iter().filter_map(|run| run.held_back).sum::<u64>();
        let held_back = match held_back {
            0 => String::new(),
            jobs => format!("; {jobs} were sent late because as many as allowed were in flight"),
        };
        let early = if self.interrupted { " (ended early)" } else { "" };
        if self.ok {
            let text = format!(
                "{jobs} in {seconds:.1} s{early}, after {warm_up} to warm up; each ended exactly once{held_back}"
            );
            Cell::toned(text, Some(Tone::Good))
        } else {
            Cell::toned(
                format!("{jobs} in {seconds:.1} s{early}; not all of them as they must{held_back}"),
                Some(Tone::Bad),
            )
        }
    }
}

impl Settings {
    fn new(plan: &Plan, url: Option<String>, file_system: Option<String>) -> Self {
        let (pace, rate_per_s) = match plan.pace {
            Pace::Closed => ("closed", None),
            Pace::Open { per_second } => ("open", Some(per_second)),
        };
        let data_dir = match &plan.target {
            Target::Own { data_dir } => Some(data_dir.display().to_string()),
            Target::Other { .. } => None,
        };
        let worker = match plan.worker {
            WorkerKind::InProcess => "in-process",
            WorkerKind::External => "external",
        };
        Self {
            api: plan.api.name(),
            pace,
            rate_per_s,
            in_flight: plan.in_flight,
            connections: plan.connections,
            payload_bytes: plan.payload_bytes,
            tasks_per_job: plan.tasks_per_job,
            keys: (plan.keys > 0).then_some(plan.keys),
            worker,
            slots: (plan.worker == WorkerKind::InProcess).then_some(plan.slots),
            warm_up_jobs: plan.warm_up,
            repeat: plan.repeat,
            url,
            fsync: data_dir.is_some().then_some("every commit"),
            data_dir,
            file_system,
        }
    }

    fn load(&self) -> String {
        let pace = match self.rate_per_s {
            None => "closed loop".to_owned(),
            Some(rate) => format!("open loop of {rate} jobs/s"),
        };
        let keys = self.keys.map_or_else(String::new, |keys| format!(", {}", count(keys.into(), "key")));
        format!(
            "{}, {pace}, {} in flight over {}, {} of data, {} per job{keys}",
            self.api,
            self.in_flight,
            count(self.connections as u64, "connection"),
            count(self.payload_bytes as u64, "byte"),
            count(self.tasks_per_job.into(), "task"),
        )
    }

    fn store(&self, name: &str) -> String {
        match (&self.data_dir, &self.url) {
            (Some(dir), _) => {
                let kind = self.file_system.as_deref().unwrap_or("an unknown file system");
                format!("{name}, every commit synced, on {kind} ({dir})")
            }
            (None, url) => format!("{name} of {}", url.as_deref().unwrap_or_default()),
        }
    }
}

impl Machine {
    fn line(&self) -> String {
        let cpu = self.cpu.as_deref().unwrap_or("unknown processor");
        let memory = self.memory_mib.map_or(String::new(), |mib| format!(", {:.0} GiB", mib as f64 / 1024.0));
        format!("{cpu}, {}{memory}, {}, {}", count(self.cores as u64, "core"), self.kernel, self.date)
    }
}

/// Each figure's median over the runs. `None` without runs.
fn outcome(plan: &Plan, runs: &[Run], floor: Option<&Floor>) -> Option<Outcome> {
    let jobs_per_s = median(runs.iter().map(|run| run.jobs_per_s))?;
    let floor_jobs_per_s = floor.map(|floor| floor.floor_jobs_per_s);
    // In an open loop the rate was given, and says nothing of what could have been.
    let ratio = floor_jobs_per_s.filter(|_| plan.pace == Pace::Closed).map(|floor| jobs_per_s / floor);
    let distribution = |of: fn(&Run) -> Option<Percentiles>| {
        Percentiles::median(&runs.iter().filter_map(of).collect::<Vec<_>>())
    };
    Some(Outcome {
        jobs_per_s,
        floor_jobs_per_s,
        ratio,
        submit_to_finished_ms: distribution(|run| run.submit_to_finished_ms),
        ready_to_started_ms: distribution(|run| run.ready_to_started_ms),
        orchestrator: median_usage(runs),
        store: runs.first().map(|run| run.store.clone()).unwrap_or_default(),
    })
}

fn median_usage(runs: &[Run]) -> Option<Usage> {
    let of = |figure: fn(&Usage) -> f64| {
        median(runs.iter().filter_map(|run| run.orchestrator.as_ref()).map(figure))
    };
    Some(Usage {
        cpu_s: of(|usage| usage.cpu_s)?,
        cpu_us_per_job: of(|usage| usage.cpu_us_per_job)?,
        memory_peak_mib: of(|usage| usage.memory_peak_mib)?,
        memory_mib: of(|usage| usage.memory_mib)?,
    })
}

fn throughput(outcome: &Outcome, runs: usize) -> String {
    let median = if runs > 1 { format!(" (median of {runs} runs)") } else { String::new() };
    format!("{:.0} jobs/s{median}", outcome.jobs_per_s)
}

fn usage(usage: &Usage) -> String {
    format!(
        "{:.2} s of processor time ({:.0} us per job), {:.0} MiB of memory at its peak, {:.0} MiB at the end",
        usage.cpu_s, usage.cpu_us_per_job, usage.memory_peak_mib, usage.memory_mib
    )
}

fn floor_line(floor: &Floor, ratio: Option<f64>) -> String {
    let ratio = ratio.map_or(String::new(), |ratio| format!("; measured / floor = {ratio:.2}"));
    format!("{:.0} jobs/s{ratio}", floor.floor_jobs_per_s)
}

fn latencies(outcome: &Outcome) -> String {
    let row = |name: &str, told: Option<&Percentiles>| {
        let told = told?;
        let figures = [told.p50, told.p90, told.p99, told.p99_9, told.max];
        let cells = figures.iter().map(|figure| Cell::from(format!("{figure:.2}")));
        Some(std::iter::once(Cell::from(name)).chain(cells).collect::<Vec<_>>())
    };
    let rows = [
        row("submit to finished", outcome.submit_to_finished_ms.as_ref()),
        row("ready to started", outcome.ready_to_started_ms.as_ref()),
    ];
    let mut rows = rows.into_iter().flatten().peekable();
    match rows.peek() {
        None => String::new(),
        Some(_) => {
            const HEADER: &[&str] = &["MILLISECONDS", "P50", "P90", "P99", "P99.9", "MAX"];
            "\n".to_owned() + &Table::new(HEADER, Overflow::Wrap).page(rows)
        }
    }
}

fn runs(runs: &[Run]) -> String {
    const HEADER: &[&str] = &["RUN", "JOBS/S", "P50 MS", "P99 MS", "CPU US/JOB", "PEAK MIB"];
    let figure = |figure: Option<f64>, digits: usize| {
        Cell::from(figure.map_or(String::new(), |figure| format!("{figure:.digits$}")))
    };
    let rows = runs.iter().enumerate().map(|(index, run)| {
        let (latency, usage) = (run.submit_to_finished_ms, run.orchestrator);
        vec![
            (index + 1).to_string().into(),
            format!("{:.0}", run.jobs_per_s).into(),
            figure(latency.map(|latency| latency.p50), 2),
            figure(latency.map(|latency| latency.p99), 2),
            figure(usage.map(|usage| usage.cpu_us_per_job), 0),
            figure(usage.map(|usage| usage.memory_peak_mib), 0),
        ]
    });
    "\n".to_owned() + &Table::new(HEADER, Overflow::Wrap).page(rows)
}

fn parts(floor: &Floor) -> String {
    const HEADER: &[&str] = &["PART OF THE FLOOR", "CPU US/JOB", "ALONE"];
    let (submission, stream, store) = (&floor.submission, &floor.worker_stream, &floor.store);
    let row = |name: &str, cpu: f64, alone: String| {
        vec![name.into(), format!("{cpu:.1}").into(), Cell::from(alone)]
    };
    let mut rows = vec![
        row(
            "submission and answer",
            submission.cpu_us_per_job,
            format!("{:.0} jobs/s", submission.jobs_per_s),
        ),
        row("task and result", stream.cpu_us_per_job, format!("{:.0} jobs/s", stream.jobs_per_s)),
        row(
            &format!("commits of {} jobs", store.jobs_per_commit),
            store.cpu_us_per_job,
            format!("{:.0} jobs/s", 1e6 / store.wall_us_per_job),
        ),
    ];
    if let Some(synced) = &floor.fdatasync_ms {
        let alone = format!("{:.2} ms (p50), {:.2} ms (p99)", synced.p50, synced.p99);
        rows.push(vec!["one fdatasync".into(), "".into(), alone.into()]);
    }
    "\n".to_owned() + &Table::new(HEADER, Overflow::Wrap).page(rows)
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
