//! Who wants to know what becomes of which job.

use std::sync::Arc;

use avtomatika_proto::JobId;
use tokio::sync::{mpsc, oneshot};

use super::view::JobView;
use crate::{engine::Job, hash::FastMap};

/// Watchers of one job. Each costs a message for each of its changes.
const WATCHERS_MAX: usize = 1000;

/// Jobs of which watchers may have gone unnoticed, however few are watched.
const UNNOTICED_MAX: usize = 64;

/// Watchers by job. Only jobs that somebody watches have an entry, and at most twice as many again that somebody watched.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    jobs: FastMap<JobId, Watched>,
    /// With how many entries those are let go of whose watchers are gone: a job that rests says nothing by which that would show.
    sweep_at: usize,
}

#[derive(Debug)]
struct Watched {
    /// The job as last committed.
    job: Arc<Job>,
    /// Those who want every change.
    changes: Vec<mpsc::Sender<JobView>>,
    /// Those who want the end.
    ends: Vec<oneshot::Sender<JobView>>,
}

impl Watchers {
    /// Wants every change from now on. The present is sent first.
    pub fn watch(&mut self, present: JobView, sender: mpsc::Sender<JobView>) {
        let job = present.job.clone();
        if sender.try_send(present).is_ok() && !job.status.is_terminal() {
            let changes = &mut self.entry(job).changes;
            changes.retain(|watching| !watching.is_closed());
            // One too many is cut off, as one that reads too slowly is.
            if changes.len() < WATCHERS_MAX {
                changes.push(sender);
            }
        }
    }

    /// Wants to know the end.
    pub fn await_end(&mut self, present: JobView, sender: oneshot::Sender<JobView>) {
        if present.job.status.is_terminal() {
            let _ = sender.send(present);
        } else {
            let watched = self.entry(present.job);
            watched.ends.retain(|waiting| !waiting.is_closed());
            watched.ends.push(sender);
        }
    }

    /// A change of this job is durable.
    pub fn committed(&mut self, job: &Arc<Job>, view: impl FnOnce(Arc<Job>) -> JobView) {
        if self.jobs.is_empty() || !self.jobs.contains_key(&job.id) {
            return;
        }
        if job.status.is_terminal() {
            let view = view(job.clone());
            if let Some(watched) = self.jobs.remove(&job.id) {
                watched.changes.iter().for_each(|sender| drop(sender.try_send(view.clone())));
                watched.ends.into_iter().for_each(|sender| drop(sender.send(view.clone())));
            }
        } else {
            self.update(job.id, Some(job), view);
        }
    }

    /// Something that is not durable has changed: who holds the task, or how far it is.
    pub fn touched(&mut self, id: JobId, view: impl FnOnce(Arc<Job>) -> JobView) {
        self.update(id, None, view);
    }

    fn update(&mut self, id: JobId, job: Option<&Arc<Job>>, view: impl FnOnce(Arc<Job>) -> JobView) {
        let Some(watched) = self.jobs.get_mut(&id) else { return };
        if let Some(job) = job {
            watched.job = job.clone();
        }
        if !watched.changes.is_empty() {
            let view = view(watched.job.clone());
            // A watcher that is gone or too far behind is dropped; its stream ends and it may come again.
            watched.changes.retain(|sender| sender.try_send(view.clone()).is_ok());
        }
        watched.ends.retain(|sender| !sender.is_closed());
        if watched.is_alone() {
            self.jobs.remove(&id);
        }
    }

    fn entry(&mut self, job: Arc<Job>) -> &mut Watched {
        if self.jobs.len() >= self.sweep_at {
            self.jobs.retain(|_, watched| {
                watched.changes.retain(|watching| !watching.is_closed());
                watched.ends.retain(|waiting| !waiting.is_closed());
                !watched.is_alone()
            });
            self.sweep_at = 2 * self.jobs.len() + UNNOTICED_MAX;
        }
        let fresh = || Watched { job: job.clone(), changes: Vec::new(), ends: Vec::new() };
        self.jobs.entry(job.id).or_insert_with(fresh)
    }
}

impl Watched {
    fn is_alone(&self) -> bool {
        self.changes.is_empty() && self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{blueprint::load, engine::Submission, json::Json, time::Timestamp};

    fn view(number: u64) -> JobView {
        let id = JobId::compose(0, 0, number);
        let text = "blueprint: test\nstates:\n  only: { start: true, wait: 1h, next: done }\n  done: { end: finished }\n";
        let blueprint = load("test.yaml", text).unwrap().definition.into_blueprint(1);
        let submission = Arc::new(Submission::of(Json::empty()));
        let job = Job::accepted(id, "acme".into(), &blueprint, submission, Timestamp::default());
        JobView { job: Arc::new(job), lease: None, children: None }
    }

    #[test]
    fn jobs_whose_watchers_have_gone_are_let_go_of_although_nothing_happens_to_them() {
        let mut watchers = Watchers::default();
        let (sender, staying) = oneshot::channel();
        watchers.await_end(view(0), sender);
        for number in 1..10_000 {
            watchers.await_end(view(number), oneshot::channel().0);
            watchers.watch(view(number), mpsc::channel(1).0);
            assert!(watchers.jobs.len() <= 2 + UNNOTICED_MAX, "{} jobs", watchers.jobs.len());
        }
        let end = view(0);
        assert!(watchers.jobs.contains_key(&end.job.id));
        drop(staying);
    }
}
