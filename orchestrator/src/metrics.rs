//! What the orchestrator counts, and its form for Prometheus.
//!
//! Each app owns its own registry: nothing here is global, so that many apps can live in one process. Labels take their
//! values from closed lists or from the operator's own blueprints, never from what a client sends, so that no caller can
//! grow the number of series. It refuses to know who reads the figures.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tonic::Code;

use crate::{conductor::Stats, engine::JobStatus};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BlueprintLabel {
    blueprint: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    task_type: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    protocol: &'static str,
    class: &'static str,
}

/// Counters, histograms and gauges of one orchestrator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    jobs_submitted: Family<BlueprintLabel, Counter>,
    jobs_ended: Family<StatusLabel, Counter>,
    jobs_pruned: Counter,
    tasks_dispatched: Counter,
    results_applied: Counter,
    results_refused: Family<ReasonLabel, Counter>,
    workers_lost: Counter,
    commit_seconds: Histogram,
    commit_batch: Histogram,
    connections_refused: Counter,
    requests: RequestCounters,
    jobs: Family<StatusLabel, Gauge>,
    tasks_ready: Family<TypeLabel, Gauge>,
    tasks_running: Gauge,
    workers_connected: Gauge,
    webhook_attempts: Family<OutcomeLabel, Counter>,
    webhooks_pending: Gauge,
}

/// The counters of requests, looked up once: they are touched by every request.
#[derive(Debug)]
struct RequestCounters {
    http: [Counter; HTTP_CLASSES.len()],
    grpc_ok: Counter,
    grpc_caller: Counter,
    grpc_server: Counter,
}

