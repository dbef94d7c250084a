//! A job as its history tells it: the naive reading, entry by entry, of what the engine wrote.
//!
//! It was written from the meaning of the entries and not from the engine, knows only what a reader of the history can know,
//! and finds out by itself where the job must now stand.

use std::sync::Arc;

use avtomatika_orchestrator::{
    blueprint::{Blueprint, StateKind, Transitions},
    engine::{HistoryEntry, HistoryEvent, Job, JobStatus},
    time::Timestamp,
};
use avtomatika_proto::TaskId;

use crate::{
    invariants::{Checked, Invariant, Violation, require},
    quick::QuickSet,
};

/// What the job does, as far as its history tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    New,
    Moving,
    WaitsForTimer,
    WaitsForKey,
    WaitsForWorker,
    WaitsForEvent,
    WaitsForHuman,
    WaitsForChildren,
    Ended(JobStatus),
}

/// The tale so far.
#[derive(Debug, Clone)]
pub struct Tale {
    pub now: Now,
    pub state: Option<Arc<str>>,
    pub attempt: Option<TaskId>,
    pub length: u64,
    transitions: u32,
    /// A human has put the job somewhere: the next state is entered without a move.
    is_placed: bool,
    /// The entry by which the job was last moved to another version.
    moved_in: Option<u64>,
    at: Timestamp,
    told_in: u32,
}

impl Tale {
    pub fn new() -> Self {
        Self {
            now: Now::New,
            state: None,
            attempt: None,
            length: 0,
            transitions: 0,
            is_placed: false,
            moved_in: None,
            at: Timestamp::default(),
            told_in: 0,
        }
    }

    /// The next entry, written in this life of the process.
    pub fn tell(
        &mut self,
        entry: &HistoryEntry,
        law: &Blueprint,
        life: u32,
        settled: &mut QuickSet<TaskId>,
    ) -> Checked {
        use HistoryEvent as E;
        require(entry.sequence == self.length, Invariant::HistoryIsTheJob, || {
            format!("entry {} comes after {} entries", entry.sequence, self.length)
        })?;
        require(life != self.told_in || entry.at >= self.at, Invariant::TimeGoesForward, || {
            format!("entry {} at {} comes after one at {}", entry.sequence, entry.at, self.at)
        })?;
        (self.length, self.at, self.told_in) = (self.length + 1, entry.at, life);
        let ended = matches!(self.now, Now::Ended(_));
        require(
            !ended || matches!(entry.event, E::JobRetried | E::StateSkipped | E::JobMigrated),
            Invariant::TerminalIsTerminal,
            || format!("{:?} after the end of the job", entry.event),
        )?;
        match entry.event {
            E::JobAccepted => return self.expect(self.length == 1, entry),
            E::StateEntered => return self.enter(entry, law),
            E::TaskReady => (self.now, self.attempt) = (Now::WaitsForWorker, entry.task_id),
            E::TaskSucceeded | E::TaskFailed | E::TaskTimedOut | E::TaskCancelled | E::TaskReturned => {
                self.settle(entry, settled)?;
            }
            E::WorkerLost | E::CheckpointSaved => self.require_current(entry)?,
            E::RetryScheduled => self.now = Now::WaitsForTimer,
            E::JobCancelled => self.end(JobStatus::Cancelled),
            E::JobFinished => self.end(JobStatus::Finished),
            E::JobFailed => self.end(JobStatus::Failed),
            E::JobQuarantined => self.end(JobStatus::Quarantined),
            // One that waits for keys says which, and has no attempt any more.
            E::WaitStarted if is_about_keys(entry) => (self.now, self.attempt) = (Now::WaitsForKey, None),
            E::WaitStarted => {
                let is_event = matches!(self.kind(law), Some(StateKind::Event(_)));
                self.now = if is_event { Now::WaitsForEvent } else { Now::WaitsForTimer };
            }
            E::WaitEnded => {
                self.expect(!matches!(self.now, Now::New | Now::Moving | Now::WaitsForWorker), entry)?;
                self.now = Now::Moving;
            }
            E::SignalKept => {}
            E::SignalReceived => {
                self.expect(matches!(self.now, Now::WaitsForEvent | Now::Moving), entry)?;
                self.now = Now::Moving;
            }
            E::ApprovalRequested => self.now = Now::WaitsForHuman,
            E::ApprovalDecided => {
                self.expect(self.now == Now::WaitsForHuman, entry)?;
                self.now = Now::Moving;
            }
            E::ChildrenStarted => {
                let lets_go = matches!(self.kind(law), Some(StateKind::Run(run)) if !run.waits);
                self.now = if lets_go { Now::Moving } else { Now::WaitsForChildren };
            }
            E::ChildrenEnded => {
                require(self.now == Now::WaitsForChildren, Invariant::ChildrenFirst, || {
                    format!("its children have ended, and it does not wait for any: {:?}", self.now)
                })?;
                self.now = Now::Moving;
            }
            E::JobRetried => {
                self.expect(
                    self.now == Now::Ended(JobStatus::Failed)
                        || self.now == Now::Ended(JobStatus::Quarantined),
                    entry,
                )?;
                (self.now, self.transitions, self.is_placed) = (Now::Moving, 0, true);
            }
            E::StateSkipped => {
                if ended {
                    self.transitions = 0;
                }
                (self.now, self.attempt, self.state) = (Now::Moving, None, Some(entry.state.clone()));
            }
            E::JobMigrated => {
                // It stays where it is, or enters a state at once.
                self.moved_in = Some(entry.sequence);
                if ended {
                    // A retry begins elsewhere; until then the job may stand anywhere that its version has.
                    self.state = None;
                }
            }
        }
        Ok(())
    }

