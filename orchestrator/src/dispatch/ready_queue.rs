//! Tasks that no worker has yet: by class, the most urgent first, then the clients in turn, then the oldest.
//!
//! Clients of one class and priority take turns by their weights ([`lane`](super::lane)), so that a task waits for its share of
//! the others' tasks, however many those are. Classes that one worker serves take turns in the same way. A queue may be
//! far longer than memory allows for its tasks' params. What is far from its turn is *aside*: the queue knows its place only,
//! and the offer is supplied before its turn comes. A task that is aside is not passed by those of its client, nor by less
//! urgent ones.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use avtomatika_proto::TaskId;

use super::{
    ClassId,
    lane::{Lane, LaneId, Level, Rank, Stand, TASK, Tag},
};
use crate::{engine::Offer, store::StubTask, time::Timestamp};

/// Tasks at the head of each queue that are kept at hand: a run of so many lasts longer than it takes to read the next. The
/// lanes of a class share them.
pub const RUN_MIN: usize = 512;

/// Tasks of each lane that are kept at hand, however many lanes there are.
const RUN_OF_LANE_MIN: usize = 8;

/// The order in which classes are served that have a task and a worker: priority, then whose turn it is, then age.
pub type Head = (Reverse<i32>, Tag, Rank);

/// A task's lane and its rank there, in the space of three words: there is one for each ready task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    lane: LaneId,
    ready_at: Timestamp,
    job_key: i64,
}

impl Place {
    /// The key of the job that the task belongs to.
    pub fn job_key(&self) -> i64 {
        self.job_key
    }

    fn rank(&self) -> Rank {
        (self.ready_at, self.job_key)
    }
}

/// How far a ready task is from its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Tasks of its class that go before it, if no more come.
    pub ahead: u64,
    /// There are more before it than `ahead` says.
    pub at_least: bool,
    /// Tasks of its class, itself included.
    pub length: u64,
}

/// Who owns a lane: class, priority, client.
type Owner = (ClassId, i32, Arc<str>);

/// The tasks of one class.
#[derive(Debug, Default)]
struct Queue {
    levels: BTreeMap<Reverse<i32>, Level>,
    /// When its next task starts, in the virtual time of classes.
    tag: Tag,
    len: usize,
    lanes: usize,
    /// Lanes whose first task is aside.
    starved: BTreeSet<(Reverse<i32>, LaneId)>,
    /// Lanes with too little at hand.
    short: BTreeSet<(Reverse<i32>, LaneId)>,
}

impl Queue {
    /// Tasks of each lane that should be at hand.
    fn run_of_lane(&self) -> usize {
        (RUN_MIN / self.lanes.max(1)).max(RUN_OF_LANE_MIN)
    }
}

/// Ready tasks. Every operation costs the logarithm of the number of tasks and clients, unless it says otherwise.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    /// By class.
    queues: Vec<Queue>,
    lanes: Vec<Option<Lane>>,
    vacant: Vec<LaneId>,
    by_owner: HashMap<Owner, LaneId>,
    /// A tree and not a table: ids begin as their jobs' do, so that tasks that are neighbours in a long queue are neighbours here too, and
    /// what is next is in the processor's caches.
    places: BTreeMap<TaskId, Place>,
    /// Clients that weigh other than 1.
    weights: HashMap<Arc<str>, u32>,
    /// The present in the virtual time of classes.
    clock: Tag,
    params_bytes: usize,
    aside: usize,
}

impl ReadyQueue {
    /// Adds a task.
    pub fn push(&mut self, class: ClassId, offer: Offer) {
        let lane = self.lane_of(class, offer.priority, &offer.client);
        let place = Place { lane, ready_at: offer.ready_at, job_key: offer.job_id.key() };
        self.places.insert(offer.task_id, place);
        self.count(lane, 1);
        self.load(place, offer);
    }

    /// Adds a task of the job with this key, aside.
    pub fn push_aside(&mut self, class: ClassId, task: &StubTask, job_key: i64) {
        let lane = self.lane_of(class, task.priority, &task.client);
        let place = Place { lane, ready_at: task.ready_at, job_key };
        self.places.insert(task.task_id, place);
        self.count(lane, 1);
        self.lay_aside(place);
    }

