//! What is to be done about the due times that have come: for which of them a job is made, and which are let go.

use super::{OnMissed, Timing};
use crate::time::Timestamp;
use std::time::Duration;

/// How late a due time may be noticed and still be on time: longer than a restart takes.
pub const ON_TIME: Duration = Duration::from_secs(60);

/// Missed due times that are made up at most, the latest of them. A schedule of every second that was down for a weekend would
/// otherwise come back with two hundred thousand jobs.
pub const CATCH_UP_MAX: usize = 1000;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// The last of the due times that are let go: all before the first run.
    pub let_go: Option<Timestamp>,
    /// The due times for which a job is made, oldest first.
    pub runs: Vec<Timestamp>,
}

/// What is due now, when everything up to `decided` has been dealt with.
pub fn due(timing: &Timing, on_missed: OnMissed, decided: Timestamp, now: Timestamp) -> Due {
    let mut outstanding = timing.preceding(now).take_while(|due| *due > decided).peekable();
    let runs_max = match on_missed {
        OnMissed::Skip if outstanding.peek().is_some_and(|latest| now > *latest + ON_TIME) => 0,
        OnMissed::Skip | OnMissed::Once => 1,
        OnMissed::All => CATCH_UP_MAX,
    };
    let mut runs: Vec<Timestamp> = outstanding.by_ref().take(runs_max).collect();
    runs.reverse();
    Due { let_go: outstanding.next(), runs }
}
