//! The conductor, step by step: what happens when something else is decided between a decision and its commit, told so exactly
//! that no thread and no luck is needed. Each of these was found by the simulation, and stands here in words.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use avtomatika_orchestrator::{
    blueprint::{Registry, load},
    conductor::{
        Acted, BATCH_MAX, FromWorker, Limits, Move, Settings, SubmitRequest, WorkerResult,
        stepped::{Acceptance, Answer, Answered, Stepped},
    },
    dispatch::{Outbox, ToWorker},
    engine::{Event, JobStatus, Offer, Retry, Signal, Submission},
    json::Json,
    metrics::Metrics,
    store::{PruneQuery, Store, StoreError, WorkerRecord, Write, memory::MemoryStore},
    time::{Clock, Timestamp},
};
use avtomatika_proto::{ApiError, JobId, SessionId, TaskId};
use tokio::sync::mpsc;

#[path = "stepped/wide.rs"]
mod wide;

const TASK: &str = "
blueprint: task
states:
  work:
    start: true
    task: { type: resize }
    on: { success: done }
  done: { end: finished }
";

const PARENT: &str = "
blueprint: parent
states:
  child:
    start: true
    run: { blueprint: task }
    on: { success: done, failure: bad }
  done: { end: finished }
  bad: { end: failed }
";

const FAILS: &str = "
blueprint: fails
states:
  bad: { start: true, end: failed }
";

const MOVES: &str = "
blueprint: moves
states:
  work:
    start: true
    task: { type: resize, params: { by: one } }
    on: { success: done }
  done: { end: finished }
";

const HAS_MOVED: &str = "
blueprint: moves
states:
  work:
    start: true
    task: { type: resize, params: { by: two } }
    on: { success: done }
  done: { end: finished }
";

/// How long workers of before are waited for.
const ADOPTION_WINDOW: Duration = Duration::from_secs(5);

/// A clock that stands still until the test moves it.
#[derive(Clone)]
struct ManualClock(Arc<AtomicI64>);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A conductor, its store, and the one who drives both.
struct Stage {
    store: Arc<MemoryStore>,
    clock: ManualClock,
    conductor: Stepped,
    written: wide::Written,
}

/// A connected worker.
struct Worker {
    session_id: SessionId,
    stream: u64,
    hears: mpsc::Receiver<ToWorker>,
}

fn acme() -> Arc<str> {
    Arc::from("acme")
}

fn recover(store: &Arc<MemoryStore>, clock: &ManualClock) -> Stepped {
    let mut registry = Registry::default();
    let versions = [(TASK, 1), (PARENT, 1), (FAILS, 1), (wide::WIDE, 1), (MOVES, 1), (HAS_MOVED, 2)];
    for (source, version) in versions {
        let blueprint = load("test.yaml", source).unwrap().definition.into_blueprint(version);
        // New jobs take the first version.
        registry.add(Arc::new(blueprint), version == 1);
    }
    let settings = Settings {
        limits: Limits { max_open_jobs: 20_000, max_workers: 10, resident_bytes_max: 1 << 20 },
        adoption_window: ADOPTION_WINDOW,
        webhooks: None,
        entropy_seed: [store.last_job_key().unwrap().unwrap_or(0) as u8; 32],
    };
    let metrics = Arc::new(Metrics::new());
    Stepped::recover(store.clone(), Arc::new(clock.clone()), Arc::new(registry), settings, metrics).unwrap()
}

