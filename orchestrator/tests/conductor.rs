//! The conductor with a real mailbox, real threads and stores that can be held up or filled: what leaves, and when.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use avtomatika_orchestrator::{
    blueprint::{Registry, load},
    conductor::{self, Conductor, FromWorker, OpenStream, Running, Settings, SubmitRequest, WorkerResult},
    dispatch::{Assignment, Outbox, ToWorker, Verdict},
    engine::{HistoryEntry, Job, JobError, JobStatus, Submission},
    json::Json,
    metrics::Metrics,
    store::{
        Batch, BlueprintRecord, EachLoaded, ListPage, ListQuery, SessionRecord, Store, StoreError, Stub,
        WorkerRecord, memory::MemoryStore,
    },
    time::{Clock, SystemClock, Timestamp},
};
use avtomatika_proto::{ErrorCode, JobId, SessionId, TaskId};
use tokio::sync::mpsc;

const CREDENTIAL: [u8; 32] = [1; 32];

// ---- Stores that misbehave on demand ----

/// A memory store whose commits can be held up, refused for lack of room, or failed for good.
struct Faulty {
    inner: Arc<MemoryStore>,
    full: AtomicBool,
    broken: AtomicBool,
    panics: AtomicBool,
    refused: AtomicU32,
    gate: Mutex<bool>,
    opened: Condvar,
}

impl Faulty {
    fn over(inner: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            full: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            refused: AtomicU32::new(0),
            gate: Mutex::new(true),
            opened: Condvar::new(),
        })
    }

    fn new() -> Arc<Self> {
        Self::over(Arc::new(MemoryStore::default()))
    }

    fn close_gate(&self) {
        *self.gate.lock().unwrap() = false;
    }

    fn open_gate(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Store for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        drop(self.opened.wait_while(self.gate.lock().unwrap(), |open| !*open).unwrap());
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::Failed { reason: "fsync: input/output error".into() });
        }
        assert!(!self.panics.load(Ordering::SeqCst), "a store with a fault of its own");
        if self.full.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Full { path: "/data".into() });
        }
        self.inner.commit(batch)
    }

    fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.inner.load(id)
    }

    fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError> {
        self.inner.load_many(ids, each)
    }

    fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError> {
        self.inner.open_jobs(each)
    }

    fn last_job_key(&self) -> Result<Option<i64>, StoreError> {
        self.inner.last_job_key()
    }

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.inner.list(query)
    }

    fn history(&self, id: JobId, from: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.inner.history(id, from, limit)
    }

    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        self.inner.find_idempotent(client, key)
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.inner.sessions()
    }

    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        self.inner.blueprints()
    }
}

// ---- An orchestrator and its workers ----

fn start(store: Arc<dyn Store>) -> Running {
    start_at(store, Arc::new(SystemClock::new()))
}

