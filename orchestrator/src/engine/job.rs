//! A job: what is true of one run of a blueprint. Everything here is durable; what only this process knows (which worker
//! holds the task, how far it is) is not here.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use avtomatika_proto::{JobId, TaskId, trace::TraceContext};

use super::{Claim, Hold, KeyScope, RepairKey};
use crate::{
    blueprint::Scope,
    json::Json,
    museum::{Mistake, plants},
    time::Timestamp,
};

/// One run of a blueprint for one client. Cloning is cheap: every large part is shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Who submitted it, and alone may see it.
    pub client: Arc<str>,
    /// The blueprint it follows.
    pub blueprint: Arc<str>,
    /// The version it started with and keeps, unless a human moves it to another.
    pub blueprint_version: u32,
    /// Whether a human has moved it to another version than it started with.
    pub migrated: bool,
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
    /// What the branches of the last map ended with: the text of a JSON list.
    pub results: Option<Arc<str>>,
    /// What the last attempt that ended told with its outcome, or how a human decided.
    pub outcome: Option<Arc<str>>,
    /// Why it failed, was quarantined, or waits to try again.
    pub error: Option<JobError>,
    /// The state that failed last: where a retry begins.
    pub failed_state: Option<Arc<str>>,
    /// How far the last attempt at the present task came, for the next one.
    pub checkpoint: Option<Json>,
    /// Signals that came before anybody waited for them, oldest first.
    pub signals: Vec<Signal>,
    /// Names of the signals that came last, so that a repeated one is noticed.
    pub signal_ids: Vec<Arc<str>>,
    /// Keys of the repairs that came last, so that a repeated one is noticed.
    pub repair_keys: Vec<RepairKey>,
    /// The input as it was edited by a retry, instead of the submission's.
    pub edited_data: Option<Json>,
    /// When it was last started again by a retry: its time begins anew.
    pub restarted_at: Option<Timestamp>,
    /// Failed tries of the current state's task that were followed by another.
    pub retry_count: u32,
    /// Moves from state to state so far.
    pub transitions: u32,
    /// Workers that the current state's task has cost.
    pub workers_lost: u32,
    /// The keys that it takes from its start to its end: held, unless it waits for them.
    pub claim: Option<Hold>,
    /// The keys that its attempt takes: held, unless the job waits for them.
    pub task_claim: Option<Hold>,
    /// The attempt that the job waits for.
    pub attempt: Option<Attempt>,
    /// What it waits for, when that is neither a task nor the next try of one.
    pub wait: Option<Wait>,
    /// When it goes on by itself: the next try, the end of a wait, or the deadline of what it waits for.
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

/// That it was accepted and that it failed. Whoever begins enters a state first, and nothing is added to these two.
const STILLBORN_HISTORY_LEN: u64 = 2;

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
    /// Not before this time.
    pub start_at: Option<Timestamp>,
    /// Who is told of its end and of its approvals.
    pub webhook_url: Option<Arc<str>>,
    /// The job that made it.
    pub parent: Option<Parent>,
    /// The trace that it belongs to, and the span in it that made it.
    pub trace: Option<Arc<TraceContext>>,
}

impl Submission {
    /// With this input, and nothing else asked for.
    pub fn of(initial_data: Json) -> Self {
        Self {
            initial_data,
            labels: BTreeMap::new(),
            priority: 0,
            dispatch_timeout: None,
            result_timeout: None,
            start_at: None,
            webhook_url: None,
            parent: None,
            trace: None,
        }
    }
}

/// How a child belongs to the job that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// That job.
    pub job_id: JobId,
    /// Which of its children this is, from 0.
    pub index: u32,
    /// Parents above it: 1 for the child of a job that a client submitted.
    pub depth: u32,
    /// What kind of child.
    pub kind: ChildKind,
    /// The keys that a branch takes, as its parent's state gives them.
    pub claim: Option<Arc<Claim>>,
    /// The keys of which those above hold one at once: it works under these, and does not take them again.
    pub slots: Vec<Arc<str>>,
}

/// What kind of child a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChildKind {
    /// A task of its parent's map: it stands in its parent's blueprint and does this one task.
    Branch = 1,
    /// A job of a blueprint that its parent waits for.
    Run = 2,
    /// A job of a blueprint that lives on by itself.
    Detached = 3,
}

impl ChildKind {
    /// The kind with this number, as stored.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Branch, Self::Run, Self::Detached].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What a job waits for beside tasks and retries. Its deadline, if there is one, is the job's `resumes_at`.
#[derive(Clone, PartialEq, Eq)]
pub enum Wait {
    /// Its start.
    Start,
    /// A point in time.
    Timer,
    /// A signal.
    Signal {
        /// Its name.
        name: Arc<str>,
        /// Since when.
        since: Timestamp,
    },
    /// A human's decision.
    Approval {
        /// Whoever has it may decide, once.
        token: Arc<str>,
        /// What the human is asked.
        message: Option<Arc<str>>,
        /// Since when.
        since: Timestamp,
    },
    /// The end of its children.
    Children(Children),
    /// Room in the keys of its claim for this.
    Keys(KeyScope),
}

impl fmt::Debug for Wait {
    /// Without the token: it is a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("Start"),
            Self::Timer => f.write_str("Timer"),
            Self::Signal { name, since } => {
                f.debug_struct("Signal").field("name", name).field("since", since).finish()
            }
            Self::Approval { token: _, message, since } => {
                let mut shown = f.debug_struct("Approval");
                shown.field("message", message).field("since", since).finish_non_exhaustive()
            }
            Self::Children(children) => f.debug_tuple("Children").field(children).finish(),
            Self::Keys(scope) => f.debug_tuple("Keys").field(scope).finish(),
        }
    }
}

