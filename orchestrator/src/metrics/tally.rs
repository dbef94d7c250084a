//! What one decision adds to the counters, read from the history entries that it makes. They are counted when the decision is
//! durable, so that what is undone was never counted.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::outcome;

use crate::engine::{HistoryEntry, HistoryEvent, Job};

/// What an attempt came to, on every surface of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// `success`.
    Success,
    /// A word of the blueprint's own.
    Custom,
    /// `failure`.
    Failure,
    /// Took too long, or found no worker in time.
    Timeout,
    /// Given up by its worker because it was told to.
    Cancelled,
    /// Its worker is gone.
    Lost,
    /// Given back unfinished by a worker that stops.
    Returned,
}

impl AttemptEnd {
    /// Every end.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Custom,
        Self::Failure,
        Self::Timeout,
        Self::Cancelled,
        Self::Lost,
        Self::Returned,
    ];

    /// Its label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Custom => "custom",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Returned => "returned",
        }
    }

    fn of(entry: &HistoryEntry) -> Option<Self> {
        Some(match entry.event {
            HistoryEvent::TaskSucceeded => match entry.outcome.as_deref() {
                None | Some(outcome::SUCCESS) => Self::Success,
                Some(_) => Self::Custom,
            },
            HistoryEvent::TaskFailed => Self::Failure,
            HistoryEvent::TaskTimedOut => Self::Timeout,
            HistoryEvent::TaskCancelled => Self::Cancelled,
            HistoryEvent::WorkerLost => Self::Lost,
            HistoryEvent::TaskReturned => Self::Returned,
            _ => return None,
        })
    }
}

/// An attempt that ended with a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedAttempt {
    /// The type of its task.
    pub task_type: Arc<str>,
    /// What it came to.
    pub end: AttemptEnd,
    /// How long a worker held it, where that is known.
    pub held_for: Option<Duration>,
}

/// What one decision adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Moves from state to state.
    pub moves: u32,
    /// Attempts that will be made again after a failure.
    pub retries: u32,
    /// The attempt that ended.
    pub attempt: Option<EndedAttempt>,
}

impl Tally {
    /// Of these entries in the history of a job that was this before.
    pub fn of(before: &Job, entries: &[HistoryEntry]) -> Self {
        let mut tally = Self::default();
        for entry in entries {
            match entry.event {
                // The start is no move.
                HistoryEvent::StateEntered => tally.moves += u32::from(entry.from_state.is_some()),
                HistoryEvent::RetryScheduled => tally.retries += 1,
                _ => {
                    if let (Some(end), Some(attempt)) = (AttemptEnd::of(entry), &before.attempt) {
                        let task_type = attempt.task_type.clone();
                        tally.attempt = Some(EndedAttempt { task_type, end, held_for: entry.duration });
                    }
                }
            }
        }
        tally
    }
}
