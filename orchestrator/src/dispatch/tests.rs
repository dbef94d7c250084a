//! Who gets what: what tasks require and prefer, strategies, limits of a type, and what stands in nobody's way.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::store::{Terms, WorkerRecord};

const NOW: Timestamp = Timestamp::from_micros(1_000_000);

/// Dispatch with workers that say something of themselves.
#[derive(Default)]
struct Floor {
    dispatch: Dispatch,
    tasks: u32,
    /// Sessions by the names of their workers.
    sessions: BTreeMap<String, SessionId>,
    messages: Vec<tokio::sync::mpsc::Receiver<ToWorker>>,
}

/// A worker that serves these types with so many slots.
fn worker(name: &str, task_types: &[&str], slots: u32) -> WorkerRecord {
    WorkerRecord {
        worker_id: Arc::from(name),
        task_types: task_types.iter().copied().map(Arc::from).collect(),
        slots,
        ..WorkerRecord::default()
    }
}

fn with_gpu(name: &str, gigabytes: f64) -> WorkerRecord {
    let resources = BTreeMap::from([("gpu_vram_gb".to_owned(), gigabytes)]);
    WorkerRecord { resources, ..worker(name, &["render"], 4) }
}

fn with_cost(name: &str, cost: f64) -> WorkerRecord {
    let terms = BTreeMap::from([(Arc::from("render"), Terms { limit: None, cost: Some(cost) })]);
    WorkerRecord { terms, ..worker(name, &["render"], 2) }
}

impl Floor {
    fn with(workers: Vec<WorkerRecord>) -> Self {
        let mut floor = Self::default();
        workers.into_iter().for_each(|worker| floor.join(worker));
        floor
    }

    fn join(&mut self, worker: WorkerRecord) {
        let session_id = SessionId::from_random(self.messages.len() as u128 + 1);
        self.sessions.insert(worker.worker_id.to_string(), session_id);
        let slots = worker.slots;
        let record = SessionRecord {
            session_id,
            worker: Arc::new(worker),
            credential: [0; 32],
            opened_at: NOW,
            reproach: None,
        };
        let (outbox, messages) = Outbox::new();
        self.messages.push(messages);
        self.dispatch.connect(&record, &[], outbox, NOW);
        self.dispatch.credits(session_id, slots, NOW);
    }

    /// Offers a task, and says who has it then.
    fn offer(&mut self, task_type: &str, needs: Option<&str>) -> Option<String> {
        let task_id = self.queue(task_type, needs);
        self.dispatch.lease(task_id).map(|lease| lease.worker_id.to_string())
    }

    fn queue(&mut self, task_type: &str, needs: Option<&str>) -> TaskId {
        self.queue_of(self.tasks + 1, task_type, needs)
    }

    fn queue_of(&mut self, job: u32, task_type: &str, needs: Option<&str>) -> TaskId {
        self.tasks += 1;
        let task_id = TaskId::from_random(u128::from(self.tasks));
        let offer = Offer {
            task_id,
            job_id: JobId::compose(u64::from(job), 0, 0),
            client: Arc::from("acme"),
            task_type: Arc::from(task_type),
            needs: needs.map(Arc::from),
            params: Arc::from("{}"),
            attempt: 1,
            priority: 0,
            timeout: Duration::from_secs(1),
            ready_at: NOW,
            checkpoint: None,
            trace: None,
        };
        self.dispatch.offer(offer, NOW);
        task_id
    }

    /// Who gets tasks, one after the other, until nobody takes one.
    fn takers(&mut self, needs: Option<&str>) -> String {
        let takers = std::iter::from_fn(|| self.offer("render", needs));
        takers.collect::<Vec<_>>().join(" ")
    }

    fn nearest(&self, task_id: TaskId) -> (Obstacle, String, String) {
        let Whereabouts::Ready(standing) = self.dispatch.whereabouts(task_id, "render") else {
            panic!("it is not queued")
        };
        let nearest = standing.nearest.expect("somebody comes near");
        let lack = match &nearest.lacks {
            Lack::Needs(Unmet { about, needs, has, .. }) => format!("{about} {needs}, has {has:?}"),
            other => format!("{other:?}"),
        };
        (standing.obstacle, nearest.worker_id.to_string(), lack)
    }
}

const LARGE: &str = r#"{"requires":{"resources":{"gpu_vram_gb":">= 16"}}}"#;

