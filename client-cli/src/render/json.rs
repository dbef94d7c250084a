//! Answers for programs: the same JSON as the REST API gives.
//!
//! Data of jobs is passed through with every digit as it was given; only blanks between values are taken out, so that one
//! job is one line. Characters that command a terminal are escaped, which changes nothing for who parses it.

use std::{collections::BTreeMap, fmt::Write};

use avtomatika_proto::v1::{
    BlueprintInfo, CurrentTask, GetStatsResponse, HistoryEntry, Job, RepairJobsResponse, WorkerInfo,
    waiting_for::What,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{job::status_name, text, time::rfc3339};

/// A value as one line of JSON, safe to show.
pub fn line(value: &impl Serialize) -> String {
    // Fails only for maps whose keys are not strings, and there are none in this module.
    escape(&serde_json::to_string(value).unwrap_or_default())
}

/// JSON text laid out for people with every digit as given, safe to show; text that is not JSON as it is, but for control
/// characters.
pub fn pretty(json: &str) -> String {
    match serde_json::from_str::<&RawValue>(json) {
        Ok(valid) => escape(&laid_out(&compact(valid.get()))),
        Err(_) => text::clean_lines(json).trim_end().to_owned(),
    }
}

/// Valid JSON without blanks, with a line for each value and two blanks for each level.
fn laid_out(compact: &str) -> String {
    let mut text = String::with_capacity(compact.len() * 2);
    let mut depth = 0_usize;
    let mut strings = InString::default();
    let mut rest = compact.chars().peekable();
    while let Some(c) = rest.next() {
        if strings.passes(c) {
            text.push(c);
            continue;
        }
        match c {
            '{' | '[' if rest.peek().is_some_and(|&next| matches!(next, '}' | ']')) => text.push(c),
            '}' | ']' if text.ends_with(['{', '[']) => text.push(c),
            '{' | '[' => {
                depth += 1;
                text.push(c);
                new_line(&mut text, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => text.push(c),
        }
    }
    text
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth));
}

/// Knows, character by character, what of a JSON text is inside strings.
#[derive(Default)]
struct InString {
    inside: bool,
    escaped: bool,
}

impl InString {
    /// Whether the next character belongs to a string, quotation marks included.
    fn passes(&mut self, c: char) -> bool {
        if self.inside {
            self.inside = self.escaped || c != '"';
            self.escaped = !self.escaped && c == '\\';
            return true;
        }
        self.inside = c == '"';
        self.inside
    }
}

/// Valid JSON holds such characters in strings only, where an escape means the same.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}') || text::is_reordering(c) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// JSON that came as text. What is not JSON, which would be the server's fault, becomes a string: nothing is hidden.
pub fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(compact(json))
        .or_else(|_| serde_json::value::to_raw_value(json))
        .unwrap_or_default()
}

fn raw_or(json: &str, absent: &str) -> Box<RawValue> {
    raw(if json.is_empty() { absent } else { json })
}

/// The same JSON without blanks between its values.
fn compact(json: &str) -> String {
    let mut strings = InString::default();
    json.chars().filter(|&c| strings.passes(c) || !matches!(c, ' ' | '\t' | '\n' | '\r')).collect()
}

/// What the protocol says with an empty text.
pub(super) fn text_or_null(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn sorted<K: Ord + Clone, V: Clone>(map: &std::collections::HashMap<K, V>) -> BTreeMap<K, V> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[derive(Serialize)]
struct JobForm<'a> {
    id: &'a str,
    blueprint_name: &'a str,
    current_state: &'a str,
    initial_data: Box<RawValue>,
    state_history: Box<RawValue>,
    status: String,
    result: Box<RawValue>,
    error_message: Option<&'a str>,
    error_code: Option<&'a str>,
    retry_count: u32,
    blueprint_version: u32,
    labels: BTreeMap<String, String>,
    priority: i32,
    webhook_url: Option<&'a str>,
    current_task: Option<TaskForm<'a>>,
    created_at: Option<String>,
    updated_at: Option<String>,
    finished_at: Option<String>,
    resumes_at: Option<String>,
    waiting_for: Option<WaitingForm<'a>>,
    outcome: Option<&'a str>,
    failed_state: Option<&'a str>,
    results: Box<RawValue>,
    parent_job_id: Option<&'a str>,
    start_at: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum WaitingForm<'a> {
    Approval {
        message: Option<&'a str>,
        token: Option<&'a str>,
        since: Option<String>,
        deadline: Option<String>,
        decisions: &'a [String],
    },
    Signal {
        name: &'a str,
        since: Option<String>,
        deadline: Option<String>,
    },
    Children {
        total: u32,
        ended: u32,
        failed: u32,
        since: Option<String>,
    },
    Timer {
        until: Option<String>,
    },
    Keys {
        keys: &'a [String],
        since: Option<String>,
    },
}

