//! Which worker a task goes to: filter, then score, kept as an order for each class so that choosing costs one look at a tree.
//!
//! The filter is whether the worker suits the class ([`suit`](super::suit)) and has a free slot for its type. The score is what
//! the class prefers, then its strategy, then who has waited longest. An index, and not a sample: the best of all workers is
//! found, the order follows from the events alone, and a task costs the logarithm of the number of workers, for each class that
//! its worker suits.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, hash_map::Entry},
};

use avtomatika_proto::SessionId;

use super::{
    ClassId, Session,
    classes::{Class, Classes},
    suit,
};
use crate::{
    blueprint::{About, Strategy},
    hash::FastMap,
};

/// A place in the order of one class: most preferred first, then by the strategy, then longest unchosen first.
type Spot = (Reverse<u32>, u64, u64, u64, SessionId);

/// Where the sessions with free slots stand, for each class.
#[derive(Debug, Default)]
pub struct Placement {
    /// By class.
    orders: Vec<BTreeSet<Spot>>,
    placed: FastMap<SessionId, Placed>,
    /// How many sessions suit each class.
    suiting: Vec<usize>,
    turns: u64,
}

#[derive(Debug)]
struct Placed {
    turn: u64,
    /// The classes that it may take tasks of.
    stands: Vec<Stand>,
    /// How many classes there had been when `stands` was last looked at.
    known: u64,
}

/// Where a session stands for one class; nowhere without a free slot.
#[derive(Debug)]
struct Stand {
    class: ClassId,
    /// What the class's preferences that it meets are worth.
    preference: u32,
    /// What a task of the class costs there.
    cost: f64,
    spot: Option<Spot>,
}

impl Placement {
    /// Puts the session where it belongs now.
    pub fn place(&mut self, session: &Session, classes: &Classes) {
        let session_id = session.record.session_id;
        let placed = match self.placed.entry(session_id) {
            Entry::Occupied(placed) => placed.into_mut(),
            Entry::Vacant(vacant) => {
                self.turns += 1;
                vacant.insert(Placed { turn: self.turns, stands: Vec::new(), known: 0 })
            }
        };
        if placed.known < classes.added() {
            self.orders.resize_with(classes.numbers(), BTreeSet::new);
            self.suiting.resize(classes.numbers(), 0);
            for class in placed.learn(session, classes) {
                self.suiting[class.index()] += 1;
            }
        }
        for stand in &mut placed.stands {
            let belongs = stand.belongs(session, classes.get(stand.class), placed.turn);
            if stand.spot == belongs {
                continue;
            }
            let order = &mut self.orders[stand.class.index()];
            if let Some(before) = std::mem::replace(&mut stand.spot, belongs) {
                order.remove(&before);
            }
            order.extend(belongs);
        }
    }

    /// Takes the session out.
    pub fn remove(&mut self, session_id: SessionId) {
        for Stand { class, spot, .. } in
            self.placed.remove(&session_id).into_iter().flat_map(|placed| placed.stands)
        {
            self.suiting[class.index()] -= 1;
            if let Some(spot) = spot {
                self.orders[class.index()].remove(&spot);
            }
        }
    }

    /// These classes are gone. Costs a look at every place of every session.
    pub fn forget(&mut self, classes: &[ClassId]) {
        for &class in classes {
            // No session has looked at one that came and went at once.
            if let Some(order) = self.orders.get_mut(class.index()) {
                order.clear();
                self.suiting[class.index()] = 0;
            }
        }
        for placed in self.placed.values_mut() {
            placed.stands.retain(|stand| !classes.contains(&stand.class));
        }
    }

    /// The classes that this session may take tasks of.
    pub fn classes_of(&self, session_id: SessionId) -> impl Iterator<Item = ClassId> {
        self.placed.get(&session_id).into_iter().flat_map(|placed| &placed.stands).map(|stand| stand.class)
    }

    /// Whether anybody could take a task of this class.
    pub fn has_free(&self, class: ClassId) -> bool {
        self.free_count(class) > 0
    }

    /// Whether anybody who is connected suits this class, with a free slot or without.
    pub fn is_served(&self, class: ClassId) -> bool {
        self.suiting.get(class.index()).is_some_and(|&suiting| suiting > 0)
    }

    /// How many could.
    pub fn free_count(&self, class: ClassId) -> usize {
        self.orders.get(class.index()).map_or(0, BTreeSet::len)
    }

    /// The best session for a task of this class. It goes to the end of the line of its equals.
    pub fn choose(&mut self, class: ClassId) -> Option<SessionId> {
        let &(.., session_id) = self.orders.get(class.index())?.first()?;
        self.turns += 1;
        if let Some(placed) = self.placed.get_mut(&session_id) {
            placed.turn = self.turns;
        }
        Some(session_id)
    }
}

