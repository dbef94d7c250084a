//! What the orchestrator counts, and its form for Prometheus.
//!
//! Each app owns its own registry: nothing here is global, so that many apps can live in one process. Labels take their values
//! from closed lists or are names of blueprints and task types, of which only [`NAMES_MAX`] are told apart: no caller can grow the
//! number of series. To count costs an atomic, after one look-up where a name is involved; a histogram costs a lock that nobody
//! else wants for long. It refuses to know who reads the figures. `docs/operating.md` tells what each of them means.

mod names;
mod present;
mod process;
mod tally;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use avtomatika_proto::{ErrorCode, spans::Spans};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};
use tonic::Code;

use self::{names::ByName, present::Gauges, process::Process};
pub use self::{
    names::{NAMES_MAX, OTHER},
    present::Present,
    tally::{AttemptEnd, EndedAttempt, Tally},
};
use crate::{
    dispatch::{Handed, Obedience},
    engine::{Job, JobStatus, Refusal},
};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a job can end as.
const ENDS: [JobStatus; 4] =
    [JobStatus::Finished, JobStatus::Failed, JobStatus::Cancelled, JobStatus::Quarantined];

/// Why a result most often changes nothing.
const RESULT_REFUSALS: [Refusal; 5] = [
    Refusal::Duplicate,
    Refusal::StaleTask,
    Refusal::ForeignSession,
    Refusal::JobTerminal,
    Refusal::UnknownJob,
];

/// What an attempt to tell a webhook can come to.
const WEBHOOK_OUTCOMES: [&str; 4] = ["delivered", "retried", "failed", "obsolete"];

const HTTP_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BlueprintLabel {
    blueprint: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndedLabels {
    blueprint: Arc<str>,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    task_type: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    task_type: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: &'static str,
    class: &'static str,
}

/// The figures of one blueprint.
struct BlueprintMeters {
    submitted: Counter,
    moves: Counter,
    ended: [Counter; ENDS.len()],
    duration: Histogram,
}

/// The figures of one task type.
struct TypeMeters {
    attempts: [Counter; AttemptEnd::ALL.len()],
    retries: Counter,
    wait: Histogram,
    run: Histogram,
    ready: Gauge,
    oldest_age: Gauge<f64, AtomicU64>,
    workers: Gauge,
}

/// Counters, histograms and gauges of one orchestrator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    names: Vec<String>,
    blueprints: ByName<BlueprintMeters>,
    types: ByName<TypeMeters>,
    jobs_deduplicated: Counter,
    jobs_pruned: Counter,
    tasks_dispatched: Counter,
    tasks_adopted: Counter,
    results_applied: Counter,
    results_refused: Family<ReasonLabel, Counter>,
    workers_lost: Counter,
    stops: Family<OutcomeLabel, Counter>,
    commit_seconds: Histogram,
    commit_batch: Histogram,
    connections_refused: Counter,
    requests: RequestCounters,
    requests_refused: Family<CodeLabel, Counter>,
    webhook_attempts: Family<OutcomeLabel, Counter>,
    schedule_due: Family<OutcomeLabel, Counter>,
    log_lines_dropped: Counter,
    spans: OnceLock<Spans>,
    jobs_untold: Counter,
    spans_ended: Counter,
    spans_exported: Counter,
    gauges: Gauges,
    process: Process,
}

