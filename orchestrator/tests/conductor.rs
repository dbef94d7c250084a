//! The conductor with a real mailbox, real threads and stores that can be held up or filled: what leaves, and when.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use avtomatika_orchestrator::{
    blueprint::{Definition, Registry, load},
    conductor::{
        self, Conductor, FromWorker, Limits, MigrationRequest, OpenStream, Running, Settings, SubmitRequest,
        WorkerResult, WorkerStatus,
    },
    dispatch::{Assignment, Outbox, STOPPED_WITHIN, ToWorker, Verdict},
    engine::{HistoryEntry, Job, JobError, JobStatus, Submission},
    json::Json,
    metrics::Metrics,
    store::{
        Batch, BlueprintRecord, BucketRecord, EachLoaded, ListPage, ListQuery, NoticeRecord, PruneQuery,
        PruneSlice, ScheduleRecord, SessionRecord, Standing, Store, StoreError, Stub, UsageRecord,
        WorkerRecord, memory::MemoryStore,
    },
    time::{Clock, SystemClock, Timestamp},
    trust::{Tenants, Terms},
};
use avtomatika_proto::{ErrorCode, JobId, SessionId, TaskId, limits::START_AHEAD_MAX};
use tokio::{sync::mpsc, task::JoinHandle};

#[path = "conductor/families.rs"]
mod families;
#[path = "conductor/functions.rs"]
mod functions;
#[path = "conductor/keys.rs"]
mod keys;
#[path = "conductor/placement.rs"]
mod placement;

const CREDENTIAL: [u8; 32] = [1; 32];

/// Jobs that may be open at once: more than are read in one go.
const JOBS_MAX: usize = 2000;

/// These tests run a second time, from `conductor_paging.rs`, without any room for jobs that wait.
const RESIDENT_BYTES: usize = if in_memory() { conductor::DEFAULT_RESIDENT_BYTES } else { 0 };

const fn in_memory() -> bool {
    // The name of this file's module begins with that of the program that it is a part of.
    module_path!().len() == "conductor".len()
}

// ---- Stores that misbehave on demand ----

/// A memory store whose commits can be held up, refused for lack of room, or failed for good.
struct Faulty {
    inner: Arc<MemoryStore>,
    full: AtomicBool,
    /// Commits that there is room for, if room is short.
    room: Mutex<Option<u32>>,
    broken: AtomicBool,
    panics: AtomicBool,
    refused: AtomicU32,
    gate: Mutex<bool>,
    opened: Condvar,
    /// Whether many jobs may be read at once; else the reader waits.
    reading: Mutex<bool>,
    readable: Condvar,
    /// What the next reads of many jobs answer.
    unreadable: Mutex<Option<StoreError>>,
    /// A job that cannot be read.
    damaged: Mutex<Option<JobId>>,
    /// A job that is forgotten when its history is read.
    going: Mutex<Option<JobId>>,
    /// How a job was, for the next who reads it.
    stale: Mutex<Option<Job>>,
    gone: Mutex<Option<JobId>>,
}

