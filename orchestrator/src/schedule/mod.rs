//! Schedules: which jobs to make at which times, as plain data and pure functions.
//!
//! A schedule names a blueprint, what its jobs start with, and the rule from which its due times follow (`timing.rs`,
//! `calendar.rs`). What is to be done about due times that have come is computed in `due.rs`; the chore of that name does it. This
//! module refuses to know the clock, the store and the conductor.

mod board;
mod calendar;
mod due;
mod load;
#[cfg(test)]
mod tests;
mod timing;

use std::sync::Arc;

pub use self::{
    board::{ScheduleView, Schedules, Standing},
    calendar::{Calendar, Days},
    due::{CATCH_UP_MAX, Due, ON_TIME, due},
    load::{Known, ScheduleError, load, parse},
    timing::{InvalidTiming, Rule, Timing, time_zone},
};
use crate::engine::Submission;

/// The label that names the schedule which made a job.
pub const SCHEDULE_LABEL: &str = "schedule";

/// The label with the due time for which a schedule made a job, in RFC 3339.
pub const DUE_AT_LABEL: &str = "due_at";

/// When to make which jobs.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name.
    pub name: Arc<str>,
    /// The blueprint that its jobs follow; the newest version when a job is made.
    pub blueprint: Arc<str>,
    /// Whose jobs they are.
    pub client: Arc<str>,
    /// What every job starts with. The two labels that tell where it comes from are added when it is made.
    pub submission: Submission,
    /// When.
    pub timing: Timing,
    /// What to do about due times that were noticed late.
    pub on_missed: OnMissed,
    /// What to do when the job before has not ended.
    pub overlap: Overlap,
    /// Whether it makes jobs at all.
    pub enabled: bool,
}

/// What to do about due times at which no job could be made: the orchestrator was down, its disk full, or its clock was set
/// forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnMissed {
    /// Let them go.
    Skip,
    /// Make one job for all of them, in the name of the last.
    #[default]
    Once,
    /// Make every one up, oldest first, at most [`CATCH_UP_MAX`].
    All,
}

impl OnMissed {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Skip, Self::Once, Self::All];

    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }
}

/// What to do when a due time comes and the schedule's last job has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Make another one beside it.
    #[default]
    Allow,
    /// Make none.
    Skip,
    /// Cancel it, and make another one.
    Cancel,
}

impl Overlap {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Skip, Self::Cancel];

    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Skip => "skip",
            Self::Cancel => "cancel",
        }
    }
}