const HTTP_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("avtomatika");
        let requests = Family::<RequestLabels, Counter>::default();
        let mut metrics = Self {
            jobs_submitted: Family::default(),
            jobs_ended: Family::default(),
            jobs_pruned: Counter::default(),
            tasks_dispatched: Counter::default(),
            results_applied: Counter::default(),
            results_refused: Family::default(),
            workers_lost: Counter::default(),
            // 0.1 ms to 3.3 s: from memory to a disk in trouble.
            commit_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            commit_batch: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
            connections_refused: Counter::default(),
            requests: RequestCounters::of(&requests),
            jobs: Family::default(),
            tasks_ready: Family::default(),
            tasks_running: Gauge::default(),
            workers_connected: Gauge::default(),
            webhook_attempts: Family::default(),
            webhooks_pending: Gauge::default(),
            registry: Registry::default(),
        };
        metrics.register_work(&mut registry);
        metrics.register_present(&mut registry);
        registry.register("requests", "Requests answered, by protocol and class of the answer", requests);
        registry.register(
            "connections_refused",
            "Connections closed at once because too many were open",
            metrics.connections_refused.clone(),
        );
        metrics.registry = registry;
        metrics
    }

    fn register_work(&self, registry: &mut Registry) {
        registry.register("jobs_submitted", "Jobs accepted, by blueprint", self.jobs_submitted.clone());
        registry.register("jobs_ended", "Jobs that ended, by status", self.jobs_ended.clone());
        registry.register(
            "jobs_pruned",
            "Ended jobs that were removed because of their age",
            self.jobs_pruned.clone(),
        );
        registry.register("tasks_dispatched", "Tasks put into workers' hands", self.tasks_dispatched.clone());
        registry.register("results_applied", "Results that changed a job", self.results_applied.clone());
        registry.register(
            "results_refused",
            "Results that changed nothing, by reason",
            self.results_refused.clone(),
        );
        registry.register(
            "webhook_attempts",
            "Attempts to deliver a message to a webhook, by outcome",
            self.webhook_attempts.clone(),
        );
        registry.register("workers_lost", "Workers whose stream ended unasked", self.workers_lost.clone());
        registry.register_with_unit(
            "commit",
            "Time that one durable commit took",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        registry.register("commit_batch_size", "Changes in one durable commit", self.commit_batch.clone());
    }

    fn register_present(&self, registry: &mut Registry) {
        registry.register(
            "jobs",
            "Open jobs by status, and jobs that ended since the start by status",
            self.jobs.clone(),
        );
        registry.register(
            "tasks_ready",
            "Tasks that wait for a worker, by task type",
            self.tasks_ready.clone(),
        );
        registry.register("tasks_running", "Tasks in workers' hands", self.tasks_running.clone());
        registry.register("workers_connected", "Workers with an open stream", self.workers_connected.clone());
        registry.register(
            "webhooks_pending",
            "Messages that wait for webhooks",
            self.webhooks_pending.clone(),
        );
    }

    /// A job of this blueprint was accepted.
    pub fn job_submitted(&self, blueprint: &Arc<str>) {
        self.jobs_submitted.get_or_create(&BlueprintLabel { blueprint: blueprint.clone() }).inc();
    }

    /// A job reached this terminal status.
    pub fn job_ended(&self, status: JobStatus) {
        self.jobs_ended.get_or_create(&StatusLabel { status: status.as_str() }).inc();
    }

    /// This many ended jobs were removed because of their age.
    pub fn pruned(&self, count: usize) {
        self.jobs_pruned.inc_by(count as u64);
    }

    /// A task was put into a worker's hands.
    pub fn dispatched(&self) {
        self.tasks_dispatched.inc();
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
            Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss | Code::DeadlineExceeded => {
                &self.requests.grpc_server
            }
            _ => &self.requests.grpc_caller,
        };
        counter.inc();
    }

    /// Everything as OpenMetrics text. With `present`, the gauges are set first; without it (the conductor does not answer)
    /// they keep what the last reader saw.
    pub fn render(&self, present: Option<&Stats>) -> String {
        if let Some(stats) = present {
            self.set_present(stats);
        }
        let mut page = String::with_capacity(8 * 1024);
        text::encode(&mut page, &self.registry).expect("writing into a String cannot fail");
        page
    }

    fn set_present(&self, stats: &Stats) {
        for &status in JobStatus::ALL {
            let count = stats.jobs.get(&status).copied().unwrap_or(0);
            self.jobs.get_or_create(&StatusLabel { status: status.as_str() }).set(gauge(count));
        }
        // A type without ready tasks is not in the stats any more: no stale figure may stay behind.
        self.tasks_ready.clear();
        for (task_type, count) in &stats.ready_tasks {
            self.tasks_ready.get_or_create(&TypeLabel { task_type: task_type.clone() }).set(gauge(*count));
        }
        self.tasks_running.set(gauge(stats.running_tasks));
        self.workers_connected.set(gauge(stats.connected_workers));
        self.webhooks_pending.set(gauge(stats.undelivered_notices));
    }
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
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn what_happened_is_on_the_page() {
        let metrics = Metrics::new();
        metrics.job_submitted(&Arc::from("test_workflow"));
        metrics.job_ended(JobStatus::Finished);
        metrics.pruned(7);
        metrics.result_refused("duplicate");
        metrics.webhook_attempt("delivered");
        metrics.committed(3, Duration::from_millis(2));
        metrics.http_request(404);
        metrics.grpc_request(Code::NotFound);
        let page = metrics.render(None);
        for line in [
            "avtomatika_jobs_submitted_total{blueprint=\"test_workflow\"} 1",
            "avtomatika_jobs_ended_total{status=\"finished\"} 1",
            "avtomatika_jobs_pruned_total 7",
            "avtomatika_results_refused_total{reason=\"duplicate\"} 1",
            "avtomatika_webhook_attempts_total{outcome=\"delivered\"} 1",
            "avtomatika_commit_seconds_count 1",
            "avtomatika_commit_batch_size_sum 3.0",
            "avtomatika_requests_total{protocol=\"http\",class=\"4xx\"} 1",
            "avtomatika_requests_total{protocol=\"grpc\",class=\"caller_error\"} 1",
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn the_present_is_read_when_the_page_is_made_and_leaves_nothing_stale() {
        let metrics = Metrics::new();
        let mut stats = Stats {
            jobs: BTreeMap::from([(JobStatus::Running, 2)]),
            connected_workers: 1,
            ready_tasks: BTreeMap::from([(Arc::from("resize"), 7)]),
            running_tasks: 2,
            undelivered_notices: 3,
            started_at: Timestamp::default(),
        };
        let page = metrics.render(Some(&stats));
        assert!(page.contains("avtomatika_jobs{status=\"running\"} 2\n"));
        assert!(page.contains("avtomatika_tasks_ready{task_type=\"resize\"} 7\n"));
        assert!(page.contains("avtomatika_webhooks_pending 3\n"));
        stats.ready_tasks.clear();
        assert!(!metrics.render(Some(&stats)).contains("task_type=\"resize\""));
    }

    #[test]
    fn every_status_has_a_class() {
        let metrics = Metrics::new();
        for status in [0, 99, 100, 599, 600, u16::MAX] {
            metrics.http_request(status);
        }
    }
}
