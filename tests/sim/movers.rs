//! Every open job has something that will move it on: a worker that holds its task, a place in a queue, a timer, children that
//! are looked after. What has none is forgotten, and what has two is in danger.

use avtomatika_orchestrator::{
    conductor::stepped::Stepped,
    engine::{Job, JobStatus},
    time::Timestamp,
};

use crate::{
    invariants::{Checked, Invariant, Violation, require},
    model::Model,
};

/// Looks for what moves this open job on, in a process whose clock shows `now`. Whether it is something that was noticed on a
/// full disk and is to be decided again.
pub fn check(conductor: &Stepped, job: &Job, model: &Model, now: Timestamp) -> Result<bool, Violation> {
    let Some(hold) = conductor.hold(job) else {
        let what = format!("the conductor does not know {job:?}");
        return Err(Violation { invariant: Invariant::MemoryFollowsStore, what });
    };
    if hold.is_changing || hold.is_to_be_tried_again {
        return Ok(hold.is_to_be_tried_again);
    }
    let timed = hold.timer.is_some();
    let moves = match job.status {
        JobStatus::WaitingForWorker => {
            let task_id = job.attempt.as_ref().map(|attempt| attempt.task_id);
            let known = task_id.and_then(|task_id| model.holder(task_id));
            hold.is_queued != hold.holder.is_some() && (hold.is_queued || known == hold.holder)
        }
        JobStatus::WaitingForTimer => timed,
        JobStatus::WaitingForKey => hold.stands_in_line,
        JobStatus::WaitingForEvent | JobStatus::WaitingForHuman => timed || job.resumes_at.is_none(),
        JobStatus::WaitingForChild | JobStatus::WaitingForParallel => hold.has_family,
        _ => false,
    };
    let is_settled = conductor.batch().is_none() && !conductor.has_more_decided();
    if job.status == JobStatus::WaitingForKey && !hold.has_its_turn && is_settled {
        let is_in_the_way = model.key_book.is_in_the_way_of(job);
        require(is_in_the_way, Invariant::NobodyWaitsInVain, || format!("at {now}: {hold:?} for {job:?}"))?;
    }
    let is_timed = timed || job.next_due(now).is_none();
    require(moves && is_timed, Invariant::EverythingHasAMover, || format!("at {now}: {hold:?} for {job:?}"))?;
    Ok(false)
}

/// Every lease is that of a connected session, and of an attempt that the model knows it for.
pub fn check_leases(conductor: &Stepped, model: &Model) -> Checked {
    for (task_id, job_id, session_id) in conductor.leases() {
        let job = model.job(job_id);
        let current = job.and_then(|job| job.attempt.as_ref()).map(|attempt| attempt.task_id);
        let is_changing = job.is_some_and(|job| conductor.hold(job).is_none_or(|hold| hold.is_changing));
        let sound = conductor.is_connected(session_id)
            && model.holder(task_id) == Some(session_id)
            && (current == Some(task_id) || is_changing);
        require(sound, Invariant::MemoryFollowsStore, || {
            format!("{session_id} holds {task_id}, and durable is {job:?}")
        })?;
    }
    Ok(())
}
