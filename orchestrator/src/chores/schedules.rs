//! Makes the jobs of schedules when they are due.
//!
//! How far a schedule has come is stored in the transaction that inserts its job, so each due time is decided exactly once: this
//! chore may be killed at any moment, and goes on from what is stored. What could not be stored is tried again, and is then as
//! late as it is: the schedule's own policies say what that means.
//!
//! Schedules are meant by the calendar. Hence they follow the machine's clock as it stands, and not, as everything else does, the
//! time that has passed. A clock that is set forward passes due times, which are missed; one that is set back meets due times
//! that are decided, and repeats none.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::{ApiError, ErrorCode};
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::Chore;
use crate::{
    conductor::{Conductor, DueTime, SCHEDULE_CHANGES_MAX, ScheduleChange},
    metrics::Metrics,
    schedule::{DUE_AT_LABEL, Due, SCHEDULE_LABEL, Schedule, Schedules, Standing, due},
    store::{ScheduleRecord, ScheduledSkip, SkipReason},
    time::{Clock, Timestamp},
};

/// The longest rest: how late a clock that was set, or another set of schedules, is noticed.
const REST_MAX: Duration = Duration::from_secs(1);

/// How soon is tried again what could not be done.
pub const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Due times that are dealt with at once: they become durable together.
const AT_ONCE_MAX: usize = 64;

/// How far ahead of the clock a decision may lie. Further, and the clock was wrong when it was taken: the schedule begins anew
/// instead of waiting for a time that may be years away.
pub const AHEAD_MAX: Duration = Duration::from_secs(86_400);

/// The chore.
pub struct Scheduling {
    conductor: Conductor,
    clock: Arc<dyn Clock>,
    schedules: Schedules,
    metrics: Arc<Metrics>,
    /// Of the set that is kept.
    generation: u64,
    keepers: Vec<Keeper>,
}

/// One enabled schedule, and what is known of it.
#[derive(Debug)]
struct Keeper {
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

impl Scheduling {
    /// Makes the jobs of this set, whatever it becomes.
    pub fn new(
        conductor: Conductor,
        clock: Arc<dyn Clock>,
        schedules: Schedules,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { conductor, clock, schedules, metrics, generation: 0, keepers: Vec::new() }
    }
}

impl Chore for Scheduling {
    /// Deals with one due time of every schedule that has one.
    async fn tick(&mut self) -> Option<Duration> {
        if let Some((generation, wanted)) = self.schedules.newer_than(self.generation) {
            match self.take_over(wanted).await {
                Ok(()) => self.show_all(generation),
                Err(error) if error.code == ErrorCode::ShuttingDown => return None,
                Err(error) => {
                    tracing::warn!("The schedules cannot be begun, and will be tried again: {error}");
                    return Some(AGAIN_AFTER);
                }
            }
        }
        let now = self.clock.wall();
        let Self { conductor, schedules, metrics, generation, keepers, .. } = self;
        let busy = keepers.iter_mut().filter(|keeper| keeper.is_due(now));
        let mut dealing: FuturesUnordered<_> = FuturesUnordered::new();
        let mut is_stopping = false;
        for keeper in busy {
            if dealing.len() >= AT_ONCE_MAX {
                is_stopping |= dealing.next().await.unwrap_or(false);
            }
            dealing.push(keeper.deal(conductor, schedules, metrics, *generation, now));
        }
        while let Some(stops) = dealing.next().await {
            is_stopping |= stops;
        }
        drop(dealing);
        if is_stopping { None } else { Some(self.rest()) }
    }
}

impl Scheduling {
    /// Begins with another set: what is stored of its schedules is what they have come to.
    async fn take_over(&mut self, wanted: Vec<Arc<Schedule>>) -> Result<(), ApiError> {
        let now = self.clock.wall();
        let stored = self.conductor.schedule_records().await?;
        let mut stored: BTreeMap<_, _> =
            stored.into_iter().map(|record| (record.name.clone(), record)).collect();
        let (mut keepers, mut changes) = (Vec::new(), Vec::new());
        for schedule in wanted {
            let before = stored.remove(&schedule.name);
            let record = begin(&schedule, before.as_ref(), now);
            if before.as_ref() != Some(&record) {
                changes.push(ScheduleChange::Put(record.clone()));
            }
            keepers.push(Keeper::new(schedule, record));
        }
        changes.extend(stored.into_keys().map(ScheduleChange::Remove));
        for changes in changes.chunks(SCHEDULE_CHANGES_MAX) {
            self.conductor.keep_schedules(changes.to_vec()).await?;
        }
        self.keepers = keepers;
        Ok(())
    }

