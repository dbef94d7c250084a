//! Why a job is where it is: a page for people, and the JSON of the REST API for programs.

use avtomatika_proto::v1::{
    ApprovalDetail, AwaitedKey, ChildrenDetail, EventDetail, ExplainJobResponse, Explanation,
    ExplanationReason, KeptSignal, KeysDetail, LastFailure, NearestWorker, NextStep, QueueDetail,
    explanation::Detail,
};
use serde::Serialize;

use super::{
    job::{progress_line, status_cell, status_name},
    json::{TaskForm, text_or_null},
    table::{Cell, Overflow, Table, Tone, fields},
    text::clean,
    time::{exact, rfc3339},
};

/// The name of a reason, such as `workers_full`; of one that is newer than this program, `unknown_99`.
fn reason_name(reason: i32) -> String {
    match ExplanationReason::try_from(reason) {
        Ok(reason) => reason.as_str_name().trim_start_matches("EXPLANATION_REASON_").to_ascii_lowercase(),
        Err(_) => format!("unknown_{reason}"),
    }
}

// ---- For people ----

/// The sentence, the facts, and what can be done.
pub fn page(explained: &ExplainJobResponse) -> String {
    let none = Explanation::default();
    let explanation = explained.explanation.as_ref().unwrap_or(&none);
    let mut page = format!("{}\n\n", clean(&explanation.summary));
    page += &fields(facts(explained, explanation));
    if !explanation.next_steps.is_empty() {
        page += "\nWhat can be done\n";
        let mut table = Table::unnamed(2, Overflow::Wrap);
        let row = |step: &NextStep| vec![Cell::from(format!("  {}", step.what)), Cell::from(&step.command)];
        page += &table.page(explanation.next_steps.iter().map(row));
    }
    page
}

