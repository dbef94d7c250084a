//! Jobs that are forgotten. Which they may be is read from the store, beside the conductor; that they go is decided by the
//! conductor and becomes durable with everything else, so that there is still one writer and no further sync.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use avtomatika_proto::{ApiError, JobId};

use super::{
    batch::Afterwards,
    core::Core,
    handle::Conductor,
    mailbox::{Reply, Request},
};
use crate::{
    engine::Event,
    store::{PruneQuery, PruneSlice, Removal, Write},
    time::Timestamp,
};

/// How long somebody who has read that a job has ended may believe it: from the read to the request that rests on it.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

impl Conductor {
    /// Jobs that have ended and may be forgotten: see [`Store::prunable`](crate::store::Store::prunable).
    ///
    /// # Errors
    /// `STORAGE_FAILED`.
    pub async fn prunable(&self, query: PruneQuery) -> Result<PruneSlice, ApiError> {
        self.read(move |store| store.prunable(&query)).await
    }

    /// How many jobs have ended and are kept.
    ///
    /// # Errors
    /// `STORAGE_FAILED`.
    pub async fn ended_total(&self) -> Result<u64, ApiError> {
        self.read(|store| store.ended_total()).await
    }

    /// Forgets these jobs, and answers how many when that is durable. A job that is open, whose end is being made durable, that a
    /// parent waits for, or that was repaired less than a minute ago, stays.
    ///
    /// # Errors
    /// `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`: nothing was forgotten.
    pub async fn prune(&self, removals: Vec<Removal>) -> Result<usize, ApiError> {
        self.mailbox.ask(|reply| Request::Prune(removals, reply)).await?
    }
}

impl Core {
    pub(super) fn prune(&mut self, mut removals: Vec<Removal>, reply: Reply<Result<usize, ApiError>>) {
        if let Err(error) = self.check_serving() {
            return drop(reply.send(Err(error)));
        }
        self.reopened.let_go(self.clock.now());
        removals.retain(|removal| {
            let job_id = removal.job_id;
            !self.book.contains(job_id) && !self.is_needed(job_id) && !self.reopened.contains(job_id)
        });
        let forgotten: Vec<JobId> = removals.iter().map(|removal| removal.job_id).collect();
        self.forgetting.extend(&forgotten);
        self.batch.writes.writes.extend(removals.into_iter().map(Write::RemoveJob));
        self.batch.afterwards.push(Afterwards::Pruned { forgotten, reply });
    }

    /// These are no longer on their way out: they are gone, or they stay.
    pub(super) fn forgetting_is_over(&mut self, job_ids: &[JobId]) {
        for job_id in job_ids {
            self.forgetting.remove(job_id);
        }
    }

    /// Whether a parent waits for this job, in the store at least: one that could not be told yet how its children have ended will be
    /// told again, and after a crash from the children themselves.
    fn is_needed(&self, job_id: JobId) -> bool {
        let is_untold = |event: &Event| match event {
            Event::ChildrenEnded(harvest) => harvest.covers(job_id),
            _ => false,
        };
        self.families.needs(job_id) || self.again.iter().any(|(_, event)| is_untold(event))
    }
}

/// Jobs that had ended and were repaired, for as long as somebody may believe that they ended long ago: they may have ended anew.
#[derive(Debug, Default)]
pub(super) struct Reopened {
    last: HashMap<JobId, Timestamp>,
    in_order: VecDeque<(Timestamp, JobId)>,
}

impl Reopened {
    pub(super) fn add(&mut self, job_id: JobId, now: Timestamp) {
        self.let_go(now);
        self.last.insert(job_id, now);
        self.in_order.push_back((now, job_id));
    }

    fn contains(&self, job_id: JobId) -> bool {
        self.last.contains_key(&job_id)
    }

    /// Nobody believes it any more of those that were repaired long enough ago.
    fn let_go(&mut self, now: Timestamp) {
        while let Some(&(at, job_id)) = self.in_order.front()
            && at + BELIEVED_FOR <= now
        {
            self.in_order.pop_front();
            if self.last.get(&job_id) == Some(&at) {
                self.last.remove(&job_id);
            }
        }
    }
}
