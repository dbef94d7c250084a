//! An explanation on the wire.

use avtomatika_proto::v1::{self, explanation::Detail};

use super::{current_task, timestamp};
use crate::{
    api::explain::{NextStep, next_steps, summary},
    blueprint::KeyLimit,
    conductor::{AwaitedKey, ChildCounts, Explanation, Failing, Situation},
    dispatch::{Lack, Nearest, Standing},
    engine::{Job, Wait},
};

pub(in crate::api) fn explained(explanation: &Explanation) -> v1::ExplainJobResponse {
    let job = &explanation.view.job;
    let lease = explanation.view.lease.as_ref();
    v1::ExplainJobResponse {
        job_id: job.id.to_string(),
        blueprint_name: job.blueprint.to_string(),
        blueprint_version: job.blueprint_version,
        current_state: job.state.to_string(),
        status: i32::from(explanation.view.status() as u8),
        explanation: Some(v1::Explanation {
            // The numbers of the protocol are those of the domain, by definition.
            reason: i32::from(explanation.reason() as u8),
            summary: summary(explanation),
            since: Some(timestamp(explanation.since)),
            until: explanation.until().map(timestamp),
            result_deadline: job.result_deadline().filter(|_| !job.status.is_terminal()).map(timestamp),
            storage_full: explanation.storage_full,
            attempts_max: explanation.attempts_max.unwrap_or(0),
            last_failure: explanation.failing.as_ref().map(last_failure),
            detail: detail(explanation),
            next_steps: next_steps(explanation).into_iter().map(next_step).collect(),
        }),
        current_task: job.attempt.as_ref().map(|attempt| current_task(attempt, lease)),
    }
}

fn detail(explanation: &Explanation) -> Option<Detail> {
    let job = &explanation.view.job;
    match &explanation.situation {
        Situation::Worker(standing) => Some(Detail::Queue(queue(job, standing))),
        Situation::Children { counts, running } => {
            let running_job_ids = running.iter().map(ToString::to_string).collect();
            Some(Detail::Children(v1::ChildrenDetail { running_job_ids, ..children(counts) }))
        }
        Situation::Approval { decisions } => {
            let message = match &job.wait {
                Some(Wait::Approval { message: Some(message), .. }) => message.to_string(),
                _ => String::new(),
            };
            let decisions = decisions.iter().map(|decision| decision.to_string()).collect();
            Some(Detail::Approval(v1::ApprovalDetail { message, decisions }))
        }
        Situation::Signal => match &job.wait {
            Some(Wait::Signal { name, .. }) => Some(Detail::Event(event(job, name))),
            _ => None,
        },
        Situation::Keys { scope, keys } => Some(Detail::Keys(v1::KeysDetail {
            scope: scope.as_str().to_owned(),
            keys: keys.iter().map(awaited_key).collect(),
        })),
        _ => None,
    }
}

fn awaited_key(key: &AwaitedKey) -> v1::AwaitedKey {
    let wire = v1::AwaitedKey {
        key: key.share.key.to_string(),
        policy: key.share.policy.as_str().to_owned(),
        has_room: key.has_room,
        held: key.held,
        holder_job_ids: key.holders.iter().map(ToString::to_string).collect(),
        ahead: key.ahead,
        waiting: key.waiting,
        next_token_at: key.next_token_at.map(timestamp),
        ..Default::default()
    };
    match key.share.limit {
        KeyLimit::Concurrency(limit) => v1::AwaitedKey { limit, ..wire },
        KeyLimit::Rate(rate) => {
            let per = prost_types::Duration::try_from(rate.per).ok();
            v1::AwaitedKey { limit: rate.count, per, burst: rate.burst, ..wire }
        }
    }
}