impl Faulty {
    fn over(inner: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            full: AtomicBool::new(false),
            room: Mutex::new(None),
            broken: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            refused: AtomicU32::new(0),
            gate: Mutex::new(true),
            opened: Condvar::new(),
            reading: Mutex::new(true),
            readable: Condvar::new(),
            unreadable: Mutex::new(None),
            damaged: Mutex::new(None),
            going: Mutex::new(None),
            stale: Mutex::new(None),
            gone: Mutex::new(None),
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

    /// Takes so many commits more, and then no other until there is room again.
    fn full_after(&self, commits: u32) {
        *self.room.lock().unwrap() = Some(commits);
    }

    fn make_room(&self) {
        *self.room.lock().unwrap() = None;
        self.full.store(false, Ordering::SeqCst);
    }

    fn let_read(&self, may_read: bool) {
        *self.reading.lock().unwrap() = may_read;
        self.readable.notify_all();
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
        match &mut *self.room.lock().unwrap() {
            Some(0) => self.full.store(true, Ordering::SeqCst),
            Some(commits) => *commits -= 1,
            None => {}
        }
        if self.full.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Full { path: "/data".into() });
        }
        self.inner.commit(batch)
    }

    fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        if *self.gone.lock().unwrap() == Some(id) {
            return Ok(None);
        }
        if let Some(stale) = self.stale.lock().unwrap().take_if(|stale| stale.id == id) {
            return Ok(Some(stale));
        }
        self.inner.load(id)
    }

    fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError> {
        drop(self.readable.wait_while(self.reading.lock().unwrap(), |may_read| !*may_read).unwrap());
        if let Some(error) = &*self.unreadable.lock().unwrap() {
            return Err(error.clone());
        }
        let damaged = *self.damaged.lock().unwrap();
        let sound = ids.iter().take_while(|id| Some(**id) != damaged).count();
        self.inner.load_many(&ids[..sound], each)?;
        match sound == ids.len() {
            true => Ok(()),
            false => Err(StoreError::Corrupt { path: "/data".into(), reason: "a flipped bit".into() }),
        }
    }

    fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError> {
        self.inner.open_jobs(each)
    }

    fn last_job_key(&self) -> Result<Option<i64>, StoreError> {
        self.inner.last_job_key()
    }

    fn last_key_between(&self, keys: std::ops::Range<i64>) -> Result<Option<i64>, StoreError> {
        self.inner.last_key_between(keys)
    }

    fn prunable(&self, query: &PruneQuery) -> Result<PruneSlice, StoreError> {
        self.inner.prunable(query)
    }

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.inner.list(query)
    }

    fn history(&self, id: JobId, from: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut going = self.going.lock().unwrap();
        if *going == Some(id) {
            *self.gone.lock().unwrap() = going.take();
            return Ok(Vec::new());
        }
        self.inner.history(id, from, limit)
    }

    fn standing(&self, id: JobId) -> Result<Option<Standing>, StoreError> {
        self.inner.standing(id)
    }

    fn journal_applied(&self) -> Result<u64, StoreError> {
        self.inner.journal_applied()
    }

    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        self.inner.find_idempotent(client, key)
    }

    fn notices(&self, id: JobId) -> Result<Vec<NoticeRecord>, StoreError> {
        let mut going = self.going.lock().unwrap();
        if *going == Some(id) {
            *self.gone.lock().unwrap() = going.take();
            return Ok(Vec::new());
        }
        self.inner.notices(id)
    }

    fn pending_notices(&self, each: &mut dyn FnMut(NoticeRecord)) -> Result<(), StoreError> {
        self.inner.pending_notices(each)
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.inner.sessions()
    }

    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        self.inner.blueprints()
    }

    fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        self.inner.schedules()
    }

    fn buckets(&self) -> Result<Vec<BucketRecord>, StoreError> {
        self.inner.buckets()
    }

    fn usage(&self) -> Result<Vec<UsageRecord>, StoreError> {
        self.inner.usage()
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

const STORY: &str = "
blueprint: story
states:
  init:
    start: true
    task: { type: work }
    on: { success: done }
  done: { end: finished }
";

fn start_at(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Running {
    start_with(store, clock, STORY, RESIDENT_BYTES)
}

fn start_with(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    definition: &str,
    resident_bytes_max: usize,
) -> Running {
    let loaded = load("story.yaml", definition).expect("a sound blueprint");
    let mut registry = Registry::default();
    registry.add(Arc::new(loaded.definition.into_blueprint(1)), true);
    let settings = Settings {
        limits: Limits { max_open_jobs: JOBS_MAX, max_workers: 3, resident_bytes_max },
        adoption_window: Duration::from_secs(3600),
        webhooks: None,
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
                ToWorker::Task(assignment) => return *assignment,
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
            checkpoint: None,
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
        ..WorkerRecord::default()
    }
}

fn acme() -> Arc<str> {
    Arc::from("acme")
}

fn request() -> SubmitRequest {
    SubmitRequest {
        blueprint: Arc::from("story"),
        submission: Submission::of(Json::empty()),
        idempotency_key: None,
        delay: None,
        wait: Duration::ZERO,
    }
}

async fn submit(conductor: &Conductor) -> JobId {
    conductor.submit(&acme(), request()).await.expect("accepted").job_id
}

fn begin_to_submit(conductor: &Conductor) -> JoinHandle<JobId> {
    let conductor = conductor.clone();
    tokio::spawn(async move { submit(&conductor).await })
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
    let submitting = begin_to_submit(&conductor);
    // The stats are answered after the submission was decided, since one conductor does both.
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
async fn a_disk_that_hangs_again_and_again_silences_nobody_and_loses_nothing() {
    let store = Faulty::new();
    let conductor = start(store.clone()).conductor;
    for jobs in 1..=8 {
        store.close_gate();
        let submitting = begin_to_submit(&conductor);
        // Answered while the commit hangs, each time by the other one of the conductor's threads.
        while conductor.stats().await.unwrap().jobs.get(&JobStatus::WaitingForWorker) != Some(&jobs) {
            tokio::task::yield_now().await;
        }
        assert!(!submitting.is_finished(), "no answer before the commit");
        store.open_gate();
        submitting.await.unwrap();
    }
    conductor.drain().await;
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
    for _ in 0..JOBS_MAX {
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
async fn what_is_forgotten_while_it_is_read_is_of_no_job() {
    let store = Faulty::new();
    let conductor = start(store.clone()).conductor;
    let job_id = submit(&conductor).await;
    assert_eq!(conductor.history(&acme(), job_id, 1_000, 10).await.unwrap().len(), 0, "beyond its end");
    assert_eq!(conductor.notices(&acme(), job_id).await.unwrap().len(), 0, "it owes nobody anything");
    *store.going.lock().unwrap() = Some(job_id);
    let error = conductor.history(&acme(), job_id, 0, 10).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::JobNotFound);
    *store.going.lock().unwrap() = store.gone.lock().unwrap().take();
    let error = conductor.notices(&acme(), job_id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::JobNotFound);
}

#[tokio::test]
async fn a_job_whose_task_ends_while_it_is_read_is_read_again() {
    let store = Faulty::new();
    let conductor = start(store.clone()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let task = worker.task().await;
    let running = store.load(job_id).unwrap();
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    *store.stale.lock().unwrap() = running;
    let view = conductor.get(&acme(), job_id).await.unwrap();
    assert_eq!(
        view.status(),
        JobStatus::Finished,
        "it was running before, and never waited for a worker again"
    );
}

#[tokio::test]
async fn registrations_that_become_durable_together_know_of_each_other() {
    const FOREIGN: [u8; 32] = [0xee; 32];
    let store = Faulty::new();
    let conductor = start(store.clone()).conductor;
    store.close_gate();
    let register = |name: &'static str, credential| {
        let conductor = conductor.clone();
        async move { conductor.sessions().register(record(name), credential).await }
    };
    let first = tokio::spawn(register("w1", CREDENTIAL));
    // Whoever was spawned has asked when this goes on, and the stats are answered after that was decided, since one conductor does both.
    let decided = async || {
        tokio::task::yield_now().await;
        drop(conductor.stats().await.unwrap());
    };
    decided().await;
    let taken = register("w1", FOREIGN).await.unwrap_err();
    assert_eq!(taken.code, ErrorCode::InvalidToken);
    let others = ["w2", "w3"].map(|name| tokio::spawn(register(name, CREDENTIAL)));
    decided().await;
    let one_too_many = register("w4", CREDENTIAL).await.unwrap_err();
    assert_eq!(one_too_many.code, ErrorCode::TooManyWorkers);
    store.open_gate();
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_worker_that_had_answered_before_it_was_told_to_stop_is_not_reproached() {
    let (store, clock) = (Faulty::new(), ManualClock::new());
    let conductor = start_at(store.clone(), Arc::new(clock.clone())).conductor;
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let job_id = submit(&conductor).await;
    let task = worker.task().await;
    store.close_gate();
    let cancelling = tokio::spawn({
        let conductor = conductor.clone();
        async move { conductor.cancel(&acme(), job_id, None).await }
    });
    tokio::task::yield_now().await;
    // The stats are answered after what came before them was decided, since one conductor does both.
    conductor.stats().await.unwrap();
    worker.report(&task).await;
    conductor.stats().await.unwrap();
    assert!(!cancelling.is_finished());
    store.open_gate();
    cancelling.await.unwrap().unwrap();
    loop {
        if let ToWorker::Ack { verdict, .. } = worker.next().await {
            assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
            break;
        }
    }
    clock.advance(STOPPED_WITHIN);
    // What is due is looked at with every request.
    conductor.stats().await.unwrap();
    conductor.stats().await.unwrap();
    assert_eq!(conductor.workers().await.unwrap()[0].unstopped_tasks, 0);
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
        checkpoint: None,
    };
    leaving.stream.tell(FromWorker::Results(vec![given_back])).await;
    assert_eq!(leaving.verdict().await, Verdict::Applied);
    let again = other.task().await;
    assert_eq!((again.offer.job_id, again.offer.attempt), (job_id, 1));
    let job = conductor.get(&acme(), job_id).await.unwrap().job;
    assert_eq!((job.retry_count, job.workers_lost), (0, 0));
}

// ---- What waits, in memory or in the store ----

/// A start in which every job that waits does so in the store.
fn start_without_memory(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Running {
    start_with(store, clock, STORY, 0)
}

#[tokio::test]
async fn a_job_that_waits_can_be_watched_and_cancelled() {
    let conductor = start(Faulty::new()).conductor;
    let (job_id, other) = (submit(&conductor).await, submit(&conductor).await);
    let mut watch = conductor.watch(&acme(), job_id).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), JobStatus::WaitingForWorker);
    assert_eq!(
        conductor.watch(&Arc::from("globex"), job_id).await.err().unwrap().code,
        ErrorCode::JobNotFound
    );
    conductor.cancel(&acme(), job_id, None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), JobStatus::Cancelled);
    let again = conductor.cancel(&acme(), job_id, None).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::JobTerminal);
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    assert_eq!(worker.task().await.offer.job_id, other);
    let stats = conductor.stats().await.unwrap();
    assert_eq!(stats.jobs, BTreeMap::from([(JobStatus::Running, 1), (JobStatus::Cancelled, 1)]));
}

#[tokio::test]
async fn a_watch_shows_a_waiting_job_on_its_way_to_a_worker() {
    let conductor = start(Faulty::new()).conductor;
    let job_id = submit(&conductor).await;
    let mut watch = conductor.watch(&acme(), job_id).await.unwrap();
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let task = worker.task().await;
    worker.report(&task).await;
    let mut seen = Vec::new();
    while let Some(update) = watch.next().await {
        seen.push(update.unwrap().status());
    }
    assert_eq!(seen, [JobStatus::WaitingForWorker, JobStatus::Running, JobStatus::Finished]);
}

#[tokio::test]
async fn a_failed_attempt_is_tried_again_when_its_time_has_come() {
    let clock = ManualClock::new();
    let conductor = start_at(Faulty::new(), Arc::new(clock.clone())).conductor;
    let job_id = submit(&conductor).await;
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let task = worker.task().await;
    let failed = WorkerResult {
        task_id: task.offer.task_id,
        job_id: Some(job_id),
        outcome: Arc::from("failure"),
        data: Json::empty(),
        error: None,
        checkpoint: None,
    };
    worker.stream.tell(FromWorker::Results(vec![failed])).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    let stats = conductor.stats().await.unwrap();
    assert_eq!(stats.jobs, BTreeMap::from([(JobStatus::WaitingForTimer, 1)]));
    clock.advance(Duration::from_secs(3600));
    let second = worker.task().await;
    assert_eq!((second.offer.job_id, second.offer.attempt), (job_id, 2));
    worker.report(&second).await;
    assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
}

#[tokio::test]
async fn what_could_not_be_stored_leaves_a_waiting_job_as_it_was() {
    let (store, clock) = (Faulty::new(), ManualClock::new());
    let conductor = start_at(store.clone(), Arc::new(clock.clone())).conductor;
    let mut timed = request();
    timed.submission.dispatch_timeout = Some(Duration::from_secs(60));
    let timed = conductor.submit(&acme(), timed).await.unwrap().job_id;
    let waiting = submit(&conductor).await;
    let before = conductor.stats().await.unwrap();
    store.full.store(true, Ordering::SeqCst);
    for job_id in [timed, waiting] {
        let refused = conductor.cancel(&acme(), job_id, None).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::StorageFull);
    }
    store.full.store(false, Ordering::SeqCst);
    let after = conductor.stats().await.unwrap();
    assert_eq!((after.jobs, after.ready_tasks), (before.jobs, before.ready_tasks));
    // Its timer is armed still, and the other waits for its worker still.
    clock.advance(Duration::from_secs(61));
    assert_eq!(end_of(&conductor, timed).await, JobStatus::Failed);
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    assert_eq!(worker.task().await.offer.job_id, waiting);
}

