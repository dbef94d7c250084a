//! One schedule: what is to be done about it next, and what it has come to.
//!
//! Pure: time is passed in, and whoever asks does what follows and says what came of it. So the chore does nothing else, and a
//! simulation can do it step by step.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    conductor::DueTime,
    schedule::{DUE_AT_LABEL, Due, SCHEDULE_LABEL, Schedule, Standing, due},
    store::{ScheduleRecord, ScheduledSkip, SkipReason},
    time::Timestamp,
};

/// How soon is tried again what could not be done.
pub const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How far ahead of the clock a decision may lie. Further, and the clock was wrong when it was taken: the schedule begins anew
/// instead of waiting for a time that may be years away.
pub const AHEAD_MAX: Duration = Duration::from_secs(86_400);

/// One enabled schedule, and what is known of it.
#[derive(Debug)]
pub struct Keeper {
    schedule: Arc<Schedule>,
    /// As it is stored.
    record: ScheduleRecord,
    /// The first due time that is not decided.
    next: Option<Timestamp>,
    /// What was due when it was looked at last, and is not dealt with yet.
    due: VecDeque<Timestamp>,
    /// The last due time before these that is let go.
    let_go: Option<Timestamp>,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    text: Arc<str>,
    again_at: Timestamp,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// To make the job of a due time: see [`Conductor::run_scheduled`](crate::conductor::Conductor::run_scheduled).
    Run(Box<DueTime>),
    /// To remember how far the schedule has come without one.
    Keep(ScheduleRecord),
}

/// From where a schedule goes on.
pub fn begin(schedule: &Schedule, before: Option<&ScheduleRecord>, now: Timestamp) -> ScheduleRecord {
    // While it is not enabled, no due time of it is missed.
    let timing: Arc<str> = if schedule.enabled { schedule.timing.to_string().into() } else { "".into() };
    let before = match before {
        Some(before) if before.timing == timing => return before.clone(),
        before => before,
    };
    ScheduleRecord {
        name: schedule.name.clone(),
        timing,
        decided: now,
        last_run: before.and_then(|before| before.last_run),
        last_skip: before.and_then(|before| before.last_skip),
    }
}

impl Keeper {
    /// Of this schedule, which has come so far.
    pub fn new(schedule: Arc<Schedule>, record: ScheduleRecord) -> Self {
        let next = schedule.timing.next_after(record.decided);
        Self { schedule, record, next, due: VecDeque::new(), let_go: None, trouble: None }
    }

    /// The schedule.
    pub fn schedule(&self) -> &Arc<Schedule> {
        &self.schedule
    }

    /// How far it has come.
    pub fn record(&self) -> &ScheduleRecord {
        &self.record
    }

    /// The same, and what keeps it from going on.
    pub fn standing(&self) -> Standing {
        let trouble = self.trouble.as_ref().map(|trouble| trouble.text.clone());
        Standing { record: self.record.clone(), trouble }
    }

    /// When there is something to do.
    pub fn wakes_at(&self) -> Option<Timestamp> {
        let due = self.due.front().copied().or(self.next)?;
        Some(self.trouble.as_ref().map_or(due, |trouble| trouble.again_at.max(due)))
    }

    /// Whether there is something to do.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.is_astray(now) || self.wakes_at().is_some_and(|at| at <= now)
    }

    /// Whether due times are let go by what is to be done.
    pub fn lets_go(&self) -> bool {
        self.let_go.is_some()
    }

    /// Whether it was decided by a clock that was wrong.
    fn is_astray(&self, now: Timestamp) -> bool {
        self.record.decided > now + AHEAD_MAX
    }

    /// What is to be done when it is due. Whoever does it says then what it came to.
    pub fn next_step(&mut self, now: Timestamp) -> Step {
        let schedule = &self.schedule;
        let mut record = self.record.clone();
        if self.is_astray(now) {
            tracing::warn!("Schedule {} was decided up to {}, and begins anew", record.name, record.decided);
            record.decided = now;
            // What was due by that clock is not.
            self.due.clear();
            self.let_go = None;
            return Step::Keep(record);
        }
        if self.due.is_empty() {
            let Due { let_go, runs } = due(&schedule.timing, schedule.on_missed, record.decided, now);
            (self.let_go, self.due) = (let_go, runs.into());
        }
        if let Some(due_at) = self.let_go {
            tracing::info!("Schedule {} has missed due times, and lets go those up to {due_at}", record.name);
            record.decided = due_at;
            record.last_skip = Some(ScheduledSkip { due_at, reason: SkipReason::Missed });
        }
        let Some(&due_at) = self.due.front() else { return Step::Keep(record) };
        record.decided = due_at;
        let mut submission = schedule.submission.clone();
        submission.labels.insert(SCHEDULE_LABEL.to_owned(), schedule.name.to_string());
        submission.labels.insert(DUE_AT_LABEL.to_owned(), due_at.to_rfc3339());
        Step::Run(Box::new(DueTime {
            blueprint: schedule.blueprint.clone(),
            client: schedule.client.clone(),
            submission,
            overlap: schedule.overlap,
            record,
        }))
    }

    /// It is done, and durable.
    pub fn has_come_to(&mut self, record: ScheduleRecord) {
        self.due.pop_front();
        self.let_go = None;
        self.trouble = None;
        self.next = self.schedule.timing.next_after(record.decided);
        self.record = record;
    }

    /// It could not be done, because of this.
    pub fn could_not(&mut self, text: Arc<str>, now: Timestamp) {
        if self.trouble.as_ref().is_none_or(|trouble| trouble.text != text) {
            tracing::warn!("Schedule {} is due, and its job cannot be made: {text}", self.schedule.name);
        }
        // It is looked at anew, and may then be too late.
        self.due.clear();
        self.let_go = None;
        self.trouble = Some(Trouble { text, again_at: now + AGAIN_AFTER });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Submission,
        json::Json,
        schedule::{OnMissed, Overlap, Rule, Timing, time_zone},
    };

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_clock_that_was_wrong_leaves_no_due_time_behind() {
        let schedule = Schedule {
            name: Arc::from("every-minute"),
            blueprint: Arc::from("instant"),
            client: Arc::from("acme"),
            submission: Submission::of(Json::empty()),
            timing: Timing::new(Rule::interval(MINUTE).unwrap(), time_zone("UTC").unwrap()),
            on_missed: OnMissed::All,
            overlap: Overlap::Allow,
            enabled: true,
        };
        let begun = Timestamp::from_micros(1_767_225_600_000_000);
        let record = begin(&schedule, None, begun);
        let mut keeper = Keeper::new(Arc::new(schedule), record);
        // Ten due times are to be made up, and one of them is.
        let Step::Run(due) = keeper.next_step(begun + MINUTE * 10) else { panic!("it is due") };
        keeper.has_come_to(due.record);
        // Then somebody sets the clock right: it is three days earlier.
        let now = begun - Duration::from_secs(3 * 86_400);
        assert!(keeper.is_due(now));
        let Step::Keep(record) = keeper.next_step(now) else { panic!("it begins anew") };
        assert_eq!(record.decided, now);
        keeper.has_come_to(record);
        assert_eq!(keeper.wakes_at(), Some(now + MINUTE), "the next minute, and not one in three days");
    }
}