/// The counters of requests, looked up once: they are touched by every request.
#[derive(Debug)]
struct RequestCounters {
    http: [Counter; HTTP_CLASSES.len()],
    grpc_ok: Counter,
    grpc_caller: Counter,
    grpc_server: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The registry while it is filled, and the names that are in it.
struct Shelf {
    registry: Registry,
    names: Vec<String>,
}

impl Shelf {
    /// Puts it there under this name after the prefix, and hands it back.
    fn put<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        let name = format!("avtomatika_{name}");
        self.registry.register(name.clone(), help, metric.clone());
        self.names.push(name);
        metric
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.put(name, help, Counter::default())
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut shelf = Shelf { registry: Registry::default(), names: Vec::new() };
        let build =
            shelf.put("build_info", "1, and the release that runs", Family::<VersionLabel, Gauge>::default());
        build.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        let process = Process::default();
        process.register(&mut shelf.registry);
        Self {
            blueprints: blueprints(&mut shelf),
            jobs_deduplicated: shelf.counter(
                "jobs_deduplicated",
                "Submissions that repeated an earlier one under its idempotency key",
            ),
            jobs_pruned: shelf
                .counter("jobs_pruned", "Ended jobs that were removed because of their age or number"),
            types: types(&mut shelf),
            tasks_dispatched: shelf.counter("tasks_dispatched", "Tasks put into workers' hands"),
            tasks_adopted: shelf
                .counter("tasks_adopted", "Tasks that a worker had all along, from before a restart"),
            results_applied: shelf.counter("results_applied", "Results that changed a job"),
            results_refused: shelf.put(
                "results_refused",
                "Results that changed nothing, by reason",
                Family::default(),
            ),
            workers_lost: shelf.counter("workers_lost", "Workers whose stream ended while they held tasks"),
            stops: shelf.put(
                "task_stops",
                "Tasks that workers were told to stop, by what came of it",
                Family::default(),
            ),
            commit_seconds: shelf.put(
                "commit_seconds",
                "Time that one durable commit took",
                // 0.1 ms to 3.3 s: from memory to a disk in trouble.
                Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            ),
            commit_batch: shelf.put(
                "commit_batch_size",
                "Changes in one durable commit",
                Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            ),
            connections_refused: shelf.counter(
                "connections_refused",
                "Connections closed at once because too many were open, in all or of one address",
            ),
            requests: RequestCounters::of(&shelf.put(
                "requests",
                "Requests answered, by protocol and class of the answer",
                Family::default(),
            )),
            requests_refused: shelf.put(
                "requests_refused",
                "Requests answered with an error, by its code",
                Family::default(),
            ),
            schedule_due: shelf.put(
                "schedule_due",
                "Due times of schedules that were dealt with, by what became of them",
                Family::default(),
            ),
            webhook_attempts: shelf.put(
                "webhook_attempts",
                "Attempts to deliver a message to a webhook, by outcome",
                Family::default(),
            ),
            log_lines_dropped: shelf
                .counter("log_lines_dropped", "Lines of the log that nobody read fast enough"),
            spans: OnceLock::new(),
            jobs_untold: shelf.counter(
                "jobs_untold",
                "Traced jobs that ended and were not told of, because too many did at once",
            ),
            spans_ended: shelf.counter("spans_ended", "Spans of sampled traces that ended"),
            spans_exported: shelf.counter("spans_exported", "Spans that the collector has taken"),
            gauges: Gauges::new(&mut shelf),
            process,
            registry: shelf.registry,
            names: shelf.names,
        }
        .begin()
    }

    /// What can happen is there from the start, at 0, so that its first time is a change.
    fn begin(self) -> Self {
        for reason in RESULT_REFUSALS {
            drop(self.results_refused.get_or_create(&ReasonLabel { reason: reason.as_str() }));
        }
        for outcome in Obedience::ALL.map(Obedience::as_str) {
            drop(self.stops.get_or_create(&OutcomeLabel { outcome }));
        }
        for outcome in WEBHOOK_OUTCOMES {
            drop(self.webhook_attempts.get_or_create(&OutcomeLabel { outcome }));
        }
        self
    }

    /// The names of all figures that begin with `avtomatika_`, without the suffix that counters get on the page.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A job of this blueprint was accepted.
    pub fn job_submitted(&self, blueprint: &Arc<str>) {
        self.blueprints.of(blueprint).submitted.inc();
    }

    /// A submission repeated an earlier one.
    pub fn job_deduplicated(&self) {
        self.jobs_deduplicated.inc();
    }

