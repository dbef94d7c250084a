//! The chore that makes the jobs of schedules, played as the one for webhooks is: what is to be done about a schedule is decided by the
//! orchestrator's own code, and done here step by step.

use std::{sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    chores::schedules::{AGAIN_AFTER, Keeper, Step, begin},
    conductor::ScheduleChange,
    engine::Submission,
    json::Json,
    schedule::{OnMissed, Overlap, Rule, Schedule, Timing, time_zone},
    store::{ScheduleRecord, Store},
    time::Hands,
};
use avtomatika_proto::ApiError;

use crate::{
    faults::{MS, SECOND},
    invariants::Checked,
    process::Asked,
    random::Random,
    world::{Happening, World},
};

/// The longest rest of the chore.
const REST_MAX: i64 = SECOND;

/// A schedule, and whether its last due time is on its way.
pub struct Kept {
    pub keeper: Keeper,
    pub is_dealing: bool,
}

/// So many schedules, of these blueprints.
pub fn draw(random: &mut Random, count: usize, blueprints: &[Arc<str>]) -> Vec<Arc<Schedule>> {
    let zone = time_zone("UTC").unwrap();
    let schedule = |number: usize| {
        let seconds = *random.pick(&[1, 2, 5, 60]);
        let rule = Rule::interval(Duration::from_secs(seconds)).unwrap();
        // None that runs itself.
        let served = blueprints.iter().filter(|name| &***name != "deep").collect::<Vec<_>>();
        Arc::new(Schedule {
            name: Arc::from(format!("schedule-{number}")),
            blueprint: (*random.pick(&served)).clone(),
            client: Arc::from("acme"),
            submission: Submission::of(Json::from_stored(&format!("{{\"n\":{number},\"items\":[0,1]}}"))),
            timing: Timing::new(rule, zone.clone()),
            on_missed: *random.pick(&OnMissed::ALL),
            overlap: *random.pick(&Overlap::ALL),
            enabled: true,
        })
    };
    (0..count).map(schedule).collect()
}

impl World {
    /// The first look after a start.
    pub fn begin_schedules(&mut self) {
        if !self.schedules.is_empty() {
            let pause = self.random.between(1, 10 * MS);
            self.after(pause, Happening::Schedules { life: self.model.life });
        }
    }

    /// The chore's alarm. When nothing goes wrong any more, no more jobs are made.
    pub fn look_at_schedules(&mut self, life: u32) -> Checked {
        if life != self.model.life || self.is_calm {
            return Ok(());
        }
        let now = self.clock.wall();
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        let Some(keepers) = up.keepers.as_mut() else { return self.take_schedules_over(life) };
        let mut asked = Vec::new();
        for (place, kept) in keepers.iter_mut().enumerate() {
            if kept.is_dealing || !kept.keeper.is_due(now) {
                continue;
            }
            match kept.keeper.next_step(now) {
                Step::Run(due) => match up.conductor.run_scheduled(*due) {
                    Some(answer) => asked.push(Asked::Scheduled { place, answer }),
                    None => {
                        kept.keeper.could_not(Arc::from("no such blueprint"), now);
                        continue;
                    }
                },
                Step::Keep(record) => {
                    let answer = up.conductor.keep_schedules(vec![ScheduleChange::Put(record.clone())]);
                    asked.push(Asked::Remembered { place, record, answer });
                }
            }
            kept.is_dealing = true;
        }
        let wakes = keepers.iter().filter_map(|kept| kept.keeper.wakes_at()).min();
        let rest = wakes.map_or(REST_MAX, |at| at.saturating_since(now).as_micros() as i64);
        let is_idle = asked.is_empty();
        up.asked.extend(asked);
        self.after(rest.clamp(MS, REST_MAX), Happening::Schedules { life });
        if is_idle { Ok(()) } else { self.take_in() }
    }

    /// What is stored of the schedules is what they have come to.
    fn take_schedules_over(&mut self, life: u32) -> Checked {
        let now = self.clock.wall();
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        let Ok(stored) = self.disk.schedules() else {
            self.after(AGAIN_AFTER.as_micros() as i64, Happening::Schedules { life });
            return Ok(());
        };
        let (mut records, mut changes) = (Vec::new(), Vec::new());
        for schedule in &self.schedules {
            let before = stored.iter().find(|record| record.name == schedule.name);
            let record = begin(schedule, before, now);
            if before != Some(&record) {
                changes.push(ScheduleChange::Put(record.clone()));
            }
            records.push(record);
        }
        if changes.is_empty() {
            return self.schedules_begin(records);
        }
        let answer = up.conductor.keep_schedules(changes);
        up.asked.push(Asked::SchedulesBegun { records, answer });
        self.take_in()
    }

    fn schedules_begin(&mut self, records: Vec<ScheduleRecord>) -> Checked {
        let life = self.model.life;
        let kept = |(schedule, record): (&Arc<Schedule>, ScheduleRecord)| Kept {
            keeper: Keeper::new(schedule.clone(), record),
            is_dealing: false,
        };
        let keepers = self.schedules.iter().zip(records).map(kept).collect();
        if let Some(up) = self.process.up.as_mut() {
            up.keepers = Some(keepers);
            self.after(MS, Happening::Schedules { life });
        }
        Ok(())
    }

    /// Whether how they begin is stored.
    pub fn schedules_have_begun(
        &mut self,
        records: Vec<ScheduleRecord>,
        answer: Result<(), ApiError>,
    ) -> Checked {
        match answer {
            Ok(()) => self.schedules_begin(records),
            Err(_) => {
                let life = self.model.life;
                self.after(AGAIN_AFTER.as_micros() as i64, Happening::Schedules { life });
                Ok(())
            }
        }
    }

    /// What became of a due time.
    pub fn schedule_has_come(&mut self, place: usize, outcome: Result<ScheduleRecord, ApiError>) {
        let now = self.clock.wall();
        let Some(up) = self.process.up.as_mut() else { return };
        let Some(kept) = up.keepers.as_mut().and_then(|keepers| keepers.get_mut(place)) else { return };
        kept.is_dealing = false;
        match outcome {
            Ok(record) => kept.keeper.has_come_to(record),
            Err(error) => kept.keeper.could_not(error.message.into(), now),
        }
    }
}
