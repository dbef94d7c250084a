//! Tasks that no worker has yet: by type, the most urgent first, then the oldest.
//!
//! A queue may be far longer than memory allows for its tasks' params. What is far from its turn is *aside*: the queue knows
//! its place only, and the offer is supplied before its turn comes. A task that is aside is not passed by those behind it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use avtomatika_proto::TaskId;

use crate::{engine::Offer, store::StubTask, time::Timestamp};

/// Where a task stands in its queue: priority, then age, then the age of its job (its key).
pub type Rank = (Reverse<i32>, Timestamp, i64);

/// A task's queue and its rank there, in the space of three words: there is one for each ready task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    queue: u32,
    priority: i32,
    ready_at: Timestamp,
    job_key: i64,
}

impl Place {
    /// The key of the job that the task belongs to.
    pub fn job_key(&self) -> i64 {
        self.job_key
    }

    fn rank(&self) -> Rank {
        (Reverse(self.priority), self.ready_at, self.job_key)
    }
}

/// How far a ready task is from its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Tasks of its type that go before it.
    pub ahead: u64,
    /// There are more before it than `ahead` says.
    pub at_least: bool,
    /// Tasks of its type, itself included.
    pub length: u64,
}

/// The tasks of one type.
#[derive(Debug)]
struct Queue {
    task_type: Arc<str>,
    loaded: BTreeMap<Rank, Offer>,
    aside: BTreeSet<Rank>,
}

impl Queue {
    fn len(&self) -> usize {
        self.loaded.len() + self.aside.len()
    }

    /// Since when the oldest has been ready. Within a priority that is the first.
    fn oldest(&self) -> Option<Timestamp> {
        let mut oldest = None;
        let mut from = Bound::Unbounded;
        loop {
            let loaded = self.loaded.range((from, Bound::Unbounded)).next().map(|(&rank, _)| rank);
            let aside = self.aside.range((from, Bound::Unbounded)).next().copied();
            let Some((priority, ready_at, _)) = [loaded, aside].into_iter().flatten().min() else {
                return oldest;
            };
            oldest = oldest.map_or(Some(ready_at), |oldest| Some(ready_at.min(oldest)));
            from = Bound::Excluded((priority, Timestamp::from_micros(i64::MAX), i64::MAX));
        }
    }

    /// How many tasks stand in this range; `None` when there are `limit` or more. Costs a look at so many.
    fn count(&self, range: impl RangeBounds<Rank> + Clone, limit: usize) -> Option<usize> {
        let loaded = self.loaded.range(range.clone()).take(limit).count();
        let count = loaded + self.aside.range(range).take(limit - loaded).count();
        (count < limit).then_some(count)
    }
}

/// Ready tasks. Every operation costs the logarithm of one queue's length, unless it says otherwise.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    /// Never shrinks: task types come from blueprints.
    queues: Vec<Queue>,
    by_type: HashMap<Arc<str>, u32>,
    places: HashMap<TaskId, Place>,
    params_bytes: usize,
    aside: usize,
}

impl ReadyQueue {
    /// Adds a task.
    pub fn push(&mut self, offer: Offer) {
        let place = self.place(&offer.task_type, offer.priority, offer.ready_at, offer.job_id.key());
        self.places.insert(offer.task_id, place);
        self.load(place, offer);
    }

    /// Adds a task of the job with this key, aside.
    pub fn push_aside(&mut self, task: &StubTask, job_key: i64) {
        let place = self.place(&task.task_type, task.priority, task.ready_at, job_key);
        self.places.insert(task.task_id, place);
        self.aside += 1;
        self.queue_mut(place).aside.insert(place.rank());
    }

    /// Takes the first task of this type, unless it is aside.
    pub fn pop(&mut self, task_type: &str) -> Option<Offer> {
        let rank = self.first_rank(task_type)?;
        let offer = self.queues[*self.by_type.get(task_type)? as usize].loaded.remove(&rank)?;
        self.params_bytes -= offer.params.len();
        self.places.remove(&offer.task_id);
        Some(offer)
    }