    /// A job became this, durably.
    pub fn changed(&self, job: &Job, tally: &Tally) {
        if tally.moves > 0 || job.status.is_terminal() {
            let meters = self.blueprints.of(&job.blueprint);
            meters.moves.inc_by(tally.moves.into());
            if let Some(end) = ENDS.iter().position(|end| *end == job.status) {
                meters.ended[end].inc();
                meters.duration.observe(job.updated_at.saturating_since(job.created_at).as_secs_f64());
            }
        }
        if let Some(attempt) = &tally.attempt {
            let meters = self.types.of(&attempt.task_type);
            meters.attempts[attempt.end as usize].inc();
            meters.retries.inc_by(tally.retries.into());
            if let Some(held_for) = attempt.held_for {
                meters.run.observe(held_for.as_secs_f64());
            }
        }
    }

    /// This many ended jobs were removed.
    pub fn pruned(&self, count: usize) {
        self.jobs_pruned.inc_by(count as u64);
    }

    /// A task came into a worker's hands.
    pub fn handed(&self, handed: &Handed) {
        if handed.adopted {
            self.tasks_adopted.inc();
            return;
        }
        self.tasks_dispatched.inc();
        self.types.of(&handed.task_type).wait.observe(handed.waited.as_secs_f64());
    }

    /// A result changed a job.
    pub fn result_applied(&self) {
        self.results_applied.inc();
    }

