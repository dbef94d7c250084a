//! Forgets jobs that ended long ago.
//!
//! It goes in rounds. A round walks the jobs from the oldest to the first that is too young, a slice at a time: reads which of
//! them may go, has the conductor remove them, waits until that is durable. While there is more to remove it goes on at once,
//! so that it keeps up with the rate at which jobs end. A slice is small where commits are quick and larger where they take
//! their time anyway, so that it makes none of them much longer. A job that was open when a round passed it is met by a later
//! one.
//!
//! Where no more than a number of jobs is to be kept, a second walk follows: it removes the oldest ones that are too many, in the
//! same way.
//!
//! Jobs that stay although they are old (they are open, or took long) are looked at in every round: the more of them there are,
//! the longer is the rest after it.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, ErrorCode};

use super::Chore;
use crate::{
    conductor::Conductor,
    live::Live,
    store::{PRUNE_JOBS_MAX, PruneQuery},
    time::{Clock, Timestamp},
};

/// How often a round begins, if nothing else says otherwise: an idle orchestrator is woken by it, and nobody is waiting.
pub const ROUND_EVERY: Duration = Duration::from_secs(60);

/// How long a job is kept after its end however many there are, so that its client can read how it ended.
pub const KEPT_AT_LEAST: Duration = Duration::from_secs(60);

/// Jobs in a slice where commits are quick.
pub const SLICE_MIN: usize = 288;

/// One job more in a slice for each such time that the last one waited to be durable. A removal is a few bytes in the journal,
/// and the wait is mostly that for other commits; so as many jobs can go each second as end however busy the store is.
const WAIT_PER_JOB: Duration = Duration::from_micros(30);

/// Rest for each job that a round looked at in vain. Looking takes a few microseconds, so that one reader of the store is busy
/// with it for some percent of the time at most; a million jobs that are open for long are looked at every few minutes.
const REST_PER_KEPT: Duration = Duration::from_micros(200);

/// Which jobs are kept after their end. The default keeps all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those that have ended no longer ago than this.
    pub age: Option<Duration>,
    /// No more than so many: the oldest go first, by the time at which they were submitted.
    pub count: Option<u64>,
}

impl Retention {
    /// Keeps jobs for so long after their end.
    pub fn for_age(age: Duration) -> Self {
        Self { age: Some(age), count: None }
    }

    /// Whether every job is kept for ever.
    pub fn keeps_all(self) -> bool {
        self.age.is_none() && self.count.is_none()
    }
}

/// The chore.
pub struct Pruning {
    conductor: Conductor,
    clock: Arc<dyn Clock>,
    retention: Live<Retention>,
    /// What holds for the round that is under way.
    kept: Retention,
    /// Jobs in the next slice at most.
    limit: usize,
    /// The round that is under way.
    round: Option<Round>,
}

/// One walk over the old jobs.
#[derive(Debug)]
struct Round {
    started_at: Timestamp,
    /// Where the next slice begins; what had ended when the round began, so that the round itself ends.
    query: PruneQuery,
    /// How many more may go; `None` when age alone decides.
    too_many: Option<u64>,
    removed: usize,
    /// Jobs that were looked at and stay.
    kept: usize,
}

impl Pruning {
    /// Forgets what is not to be kept.
    pub fn new(conductor: Conductor, clock: Arc<dyn Clock>, retention: Retention) -> Self {
        let live = Live::new(retention);
        Self { conductor, clock, retention: live, kept: retention, limit: SLICE_MIN, round: None }
    }

    /// What is kept, and may be replaced while it works: from the next round on.
    pub fn retention(&self) -> &Live<Retention> {
        &self.retention
    }
}

impl Chore for Pruning {
    /// Removes one slice.
    async fn tick(&mut self) -> Option<Duration> {
        if self.round.is_none() {
            self.kept = *self.retention.current();
        }
        if self.kept.keeps_all() {
            return Some(ROUND_EVERY);
        }
        let begin = || Round::beginning(self.clock.now(), self.kept.age);
        let mut round = self.round.take().unwrap_or_else(begin);
        match self.remove_slice(&mut round).await {
            Ok(true) => {
                self.round = Some(round);
                Some(Duration::ZERO)
            }
            Ok(false) => {
                round.report();
                Some(round.rest(self.clock.now()))
            }
            Err(error) if error.code == ErrorCode::ShuttingDown => None,
            // A full or failing store, or a crowd: the conductor has said so, and later is early enough.
            Err(_) => {
                round.report();
                Some(ROUND_EVERY)
            }
        }
    }
}