/// A clock that stands still until the test moves it.
#[derive(Clone)]
struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_700_000_000_000_000)))
    }

    fn advance(&self, span: Duration) {
        self.0.fetch_add(span.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

fn start_at(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Running {
    let definition = "blueprint: story\nstates:\n  init:\n    start: true\n    task: { type: work }\n    on: { success: done }\n  done: { end: finished }\n";
    let loaded = load("story.yaml", definition).expect("a sound blueprint");
    let mut registry = Registry::default();
    registry.add(Arc::new(loaded.definition.into_blueprint(1)), true);
    let settings = Settings {
        max_open_jobs: 100,
        max_workers: 3,
        adoption_window: Duration::from_secs(3600),
        // Two orchestrators over one store must not make the same ids.
        entropy_seed: Settings::fresh_seed().unwrap(),
    };
    conductor::start(store, clock, Arc::new(registry), settings, Arc::new(Metrics::new()))
        .expect("the conductor starts")
}

struct Worker {
    session_id: SessionId,
    stream: OpenStream,
    messages: mpsc::Receiver<ToWorker>,
}

impl Worker {
    async fn join(conductor: &Conductor, name: &str, slots: u32) -> Worker {
        let registered = conductor.sessions().register(record(name), CREDENTIAL).await.expect("registration");
        Self::open(conductor, registered.session_id, vec![], slots).await
    }

    async fn open(conductor: &Conductor, session_id: SessionId, held: Vec<TaskId>, slots: u32) -> Worker {
        let (outbox, messages) = Outbox::new();
        let stream = conductor.sessions().open(session_id, CREDENTIAL, held, outbox).await.expect("a stream");
        stream.tell(FromWorker::Credits(slots)).await;
        Worker { session_id, stream, messages }
    }

    async fn next(&mut self) -> ToWorker {
        self.messages.recv().await.expect("the stream is open")
    }

    async fn welcome(&mut self) -> (Vec<TaskId>, Vec<TaskId>) {
        match self.next().await {
            ToWorker::Welcome { adopted, dropped } => (adopted, dropped),
            other => panic!("expected a welcome, got {other:?}"),
        }
    }

    async fn task(&mut self) -> Assignment {
        loop {
            match self.next().await {
                ToWorker::Task(assignment) => return assignment,
                ToWorker::Welcome { .. } | ToWorker::Ack { .. } => {}
                other => panic!("expected a task, got {other:?}"),
            }
        }
    }

    async fn report(&mut self, task: &Assignment) {
        let result = WorkerResult {
            task_id: task.offer.task_id,
            job_id: Some(task.offer.job_id),
            outcome: Arc::from("success"),
            data: Json::object(r#"{"answer":42}"#).unwrap(),
            error: None,
        };
        self.stream.tell(FromWorker::Results(vec![result])).await;
    }

    async fn verdict(&mut self) -> Verdict {
        loop {
            match self.next().await {
                ToWorker::Ack { verdict, .. } => return verdict,
                ToWorker::Welcome { .. } | ToWorker::Task(_) => {}
                other => panic!("expected an answer, got {other:?}"),
            }
        }
    }
}

fn record(name: &str) -> WorkerRecord {
    WorkerRecord {
        worker_id: Arc::from(name),
        worker_type: Arc::from("test"),
        task_types: vec![Arc::from("work")],
        slots: 5,
        labels: BTreeMap::new(),
        resources: BTreeMap::new(),
        hostname: Arc::from(""),
        sdk_version: Arc::from(""),
    }
}

fn acme() -> Arc<str> {
    Arc::from("acme")
}

fn request() -> SubmitRequest {
    SubmitRequest {
        blueprint: Arc::from("story"),
        submission: Submission {
            initial_data: Json::empty(),
            labels: BTreeMap::new(),
            priority: 0,
            dispatch_timeout: None,
            result_timeout: None,
        },
        idempotency_key: None,
        wait: Duration::ZERO,
    }
}

async fn submit(conductor: &Conductor) -> JobId {
    conductor.submit(&acme(), request()).await.expect("accepted").job_id
}

async fn end_of(conductor: &Conductor, job_id: JobId) -> JobStatus {
    let mut watch = conductor.watch(&acme(), job_id).await.expect("a watch");
    let mut status = JobStatus::Pending;
    while let Some(update) = watch.next().await {
        status = update.expect("an update").status();
    }
    status
}

// ---- What leaves, and when ----

#[tokio::test]
async fn a_job_goes_to_a_worker_and_back() {
    let conductor = start(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let task = worker.task().await;
    assert_eq!(task.offer.job_id, job_id);
    let view = conductor.get(&acme(), job_id).await.unwrap();
    assert_eq!(view.status(), JobStatus::Running);
    assert_eq!(&*view.lease.unwrap().worker_id, "w1");
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    let view = conductor.get(&acme(), job_id).await.unwrap();
    assert_eq!((view.status(), view.job.state_history.as_str()), (JobStatus::Finished, r#"{"answer":42}"#));
}

#[tokio::test]
async fn nothing_leaves_before_it_is_committed() {
    let store = Faulty::new();
    let conductor = start(store.clone()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    worker.welcome().await;
    store.close_gate();
    let submitting = tokio::spawn({
        let conductor = conductor.clone();
        async move { submit(&conductor).await }
    });
    // The stats are answered after the submission was decided, since one thread does both.
    while !conductor.stats().await.unwrap().jobs.contains_key(&JobStatus::WaitingForWorker) {
        tokio::task::yield_now().await;
    }
    assert!(!submitting.is_finished(), "no answer before the commit");
    assert!(worker.messages.try_recv().is_err(), "no task before the commit");
    store.open_gate();
    let job_id = submitting.await.unwrap();
    assert_eq!(worker.task().await.offer.job_id, job_id);
}

#[tokio::test]
async fn a_second_copy_of_a_result_is_refused_by_name() {
    let conductor = start(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let task = worker.task().await;
    worker.report(&task).await;
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    assert_eq!(worker.verdict().await, Verdict::Refused("duplicate"));
    assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
}

#[tokio::test]
async fn only_the_session_that_holds_a_task_may_report_it() {
    let conductor = start(Faulty::new()).conductor;
    let mut holder = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let task = holder.task().await;
    let mut thief = Worker::join(&conductor, "w2", 1).await;
    thief.report(&task).await;
    assert_eq!(thief.verdict().await, Verdict::Refused("foreign_session"));
    holder.report(&task).await;
    assert_eq!(holder.verdict().await, Verdict::Applied);
    assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
}

#[tokio::test]
async fn a_closed_stream_frees_its_tasks_and_its_late_result_is_stale() {
    let conductor = start(Faulty::new()).conductor;
    let mut lost = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let first = lost.task().await;
    let mut other = Worker::join(&conductor, "w2", 1).await;
    lost.stream.tell(FromWorker::Ended).await;
    let second = other.task().await;
    assert_eq!(second.offer.job_id, job_id);
    assert_ne!(second.offer.task_id, first.offer.task_id);
    assert_eq!(second.offer.attempt, 1, "a lost worker uses up no retry");
    let mut back = Worker::join(&conductor, "w1", 1).await;
    back.report(&first).await;
    assert_eq!(back.verdict().await, Verdict::Refused("stale_task"));
    other.report(&second).await;
    assert_eq!(other.verdict().await, Verdict::Applied);
}

#[tokio::test]
async fn a_registration_replaces_the_session_of_the_same_worker_and_only_with_the_same_token() {
    let conductor = start(Faulty::new()).conductor;
    let mut first = Worker::join(&conductor, "w1", 1).await;
    first.welcome().await;
    let stranger = conductor.sessions().register(record("w1"), [2; 32]).await.unwrap_err();
    assert_eq!(stranger.code, ErrorCode::InvalidToken);
    let _second = Worker::join(&conductor, "w1", 1).await;
    assert!(matches!(first.next().await, ToWorker::Goodbye(_)));
    assert_eq!(conductor.workers().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_is_opened_only_with_its_own_token() {
    let conductor = start(Faulty::new()).conductor;
    let session_id = conductor.sessions().register(record("w1"), CREDENTIAL).await.unwrap().session_id;
    let (outbox, _messages) = Outbox::new();
    let refused = conductor.sessions().open(session_id, [2; 32], vec![], outbox).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::SessionUnknown);
}

#[tokio::test]
async fn limits_are_answered_by_name() {
    let conductor = start(Faulty::new()).conductor;
    for _ in 0..100 {
        submit(&conductor).await;
    }
    let refused = conductor.submit(&acme(), request()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooManyOpenJobs);
    for name in ["w1", "w2", "w3"] {
        conductor.sessions().register(record(name), CREDENTIAL).await.unwrap();
    }
    let refused = conductor.sessions().register(record("w4"), CREDENTIAL).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooManyWorkers);
}

#[tokio::test]
async fn the_same_request_under_the_same_key_makes_one_job() {
    let conductor = start(Faulty::new()).conductor;
    let keyed = || SubmitRequest { idempotency_key: Some(Arc::from("order-7")), ..request() };
    let (client, other) = (acme(), Arc::from("globex"));
    let (first, again) = tokio::join!(conductor.submit(&client, keyed()), conductor.submit(&client, keyed()));
    let (first, again) = (first.unwrap(), again.unwrap());
    assert_eq!(first.job_id, again.job_id);
    assert!(first.deduplicated != again.deduplicated);
    let mut different = keyed();
    different.submission.priority = 1;
    let refused = conductor.submit(&client, different).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::IdempotencyConflict);
    assert_ne!(conductor.submit(&other, keyed()).await.unwrap().job_id, first.job_id);
}

// ---- Restarts ----

#[tokio::test]
async fn a_restarted_orchestrator_adopts_what_its_workers_still_hold() {
    let store = Arc::new(MemoryStore::default());
    let before = start(Faulty::over(store.clone())).conductor;
    let mut worker = Worker::join(&before, "w1", 1).await;
    let held = submit(&before).await;
    let task = worker.task().await;
    let waiting = submit(&before).await;

    // The first conductor is simply forgotten, as a crash would.
    let after = start(Faulty::over(store)).conductor;
    let mut bystander = Worker::join(&after, "w2", 1).await;
    bystander.welcome().await;
    let invented = TaskId::from_random(7);
    let mut worker = Worker::open(&after, worker.session_id, vec![task.offer.task_id, invented], 1).await;
    assert_eq!(worker.welcome().await, (vec![task.offer.task_id], vec![invented]));
    // Only now are tasks handed out, and only the one that nobody holds.
    assert_eq!(bystander.task().await.offer.job_id, waiting);
    assert!(bystander.messages.try_recv().is_err());
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    assert_eq!(end_of(&after, held).await, JobStatus::Finished);
}

#[tokio::test]
async fn draining_keeps_the_tasks_with_their_workers() {
    let store = Arc::new(MemoryStore::default());
    let Running { conductor, stopped, .. } = start(Faulty::over(store.clone()));
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    submit(&conductor).await;
    let task = worker.task().await;
    conductor.drain().await;
    assert!(matches!(worker.next().await, ToWorker::Draining));
    assert!(matches!(worker.next().await, ToWorker::Goodbye(_)));
    assert_eq!(stopped.await.unwrap(), Ok(()));
    let refused = conductor.submit(&acme(), request()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ShuttingDown);

    let after = start(Faulty::over(store)).conductor;
    let mut worker = Worker::open(&after, worker.session_id, vec![task.offer.task_id], 1).await;
    assert_eq!(worker.welcome().await, (vec![task.offer.task_id], vec![]));
}

// ---- A disk that fills, a disk that fails ----

#[tokio::test]
async fn a_full_disk_refuses_by_name_forgets_nothing_and_recovers_by_itself() {
    let store = Faulty::new();
    let Running { conductor, mut storage_full, .. } = start(store.clone());
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let task = worker.task().await;

    store.full.store(true, Ordering::SeqCst);
    let refused = conductor.submit(&acme(), request()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageFull);
    assert!(storage_full.borrow_and_update().to_owned(), "it is said that the disk is full");
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::RetryLater);
    let view = conductor.get(&acme(), job_id).await.expect("reads go on");
    assert_eq!(view.status(), JobStatus::Running, "the job is what it was");

    store.full.store(false, Ordering::SeqCst);
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
    submit(&conductor).await;
    storage_full.wait_for(|full| !full).await.expect("it is said that there is room again");
}

#[tokio::test]
async fn a_worker_lost_while_the_disk_is_full_is_remembered() {
    let store = Faulty::new();
    let conductor = start(store.clone()).conductor;
    let mut lost = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    lost.task().await;
    let mut other = Worker::join(&conductor, "w2", 1).await;
    store.full.store(true, Ordering::SeqCst);
    lost.stream.tell(FromWorker::Ended).await;
    let refused = conductor.submit(&acme(), request()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageFull);
    store.full.store(false, Ordering::SeqCst);
    assert_eq!(other.task().await.offer.job_id, job_id);
}

#[tokio::test]
async fn a_failed_commit_stops_the_conductor_and_nothing_is_acknowledged() {
    let store = Faulty::new();
    let Running { conductor, stopped, .. } = start(store.clone());
    store.broken.store(true, Ordering::SeqCst);
    let refused = conductor.submit(&acme(), request()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ShuttingDown);
    assert!(matches!(stopped.await.unwrap(), Err(StoreError::Failed { .. })));
}

#[tokio::test]
async fn a_commit_that_panics_stops_the_conductor_too() {
    let store = Faulty::new();
    let Running { conductor, stopped, .. } = start(store.clone());
    store.panics.store(true, Ordering::SeqCst);
    let refused = conductor.submit(&acme(), request()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ShuttingDown);
    assert!(matches!(stopped.await.unwrap(), Err(StoreError::Failed { .. })));
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_and_whose_worker_then_leaves_is_not_forgotten() {
    let store = Faulty::new();
    let conductor = start(store.clone()).conductor;
    let mut first = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let task = first.task().await;
    let mut other = Worker::join(&conductor, "w2", 1).await;
    other.welcome().await;
    // The result is decided, the stream ends, and only then does the commit find the disk full.
    store.close_gate();
    store.full.store(true, Ordering::SeqCst);
    first.report(&task).await;
    first.stream.tell(FromWorker::Ended).await;
    conductor.stats().await.unwrap();
    store.open_gate();
    assert_eq!(conductor.submit(&acme(), request()).await.unwrap_err().code, ErrorCode::StorageFull);
    store.full.store(false, Ordering::SeqCst);
    assert_eq!(other.task().await.offer.job_id, job_id);
}

#[tokio::test]
async fn a_full_disk_is_not_asked_again_and_again_because_of_a_timer() {
    let (store, clock) = (Faulty::new(), ManualClock::new());
    let conductor = start_at(store.clone(), Arc::new(clock.clone())).conductor;
    let mut timed = request();
    timed.submission.result_timeout = Some(Duration::from_secs(1));
    let job_id = conductor.submit(&acme(), timed).await.unwrap().job_id;
    store.full.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(2));
    while store.refused.load(Ordering::SeqCst) == 0 {
        conductor.stats().await.unwrap();
    }
    for _ in 0..500 {
        conductor.stats().await.unwrap();
    }
    assert_eq!(store.refused.load(Ordering::SeqCst), 1, "the clock stands still, and so do tries");
    store.full.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(1));
    assert_eq!(end_of(&conductor, job_id).await, JobStatus::Failed);
}

#[tokio::test]
async fn a_registration_that_cannot_be_stored_leaves_the_session_before_it_alone() {
    let store = Faulty::new();
    let conductor = start(store.clone()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    submit(&conductor).await;
    let task = worker.task().await;
    store.full.store(true, Ordering::SeqCst);
    let refused = conductor.sessions().register(record("w1"), CREDENTIAL).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageFull);
    store.full.store(false, Ordering::SeqCst);
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    assert_eq!(store.sessions().unwrap().len(), 1);
}

// ---- Streams that are not what they seem ----

#[tokio::test]
async fn a_session_whose_stream_was_never_taken_does_not_stay() {
    let clock = ManualClock::new();
    let conductor = start_at(Faulty::new(), Arc::new(clock.clone())).conductor;
    let session_id = conductor.sessions().register(record("w1"), CREDENTIAL).await.unwrap().session_id;
    let (outbox, messages) = Outbox::new();
    // Nobody reads the stream and nobody will say that it has ended.
    let stream = conductor.sessions().open(session_id, CREDENTIAL, vec![], outbox).await.unwrap();
    std::mem::forget(stream);
    drop(messages);
    clock.advance(Duration::from_secs(2));
    while !conductor.workers().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stream_that_takes_over_a_session_begins_without_credits() {
    let conductor = start(Faulty::new()).conductor;
    let first = Worker::join(&conductor, "w1", 5).await;
    conductor.stats().await.unwrap();
    let (outbox, mut messages) = Outbox::new();
    let second = conductor.sessions().open(first.session_id, CREDENTIAL, vec![], outbox).await.unwrap();
    submit(&conductor).await;
    conductor.stats().await.unwrap();
    assert!(matches!(messages.recv().await, Some(ToWorker::Welcome { .. })));
    assert!(messages.try_recv().is_err(), "nothing is sent against the old stream's credits");
    second.tell(FromWorker::Credits(1)).await;
    assert!(matches!(messages.recv().await, Some(ToWorker::Task(_))));
}

#[tokio::test]
async fn a_task_that_runs_through_a_restart_is_not_late_for_dispatch() {
    let (store, clock) = (Arc::new(MemoryStore::default()), ManualClock::new());
    let before = start_at(Faulty::over(store.clone()), Arc::new(clock.clone())).conductor;
    let mut worker = Worker::join(&before, "w1", 1).await;
    let mut timed = request();
    timed.submission.dispatch_timeout = Some(Duration::from_secs(1));
    let job_id = before.submit(&acme(), timed).await.unwrap().job_id;
    let task = worker.task().await;
    clock.advance(Duration::from_secs(10));

    let after = start_at(Faulty::over(store), Arc::new(clock.clone())).conductor;
    after.stats().await.unwrap();
    let held = vec![task.offer.task_id];
    let mut worker = Worker::open(&after, worker.session_id, held.clone(), 1).await;
    assert_eq!(worker.welcome().await, (held, vec![]));
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    assert_eq!(end_of(&after, job_id).await, JobStatus::Finished);
}

#[tokio::test]
async fn a_stopping_worker_gives_its_task_back_and_nothing_is_counted_against_it() {
    let conductor = start(Faulty::new()).conductor;
    let mut leaving = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let task = leaving.task().await;
    let mut other = Worker::join(&conductor, "w2", 1).await;
    leaving.stream.tell(FromWorker::Drain).await;
    let given_back = WorkerResult {
        task_id: task.offer.task_id,
        job_id: Some(job_id),
        outcome: Arc::from("failure"),
        data: Json::empty(),
        error: Some(JobError { code: Arc::from("WORKER_STOPPED"), message: Arc::from("stopping") }),
    };
    leaving.stream.tell(FromWorker::Results(vec![given_back])).await;
    assert_eq!(leaving.verdict().await, Verdict::Applied);
    let again = other.task().await;
    assert_eq!((again.offer.job_id, again.offer.attempt), (job_id, 1));
    let job = conductor.get(&acme(), job_id).await.unwrap().job;
    assert_eq!((job.retry_count, job.workers_lost), (0, 0));
}
