use std::time::Duration;

use avtomatika_proto::JobId;

use super::{super::classes::Classes, *};

/// The queue of one class, and another class beside it.
struct Line {
    queue: ReadyQueue,
    class: ClassId,
    other: ClassId,
}

impl Line {
    fn new() -> Self {
        let mut classes = Classes::default();
        let (class, _) = classes.of(&Arc::from("resize"), None);
        let (other, _) = classes.of(&Arc::from("ocr"), None);
        Self { queue: ReadyQueue::default(), class, other }
    }

    /// A line in which each of these clients has so many tasks, those of the first being the oldest.
    fn of(clients: &[(&str, u16)]) -> Self {
        let mut line = Self::new();
        let mut number = 0;
        for &(client, count) in clients {
            for _ in 0..count {
                number += 1;
                line.push(of_client(client, offer(number, 0, i64::from(number))));
            }
        }
        line
    }

    fn push(&mut self, offer: Offer) {
        self.queue.push(self.class, offer);
    }

    fn pop(&mut self) -> Option<Offer> {
        self.queue.pop(self.class)
    }

    /// Whose the next tasks are.
    fn next(&mut self, count: usize) -> String {
        let popped = std::iter::from_fn(|| self.pop()).take(count);
        popped.map(|offer| offer.client.to_string()).collect::<Vec<_>>().concat()
    }

    /// Which tasks come, until none does.
    fn drained(&mut self) -> Vec<u16> {
        std::iter::from_fn(|| self.pop()).map(|offer| offer.params.parse().unwrap()).collect()
    }

    fn weigh(&mut self, weights: &[(&str, u32)]) {
        let weights = weights.iter().map(|&(client, weight)| (Arc::from(client), weight));
        self.queue.set_weights(weights.collect());
    }

    fn assert_empty(&self) {
        let queue = &self.queue;
        assert!(queue.places.is_empty() && !queue.has_aside() && queue.by_owner.is_empty());
        assert!(queue.lanes.iter().all(Option::is_none) && queue.vacant.len() == queue.lanes.len());
        for queue in &queue.queues {
            assert!(queue.levels.is_empty() && queue.starved.is_empty() && queue.short.is_empty());
            assert_eq!((queue.len, queue.lanes), (0, 0));
        }
        assert_eq!(queue.params_bytes(), 0);
    }
}

fn offer(number: u16, priority: i32, ready_at: i64) -> Offer {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    id[6..8].copy_from_slice(&number.to_be_bytes());
    Offer {
        task_id: task(number),
        job_id: JobId::from_bytes(id),
        client: Arc::from("a"),
        task_type: Arc::from("resize"),
        needs: None,
        params: Arc::from(number.to_string()),
        attempt: 1,
        priority,
        timeout: Duration::from_secs(1),
        ready_at: Timestamp::from_micros(ready_at),
        checkpoint: None,
        trace: None,
    }
}

fn of_client(client: &str, offer: Offer) -> Offer {
    Offer { client: Arc::from(client), ..offer }
}

fn task(number: u16) -> TaskId {
    TaskId::from_random(u128::from(number))
}

#[test]
fn the_urgent_go_first_then_the_old_then_those_of_older_jobs() {
    let mut line = Line::new();
    for task in [offer(1, 0, 5), offer(2, 0, 3), offer(3, 9, 9), offer(5, 0, 5), offer(4, -9, 0)] {
        line.push(task);
    }
    assert_eq!(line.drained(), [3, 2, 1, 5, 4]);
    line.assert_empty();
}

#[test]
fn one_clients_many_do_not_delay_anothers_one_by_more_than_a_turn() {
    let mut line = Line::of(&[("a", 1000), ("b", 1)]);
    assert_eq!(line.next(3), "aba");
    line.push(of_client("c", offer(2000, 0, 2000)));
    assert_eq!(line.next(2), "ca");
    assert_eq!(line.next(usize::MAX).len(), 997);
    line.assert_empty();
}

#[test]
fn clients_with_many_tasks_take_turns() {
    let mut line = Line::of(&[("a", 4), ("b", 4), ("c", 2)]);
    assert_eq!(line.next(usize::MAX), "abcabcabab");
    line.assert_empty();
}

#[test]
fn a_client_gets_turns_by_its_weight_from_the_moment_that_it_has_it() {
    let mut line = Line::of(&[("a", 300), ("b", 300)]);
    let count = |text: &str, client| text.chars().filter(|&one| one == client).count();
    line.weigh(&[("b", 3)]);
    let served = line.next(100);
    assert!((74..=76).contains(&count(&served, 'b')), "{served}");
    line.weigh(&[]);
    let served = line.next(100);
    assert!((49..=52).contains(&count(&served, 'b')), "{served}");
}