#[tokio::test]
async fn tasks_keep_their_order_wherever_their_jobs_wait() {
    // From no room at all to room for every job.
    for jobs_in_memory in 0..=8 {
        let bytes = jobs_in_memory * 1100;
        let clock = Arc::new(ManualClock::new());
        let conductor = start_with(Faulty::new(), clock.clone(), STORY, bytes).conductor;
        let mut expected = Vec::new();
        for priority in [0, 5, -5, 0, 9, 5, 0, -5] {
            clock.advance(Duration::from_millis(1));
            let mut request = request();
            request.submission.priority = priority;
            expected.push((-priority, conductor.submit(&acme(), request).await.unwrap().job_id));
        }
        expected.sort_by_key(|(rank, job_id)| (*rank, job_id.key()));
        let mut worker = Worker::join(&conductor, "w1", 1).await;
        for (_, job_id) in expected {
            let task = worker.task().await;
            assert_eq!(task.offer.job_id, job_id, "with room for {jobs_in_memory}");
            worker.report(&task).await;
        }
    }
}

#[tokio::test]
async fn a_queue_much_longer_than_memory_is_done_in_order() {
    const JOBS: usize = 1500;
    let definition = STORY.replace("type: work", "type: work, params: { n: \"${initial_data.n}\" }");
    let clock = Arc::new(SystemClock::new());
    let conductor = start_with(Faulty::new(), clock, &definition, 64 * 1024).conductor;
    for n in 0..JOBS {
        let mut request = request();
        request.submission.initial_data = Json::object(&format!("{{\"n\":{n}}}")).unwrap();
        conductor.submit(&acme(), request).await.unwrap();
    }
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    for n in 0..JOBS {
        let task = worker.task().await;
        assert_eq!(&*task.offer.params, format!("{{\"n\":{n}}}"));
        worker.report(&task).await;
    }
}