fn facts(explained: &ExplainJobResponse, explanation: &Explanation) -> Vec<(&'static str, Cell)> {
    let mut facts = vec![
        ("Job", Cell::from(&explained.job_id)),
        (
            "Blueprint",
            format!("{} (version {})", explained.blueprint_name, explained.blueprint_version).into(),
        ),
        ("Status", status_cell(explained.status)),
        ("State", Cell::from(&explained.current_state)),
        ("Reason", reason_name(explanation.reason).into()),
        ("Since", exact(explanation.since.as_ref()).into()),
        ("Until", exact(explanation.until.as_ref()).into()),
        ("Must end by", exact(explanation.result_deadline.as_ref()).into()),
    ];
    if let Some(task) = &explained.current_task {
        let attempt = match explanation.attempts_max {
            0 => task.attempt.to_string(),
            max => format!("{} of {max}", task.attempt),
        };
        facts.push(("Task", Cell::from(&task.r#type)));
        facts.push(("Attempt", attempt.into()));
        facts.push(("Worker", Cell::from(&task.worker_id)));
        facts.push(("Progress", progress_line(task).unwrap_or_default().into()));
    }
    match &explanation.detail {
        Some(Detail::Queue(queue)) => facts.extend(queue_facts(queue)),
        Some(Detail::Children(children)) => facts.extend(children_facts(children)),
        Some(Detail::Approval(ApprovalDetail { message, decisions })) => {
            facts.push(("Question", Cell::from(message)));
            facts.push(("Decisions", decisions.join(" ").into()));
        }
        Some(Detail::Event(EventDetail { name, kept })) => {
            facts.push(("Signal", Cell::from(name)));
            let kept: Vec<String> = kept.iter().map(kept_line).collect();
            facts.push(("Kept signals", kept.join(", ").into()));
        }
        Some(Detail::Keys(keys)) => facts.extend(keys.keys.iter().flat_map(key_facts)),
        None => {}
    }
    if let Some(failure) = &explanation.last_failure {
        facts.push(("Last failure", Cell::toned(failure_line(failure), Some(Tone::Bad))));
        facts.push(("Failed at", exact(failure.at.as_ref()).into()));
    }
    facts
}

fn queue_facts(queue: &QueueDetail) -> [(&'static str, Cell); 4] {
    let least = |at_least| if at_least { "at least " } else { "" };
    let place =
        format!("{}{} before it, {} in all", least(queue.ahead_at_least), queue.ahead, queue.queue_length);
    let share = |count: u32, what: &str| {
        (count > 0).then(|| format!("{}{count} {what}", least(queue.workers_at_least)))
    };
    let shares: Vec<String> = [
        (queue.free_workers > 0).then(|| format!("{} free", queue.free_workers)),
        share(queue.full_workers, "full"),
        share(queue.paused_workers, "paused"),
        share(queue.draining_workers, "draining"),
        share(queue.set_aside_workers, "set aside"),
        share(queue.unsuited_workers, "unsuitable"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut workers = format!("{} connected, {} serve it", queue.connected_workers, queue.serving_workers);
    if !shares.is_empty() {
        workers += &format!(" ({})", shares.join(", "));
    }
    if queue.expected_workers > 0 {
        workers += &format!(", {} expected back", queue.expected_workers);
    }
    [
        ("Queue", place.into()),
        ("Workers", workers.into()),
        ("Nearest", queue.nearest.as_ref().map(nearest_line).unwrap_or_default().into()),
        ("Given up at", exact(queue.dispatch_deadline.as_ref()).into()),
    ]
}

fn nearest_line(nearest: &NearestWorker) -> String {
    let lacks = match nearest.lacks.as_str() {
        "free_slot" => format!("no free slot: holds {} of {}", nearest.held_tasks, nearest.slots),
        "type_slot" => format!("holds {} of {} of this type", nearest.held_tasks, nearest.slots),
        kind @ ("label" | "resource" | "software" | "model" | "cost") => {
            let has = if nearest.has.is_empty() { "nothing" } else { &nearest.has };
            format!("requires {kind} {}, and it has {has}", nearest.requires)
        }
        "trust" => format!("set aside until {}", exact(nearest.set_aside_until.as_ref())),
        "credits" => "takes no tasks at the moment".to_owned(),
        "permanence" => "is about to leave".to_owned(),
        "task_type" => format!("does not serve it; serves {}", nearest.supported_tasks.join(" ")),
        other => format!("lacks {other}"),
    };
    format!("{}: {lacks}", nearest.worker_id)
}

fn key_facts(key: &AwaitedKey) -> [(&'static str, Cell); 3] {
    let limit = match &key.per {
        Some(per) => format!("{} in {}, {} in a row", key.limit, span_of(per), key.burst),
        None => format!("{} of {} are taken", key.held, key.limit),
    };
    let next = key.next_token_at.as_ref().map(|at| format!(", the next one at {}", exact(Some(at))));
    let place = format!("{} before it, {} in all", key.ahead, key.waiting);
    [
        ("Key", format!("{} ({limit}{})", key.key, next.unwrap_or_default()).into()),
        ("Held by", key.holder_job_ids.join(" ").into()),
        ("Place", place.into()),
    ]
}

fn span_of(per: &prost_types::Duration) -> String {
    let per = std::time::Duration::try_from(*per).unwrap_or_default();
    avtomatika_proto::span::text(per)
}

fn children_facts(children: &ChildrenDetail) -> [(&'static str, Cell); 3] {
    let counts = format!(
        "{} in all, {} started, {} ended, {} failed",
        children.total, children.started, children.ended, children.failed
    );
    let limits = match children.max_parallel {
        0 => String::new(),
        max => format!("{max} at once, {} may fail", children.tolerated),
    };
    [
        ("Children", counts.into()),
        ("Limits", limits.into()),
        ("Running", children.running_job_ids.join(" ").into()),
    ]
}

fn kept_line(kept: &KeptSignal) -> String {
    let misfit = if kept.same_name { " (does not meet the condition)" } else { "" };
    format!("{}{misfit} at {}", kept.name, exact(kept.at.as_ref()))
}

fn failure_line(failure: &LastFailure) -> String {
    let mut line = format!("in {}", failure.state);
    if failure.attempt > 0 {
        line += &format!(", attempt {}", failure.attempt);
    }
    if !failure.worker_id.is_empty() {
        line += &format!(" on {}", failure.worker_id);
    }
    format!("{line}: {}: {}", failure.error_code, failure.error_message)
}

// ---- For programs ----

/// The document of `GET /api/jobs/{id}/explain`.
pub fn form(explained: &ExplainJobResponse) -> impl Serialize + '_ {
    let explanation = explained.explanation.as_ref();
    let detail = explanation.and_then(|explanation| explanation.detail.as_ref());
    Form {
        job_id: &explained.job_id,
        blueprint_name: &explained.blueprint_name,
        blueprint_version: explained.blueprint_version,
        current_state: &explained.current_state,
        status: status_name(explained.status),
        reason: reason_name(explanation.map_or(0, |explanation| explanation.reason)),
        summary: explanation.map_or("", |explanation| &explanation.summary),
        since: rfc3339(explanation.and_then(|explanation| explanation.since.as_ref())),
        until: rfc3339(explanation.and_then(|explanation| explanation.until.as_ref())),
        result_deadline: rfc3339(explanation.and_then(|explanation| explanation.result_deadline.as_ref())),
        storage_full: explanation.is_some_and(|explanation| explanation.storage_full),
        attempts_max: explanation.map(|explanation| explanation.attempts_max).filter(|max| *max > 0),
        current_task: explained.current_task.as_ref().map(TaskForm::from),
        last_failure: explanation
            .and_then(|explanation| explanation.last_failure.as_ref())
            .map(FailureForm::of),
        queue: match detail {
            Some(Detail::Queue(queue)) => Some(QueueForm::of(queue)),
            _ => None,
        },
        children: match detail {
            Some(Detail::Children(children)) => Some(ChildrenForm::of(children)),
            _ => None,
        },
        approval: match detail {
            Some(Detail::Approval(approval)) => Some(ApprovalForm {
                message: text_or_null(&approval.message),
                decisions: &approval.decisions,
            }),
            _ => None,
        },
        event: match detail {
            Some(Detail::Event(event)) => {
                Some(EventForm { name: &event.name, kept: event.kept.iter().map(KeptForm::of).collect() })
            }
            _ => None,
        },
        keys: match detail {
            Some(Detail::Keys(keys)) => Some(KeysForm::of(keys)),
            _ => None,
        },
        next_steps: explanation
            .map(|explanation| explanation.next_steps.iter().map(StepForm::of).collect())
            .unwrap_or_default(),
    }
}

#[derive(Serialize)]
struct Form<'a> {
    job_id: &'a str,
    blueprint_name: &'a str,
    blueprint_version: u32,
    current_state: &'a str,
    status: String,
    reason: String,
    summary: &'a str,
    since: Option<String>,
    until: Option<String>,
    result_deadline: Option<String>,
    storage_full: bool,
    attempts_max: Option<u32>,
    current_task: Option<TaskForm<'a>>,
    last_failure: Option<FailureForm<'a>>,
    queue: Option<QueueForm<'a>>,
    children: Option<ChildrenForm<'a>>,
    approval: Option<ApprovalForm<'a>>,
    event: Option<EventForm<'a>>,
    keys: Option<KeysForm<'a>>,
    next_steps: Vec<StepForm<'a>>,
}

#[derive(Serialize)]
struct FailureForm<'a> {
    state: &'a str,
    attempt: Option<u32>,
    worker_id: Option<&'a str>,
    error_code: &'a str,
    error_message: &'a str,
    at: Option<String>,
}

impl<'a> FailureForm<'a> {
    fn of(failure: &'a LastFailure) -> Self {
        Self {
            state: &failure.state,
            attempt: (failure.attempt > 0).then_some(failure.attempt),
            worker_id: text_or_null(&failure.worker_id),
            error_code: &failure.error_code,
            error_message: &failure.error_message,
            at: rfc3339(failure.at.as_ref()),
        }
    }
}

#[derive(Serialize)]
struct QueueForm<'a> {
    task_type: &'a str,
    queue_length: u64,
    ahead: u64,
    ahead_at_least: bool,
    dispatch_deadline: Option<String>,
    connected_workers: u32,
    serving_workers: u32,
    free_workers: u32,
    full_workers: u32,
    paused_workers: u32,
    draining_workers: u32,
    unsuited_workers: u32,
    set_aside_workers: u32,
    expected_workers: u32,
    workers_at_least: bool,
    nearest: Option<NearestForm<'a>>,
}

impl<'a> QueueForm<'a> {
    fn of(queue: &'a QueueDetail) -> Self {
        Self {
            task_type: &queue.task_type,
            queue_length: queue.queue_length,
            ahead: queue.ahead,
            ahead_at_least: queue.ahead_at_least,
            dispatch_deadline: rfc3339(queue.dispatch_deadline.as_ref()),
            connected_workers: queue.connected_workers,
            serving_workers: queue.serving_workers,
            free_workers: queue.free_workers,
            full_workers: queue.full_workers,
            paused_workers: queue.paused_workers,
            draining_workers: queue.draining_workers,
            unsuited_workers: queue.unsuited_workers,
            set_aside_workers: queue.set_aside_workers,
            expected_workers: queue.expected_workers,
            workers_at_least: queue.workers_at_least,
            nearest: queue.nearest.as_ref().map(NearestForm::of),
        }
    }
}

#[derive(Serialize)]
struct KeysForm<'a> {
    scope: &'a str,
    keys: Vec<KeyForm<'a>>,
}

#[derive(Serialize)]
struct KeyForm<'a> {
    key: &'a str,
    limit: u32,
    per: Option<String>,
    burst: Option<u32>,
    policy: &'a str,
    has_room: bool,
    held: u64,
    holder_job_ids: &'a [String],
    ahead: u64,
    waiting: u64,
    next_token_at: Option<String>,
}

impl<'a> KeysForm<'a> {
    fn of(keys: &'a KeysDetail) -> Self {
        let key = |key: &'a AwaitedKey| KeyForm {
            key: &key.key,
            limit: key.limit,
            per: key.per.as_ref().map(span_of),
            burst: key.per.is_some().then_some(key.burst),
            policy: &key.policy,
            has_room: key.has_room,
            held: key.held,
            holder_job_ids: &key.holder_job_ids,
            ahead: key.ahead,
            waiting: key.waiting,
            next_token_at: rfc3339(key.next_token_at.as_ref()),
        };
        Self { scope: &keys.scope, keys: keys.keys.iter().map(key).collect() }
    }
}

#[derive(Serialize)]
struct NearestForm<'a> {
    worker_id: &'a str,
    lacks: &'a str,
    held_tasks: Option<u32>,
    slots: Option<u32>,
    supported_tasks: &'a [String],
    similar_task_type: Option<&'a str>,
    requires: Option<&'a str>,
    has: Option<&'a str>,
    set_aside_until: Option<String>,
}