impl Pruning {
    /// Whether there is more to do in this round.
    async fn remove_slice(&mut self, round: &mut Round) -> Result<bool, ApiError> {
        let limit = round.too_many.map_or(self.limit, |left| self.limit.min(left as usize));
        if limit > 0 && (self.kept.age.is_some() || round.too_many.is_some()) {
            let slice = self.conductor.prunable(PruneQuery { limit, ..round.query }).await?;
            let mut removed = 0;
            if !slice.removals.is_empty() {
                let sent_at = self.clock.now();
                removed = self.conductor.prune(slice.removals).await?;
                self.limit = limit_after(self.clock.now().saturating_since(sent_at));
            }
            round.removed += removed;
            round.kept += slice.looked_at - removed;
            round.too_many = round.too_many.map(|left| left - removed as u64);
            if let Some(above_key) = slice.next_above_key
                && round.too_many != Some(0)
            {
                round.query.above_key = above_key;
                return Ok(true);
            }
        }
        self.count_what_is_left(round).await
    }

    /// The walk by age is over: those follow that are too many.
    async fn count_what_is_left(&mut self, round: &mut Round) -> Result<bool, ApiError> {
        let Some(most) = self.kept.count.filter(|_| round.too_many.is_none()) else { return Ok(false) };
        let too_many = self.conductor.ended_total().await?.saturating_sub(most);
        round.too_many = Some(too_many);
        round.query.above_key = PruneQuery::FROM_THE_OLDEST;
        round.query.ended_by = round.started_at - KEPT_AT_LEAST;
        Ok(too_many > 0)
    }
}

/// How many jobs the next slice may hold when the last one waited so long to be durable.
fn limit_after(wait: Duration) -> usize {
    let jobs = wait.as_micros() / WAIT_PER_JOB.as_micros();
    usize::try_from(jobs).unwrap_or(usize::MAX).clamp(SLICE_MIN, PRUNE_JOBS_MAX)
}

impl Round {
    fn beginning(now: Timestamp, age: Option<Duration>) -> Self {
        let ended_by = now - age.unwrap_or(KEPT_AT_LEAST);
        let query = PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by, limit: SLICE_MIN };
        Self { started_at: now, query, too_many: None, removed: 0, kept: 0 }
    }

    fn report(&self) {
        if self.removed > 0 {
            tracing::info!("Removed {} jobs that had ended long enough ago, or were too many", self.removed);
        }
    }

    /// How long to rest after the round.
    fn rest(&self, now: Timestamp) -> Duration {
        let until_next = ROUND_EVERY.saturating_sub(now.saturating_since(self.started_at));
        let kept = u32::try_from(self.kept).unwrap_or(u32::MAX);
        until_next.max(REST_PER_KEPT * kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_as_large_as_commits_are_slow() {
        for (wait_ms, jobs) in [(0, 288), (5, 288), (9, 300), (30, 1000), (50, 1024), (u64::MAX, 1024)] {
            assert_eq!(limit_after(Duration::from_millis(wait_ms)), jobs, "{wait_ms} ms");
        }
    }

    #[test]
    fn the_rest_grows_with_what_was_looked_at_in_vain_and_shrinks_with_the_time_the_round_took() {
        let began = Timestamp::from_micros(1_700_000_000_000_000);
        for (took_s, kept, rest_s) in
            [(0, 0, 60), (10, 0, 50), (3600, 0, 0), (10, 1000, 50), (3600, 10_000, 2), (1, 1_000_000, 200)]
        {
            let round = Round { kept, ..Round::beginning(began, Some(Duration::from_secs(1))) };
            let rest = round.rest(began + Duration::from_secs(took_s));
            assert_eq!(rest, Duration::from_secs(rest_s), "{took_s} s, {kept} kept");
        }
    }
}