#[tokio::test]
async fn every_waiting_task_that_a_worker_still_holds_is_adopted_after_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let before = start(Faulty::over(store.clone())).conductor;
    let mut worker = Worker::join(&before, "w1", 5).await;
    let (mut held, mut jobs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        jobs.push(submit(&before).await);
        held.push(worker.task().await);
    }
    let waiting = submit(&before).await;
    let after = start(Faulty::over(store)).conductor;
    let task_ids: Vec<TaskId> = held.iter().map(|task| task.offer.task_id).collect();
    let mut worker = Worker::open(&after, worker.session_id, task_ids.clone(), 5).await;
    assert_eq!(worker.welcome().await, (task_ids, vec![]));
    for task in &held {
        worker.report(task).await;
    }
    assert_eq!(worker.task().await.offer.job_id, waiting);
    for job_id in jobs {
        assert_eq!(end_of(&after, job_id).await, JobStatus::Finished);
    }
}

#[tokio::test]
async fn a_worker_that_cannot_be_asked_what_it_holds_is_asked_again() {
    let store = Arc::new(MemoryStore::default());
    let before = start(Faulty::over(store.clone())).conductor;
    let mut worker = Worker::join(&before, "w1", 5).await;
    submit(&before).await;
    let held = vec![worker.task().await.offer.task_id];
    let store = Faulty::over(store);
    *store.unreadable.lock().unwrap() = Some(StoreError::Failed { reason: "input/output error".into() });
    let after = start(store.clone()).conductor;
    let (outbox, _messages) = Outbox::new();
    let opened = after.sessions().open(worker.session_id, CREDENTIAL, held.clone(), outbox).await;
    assert_eq!(opened.err().unwrap().code, ErrorCode::StorageFailed);
    *store.unreadable.lock().unwrap() = None;
    let mut worker = Worker::open(&after, worker.session_id, held.clone(), 5).await;
    assert_eq!(worker.welcome().await, (held, vec![]));
}

