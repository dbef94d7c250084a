//! Which worker a task goes to: filter, then score, kept as an order so that choosing costs one look at a tree.
//!
//! Strategy `default`: among workers that serve the type and have a free slot, those that have it warm; among those, the one
//! with most free slots; among equals, the one that has waited longest.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use avtomatika_proto::SessionId;

use super::Session;
use crate::store::WorkerRecord;

/// A place in the order of one task type: warm first, most free slots first, longest unchosen first.
type Place = (Reverse<bool>, Reverse<u32>, u64, SessionId);

/// Where the sessions with free slots stand, for each task type.
#[derive(Debug, Default)]
pub struct Placement {
    by_type: HashMap<Arc<str>, BTreeSet<Place>>,
    placed: HashMap<SessionId, Placed>,
    turns: u64,
}

#[derive(Debug)]
struct Placed {
    worker: Arc<WorkerRecord>,
    /// Where it stands for each of its task types; nowhere without a free slot.
    places: Vec<Option<Place>>,
    turn: u64,
}

impl Placement {
    /// Puts the session where it belongs now.
    pub fn place(&mut self, session: &Session) {
        let session_id = session.record.session_id;
        let placed = match self.placed.entry(session_id) {
            Entry::Occupied(placed) => placed.into_mut(),
            Entry::Vacant(vacant) => {
                self.turns += 1;
                let worker = session.record.worker.clone();
                let places = vec![None; worker.task_types.len()];
                vacant.insert(Placed { worker, places, turn: self.turns })
            }
        };
        let free = session.free();
        for (task_type, place) in placed.worker.task_types.iter().zip(&mut placed.places) {
            let warm = session.hot_cache.contains(task_type);
            let belongs = (free > 0).then_some((Reverse(warm), Reverse(free), placed.turn, session_id));
            if *place == belongs {
                continue;
            }
            // An order that runs empty stays for the next free slot: a busy fleet would make and drop it with each task.
            let order = self.by_type.entry(task_type.clone()).or_default();
            if let Some(before) = std::mem::replace(place, belongs) {
                order.remove(&before);
            }
            order.extend(belongs);
        }
    }

    /// Takes the session out.
    pub fn remove(&mut self, session_id: SessionId) {
        let Some(placed) = self.placed.remove(&session_id) else { return };
        for (task_type, place) in placed.worker.task_types.iter().zip(placed.places) {
            let Some(order) = self.by_type.get_mut(task_type) else { continue };
            if let Some(place) = place {
                order.remove(&place);
            }
            if order.is_empty() {
                self.by_type.remove(task_type);
            }
        }
    }

    /// Whether anybody could take a task of this type.
    pub fn has_free(&self, task_type: &str) -> bool {
        self.free_count(task_type) > 0
    }

    /// How many could.
    pub fn free_count(&self, task_type: &str) -> usize {
        self.by_type.get(task_type).map_or(0, BTreeSet::len)
    }

    /// The best session for a task of this type. It goes to the end of the line of its equals.
    pub fn choose(&mut self, task_type: &str) -> Option<SessionId> {
        let &(_, _, _, session_id) = self.by_type.get(task_type)?.first()?;
        self.turns += 1;
        if let Some(placed) = self.placed.get_mut(&session_id) {
            placed.turn = self.turns;
        }
        Some(session_id)
    }
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::TaskId;

    use super::{
        super::{Outbox, Roster},
        *,
    };
    use crate::{store::SessionRecord, time::Timestamp};

    /// Connected workers with so many slots, and where they stand.
    struct Floor {
        roster: Roster,
        placement: Placement,
    }

    impl Floor {
        fn new(workers: &[(u8, &[&str], u32)]) -> Self {
            let mut floor = Self { roster: Roster::default(), placement: Placement::default() };
            for &(number, task_types, slots) in workers {
                let worker = WorkerRecord {
                    worker_id: Arc::from(format!("w{number}")),
                    worker_type: Arc::from("test"),
                    task_types: task_types.iter().copied().map(Arc::from).collect(),
                    slots,
                    labels: Default::default(),
                    resources: Default::default(),
                    hostname: Arc::from("test"),
                    sdk_version: Arc::from(""),
                };
                let now = Timestamp::default();
                let record = SessionRecord {
                    session_id: id(number),
                    worker: Arc::new(worker),
                    credential: [0; 32],
                    opened_at: now,
                };
                floor.roster.connect(&record, Outbox::new().0, now);
                floor.change(number, |session| session.slots = slots);
            }
            floor
        }

        fn change(&mut self, number: u8, change: impl FnOnce(&mut Session)) {
            let session = self.roster.get_mut(id(number)).unwrap();
            change(session);
            self.placement.place(session);
        }

        /// The workers that get tasks of this type, one after the other, until no slot is free.
        fn assign_all(&mut self, task_type: &str) -> Vec<u8> {
            let mut chosen = Vec::new();
            while let Some(session_id) = self.placement.choose(task_type) {
                let number = session_id.as_bytes()[0];
                chosen.push(number);
                let task_id = TaskId::from_random(chosen.len() as u128);
                self.change(number, |session| session.occupy(task_id));
            }
            assert!(!self.placement.has_free(task_type));
            chosen
        }
    }

    fn id(number: u8) -> SessionId {
        SessionId::from_bytes([number; 16])
    }

    #[test]
    fn the_freest_goes_first_then_whoever_has_waited_longest() {
        let mut floor = Floor::new(&[(1, &["a"], 1), (2, &["a"], 3), (3, &["a"], 1), (4, &["b"], 9)]);
        assert_eq!(floor.assign_all("a"), [2, 2, 1, 3, 2]);
    }

    #[test]
    fn a_warm_worker_goes_before_a_freer_one() {
        let mut floor = Floor::new(&[(1, &["a", "b"], 2), (2, &["a", "b"], 1)]);
        floor.change(2, |session| session.hot_cache = vec![Arc::from("b")]);
        assert_eq!(floor.assign_all("b"), [2, 1, 1]);
        assert!(!floor.placement.has_free("a"), "a slot is taken for every type");
    }

    #[test]
    fn whoever_gets_a_slot_back_is_chosen_again_and_whoever_is_gone_is_not() {
        let mut floor = Floor::new(&[(1, &["a"], 1), (2, &["a"], 1)]);
        assert_eq!(floor.assign_all("a"), [1, 2]);
        floor.change(1, |session| session.occupy_only(&[]));
        floor.change(2, |session| session.occupy_only(&[]));
        floor.placement.remove(id(1));
        assert_eq!(floor.assign_all("a"), [2]);
        floor.placement.remove(id(2));
        assert!(
            floor.placement.by_type.is_empty() && floor.placement.placed.is_empty(),
            "nothing is left behind"
        );
    }
}
