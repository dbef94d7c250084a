//! `GET /api/jobs/{id}/explain`: why a job is where it is, as JSON.
//!
//! Fields that belong to the reason stand in an object of their own (`queue`, `children`, `approval`, `event`, `keys`), of which one at
//! most is not `null`.

use std::sync::Arc;

use avtomatika_proto::{ApiError, span};
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Serialize;

use super::{document::CurrentTask, query};
use crate::{
    api::{
        Inside, convert,
        explain::{NextStep, next_steps, summary},
        reply,
        shown::Shown,
    },
    blueprint::KeyLimit,
    conductor::{AwaitedKey, ChildCounts, Explanation, Failing, Situation},
    dispatch::{Lack, Nearest, Standing},
    engine::{Job, Wait},
    time::Timestamp,
};

pub(super) async fn get(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let id = convert::job_id(id)?;
    query::none(uri)?;
    let explanation = inside.conductor.explain(client, id).await?;
    Ok(reply::json(StatusCode::OK, &Document::of(&explanation)))
}

#[derive(Serialize)]
struct Document<'a> {
    job_id: String,
    blueprint_name: &'a str,
    blueprint_version: u32,
    current_state: &'a str,
    status: &'static str,
    reason: &'static str,
    summary: String,
    since: String,
    until: Option<String>,
    result_deadline: Option<String>,
    storage_full: bool,
    attempts_max: Option<u32>,
    current_task: Option<CurrentTask<'a>>,
    last_failure: Option<Failure<'a>>,
    queue: Option<Queue<'a>>,
    children: Option<Children>,
    approval: Option<Approval<'a>>,
    event: Option<Event<'a>>,
    keys: Option<AwaitedKeys<'a>>,
    next_steps: Vec<Step>,
}

impl<'a> Document<'a> {
    fn of(explanation: &'a Explanation) -> Self {
        let job = &*explanation.view.job;
        let situation = &explanation.situation;
        Self {
            job_id: job.id.to_string(),
            blueprint_name: &job.blueprint,
            blueprint_version: job.blueprint_version,
            current_state: &job.state,
            status: explanation.view.status().as_str(),
            reason: explanation.reason().as_str(),
            summary: summary(explanation),
            since: explanation.since.to_string(),
            until: time(explanation.until()),
            result_deadline: time(job.result_deadline().filter(|_| !job.status.is_terminal())),
            storage_full: explanation.storage_full,
            attempts_max: explanation.attempts_max,
            current_task: CurrentTask::of(&explanation.view, Shown::Listed),
            last_failure: explanation.failing.as_ref().map(Failure::of),
            queue: match situation {
                Situation::Worker(standing) => Some(Queue::of(job, standing)),
                _ => None,
            },
            children: match situation {
                Situation::Children { counts, running } => {
                    let running_job_ids = running.iter().map(ToString::to_string).collect();
                    Some(Children { running_job_ids, ..Children::of(counts) })
                }
                _ => None,
            },
            approval: match (situation, &job.wait) {
                (Situation::Approval { decisions }, Some(Wait::Approval { message, .. })) => {
                    let decisions = decisions.iter().map(|decision| &**decision).collect();
                    Some(Approval { message: message.as_deref(), decisions })
                }
                _ => None,
            },
            event: match (situation, &job.wait) {
                (Situation::Signal, Some(Wait::Signal { name, .. })) => Some(Event::of(job, name)),
                _ => None,
            },
            keys: match situation {
                Situation::Keys { scope, keys } => {
                    let keys = keys.iter().map(Key::of).collect();
                    Some(AwaitedKeys { scope: scope.as_str(), keys })
                }
                _ => None,
            },
            next_steps: next_steps(explanation).into_iter().map(Step::of).collect(),
        }
    }
}

#[derive(Serialize)]
struct Failure<'a> {
    state: &'a str,
    attempt: Option<u32>,
    worker_id: Option<&'a str>,
    error_code: &'a str,
    error_message: &'a str,
    at: String,
}

impl<'a> Failure<'a> {
    fn of(failing: &'a Failing) -> Self {
        Self {
            state: &failing.state,
            attempt: failing.attempt,
            worker_id: failing.worker_id.as_deref(),
            error_code: &failing.error.code,
            error_message: &failing.error.message,
            at: failing.at.to_string(),
        }
    }
}

#[derive(Serialize)]
struct Queue<'a> {
    task_type: Option<&'a str>,
    queue_length: u64,
    ahead: u64,
    ahead_at_least: bool,
    dispatch_deadline: Option<String>,
    connected_workers: usize,
    serving_workers: usize,
    free_workers: usize,
    full_workers: usize,
    paused_workers: usize,
    draining_workers: usize,
    unsuited_workers: usize,
    set_aside_workers: usize,
    expected_workers: usize,
    workers_at_least: bool,
    nearest: Option<NearestWorker<'a>>,
}