impl<'a> WaitingForm<'a> {
    fn of(waiting: &'a What) -> Self {
        match waiting {
            What::Approval(approval) => Self::Approval {
                message: text_or_null(&approval.message),
                token: text_or_null(&approval.token),
                since: rfc3339(approval.since.as_ref()),
                deadline: rfc3339(approval.deadline.as_ref()),
                decisions: &approval.decisions,
            },
            What::Signal(signal) => Self::Signal {
                name: &signal.name,
                since: rfc3339(signal.since.as_ref()),
                deadline: rfc3339(signal.deadline.as_ref()),
            },
            What::Children(children) => Self::Children {
                total: children.total,
                ended: children.ended,
                failed: children.failed,
                since: rfc3339(children.since.as_ref()),
            },
            What::Keys(keys) => Self::Keys { keys: &keys.keys, since: rfc3339(keys.since.as_ref()) },
            What::Timer(timer) => Self::Timer { until: rfc3339(timer.until.as_ref()) },
        }
    }
}

/// The attempt that a job waits for.
#[derive(Serialize)]
pub(super) struct TaskForm<'a> {
    id: &'a str,
    r#type: &'a str,
    attempt: u32,
    worker_id: Option<&'a str>,
    dispatched_at: Option<String>,
    deadline: Option<String>,
    progress: Option<ProgressForm<'a>>,
    checkpoint: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ProgressForm<'a> {
    fraction: f64,
    message: &'a str,
}

impl<'a> From<&'a CurrentTask> for TaskForm<'a> {
    fn from(task: &'a CurrentTask) -> Self {
        Self {
            id: &task.id,
            r#type: &task.r#type,
            attempt: task.attempt,
            worker_id: text_or_null(&task.worker_id),
            dispatched_at: rfc3339(task.dispatched_at.as_ref()),
            deadline: rfc3339(task.deadline.as_ref()),
            progress: task
                .progress
                .as_ref()
                .map(|progress| ProgressForm { fraction: progress.fraction, message: &progress.message }),
            checkpoint: serde_json::from_str(&task.checkpoint).ok(),
        }
    }
}

/// A job.
pub fn job(job: &Job) -> impl Serialize + '_ {
    JobForm {
        id: &job.id,
        blueprint_name: &job.blueprint_name,
        current_state: &job.current_state,
        initial_data: raw_or(&job.initial_data, "{}"),
        state_history: raw_or(&job.state_history, "{}"),
        status: status_name(job.status),
        result: raw_or(&job.result, "null"),
        error_message: text_or_null(&job.error_message),
        error_code: text_or_null(&job.error_code),
        retry_count: job.retry_count,
        blueprint_version: job.blueprint_version,
        labels: sorted(&job.labels),
        priority: job.priority,
        webhook_url: text_or_null(&job.webhook_url),
        current_task: job.current_task.as_ref().map(TaskForm::from),
        created_at: rfc3339(job.created_at.as_ref()),
        updated_at: rfc3339(job.updated_at.as_ref()),
        finished_at: rfc3339(job.finished_at.as_ref()),
        resumes_at: rfc3339(job.resumes_at.as_ref()),
        waiting_for: job.waiting_for.as_ref().and_then(|waiting| waiting.what.as_ref()).map(WaitingForm::of),
        outcome: text_or_null(&job.outcome),
        failed_state: text_or_null(&job.failed_state),
        results: raw_or(&job.results, "null"),
        parent_job_id: text_or_null(&job.parent_job_id),
        start_at: rfc3339(job.start_at.as_ref()),
    }
}

/// The answer to a submission that was not waited for.
pub fn accepted(job_id: &str, deduplicated: bool) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Form<'a> {
        status: &'a str,
        job_id: &'a str,
        deduplicated: bool,
    }
    Form { status: "accepted", job_id, deduplicated }
}

