//! Children that begin although as many jobs are open as may be.
//!
//! A parent is open while it waits for its children, so in a full house some of them must begin all the same, or nobody would get on.
//! But each may be a parent itself: if every one of them brought another, there would be no bound. So at each depth only so many are
//! there beyond the limit, and the other families of that depth wait for one of those to end; or for room, for which some of them are
//! looked at once a second, and some of those of which a child runs already. It promises that somebody gets on as long as the deepest do, and forgets after a restart who came beyond
//! the limit. It refuses to know what limits there are.

use std::collections::{BTreeSet, VecDeque};

use avtomatika_proto::JobId;

use crate::{engine::CHILD_DEPTH_MAX, hash::FastMap};

/// Children of one depth that are there beyond the limit: enough to keep some workers busy.
pub(super) const BEYOND_MAX: usize = 64;

/// Families of each depth that are looked at once a second, and of those that have children already.
const LOOKED_AT: usize = 128;

const DEPTHS: usize = CHILD_DEPTH_MAX as usize + 1;

/// Who is there beyond the limit, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Children beyond the limit, and the depth of their parents.
    beyond: FastMap<JobId, usize>,
    /// By the depth of the parents.
    depths: [Depth; DEPTHS],
    /// Families of which some run and more could, if there were room: they have no place to wait for.
    cramped: BTreeSet<i64>,
}

#[derive(Debug, Default)]
struct Depth {
    beyond: usize,
    /// Families of which none runs, by their keys.
    waiting: VecDeque<i64>,
}

impl Depth {
    fn places(&self) -> usize {
        BEYOND_MAX.saturating_sub(self.beyond)
    }
}

impl Crowd {
    /// Whether a child of a parent at this depth may begin beyond the limit.
    pub fn has_place(&self, depth: u32) -> bool {
        self.at(depth).places() > 0
    }

    /// It does.
    pub fn begins(&mut self, child: JobId, depth: u32) {
        let depth = place_of(depth);
        if self.beyond.insert(child, depth).is_none() {
            self.depths[depth].beyond += 1;
        }
    }

    /// Whoever has ended is there no more.
    pub fn ended(&mut self, job: JobId) {
        if let Some(depth) = self.beyond.remove(&job) {
            self.depths[depth].beyond -= 1;
        }
    }

    /// A family waits for a place.
    pub fn wait(&mut self, family: i64, depth: u32) {
        self.depths[place_of(depth)].waiting.push_back(family);
    }

    /// A family waits for nothing but room.
    pub fn wait_for_room(&mut self, family: i64) {
        self.cramped.insert(family);
    }

    /// Whether there is a place for a family that waits.
    pub fn is_somebodys_turn(&self) -> bool {
        self.depths.iter().any(|depth| depth.places() > 0 && !depth.waiting.is_empty())
    }

    /// The families whose turn it is: as many as there are places. One that does not need its place leaves it to the next.
    pub fn turns(&mut self) -> Vec<i64> {
        let mut turns = Vec::new();
        for depth in &mut self.depths {
            let places = depth.places().min(depth.waiting.len());
            turns.extend(depth.waiting.drain(..places));
        }
        turns
    }

    /// Some of the families that wait, in turn: there may be room by now. One for which there is none waits again.
    pub fn look_at_some(&mut self) -> Vec<i64> {
        let some = |depth: &mut Depth| {
            let count = depth.waiting.len().min(LOOKED_AT);
            depth.waiting.drain(..count).collect::<Vec<i64>>()
        };
        let mut looked_at: Vec<i64> = self.depths.iter_mut().flat_map(some).collect();
        // The oldest first. One that is gone by now is nobody's.
        looked_at.extend(std::iter::from_fn(|| self.cramped.pop_first()).take(LOOKED_AT));
        looked_at
    }

    fn at(&self, depth: u32) -> &Depth {
        &self.depths[place_of(depth)]
    }
}

fn place_of(depth: u32) -> usize {
    (depth as usize).min(DEPTHS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64) -> JobId {
        JobId::compose(0, 0, number)
    }

    #[test]
    fn each_depth_has_its_places_and_whoever_ends_makes_room_for_one() {
        let mut crowd = Crowd::default();
        for number in 0..BEYOND_MAX as u64 {
            assert!(crowd.has_place(1));
            crowd.begins(job(number), 1);
        }
        assert!(!crowd.has_place(1) && crowd.has_place(2));
        crowd.wait(7, 1);
        crowd.wait(8, 1);
        assert!(!crowd.is_somebodys_turn() && crowd.turns().is_empty());
        crowd.ended(job(99));
        crowd.ended(job(3));
        crowd.ended(job(3));
        assert!(crowd.is_somebodys_turn());
        assert_eq!(crowd.turns(), [7]);
        // It had no need of it.
        assert_eq!(crowd.turns(), [8]);
        assert!(!crowd.is_somebodys_turn());
        crowd.begins(job(98), 1);
        crowd.begins(job(97), 1);
        crowd.wait(9, 1);
        crowd.wait_for_room(6);
        crowd.wait_for_room(5);
        crowd.wait_for_room(6);
        assert_eq!(
            (crowd.turns(), crowd.look_at_some(), crowd.look_at_some()),
            (vec![], vec![9, 5, 6], vec![])
        );
    }
}