#[test]
fn idleness_saves_up_no_turns_and_coming_back_gains_none() {
    let mut line = Line::of(&[("a", 1000), ("b", 1)]);
    assert_eq!(line.next(100).matches('b').count(), 1);
    for number in 2000..2010 {
        line.push(of_client("b", offer(number, 0, i64::from(number))));
    }
    assert_eq!(line.next(8), "babababa", "not all that it did not take before");
    // Gone and back with each of its tasks, which would be a turn of its own each time.
    let mut line = Line::of(&[("a", 1000)]);
    let mut served = String::new();
    for number in 2000..2050 {
        line.push(of_client("b", offer(number, 0, i64::from(number))));
        served += &line.next(2);
    }
    assert_eq!((served.len(), served.matches('b').count()), (100, 50), "{served}");
}

#[test]
fn priorities_go_before_turns() {
    let mut line = Line::of(&[("a", 3)]);
    for number in 10..13 {
        line.push(of_client("b", offer(number, 1, 9)));
    }
    assert_eq!(line.next(usize::MAX), "bbbaaa");
    line.assert_empty();
}

#[test]
fn tasks_that_are_withdrawn_cost_no_turns() {
    let mut line = Line::of(&[("a", 500), ("b", 100)]);
    for number in 1..=490 {
        assert!(line.queue.remove(task(number)));
    }
    assert_eq!(line.next(6), "ababab");
}

#[test]
fn classes_take_turns_too_and_priority_goes_before() {
    let mut line = Line::of(&[("a", 100)]);
    let other = line.other;
    for number in 500..503 {
        line.queue.push(other, offer(number, 0, 999));
    }
    let mut served = String::new();
    while line.queue.len(other) > 0 {
        let heads =
            [line.class, other].into_iter().filter_map(|class| Some((line.queue.head(class)?, class)));
        let (_, class) = heads.min().unwrap();
        line.queue.pop(class).unwrap();
        served.push(if class == other { 'o' } else { 'c' });
    }
    assert!(served.len() <= 7, "{served}");
    line.queue.push(other, offer(600, 5, 999));
    assert!(line.queue.head(other) < line.queue.head(line.class));
}

#[test]
fn a_client_without_tasks_is_forgotten_as_soon_as_the_others_have_caught_up() {
    let mut line = Line::of(&[("a", 10), ("b", 1), ("c", 1)]);
    assert_eq!(line.next(3), "abc");
    assert_eq!(line.queue.by_owner.len(), 3, "b and c are ahead of a");
    assert_eq!(line.next(1), "a");
    assert_eq!(line.queue.by_owner.len(), 1);
    line.drained();
    line.assert_empty();
}

#[test]
fn a_removed_task_is_gone_and_leaves_nothing_behind() {
    let mut line = Line::new();
    line.push(offer(1, 0, 0));
    assert_eq!(line.queue.take(task(1)), Some(offer(1, 0, 0)));
    assert_eq!(line.queue.take(task(1)), None);
    for aside in [false, true] {
        line.push(offer(2, 0, 0));
        if aside {
            line.queue.put_aside(task(2));
        }
        assert!(line.queue.remove(task(2)) && !line.queue.remove(task(2)));
        line.assert_empty();
    }
}

#[test]
fn a_task_aside_keeps_its_turn() {
    let mut line = Line::new();
    for number in 1..=4 {
        line.push(offer(number, 0, 0));
    }
    line.queue.put_aside(task(2));
    assert_eq!((line.queue.take(task(2)), line.queue.params_bytes()), (None, 3));
    assert!(line.queue.is_behind_aside(task(3)) && !line.queue.is_behind_aside(task(1)));
    assert_eq!(line.drained(), [1]);
    assert_eq!(line.queue.len(line.class), 3);
    line.queue.supply(offer(2, 0, 0));
    line.queue.supply(offer(2, 0, 0));
    assert_eq!(line.drained(), [2, 3, 4]);
    line.queue.supply(offer(2, 0, 0));
    line.assert_empty();
}

#[test]
fn another_client_goes_on_while_a_task_is_aside_and_less_urgent_ones_do_not() {
    let mut line = Line::of(&[("a", 2), ("b", 2)]);
    line.push(of_client("c", offer(9, -1, 0)));
    for number in 1..=2 {
        line.queue.put_aside(task(number));
    }
    assert_eq!(line.next(usize::MAX), "bb");
    assert_eq!(line.queue.head(line.class), None);
    line.queue.supply(offer(1, 0, 1));
    line.queue.supply(offer(2, 0, 2));
    assert_eq!(line.next(usize::MAX), "aac");
    line.assert_empty();
}

#[test]
fn a_position_is_counted_from_the_nearer_end_and_otherwise_bounded() {
    let mut line = Line::new();
    for number in 0..=100 {
        line.push(offer(number, 0, 0));
    }
    for number in (0..=100).step_by(3) {
        line.queue.put_aside(task(number));
    }
    for number in 0..=100 {
        let position = line.queue.position(task(number), 1000).unwrap();
        assert_eq!(position, Position { ahead: u64::from(number), at_least: false, length: 101 });
        let position = line.queue.position(task(number), 10).unwrap();
        let is_near = !(10..=90).contains(&number);
        let ahead = if is_near { u64::from(number) } else { 10 };
        assert_eq!(position, Position { ahead, at_least: !is_near, length: 101 }, "{number}");
    }
    line.push(offer(101, 1, 9));
    assert_eq!(line.queue.position(task(101), 10).unwrap().ahead, 0, "the urgent go first");
    assert_eq!(line.queue.position(task(0), 10).unwrap().ahead, 1);
    assert_eq!(line.queue.position(task(102), 10), None);
}

