//! A job: what is true of one run of a blueprint. Everything here is durable; what only this process knows (which worker
//! holds the task, how far it is) is not here.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use avtomatika_proto::{JobId, TaskId};

use crate::{blueprint::Scope, json::Json, time::Timestamp};

/// One run of a blueprint for one client. Cloning is cheap: every large part is shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Who submitted it, and alone may see it.
    pub client: Arc<str>,
    /// The blueprint it follows.
    pub blueprint: Arc<str>,
    /// The version it started with and keeps.
    pub blueprint_version: u32,
    /// What it was submitted with. Never changes.
    pub submission: Arc<Submission>,
    /// The state in which it stands or ended.
    pub state: Arc<str>,
    /// What it does there. Never [`JobStatus::Running`]: whether a worker holds the task is not durable.
    pub status: JobStatus,
    /// What the states have gathered.
    pub state_history: Json,
    /// The data of the last result that was applied.
    pub result: Option<Json>,
    /// Why it failed, was quarantined, or waits to try again.
    pub error: Option<JobError>,
    /// Failed tries of the current state's task that were followed by another.
    pub retry_count: u32,
    /// Moves from state to state so far.
    pub transitions: u32,
    /// Workers that the current state's task has cost.
    pub workers_lost: u32,
    /// The attempt that the job waits for.
    pub attempt: Option<Attempt>,
    /// When it goes on by itself, while it waits for a retry.
    pub resumes_at: Option<Timestamp>,
    /// The attempt whose result was applied last: tells a repeated result from a late one.
    pub settled_task: Option<TaskId>,
    /// Entries in its history; the sequence number of the next one.
    pub history_len: u64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it reached its terminal status.
    pub finished_at: Option<Timestamp>,
}

/// What a job was submitted with.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The input.
    pub initial_data: Json,
    /// The client's own marks.
    pub labels: BTreeMap<String, String>,
    /// Higher goes first, within plus and minus [`PRIORITY_MAX`](avtomatika_proto::limits::PRIORITY_MAX).
    pub priority: i32,
    /// Longest that one task may wait for a worker.
    pub dispatch_timeout: Option<Duration>,
    /// Longest that the job may take.
    pub result_timeout: Option<Duration>,
}

/// One try at a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The fence: only a result that carries it is applied.
    pub task_id: TaskId,
    /// What a worker must serve.
    pub task_type: Arc<str>,
    /// From 1 within the state. A lost worker does not use one up.
    pub number: u32,
    /// When it became ready for a worker.
    pub ready_at: Timestamp,
}

/// What went wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// For machines.
    pub code: Arc<str>,
    /// For people.
    pub message: Arc<str>,
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal $terminal:literal;)*) => {
        /// Where a job stands.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum JobStatus { $($(#[$doc])* $variant = $number,)* }

        impl JobStatus {
            /// Every status.
            pub const ALL: &[JobStatus] = &[$(Self::$variant),*];

            /// Its name on every surface.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The status with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// The status with this number; numbers are those of the protocol and of stored records.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// Whether the job has ended.
            pub fn is_terminal(self) -> bool {
                match self { $(Self::$variant => $terminal,)* }
            }
        }
    };
}

statuses! {
    /// Accepted, not yet moved.
    Pending = 1 "pending" false;
    /// A worker holds the task. Only in views, never in a stored job.
    Running = 2 "running" false;
    /// The task is ready for a worker.
    WaitingForWorker = 3 "waiting_for_worker" false;
    /// Waits for a point in time.
    WaitingForTimer = 8 "waiting_for_timer" false;
    /// Ended well.
    Finished = 9 "finished" true;
    /// Ended badly.
    Failed = 10 "failed" true;
    /// Ended by its client.
    Cancelled = 11 "cancelled" true;
    /// Stopped for a human.
    Quarantined = 12 "quarantined" true;
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Job {
    /// A job that was accepted and has not moved.
    pub fn accepted(
        id: JobId,
        client: Arc<str>,
        blueprint: &crate::blueprint::Blueprint,
        submission: Arc<Submission>,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            client,
            blueprint: blueprint.name.clone(),
            blueprint_version: blueprint.version,
            submission,
            state: blueprint.start.clone(),
            status: JobStatus::Pending,
            state_history: Json::empty(),
            result: None,
            error: None,
            retry_count: 0,
            transitions: 0,
            workers_lost: 0,
            attempt: None,
            resumes_at: None,
            settled_task: None,
            history_len: 0,
            created_at: now,
            updated_at: now,
            finished_at: None,
        }
    }

    /// What the expressions of its blueprint may look at.
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            job_id: self.id,
            blueprint_name: &self.blueprint,
            blueprint_version: self.blueprint_version,
            current_state: &self.state,
            labels: &self.submission.labels,
            priority: self.submission.priority,
            created_at: self.created_at,
            client: &self.client,
            initial_data: &self.submission.initial_data,
            state_history: &self.state_history,
            result: self.result.as_ref(),
            results: None,
            item: None,
            signal: None,
            now: self.updated_at,
        }
    }

    /// When the job must have ended, if its client said so.
    pub fn result_deadline(&self) -> Option<Timestamp> {
        self.submission.result_timeout.map(|timeout| self.created_at + timeout)
    }

    /// When the current attempt must be with a worker, if the client said so.
    pub fn dispatch_deadline(&self) -> Option<Timestamp> {
        let attempt = self.attempt.as_ref()?;
        self.submission.dispatch_timeout.map(|timeout| attempt.ready_at + timeout)
    }

    /// The first point at which something becomes due, be it past.
    pub fn first_due(&self) -> Option<Timestamp> {
        self.next_due(Timestamp::from_micros(i64::MIN))
    }

    /// The first point after `after` at which something becomes due. Derived, hence as durable as the job itself.
    pub fn next_due(&self, after: Timestamp) -> Option<Timestamp> {
        if self.status.is_terminal() {
            return None;
        }
        [self.resumes_at, self.dispatch_deadline(), self.result_deadline()]
            .into_iter()
            .flatten()
            .filter(|&due| due > after)
            .min()
    }
}
