//! Due times of schedules, kept by the simplest means: for each schedule, how far it has come and for which due times it has made jobs.
//!
//! Every schedule is one of an interval here, so that its due times are multiples.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avtomatika_orchestrator::{
    chores::schedules::AHEAD_MAX,
    engine::Job,
    schedule::{CATCH_UP_MAX, DUE_AT_LABEL, OnMissed, Overlap, Rule, SCHEDULE_LABEL, Schedule},
    store::{ScheduleRecord, SkipReason},
    time::Timestamp,
};
use avtomatika_proto::JobId;

use crate::{
    invariants::{Checked, Invariant as I, require},
    sometimes::{Met, Sometimes as S},
};

/// Everything that is due, or was.
#[derive(Default)]
pub struct DueBook {
    lines: BTreeMap<Arc<str>, Line>,
    /// Jobs of the batch that is being looked at, whose due times are not decided yet.
    made: Vec<(Arc<str>, Timestamp, JobId)>,
}

struct Line {
    schedule: Arc<Schedule>,
    step: i64,
    record: Option<ScheduleRecord>,
    /// In which life of the process it came so far.
    life: u32,
    made: BTreeSet<Timestamp>,
}

/// Whether a schedule made the job.
pub fn is_scheduled(job: &Job) -> bool {
    job.submission.labels.contains_key(SCHEDULE_LABEL)
}

impl DueBook {
    pub fn new(schedules: &[Arc<Schedule>]) -> Self {
        let line = |schedule: &Arc<Schedule>| {
            let Rule::Interval(interval) = schedule.timing.rule() else { unreachable!("see schedules.rs") };
            let step = interval.as_micros() as i64;
            let line =
                Line { schedule: schedule.clone(), step, record: None, life: 0, made: BTreeSet::new() };
            (schedule.name.clone(), line)
        };
        Self { lines: schedules.iter().map(line).collect(), made: Vec::new() }
    }

    /// A schedule's job is durable. How far the schedule has come is written in the same batch.
    pub fn made(&mut self, job: &Job) -> Checked {
        let labels = &job.submission.labels;
        let name = labels.get(SCHEDULE_LABEL).map_or("", String::as_str);
        let due_at = labels.get(DUE_AT_LABEL).and_then(|text| Timestamp::from_rfc3339(text));
        let line = self
            .lines
            .get(name)
            .filter(|line| line.schedule.client == job.client && line.schedule.blueprint == job.blueprint);
        let (Some(line), Some(due_at)) = (line, due_at) else {
            return require(false, I::NoGhosts, || format!("no schedule makes {job:?}"));
        };
        self.made.push((line.schedule.name.clone(), due_at, job.id));
        Ok(())
    }

    /// How far a schedule has come is durable. No clock has ever shown more than `latest`.
    pub fn put(&mut self, record: &ScheduleRecord, latest: Timestamp, life: u32, met: &mut Met) -> Checked {
        let Some(line) = self.lines.get_mut(&record.name) else {
            return require(false, I::DueOnce, || format!("there is no such schedule: {record:?}"));
        };
        let of_line = self.made.iter().position(|(name, ..)| *name == record.name);
        let made = of_line.map(|place| self.made.swap_remove(place));
        require(record.decided <= latest, I::DueOnce, || {
            format!("decided ahead of every clock: {record:?}")
        })?;
        let Some(before) = line.record.replace(record.clone()) else {
            return require(made.is_none(), I::DueOnce, || format!("{made:?} before the first record"));
        };
        let life_before = std::mem::replace(&mut line.life, life);
        if record.decided < before.decided {
            // A clock that had been wrong by more than a day.
            let astray = before.decided > record.decided + AHEAD_MAX && made.is_none();
            require(astray, I::DueOnce, || format!("{before:?} goes back to {record:?}"))?;
            line.made.retain(|due_at| *due_at <= record.decided);
            met.mark(S::ScheduleAstray);
            return Ok(());
        }
        if life_before != life {
            met.mark(S::ScheduleAfterRestart);
        }
        line.goes_on(&before, record, made.map(|(_, due_at, job_id)| (due_at, job_id)), latest, met)
    }

    /// The batch is over: whoever has a job in it has come so far.
    pub fn look_at_batch(&self) -> Checked {
        require(self.made.is_empty(), I::DueOnce, || {
            format!("these due times have jobs, and are not decided: {:?}", self.made)
        })
    }
}

impl Line {
    fn goes_on(
        &mut self,
        before: &ScheduleRecord,
        record: &ScheduleRecord,
        made: Option<(Timestamp, JobId)>,
        latest: Timestamp,
        met: &mut Met,
    ) -> Checked {
        let number = |at: Timestamp| at.as_micros().div_euclid(self.step);
        let is_due = record.decided.as_micros() % self.step == 0;
        let passed = number(record.decided) - number(before.decided);
        require(is_due && passed > 0, I::DueOnce, || {
            format!("{before:?} goes on to {record:?}, which is no due time of every {} µs", self.step)
        })?;
        let skip = record.last_skip.filter(|_| record.last_skip != before.last_skip);
        match made {
            Some((due_at, job_id)) => {
                let run = record.last_run.map(|run| (run.due_at, run.job_id));
                require(
                    run == Some((due_at, job_id)) && due_at == record.decided && self.made.insert(due_at),
                    I::DueOnce,
                    || format!("job {job_id} is made for {due_at}, and {before:?} goes on to {record:?}"),
                )?;
                met.mark(S::ScheduleMade);
            }
            None => {
                let told = skip.is_some_and(|skip| skip.due_at == record.decided);
                require(told && record.last_run == before.last_run, I::DueOnce, || {
                    format!("{before:?} goes on to {record:?}, and nobody knows why there is no job")
                })?;
            }
        }
        let overlaps = skip.is_some_and(|skip| skip.reason == SkipReason::Overlap);
        require(!overlaps || self.schedule.overlap == Overlap::Skip, I::DueOnce, || {
            format!("{record:?} makes no job beside another one, which it should")
        })?;
        if overlaps {
            met.mark(S::ScheduleOverlaps);
        }
        // Those in between, and this one if it was let go as well.
        let let_go = passed - i64::from(made.is_some() || overlaps);
        if let_go == 0 {
            return Ok(());
        }
        met.mark(S::ScheduleMissed);
        require(skip.is_some(), I::DueOnce, || {
            format!("{let_go} due times of {before:?} are let go, and nobody is told: {record:?}")
        })?;
        let overdue = number(latest) - number(before.decided);
        let may = self.schedule.on_missed != OnMissed::All || overdue > CATCH_UP_MAX as i64;
        require(may, I::DueOnce, || {
            format!("{let_go} due times of {before:?} are let go, and all are to be made up: {record:?}")
        })
    }
}
