//! How well the tasks of each worker end, and who is set aside because many different jobs in a row failed on it or were lost with it.
//!
//! A worker is known by its name, so it keeps its reputation when it comes back; a good name costs no memory. What it is
//! reproached with fades with time, and with every task that ends well. It is stored with the worker's session, a little later, so that a
//! restart forgets none of it. It refuses to know what a worker serves.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::JobId;

use crate::{store::Reproach, time::Timestamp};

/// Workers whose names are not the best and that are remembered; then the one that was longest not heard of is forgotten.
pub const REPUTATIONS_MAX: usize = 4096;

/// Different jobs that fail in a row before a worker is set aside.
pub const FAILURES_MAX: usize = 10;

/// Of those, jobs that fail in a row on a worker that has just come back.
const FAILURES_AGAIN: usize = 3;

/// How long a worker is set aside for the first time; each further time in a row is twice as long.
pub const SET_ASIDE_FIRST: Duration = Duration::from_secs(30);

/// How long at most.
pub const SET_ASIDE_MAX: Duration = Duration::from_secs(3600);

/// Nobody's reputation is worse.
pub const REPUTATION_MIN: f64 = 0.1;

/// How far one outcome moves a reputation towards the best or the worst.
const SHARE_OF_ONE: f64 = 0.05;

/// How long it takes until half of what is missing to the best is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(3600);

/// How long what has become of a name may take to be stored; the news of all workers in that time are stored together.
pub const STORED_WITHIN: Duration = Duration::from_secs(10);

/// From here on a name is as good as the best.
const AS_GOOD_AS_NEW: f64 = 0.999;

/// What an outcome says of the worker that brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It did what it was asked to do.
    Good,
    /// It did not.
    Bad,
    /// Nothing: the job was at fault, or was given up.
    None,
}

/// A worker whose name is not the best.
#[derive(Debug)]
struct Reputation {
    score: f64,
    /// As of when.
    at: Timestamp,
    /// Different jobs that failed on it, or were lost with it, since one did not.
    failed: Vec<JobId>,
    /// Until when it is set aside.
    aside_until: Option<Timestamp>,
    /// How often it was since a job did not fail.
    times: u32,
}

impl Reputation {
    fn score(&self, now: Timestamp) -> f64 {
        let half_lives = now.saturating_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        (1.0 - (1.0 - self.score) * 0.5_f64.powf(half_lives)).max(REPUTATION_MIN)
    }
}

/// The reputations of all workers.
#[derive(Debug, Default)]
pub struct Reputations {
    by_worker: HashMap<Arc<str>, Reputation>,
    aside: BTreeSet<(Timestamp, Arc<str>)>,
    /// Of whom something else was stored, if anything.
    unstored: BTreeSet<Arc<str>>,
    /// When these are to be stored.
    store_at: Option<Timestamp>,
}

impl Reputations {
    /// How well the worker's tasks end: from [`REPUTATION_MIN`] to 1.
    pub fn score(&self, worker_id: &str, now: Timestamp) -> f64 {
        self.by_worker.get(worker_id).map_or(1.0, |reputation| reputation.score(now))
    }

    /// Whether anything is held against the worker.
    pub fn knows(&self, worker_id: &str) -> bool {
        self.by_worker.contains_key(worker_id)
    }

    /// What is held against the worker.
    pub fn reproach(&self, worker_id: &str) -> Option<Reproach> {
        self.by_worker.get(worker_id).map(|reputation| Reproach {
            reputation: reputation.score,
            at: reputation.at,
            aside_until: reputation.aside_until,
            times_aside: reputation.times,
        })
    }

    /// Holds against the worker what was held against it before a restart. Which jobs had failed in a row is not known any more.
    pub fn remember(&mut self, worker_id: &Arc<str>, reproach: Reproach, now: Timestamp) {
        if self.by_worker.len() >= REPUTATIONS_MAX {
            return;
        }
        // The clock may have been set back meanwhile.
        let aside_until =
            reproach.aside_until.filter(|&until| until > now).map(|until| until.min(now + SET_ASIDE_MAX));
        let score =
            if reproach.reputation.is_nan() { 1.0 } else { reproach.reputation.clamp(REPUTATION_MIN, 1.0) };
        let reputation = Reputation {
            score,
            at: reproach.at.min(now),
            failed: Vec::new(),
            aside_until,
            times: reproach.times_aside,
        };
        self.aside.extend(aside_until.map(|until| (until, worker_id.clone())));
        self.by_worker.insert(worker_id.clone(), reputation);
    }

