//! The schedules as they stand: set by whoever loads them, kept up to date by the chore, read by whoever lists them. Cheap to
//! clone; all clones are one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Schedule;
use crate::{store::ScheduleRecord, time::Timestamp};

/// Due times ahead that a listing shows.
const NEXT_SHOWN: usize = 3;

/// The set of schedules.
#[derive(Debug, Clone, Default)]
pub struct Schedules(Arc<Mutex<Board>>);

#[derive(Debug, Default)]
struct Board {
    /// Counts the sets there were, so that the chore notices a new one.
    generation: u64,
    schedules: BTreeMap<Arc<str>, Arc<Schedule>>,
    standings: BTreeMap<Arc<str>, Standing>,
}

/// How a schedule stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// How far it has come.
    pub record: ScheduleRecord,
    /// Why no job can be made now, though one is due; it is tried again.
    pub trouble: Option<Arc<str>>,
}

/// A schedule as it is listed.
#[derive(Debug, Clone)]
pub struct ScheduleView {
    /// The schedule.
    pub schedule: Arc<Schedule>,
    /// How it stands; `None` in the moment before it is first looked at.
    pub standing: Option<Standing>,
    /// Its next due times.
    pub next: Vec<Timestamp>,
}

impl Schedules {
    /// These schedules. Of those with one name the last counts.
    pub fn new(schedules: Vec<Schedule>) -> Self {
        let set = Self::default();
        set.replace(schedules);
        set
    }

    /// These schedules take the place of those there were, within a second. One whose times are the same goes on where it was;
    /// one whose times are new, or that was not there or not enabled before, begins now; one that is gone is forgotten. The jobs
    /// that they made go on.
    pub fn replace(&self, schedules: Vec<Schedule>) {
        let mut board = self.board();
        board.generation += 1;
        board.schedules =
            schedules.into_iter().map(|schedule| (schedule.name.clone(), Arc::new(schedule))).collect();
        let Board { schedules, standings, .. } = &mut *board;
        standings.retain(|name, _| schedules.contains_key(name));
    }

    /// The schedules whose jobs are this client's, by name, with their due times from `now` on.
    pub fn list_of(&self, client: &str, now: Timestamp) -> Vec<ScheduleView> {
        self.views(now, |schedule| &*schedule.client == client)
    }

    /// Every schedule, by name, with its due times from `now` on.
    pub fn list(&self, now: Timestamp) -> Vec<ScheduleView> {
        self.views(now, |_| true)
    }

    fn views(&self, now: Timestamp, is_wanted: impl Fn(&Schedule) -> bool) -> Vec<ScheduleView> {
        let views: Vec<_> = {
            let board = self.board();
            let wanted = board.schedules.iter().filter(|(_, schedule)| is_wanted(schedule));
            wanted.map(|(name, schedule)| (schedule.clone(), board.standings.get(name).cloned())).collect()
        };
        let view = |(schedule, standing): (Arc<Schedule>, Option<Standing>)| {
            let shown = if schedule.enabled { NEXT_SHOWN } else { 0 };
            let next = schedule.timing.following(now).take(shown).collect();
            ScheduleView { schedule, standing, next }
        };
        views.into_iter().map(view).collect()
    }

    /// The set, if it is another one than that of this generation.
    pub(crate) fn newer_than(&self, generation: u64) -> Option<(u64, Vec<Arc<Schedule>>)> {
        let board = self.board();
        (board.generation != generation)
            .then(|| (board.generation, board.schedules.values().cloned().collect()))
    }

    /// How a schedule of this generation stands.
    pub(crate) fn stands(&self, generation: u64, standing: Standing) {
        let mut board = self.board();
        if board.generation == generation {
            board.standings.insert(standing.record.name.clone(), standing);
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // Every change is whole before anything that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
