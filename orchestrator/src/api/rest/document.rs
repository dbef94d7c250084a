//! The documents that REST answers with: what a job, a history entry, a worker and a blueprint look like as JSON.
//!
//! Fields stand in the order of the published contract, absent values are `null`, and a job's own data is embedded as it is
//! stored, byte for byte.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::{
    api::shown::{self, Shown, Waiting},
    blueprint::Blueprint,
    conductor::{JobView, Stats, WorkerView},
    engine::{HistoryEntry, JobStatus},
    json::Raw,
    store::{Terms, WorkerRecord},
    time::Timestamp,
};

/// A job, or some of its fields.
pub(in crate::api) struct JobDocument<'a> {
    pub view: &'a JobView,
    /// To whom.
    pub shown: Shown<'a>,
    /// Only these; `None` means all.
    pub fields: Option<&'a [String]>,
}

macro_rules! job_fields {
    ($view:ident, $job:ident, $shown:ident: $($name:literal => $value:expr,)*) => {
        /// The fields of a job, in their order.
        pub(super) const JOB_FIELDS: &[&str] = &[$($name),*];

        impl Serialize for JobDocument<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $view = self.view;
                let $job = &*$view.job;
                let $shown = self.shown;
                let wanted = |name: &str| self.fields.is_none_or(|fields| fields.iter().any(|field| field == name));
                let mut map = serializer.serialize_map(None)?;
                $(if wanted($name) {
                    map.serialize_entry($name, &$value)?;
                })*
                map.end()
            }
        }
    };
}

job_fields! { view, job, shown:
    "id" => job.id,
    "blueprint_name" => job.blueprint,
    "current_state" => job.state,
    "initial_data" => Raw(job.initial_data().as_str()),
    "state_history" => Raw(job.state_history.as_str()),
    "status" => view.status().as_str(),
    "result" => job.result.as_ref().map(|result| Raw(result.as_str())),
    "error_message" => job.error.as_ref().map(|error| &error.message),
    "error_code" => job.error.as_ref().map(|error| &error.code),
    "retry_count" => job.retry_count,
    "transition_count" => job.transitions,
    "blueprint_version" => job.blueprint_version,
    "labels" => job.submission.labels,
    "priority" => job.submission.priority,
    "webhook_url" => job.submission.webhook_url,
    "current_task" => CurrentTask::of(view, shown),
    "created_at" => time(job.created_at),
    "updated_at" => time(job.updated_at),
    "finished_at" => job.finished_at.map(time),
    "resumes_at" => job.resumes_at.map(time),
    "waiting_for" => shown::waiting(view, shown).map(WaitingFor::of),
    "outcome" => job.outcome,
    "failed_state" => job.failed_state,
    "results" => shown::results(job, shown).map(Raw),
    "parent_job_id" => job.submission.parent.as_ref().map(|parent| parent.job_id),
    "start_at" => job.submission.start_at.map(time),
}

/// The attempt that a job waits for.
#[derive(Serialize)]
pub(super) struct CurrentTask<'a> {
    id: String,
    r#type: &'a str,
    attempt: u32,
    worker_id: Option<&'a str>,
    ready_at: String,
    dispatched_at: Option<String>,
    deadline: Option<String>,
    progress: Option<Progress<'a>>,
    checkpoint: Option<Raw<'a>>,
}

#[derive(Serialize)]
struct Progress<'a> {
    fraction: f64,
    message: &'a str,
}

impl<'a> CurrentTask<'a> {
    pub(super) fn of(view: &'a JobView, shown: Shown<'_>) -> Option<Self> {
        let attempt = view.job.attempt.as_ref()?;
        let lease = view.lease.as_ref();
        let progress = lease.and_then(|lease| lease.progress.as_ref());
        Some(Self {
            id: attempt.task_id.to_string(),
            r#type: &attempt.task_type,
            attempt: attempt.number,
            worker_id: lease.map(|lease| &*lease.worker_id),
            ready_at: time(attempt.ready_at),
            dispatched_at: lease.map(|lease| time(lease.dispatched_at)),
            deadline: lease.map(|lease| time(lease.deadline)),
            progress: progress
                .map(|progress| Progress { fraction: progress.fraction, message: &progress.message }),
            checkpoint: shown::checkpoint(view, shown).map(Raw),
        })
    }
}

