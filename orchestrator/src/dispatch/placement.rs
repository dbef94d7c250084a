//! Which worker a task goes to: filter, then score, kept as an order so that choosing costs one look at a tree.
//!
//! Strategy `default`: among workers that serve the type and have a free slot, those that have it warm; among those, the one
//! with most free slots; among equals, the one that has waited longest.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use avtomatika_proto::SessionId;

use super::Session;

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
    places: Vec<(Arc<str>, Place)>,
    turn: u64,
}

impl Placement {
    /// Puts the session where it belongs now.
    pub fn place(&mut self, session: &Session) {
        let turn = match self.remove(session.record.session_id) {
            Some(turn) => turn,
            None => self.next_turn(),
        };
        let free = session.free();
        let mut places = Vec::new();
        if free > 0 {
            for task_type in &session.record.worker.task_types {
                let warm = session.hot_cache.contains(task_type);
                let place = (Reverse(warm), Reverse(free), turn, session.record.session_id);
                self.by_type.entry(task_type.clone()).or_default().insert(place);
                places.push((task_type.clone(), place));
            }
        }
        self.placed.insert(session.record.session_id, Placed { places, turn });
    }

    /// Takes the session out; returns its turn.
    pub fn remove(&mut self, session_id: SessionId) -> Option<u64> {
        let placed = self.placed.remove(&session_id)?;
        for (task_type, place) in placed.places {
            if let Some(order) = self.by_type.get_mut(&task_type) {
                order.remove(&place);
                if order.is_empty() {
                    self.by_type.remove(&task_type);
                }
            }
        }
        Some(placed.turn)
    }

    /// Whether anybody could take a task of this type.
    pub fn has_free(&self, task_type: &str) -> bool {
        self.by_type.contains_key(task_type)
    }

    /// How many could.
    pub fn free_count(&self, task_type: &str) -> usize {
        self.by_type.get(task_type).map_or(0, BTreeSet::len)
    }

    /// The best session for a task of this type. It goes to the end of the line of its equals.
    pub fn choose(&mut self, task_type: &str) -> Option<SessionId> {
        let &(_, _, _, session_id) = self.by_type.get(task_type)?.first()?;
        let turn = self.next_turn();
        if let Some(placed) = self.placed.get_mut(&session_id) {
            placed.turn = turn;
        }
        Some(session_id)
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }
}