impl Stage {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let clock = ManualClock(Arc::new(AtomicI64::new(1_700_000_000_000_000)));
        Self { conductor: recover(&store, &clock), store, clock, written: Default::default() }
    }

    /// The process dies and comes back, and whoever was connected is expected back.
    fn crash(&mut self) {
        self.conductor = recover(&self.store, &self.clock);
    }

    /// The process dies and comes back, and whoever was expected back is not waited for any more.
    fn restart(&mut self) {
        self.crash();
        self.pass(ADOPTION_WINDOW);
    }

    fn pass(&mut self, span: Duration) {
        self.clock.0.fetch_add(span.as_micros() as i64, Ordering::SeqCst);
        self.conductor.pass_time().unwrap();
        self.settle();
    }

    /// The batch that is with the store becomes durable.
    fn commit(&mut self) {
        let batch = self.conductor.batch().unwrap();
        self.store.commit(batch).unwrap();
        self.written.add(batch);
        self.conductor.committed(Ok(())).unwrap();
    }

    /// There is no room for the batch that is with the store.
    fn fill(&mut self) {
        self.conductor.committed(Err(StoreError::Full { path: "/data".into() })).unwrap();
    }

    /// Everything becomes durable that is decided, and everything is read that is wanted.
    fn settle(&mut self) {
        loop {
            if self.conductor.batch().is_some() {
                self.commit();
            } else if let Some(reading) = self.conductor.read() {
                self.conductor.loaded(reading).unwrap();
            } else if self.conductor.has_arrived() {
                self.conductor.take_in().unwrap();
            } else if self.conductor.until_due().is_zero() {
                self.conductor.pass_time().unwrap();
            } else {
                return;
            }
        }
    }

    fn submit(&mut self, blueprint: &str) -> JobId {
        self.submit_delayed(blueprint, Duration::ZERO)
    }

    /// Somebody submits a job with this input. Nothing is decided yet.
    fn submit_with(&mut self, blueprint: &str, input: &str) -> Acceptance {
        let request = SubmitRequest {
            blueprint: Arc::from(blueprint),
            submission: Submission::of(Json::object(input).unwrap()),
            idempotency_key: None,
            delay: None,
            wait: Duration::ZERO,
        };
        self.conductor.submit(&acme(), request, false).unwrap().0
    }

    fn submit_delayed(&mut self, blueprint: &str, delay: Duration) -> JobId {
        let request = SubmitRequest {
            blueprint: Arc::from(blueprint),
            submission: Submission::of(Json::empty()),
            idempotency_key: None,
            delay: Some(delay),
            wait: Duration::ZERO,
        };
        let (mut answer, _) = self.conductor.submit(&acme(), request, false).unwrap();
        self.settle();
        match answer.look() {
            Answered::Yes(accepted) => accepted.unwrap().job_id,
            other => panic!("{other:?}"),
        }
    }

    /// Somebody does something to a job; it is decided, and not durable.
    fn act(&mut self, job_id: JobId, event: Event) -> Answer<Result<Acted, ApiError>> {
        let answer = self.conductor.act(Some(&acme()), job_id, event);
        self.conductor.take_in().unwrap();
        answer
    }

    fn connect(&mut self) -> Worker {
        self.connect_with(4)
    }

    fn connect_with(&mut self, slots: u32) -> Worker {
        self.connect_named("w1", slots)
    }

    fn connect_named(&mut self, name: &str, slots: u32) -> Worker {
        let record = WorkerRecord {
            worker_id: Arc::from(name),
            worker_type: Arc::from("test"),
            task_types: vec![Arc::from("resize")],
            slots,
            labels: Default::default(),
            resources: Default::default(),
            hostname: Arc::from("test"),
            sdk_version: Arc::from(""),
            ..WorkerRecord::default()
        };
        let mut registered = self.conductor.register(record, [1; 32]);
        self.settle();
        let Answered::Yes(Ok(registered)) = registered.look() else { panic!("not registered") };
        let worker = self.open(registered.session_id, Vec::new());
        self.conductor.tell(worker.session_id, worker.stream, FromWorker::Credits(slots));
        self.settle();
        worker
    }

    /// A worker opens its stream, and says that it has these. What follows is decided, and not durable.
    fn open(&mut self, session_id: SessionId, held: Vec<TaskId>) -> Worker {
        let (outbox, hears) = Outbox::new();
        let mut opened = self.conductor.open(session_id, [1; 32], held, outbox);
        self.conductor.take_in().unwrap();
        let Answered::Yes(Ok(stream)) = opened.look() else { panic!("not opened") };
        Worker { session_id, stream, hears }
    }

    /// The worker does what it was given.
    fn work(&mut self, worker: &mut Worker) -> Vec<JobId> {
        let mut done = Vec::new();
        while let Some(job_id) = self.report_next(worker) {
            done.push(job_id);
            self.settle();
        }
        done
    }

    /// The worker does the one thing that it was given, and what follows is decided.
    fn take_one(&mut self, worker: &mut Worker) -> JobId {
        let job_id = self.report_next(worker).unwrap();
        self.conductor.take_in().unwrap();
        job_id
    }

    /// The worker tells of the next task that it was given. Nobody has heard it yet.
    fn report_next(&mut self, worker: &mut Worker) -> Option<JobId> {
        let offer = worker.given()?;
        self.report(worker, &offer);
        Some(offer.job_id)
    }

    /// The worker tells that it has done this. Nobody has heard it yet.
    fn report(&mut self, worker: &Worker, offer: &Offer) {
        let result = WorkerResult {
            task_id: offer.task_id,
            job_id: Some(offer.job_id),
            outcome: Arc::from("success"),
            data: Json::empty(),
            error: None,
            checkpoint: None,
        };
        self.conductor.tell(worker.session_id, worker.stream, FromWorker::Results(vec![result]));
    }

    /// The new job that comes first in the batch that is with the store.
    fn first_written(&self) -> JobId {
        match &self.conductor.batch().unwrap().writes[0] {
            Write::InsertJob { job, .. } => job.id,
            other => panic!("{other:?}"),
        }
    }

    fn status(&self, job_id: JobId) -> Option<JobStatus> {
        self.store.load(job_id).unwrap().map(|job| job.status)
    }
}