#[tokio::test]
async fn a_job_that_changes_while_it_is_read_is_not_handed_out() {
    let store = Faulty::new();
    let conductor = start_without_memory(store.clone(), Arc::new(SystemClock::new())).conductor;
    let (changed, other) = (submit(&conductor).await, submit(&conductor).await);
    store.let_read(false);
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    // Both have been asked for by then.
    conductor.stats().await.unwrap();
    conductor.cancel(&acme(), changed, None).await.unwrap();
    store.let_read(true);
    assert_eq!(worker.task().await.offer.job_id, other);
    conductor.stats().await.unwrap();
    assert!(worker.messages.try_recv().is_err());
    assert_eq!(conductor.get(&acme(), changed).await.unwrap().status(), JobStatus::Cancelled);
}

#[tokio::test]
async fn a_change_that_is_undone_while_its_job_is_read_holds_nothing_up() {
    let store = Faulty::new();
    let conductor = start_without_memory(store.clone(), Arc::new(SystemClock::new())).conductor;
    let job_id = submit(&conductor).await;
    store.let_read(false);
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    worker.welcome().await;
    conductor.stats().await.unwrap();
    // The job is cancelled, the old one is read, and only then does the commit find the disk full.
    store.close_gate();
    store.full.store(true, Ordering::SeqCst);
    let cancelling = tokio::spawn({
        let conductor = conductor.clone();
        async move { conductor.cancel(&acme(), job_id, None).await }
    });
    while conductor.stats().await.unwrap().jobs.contains_key(&JobStatus::WaitingForWorker) {
        tokio::task::yield_now().await;
    }
    store.let_read(true);
    conductor.stats().await.unwrap();
    assert!(worker.messages.try_recv().is_err());
    store.open_gate();
    assert_eq!(cancelling.await.unwrap().unwrap_err().code, ErrorCode::StorageFull);
    store.full.store(false, Ordering::SeqCst);
    assert_eq!(worker.task().await.offer.job_id, job_id);
}