/// What a job waits for, when that is not a task.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum WaitingFor<'a> {
    Approval {
        message: Option<&'a str>,
        token: Option<&'a str>,
        since: String,
        deadline: Option<String>,
        decisions: Option<&'a [Arc<str>]>,
    },
    Signal {
        name: &'a str,
        since: String,
        deadline: Option<String>,
    },
    Children {
        total: u32,
        ended: u32,
        failed: u32,
        since: String,
    },
    Timer {
        until: String,
    },
    Keys {
        keys: Vec<&'a str>,
        since: String,
    },
}

impl<'a> WaitingFor<'a> {
    fn of(waiting: Waiting<'a>) -> Self {
        match waiting {
            Waiting::Approval { message, token, since, deadline, decisions } => {
                Self::Approval { message, token, since: time(since), deadline: deadline.map(time), decisions }
            }
            Waiting::Signal { name, since, deadline } => {
                Self::Signal { name, since: time(since), deadline: deadline.map(time) }
            }
            Waiting::Children { total, ended, failed, since } => {
                Self::Children { total, ended, failed, since: time(since) }
            }
            Waiting::Timer { until } => Self::Timer { until: time(until) },
            Waiting::Keys { keys, since } => Self::Keys { keys, since: time(since) },
        }
    }
}

/// A page of jobs.
#[derive(Serialize)]
pub(super) struct JobsDocument<'a> {
    pub jobs: Vec<JobDocument<'a>>,
    pub next_cursor: Option<String>,
}

/// A page of a history.
#[derive(Serialize)]
pub(super) struct HistoryDocument<'a> {
    pub history: Vec<EntryDocument<'a>>,
    pub next_cursor: Option<String>,
}

/// One thing that happened to a job.
#[derive(Serialize)]
pub(super) struct EntryDocument<'a> {
    sequence: u64,
    at: String,
    event: &'static str,
    state: &'a str,
    from_state: Option<&'a str>,
    outcome: Option<&'a str>,
    task_id: Option<String>,
    attempt: Option<u32>,
    worker_id: Option<&'a str>,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    duration_ms: Option<f64>,
    by: Option<&'a str>,
    detail: Option<&'a str>,
}

impl<'a> EntryDocument<'a> {
    pub(super) fn of(entry: &'a HistoryEntry) -> Self {
        Self {
            sequence: entry.sequence,
            at: time(entry.at),
            event: entry.event.as_str(),
            state: &entry.state,
            from_state: entry.from_state.as_deref(),
            outcome: entry.outcome.as_deref(),
            task_id: entry.task_id.map(|id| id.to_string()),
            attempt: entry.attempt,
            worker_id: entry.worker_id.as_deref(),
            error_code: entry.error.as_ref().map(|error| &*error.code),
            error_message: entry.error.as_ref().map(|error| &*error.message),
            duration_ms: entry.duration.map(|duration| duration.as_micros() as f64 / 1000.0),
            by: entry.by.as_deref(),
            detail: entry.detail.as_deref(),
        }
    }
}

/// A connected worker.
#[derive(Serialize)]
pub(super) struct WorkerDocument<'a> {
    worker_id: &'a str,
    worker_type: &'a str,
    supported_tasks: &'a [Arc<str>],
    max_concurrent_tasks: u32,
    status: &'static str,
    load: f64,
    running_tasks: u32,
    labels: &'a BTreeMap<String, String>,
    resources: &'a BTreeMap<String, f64>,
    hostname: &'a str,
    sdk_version: &'a str,
    hot_cache: &'a [Arc<str>],
    reputation: f64,
    set_aside_until: Option<String>,
    unstopped_tasks: u32,
    software: &'a BTreeMap<String, String>,
    models: &'a BTreeMap<String, String>,
    limits: BTreeMap<&'a str, u32>,
    costs: BTreeMap<&'a str, f64>,
    connected_at: String,
}