    /// Takes this task, if it is here and not aside.
    pub fn take(&mut self, task_id: TaskId) -> Option<Offer> {
        let offer = self.unload(*self.places.get(&task_id)?)?;
        self.places.remove(&task_id);
        Some(offer)
    }

    /// Removes this task; whether it was here.
    pub fn remove(&mut self, task_id: TaskId) -> bool {
        let Some(place) = self.places.remove(&task_id) else { return false };
        self.unload(place).is_some() || self.remove_aside(place)
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
            self.aside += 1;
            self.queue_mut(place).aside.insert(place.rank());
        }
    }

    /// Gives a task that is aside its offer back.
    pub fn supply(&mut self, offer: Offer) {
        let Some(&place) = self.places.get(&offer.task_id) else { return };
        if self.remove_aside(place) {
            self.load(place, offer);
        }
    }

    /// Whether this task is here.
    pub fn contains(&self, task_id: TaskId) -> bool {
        self.places.contains_key(&task_id)
    }

    /// The rank of the first task of this type; `None` while that one is aside.
    pub fn first_rank(&self, task_type: &str) -> Option<Rank> {
        let queue = &self.queues[*self.by_type.get(task_type)? as usize];
        let (&first, _) = queue.loaded.first_key_value()?;
        queue.aside.first().is_none_or(|&aside| first < aside).then_some(first)
    }

    /// Whether any task is aside.
    pub fn has_aside(&self) -> bool {
        self.aside > 0
    }

    /// Where this task stands, if it is here and aside.
    pub fn place_aside(&self, task_id: TaskId) -> Option<Place> {
        let place = *self.places.get(&task_id)?;
        self.queue(place).aside.contains(&place.rank()).then_some(place)
    }

    /// Whether a task of its type that is aside stands before this one.
    pub fn is_behind_aside(&self, task_id: TaskId) -> bool {
        self.places
            .get(&task_id)
            .is_some_and(|place| self.queue(*place).aside.first().is_some_and(|&aside| aside < place.rank()))
    }

    /// Whether this task is among the first so many of its type that are not aside. Costs a look at that many.
    pub fn is_among_first(&self, task_id: TaskId, count: usize) -> bool {
        self.places
            .get(&task_id)
            .is_some_and(|place| self.queue(*place).loaded.range(..place.rank()).take(count).count() < count)
    }

    /// How far this task is from its turn, if it is here. Counted from whichever end is less than `limit` tasks away; costs a
    /// look at twice that many.
    pub fn position(&self, task_id: TaskId, limit: usize) -> Option<Position> {
        let place = *self.places.get(&task_id)?;
        let (queue, rank) = (self.queue(place), place.rank());
        let length = queue.len();
        let behind = || queue.count((Bound::Excluded(rank), Bound::Unbounded), limit);
        let ahead = queue.count(..rank, limit).or_else(|| behind().map(|behind| length - 1 - behind));
        Some(Position {
            ahead: ahead.unwrap_or(limit) as u64,
            at_least: ahead.is_none(),
            length: length as u64,
        })
    }

    /// The types that have tasks aside.
    pub fn types_aside(&self) -> impl Iterator<Item = &Arc<str>> {
        self.queues.iter().filter(|queue| !queue.aside.is_empty()).map(|queue| &queue.task_type)
    }

    /// Whether fewer than so many tasks stand before the first of this type that is aside. Costs a look at that many.
    pub fn runs_out(&self, task_type: &str, count: usize) -> bool {
        let queue = self.by_type.get(task_type).map(|&number| &self.queues[number as usize]);
        queue.is_some_and(|queue| {
            let first = queue.aside.first();
            first.is_some_and(|&first| queue.loaded.range(..first).take(count).count() < count)
        })
    }

    /// The first tasks of this type that are aside.
    pub fn first_aside(&self, task_type: &str) -> impl Iterator<Item = Place> {
        let number = self.by_type.get(task_type).copied();
        let ranks = number.into_iter().flat_map(|number| {
            let ranks = self.queues[number as usize].aside.iter();
            ranks.map(move |rank| (number, rank))
        });
        ranks.map(|(queue, &(Reverse(priority), ready_at, job_key))| Place {
            queue,
            priority,
            ready_at,
            job_key,
        })
    }

    /// Bytes of the params that are here.
    pub fn params_bytes(&self) -> usize {
        self.params_bytes
    }

    /// The types that have tasks.
    pub fn task_types(&self) -> Vec<Arc<str>> {
        self.counts().into_keys().collect()
    }

    /// How many tasks each type has.
    pub fn counts(&self) -> BTreeMap<Arc<str>, u64> {
        let count = |queue: &Queue| {
            let count = queue.len() as u64;
            (count > 0).then(|| (queue.task_type.clone(), count))
        };
        self.queues.iter().filter_map(count).collect()
    }

    /// Since when the oldest task of each type has been ready. Costs a look at the first task of every priority.
    pub fn oldest(&self) -> Vec<(Arc<str>, Timestamp)> {
        let oldest = |queue: &Queue| Some((queue.task_type.clone(), queue.oldest()?));
        self.queues.iter().filter_map(oldest).collect()
    }

    fn place(&mut self, task_type: &Arc<str>, priority: i32, ready_at: Timestamp, job_key: i64) -> Place {
        let queue = match self.by_type.get(task_type) {
            Some(&queue) => queue,
            None => {
                let queue = self.queues.len() as u32;
                self.by_type.insert(task_type.clone(), queue);
                self.queues.push(Queue {
                    task_type: task_type.clone(),
                    loaded: BTreeMap::new(),
                    aside: BTreeSet::new(),
                });
                queue
            }
        };
        Place { queue, priority, ready_at, job_key }
    }

    fn queue(&self, place: Place) -> &Queue {
        &self.queues[place.queue as usize]
    }

    fn queue_mut(&mut self, place: Place) -> &mut Queue {
        &mut self.queues[place.queue as usize]
    }

    fn load(&mut self, place: Place, offer: Offer) {
        self.params_bytes += offer.params.len();
        self.queue_mut(place).loaded.insert(place.rank(), offer);
    }

    fn unload(&mut self, place: Place) -> Option<Offer> {
        let offer = self.queue_mut(place).loaded.remove(&place.rank())?;
        self.params_bytes -= offer.params.len();
        Some(offer)
    }

    fn remove_aside(&mut self, place: Place) -> bool {
        let removed = self.queue_mut(place).aside.remove(&place.rank());
        self.aside -= usize::from(removed);
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use avtomatika_proto::JobId;

    use super::*;

    fn offer(number: u8, priority: i32, ready_at: i64) -> Offer {
        Offer {
            task_id: task(number),
            job_id: JobId::from_bytes([number; 16]),
            task_type: Arc::from("resize"),
            params: Arc::from("{}"),
            attempt: 1,
            priority,
            timeout: Duration::from_secs(1),
            ready_at: Timestamp::from_micros(ready_at),
            checkpoint: None,
        }
    }

    fn task(number: u8) -> TaskId {
        TaskId::from_bytes([number; 16])
    }

    fn drained(queue: &mut ReadyQueue) -> Vec<u8> {
        std::iter::from_fn(|| queue.pop("resize")).map(|offer| offer.task_id.as_bytes()[1]).collect()
    }

    fn assert_empty(queue: &ReadyQueue) {
        assert!(queue.counts().is_empty() && queue.places.is_empty() && !queue.has_aside());
        assert_eq!(queue.params_bytes(), 0);
    }

    #[test]
    fn the_urgent_go_first_then_the_old_then_those_of_older_jobs() {
        let mut queue = ReadyQueue::default();
        for task in [offer(1, 0, 5), offer(2, 0, 3), offer(3, 9, 9), offer(5, 0, 5), offer(4, -9, 0)] {
            queue.push(task);
        }
        assert_eq!(drained(&mut queue), [3, 2, 1, 5, 4]);
        assert_empty(&queue);
    }

    #[test]
    fn a_removed_task_is_gone_and_leaves_nothing_behind() {
        let mut queue = ReadyQueue::default();
        queue.push(offer(1, 0, 0));
        assert_eq!(queue.take(task(1)), Some(offer(1, 0, 0)));
        assert_eq!(queue.take(task(1)), None);
        for aside in [false, true] {
            queue.push(offer(2, 0, 0));
            if aside {
                queue.put_aside(task(2));
            }
            assert!(queue.remove(task(2)) && !queue.remove(task(2)));
            assert_empty(&queue);
        }
    }

    #[test]
    fn a_task_aside_keeps_its_turn() {
        let mut queue = ReadyQueue::default();
        for number in 1..=4 {
            queue.push(offer(number, 0, 0));
        }
        queue.put_aside(task(2));
        assert_eq!((queue.take(task(2)), queue.params_bytes()), (None, 3 * "{}".len()));
        assert!(queue.is_behind_aside(task(3)) && !queue.is_behind_aside(task(1)));
        assert_eq!(drained(&mut queue), [1]);
        assert_eq!(queue.counts()["resize"], 3);
        queue.supply(offer(2, 0, 0));
        queue.supply(offer(2, 0, 0));
        assert_eq!(drained(&mut queue), [2, 3, 4]);
        queue.supply(offer(2, 0, 0));
        assert_empty(&queue);
    }

    #[test]
    fn a_position_is_counted_from_the_nearer_end_and_otherwise_bounded() {
        let mut queue = ReadyQueue::default();
        for number in 0..=100 {
            queue.push(offer(number, 0, 0));
        }
        for number in (0..=100).step_by(3) {
            queue.put_aside(task(number));
        }
        for number in 0..=100 {
            let position = queue.position(task(number), 1000).unwrap();
            assert_eq!(position, Position { ahead: u64::from(number), at_least: false, length: 101 });
            let position = queue.position(task(number), 10).unwrap();
            let is_near = !(10..=90).contains(&number);
            let ahead = if is_near { u64::from(number) } else { 10 };
            assert_eq!(position, Position { ahead, at_least: !is_near, length: 101 }, "{number}");
        }
        queue.push(offer(101, 1, 9));
        assert_eq!(queue.position(task(101), 10).unwrap().ahead, 0, "the urgent go first");
        assert_eq!(queue.position(task(0), 10).unwrap().ahead, 1);
        assert_eq!(queue.position(task(102), 10), None);
    }

    #[test]
    fn the_oldest_is_found_behind_the_more_urgent_and_aside() {
        let mut queue = ReadyQueue::default();
        assert_eq!(queue.oldest(), []);
        for (number, priority, ready_at) in
            [(1, 5, 900), (2, 0, 300), (3, 0, 400), (4, -7, 200), (5, -7, 100)]
        {
            queue.push(offer(number, priority, ready_at));
        }
        let oldest = |queue: &ReadyQueue| queue.oldest().first().map(|(_, since)| *since);
        assert_eq!(oldest(&queue), Some(Timestamp::from_micros(100)));
        queue.put_aside(task(5));
        assert_eq!(oldest(&queue), Some(Timestamp::from_micros(100)), "it waits still");
        queue.remove(task(5));
        queue.remove(task(4));
        assert_eq!(oldest(&queue), Some(Timestamp::from_micros(300)));
    }

    #[test]
    fn a_queue_runs_out_when_too_few_stand_before_the_first_aside() {
        let mut queue = ReadyQueue::default();
        for number in 1..=6 {
            queue.push(offer(number, 0, 0));
        }
        assert!(!queue.runs_out("resize", 100), "nothing is aside");
        queue.put_aside(task(4));
        queue.put_aside(task(6));
        assert!(!queue.runs_out("resize", 3) && queue.runs_out("resize", 4));
        assert_eq!(queue.types_aside().map(|name| &**name).collect::<Vec<_>>(), ["resize"]);
        assert!(queue.is_among_first(task(3), 3) && !queue.is_among_first(task(3), 2));
        let places: Vec<Place> = queue.first_aside("resize").collect();
        assert_eq!(places, [task(4), task(6)].map(|task| queue.place_aside(task).unwrap()));
        places.into_iter().for_each(|place| queue.discard(place));
        assert_eq!(drained(&mut queue), [1, 2, 3, 5]);
        assert_empty(&queue);
    }
}