    fn show_all(&mut self, generation: u64) {
        self.generation = generation;
        for keeper in &self.keepers {
            self.schedules.stands(generation, keeper.standing());
        }
        self.keepers.retain(|keeper| keeper.schedule.enabled);
    }

    fn rest(&self) -> Duration {
        let now = self.clock.wall();
        let next = self.keepers.iter().filter_map(Keeper::wakes_at).min();
        next.map_or(REST_MAX, |next| next.saturating_since(now).min(REST_MAX))
    }
}

/// From where a schedule goes on.
fn begin(schedule: &Schedule, before: Option<&ScheduleRecord>, now: Timestamp) -> ScheduleRecord {
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
    fn new(schedule: Arc<Schedule>, record: ScheduleRecord) -> Self {
        let next = schedule.timing.next_after(record.decided);
        Self { schedule, record, next, due: VecDeque::new(), let_go: None, trouble: None }
    }

    fn standing(&self) -> Standing {
        let trouble = self.trouble.as_ref().map(|trouble| trouble.text.clone());
        Standing { record: self.record.clone(), trouble }
    }

    /// When there is something to do.
    fn wakes_at(&self) -> Option<Timestamp> {
        let due = self.due.front().copied().or(self.next)?;
        Some(self.trouble.as_ref().map_or(due, |trouble| trouble.again_at.max(due)))
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.is_astray(now) || self.wakes_at().is_some_and(|at| at <= now)
    }

    /// Whether it was decided by a clock that was wrong.
    fn is_astray(&self, now: Timestamp) -> bool {
        self.record.decided > now + AHEAD_MAX
    }

    /// Deals with the next due time, and shows what came of it. Answers whether the orchestrator stops.
    async fn deal(
        &mut self,
        conductor: &Conductor,
        schedules: &Schedules,
        metrics: &Metrics,
        generation: u64,
        now: Timestamp,
    ) -> bool {
        match self.decide(conductor, now).await {
            Ok(record) => {
                self.count(metrics, &record);
                self.due.pop_front();
                self.let_go = None;
                self.trouble = None;
                self.next = self.schedule.timing.next_after(record.decided);
                self.record = record;
            }
            Err(error) if error.code == ErrorCode::ShuttingDown => return true,
            Err(error) => {
                let text: Arc<str> = error.message.into();
                if self.trouble.as_ref().is_none_or(|trouble| trouble.text != text) {
                    tracing::warn!(
                        "Schedule {} is due, and its job cannot be made: {text}",
                        self.schedule.name
                    );
                }
                // It is looked at anew, and may then be too late.
                self.due.clear();
                self.let_go = None;
                self.trouble = Some(Trouble { text, again_at: now + AGAIN_AFTER });
            }
        }
        schedules.stands(generation, self.standing());
        false
    }

    /// Counts what has become of due times, now that it is durable. However many were missed together count once.
    fn count(&self, metrics: &Metrics, after: &ScheduleRecord) {
        let overlapped = |skip: ScheduledSkip| skip.reason == SkipReason::Overlap;
        if after.last_run != self.record.last_run {
            metrics.schedule_due("made");
        }
        if after.last_skip != self.record.last_skip && after.last_skip.is_some_and(overlapped) {
            metrics.schedule_due("overlap");
        }
        if self.let_go.is_some() {
            metrics.schedule_due("missed");
        }
    }

    async fn decide(&mut self, conductor: &Conductor, now: Timestamp) -> Result<ScheduleRecord, ApiError> {
        let schedule = &self.schedule;
        let mut record = self.record.clone();
        if self.is_astray(now) {
            tracing::warn!("Schedule {} was decided up to {}, and begins anew", record.name, record.decided);
            record.decided = now;
            conductor.keep_schedules(vec![ScheduleChange::Put(record.clone())]).await?;
            return Ok(record);
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
        let Some(&due_at) = self.due.front() else {
            conductor.keep_schedules(vec![ScheduleChange::Put(record.clone())]).await?;
            return Ok(record);
        };
        record.decided = due_at;
        let mut submission = schedule.submission.clone();
        submission.labels.insert(SCHEDULE_LABEL.to_owned(), schedule.name.to_string());
        submission.labels.insert(DUE_AT_LABEL.to_owned(), due_at.to_rfc3339());
        let due = DueTime {
            blueprint: schedule.blueprint.clone(),
            client: schedule.client.clone(),
            submission,
            overlap: schedule.overlap,
            record,
        };
        conductor.run_scheduled(due).await
    }
}
