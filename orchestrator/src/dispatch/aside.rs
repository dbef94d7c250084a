//! Tasks aside: they have their place in the queue, and their offers are left to be made again.
//!
//! It promises to name those whose turn comes next before it comes, so that nobody waits for them. It refuses to know where
//! offers are read from.

use avtomatika_proto::TaskId;

use super::{ClassId, Dispatch, Place};
use crate::{engine::Offer, store::StubTask};

impl Dispatch {
    /// Takes a task from before a restart, aside.
    pub fn restore(&mut self, task: &StubTask, job_key: i64) {
        let class = self.class_of(&task.task_type, task.needs.as_ref());
        self.ready.push_aside(class, task, job_key);
    }

    /// Keeps no more of a ready task than its place in the queue.
    pub fn put_aside(&mut self, task_id: TaskId) {
        self.ready.put_aside(task_id);
    }

    /// Gives a task that is aside its offer back. It stays in the queue until [`Dispatch::pump_all`].
    pub fn supply(&mut self, offer: Offer) {
        self.ready.supply(offer);
    }

    /// Removes a task that is aside and of which no offer can be made.
    pub fn discard(&mut self, place: Place) {
        self.ready.discard(place);
    }

    /// Whether any task is aside.
    pub fn has_aside(&self) -> bool {
        self.ready.has_aside()
    }

    /// Whether a task is aside.
    pub fn is_aside(&self, task_id: TaskId) -> bool {
        self.ready.place_aside(task_id).is_some()
    }

    /// Whether a task has others of its client before it that are aside.
    pub fn is_behind_aside(&self, task_id: TaskId) -> bool {
        self.ready.is_behind_aside(task_id)
    }

    /// Whether a ready task is near its turn.
    pub fn is_near(&self, task_id: TaskId) -> bool {
        self.ready.is_near(task_id)
    }

    /// Those of these tasks that are aside.
    pub fn aside_among(&self, task_ids: &[TaskId]) -> Vec<Place> {
        task_ids.iter().filter_map(|&task_id| self.ready.place_aside(task_id)).collect()
    }

    /// The tasks aside whose turn comes next, at most `limit`: of each class that a connected worker serves and of which too few
    /// are at hand, or none with `in_need`. See [`RUN_MIN`](super::RUN_MIN).
    pub fn wanted(&self, in_need: bool, limit: usize) -> Vec<Place> {
        if self.paused || !self.ready.has_aside() {
            return Vec::new();
        }
        let served = self.classes.iter().filter(|(class, _)| self.placement.is_served(*class));
        let short = served.map(|(class, _)| class).filter(|&class| self.ready.runs_short(class, in_need));
        let short: Vec<ClassId> = short.collect();
        let share = (limit / short.len().max(1)).max(1);
        short.into_iter().flat_map(|class| self.ready.wanted(class, in_need, share)).collect()
    }

    /// Bytes of the params of ready tasks.
    pub fn params_bytes(&self) -> usize {
        self.ready.params_bytes()
    }
}