#[test]
fn a_position_among_other_clients_is_the_number_of_tasks_that_then_go_before() {
    for weights in [vec![], vec![("b", 4)], vec![("a", 7), ("c", 2)]] {
        let mut line = Line::of(&[("a", 30), ("b", 10), ("c", 5), ("d", 1)]);
        line.weigh(&weights);
        line.next(7);
        let asked = task(20);
        let told = line.queue.position(asked, 1000).unwrap().ahead;
        let before = std::iter::from_fn(|| line.pop()).take_while(|offer| offer.task_id != asked).count();
        assert!(told.abs_diff(before as u64) <= 3, "{weights:?}: told {told}, and it was {before}");
    }
}

#[test]
fn the_oldest_is_found_behind_the_more_urgent_and_aside() {
    let mut line = Line::new();
    let oldest = |line: &Line| line.queue.oldest(line.class).map(Timestamp::as_micros);
    assert_eq!(oldest(&line), None);
    for (number, priority, ready_at) in [(1, 5, 900), (2, 0, 300), (3, 0, 400), (4, -7, 200), (5, -7, 100)] {
        line.push(offer(number, priority, ready_at));
    }
    assert_eq!(oldest(&line), Some(100));
    line.queue.put_aside(task(5));
    assert_eq!(oldest(&line), Some(100), "it waits still");
    line.queue.remove(task(5));
    line.queue.remove(task(4));
    assert_eq!(oldest(&line), Some(300));
    line.push(of_client("b", offer(6, 0, 50)));
    assert_eq!(oldest(&line), Some(50), "whoever's it is");
}

#[test]
fn a_lane_runs_short_when_too_few_stand_before_the_first_aside() {
    let mut line = Line::new();
    let class = line.class;
    for number in 1..=700 {
        line.push(offer(number, 0, i64::from(number)));
    }
    assert!(!line.queue.runs_short(class, false), "nothing is aside");
    (600..=700).for_each(|number| line.queue.put_aside(task(number)));
    assert!(!line.queue.runs_short(class, false), "enough is at hand");
    assert!(line.queue.is_near(task(512)) && !line.queue.is_near(task(513)));
    line.next(100);
    assert!(line.queue.runs_short(class, false) && !line.queue.runs_short(class, true));
    let wanted = line.queue.wanted(class, false, 10);
    let first: Vec<Place> = (600..610).map(|number| line.queue.place_aside(task(number)).unwrap()).collect();
    assert_eq!(wanted, first);
    assert!(line.queue.wanted(class, true, 10).is_empty());
    line.drained();
    assert!(line.queue.runs_short(class, true));
    assert_eq!(line.queue.wanted(class, true, 10), first);
    while let [place, ..] = line.queue.wanted(class, true, 1)[..] {
        line.queue.discard(place);
    }
    line.assert_empty();
}

#[test]
fn lanes_with_nothing_at_hand_are_wanted_before_those_with_little() {
    let mut line = Line::of(&[("a", 20), ("b", 20)]);
    (10..=20).chain(21..=40).for_each(|number| line.queue.put_aside(task(number)));
    let wanted = line.queue.wanted(line.class, false, 4);
    let at = |number| line.queue.place_aside(task(number)).unwrap();
    assert_eq!(wanted, [at(21), at(22), at(10), at(11)]);
}

#[test]
fn whatever_comes_and_goes_in_whatever_order_every_task_comes_out_once_and_nothing_is_left() {
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut line = Line::new();
    let mut here = std::collections::BTreeMap::new();
    for number in 0..5000_u16 {
        let offer =
            of_client(["a", "b", "c", "d"][next(4) as usize], offer(number, next(3) as i32, next(50) as i64));
        here.insert(number, offer.clone());
        line.push(offer);
        let some = here.keys().nth(next(here.len() as u64) as usize).copied().unwrap();
        match next(6) {
            0 => drop(line.queue.remove(task(some)).then(|| here.remove(&some))),
            1 => line.queue.put_aside(task(some)),
            2 => line.queue.supply(here[&some].clone()),
            3 => drop(line.queue.take(task(some)).map(|_| here.remove(&some))),
            _ => {
                if let Some(popped) = line.pop() {
                    let number = popped.params.parse::<u16>().unwrap();
                    assert_eq!(here.remove(&number), Some(popped));
                }
            }
        }
        assert_eq!(line.queue.len(line.class), here.len());
    }
    here.values().for_each(|offer| line.queue.supply(offer.clone()));
    for number in line.drained() {
        assert!(here.remove(&number).is_some());
    }
    assert!(here.is_empty());
    line.assert_empty();
}