    /// A result changed nothing; the reason is the name of a refusal.
    pub fn result_refused(&self, reason: &'static str) {
        self.results_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A worker's stream ended without having been asked to.
    pub fn worker_lost(&self) {
        self.workers_lost.inc();
    }

    /// An order to stop a task has come to this.
    pub fn stopped(&self, obedience: Obedience) {
        self.stops.get_or_create(&OutcomeLabel { outcome: obedience.as_str() }).inc();
    }

    /// A due time of a schedule was dealt with: `made`, `overlap` or `missed`.
    pub fn schedule_due(&self, outcome: &'static str) {
        self.schedule_due.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// An attempt to deliver a message came to this: `delivered`, `retried`, `failed` or `obsolete`.
    pub fn webhook_attempt(&self, outcome: &'static str) {
        self.webhook_attempts.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A batch of this many changes became durable, in this time.
    pub fn committed(&self, batch_len: usize, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.commit_batch.observe(batch_len as f64);
    }

    /// A connection was closed at once because too many were open.
    pub fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// A REST request was answered with this status.
    pub fn http_request(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, HTTP_CLASSES.len());
        self.requests.http[class - 1].inc();
    }

    /// A gRPC call was answered; a stream counts when it begins.
    pub fn grpc_request(&self, code: Code) {
        let counter = match code {
            Code::Ok => &self.requests.grpc_ok,
            // A deadline is the caller's own, and a body that does not come is not our fault either.
            Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss => &self.requests.grpc_server,
            _ => &self.requests.grpc_caller,
        };
        counter.inc();
    }

    /// A request, or one of a stream of requests, was answered with an error.
    pub fn request_refused(&self, code: ErrorCode) {
        self.requests_refused.get_or_create(&CodeLabel { code: code.as_str() }).inc();
    }

    /// Shows what becomes of these spans.
    pub fn count_spans(&self, spans: Spans) {
        // Only of the first ones: there are no others.
        let _ = self.spans.set(spans);
    }

    /// Everything as OpenMetrics text. Gauges are as last [set](Metrics::set_present).
    pub fn render(&self) -> String {
        // The process has one log, however many orchestrators.
        self.log_lines_dropped.inner().store(crate::telemetry::dropped_lines(), Ordering::Relaxed);
        if let Some(spans) = self.spans.get() {
            let (ended, exported) = spans.counts();
            self.spans_ended.inner().store(ended, Ordering::Relaxed);
            self.spans_exported.inner().store(exported, Ordering::Relaxed);
        }
        let mut page = String::with_capacity(32 * 1024);
        text::encode(&mut page, &self.registry).expect("writing into a String cannot fail");
        page
    }
}

fn blueprints(shelf: &mut Shelf) -> ByName<BlueprintMeters> {
    let submitted = shelf.put(
        "jobs_submitted",
        "Jobs accepted, by blueprint",
        Family::<BlueprintLabel, Counter>::default(),
    );
    let moves = shelf.put(
        "job_transitions",
        "Moves of jobs from state to state, by blueprint",
        Family::<BlueprintLabel, Counter>::default(),
    );
    let ended = shelf.put(
        "jobs_ended",
        "Jobs that ended, by blueprint and status",
        Family::<EndedLabels, Counter>::default(),
    );
    let duration = shelf.put(
        "job_duration_seconds",
        "Time from a job's acceptance to its end, by blueprint",
        // 1 ms to 4.7 h.
        histograms::<BlueprintLabel>(|| Histogram::new(exponential_buckets(0.001, 4.0, 13))),
    );
    ByName::new(move |blueprint| {
        let label = BlueprintLabel { blueprint: blueprint.clone() };
        BlueprintMeters {
            submitted: submitted.get_or_create_owned(&label),
            moves: moves.get_or_create_owned(&label),
            ended: ENDS.map(|status| {
                let labels = EndedLabels { blueprint: blueprint.clone(), status: status.as_str() };
                ended.get_or_create_owned(&labels)
            }),
            duration: duration.get_or_create_owned(&label),
        }
    })
}

fn types(shelf: &mut Shelf) -> ByName<TypeMeters> {
    let attempts = shelf.put(
        "task_attempts",
        "Attempts at tasks that ended, by task type and outcome",
        Family::<AttemptLabels, Counter>::default(),
    );
    let retries = shelf.put(
        "task_retries",
        "Attempts that are made again after a failure, by task type",
        Family::<TypeLabel, Counter>::default(),
    );
    let wait = shelf.put(
        "task_dispatch_seconds",
        "Time from a task's readiness until a worker has it, by task type",
        // 0.25 ms to 65 s.
        histograms::<TypeLabel>(|| Histogram::new(exponential_buckets(0.000_25, 4.0, 10))),
    );
    let run = shelf.put(
        "task_run_seconds",
        "Time that workers held tasks until they reported, by task type",
        // 1 ms to 1.2 h.
        histograms::<TypeLabel>(|| Histogram::new(exponential_buckets(0.001, 4.0, 12))),
    );
    let gauges = Family::<TypeLabel, Gauge>::default;
    let ready = shelf.put("tasks_ready", "Tasks that wait for a worker, by task type", gauges());
    let oldest_age = shelf.put(
        "tasks_ready_oldest_age_seconds",
        "How long the oldest task has been waiting for a worker, by task type",
        Family::<TypeLabel, Gauge<f64, AtomicU64>>::default(),
    );
    let workers = shelf.put("task_type_workers", "Connected workers that serve the task type", gauges());
    ByName::new(move |task_type| {
        let label = TypeLabel { task_type: task_type.clone() };
        TypeMeters {
            attempts: AttemptEnd::ALL.map(|end| {
                let labels = AttemptLabels { task_type: task_type.clone(), outcome: end.as_str() };
                attempts.get_or_create_owned(&labels)
            }),
            retries: retries.get_or_create_owned(&label),
            wait: wait.get_or_create_owned(&label),
            run: run.get_or_create_owned(&label),
            ready: ready.get_or_create_owned(&label),
            oldest_age: oldest_age.get_or_create_owned(&label),
            workers: workers.get_or_create_owned(&label),
        }
    })
}

fn histograms<L: Clone + std::hash::Hash + Eq>(make: fn() -> Histogram) -> Family<L, Histogram> {
    Family::new_with_constructor(make)
}

impl RequestCounters {
    fn of(family: &Family<RequestLabels, Counter>) -> Self {
        let counter = |protocol, class| family.get_or_create_owned(&RequestLabels { protocol, class });
        Self {
            http: HTTP_CLASSES.map(|class| counter("http", class)),
            grpc_ok: counter("grpc", "ok"),
            grpc_caller: counter("grpc", "caller_error"),
            grpc_server: counter("grpc", "server_error"),
        }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
