//! Tasks that no worker has yet: by type, the most urgent first, then the oldest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use avtomatika_proto::TaskId;

use crate::{engine::Offer, time::Timestamp};

/// Where a task stands in its queue: priority, then age, then order of arrival.
pub type Rank = (Reverse<i32>, Timestamp, u64);

/// Ready tasks. Every operation costs the logarithm of one queue's length.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    queues: HashMap<Arc<str>, BTreeMap<Rank, Offer>>,
    ranks: HashMap<TaskId, (Arc<str>, Rank)>,
    arrivals: u64,
}

impl ReadyQueue {
    /// Adds a task.
    pub fn push(&mut self, offer: Offer) {
        self.arrivals += 1;
        let rank = (Reverse(offer.priority), offer.ready_at, self.arrivals);
        self.ranks.insert(offer.task_id, (offer.task_type.clone(), rank));
        self.queues.entry(offer.task_type.clone()).or_default().insert(rank, offer);
    }

    /// Takes the first task of this type.
    pub fn pop(&mut self, task_type: &str) -> Option<Offer> {
        let queue = self.queues.get_mut(task_type)?;
        let (_, offer) = queue.pop_first()?;
        self.ranks.remove(&offer.task_id);
        if queue.is_empty() {
            self.queues.remove(task_type);
        }
        Some(offer)
    }

    /// Takes this task, if it is here.
    pub fn remove(&mut self, task_id: TaskId) -> Option<Offer> {
        let (task_type, rank) = self.ranks.remove(&task_id)?;
        let queue = self.queues.get_mut(&task_type)?;
        let offer = queue.remove(&rank);
        if queue.is_empty() {
            self.queues.remove(&task_type);
        }
        offer
    }

    /// The rank of the first task of this type.
    pub fn first_rank(&self, task_type: &str) -> Option<Rank> {
        self.queues.get(task_type)?.first_key_value().map(|(rank, _)| *rank)
    }

    /// The types that have tasks.
    pub fn task_types(&self) -> Vec<Arc<str>> {
        self.queues.keys().cloned().collect()
    }

    /// How many tasks each type has.
    pub fn counts(&self) -> BTreeMap<Arc<str>, u64> {
        self.queues.iter().map(|(task_type, queue)| (task_type.clone(), queue.len() as u64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use avtomatika_proto::JobId;

    use super::*;

    fn offer(number: u8, priority: i32, ready_at: i64) -> Offer {
        Offer {
            task_id: TaskId::from_bytes([number; 16]),
            job_id: JobId::from_bytes([number; 16]),
            task_type: Arc::from("resize"),
            params: Arc::from("{}"),
            attempt: 1,
            priority,
            timeout: Duration::from_secs(1),
            ready_at: Timestamp::from_micros(ready_at),
        }
    }

    fn drained(queue: &mut ReadyQueue) -> Vec<u8> {
        std::iter::from_fn(|| queue.pop("resize")).map(|offer| offer.task_id.as_bytes()[1]).collect()
    }

    #[test]
    fn the_urgent_go_first_then_the_old_then_the_first_to_come() {
        let mut queue = ReadyQueue::default();
        for task in [offer(1, 0, 5), offer(2, 0, 3), offer(3, 9, 9), offer(4, -9, 0), offer(5, 0, 5)] {
            queue.push(task);
        }
        assert_eq!(drained(&mut queue), [3, 2, 1, 5, 4]);
        assert!(queue.queues.is_empty() && queue.ranks.is_empty());
    }

    #[test]
    fn a_removed_task_is_gone_and_leaves_nothing_behind() {
        let mut queue = ReadyQueue::default();
        queue.push(offer(1, 0, 0));
        assert_eq!(queue.remove(TaskId::from_bytes([1; 16])), Some(offer(1, 0, 0)));
        assert_eq!(queue.remove(TaskId::from_bytes([1; 16])), None);
        assert!(queue.queues.is_empty() && queue.ranks.is_empty() && queue.counts().is_empty());
    }
}
