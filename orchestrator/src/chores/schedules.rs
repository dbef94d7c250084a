//! Makes the jobs of schedules when they are due.
//!
//! How far a schedule has come is stored in the transaction that inserts its job, so each due time is decided exactly once: this
//! chore may be killed at any moment, and goes on from what is stored. What could not be stored is tried again, and is then as
//! late as it is: the schedule's own policies say what that means.
//!
//! Schedules are meant by the calendar. Hence they follow the machine's clock as it stands, and not, as everything else does, the
//! time that has passed. A clock that is set forward passes due times, which are missed; one that is set back meets due times
//! that are decided, and repeats none.

mod keeper;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, ErrorCode};
use futures_util::{StreamExt, stream::FuturesUnordered};

pub use self::keeper::{AGAIN_AFTER, AHEAD_MAX, Keeper, Step, begin};
use super::Chore;
use crate::{
    conductor::{Conductor, SCHEDULE_CHANGES_MAX, ScheduleChange},
    metrics::Metrics,
    schedule::{Schedule, Schedules},
    store::{ScheduleRecord, ScheduledSkip, SkipReason},
    time::{Clock, Timestamp},
};

/// The longest rest: how late a clock that was set, or another set of schedules, is noticed.
const REST_MAX: Duration = Duration::from_secs(1);

/// Due times that are dealt with at once: they become durable together.
const AT_ONCE_MAX: usize = 64;

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
                Ok(()) => {
                    self.warn_of_misfits();
                    self.show_all(generation);
                }
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

    /// Tells of schedules that could not make their jobs if they were due now, for example because their data do not fit the
    /// blueprint: whoever has just written them should not learn it tonight. It is no mistake of their file alone, because another
    /// blueprint may be put over the wire before they are due.
    fn warn_of_misfits(&self) {
        for schedule in self.keepers.iter().map(Keeper::schedule).filter(|schedule| schedule.enabled) {
            if let Err(error) = self.conductor.check_scheduled(&schedule.blueprint, &schedule.submission) {
                let (name, blueprint) = (&schedule.name, &schedule.blueprint);
                tracing::warn!(
                    hint = &*error.hint,
                    "Schedule {name} will make no jobs of {blueprint} as it stands: {error}"
                );
            }
        }
    }

    fn show_all(&mut self, generation: u64) {
        self.generation = generation;
        for keeper in &self.keepers {
            self.schedules.stands(generation, keeper.standing());
        }
        self.keepers.retain(|keeper| keeper.schedule().enabled);
    }

    fn rest(&self) -> Duration {
        let now = self.clock.wall();
        let next = self.keepers.iter().filter_map(Keeper::wakes_at).min();
        next.map_or(REST_MAX, |next| next.saturating_since(now).min(REST_MAX))
    }
}

impl Keeper {
    /// Deals with the next due time, and shows what came of it. Answers whether the orchestrator stops.
    async fn deal(
        &mut self,
        conductor: &Conductor,
        schedules: &Schedules,
        metrics: &Metrics,
        generation: u64,
        now: Timestamp,
    ) -> bool {
        let done = match self.next_step(now) {
            Step::Run(due) => conductor.run_scheduled(*due).await,
            Step::Keep(record) => {
                let kept = conductor.keep_schedules(vec![ScheduleChange::Put(record.clone())]).await;
                kept.map(|()| record)
            }
        };
        match done {
            Ok(record) => {
                self.count(metrics, &record);
                self.has_come_to(record);
            }
            Err(error) if error.code == ErrorCode::ShuttingDown => return true,
            Err(error) => self.could_not(error.message.into(), now),
        }
        schedules.stands(generation, self.standing());
        false
    }

    /// Counts what has become of due times, now that it is durable. However many were missed together count once.
    fn count(&self, metrics: &Metrics, after: &ScheduleRecord) {
        let overlapped = |skip: ScheduledSkip| skip.reason == SkipReason::Overlap;
        if after.last_run != self.record().last_run {
            metrics.schedule_due("made");
        }
        if after.last_skip != self.record().last_skip && after.last_skip.is_some_and(overlapped) {
            metrics.schedule_due("overlap");
        }
        if self.lets_go() {
            metrics.schedule_due("missed");
        }
    }
}