fn queue(job: &Job, standing: &Standing) -> v1::QueueDetail {
    let workers = &standing.workers;
    // There are never more workers than the protocol counts.
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::QueueDetail {
        task_type: job.attempt.as_ref().map(|attempt| attempt.task_type.to_string()).unwrap_or_default(),
        queue_length: standing.position.length,
        ahead: standing.position.ahead,
        ahead_at_least: standing.position.at_least,
        dispatch_deadline: job.dispatch_deadline().map(timestamp),
        connected_workers: number(workers.connected),
        serving_workers: number(workers.serving),
        free_workers: number(workers.free),
        full_workers: number(workers.full),
        paused_workers: number(workers.paused),
        draining_workers: number(workers.draining),
        unsuited_workers: number(workers.unsuited),
        set_aside_workers: number(workers.set_aside),
        expected_workers: number(workers.expected),
        workers_at_least: workers.at_least,
        nearest: standing.nearest.as_ref().map(nearest),
    }
}

fn nearest(nearest: &Nearest) -> v1::NearestWorker {
    let wire = v1::NearestWorker {
        worker_id: nearest.worker_id.to_string(),
        lacks: nearest.lacks.as_str().to_owned(),
        ..Default::default()
    };
    match &nearest.lacks {
        Lack::FreeSlot { held, slots } => v1::NearestWorker { held_tasks: *held, slots: *slots, ..wire },
        Lack::TypeSlot { held, limit } => v1::NearestWorker { held_tasks: *held, slots: *limit, ..wire },
        Lack::Trust(until) => v1::NearestWorker { set_aside_until: Some(timestamp(*until)), ..wire },
        Lack::Credits | Lack::Permanence => wire,
        Lack::Needs(unmet) => v1::NearestWorker {
            requires: unmet.needs.clone(),
            has: unmet.has.clone().unwrap_or_default(),
            ..wire
        },
        Lack::TaskType { serves, similar } => v1::NearestWorker {
            supported_tasks: serves.iter().map(|name| name.to_string()).collect(),
            similar_task_type: similar.as_deref().unwrap_or_default().to_owned(),
            ..wire
        },
    }
}

fn children(counts: &ChildCounts) -> v1::ChildrenDetail {
    let ChildCounts { total, started, running, failed, plan } = *counts;
    v1::ChildrenDetail {
        total,
        started,
        ended: started.saturating_sub(running),
        failed,
        max_parallel: plan.map_or(0, |plan| plan.max_parallel),
        tolerated: plan.map_or(0, |plan| plan.tolerated),
        running_job_ids: Vec::new(),
    }
}

fn event(job: &Job, awaited: &str) -> v1::EventDetail {
    let kept = job.signals.iter().map(|signal| v1::KeptSignal {
        name: signal.name.to_string(),
        at: Some(timestamp(signal.at)),
        same_name: *signal.name == *awaited,
    });
    v1::EventDetail { name: awaited.to_owned(), kept: kept.collect() }
}

fn last_failure(failing: &Failing) -> v1::LastFailure {
    v1::LastFailure {
        state: failing.state.to_string(),
        attempt: failing.attempt.unwrap_or(0),
        worker_id: failing.worker_id.as_deref().unwrap_or_default().to_owned(),
        error_code: failing.error.code.to_string(),
        error_message: failing.error.message.to_string(),
        at: Some(timestamp(failing.at)),
    }
}

fn next_step(step: NextStep) -> v1::NextStep {
    let NextStep { action, what, command } = step;
    v1::NextStep { action: action.to_owned(), what, command }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conductor::Reason;

    #[test]
    fn the_protocol_numbers_reasons_as_the_domain_does() {
        for &reason in Reason::ALL {
            let wire = v1::ExplanationReason::try_from(i32::from(reason as u8)).unwrap();
            let name = wire.as_str_name().to_lowercase();
            assert_eq!(name, format!("explanation_reason_{}", reason.as_str()));
        }
        let of_the_protocol = (1..).map_while(|number| v1::ExplanationReason::try_from(number).ok());
        assert_eq!(of_the_protocol.count(), Reason::ALL.len());
    }
}