impl Placed {
    /// Finds out which of the classes that are new to it the session suits, and returns those.
    fn learn(&mut self, session: &Session, classes: &Classes) -> Vec<ClassId> {
        let (known, worker) = (self.known, &session.record.worker);
        let of_types = worker.task_types.iter().flat_map(|task_type| classes.of_type(task_type));
        let new = of_types.copied().filter(|&class| classes.get(class).serial >= known);
        let suiting: Vec<ClassId> = new.filter(|&class| suit::suits(classes.get(class), worker)).collect();
        self.stands.extend(suiting.iter().map(|&id| {
            let class = classes.get(id);
            let (preference, cost) = (suit::preference(class, worker), suit::cost(class, worker));
            Stand { class: id, preference, cost, spot: None }
        }));
        self.known = classes.added();
        suiting
    }
}

impl Stand {
    /// Where the session belongs now. The less, the sooner it is chosen.
    fn belongs(&self, session: &Session, class: &Class, turn: u64) -> Option<Spot> {
        let free = session.free_for(&class.task_type);
        if free == 0 {
            return None;
        }
        let least_free_last = u64::from(u32::MAX - free);
        let (first, second) = match class.strategy() {
            Strategy::Default => (u64::from(!is_warm(session, class)), least_free_last),
            Strategy::RoundRobin => (0, 0),
            Strategy::LeastConnections => (u64::from(session.held()), 0),
            // What is not negative is in the order of its bits.
            Strategy::Cheapest => (self.cost.to_bits(), least_free_last),
            Strategy::BestValue => ((self.cost / session.reputation).to_bits(), least_free_last),
        };
        Some((Reverse(self.preference), first, second, turn, session.record.session_id))
    }
}

/// Whether the worker has at hand what the class works with: it calls the type warm, or every model that the class requires.
fn is_warm(session: &Session, class: &Class) -> bool {
    let hot = |name: &str| session.hot_cache.iter().any(|hot| **hot == *name);
    if session.hot_cache.is_empty() {
        return false;
    }
    let requires = class.needs.iter().flat_map(|needs| &needs.requires);
    let mut models = requires.filter(|condition| condition.about == About::Model).peekable();
    hot(&class.task_type) || models.peek().is_some() && models.all(|model| hot(&model.name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use avtomatika_proto::TaskId;

    use super::{
        super::{Outbox, Roster},
        *,
    };
    use crate::{
        store::{SessionRecord, WorkerRecord},
        time::Timestamp,
    };

    /// Connected workers with so many slots, and where they stand.
    struct Floor {
        roster: Roster,
        classes: Classes,
        placement: Placement,
    }

    impl Floor {
        fn new(workers: &[(u8, &[&str], u32)]) -> Self {
            let mut floor = Self {
                roster: Roster::default(),
                classes: Classes::default(),
                placement: Placement::default(),
            };
            for task_type in ["a", "b"] {
                floor.classes.of(&Arc::from(task_type), None);
            }
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
                    ..WorkerRecord::default()
                };
                let now = Timestamp::default();
                let record = SessionRecord {
                    session_id: id(number),
                    worker: Arc::new(worker),
                    credential: [0; 32],
                    opened_at: now,
                    reproach: None,
                };
                floor.roster.connect(&record, Outbox::new().0, now);
                floor.change(number, |session| session.slots = slots);
            }
            floor
        }

        fn change(&mut self, number: u8, change: impl FnOnce(&mut Session)) {
            let session = self.roster.get_mut(id(number)).unwrap();
            change(session);
            self.placement.place(session, &self.classes);
        }

        /// The workers that get tasks of this type, one after the other, until no slot is free.
        fn assign_all(&mut self, task_type: &str) -> Vec<u8> {
            let mut chosen = Vec::new();
            let class = self.class(task_type);
            while let Some(session_id) = self.placement.choose(class) {
                let number = session_id.as_bytes()[0];
                chosen.push(number);
                let task_id = TaskId::from_random(chosen.len() as u128);
                self.change(number, |session| session.occupy(task_id, task_type));
            }
            assert!(!self.placement.has_free(class));
            chosen
        }

        fn class(&self, task_type: &str) -> ClassId {
            self.classes.of_type(task_type)[0]
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
        assert!(!floor.placement.has_free(floor.class("a")), "a slot is taken for every type");
    }

    #[test]
    fn whoever_gets_a_slot_back_is_chosen_again_and_whoever_is_gone_is_not() {
        let mut floor = Floor::new(&[(1, &["a"], 1), (2, &["a"], 1)]);
        assert_eq!(floor.assign_all("a"), [1, 2]);
        floor.change(1, |session| session.vacate());
        floor.change(2, |session| session.vacate());
        floor.placement.remove(id(1));
        assert_eq!(floor.assign_all("a"), [2]);
        floor.placement.remove(id(2));
        assert!(
            floor.placement.orders.iter().all(BTreeSet::is_empty) && floor.placement.placed.is_empty(),
            "nothing is left behind"
        );
    }
}
