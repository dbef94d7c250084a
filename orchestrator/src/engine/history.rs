//! What happened to a job, entry by entry. Entries are written with the change that they tell of, and never altered.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::TaskId;

use super::JobError;
use crate::time::Timestamp;

/// One thing that happened to a job. Fields that do not apply are absent.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// Position in the job's history, from 0, without gaps.
    pub sequence: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub event: HistoryEvent,
    /// The state in which it happened, or which was entered.
    pub state: Arc<str>,
    /// The state that was left.
    pub from_state: Option<Arc<str>>,
    /// What selected the transition, or what the attempt ended with.
    pub outcome: Option<Arc<str>>,
    /// The attempt.
    pub task_id: Option<TaskId>,
    /// Its number.
    pub attempt: Option<u32>,
    /// The worker that the news came from, or that was lost.
    pub worker_id: Option<Arc<str>>,
    /// What went wrong.
    pub error: Option<JobError>,
    /// How long the worker held the task, or how long the job is to wait.
    pub duration: Option<Duration>,
    /// Which human or client it was.
    pub by: Option<Arc<str>>,
    /// What it was about, or why: a signal's name, a reason, a comment.
    pub detail: Option<Arc<str>>,
}

macro_rules! history_events {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal;)*) => {
        /// The kinds of things that happen to a job.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum HistoryEvent { $($(#[$doc])* $variant = $number,)* }

        impl HistoryEvent {
            /// Every kind.
            pub const ALL: &[HistoryEvent] = &[$(Self::$variant),*];

            /// Its name on every surface.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The kind with this number, as stored.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

history_events! {
    /// The client's request was accepted.
    JobAccepted = 1 "job_accepted";
    /// The job moved.
    StateEntered = 2 "state_entered";
    /// An attempt became ready for a worker.
    TaskReady = 3 "task_ready";
    /// An attempt ended with an outcome of its own choice: success or a custom one.
    TaskSucceeded = 4 "task_succeeded";
    /// An attempt failed.
    TaskFailed = 5 "task_failed";
    /// An attempt took too long, or found no worker in time.
    TaskTimedOut = 6 "task_timed_out";
    /// A worker gave an attempt up.
    TaskCancelled = 7 "task_cancelled";
    /// Another attempt will follow.
    RetryScheduled = 8 "retry_scheduled";
    /// The worker that held the attempt is gone.
    WorkerLost = 9 "worker_lost";
    /// The client cancelled the job.
    JobCancelled = 10 "job_cancelled";
    /// The job ended well.
    JobFinished = 11 "job_finished";
    /// The job ended badly.
    JobFailed = 12 "job_failed";
    /// The job was stopped for a human.
    JobQuarantined = 13 "job_quarantined";
    /// The worker that held the attempt stops, and gave it back.
    TaskReturned = 14 "task_returned";
    /// The job waits for a point in time.
    WaitStarted = 15 "wait_started";
    /// What the job waited for did not come in time, or its wait is over.
    WaitEnded = 16 "wait_ended";
    /// A signal came that nobody waits for yet; it is kept.
    SignalKept = 17 "signal_kept";
    /// A signal came that the job waited for, or one that was kept was taken.
    SignalReceived = 18 "signal_received";
    /// A human is asked.
    ApprovalRequested = 19 "approval_requested";
    /// A human has decided.
    ApprovalDecided = 20 "approval_decided";
    /// Children were started.
    ChildrenStarted = 21 "children_started";
    /// All children have ended.
    ChildrenEnded = 22 "children_ended";
    /// A human started the job again.
    JobRetried = 23 "job_retried";
    /// A human said what the state shall have ended with.
    StateSkipped = 24 "state_skipped";
    /// The job moved to another version of its blueprint.
    JobMigrated = 25 "job_migrated";
    /// The worker that holds the attempt said how far it is, for the next attempt.
    CheckpointSaved = 26 "checkpoint_saved";
}
