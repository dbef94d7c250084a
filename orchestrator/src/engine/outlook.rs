//! What may still become of a job where it stands: how often its task is tried, what a human may decide, how its state may be
//! skipped. Read from the job and its blueprint; the rules are those of the steps that would be taken.

use std::sync::Arc;

use avtomatika_proto::outcome;

use super::{Job, Wait, task::work_of};
use crate::blueprint::{Blueprint, StateKind};

/// Attempts that the task of the job's present state has at most; `None` when there is no task in it.
pub fn attempts_max(job: &Job, blueprint: &Blueprint) -> Option<u32> {
    work_of(job, blueprint).map(|work| work.retry.max_retries.saturating_add(1))
}

/// What a human may decide where the job stands: nothing, unless it waits for a decision. That it is too late, or that something went
/// wrong, is for time and for the engine to say.
pub fn decisions(job: &Job, blueprint: &Blueprint) -> Vec<Arc<str>> {
    match blueprint.state(&job.state).map(|state| &state.kind) {
        Some(StateKind::Approval(approval)) if matches!(job.wait, Some(Wait::Approval { .. })) => {
            let own = [outcome::TIMEOUT, outcome::FAILURE];
            approval.on.keys().filter(|decision| !own.contains(&&***decision)).cloned().collect()
        }
        _ => Vec::new(),
    }
}

/// The outcomes with which a human may let the job go on past its state; none when it cannot be skipped.
pub fn skips(job: &Job, blueprint: &Blueprint) -> Vec<Arc<str>> {
    let ended = job.status.is_terminal();
    if ended && !job.is_repairable() || matches!(job.wait, Some(Wait::Start)) || job.is_branch() {
        return Vec::new();
    }
    let state = job.failed_state.as_ref().filter(|_| ended).unwrap_or(&job.state);
    let on = match blueprint.state(state).map(|state| &state.kind) {
        Some(StateKind::Task(task)) => &task.on,
        Some(StateKind::Event(event)) => &event.on,
        Some(StateKind::Approval(approval)) => &approval.on,
        Some(StateKind::Run(run)) => &run.on,
        Some(StateKind::Map(map)) => &map.on,
        // There is one way on, whatever the outcome.
        Some(StateKind::Wait(_) | StateKind::Pass(_)) => return vec![Arc::from(outcome::SUCCESS)],
        Some(StateKind::Choice(_) | StateKind::End(_)) | None => return Vec::new(),
    };
    on.keys().cloned().collect()
}