impl<'a> WorkerDocument<'a> {
    pub(super) fn of(view: &'a WorkerView) -> Self {
        let worker = &view.worker;
        Self {
            worker_id: &worker.worker_id,
            worker_type: &worker.worker_type,
            supported_tasks: &worker.task_types,
            max_concurrent_tasks: worker.slots,
            status: view.status.as_str(),
            load: view.load,
            running_tasks: view.running_tasks,
            labels: &worker.labels,
            resources: &worker.resources,
            hostname: &worker.hostname,
            sdk_version: &worker.sdk_version,
            hot_cache: &view.hot_cache,
            reputation: view.reputation,
            set_aside_until: view.aside_until.map(time),
            unstopped_tasks: view.unstopped_tasks,
            software: &worker.software,
            models: &worker.models,
            limits: of_terms(worker, |terms| terms.limit),
            costs: of_terms(worker, |terms| terms.cost),
            connected_at: time(view.connected_at),
        }
    }
}

fn of_terms<T>(worker: &WorkerRecord, part: impl Fn(&Terms) -> Option<T>) -> BTreeMap<&str, T> {
    worker.terms.iter().filter_map(|(task_type, terms)| Some((&**task_type, part(terms)?))).collect()
}

/// A blueprint: in short, or with its definition.
#[derive(Serialize)]
pub(super) struct BlueprintDocument<'a> {
    name: &'a str,
    version: u32,
    endpoint: Option<&'a str>,
    start_state: &'a str,
    states: Vec<&'a str>,
    task_types: Vec<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<&'a RawValue>,
}

impl<'a> BlueprintDocument<'a> {
    pub(super) fn short(blueprint: &'a Blueprint) -> Self {
        Self {
            name: &blueprint.name,
            version: blueprint.version,
            endpoint: blueprint.endpoint.as_deref(),
            start_state: &blueprint.start,
            states: blueprint.states.keys().map(|name| &**name).collect(),
            task_types: blueprint.task_types(),
            definition: None,
        }
    }

    pub(super) fn whole(blueprint: &'a Blueprint) -> Self {
        Self { definition: serde_json::from_str(&blueprint.definition).ok(), ..Self::short(blueprint) }
    }
}