impl<'a> Queue<'a> {
    fn of(job: &'a Job, standing: &'a Standing) -> Self {
        let workers = &standing.workers;
        Self {
            task_type: job.attempt.as_ref().map(|attempt| &*attempt.task_type),
            queue_length: standing.position.length,
            ahead: standing.position.ahead,
            ahead_at_least: standing.position.at_least,
            dispatch_deadline: time(job.dispatch_deadline()),
            connected_workers: workers.connected,
            serving_workers: workers.serving,
            free_workers: workers.free,
            full_workers: workers.full,
            paused_workers: workers.paused,
            draining_workers: workers.draining,
            unsuited_workers: workers.unsuited,
            set_aside_workers: workers.set_aside,
            expected_workers: workers.expected,
            workers_at_least: workers.at_least,
            nearest: standing.nearest.as_ref().map(NearestWorker::of),
        }
    }
}

#[derive(Default, Serialize)]
struct NearestWorker<'a> {
    worker_id: &'a str,
    lacks: &'static str,
    held_tasks: Option<u32>,
    slots: Option<u32>,
    supported_tasks: Vec<&'a str>,
    similar_task_type: Option<&'a str>,
    requires: Option<&'a str>,
    has: Option<&'a str>,
    set_aside_until: Option<String>,
}

impl<'a> NearestWorker<'a> {
    fn of(nearest: &'a Nearest) -> Self {
        let lacks = nearest.lacks.as_str();
        let document = Self { worker_id: &nearest.worker_id, lacks, ..Self::default() };
        match &nearest.lacks {
            Lack::FreeSlot { held, slots } => {
                Self { held_tasks: Some(*held), slots: Some(*slots), ..document }
            }
            Lack::TypeSlot { held, limit } => {
                Self { held_tasks: Some(*held), slots: Some(*limit), ..document }
            }
            Lack::Trust(until) => Self { set_aside_until: Some(until.to_string()), ..document },
            Lack::Credits | Lack::Permanence => document,
            Lack::Needs(unmet) => {
                Self { requires: Some(&unmet.needs), has: unmet.has.as_deref(), ..document }
            }
            Lack::TaskType { serves, similar } => Self {
                supported_tasks: serves.iter().map(|name| &**name).collect(),
                similar_task_type: similar.as_deref(),
                ..document
            },
        }
    }
}

#[derive(Serialize)]
struct Children {
    total: u32,
    started: u32,
    ended: u32,
    failed: u32,
    max_parallel: Option<u32>,
    tolerated: Option<u32>,
    running_job_ids: Vec<String>,
}

impl Children {
    fn of(counts: &ChildCounts) -> Self {
        let ChildCounts { total, started, running, failed, plan } = *counts;
        Self {
            total,
            started,
            ended: started.saturating_sub(running),
            failed,
            max_parallel: plan.map(|plan| plan.max_parallel),
            tolerated: plan.map(|plan| plan.tolerated),
            running_job_ids: Vec::new(),
        }
    }
}

#[derive(Serialize)]
struct Approval<'a> {
    message: Option<&'a str>,
    decisions: Vec<&'a str>,
}

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    kept: Vec<KeptSignal<'a>>,
}

#[derive(Serialize)]
struct KeptSignal<'a> {
    name: &'a str,
    at: String,
    same_name: bool,
}

impl<'a> Event<'a> {
    fn of(job: &'a Job, name: &'a str) -> Self {
        let kept = job.signals.iter().map(|signal| KeptSignal {
            name: &signal.name,
            at: signal.at.to_string(),
            same_name: *signal.name == *name,
        });
        Self { name, kept: kept.collect() }
    }
}

#[derive(Serialize)]
struct AwaitedKeys<'a> {
    scope: &'static str,
    keys: Vec<Key<'a>>,
}

#[derive(Serialize)]
struct Key<'a> {
    key: &'a str,
    limit: u32,
    per: Option<String>,
    burst: Option<u32>,
    policy: &'static str,
    has_room: bool,
    held: u64,
    holder_job_ids: Vec<String>,
    ahead: u64,
    waiting: u64,
    next_token_at: Option<String>,
}

impl<'a> Key<'a> {
    fn of(key: &'a AwaitedKey) -> Self {
        let (limit, rate) = match key.share.limit {
            KeyLimit::Concurrency(limit) => (limit, None),
            KeyLimit::Rate(rate) => (rate.count, Some(rate)),
        };
        Self {
            key: &key.share.key,
            limit,
            per: rate.map(|rate| span::text(rate.per)),
            burst: rate.map(|rate| rate.burst),
            policy: key.share.policy.as_str(),
            has_room: key.has_room,
            held: key.held,
            holder_job_ids: key.holders.iter().map(ToString::to_string).collect(),
            ahead: key.ahead,
            waiting: key.waiting,
            next_token_at: time(key.next_token_at),
        }
    }
}

#[derive(Serialize)]
struct Step {
    action: &'static str,
    what: String,
    command: String,
}

impl Step {
    fn of(step: NextStep) -> Self {
        let NextStep { action, what, command } = step;
        Self { action, what, command }
    }
}

fn time(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}