    /// The workers of whom something else may be held than was stored, if it is time to store that.
    pub fn take_unstored(&mut self, now: Timestamp) -> BTreeSet<Arc<str>> {
        if self.store_at.is_none_or(|at| at > now) {
            return BTreeSet::new();
        }
        self.store_at = None;
        std::mem::take(&mut self.unstored)
    }

    /// What is held against this worker is to be stored, soon.
    pub fn changed(&mut self, worker_id: &Arc<str>, now: Timestamp) {
        if self.unstored.insert(worker_id.clone()) {
            self.store_at.get_or_insert(now + STORED_WITHIN);
        }
    }

    /// Until when the worker is set aside, if it is.
    pub fn aside_until(&self, worker_id: &str) -> Option<Timestamp> {
        self.by_worker.get(worker_id)?.aside_until
    }

    /// Whether the job is one of those that failed on the worker in a row.
    pub fn is_in_row(&self, worker_id: &str, job_id: JobId) -> bool {
        self.by_worker.get(worker_id).is_some_and(|reputation| reputation.failed.contains(&job_id))
    }

    /// An attempt at this job has ended on the worker. Whether so many in a row have failed that it should be set aside.
    pub fn mark(&mut self, worker_id: &Arc<str>, job_id: JobId, mark: Mark, now: Timestamp) -> bool {
        match mark {
            Mark::None => false,
            Mark::Good => {
                self.good(worker_id, now);
                false
            }
            Mark::Bad => self.bad(worker_id, job_id, now),
        }
    }

    fn good(&mut self, worker_id: &Arc<str>, now: Timestamp) {
        let Some(reputation) = self.by_worker.get_mut(worker_id) else { return };
        let score = reputation.score(now);
        (reputation.score, reputation.at) = (score + SHARE_OF_ONE * (1.0 - score), now);
        reputation.failed.clear();
        reputation.times = 0;
        if reputation.score > AS_GOOD_AS_NEW && reputation.aside_until.is_none() {
            self.by_worker.remove(worker_id);
        }
        self.changed(worker_id, now);
    }

    fn bad(&mut self, worker_id: &Arc<str>, job_id: JobId, now: Timestamp) -> bool {
        if !self.by_worker.contains_key(worker_id) {
            self.make_room(now);
        }
        self.changed(worker_id, now);
        let reputation = self.by_worker.entry(worker_id.clone()).or_insert_with(|| Reputation {
            score: 1.0,
            at: now,
            failed: Vec::new(),
            aside_until: None,
            times: 0,
        });
        let score = reputation.score(now);
        (reputation.score, reputation.at) = ((score - SHARE_OF_ONE * score).max(REPUTATION_MIN), now);
        // The same job again and again may be the job's fault.
        if reputation.failed.len() < FAILURES_MAX && !reputation.failed.contains(&job_id) {
            reputation.failed.push(job_id);
        }
        reputation.failed.len() == FAILURES_MAX && reputation.aside_until.is_none()
    }

    /// The worker is set aside, for longer each time in a row. Returns until when.
    pub fn set_aside(&mut self, worker_id: &Arc<str>, now: Timestamp) -> Option<Timestamp> {
        let reputation = self.by_worker.get_mut(worker_id)?;
        let factor = 1_u32.checked_shl(reputation.times).unwrap_or(u32::MAX);
        let until = now + SET_ASIDE_FIRST.saturating_mul(factor).min(SET_ASIDE_MAX);
        reputation.times += 1;
        reputation.aside_until = Some(until);
        self.aside.insert((until, worker_id.clone()));
        self.changed(worker_id, now);
        Some(until)
    }