/// The counts of the Python system's dashboard.
#[derive(Serialize)]
pub(super) struct Dashboard {
    workers: Total,
    jobs: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Total {
    total: u64,
}

impl Dashboard {
    pub(super) fn of(stats: &Stats) -> Self {
        let count = |(status, count): (&JobStatus, &u64)| (status.as_str(), *count);
        let mut jobs: BTreeMap<&'static str, u64> = stats.jobs.iter().map(count).collect();
        jobs.insert("queued", stats.ready_tasks.values().sum());
        Self { workers: Total { total: stats.connected_workers }, jobs }
    }
}

fn time(time: Timestamp) -> String {
    time.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use avtomatika_proto::{JobId, TaskId};

    use super::*;
    use crate::{
        conductor::{LeaseView, Progress},
        engine::{Attempt, Job, Submission, Wait},
        json::Json,
    };

    fn view() -> JobView {
        let blueprint = Blueprint {
            input_schema: None,
            keys: Vec::new(),
            name: Arc::from("test_workflow"),
            version: 2,
            is_put: false,
            endpoint: None,
            start: Arc::from("init"),
            max_transitions: 1,
            states: Default::default(),
            definition: Arc::from("{\"blueprint\":\"test_workflow\"}"),
        };
        let submission = Submission {
            initial_data: Json::object("{ \"n\": 9007199254740993, \"x\": 1.50 }").unwrap(),
            labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            priority: 5,
            dispatch_timeout: None,
            result_timeout: None,
            start_at: None,
            webhook_url: Some(Arc::from("https://example.com/hook")),
            parent: None,
            trace: None,
        };
        let now = Timestamp::from_micros(1_700_000_000_123_456);
        let id = JobId::compose(1_700_000_000_123, 0, 0);
        let mut job = Job::accepted(id, Arc::from("alice"), &blueprint, Arc::new(submission), now);
        job.attempt = Some(Attempt {
            task_id: TaskId::from_random(7),
            task_type: Arc::from("process_data"),
            needs: None,
            number: 1,
            ready_at: now,
        });
        let lease = LeaseView {
            worker_id: Arc::from("w1"),
            dispatched_at: now,
            deadline: now,
            progress: Some(Progress {
                fraction: 0.5,
                message: Arc::from("half way"),
                checkpoint: Some(Json::from_stored(r#"{ "page": 2 }"#)),
            }),
        };
        JobView { job: Arc::new(job), lease: Some(lease), children: None }
    }

    #[test]
    fn a_job_reads_in_the_order_of_the_contract_with_its_data_untouched() {
        let view = view();
        let text =
            serde_json::to_string_pretty(&JobDocument { view: &view, shown: Shown::Alone, fields: None })
                .unwrap();
        let expected = r#"{
  "id": "018bcfe5-687b-7000-8000-000000000000",
  "blueprint_name": "test_workflow",
  "current_state": "init",
  "initial_data": { "n": 9007199254740993, "x": 1.50 },
  "state_history": {},
  "status": "running",
  "result": null,
  "error_message": null,
  "error_code": null,
  "retry_count": 0,
  "transition_count": 0,
  "blueprint_version": 2,
  "labels": {
    "team": "a"
  },
  "priority": 5,
  "webhook_url": "https://example.com/hook",
  "current_task": {
    "id": "00000000-0000-4000-8000-000000000007",
    "type": "process_data",
    "attempt": 1,
    "worker_id": "w1",
    "ready_at": "2023-11-14T22:13:20.123456Z",
    "dispatched_at": "2023-11-14T22:13:20.123456Z",
    "deadline": "2023-11-14T22:13:20.123456Z",
    "progress": {
      "fraction": 0.5,
      "message": "half way"
    },
    "checkpoint": { "page": 2 }
  },
  "created_at": "2023-11-14T22:13:20.123456Z",
  "updated_at": "2023-11-14T22:13:20.123456Z",
  "finished_at": null,
  "resumes_at": null,
  "waiting_for": null,
  "outcome": null,
  "failed_state": null,
  "results": null,
  "parent_job_id": null,
  "start_at": null
}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn some_fields_of_a_job_are_only_those() {
        let view = view();
        let fields = ["status".to_owned(), "id".to_owned()];
        let text =
            serde_json::to_string(&JobDocument { view: &view, shown: Shown::Alone, fields: Some(&fields) })
                .unwrap();
        assert_eq!(text, r#"{"id":"018bcfe5-687b-7000-8000-000000000000","status":"running"}"#);
    }

    #[test]
    fn the_token_of_an_approval_is_for_the_owner_who_asks_and_for_nobody_else() {
        let mut view = view();
        let mut job = (*view.job).clone();
        let (token, message) = (Arc::from("5ec3e7"), Some(Arc::from("Pay 700 EUR?")));
        job.wait = Some(Wait::Approval { token, message, since: job.created_at });
        view.job = Arc::new(job);
        let decisions = [Arc::from("approved"), Arc::from("rejected")];
        let fields = ["waiting_for".to_owned()];
        let text = |shown| {
            serde_json::to_string(&JobDocument { view: &view, shown, fields: Some(&fields) }).unwrap()
        };
        assert_eq!(
            text(Shown::Owner { decisions: &decisions }),
            r#"{"waiting_for":{"approval":{"message":"Pay 700 EUR?","token":"5ec3e7","since":"2023-11-14T22:13:20.123456Z","deadline":null,"decisions":["approved","rejected"]}}}"#
        );
        for shown in [Shown::Alone, Shown::Listed] {
            assert_eq!(
                text(shown),
                r#"{"waiting_for":{"approval":{"message":"Pay 700 EUR?","token":null,"since":"2023-11-14T22:13:20.123456Z","deadline":null,"decisions":null}}}"#
            );
        }
    }

    #[test]
    fn the_dashboard_counts_what_waits_for_a_worker_as_queued() {
        let stats = Stats {
            jobs: BTreeMap::from([(JobStatus::Running, 1), (JobStatus::Finished, 3)]),
            connected_workers: 2,
            ready_tasks: BTreeMap::from([(Arc::from("a"), 4), (Arc::from("b"), 1)]),
            running_tasks: 1,
            undelivered_notices: 0,
            started_at: Timestamp::default(),
        };
        let text = serde_json::to_string(&Dashboard::of(&stats)).unwrap();
        assert_eq!(text, r#"{"workers":{"total":2},"jobs":{"finished":3,"queued":5,"running":1}}"#);
    }
}