#[tokio::test]
async fn a_store_that_cannot_read_for_a_while_is_asked_again() {
    let (store, clock) = (Faulty::new(), ManualClock::new());
    let conductor = start_without_memory(store.clone(), Arc::new(clock.clone())).conductor;
    let job_id = submit(&conductor).await;
    *store.unreadable.lock().unwrap() = Some(StoreError::Failed { reason: "input/output error".into() });
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    worker.welcome().await;
    conductor.stats().await.unwrap();
    *store.unreadable.lock().unwrap() = None;
    // The answer to the first try may come before time passes or after: then more time has to pass.
    let task = loop {
        match worker.messages.try_recv() {
            Ok(message) => break message,
            Err(_) => clock.advance(Duration::from_secs(1)),
        }
        conductor.stats().await.unwrap();
    };
    assert!(matches!(task, ToWorker::Task(task) if task.offer.job_id == job_id));
}

#[tokio::test]
async fn a_damaged_job_does_not_hold_up_those_behind_it() {
    let store = Faulty::new();
    let conductor = start_without_memory(store.clone(), Arc::new(SystemClock::new())).conductor;
    let damaged = submit(&conductor).await;
    let sound = submit(&conductor).await;
    *store.damaged.lock().unwrap() = Some(damaged);
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    assert_eq!(worker.task().await.offer.job_id, sound);
    let stats = conductor.stats().await.unwrap();
    assert!(stats.ready_tasks.is_empty(), "it waits for no worker any more");
    assert_eq!(stats.jobs[&JobStatus::WaitingForWorker], 1, "and is not forgotten");
}

#[tokio::test]
async fn a_task_whose_params_no_longer_compute_stops_for_a_human() {
    let (store, clock) = (Arc::new(MemoryStore::default()), Arc::new(SystemClock::new()));
    let before = start_at(Faulty::over(store.clone()), clock.clone()).conductor;
    let job_id = submit(&before).await;
    // As if a later release read the same version of the blueprint in another way.
    let otherwise = STORY.replace("type: work", "type: work, params: { n: \"${initial_data.n}\" }");
    let after = start_with(Faulty::over(store), clock, &otherwise, RESIDENT_BYTES).conductor;
    let _worker = Worker::join(&after, "w1", 5).await;
    assert_eq!(end_of(&after, job_id).await, JobStatus::Quarantined);
    assert!(after.stats().await.unwrap().ready_tasks.is_empty());
}

// ---- Jobs that start later ----

fn starting_in(delay: Duration) -> SubmitRequest {
    SubmitRequest { delay: Some(delay), ..request() }
}

#[tokio::test]
async fn a_job_with_a_start_ahead_waits_for_it_through_a_restart_and_not_a_moment_longer() {
    const HOUR: Duration = Duration::from_secs(3600);
    let (store, clock) = (Arc::new(MemoryStore::default()), ManualClock::new());
    let before = start_at(Faulty::over(store.clone()), Arc::new(clock.clone())).conductor;
    let mut timed = starting_in(HOUR);
    timed.submission.result_timeout = Some(Duration::from_secs(60));
    let start = clock.now() + HOUR;
    let job_id = before.submit(&acme(), timed).await.unwrap().job_id;
    let job = before.get(&acme(), job_id).await.unwrap().job;
    assert_eq!((job.status, job.resumes_at), (JobStatus::WaitingForTimer, Some(start)));
    assert_eq!(job.submission.start_at, Some(start));

    let after = start_at(Faulty::over(store), Arc::new(clock.clone())).conductor;
    let mut worker = Worker::join(&after, "w1", 1).await;
    clock.advance(HOUR - Duration::from_micros(1));
    after.stats().await.unwrap();
    let job = after.get(&acme(), job_id).await.unwrap().job;
    assert_eq!(job.status, JobStatus::WaitingForTimer, "its result_timeout counts from the start");
    clock.advance(Duration::from_micros(1));
    let task = worker.task().await;
    assert_eq!(task.offer.job_id, job_id);
    worker.report(&task).await;
    assert_eq!(end_of(&after, job_id).await, JobStatus::Finished);
}

