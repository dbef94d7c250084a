//! Who wants to know what becomes of which job.

use std::{collections::HashMap, sync::Arc};

use avtomatika_proto::JobId;
use tokio::sync::{mpsc, oneshot};

use super::view::JobView;
use crate::engine::Job;

/// Watchers of one job. Each costs a message for each of its changes.
const WATCHERS_MAX: usize = 1000;

/// Watchers by job. Only jobs that somebody watches have an entry.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    jobs: HashMap<JobId, Watched>,
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
        if watched.changes.is_empty() && watched.ends.is_empty() {
            self.jobs.remove(&id);
        }
    }

    fn entry(&mut self, job: Arc<Job>) -> &mut Watched {
        let fresh = || Watched { job: job.clone(), changes: Vec::new(), ends: Vec::new() };
        self.jobs.entry(job.id).or_insert_with(fresh)
    }
}
