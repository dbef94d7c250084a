//! One key: how much of it is taken, and who stands in line for it.
//!
//! Those in line stand in the order priority, age. The first of them, as many as there is room for, are *near*: each of these could
//! have its share at once, also if all before it took theirs. So one that waits for another key too keeps its turn here, and one behind it
//! goes first only where there is room for both. How much anybody takes is a weight: one of a number at once, or the time in which one
//! token comes. Where limits differ, all that are near are held to the smallest among them: nobody is passed for ever by others with a larger one.
//!
//! It refuses to know who they are and what else they wait for.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    blueprint::{KeyLimit, Share},
    time::Timestamp,
};

/// A place in line: priority, then age, then the age of the job (its key).
pub type Rank = (Reverse<i32>, Timestamp, i64);

/// What somebody takes of a key, and how much of it may be taken in all for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    weight: u64,
    capacity: u64,
}

impl Load {
    /// What this share comes to.
    pub fn of(share: &Share) -> Self {
        match share.limit {
            KeyLimit::Concurrency(limit) => Self { weight: 1, capacity: u64::from(limit) },
            KeyLimit::Rate(rate) => {
                Self { weight: rate.interval().as_micros() as u64, capacity: rate.depth().as_micros() as u64 }
            }
        }
    }

    /// The same, where the same decision has taken so much already.
    pub fn beside(self, taken: u64) -> Self {
        Self { weight: self.weight + taken, ..self }
    }

    /// What is taken of a bucket at once with this: one token.
    pub fn weight(self) -> u64 {
        self.weight
    }
}

/// Who has come near, and who is no longer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moves {
    pub near: Vec<i64>,
    pub far: Vec<i64>,
}

/// The line of one key.
#[derive(Debug, Default)]
pub struct Line {
    /// Who has one of a number at once, the oldest first, by the job's key.
    holders: BTreeSet<(Timestamp, i64)>,
    /// When a bucket will be full.
    full_at: Timestamp,
    near: BTreeMap<Rank, Load>,
    far: BTreeMap<Rank, Load>,
    near_weight: u64,
    /// Capacities of those near, and how many have each.
    capacities: BTreeMap<u64, u32>,
}

/// What somebody who comes finds of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Its share, at once.
    Now,
    /// A share beside those who are near and wait for other keys: it would be near, too.
    Beside,
    /// Too little.
    None,
}

impl Line {
    // ---- What is taken ----

    pub fn hold(&mut self, since: Timestamp, job: i64) {
        self.holders.insert((since, job));
    }

    pub fn let_go(&mut self, since: Timestamp, job: i64) {
        self.holders.remove(&(since, job));
    }

    /// Takes a token.
    pub fn spend(&mut self, load: Load, now: Timestamp) {
        self.full_at = self.full_at.max(now) + std::time::Duration::from_micros(load.weight);
    }

    /// When a bucket will be full.
    pub fn full_at(&self) -> Timestamp {
        self.full_at
    }

    pub fn set_full_at(&mut self, full_at: Timestamp) {
        self.full_at = full_at;
    }

    /// Those who have one at once, the oldest first.
    pub fn holders(&self) -> impl Iterator<Item = i64> {
        self.holders.iter().map(|(_, job)| *job)
    }

    pub fn held(&self) -> usize {
        self.holders.len()
    }

    pub fn is_held_by(&self, since: Timestamp, job: i64) -> bool {
        self.holders.contains(&(since, job))
    }

    /// What is taken at this time.
    pub fn taken(&self, now: Timestamp) -> u64 {
        self.holders.len() as u64 + self.full_at.saturating_since(now).as_micros() as u64
    }

    /// Whether it says no more than a line that is not there.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        self.holders.is_empty() && self.near.is_empty() && self.far.is_empty() && self.full_at <= now
    }

    // ---- Who stands in line ----

    /// The first in line.
    pub fn first(&self) -> Option<Rank> {
        self.near.keys().next().or_else(|| self.far.keys().next()).copied()
    }

    pub fn is_near(&self, rank: Rank) -> bool {
        self.near.contains_key(&rank)
    }

    /// How many stand in line.
    pub fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    /// How many stand before this one; at most `limit` are counted.
    pub fn ahead(&self, rank: Rank, limit: usize) -> usize {
        self.near.range(..rank).chain(self.far.range(..rank)).take(limit).count()
    }

    /// Somebody comes; behind all who are near, until [`Line::settle`].
    pub fn come(&mut self, rank: Rank, load: Load) {
        match self.near.last_key_value() {
            Some((&last, _)) if rank < last => self.put_near(rank, load),
            _ => drop(self.far.insert(rank, load)),
        }
    }

    /// Somebody goes.
    pub fn go(&mut self, rank: Rank) {
        if self.take_near(rank).is_none() {
            self.far.remove(&rank);
        }
    }

    /// Lets as many be near as there is room for. `came` has come since the last time and is told of in any case, if it is near.
    pub fn settle(&mut self, now: Timestamp, came: Option<Rank>) -> Moves {
        let taken = self.taken(now);
        let mut moves = Moves::default();
        let came = came.filter(|rank| self.near.contains_key(rank));
        moves.near.extend(came.map(|rank| rank.2));
        while let Some((&last, _)) = self.near.last_key_value()
            && self.capacity().is_some_and(|capacity| taken + self.near_weight > capacity)
            && let Some(load) = self.take_near(last)
        {
            self.far.insert(last, load);
            moves.far.push(last.2);
        }
        while let Some((&first, &load)) = self.far.first_key_value()
            && taken + self.near_weight + load.weight <= self.capacity_with(load)
        {
            self.far.remove(&first);
            self.put_near(first, load);
            moves.near.push(first.2);
        }
        moves
    }

    /// Whether one more finds its share here, passing nobody. `own` is what is taken and will not be by then.
    pub fn room(&self, load: Load, rank: Rank, now: Timestamp, own: u64) -> Room {
        let taken = self.taken(now) - own + load.weight;
        let comes_before = |first: Option<&Rank>| first.is_none_or(|first| rank < *first);
        if comes_before(self.first().as_ref()) && taken <= load.capacity {
            Room::Now
        } else if comes_before(self.far.keys().next()) && taken + self.near_weight <= self.capacity_with(load)
        {
            Room::Beside
        } else {
            Room::None
        }
    }

    /// When the first who is not near will be, by time alone; `None` when time alone does not bring that.
    pub fn next_near(&self) -> Option<Timestamp> {
        let (_, load) = self.far.first_key_value()?;
        let room =
            self.capacity_with(*load).checked_sub(self.near_weight + load.weight + self.held() as u64)?;
        Some(Timestamp::from_micros(self.full_at.as_micros().saturating_sub_unsigned(room)))
    }

    fn capacity(&self) -> Option<u64> {
        self.capacities.keys().next().copied()
    }

    fn capacity_with(&self, load: Load) -> u64 {
        self.capacity().map_or(load.capacity, |capacity| capacity.min(load.capacity))
    }

    fn put_near(&mut self, rank: Rank, load: Load) {
        self.near.insert(rank, load);
        self.near_weight += load.weight;
        *self.capacities.entry(load.capacity).or_default() += 1;
    }

    fn take_near(&mut self, rank: Rank) -> Option<Load> {
        let load = self.near.remove(&rank)?;
        self.near_weight -= load.weight;
        if let Some(count) = self.capacities.get_mut(&load.capacity) {
            *count -= 1;
            if *count == 0 {
                self.capacities.remove(&load.capacity);
            }
        }
        Some(load)
    }
}