#[tokio::test]
async fn a_job_can_be_cancelled_before_its_start_and_does_not_come_back() {
    let clock = ManualClock::new();
    let conductor = start_at(Faulty::new(), Arc::new(clock.clone())).conductor;
    let job_id = conductor.submit(&acme(), starting_in(Duration::from_secs(60))).await.unwrap().job_id;
    conductor.cancel(&acme(), job_id, None).await.unwrap();
    clock.advance(Duration::from_secs(120));
    assert_eq!(end_of(&conductor, job_id).await, JobStatus::Cancelled);
    let history = conductor.history(&acme(), job_id, 0, 10).await.unwrap();
    let events: Vec<&str> = history.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["job_accepted", "wait_started", "job_cancelled"]);
}

#[tokio::test]
async fn a_start_that_has_passed_is_now_and_one_too_far_ahead_is_refused() {
    let clock = ManualClock::new();
    let conductor = start_at(Faulty::new(), Arc::new(clock.clone())).conductor;
    let at = |start_at| {
        let mut request = request();
        request.submission.start_at = Some(start_at);
        request
    };
    let past = at(clock.now() - Duration::from_secs(60));
    let job_id = conductor.submit(&acme(), past).await.unwrap().job_id;
    assert_eq!(conductor.get(&acme(), job_id).await.unwrap().status(), JobStatus::WaitingForWorker);
    assert!(conductor.submit(&acme(), at(clock.now() + START_AHEAD_MAX)).await.is_ok());
    let beyond = at(clock.now() + START_AHEAD_MAX + Duration::from_micros(1));
    let refused = conductor.submit(&acme(), beyond).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidArgument);
    assert_eq!(refused.message, "start_at is further ahead than the limit of 366 days");
}

#[tokio::test]
async fn a_repeated_delay_is_the_same_request_although_time_has_passed() {
    let clock = ManualClock::new();
    let conductor = start_at(Faulty::new(), Arc::new(clock.clone())).conductor;
    let keyed = |delay| SubmitRequest { idempotency_key: Some(Arc::from("order-7")), ..starting_in(delay) };
    let minute = Duration::from_secs(60);
    let first = conductor.submit(&acme(), keyed(minute)).await.unwrap();
    clock.advance(Duration::from_secs(10));
    let second = conductor.submit(&acme(), keyed(minute)).await.unwrap();
    assert_eq!((second.job_id, second.deduplicated), (first.job_id, true));
    let other = conductor.submit(&acme(), keyed(2 * minute)).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::IdempotencyConflict);
}

// ---- Blueprints that change ----

fn other_story() -> Vec<Definition> {
    let text = STORY.replace("type: work", "type: other_work");
    vec![load("story.yaml", &text).expect("a sound blueprint").definition]
}

#[tokio::test]
async fn nobody_is_served_by_a_version_that_is_not_durable() {
    let store = Faulty::new();
    let Running { conductor, .. } = start(store.clone());
    store.close_gate();
    let (mut enacting, mut early) = (pin!(conductor.enact(other_story())), pin!(submit(&conductor)));
    // What is asked second stands behind the first in the mailbox, hence is answered when that has been decided.
    tokio::select! {
        biased;
        _ = &mut enacting => panic!("it is not durable"),
        stats = conductor.stats() => drop(stats.unwrap()),
    }
    assert_eq!(conductor.blueprints().newest("story").unwrap().version, 1);
    tokio::select! {
        biased;
        _ = &mut early => panic!("what it rests on is not durable"),
        stats = conductor.stats() => drop(stats.unwrap()),
    }
    store.open_gate();
    let changes = enacting.await.unwrap();
    assert_eq!((changes[0].before, changes[0].after), (Some(1), Some(2)));
    assert_eq!(conductor.blueprints().newest("story").unwrap().version, 2);
    let version = async |id| conductor.get(&acme(), id).await.unwrap().job.blueprint_version;
    assert_eq!(version(early.await).await, 1);
    assert_eq!(version(submit(&conductor).await).await, 2);
    let mut stored: Vec<u32> = store.blueprints().unwrap().iter().map(|record| record.version).collect();
    stored.sort();
    assert_eq!(stored, [2], "the first one was never stored by this test");
}