/// The children that a job waits for. Their ids follow from the first one's, so that a parent of ten thousand is no larger
/// than a parent of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Children {
    /// The first one.
    pub first: JobId,
    /// How many.
    pub total: u32,
    /// Since when.
    pub since: Timestamp,
}

impl Children {
    /// The child with this number, from 0.
    pub fn child(&self, index: u32) -> JobId {
        self.first.sibling(index)
    }
}

/// News from outside for a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// What kind of news.
    pub name: Arc<str>,
    /// Its own name, if the sender may repeat it.
    pub id: Option<Arc<str>>,
    /// The news.
    pub data: Json,
    /// When it came: written where it is kept.
    pub at: Timestamp,
}

/// One try at a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The fence: only a result that carries it is applied.
    pub task_id: TaskId,
    /// What a worker must serve.
    pub task_type: Arc<str>,
    /// What else is asked of it: the canonical text of [`Needs`](crate::blueprint::Needs).
    pub needs: Option<Arc<str>>,
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

            /// Whether a human can start the job again: it ended, and not as somebody wanted.
            pub fn is_repairable(self) -> bool {
                matches!(self, Self::Failed | Self::Quarantined)
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
    /// Its branches run.
    WaitingForParallel = 4 "waiting_for_parallel" false;
    /// Its child runs.
    WaitingForChild = 5 "waiting_for_child" false;
    /// A human has to decide.
    WaitingForHuman = 6 "waiting_for_human" false;
    /// Waits for a signal.
    WaitingForEvent = 7 "waiting_for_event" false;
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
    /// A key has no room for it.
    WaitingForKey = 13 "waiting_for_key" false;
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
            migrated: false,
            submission,
            state: blueprint.start.clone(),
            status: JobStatus::Pending,
            state_history: Json::empty(),
            result: None,
            results: None,
            outcome: None,
            error: None,
            failed_state: None,
            checkpoint: None,
            signals: Vec::new(),
            signal_ids: Vec::new(),
            repair_keys: Vec::new(),
            edited_data: None,
            restarted_at: None,
            retry_count: 0,
            transitions: 0,
            workers_lost: 0,
            claim: None,
            task_claim: None,
            attempt: None,
            wait: None,
            resumes_at: None,
            settled_task: None,
            history_len: 0,
            created_at: now,
            updated_at: now,
            finished_at: None,
        }
    }

    /// Its input: as submitted, or as edited since.
    pub fn initial_data(&self) -> &Json {
        self.edited_data.as_ref().unwrap_or(&self.submission.initial_data)
    }

    /// Parents above it.
    pub fn depth(&self) -> u32 {
        self.submission.parent.as_ref().map_or(0, |parent| parent.depth)
    }

    /// Whether it is one task of its parent's map.
    pub fn is_branch(&self) -> bool {
        self.submission.parent.as_ref().is_some_and(|parent| parent.kind == ChildKind::Branch)
    }

    /// Whether it is a child that ended before it entered any state, because its parent could not give it what it needs: its
    /// blueprint, its input or its keys. Nothing can start it later: it has none of them.
    pub fn never_began(&self) -> bool {
        self.submission.parent.is_some()
            && self.status == JobStatus::Failed
            && self.history_len == STILLBORN_HISTORY_LEN
    }

    /// Whether a human can let it go on although it has ended.
    pub fn is_repairable(&self) -> bool {
        self.status.is_repairable() && !self.never_began()
    }

    /// The parent that waits for it. A child that a human has started again is on its own: its parent has gone on.
    pub fn waiting_parent(&self) -> Option<&Parent> {
        let parent = self.submission.parent.as_ref();
        let is_on_its_own = self.restarted_at.is_some() && !plants(Mistake::FanInByArrivals);
        parent.filter(|parent| parent.kind != ChildKind::Detached && !is_on_its_own)
    }

    /// The children that it waits for.
    pub fn children(&self) -> Option<&Children> {
        match &self.wait {
            Some(Wait::Children(children)) => Some(children),
            _ => None,
        }
    }

    /// What the expressions of its blueprint may look at, at this time.
    pub fn scope(&self, now: Timestamp) -> Scope<'_> {
        Scope {
            job_id: self.id,
            blueprint_name: &self.blueprint,
            blueprint_version: self.blueprint_version,
            current_state: &self.state,
            labels: &self.submission.labels,
            priority: self.submission.priority,
            created_at: self.created_at,
            client: &self.client,
            initial_data: self.initial_data(),
            state_history: &self.state_history,
            result: self.result.as_ref(),
            results: self.results.as_deref(),
            item: None,
            signal: None,
            now,
            turn: None,
        }
    }

    /// When the job must have ended, if its client said so.
    pub fn result_deadline(&self) -> Option<Timestamp> {
        let from = self.restarted_at.unwrap_or(self.created_at);
        // What starts later is given its time from then on.
        let from = self.submission.start_at.map_or(from, |start_at| start_at.max(from));
        self.submission.result_timeout.map(|timeout| from + timeout)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Ruling;

    #[test]
    fn a_token_is_never_part_of_what_is_logged() {
        let token: Arc<str> = Arc::from("5ec3e7");
        let wait = Wait::Approval { token: token.clone(), message: None, since: Timestamp::default() };
        let ruling = Ruling {
            token: Some(token.clone()),
            decision: Arc::from("approved"),
            by: Arc::from("anna"),
            comment: None,
            data: Json::empty(),
        };
        let logged = format!("{wait:?} {ruling:?}");
        assert!(logged.contains("anna") && !logged.contains(&*token), "{logged}");
    }
}