    /// Takes the first task of this class, unless it is aside.
    pub fn pop(&mut self, class: ClassId) -> Option<Offer> {
        let queue = self.queues.get_mut(class.index())?;
        let (_, level) = queue.levels.first_key_value()?;
        let &(.., id) = level.line.first()?;
        let lane = self.lanes[id as usize].as_mut()?;
        let (_, offer) = lane.loaded.pop_first()?;
        let started = lane.tag;
        lane.tag += lane.cost;
        if let Some(level) = queue.levels.get_mut(&Reverse(lane.priority)) {
            level.clock = level.clock.max(started);
        }
        let started = queue.tag.max(self.clock.saturating_sub(TASK));
        queue.tag = started + TASK;
        self.clock = self.clock.max(started);
        self.params_bytes -= offer.params.len();
        self.places.remove(&offer.task_id);
        self.count(id, -1);
        self.settle(id);
        Some(offer)
    }

    /// Takes this task, if it is here and not aside.
    pub fn take(&mut self, task_id: TaskId) -> Option<Offer> {
        let place = *self.places.get(&task_id)?;
        let offer = self.unload(place)?;
        self.places.remove(&task_id);
        self.count(place.lane, -1);
        self.settle(place.lane);
        Some(offer)
    }

    /// Removes this task; whether it was here.
    pub fn remove(&mut self, task_id: TaskId) -> bool {
        if self.take(task_id).is_some() {
            return true;
        }
        let Some(place) = self.places.remove(&task_id) else { return false };
        self.remove_aside(place);
        true
    }

    /// Removes what stands aside at this place. Costs a look at every ready task.
    pub fn discard(&mut self, place: Place) {
        if self.remove_aside(place) {
            self.places.retain(|_, other| *other != place);
        }
    }

    /// Keeps no more than the place of this task.
    pub fn put_aside(&mut self, task_id: TaskId) {
        let Some(&place) = self.places.get(&task_id) else { return };
        if self.unload(place).is_some() {
            self.lay_aside(place);
        }
    }

    /// Gives a task that is aside its offer back.
    pub fn supply(&mut self, offer: Offer) {
        let Some(&place) = self.places.get(&offer.task_id) else { return };
        if let Some(lane) = self.lane_mut(place.lane)
            && lane.aside.remove(&place.rank())
        {
            self.aside -= 1;
            self.load(place, offer);
        }
    }

    /// Whether this task is here.
    pub fn contains(&self, task_id: TaskId) -> bool {
        self.places.contains_key(&task_id)
    }

    /// The class of this task, if it is here.
    pub fn class_of(&self, task_id: TaskId) -> Option<ClassId> {
        self.at(task_id).map(|(lane, _)| lane.class)
    }

    /// How many tasks this class has.
    pub fn len(&self, class: ClassId) -> usize {
        self.queues.get(class.index()).map_or(0, |queue| queue.len)
    }

    /// This class, which has no task, is gone.
    pub fn forget_class(&mut self, class: ClassId) {
        if let Some(queue) = self.queues.get_mut(class.index()) {
            *queue = Queue::default();
        }
    }

    /// Where this class stands among others; `None` while it has no task, or none but such as are aside at its first priority.
    pub fn head(&self, class: ClassId) -> Option<Head> {
        let queue = self.queues.get(class.index())?;
        let (&priority, level) = queue.levels.first_key_value()?;
        let &(_, rank, _) = level.line.first()?;
        // Having been idle, or without a worker, saves up no more than one turn.
        Some((priority, queue.tag.max(self.clock.saturating_sub(TASK)), rank))
    }

    /// Whether any task is aside.
    pub fn has_aside(&self) -> bool {
        self.aside > 0
    }

    /// Where this task stands, if it is here and aside.
    pub fn place_aside(&self, task_id: TaskId) -> Option<Place> {
        let place = *self.places.get(&task_id)?;
        self.lane(place.lane)?.aside.contains(&place.rank()).then_some(place)
    }

    /// Whether a task of its client that is aside stands before this one.
    pub fn is_behind_aside(&self, task_id: TaskId) -> bool {
        self.at(task_id).is_some_and(|(lane, rank)| lane.aside.first().is_some_and(|&aside| aside < rank))
    }

    /// Whether this task is among those of its client that should be at hand. Costs a look at that many.
    pub fn is_near(&self, task_id: TaskId) -> bool {
        self.at(task_id).is_some_and(|(lane, rank)| {
            let run = self.queues[lane.class.index()].run_of_lane();
            lane.loaded.range(..rank).take(run).count() < run
        })
    }

