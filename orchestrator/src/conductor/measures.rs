//! How much there is of everything right now, for the page of figures. Costs the conductor a look at each connected worker and
//! each queue, so whoever asks does so seldom: see [`crate::api`]'s scrape.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{core::Core, view::WorkerStatus};
use crate::engine::JobStatus;

/// The tasks of one type that no worker has yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueMeasure {
    /// How many.
    pub ready: u64,
    /// How long the oldest has been waiting.
    pub oldest_age: Duration,
    /// Connected workers that serve the type, with a free slot or without.
    pub workers: u64,
}

/// The present state of the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measures {
    /// Open jobs by status.
    pub open_jobs: BTreeMap<JobStatus, u64>,
    /// Open jobs that rest in the store.
    pub resting_jobs: u64,
    /// About how much memory the others take, in bytes.
    pub resident_bytes: u64,
    /// Every task type that has ready tasks or connected workers.
    pub queues: BTreeMap<Arc<str>, QueueMeasure>,
    /// Tasks in workers' hands.
    pub running_tasks: u64,
    /// Sessions by what they do: the names of [`WorkerStatus`], `registered` (no stream yet), `expected` (from before a restart).
    pub sessions: BTreeMap<&'static str, u64>,
    /// Tasks that connected workers are willing to take now.
    pub free_slots: u64,
    /// Tasks that fill their slots.
    pub taken_slots: u64,
    /// Messages that wait for webhooks.
    pub undelivered_notices: u64,
}

/// What a session does that has no stream yet.
pub const REGISTERED: &str = "registered";

/// What a session does that is expected back.
pub const EXPECTED: &str = "expected";

/// Everything that a session can be doing.
pub const SESSION_STATES: [&str; 8] = [
    WorkerStatus::Idle.as_str(),
    WorkerStatus::Busy.as_str(),
    WorkerStatus::Full.as_str(),
    WorkerStatus::Draining.as_str(),
    WorkerStatus::SetAside.as_str(),
    WorkerStatus::Suspected.as_str(),
    REGISTERED,
    EXPECTED,
];

impl Core {
    pub(super) fn measures(&self) -> Measures {
        let roster = self.dispatch.roster();
        let mut sessions = BTreeMap::from([
            (REGISTERED, self.waiting.len() as u64),
            (EXPECTED, self.dispatch.expected_count() as u64),
        ]);
        let (mut free_slots, mut taken_slots) = (0, 0);
        for session in roster.iter() {
            *sessions.entry(session.status().as_str()).or_default() += 1;
            free_slots += u64::from(session.free());
            taken_slots += u64::from(session.held());
        }
        let stats = self.stats();
        Measures {
            open_jobs: stats.jobs.into_iter().filter(|(status, _)| !status.is_terminal()).collect(),
            resting_jobs: self.book.resting_total() as u64,
            resident_bytes: self.resident_bytes() as u64,
            queues: self.queues(),
            running_tasks: stats.running_tasks,
            sessions,
            free_slots,
            taken_slots,
            undelivered_notices: stats.undelivered_notices,
        }
    }

    fn queues(&self) -> BTreeMap<Arc<str>, QueueMeasure> {
        let now = self.clock.now();
        let roster = self.dispatch.roster();
        let mut queues: BTreeMap<Arc<str>, QueueMeasure> =
            roster.served_types().map(|task_type| (task_type.clone(), QueueMeasure::default())).collect();
        for (task_type, ready) in self.dispatch.ready_counts() {
            queues.entry(task_type).or_default().ready = ready;
        }
        for (task_type, since) in self.dispatch.oldest() {
            queues.entry(task_type).or_default().oldest_age = now.saturating_since(since);
        }
        for (task_type, queue) in &mut queues {
            queue.workers = roster.serving_count(task_type) as u64;
        }
        queues
    }
}