impl<'a> NearestForm<'a> {
    fn of(nearest: &'a NearestWorker) -> Self {
        // Numbers are about slots, and only then about anything.
        let of_slots = ["free_slot", "type_slot"].contains(&nearest.lacks.as_str());
        Self {
            worker_id: &nearest.worker_id,
            lacks: &nearest.lacks,
            held_tasks: of_slots.then_some(nearest.held_tasks),
            slots: of_slots.then_some(nearest.slots),
            supported_tasks: &nearest.supported_tasks,
            similar_task_type: text_or_null(&nearest.similar_task_type),
            requires: text_or_null(&nearest.requires),
            has: text_or_null(&nearest.has),
            set_aside_until: rfc3339(nearest.set_aside_until.as_ref()),
        }
    }
}

#[derive(Serialize)]
struct ChildrenForm<'a> {
    total: u32,
    started: u32,
    ended: u32,
    failed: u32,
    max_parallel: Option<u32>,
    tolerated: Option<u32>,
    running_job_ids: &'a [String],
}

impl<'a> ChildrenForm<'a> {
    fn of(children: &'a ChildrenDetail) -> Self {
        // Without a limit of the one, nothing is known of the other.
        let is_known = children.max_parallel > 0;
        Self {
            total: children.total,
            started: children.started,
            ended: children.ended,
            failed: children.failed,
            max_parallel: is_known.then_some(children.max_parallel),
            tolerated: is_known.then_some(children.tolerated),
            running_job_ids: &children.running_job_ids,
        }
    }
}

#[derive(Serialize)]
struct ApprovalForm<'a> {
    message: Option<&'a str>,
    decisions: &'a [String],
}

#[derive(Serialize)]
struct EventForm<'a> {
    name: &'a str,
    kept: Vec<KeptForm<'a>>,
}

#[derive(Serialize)]
struct KeptForm<'a> {
    name: &'a str,
    at: Option<String>,
    same_name: bool,
}

impl<'a> KeptForm<'a> {
    fn of(kept: &'a KeptSignal) -> Self {
        Self { name: &kept.name, at: rfc3339(kept.at.as_ref()), same_name: kept.same_name }
    }
}

#[derive(Serialize)]
struct StepForm<'a> {
    action: &'a str,
    what: &'a str,
    command: &'a str,
}

impl<'a> StepForm<'a> {
    fn of(step: &'a NextStep) -> Self {
        Self { action: &step.action, what: &step.what, command: &step.command }
    }
}
