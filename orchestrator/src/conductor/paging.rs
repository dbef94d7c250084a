//! Which open jobs are in memory, and which rest in the store.
//!
//! A job that waits is put aside when memory is short, or when others of its queue are aside that come before it. It is read
//! again before its turn, while workers that serve its task are connected. It promises that resident jobs and the params of
//! ready tasks take about twice [`Settings::resident_bytes_max`](super::Settings) at most, beside what workers hold; and that
//! what rests is as durable as what is resident, because only a job whose last change is durable is put aside.
//!
//! Nothing else needs a job to be resident: whoever wants one reads it from the store when it is not.

use std::sync::Arc;

use avtomatika_proto::{ApiError, JobId, TaskId};

use super::{
    book::Version,
    core::{AGAIN_AFTER, Core},
    handle::storage_error,
    loader::{LOAD_MAX, Loaded, Wanted, load, offer_of},
};
use crate::{
    dispatch::Place,
    engine::{Event, Job, Offer},
    museum::{Mistake, plants},
    store::StoreError,
};

impl Core {
    /// A job's last change is durable. If it waits, it may be put aside.
    pub fn rest(&mut self, job: &Arc<Job>) {
        let (bytes, limit) = (self.resident_bytes(), self.limits.current().resident_bytes_max);
        if bytes <= limit && !self.dispatch.has_aside() {
            return;
        }
        let stays = match job.attempt.as_ref().map(|attempt| attempt.task_id) {
            Some(task_id) => {
                // A worker's result will need it.
                self.dispatch.lease(task_id).is_some()
                    // One whose task is aside is read again together with it.
                    || !self.dispatch.is_aside(task_id)
                        && !self.dispatch.is_behind_aside(task_id)
                        // The head of a queue has room of its own, so that long queues of other tasks do not slow it down.
                        && (bytes <= limit || bytes <= 2 * limit && self.dispatch.is_near(task_id))
            }
            None => bytes <= limit,
        };
        if !stays
            && self.book.rest(job)
            && let Some(attempt) = &job.attempt
        {
            self.dispatch.put_aside(attempt.task_id);
        }
    }

    /// What was decided on top of a job's last durable change is undone. When that became durable, the job was left in memory for the
    /// sake of what came next; nothing comes next, so it goes where it would have gone then.
    pub fn rest_again(&mut self, job_id: JobId) {
        let Some(job) = self.book.resident(job_id).cloned() else { return };
        if job.status.is_terminal() { self.book.close(&job) } else { self.rest(&job) }
    }

    /// About how much memory the resident jobs and the params of ready tasks take.
    pub fn resident_bytes(&self) -> usize {
        self.book.resident_bytes() + self.dispatch.params_bytes()
    }

    /// The jobs that the loader should read now. Whoever calls it brings them to [`Core::loaded`].
    pub fn take_wanted(&mut self) -> Option<Vec<Wanted>> {
        if self.loading || self.load_again_at.is_some() || !self.dispatch.has_aside() {
            return None;
        }
        let in_need = self.resident_bytes() > 2 * self.limits.current().resident_bytes_max;
        let wanted = self.wanted(self.dispatch.wanted(in_need, LOAD_MAX));
        self.loading = !wanted.is_empty();
        self.loading.then_some(wanted)
    }

    /// The jobs whose tasks stand there. One that is being changed is left out: it rests again when the change is durable, or the
    /// change takes its task away.
    fn wanted(&self, places: Vec<Place>) -> Vec<Wanted> {
        let wanted = |place: Place| {
            let (id, version) = self.book.resting(place.job_key())?;
            Some(Wanted { id, version, place })
        };
        places.into_iter().filter_map(wanted).collect()
    }

    /// The loader has answered.
    pub fn loaded(&mut self, loaded: Vec<Loaded>) {
        self.loading = false;
        let now = self.clock.now();
        if let Err(error) = self.bring_back(loaded) {
            tracing::error!(%error, hint = error.hint(), "waiting jobs cannot be read");
            self.load_again_at = Some(now + AGAIN_AFTER);
        }
        self.dispatch.pump_all(now);
        self.tell_handed();
    }

    /// Makes jobs resident and their tasks ready that are aside and that a worker says it holds.
    pub fn bring_back_held(&mut self, held: &[TaskId]) -> Result<(), ApiError> {
        let places = self.dispatch.aside_among(held);
        // A job that is being changed is here as it will be. Unless the change gives the attempt up, its worker goes on.
        for place in &places {
            if let Some(job) = self.book.resident_with(place.job_key())
                && let Some(offer) = offer_of(job, &self.blueprints)
            {
                self.dispatch.supply(offer);
            }
        }
        let mut wanted = self.wanted(places);
        while !wanted.is_empty() {
            let loaded = load(&*self.store, &self.blueprints, &wanted);
            wanted.drain(..loaded.len());
            self.bring_back(loaded).map_err(storage_error)?;
        }
        Ok(())
    }

    fn bring_back(&mut self, loaded: Vec<Loaded>) -> Result<(), StoreError> {
        for Loaded { wanted, found } in loaded {
            let resting = self.book.resting(wanted.place.job_key());
            if resting != Some((wanted.id, wanted.version)) && !plants(Mistake::OldVersionBroughtBack) {
                // It was changed meanwhile.
                continue;
            }
            match found {
                Ok(Some((job, offer))) if Version::of(&job) == wanted.version => {
                    self.bring_back_one(wanted.place, job, offer);
                }
                Ok(_) => self.give_up(wanted, "the store has another version of it, or none"),
                Err(error @ StoreError::Corrupt { .. }) => self.give_up(wanted, &error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn bring_back_one(&mut self, place: Place, job: Arc<Job>, offer: Option<Offer>) {
        self.book.bring_back(job.clone());
        match (offer, &job.attempt) {
            (Some(offer), _) => self.dispatch.supply(offer),
            (None, attempt) => {
                // Hardly possible: the version of the blueprint was stored before the job, and the params were computed before
                // the attempt was stored.
                tracing::error!(job = %job.id, "The task of job {} cannot be offered again", job.id);
                self.dispatch.discard(place);
                if let Some(attempt) = attempt {
                    self.notice(job.id, Event::NotOfferable { task_id: attempt.task_id });
                }
            }
        }
    }

    /// A job cannot be read. Its task must not hold up the queue; the job stays open, and its client can ask for it and is told.
    fn give_up(&mut self, wanted: Wanted, reason: &str) {
        tracing::error!(
            job = %wanted.id,
            "Job {} waits for a worker and cannot be read, so it is left out: {reason}",
            wanted.id
        );
        self.dispatch.discard(wanted.place);
    }
}
