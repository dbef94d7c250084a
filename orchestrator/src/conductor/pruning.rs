//! Jobs that are forgotten. Which they may be is read from the store, beside the conductor; that they go is decided by the
//! conductor and becomes durable with everything else, so that there is still one writer and no further sync.

use avtomatika_proto::{ApiError, JobId};

use super::{
    batch::Afterwards,
    core::Core,
    handle::Conductor,
    mailbox::{Reply, Request},
};
use crate::store::{PruneQuery, PruneSlice, Removal, Write};

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

    /// Forgets these jobs, and answers how many when that is durable. A job that is open, whose end is being made durable, or
    /// that a parent waits for, stays.
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
        removals
            .retain(|removal| !self.book.contains(removal.job_id) && !self.families.needs(removal.job_id));
        let forgotten: Vec<JobId> = removals.iter().map(|removal| removal.job_id).collect();
        self.forgetting.extend(&forgotten);
        self.batch.writes.writes.extend(removals.into_iter().map(Write::RemoveJob));
        self.batch.afterwards.push(Afterwards::Pruned { forgotten, reply });
    }
}