    /// Where the tale has arrived, the job stands.
    pub fn agrees_with(&self, job: &Job) -> Checked {
        let status = match self.now {
            Now::WaitsForTimer => job.status == JobStatus::WaitingForTimer,
            Now::WaitsForKey => job.status == JobStatus::WaitingForKey,
            Now::WaitsForWorker => job.status == JobStatus::WaitingForWorker,
            Now::WaitsForEvent => job.status == JobStatus::WaitingForEvent,
            Now::WaitsForHuman => job.status == JobStatus::WaitingForHuman,
            Now::WaitsForChildren => {
                matches!(job.status, JobStatus::WaitingForChild | JobStatus::WaitingForParallel)
            }
            Now::Ended(status) => job.status == status,
            Now::New | Now::Moving => false,
        };
        let attempt = job.attempt.as_ref().map(|attempt| attempt.task_id);
        let agrees = status
            && job.history_len == self.length
            && self.state.as_ref().is_none_or(|state| *state == job.state)
            && self.attempt == attempt
            && self.transitions == job.transitions;
        require(agrees, Invariant::HistoryIsTheJob, || {
            format!("the job is {job:?}, and its history tells {self:?}")
        })
    }

    fn kind<'a>(&self, law: &'a Blueprint) -> Option<&'a StateKind> {
        Some(&law.state(self.state.as_deref()?)?.kind)
    }

    fn enter(&mut self, entry: &HistoryEntry, law: &Blueprint) -> Checked {
        let is_moved = self.moved_in.is_some_and(|sequence| entry.sequence == sequence + 1);
        match (&entry.from_state, self.is_placed || is_moved) {
            (None, _) => self.expect(self.state.is_none(), entry)?,
            (Some(_), true) => {}
            (Some(from), false) => {
                let lawful = self.state.as_ref() == Some(from)
                    && leads(law, from, entry.outcome.as_deref(), &entry.state);
                require(lawful, Invariant::LawfulMoves, || {
                    format!("from {from:?} to {:?} with {:?}", entry.state, entry.outcome)
                })?;
                self.transitions += 1;
            }
        }
        self.is_placed = false;
        (self.now, self.state, self.attempt) = (Now::Moving, Some(entry.state.clone()), None);
        Ok(())
    }

    fn settle(&mut self, entry: &HistoryEntry, settled: &mut QuickSet<TaskId>) -> Checked {
        self.require_current(entry)?;
        if let Some(task_id) = entry.task_id {
            require(settled.insert(task_id), Invariant::AppliedOnce, || {
                format!("attempt {task_id} has ended a second time")
            })?;
        }
        (self.now, self.attempt) = (Now::Moving, None);
        Ok(())
    }

    fn require_current(&self, entry: &HistoryEntry) -> Checked {
        require(entry.task_id == self.attempt, Invariant::CurrentAttemptOnly, || {
            format!("{:?} of {:?} while {:?} is current", entry.event, entry.task_id, self.attempt)
        })
    }

    fn end(&mut self, status: JobStatus) {
        (self.now, self.attempt) = (Now::Ended(status), None);
    }

    fn expect(&self, holds: bool, entry: &HistoryEntry) -> Checked {
        if holds {
            return Ok(());
        }
        let what = format!("{:?} does not follow from {self:?}", entry.event);
        Err(Violation { invariant: Invariant::HistoryIsTheJob, what })
    }
}

/// Whether the blueprint has this move.
fn leads(law: &Blueprint, from: &str, outcome: Option<&str>, to: &str) -> bool {
    let by = |on: &Transitions| {
        let outcome = outcome.unwrap_or_default();
        [outcome, "failure"].iter().any(|word| on.get(*word).is_some_and(|next| **next == *to))
    };
    match law.state(from).map(|state| &state.kind) {
        Some(StateKind::Task(task)) => by(&task.on) || task.catch.values().any(|next| **next == *to),
        Some(StateKind::Event(event)) => by(&event.on),
        Some(StateKind::Approval(approval)) => by(&approval.on),
        Some(StateKind::Run(run)) => by(&run.on),
        Some(StateKind::Map(map)) => by(&map.on),
        Some(StateKind::Choice(choice)) => {
            choice.when.iter().any(|(_, next)| **next == *to) || choice.otherwise.as_deref() == Some(to)
        }
        Some(StateKind::Pass(pass)) => *pass.next == *to,
        Some(StateKind::Wait(wait)) => *wait.next == *to,
        Some(StateKind::End(_)) | None => false,
    }
}

/// Whether a wait is one for keys: it names them.
pub fn is_about_keys(entry: &HistoryEntry) -> bool {
    entry.detail.as_ref().is_some_and(|detail| detail.starts_with("key \""))
}
