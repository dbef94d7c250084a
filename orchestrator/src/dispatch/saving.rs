//! When the checkpoints of attempts become durable.
//!
//! A checkpoint outlives its worker as soon as it has arrived. To outlive this process it has to be stored, which costs a commit and
//! an entry in the job's history. It promises that the first one is stored at once, and that of those that follow the latest is
//! stored before a kill could cost more than a tenth of the attempt's work. It refuses to know what is in them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use avtomatika_proto::{JobId, TaskId};

use crate::{json::Json, time::Timestamp};

/// Between two checkpoints of one attempt that are stored: a tenth of the time for which it has run, but neither less nor more than
/// these. An attempt of ten hours leaves some 700 entries in its job's history.
const SAVED_EVERY_MIN: Duration = Duration::from_secs(1);
const SAVED_EVERY_MAX: Duration = Duration::from_secs(60);

/// A checkpoint that is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsaved {
    /// The attempt.
    pub task_id: TaskId,
    /// The job that waits for it.
    pub job_id: JobId,
    /// Who holds it.
    pub worker_id: Arc<str>,
    /// How far it is.
    pub checkpoint: Json,
}

/// How far the checkpoints of one attempt are durable.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Saved {
    last: Option<Timestamp>,
    due: Option<Timestamp>,
}

/// The attempts that have said something which is not stored.
#[derive(Debug, Default)]
pub(super) struct Saving {
    due: BTreeSet<(Timestamp, TaskId)>,
}

impl Saving {
    /// An attempt that runs since `since` has said how far it is.
    pub fn said(&mut self, task_id: TaskId, saved: &mut Saved, since: Timestamp, now: Timestamp) {
        if saved.due.is_some() {
            return;
        }
        let pause = (now.saturating_since(since) / 10).clamp(SAVED_EVERY_MIN, SAVED_EVERY_MAX);
        let due = saved.last.map_or(now, |last| now.max(last + pause));
        saved.due = Some(due);
        self.due.insert((due, task_id));
    }

    /// The attempt is over, and what it said goes with its end.
    pub fn forget(&mut self, task_id: TaskId, saved: Saved) {
        if let Some(due) = saved.due {
            self.due.remove(&(due, task_id));
        }
    }

    /// The next attempt whose latest checkpoint is to be stored now. Its owner calls [`Saved::store`].
    pub fn next(&mut self, now: Timestamp) -> Option<TaskId> {
        let &(due, task_id) = self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, task_id));
        Some(task_id)
    }

    /// When [`Saving::next`] next has something to say.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }
}

impl Saved {
    /// The latest checkpoint is being stored.
    pub fn store(&mut self, now: Timestamp) {
        *self = Self { last: Some(now), due: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_stored_at_once_and_the_latest_of_those_that_follow_before_long() {
        let task_id = TaskId::from_random(1);
        let began = Timestamp::from_micros(0);
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let (mut saving, mut saved) = (Saving::default(), Saved::default());
        let mut stored = Vec::new();
        // It says something each second, for an hour.
        for second in 0..3600 {
            saving.said(task_id, &mut saved, began, at(second));
            while let Some(next) = saving.next(at(second)) {
                assert_eq!(next, task_id);
                saved.store(at(second));
                stored.push(second);
            }
        }
        assert_eq!(stored[..5], [0, 1, 2, 3, 4]);
        for pair in stored.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            assert!(after - before <= (before / 10 + 2).min(61), "{before} and {after}");
        }
        assert!(stored.len() < 150, "{} commits for an hour", stored.len());
        saving.said(task_id, &mut saved, began, at(3600));
        assert!(saving.next_due().is_some());
        saving.forget(task_id, saved);
        assert_eq!(saving.next_due(), None);
    }
}