#[test]
fn a_task_goes_to_a_worker_that_meets_what_it_requires_and_waits_when_there_is_none() {
    let mut floor = Floor::with(vec![with_gpu("small", 8.0)]);
    let waiting = floor.queue("render", Some(LARGE));
    assert!(floor.dispatch.is_queued(waiting));
    let lack = "resource gpu_vram_gb >= 16, has Some(\"8\")".to_owned();
    assert_eq!(floor.nearest(waiting), (Obstacle::NoneSuits, "small".to_owned(), lack));
    floor.join(with_gpu("middle", 12.0));
    assert_eq!(floor.nearest(waiting).1, "middle", "who has most of it comes nearest");
    assert_eq!(floor.offer("render", None).as_deref(), Some("small"), "it stands in nobody's way");
    floor.join(with_gpu("large", 16.0));
    assert_eq!(&*floor.dispatch.lease(waiting).unwrap().worker_id, "large");
}

#[test]
fn whatever_waits_for_nobody_does_not_make_dispatch_look_at_it() {
    let mut floor = Floor::with(vec![with_gpu("small", 8.0)]);
    let stuck: Vec<TaskId> = (0..100).map(|_| floor.queue("render", Some(LARGE))).collect();
    assert_eq!(floor.takers(None), "small small small small");
    let counts = floor.dispatch.ready_counts();
    assert_eq!(counts["render"], 101, "they are counted by their type all the same");
    assert!(stuck.iter().all(|&task_id| floor.dispatch.is_queued(task_id)));
}

#[test]
fn the_one_who_misses_least_comes_nearest() {
    let needs =
        r#"{"requires":{"labels":{"region":"eu"},"software":["ffmpeg >= 6"],"models":["m"],"max_cost":0.5}}"#;
    let mut far = with_cost("far", 0.1);
    far.labels.insert("region".to_owned(), "us".to_owned());
    let mut near = with_cost("near", 0.9);
    near.labels.insert("region".to_owned(), "eu".to_owned());
    near.software.insert("ffmpeg".to_owned(), "6.1".to_owned());
    near.models.insert("m".to_owned(), String::new());
    let mut floor = Floor::with(vec![far, near.clone()]);
    let waiting = floor.queue("render", Some(needs));
    let lack = "cost <= 0.5, has Some(\"0.9\")".to_owned();
    assert_eq!(floor.nearest(waiting), (Obstacle::NoneSuits, "near".to_owned(), lack));
    let terms = BTreeMap::from([(Arc::from("render"), Terms { limit: None, cost: Some(0.5) })]);
    floor.join(WorkerRecord { worker_id: Arc::from("fits"), terms, ..near });
    assert_eq!(&*floor.dispatch.lease(waiting).unwrap().worker_id, "fits");
}

