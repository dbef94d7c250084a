//! Tasks that workers were told to stop: until when each has to be let go, and which workers do not obey.
//!
//! A worker that obeys answers within the grace that it was given. It promises that each order comes to exactly one end, unless the
//! worker's stream ends before. It refuses to know why a task was to be stopped.

use std::{collections::BTreeSet, time::Duration};

use avtomatika_proto::{SessionId, TaskId, limits::CANCEL_GRACE};

use crate::{hash::FastMap, time::Timestamp};

/// How long after the order a task has to be let go: its grace, and time for the order and the answer to travel through queues.
pub const STOPPED_WITHIN: Duration = Duration::from_secs(3).saturating_add(CANCEL_GRACE);

/// What an order to stop came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obedience {
    /// The task was let go.
    Stopped,
    /// Its handler did not stop: the worker killed it, or left it alone.
    Forced,
    /// The worker has not answered in time.
    Overdue,
}

impl Obedience {
    /// Every end.
    pub const ALL: [Self; 3] = [Self::Stopped, Self::Forced, Self::Overdue];

    /// Its label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Forced => "forced",
            Self::Overdue => "overdue",
        }
    }
}

/// Orders to stop that have not come to an end.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    orders: FastMap<(SessionId, TaskId), Timestamp>,
    due: BTreeSet<(Timestamp, SessionId, TaskId)>,
}

impl Stopping {
    /// The worker of this session was told to stop this task.
    pub fn told(&mut self, session_id: SessionId, task_id: TaskId, now: Timestamp) {
        let due = now + STOPPED_WITHIN;
        self.forget(session_id, task_id);
        self.orders.insert((session_id, task_id), due);
        self.due.insert((due, session_id, task_id));
    }

    /// The worker holds the task no more, or it does not matter any more whether it does. Returns whether an answer was still due.
    pub fn forget(&mut self, session_id: SessionId, task_id: TaskId) -> bool {
        let Some(due) = self.orders.remove(&(session_id, task_id)) else { return false };
        self.due.remove(&(due, session_id, task_id))
    }

    /// The next order whose time is over. Each is returned once.
    pub fn overdue(&mut self, now: Timestamp) -> Option<(SessionId, TaskId)> {
        let &(due, session_id, task_id) = self.due.first().filter(|(due, ..)| *due <= now)?;
        self.due.remove(&(due, session_id, task_id));
        self.orders.remove(&(session_id, task_id));
        Some((session_id, task_id))
    }

    /// When [`Stopping::overdue`] next has something to say.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, ..)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_comes_to_one_end() {
        let (worker, now) = (SessionId::from_bytes([1; 16]), Timestamp::from_micros(1));
        let [obeyed, ignored] = [1, 2].map(TaskId::from_random);
        let mut stopping = Stopping::default();
        stopping.told(worker, obeyed, now);
        stopping.told(worker, ignored, now);
        assert!(stopping.forget(worker, obeyed) && !stopping.forget(worker, obeyed));
        let late = now + STOPPED_WITHIN;
        assert_eq!((stopping.overdue(now), stopping.next_due()), (None, Some(late)));
        assert_eq!(stopping.overdue(late), Some((worker, ignored)));
        assert_eq!((stopping.overdue(late), stopping.next_due()), (None, None));
        assert!(!stopping.forget(worker, ignored), "its answer comes too late to count as obedience");
    }
}