    /// How far this task is from its turn, if it is here. Its client's tasks are counted from whichever end is less than `limit`
    /// away; costs a look at twice that many tasks, and at that many clients.
    pub fn position(&self, task_id: TaskId, limit: usize) -> Option<Position> {
        let (lane, rank) = self.at(task_id)?;
        let queue = &self.queues[lane.class.index()];
        let urgent: usize = queue.levels.range(..Reverse(lane.priority)).map(|(_, level)| level.len).sum();
        let own = lane.count_before(rank, limit);
        let starts = lane.tag + own.unwrap_or(limit) as Tag * lane.cost;
        let (mut others, mut looked_at) = (0, 0);
        if let Some(level) = queue.levels.get(&Reverse(lane.priority)) {
            let starved =
                queue.starved.range((Reverse(lane.priority), 0)..=(Reverse(lane.priority), LaneId::MAX));
            let ids = level.line.iter().map(|&(.., id)| id).chain(starved.map(|&(_, id)| id));
            for other in ids.take(limit).filter_map(|id| self.lane(id)) {
                looked_at += 1;
                let is_own = other.client == lane.client;
                others += if is_own { 0 } else { other.count_until(starts, rank) };
            }
        }
        Some(Position {
            ahead: (urgent + own.unwrap_or(limit) + others) as u64,
            at_least: own.is_none() || looked_at == limit,
            length: queue.len as u64,
        })
    }

    /// Since when the oldest task of this class has been ready. Costs a look at the first task of each client and priority.
    pub fn oldest(&self, class: ClassId) -> Option<Timestamp> {
        let queue = self.queues.get(class.index())?;
        let in_line =
            queue.levels.values().flat_map(|level| &level.line).map(|&(_, (ready_at, _), _)| ready_at);
        let starved = queue.starved.iter().filter_map(|&(_, id)| self.lane(id)?.aside.first());
        in_line.chain(starved.map(|&(ready_at, _)| ready_at)).min()
    }

    /// Whether this class has lanes with too little at hand, or none with `in_need`.
    pub fn runs_short(&self, class: ClassId, in_need: bool) -> bool {
        let queue = self.queues.get(class.index());
        queue.is_some_and(|queue| !queue.starved.is_empty() || !in_need && !queue.short.is_empty())
    }

    /// The tasks aside of this class whose turn comes next, at most `limit`: of lanes with too little at hand, or none with
    /// `in_need`, those with none first.
    pub fn wanted(&self, class: ClassId, in_need: bool, limit: usize) -> Vec<Place> {
        let Some(queue) = self.queues.get(class.index()) else { return Vec::new() };
        let starved = queue.starved.iter();
        let short = queue.short.iter().filter(|lane| !queue.starved.contains(lane));
        let count = queue.starved.len().max(if in_need { 0 } else { queue.short.len() });
        let share = (limit / count.max(1)).max(1);
        let lanes = starved.chain(short.take(if in_need { 0 } else { limit }));
        lanes.flat_map(|&(_, id)| self.first_aside(id).take(share)).take(limit).collect()
    }

    /// Bytes of the params that are here.
    pub fn params_bytes(&self) -> usize {
        self.params_bytes
    }

    /// What clients weigh from now on; whoever is not named weighs 1. Costs a look at every lane.
    pub fn set_weights(&mut self, weights: HashMap<Arc<str>, u32>) {
        self.weights = weights;
        for lane in self.lanes.iter_mut().flatten() {
            lane.cost = cost(&self.weights, &lane.client);
        }
    }

    // ---- Inside ----

    fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(id as usize)?.as_ref()
    }

    fn lane_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(id as usize)?.as_mut()
    }

    fn at(&self, task_id: TaskId) -> Option<(&Lane, Rank)> {
        let place = self.places.get(&task_id)?;
        Some((self.lane(place.lane)?, place.rank()))
    }

    /// The tasks of this lane that are aside.
    fn first_aside(&self, id: LaneId) -> impl Iterator<Item = Place> {
        let ranks = self.lane(id).into_iter().flat_map(|lane| &lane.aside);
        ranks.map(move |&(ready_at, job_key)| Place { lane: id, ready_at, job_key })
    }

    fn lane_of(&mut self, class: ClassId, priority: i32, client: &Arc<str>) -> LaneId {
        let owner = (class, priority, client.clone());
        if let Some(&id) = self.by_owner.get(&owner) {
            return id;
        }
        if self.queues.len() <= class.index() {
            self.queues.resize_with(class.index() + 1, Queue::default);
        }
        let queue = &mut self.queues[class.index()];
        queue.lanes += 1;
        let level = queue.levels.entry(Reverse(priority)).or_default();
        let lane = Lane {
            class,
            priority,
            client: client.clone(),
            tag: level.clock,
            cost: cost(&self.weights, client),
            loaded: BTreeMap::new(),
            aside: BTreeSet::new(),
            stand: Stand::Nowhere,
            is_short: false,
        };
        let id = self.vacant.pop().unwrap_or(self.lanes.len() as LaneId);
        if id as usize == self.lanes.len() {
            self.lanes.push(None);
        }
        self.lanes[id as usize] = Some(lane);
        self.by_owner.insert(owner, id);
        id
    }

    /// So many tasks have come to this lane, or left it.
    fn count(&mut self, id: LaneId, change: isize) {
        let Some(lane) = self.lanes[id as usize].as_ref() else { return };
        let queue = &mut self.queues[lane.class.index()];
        queue.len = queue.len.saturating_add_signed(change);
        if let Some(level) = queue.levels.get_mut(&Reverse(lane.priority)) {
            level.len = level.len.saturating_add_signed(change);
        }
    }

    fn load(&mut self, place: Place, offer: Offer) {
        self.params_bytes += offer.params.len();
        if let Some(lane) = self.lane_mut(place.lane) {
            lane.loaded.insert(place.rank(), offer);
        }
        self.settle(place.lane);
    }

    /// The caller settles the lane.
    fn unload(&mut self, place: Place) -> Option<Offer> {
        let offer = self.lane_mut(place.lane)?.loaded.remove(&place.rank())?;
        self.params_bytes -= offer.params.len();
        Some(offer)
    }

    fn lay_aside(&mut self, place: Place) {
        if let Some(lane) = self.lane_mut(place.lane) {
            lane.aside.insert(place.rank());
            self.aside += 1;
        }
        self.settle(place.lane);
    }

    fn remove_aside(&mut self, place: Place) -> bool {
        let removed = self.lane_mut(place.lane).is_some_and(|lane| lane.aside.remove(&place.rank()));
        if removed {
            self.aside -= 1;
            self.count(place.lane, -1);
            self.settle(place.lane);
        }
        removed
    }

    /// Notes a lane where it now belongs; forgets it, and others, when nothing is left of them.
    fn settle(&mut self, id: LaneId) {
        let Some(lane) = self.lanes[id as usize].as_mut() else { return };
        let (class, priority) = (lane.class, Reverse(lane.priority));
        let queue = &mut self.queues[class.index()];
        let run = queue.run_of_lane();
        let Some(level) = queue.levels.get_mut(&priority) else { return };
        let now = lane.belongs(level.clock);
        if now != lane.stand {
            level.note(id, lane.stand, now);
            match now {
                Stand::Starved => drop(queue.starved.insert((priority, id))),
                _ if lane.stand == Stand::Starved => drop(queue.starved.remove(&(priority, id))),
                _ => {}
            }
            lane.stand = now;
        }
        let is_short = lane.runs_short(run);
        if is_short != lane.is_short {
            lane.is_short = is_short;
            match is_short {
                true => queue.short.insert((priority, id)),
                false => queue.short.remove(&(priority, id)),
            };
        }
        if now == Stand::Nowhere {
            self.forget(id);
        }
        self.forget_idle(class, priority);
    }

    fn forget_idle(&mut self, class: ClassId, priority: Reverse<i32>) {
        while let Some(level) = self.queues[class.index()].levels.get_mut(&priority) {
            match level.forgettable() {
                Some(idle) => self.forget(idle),
                None if level.len == 0 => drop(self.queues[class.index()].levels.remove(&priority)),
                None => return,
            }
        }
    }

    fn forget(&mut self, id: LaneId) {
        let Some(lane) = self.lanes[id as usize].take() else { return };
        self.queues[lane.class.index()].lanes -= 1;
        self.by_owner.remove(&(lane.class, lane.priority, lane.client));
        self.vacant.push(id);
    }
}

/// What a task costs this client, in virtual time.
fn cost(weights: &HashMap<Arc<str>, u32>, client: &str) -> Tag {
    let weight = if weights.is_empty() { 1 } else { weights.get(client).copied().unwrap_or(1) };
    (TASK / Tag::from(weight.max(1))).max(1)
}

#[cfg(test)]
mod tests;