impl Worker {
    /// The next task that it was given.
    fn given(&mut self) -> Option<Offer> {
        loop {
            if let ToWorker::Task(assignment) = self.hears.try_recv().ok()? {
                return Some(assignment.offer);
            }
        }
    }
}

/// What somebody was told, in a word.
fn told(answer: &mut Answer<Result<Acted, ApiError>>) -> &'static str {
    match answer.look() {
        Answered::Yes(Ok(_)) => "done",
        Answered::Yes(Err(error)) => error.code.as_str(),
        Answered::NotYet => "nothing yet",
        Answered::Never => "nothing ever",
    }
}

fn signal() -> Event {
    Event::Signalled(Signal {
        name: Arc::from("go"),
        id: None,
        data: Json::empty(),
        at: Timestamp::default(),
    })
}

fn retry() -> Retry {
    let by = Arc::from("ann");
    Retry { state: None, initial_data: None, state_history: None, by, reason: None, key: None }
}

#[test]
fn children_are_looked_after_when_the_cancelling_of_their_parent_comes_to_nothing() {
    let mut stage = Stage::new();
    // The parent begins to wait, and is to be cancelled before its child is started. The disk is full.
    let request = SubmitRequest {
        blueprint: Arc::from("parent"),
        submission: Submission::of(Json::empty()),
        idempotency_key: None,
        delay: None,
        wait: Duration::ZERO,
    };
    let (mut answer, _) = stage.conductor.submit(&acme(), request, false).unwrap();
    stage.conductor.take_in().unwrap();
    let parent = stage.first_written();
    let mut cancelled = stage.act(parent, Event::CancelRequested { reason: None });
    stage.commit();
    assert!(matches!(answer.look(), Answered::Yes(Ok(_))));
    stage.conductor.pass_time().unwrap();
    stage.fill();
    assert_eq!(told(&mut cancelled), "STORAGE_FULL");
    stage.settle();
    stage.pass(Duration::from_secs(1));
    let mut worker = stage.connect();
    assert_eq!(stage.work(&mut worker).len(), 1, "the child runs");
    assert_eq!(stage.status(parent), Some(JobStatus::Finished));
}

#[test]
fn a_job_that_is_about_to_be_forgotten_is_not_started_again() {
    let mut stage = Stage::new();
    let job_id = stage.submit("fails");
    stage.pass(Duration::from_secs(60));
    let query = PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by: stage.clock.now(), limit: 10 };
    let mut pruned = stage.conductor.prune(stage.store.prunable(&query).unwrap().removals);
    stage.conductor.take_in().unwrap();
    // The store still has the job. What would be decided about it could never be stored.
    let mut retried = stage.act(job_id, Event::RetryRequested(retry()));
    assert_eq!(told(&mut retried), "JOB_NOT_FOUND");
    // There is no room to forget it either: it is there as before, and can be started again.
    stage.fill();
    assert!(matches!(pruned.look(), Answered::Yes(Err(_))));
    let mut retried = stage.act(job_id, Event::RetryRequested(retry()));
    stage.settle();
    assert_eq!(told(&mut retried), "done");
    assert_eq!(stage.status(job_id), Some(JobStatus::Failed));
}

