//! The tasks of one client that wait at one priority of one class, the oldest first, and whose turn it is among such lanes.
//!
//! Turns are start-time fair queueing. Each lane has a tag, a point in the virtual time of its level; the least goes next, and
//! each task taken moves it on by the inverse of the client's weight. A lane that comes new begins at the present, so that nobody
//! saves up turns by being idle; one that runs empty keeps its tag until the present has caught up, so that nobody gains any by
//! coming back. It refuses to know what a task is.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use super::ClassId;
use crate::{engine::Offer, time::Timestamp};

/// Where a task stands in its lane: by age, then by the age of its job (its key).
pub type Rank = (Timestamp, i64);

/// A point in virtual time.
pub type Tag = u64;

/// What one task costs a client of weight 1, in virtual time. Divisible by many weights, and so small that 2⁴⁰ tasks of one
/// busy stretch do not overflow a [`Tag`].
pub const TASK: Tag = 5040;

/// The number of a lane. Given anew when the lane is gone.
pub type LaneId = u32;

/// Where a lane is noted in its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Nowhere: it has no tasks and owes nothing.
    Nowhere,
    /// In line, with the tag and the rank of its first task.
    InLine(Tag, Rank),
    /// Its first task is aside.
    Starved,
    /// It has no tasks, and its tag is ahead of the present.
    Ahead(Tag),
}

/// The tasks of one client.
#[derive(Debug)]
pub struct Lane {
    /// What they have in common.
    pub class: ClassId,
    /// How urgent they are.
    pub priority: i32,
    /// Whose they are.
    pub client: Arc<str>,
    /// When its next task starts, in virtual time.
    pub tag: Tag,
    /// What each of its tasks costs.
    pub cost: Tag,
    /// Those at hand.
    pub loaded: BTreeMap<Rank, Offer>,
    /// Those whose offers are left to be made again.
    pub aside: BTreeSet<Rank>,
    /// Where it is noted.
    pub stand: Stand,
    /// Whether it is noted as one that should be given more of what is aside.
    pub is_short: bool,
}

impl Lane {
    /// How many tasks it has.
    pub fn len(&self) -> usize {
        self.loaded.len() + self.aside.len()
    }

    /// Where it belongs when it is so late.
    pub fn belongs(&self, clock: Tag) -> Stand {
        let loaded = self.loaded.first_key_value().map(|(&rank, _)| rank);
        match (loaded, self.aside.first()) {
            (Some(first), aside) if aside.is_none_or(|&aside| first < aside) => {
                Stand::InLine(self.tag, first)
            }
            (_, Some(_)) => Stand::Starved,
            _ if self.tag > clock => Stand::Ahead(self.tag),
            _ => Stand::Nowhere,
        }
    }

    /// Whether so few tasks are at hand that more of what is aside should be.
    pub fn runs_short(&self, at_hand: usize) -> bool {
        !self.aside.is_empty() && (self.loaded.len() < at_hand || self.is_starved())
    }

    fn is_starved(&self) -> bool {
        let first = self.aside.first();
        first.is_some_and(|aside| self.loaded.first_key_value().is_none_or(|(loaded, _)| aside < loaded))
    }

    /// How many tasks stand in this range; `None` when there are `limit` or more. Costs a look at so many.
    pub fn count(&self, range: impl RangeBounds<Rank> + Clone, limit: usize) -> Option<usize> {
        let loaded = self.loaded.range(range.clone()).take(limit).count();
        let count = loaded + self.aside.range(range).take(limit - loaded).count();
        (count < limit).then_some(count)
    }

    /// How many tasks stand before this rank, counted from the nearer end; `None` when both are `limit` or more away.
    pub fn count_before(&self, rank: Rank, limit: usize) -> Option<usize> {
        let behind = || self.count((Bound::Excluded(rank), Bound::Unbounded), limit);
        self.count(..rank, limit).or_else(|| behind().map(|behind| self.len() - 1 - behind))
    }

    /// How many of its tasks start before this point in virtual time, or at it, if its first task is older than this one.
    pub fn count_until(&self, tag: Tag, rank: Rank) -> usize {
        let Some(span) = tag.checked_sub(self.tag) else { return 0 };
        let before = span.div_ceil(self.cost);
        let first = match self.belongs(Tag::MAX) {
            Stand::InLine(_, first) => Some(first),
            _ => self.aside.first().copied(),
        };
        let at_it = span.is_multiple_of(self.cost) && first.is_some_and(|first| first < rank);
        (before as usize + usize::from(at_it)).min(self.len())
    }
}

/// The lanes of one priority.
#[derive(Debug, Default)]
pub struct Level {
    /// Lanes that could be served, whose turn it is first.
    pub line: BTreeSet<(Tag, Rank, LaneId)>,
    /// Lanes without tasks that are ahead of the present.
    pub ahead: BTreeSet<(Tag, LaneId)>,
    /// The present: the tag of the task that was taken last.
    pub clock: Tag,
    /// Tasks in all its lanes.
    pub len: usize,
}

impl Level {
    /// Notes that a lane has gone from one place to another.
    pub fn note(&mut self, lane: LaneId, before: Stand, now: Stand) {
        match before {
            Stand::InLine(tag, rank) => drop(self.line.remove(&(tag, rank, lane))),
            Stand::Ahead(tag) => drop(self.ahead.remove(&(tag, lane))),
            Stand::Nowhere | Stand::Starved => {}
        }
        match now {
            Stand::InLine(tag, rank) => drop(self.line.insert((tag, rank, lane))),
            Stand::Ahead(tag) => drop(self.ahead.insert((tag, lane))),
            Stand::Nowhere | Stand::Starved => {}
        }
    }

    /// A lane without tasks that nobody need remember: with the present it has caught up, or it is alone with its kind.
    pub fn forgettable(&mut self) -> Option<LaneId> {
        let &(tag, lane) = self.ahead.first()?;
        (tag <= self.clock || self.len == 0).then(|| {
            self.ahead.pop_first();
            lane
        })
    }
}