/// What became of a repair of many jobs.
pub fn repaired(all: &RepairJobsResponse, dry_run: bool) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Form<'a> {
        count: u32,
        dry_run: bool,
        job_ids: &'a [String],
        refused_count: u32,
        refusals: Vec<Refusal<'a>>,
        stopped_by: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Refusal<'a> {
        job_id: &'a str,
        code: &'a str,
        error: &'a str,
    }
    Form {
        count: all.count,
        dry_run,
        job_ids: &all.job_ids,
        refused_count: all.refused_count,
        refusals: all
            .refusals
            .iter()
            .map(|one| Refusal { job_id: &one.job_id, code: &one.code, error: &one.message })
            .collect(),
        stopped_by: all.stopped_by.as_ref().map(|error| error.code.as_str()),
    }
}

/// One entry of a job's history.
pub fn history_entry(entry: &HistoryEntry) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Form<'a> {
        sequence: u64,
        at: Option<String>,
        event: &'a str,
        state: Option<&'a str>,
        from_state: Option<&'a str>,
        outcome: Option<&'a str>,
        task_id: Option<&'a str>,
        attempt: Option<u32>,
        worker_id: Option<&'a str>,
        error_code: Option<&'a str>,
        error_message: Option<&'a str>,
        duration_ms: Option<i64>,
        by: Option<&'a str>,
        detail: Option<&'a str>,
    }
    Form {
        sequence: entry.sequence,
        at: rfc3339(entry.at.as_ref()),
        event: &entry.event,
        state: text_or_null(&entry.state),
        from_state: text_or_null(&entry.from_state),
        outcome: text_or_null(&entry.outcome),
        task_id: text_or_null(&entry.task_id),
        attempt: (entry.attempt > 0).then_some(entry.attempt),
        worker_id: text_or_null(&entry.worker_id),
        error_code: text_or_null(&entry.error_code),
        error_message: text_or_null(&entry.error_message),
        duration_ms: entry
            .duration
            .as_ref()
            .map(|span| span.seconds.saturating_mul(1000).saturating_add(i64::from(span.nanos / 1_000_000))),
        by: text_or_null(&entry.by),
        detail: text_or_null(&entry.detail),
    }
}

/// A connected worker.
pub fn worker(worker: &WorkerInfo) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Form<'a> {
        worker_id: &'a str,
        worker_type: &'a str,
        supported_tasks: &'a [String],
        max_concurrent_tasks: u32,
        status: String,
        running_tasks: u32,
        load: f64,
        labels: BTreeMap<String, String>,
        resources: BTreeMap<String, f64>,
        hostname: &'a str,
        sdk_version: &'a str,
        hot_cache: &'a [String],
        reputation: f64,
        set_aside_until: Option<String>,
        unstopped_tasks: u32,
        software: BTreeMap<String, String>,
        models: BTreeMap<String, String>,
        limits: BTreeMap<&'a str, u32>,
        costs: BTreeMap<&'a str, f64>,
        connected_at: Option<String>,
    }
    let limits = worker.terms.iter().map(|terms| (&*terms.r#type, terms.max_concurrent_tasks));
    let costs = worker.terms.iter().filter_map(|terms| Some((&*terms.r#type, terms.cost?)));
    Form {
        worker_id: &worker.worker_id,
        worker_type: &worker.worker_type,
        supported_tasks: &worker.supported_tasks,
        max_concurrent_tasks: worker.max_concurrent_tasks,
        status: super::job::worker_status_name(worker.status),
        running_tasks: worker.running_tasks,
        load: worker.load,
        labels: sorted(&worker.labels),
        resources: sorted(&worker.resources),
        hostname: &worker.hostname,
        sdk_version: &worker.sdk_version,
        hot_cache: &worker.hot_cache,
        reputation: worker.reputation,
        set_aside_until: rfc3339(worker.set_aside_until.as_ref()),
        unstopped_tasks: worker.unstopped_tasks,
        software: sorted(&worker.installed_software),
        models: sorted(&worker.installed_models),
        limits: limits.filter(|(_, limit)| *limit > 0).collect(),
        costs: costs.collect(),
        connected_at: rfc3339(worker.connected_at.as_ref()),
    }
}

/// A blueprint, in short; with its definition when that is given.
pub fn blueprint<'a>(info: &'a BlueprintInfo, definition: Option<&str>) -> impl Serialize + 'a {
    #[derive(Serialize)]
    struct Form<'a> {
        name: &'a str,
        version: u32,
        endpoint: Option<&'a str>,
        start_state: &'a str,
        states: &'a [String],
        task_types: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        definition: Option<Box<RawValue>>,
    }
    Form {
        name: &info.name,
        version: info.version,
        endpoint: text_or_null(&info.endpoint),
        start_state: &info.start_state,
        states: &info.states,
        task_types: &info.task_types,
        definition: definition.map(raw),
    }
}

/// A blueprint's graph; one that is only a file has no version.
pub fn graph<'a>(
    name: &'a str,
    version: Option<u32>,
    format: &'a str,
    graph: &'a str,
) -> impl Serialize + 'a {
    #[derive(Serialize)]
    struct Form<'a> {
        name: &'a str,
        version: Option<u32>,
        format: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        graph_dot: Option<&'a str>,
        graph: &'a str,
    }
    // The name that it had when there was no other format.
    Form { name, version, format, graph_dot: (format == "dot").then_some(graph), graph }
}