    /// When [`Reputations::back`] or [`Reputations::take_unstored`] next have something to say.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.aside.first().map(|(until, _)| *until).into_iter().chain(self.store_at).min()
    }

    /// The workers whose time aside is over: they are tried again.
    pub fn back(&mut self, now: Timestamp) -> Vec<Arc<str>> {
        let mut back = Vec::new();
        while let Some((until, worker_id)) = self.aside.first().cloned()
            && until <= now
        {
            self.aside.pop_first();
            if let Some(reputation) = self.by_worker.get_mut(&worker_id) {
                reputation.aside_until = None;
                reputation.failed.truncate(FAILURES_MAX - FAILURES_AGAIN);
            }
            back.push(worker_id);
        }
        back
    }

    /// Somebody vouches for the worker: its name is the best again. Whether it was set aside.
    pub fn restore(&mut self, worker_id: &str, now: Timestamp) -> bool {
        if let Some((worker_id, _)) = self.by_worker.remove_entry(worker_id) {
            self.changed(&worker_id, now);
        }
        let before = self.aside.len();
        self.aside.retain(|(_, aside)| **aside != *worker_id);
        self.aside.len() < before
    }

    /// Forgets one, if there are as many as there may be. Costs a look at all of them. One that is set aside comes back in its time all
    /// the same.
    fn make_room(&mut self, now: Timestamp) {
        if self.by_worker.len() < REPUTATIONS_MAX {
            return;
        }
        let longest = self.by_worker.iter().min_by_key(|(worker_id, reputation)| (reputation.at, *worker_id));
        if let Some(worker_id) = longest.map(|(worker_id, _)| worker_id.clone()) {
            self.by_worker.remove(&worker_id);
            self.changed(&worker_id, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn name(number: usize) -> Arc<str> {
        Arc::from(format!("w{number}"))
    }

    fn job(number: usize) -> JobId {
        JobId::compose(0, 0, number as u64)
    }

    #[test]
    fn outcomes_move_a_reputation_between_the_floor_and_the_best_and_time_mends_it() {
        let (mut reputations, w) = (Reputations::default(), name(1));
        assert_eq!(reputations.score(&w, NOW), 1.0);
        reputations.mark(&w, job(1), Mark::Bad, NOW);
        assert_eq!(reputations.score(&w, NOW), 0.95);
        reputations.mark(&w, job(1), Mark::None, NOW);
        assert_eq!(reputations.score(&w, NOW), 0.95);
        reputations.mark(&w, job(2), Mark::Good, NOW);
        assert!(reputations.score(&w, NOW) > 0.95);
        for number in 0..1000 {
            reputations.mark(&w, job(number), Mark::Bad, NOW);
        }
        assert_eq!(reputations.score(&w, NOW), REPUTATION_MIN);
        let later = NOW + HALF_LIFE;
        assert!((reputations.score(&w, later) - (1.0 - 0.9 / 2.0)).abs() < 1e-9);
        for number in 0..1000 {
            reputations.mark(&w, job(number), Mark::Good, later);
        }
        assert_eq!(reputations.score(&w, later), 1.0);
        assert!(reputations.by_worker.is_empty(), "a good name costs nothing");
    }

    #[test]
    fn many_different_jobs_in_a_row_and_nothing_less_set_a_worker_aside() {
        let (mut reputations, w) = (Reputations::default(), name(1));
        let mut fails = |number| reputations.mark(&w, job(number), Mark::Bad, NOW);
        assert!((0..100).all(|_| !fails(1)), "one job may be at fault itself");
        assert!((2..FAILURES_MAX).all(|number| !fails(number)));
        assert!(fails(FAILURES_MAX));
        reputations.mark(&w, job(1), Mark::Good, NOW);
        assert!(!reputations.mark(&w, job(77), Mark::Bad, NOW), "it is no row any more");
    }

    #[test]
    fn each_time_in_a_row_is_longer_than_the_one_before_and_a_success_ends_the_row() {
        let (mut reputations, w) = (Reputations::default(), name(1));
        let mut now = NOW;
        let mut aside_for = Vec::new();
        for round in 0..9 {
            let failures = (0..FAILURES_MAX).map(|number| job(round * 100 + number));
            let needed = failures.take_while(|&job| !reputations.mark(&w, job, Mark::Bad, now)).count() + 1;
            assert_eq!(needed, if round == 0 { FAILURES_MAX } else { FAILURES_AGAIN });
            let until = reputations.set_aside(&w, now).unwrap();
            assert_eq!(reputations.aside_until(&w), Some(until));
            aside_for.push(until.saturating_since(now).as_secs());
            assert!(reputations.back(now).is_empty());
            now = until;
            assert_eq!(reputations.back(now), std::slice::from_ref(&w));
            assert_eq!(reputations.aside_until(&w), None);
        }
        assert_eq!(aside_for, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        reputations.mark(&w, job(1), Mark::Good, now);
        for number in 0..FAILURES_MAX {
            reputations.mark(&w, job(number), Mark::Bad, now);
        }
        assert_eq!(reputations.set_aside(&w, now), Some(now + SET_ASIDE_FIRST));
        assert!(reputations.restore(&w, now) && !reputations.restore(&w, now));
        assert_eq!(reputations.score(&w, now), 1.0);
        assert_eq!(reputations.take_unstored(now + STORED_WITHIN).len(), 1);
        assert_eq!(reputations.next_due(), None);
    }

    #[test]
    fn one_that_is_set_aside_comes_back_although_its_name_was_forgotten() {
        let (mut reputations, w) = (Reputations::default(), name(0));
        for number in 0..FAILURES_MAX {
            reputations.mark(&w, job(number), Mark::Bad, NOW);
        }
        let until = reputations.set_aside(&w, NOW).unwrap();
        let later = NOW + Duration::from_secs(1);
        for number in 1..=REPUTATIONS_MAX {
            reputations.mark(&name(number), job(1), Mark::Bad, later);
        }
        assert!(!reputations.knows(&w), "there was no room for it");
        assert_eq!(reputations.back(until), [w]);
    }

    #[test]
    fn what_is_held_against_a_worker_is_stored_soon_and_survives() {
        let (mut reputations, w) = (Reputations::default(), name(1));
        for number in 0..FAILURES_MAX {
            reputations.mark(&w, job(number), Mark::Bad, NOW);
        }
        let until = reputations.set_aside(&w, NOW).unwrap();
        assert_eq!(reputations.take_unstored(NOW).len(), 0, "others may come");
        let soon = NOW + STORED_WITHIN;
        assert_eq!(reputations.next_due(), Some(soon));
        assert!(reputations.take_unstored(soon).contains(&w));
        let stored = reputations.reproach(&w).unwrap();

        let mut again = Reputations::default();
        again.remember(&w, stored, soon);
        assert_eq!(again.score(&w, soon), reputations.score(&w, soon));
        assert_eq!((again.aside_until(&w), again.next_due()), (Some(until), Some(until)));
        assert_eq!(again.back(until), std::slice::from_ref(&w));
        let longer = again.set_aside(&w, until).unwrap();
        assert_eq!(longer.saturating_since(until), 2 * SET_ASIDE_FIRST, "it is the second time in a row");

        // By a clock that was set back by years, nobody is set aside for longer than anybody ever is.
        let mut before = Reputations::default();
        let back_then = NOW + Duration::ZERO;
        before.remember(&w, Reproach { aside_until: Some(NOW + 1000 * SET_ASIDE_MAX), ..stored }, back_then);
        assert_eq!(before.aside_until(&w), Some(NOW + SET_ASIDE_MAX));
    }

    #[test]
    fn only_so_many_names_are_remembered() {
        let mut reputations = Reputations::default();
        for number in 0..=REPUTATIONS_MAX {
            let at = NOW + Duration::from_millis(number as u64);
            reputations.mark(&name(number), job(1), Mark::Bad, at);
        }
        assert_eq!(reputations.by_worker.len(), REPUTATIONS_MAX);
        assert_eq!(reputations.score(&name(0), NOW), 1.0, "who was longest not heard of is forgotten");
    }
}