#[tokio::test]
async fn a_repetition_gets_its_job_whatever_has_become_of_its_blueprint() {
    let conductor = start(Faulty::new()).conductor;
    let keyed = |key: &str| SubmitRequest { idempotency_key: Some(Arc::from(key)), ..request() };
    let first = conductor.submit(&acme(), keyed("order-7")).await.unwrap();
    let stricter = STORY.replace("states:", "input_schema: { required: [order] }\nstates:");
    let stricter = load("story.yaml", &stricter).expect("a sound blueprint").definition;
    for (definitions, refusal) in
        [(vec![stricter], ErrorCode::InputInvalid), (vec![], ErrorCode::BlueprintNotFound)]
    {
        conductor.enact(definitions).await.unwrap();
        let again = conductor.submit(&acme(), keyed("order-7")).await.unwrap();
        assert_eq!((again.job_id, again.deduplicated), (first.job_id, true));
        assert_eq!(conductor.submit(&acme(), keyed("order-8")).await.unwrap_err().code, refusal);
        assert_eq!(conductor.submit(&acme(), request()).await.unwrap_err().code, refusal);
    }
}

#[tokio::test]
async fn versions_that_found_no_room_never_were() {
    let store = Faulty::new();
    let Running { conductor, .. } = start(store.clone());
    store.full.store(true, Ordering::SeqCst);
    let (first, second) = tokio::join!(conductor.enact(other_story()), conductor.enact(vec![]));
    assert_eq!(first.unwrap_err().code, ErrorCode::StorageFull);
    // What rests on nothing that has to be stored may go either way, but not with the other's version.
    if let Ok(changes) = second {
        assert_eq!((changes[0].before, changes[0].after), (Some(1), None));
        assert!(conductor.blueprints().newest("story").is_none());
    }
    store.full.store(false, Ordering::SeqCst);
    let changes = conductor.enact(other_story()).await.unwrap();
    assert_eq!(changes[0].after, Some(2), "the number was not used up");
    assert_eq!(conductor.blueprints().newest("story").unwrap().version, 2);
}

#[tokio::test]
async fn changes_at_once_are_versions_in_a_row() {
    let store = Faulty::new();
    let Running { conductor, .. } = start(store.clone());
    store.close_gate();
    let enact = |definitions| {
        let conductor = conductor.clone();
        tokio::spawn(async move { conductor.enact(definitions).await.unwrap() })
    };
    let first = enact(other_story());
    conductor.stats().await.unwrap();
    let original = vec![load("story.yaml", STORY).unwrap().definition];
    let second = enact(original);
    conductor.stats().await.unwrap();
    store.open_gate();
    assert_eq!(first.await.unwrap()[0].after, Some(2));
    let changes = second.await.unwrap();
    assert_eq!((changes[0].before, changes[0].after), (Some(2), Some(3)));
    assert_eq!(conductor.blueprints().newest("story").unwrap().version, 3);
}

fn to_the_newest() -> MigrationRequest {
    MigrationRequest {
        blueprint: Arc::from("story"),
        to_version: None,
        from_version: None,
        states: BTreeMap::new(),
        with_failed: false,
        dry_run: false,
        below_key: None,
    }
}

#[tokio::test]
async fn a_migration_that_finds_no_room_moves_nobody_and_may_be_repeated() {
    let store = Faulty::new();
    let Running { conductor, .. } = start(store.clone());
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let (held, queued) = (submit(&conductor).await, submit(&conductor).await);
    let task = worker.task().await;
    let longer = STORY.replace("type: work", "type: work, timeout: 1h");
    conductor.enact(vec![load("story.yaml", &longer).unwrap().definition]).await.unwrap();

    store.full.store(true, Ordering::SeqCst);
    let refused = conductor.migrate(&acme(), to_the_newest()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StorageFull);
    store.full.store(false, Ordering::SeqCst);
    let version = async |id| conductor.get(&acme(), id).await.unwrap().job.blueprint_version;
    assert_eq!((version(held).await, version(queued).await), (1, 1));

    let page = conductor.migrate(&acme(), to_the_newest()).await.unwrap();
    assert!(page.moves.iter().all(|done| done.refused.is_none()) && page.moves.len() == 2);
    assert_eq!((version(held).await, version(queued).await), (2, 2));
    assert_eq!(conductor.migrate(&acme(), to_the_newest()).await.unwrap().moves, []);
    // The worker that has the task goes on with it, and then gets the other one as the new version has it.
    worker.report(&task).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    let next = worker.task().await;
    assert_eq!((next.offer.job_id, next.offer.timeout), (queued, Duration::from_secs(3600)));
    worker.report(&next).await;
    assert_eq!(end_of(&conductor, held).await, JobStatus::Finished);
    assert_eq!(end_of(&conductor, queued).await, JobStatus::Finished);
}