#[test]
fn news_for_a_job_whose_task_is_aside_does_not_hold_up_the_queue() {
    let mut stage = Stage::new();
    let (first, second) = (stage.submit("task"), stage.submit("task"));
    // After a restart every task is aside until a worker is there.
    stage.restart();
    let mut signalled = stage.act(first, signal());
    stage.settle();
    assert_eq!(told(&mut signalled), "done");
    let mut worker = stage.connect();
    assert_eq!(stage.work(&mut worker), [first, second]);
    assert_eq!(stage.status(first), Some(JobStatus::Finished));
}

#[test]
fn news_that_finds_no_room_does_not_hold_up_the_queue_either() {
    let mut stage = Stage::new();
    let (first, second) = (stage.submit("task"), stage.submit("task"));
    stage.restart();
    // A second signal is decided on top of one that is about to become durable, and there is no room for it.
    let mut kept = stage.act(first, signal());
    let mut undone = stage.act(first, signal());
    stage.commit();
    stage.fill();
    assert_eq!((told(&mut kept), told(&mut undone)), ("done", "STORAGE_FULL"));
    let mut worker = stage.connect();
    assert_eq!(stage.work(&mut worker), [first, second]);
}

#[test]
fn a_worker_keeps_its_task_although_its_job_is_being_changed() {
    for there_is_room in [true, false] {
        let mut stage = Stage::new();
        let job_id = stage.submit("task");
        let mut worker = stage.connect();
        let task = worker.given().unwrap();
        stage.crash();
        // The worker comes back while a change is on its way to the disk that lets it go on.
        let mut signalled = stage.act(job_id, signal());
        let mut worker = stage.open(worker.session_id, vec![task.task_id]);
        let ToWorker::Welcome { adopted, dropped } = worker.hears.try_recv().unwrap() else { panic!() };
        assert_eq!((adopted, dropped), (vec![task.task_id], vec![]));
        match there_is_room {
            true => stage.commit(),
            false => stage.fill(),
        }
        assert_eq!(told(&mut signalled), if there_is_room { "done" } else { "STORAGE_FULL" });
        stage.report(&worker, &task);
        stage.settle();
        assert_eq!(stage.status(job_id), Some(JobStatus::Finished));
    }
}

#[test]
fn a_task_that_its_worker_did_not_bring_back_is_made_by_the_version_to_which_its_job_has_moved() {
    for there_is_room in [true, false] {
        let mut stage = Stage::new();
        let mut lost = stage.connect_named("w1", 4);
        let job_id = stage.submit("moves");
        assert_eq!(&*lost.given().unwrap().params, r#"{"by":"one"}"#);
        let other = stage.connect_named("w2", 4);
        stage.crash();
        // Another worker is back, so the task is read; its own one may have it still, so nobody gets it.
        let mut worker = stage.open(other.session_id, Vec::new());
        stage.conductor.tell(worker.session_id, worker.stream, FromWorker::Credits(4));
        stage.settle();
        assert!(worker.given().is_none());
        let state: Arc<str> = Arc::from("work");
        let planned = Move { job_id, version: 1, state: state.clone(), to_state: state, refused: None };
        let mut moved = stage.conductor.migrate(&acme(), vec![planned], 2);
        stage.conductor.take_in().unwrap();
        match there_is_room {
            true => stage.commit(),
            false => stage.fill(),
        }
        match moved.look() {
            Answered::Yes(Ok(moves)) => assert!(there_is_room && moves[0].refused.is_none()),
            Answered::Yes(Err(error)) => assert!(!there_is_room, "{error}"),
            other => panic!("{other:?}"),
        }
        stage.settle();
        stage.pass(ADOPTION_WINDOW);
        let params = if there_is_room { r#"{"by":"two"}"# } else { r#"{"by":"one"}"# };
        assert_eq!(&*worker.given().unwrap().params, params);
    }
}

#[test]
fn a_job_whose_retry_finds_no_room_has_ended_as_before() {
    let mut stage = Stage::new();
    let mut submitted = stage.submit_with("fails", "{}");
    stage.conductor.take_in().unwrap();
    // Its end is about to become durable when somebody wants it tried again, for which there is no room.
    let job_id = stage.first_written();
    let mut retried = stage.act(job_id, Event::RetryRequested(retry()));
    stage.commit();
    assert!(matches!(submitted.look(), Answered::Yes(Ok(_))));
    stage.fill();
    assert_eq!(told(&mut retried), "STORAGE_FULL");
    assert_eq!(stage.status(job_id), Some(JobStatus::Failed));
    // It is old enough to be forgotten after a while, and is.
    stage.pass(Duration::from_secs(60));
    let query = PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by: stage.clock.now(), limit: 10 };
    let mut pruned = stage.conductor.prune(stage.store.prunable(&query).unwrap().removals);
    stage.settle();
    assert!(matches!(pruned.look(), Answered::Yes(Ok(1))));
}

#[test]
fn a_child_is_kept_until_its_parent_has_been_told_how_it_ended() {
    let mut stage = Stage::new();
    let parent = stage.submit("parent");
    let mut worker = stage.connect();
    let child = stage.take_one(&mut worker);
    // The child's end is durable. That its parent goes on is decided, and the disk is full.
    stage.commit();
    stage.conductor.pass_time().unwrap();
    stage.fill();
    assert_eq!(stage.status(child), Some(JobStatus::Finished));
    let query = PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by: stage.clock.now(), limit: 10 };
    let removals = stage.store.prunable(&query).unwrap().removals;
    assert_eq!(removals.len(), 1, "the child is old enough to be forgotten");
    let mut pruned = stage.conductor.prune(removals);
    stage.settle();
    assert!(matches!(pruned.look(), Answered::Yes(Ok(0))), "its parent still waits for it");
    // After a crash the parent learns from the child how it ended.
    stage.restart();
    assert_eq!(stage.status(parent), Some(JobStatus::Finished));
}