#[test]
fn quantities_of_different_kinds_are_compared_by_what_is_missing_of_each() {
    // The one lacks a quarter of the memory, and the other costs nearly twice what it may.
    let needs = r#"{"requires":{"resources":{"gpu_vram_gb":">= 16"},"max_cost":0.5}}"#;
    let mut small = with_cost("small", 0.5);
    small.resources.insert("gpu_vram_gb".to_owned(), 12.0);
    let mut dear = with_cost("dear", 0.9);
    dear.resources.insert("gpu_vram_gb".to_owned(), 16.0);
    let mut floor = Floor::with(vec![dear, small]);
    let waiting = floor.queue("render", Some(needs));
    assert_eq!(floor.nearest(waiting).1, "small");
    // And the cheaper of two comes nearer than the dearer one.
    let mut floor = Floor::with(vec![with_cost("a", 0.9), with_cost("b", 0.6)]);
    let waiting = floor.queue("render", Some(r#"{"requires":{"max_cost":0.5}}"#));
    assert_eq!(floor.nearest(waiting).1, "b");
}

#[test]
fn what_is_asked_for_and_not_understood_suits_nobody() {
    let mut floor = Floor::with(vec![with_gpu("large", 99.0)]);
    assert_eq!(floor.offer("render", Some(r#"{"requires":{"moon":"full"}}"#)), None);
    assert_eq!(floor.offer("render", None).as_deref(), Some("large"));
}

#[test]
fn preferences_go_before_the_strategy_by_their_weights() {
    let labelled = |name: &str, labels: &[&str]| {
        let labels = labels.iter().map(|label| (label.to_string(), "yes".to_owned())).collect();
        WorkerRecord { labels, ..worker(name, &["render"], 1) }
    };
    let mut floor = Floor::with(vec![
        WorkerRecord { slots: 1, ..labelled("none", &[]) },
        labelled("fast", &["fast"]),
        labelled("near", &["near"]),
        labelled("both", &["fast", "near"]),
    ]);
    let needs = r#"{"prefer":[{"labels":{"fast":"yes"},"weight":3},{"labels":{"near":"yes"},"weight":1}]}"#;
    assert_eq!(floor.takers(Some(needs)), "both fast near none");
}

#[test]
fn each_strategy_has_its_own_order() {
    let fleet = || {
        let mut dear = with_cost("dear", 9.0);
        dear.slots = 3;
        vec![worker("free", &["render"], 2), with_cost("cheap", 1.0), dear]
    };
    for (needs, takers) in [
        (None, "dear free cheap dear free cheap dear"),
        (Some(r#"{"strategy":"round_robin"}"#), "free cheap dear free cheap dear dear"),
        (Some(r#"{"strategy":"least_connections"}"#), "free cheap dear free cheap dear dear"),
        (Some(r#"{"strategy":"cheapest"}"#), "cheap cheap dear dear dear free free"),
        (Some(r#"{"strategy":"best_value"}"#), "cheap cheap dear dear dear free free"),
    ] {
        assert_eq!(Floor::with(fleet()).takers(needs), takers, "{needs:?}");
    }
}

#[test]
fn a_worker_with_the_type_or_the_required_models_warm_goes_first() {
    let with_model = |name: &str| {
        let models = BTreeMap::from([("m".to_owned(), String::new())]);
        WorkerRecord { models, ..worker(name, &["render"], 2) }
    };
    let mut floor = Floor::with(vec![with_model("a"), with_model("b")]);
    let b = floor.sessions["b"];
    floor.dispatch.worker_state(b, vec![Arc::from("m")], 0.0);
    assert_eq!(floor.takers(Some(r#"{"requires":{"models":["m"]}}"#)), "b b a a");
}

#[test]
fn a_worker_holds_no_more_of_a_type_than_it_may_and_its_other_slots_are_for_others() {
    let terms = BTreeMap::from([(Arc::from("render"), Terms { limit: Some(2), cost: None })]);
    let mut floor = Floor::with(vec![WorkerRecord { terms, ..worker("w", &["render", "cut"], 3) }]);
    assert_eq!(floor.takers(None), "w w");
    let waiting = floor.queue("render", None);
    let (obstacle, _, lack) = floor.nearest(waiting);
    assert_eq!(
        (obstacle, lack.as_str()),
        (Obstacle::WorkersFull, "TypeSlot { held: 2, limit: 2 }"),
        "all busy is back-pressure"
    );
    assert_eq!(floor.offer("cut", None).as_deref(), Some("w"));
    assert_eq!(floor.offer("cut", None), None, "the total counts too");
}

/// So many jobs in a row fail on the worker with this name, each handed to it alone.
fn fail(floor: &mut Floor, name: &str, count: usize) {
    for _ in 0..count {
        end(floor, name, Mark::Bad);
    }
}

/// What only the worker with this name meets.
fn only(name: &str) -> String {
    format!(r#"{{"requires":{{"labels":{{"name":"{name}"}}}}}}"#)
}

fn end(floor: &mut Floor, name: &str, mark: Mark) {
    let task_id = floor.queue("render", Some(&only(name)));
    assert_eq!(floor.dispatch.lease(task_id).map(|lease| &*lease.worker_id), Some(name));
    floor.dispatch.judge(task_id, mark, NOW);
    floor.dispatch.answer(floor.sessions[name], task_id, Verdict::Applied, NOW);
}

fn named(name: &str) -> WorkerRecord {
    let labels = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    WorkerRecord { labels, ..worker(name, &["render"], 1) }
}

fn aside_until(floor: &Floor, name: &str) -> Option<Timestamp> {
    floor.dispatch.roster().of_worker(name).unwrap().aside_until
}

#[test]
fn a_worker_that_fails_many_jobs_in_a_row_is_set_aside_and_comes_back() {
    let mut floor = Floor::with(vec![named("bad"), named("good")]);
    fail(&mut floor, "bad", reputation::FAILURES_MAX - 1);
    assert_eq!(aside_until(&floor, "bad"), None);
    fail(&mut floor, "bad", 1);
    let until = aside_until(&floor, "bad").expect("it is set aside");
    let view = floor.dispatch.roster().of_worker("bad").unwrap().view();
    assert_eq!(view.status.as_str(), "set_aside");
    assert!(view.reputation < 0.7, "{}", view.reputation);
    assert_eq!(floor.takers(None), "good", "it gets nothing");
    let only_there = floor.queue("render", Some(r#"{"requires":{"labels":{"name":"bad"}}}"#));
    let (obstacle, nearest, lack) = floor.nearest(only_there);
    assert_eq!((obstacle, nearest.as_str()), (Obstacle::WorkersSetAside, "bad"));
    assert_eq!(lack, format!("{:?}", Lack::Trust(until)));
    // Coming back under its name does not help it.
    let again = SessionRecord {
        session_id: SessionId::from_random(99),
        worker: Arc::new(WorkerRecord { slots: 2, ..named("bad") }),
        credential: [0; 32],
        opened_at: NOW,
        reproach: None,
    };
    floor.dispatch.disconnect(floor.sessions["bad"]);
    let (outbox, messages) = Outbox::new();
    floor.messages.push(messages);
    floor.dispatch.connect(&again, &[], outbox, NOW);
    floor.dispatch.credits(again.session_id, 2, NOW);
    assert_eq!(aside_until(&floor, "bad"), Some(until));
    assert!(floor.dispatch.next_due().is_some_and(|due| due <= until), "it is looked at then");
    floor.dispatch.back_from_aside(until);
    assert_eq!(&*floor.dispatch.lease(only_there).unwrap().worker_id, "bad", "it is tried again");
}

#[test]
fn an_operator_brings_a_worker_back_with_its_good_name() {
    let mut floor = Floor::with(vec![named("bad"), named("good")]);
    fail(&mut floor, "bad", reputation::FAILURES_MAX);
    assert!(floor.dispatch.restore_worker("bad", NOW) && !floor.dispatch.restore_worker("nobody", NOW));
    let session = floor.dispatch.roster().of_worker("bad").unwrap();
    assert_eq!((session.aside_until, session.reputation), (None, 1.0));
    end(&mut floor, "bad", Mark::Good);
}

#[test]
fn a_silent_worker_gets_nothing_until_it_is_heard_again() {
    let mut floor = Floor::with(vec![worker("silent", &["render"], 2)]);
    let held = floor.queue("render", None);
    let session_id = floor.sessions["silent"];
    floor.dispatch.suspect(session_id, true, NOW);
    assert_eq!(floor.dispatch.roster().of_worker("silent").unwrap().view().status.as_str(), "suspected");
    let waiting = floor.queue("render", None);
    assert!(
        floor.dispatch.is_queued(waiting) && floor.dispatch.lease(held).is_some(),
        "what it has, it keeps"
    );
    assert_eq!(floor.nearest(waiting).2, "Credits");
    floor.dispatch.suspect(session_id, false, NOW);
    assert!(floor.dispatch.lease(waiting).is_some());
}

#[test]
fn who_does_not_let_a_task_go_is_told_apart_from_who_does() {
    let mut floor = Floor::with(vec![worker("w", &["render"], 4)]);
    let session_id = floor.sessions["w"];
    let tasks: [TaskId; 4] = std::array::from_fn(|_| floor.queue("render", None));
    tasks[..3].iter().for_each(|&task_id| floor.dispatch.withdraw(task_id, &Arc::from("cancelled"), NOW));
    let [obeyed, killed, ignored, wanted] = tasks;
    assert_eq!(floor.dispatch.obeys(session_id, obeyed, false), Some(Obedience::Stopped));
    assert_eq!(floor.dispatch.obeys(session_id, killed, true), Some(Obedience::Forced));
    assert_eq!(floor.dispatch.obeys(session_id, wanted, false), None, "it was not told to stop this one");
    let late = NOW + STOPPED_WITHIN;
    assert_eq!(floor.dispatch.next_unstopped(NOW), None);
    assert_eq!(floor.dispatch.next_unstopped(late), Some((ignored, Arc::from("w"))));
    assert_eq!(floor.dispatch.next_unstopped(late), None);
    assert_eq!(floor.dispatch.obeys(session_id, ignored, false), None, "too late");
    assert_eq!(floor.dispatch.roster().of_worker("w").unwrap().view().unstopped_tasks, 2);
    // Its orders end with its stream.
    floor.dispatch.withdraw(wanted, &Arc::from("cancelled"), NOW);
    floor.dispatch.disconnect(session_id);
    assert_eq!((floor.dispatch.next_unstopped(late), floor.dispatch.next_due()), (None, None));
}

#[test]
fn a_worker_that_an_operator_wants_to_end_is_told_and_gets_nothing_more() {
    let mut floor = Floor::with(vec![worker("w", &["render"], 2)]);
    floor.queue("render", None);
    assert!(floor.dispatch.drain_worker("w") && !floor.dispatch.drain_worker("nobody"));
    let waiting = floor.queue("render", None);
    assert!(floor.dispatch.is_queued(waiting));
    let told = std::iter::from_fn(|| floor.messages[0].try_recv().ok());
    assert!(told.into_iter().any(|message| matches!(message, ToWorker::Drain)));
}

#[test]
fn when_everybody_fails_it_is_the_jobs_and_half_of_the_workers_stay() {
    let names = ["a", "b", "c", "d"];
    let mut floor = Floor::with(names.map(named).into());
    for name in names {
        fail(&mut floor, name, reputation::FAILURES_MAX);
    }
    let aside = names.map(|name| aside_until(&floor, name).is_some());
    assert_eq!(aside, [true, true, false, false]);
    let mut floor = Floor::with(vec![named("alone")]);
    fail(&mut floor, "alone", 3 * reputation::FAILURES_MAX);
    assert_eq!(aside_until(&floor, "alone"), None);
}

/// The worker with this name is lost with whatever it holds.
fn lose(floor: &mut Floor, name: &str) {
    floor.dispatch.judge_lost(floor.sessions[name], NOW);
    floor.dispatch.disconnect(floor.sessions[name]);
}

/// The worker with this name is lost with so many jobs that nobody knows yet, and comes back.
fn crash(floor: &mut Floor, name: &str, jobs: usize) {
    for _ in 0..jobs {
        let task_id = floor.queue("render", Some(&only(name)));
        assert_eq!(floor.dispatch.lease(task_id).map(|lease| &*lease.worker_id), Some(name));
    }
    lose(floor, name);
    floor.join(WorkerRecord { slots: 8, ..named(name) });
}

fn reputation_of(floor: &Floor, name: &str) -> f64 {
    floor.dispatch.roster().of_worker(name).unwrap().reputation
}

#[test]
fn a_lost_session_counts_once_whatever_goes_with_it_and_many_in_a_row_set_a_worker_aside() {
    let mut floor =
        Floor::with(vec![WorkerRecord { slots: 8, ..named("crashing") }, worker("other", &["render"], 1)]);
    crash(&mut floor, "crashing", 8);
    assert_eq!(reputation_of(&floor, "crashing"), 0.95);
    for _ in 2..reputation::FAILURES_MAX {
        crash(&mut floor, "crashing", 8);
    }
    assert_eq!(aside_until(&floor, "crashing"), None);
    crash(&mut floor, "crashing", 8);
    let until = aside_until(&floor, "crashing").expect("it is set aside");
    assert_eq!(floor.takers(None), "other");
    floor.dispatch.back_from_aside(until);
    assert_eq!(aside_until(&floor, "crashing"), None);
    // Whoever has done something well meanwhile begins anew.
    end(&mut floor, "crashing", Mark::Good);
    crash(&mut floor, "crashing", 1);
    assert_eq!(aside_until(&floor, "crashing"), None);
}

#[test]
fn a_job_that_takes_its_worker_down_again_and_again_sets_nobody_aside_and_hides_no_other() {
    const DEADLY: u32 = 1_000_000;
    let mut floor =
        Floor::with(vec![WorkerRecord { slots: 8, ..named("victim") }, worker("other", &["render"], 1)]);
    for _ in 0..3 * reputation::FAILURES_MAX {
        floor.queue_of(DEADLY, "render", Some(&only("victim")));
        crash(&mut floor, "victim", 0);
    }
    assert_eq!(aside_until(&floor, "victim"), None);
    for others in 1..reputation::FAILURES_MAX {
        assert_eq!(aside_until(&floor, "victim"), None, "with {} others", others - 1);
        floor.queue_of(DEADLY, "render", Some(&only("victim")));
        crash(&mut floor, "victim", 1);
    }
    assert!(aside_until(&floor, "victim").is_some());
}

#[test]
fn who_leaves_in_order_or_with_nothing_or_because_of_us_is_not_reproached() {
    let told_to_go: fn(&mut Dispatch, SessionId) = |dispatch, session_id| dispatch.drain(session_id);
    let left_when_we_stood_still: fn(&mut Dispatch, SessionId) =
        |dispatch, session_id| dispatch.away(session_id);
    for leaves in [told_to_go, left_when_we_stood_still] {
        let mut floor = Floor::with(vec![named("w")]);
        floor.queue("render", None);
        leaves(&mut floor.dispatch, floor.sessions["w"]);
        crash(&mut floor, "w", 0);
        assert_eq!(reputation_of(&floor, "w"), 1.0);
    }
    let mut floor = Floor::with(vec![named("w")]);
    let unwanted = floor.queue("render", None);
    floor.dispatch.withdraw(unwanted, &Arc::from("cancelled"), NOW);
    crash(&mut floor, "w", 0);
    assert_eq!(reputation_of(&floor, "w"), 1.0);
}

#[test]
fn of_workers_that_are_lost_together_half_stay() {
    let names = ["a", "b", "c", "d"];
    let mut floor = Floor::with(names.map(named).into());
    for name in names {
        (1..reputation::FAILURES_MAX).for_each(|_| crash(&mut floor, name, 1));
    }
    for name in names {
        floor.queue("render", Some(&only(name)));
    }
    // None is back when the next one is lost.
    names.iter().for_each(|name| lose(&mut floor, name));
    names.iter().for_each(|name| floor.join(named(name)));
    assert_eq!(names.map(|name| aside_until(&floor, name).is_some()), [true, true, false, false]);
}

#[test]
fn what_a_worker_was_marked_with_after_it_had_registered_is_stored() {
    let mut floor = Floor::with(vec![named("w")]);
    floor.queue("render", None);
    let later = NOW + reputation::STORED_WITHIN;
    lose(&mut floor, "w");
    assert_eq!(floor.dispatch.take_unstored(later).len(), 0, "there is no session to store it with");
    // The new one was stored without it.
    floor.join(named("w"));
    assert_eq!(floor.dispatch.take_unstored(later).len(), 1);
}

#[test]
fn the_best_value_is_the_cost_by_the_reputation() {
    let priced = |name, cost| WorkerRecord { labels: named(name).labels, slots: 1, ..with_cost(name, cost) };
    let needs = Some(r#"{"strategy":"best_value"}"#);
    let mut floor = Floor::with(vec![priced("cheap", 1.0), priced("dear", 1.2)]);
    assert_eq!(floor.takers(needs), "cheap dear");
    let mut floor = Floor::with(vec![priced("cheap", 1.0), priced("dear", 1.2)]);
    fail(&mut floor, "cheap", 5);
    assert_eq!(floor.takers(needs), "dear cheap", "what costs less and fails costs more");
}

/// Something that happens to a worker's slots.
#[derive(Debug, Clone)]
enum Step {
    Offer {
        cut: bool,
        picky: bool,
    },
    Credits(u32),
    /// The oldest task that it holds, or another of those, is answered.
    Answer(usize),
    Withdraw(usize),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), any::<bool>()).prop_map(|(cut, picky)| Step::Offer { cut, picky }),
        1 => (0..6_u32).prop_map(Step::Credits),
        3 => (0..4_usize).prop_map(Step::Answer),
        1 => (0..4_usize).prop_map(Step::Withdraw),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    /// Two types share the slots of a worker, each with a limit of its own, or without.
    #[test]
    fn credits_and_limits_are_never_exceeded_and_no_slot_that_could_be_filled_stays_empty(
        slots in 1..5_u32,
        limits in (proptest::option::of(1..4_u32), proptest::option::of(1..4_u32)),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let terms = [("render", limits.0), ("cut", limits.1)];
        let terms = terms.map(|(name, limit)| (Arc::from(name), Terms { limit, cost: None })).into();
        let record = WorkerRecord { terms, ..worker("w", &["cut", "render"], slots) };
        let mut floor = Floor::with(vec![record.clone()]);
        let session_id = floor.sessions["w"];
        let (mut granted, mut held) = (slots, Vec::<(TaskId, bool)>::new());
        for step in steps {
            match step {
                Step::Offer { cut, picky } => {
                    let needs = picky.then_some(r#"{"strategy":"round_robin"}"#);
                    floor.queue(if cut { "cut" } else { "render" }, needs);
                }
                Step::Credits(credits) => {
                    granted = credits.min(slots);
                    floor.dispatch.credits(session_id, credits, NOW);
                }
                Step::Answer(which) if !held.is_empty() => {
                    let (task_id, _) = held.remove(which % held.len());
                    floor.dispatch.answer(session_id, task_id, Verdict::Applied, NOW);
                }
                // It keeps its slot until the worker has let go of it.
                Step::Withdraw(which) if !held.is_empty() => {
                    let (task_id, _) = held[which % held.len()];
                    floor.dispatch.withdraw(task_id, &Arc::from("cancelled"), NOW);
                }
                Step::Reconnect => {
                    let holds: Vec<TaskId> = held.iter().map(|(task_id, _)| *task_id).collect();
                    let record = SessionRecord {
                        session_id,
                        worker: Arc::new(record.clone()),
                        credential: [0; 32],
                        opened_at: NOW,
                        reproach: None,
                    };
                    let (outbox, messages) = Outbox::new();
                    let (_, reconciled) = floor.dispatch.connect(&record, &holds, outbox, NOW);
                    held.retain(|(task_id, _)| reconciled.adopted.contains(task_id));
                    floor.messages[0] = messages;
                    floor.dispatch.credits(session_id, granted, NOW);
                }
                Step::Answer(_) | Step::Withdraw(_) => {}
            }
            while let Ok(message) = floor.messages[0].try_recv() {
                if let ToWorker::Task(assignment) = message {
                    prop_assert!((held.len() as u32) < granted, "no more than it granted");
                    held.push((assignment.offer.task_id, &*assignment.offer.task_type == "cut"));
                }
            }
            let of_type = |cut: bool| held.iter().filter(|(_, is_cut)| *is_cut == cut).count() as u32;
            let room = |cut: bool, limit: Option<u32>| {
                (held.len() as u32) < granted && limit.is_none_or(|limit| of_type(cut) < limit)
            };
            prop_assert!(limits.0.is_none_or(|limit| of_type(false) <= limit));
            prop_assert!(limits.1.is_none_or(|limit| of_type(true) <= limit));
            let waiting = floor.dispatch.ready_counts();
            prop_assert!(!(room(false, limits.0) && waiting.contains_key("render")));
            prop_assert!(!(room(true, limits.1) && waiting.contains_key("cut")));
        }
    }
}

#[test]
fn classes_that_nobody_uses_any_more_are_forgotten_and_tasks_that_wait_are_not() {
    let mut floor = Floor::with(vec![with_gpu("w", 8.0)]);
    let needs =
        |edition: usize| format!(r#"{{"requires":{{"resources":{{"gpu_vram_gb":">= 0.{edition}"}}}}}}"#);
    let waiting = floor.queue("render", Some(LARGE));
    let mut most = 0;
    for edition in 0..4 * classes::CLASSES_KEPT {
        // A blueprint that changes again and again, beside one that does not.
        for needs in [Some(needs(edition)), None] {
            let task_id = floor.queue("render", needs.as_deref());
            let session_id = floor.dispatch.lease(task_id).expect("it goes to the worker").session_id;
            floor.dispatch.answer(session_id, task_id, Verdict::Applied, NOW);
        }
        most = most.max(floor.dispatch.classes.len());
    }
    const IN_USE: usize = 2;
    assert!(most <= 2 * classes::CLASSES_KEPT + IN_USE, "{most}");
    assert!(floor.dispatch.is_queued(waiting));
    floor.join(with_gpu("large", 24.0));
    assert_eq!(&*floor.dispatch.lease(waiting).unwrap().worker_id, "large");
    assert_eq!(floor.offer("render", Some(&needs(0))).as_deref(), Some("w"), "it is known anew");
    let stands = floor.dispatch.placement.classes_of(floor.sessions["w"]).count();
    assert!(stands <= most, "{stands}");
}