/// A job's graph.
pub fn job_graph<'a>(job_id: &'a str, format: &'a str, graph: &'a str) -> impl Serialize + 'a {
    #[derive(Serialize)]
    struct Form<'a> {
        job_id: &'a str,
        format: &'a str,
        graph: &'a str,
    }
    Form { job_id, format, graph }
}

/// The counts.
pub fn stats(stats: &GetStatsResponse) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Form<'a> {
        jobs: BTreeMap<String, u64>,
        connected_workers: u64,
        ready_tasks: BTreeMap<String, u64>,
        running_tasks: u64,
        started_at: Option<String>,
        server_version: &'a str,
        store: &'a str,
    }
    Form {
        jobs: sorted(&stats.jobs),
        connected_workers: stats.connected_workers,
        ready_tasks: sorted(&stats.ready_tasks),
        running_tasks: stats.running_tasks,
        started_at: rfc3339(stats.started_at.as_ref()),
        server_version: &stats.server_version,
        store: &stats.store,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_keeps_every_digit_and_every_blank_inside_strings() {
        let given = "{\n  \"n\": 12345678901234567890123.50,\t\"s\": \"a \\\" b\\\\\" , \"t\": \" \"}";
        assert_eq!(raw(given).get(), r#"{"n":12345678901234567890123.50,"s":"a \" b\\","t":" "}"#);
    }

    #[test]
    fn people_see_every_digit_too() {
        let given = r#"{"n":12345678901234567890123.50,"s":"{[,:]}\\\"","o":{},"a":[],"l":[1,{"x":null}]}"#;
        let shown = pretty(given);
        assert_eq!(
            shown,
            "{\n  \"n\": 12345678901234567890123.50,\n  \"s\": \"{[,:]}\\\\\\\"\",\n  \"o\": {},\n  \"a\": [],\n  \"l\": [\n    \
             1,\n    {\n      \"x\": null\n    }\n  ]\n}"
        );
        assert_eq!(compact(&shown), given);
    }

    #[test]
    fn text_that_is_not_json_is_shown_as_a_string() {
        assert_eq!(raw("{oops").get(), "\"{oops\"");
        assert_eq!(pretty("{oops\u{1b}c"), "{oopsc");
    }

    #[test]
    fn characters_that_command_a_terminal_are_escaped_and_still_mean_the_same() {
        let data = "{\"a\":\"\u{9b}2J\u{7f}\u{202e}\"}";
        let shown = line(&raw(data));
        assert_eq!(shown, r#"{"a":"\u009b2J\u007f\u202e"}"#);
        let (one, other): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(data).expect("is JSON"), serde_json::from_str(&shown).expect("is JSON"));
        assert_eq!(one, other);
    }

    #[test]
    fn a_job_has_the_fields_of_the_rest_api_in_their_order() {
        let text = line(&job(&Job { id: "x".into(), ..Job::default() }));
        let keys: Vec<_> = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
            .expect("is an object")
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(
            keys.join(" "),
            "id blueprint_name current_state initial_data state_history status result error_message error_code \
             retry_count blueprint_version labels priority webhook_url current_task created_at updated_at finished_at \
             resumes_at waiting_for outcome failed_state results parent_job_id start_at"
        );
    }
}