#[test]
fn a_full_batch_waits_for_the_disk_and_looks_for_nothing_meanwhile() {
    let mut stage = Stage::new();
    let job_id = stage.submit_delayed("fails", Duration::from_secs(1));
    // One batch is with the store, and the next one is full.
    let mut signalled = stage.act(job_id, signal());
    for _ in 0..BATCH_MAX {
        let _ = stage.conductor.watch(&acme(), job_id);
    }
    while stage.conductor.has_arrived() {
        stage.conductor.take_in().unwrap();
    }
    stage.clock.0.fetch_add(2_000_000, Ordering::SeqCst);
    stage.conductor.pass_time().unwrap();
    assert!(!stage.conductor.until_due().is_zero(), "the job is due, and there is no room to decide it");
    stage.commit();
    stage.settle();
    assert_eq!(told(&mut signalled), "done");
    assert_eq!(stage.status(job_id), Some(JobStatus::Failed), "it went on when there was");
}

#[test]
fn a_message_that_is_wanted_again_does_not_leave_before_that_is_durable() {
    let mut stage = Stage::new();
    let submission =
        Submission { webhook_url: Some(Arc::from("https://example.com/")), ..Submission::of(Json::empty()) };
    let request = SubmitRequest {
        blueprint: Arc::from("fails"),
        submission,
        idempotency_key: None,
        delay: None,
        wait: Duration::ZERO,
    };
    let (mut answer, _) = stage.conductor.submit(&acme(), request, false).unwrap();
    stage.settle();
    let Answered::Yes(Ok(accepted)) = answer.look() else { panic!("not accepted") };
    let notice = stage.store.notices(accepted.job_id).unwrap().remove(0);

    // Two want it again, and neither is durable: the chore gets nothing, and the message changes once.
    let mut first = stage.conductor.redeliver(&acme(), accepted.job_id, Some(notice.id));
    stage.conductor.take_in().unwrap();
    let mut second = stage.conductor.redeliver(&acme(), accepted.job_id, Some(notice.id));
    let mut due = stage.conductor.take_notices();
    stage.conductor.take_in().unwrap();
    let Answered::Yes(due) = due.look() else { panic!("no answer") };
    assert_eq!(due.ids, []);
    // There is no room: it is due as it was before.
    stage.fill();
    assert!(matches!(first.look(), Answered::Yes(Err(_))) && matches!(second.look(), Answered::Yes(Err(_))));
    stage.pass(Duration::from_secs(2));
    let mut first = stage.conductor.redeliver(&acme(), accepted.job_id, Some(notice.id));
    stage.settle();
    assert!(matches!(first.look(), Answered::Yes(Ok(_))));
    let again = stage.store.notices(accepted.job_id).unwrap().remove(0);
    assert_eq!(again.revision, notice.revision + 1);
    let mut due = stage.conductor.take_notices();
    stage.settle();
    let Answered::Yes(due) = due.look() else { panic!("no answer") };
    assert_eq!(due.ids, [notice.id]);
}
