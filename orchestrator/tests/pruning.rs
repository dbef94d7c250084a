//! Jobs are forgotten by the age of their end: which go, which stay, how fast, and what clients see of it.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use avtomatika_orchestrator::{
    blueprint::{Registry, load},
    chores::{
        Chore,
        pruning::{Pruning, ROUND_EVERY, Retention, SLICE_MIN},
    },
    conductor::{
        self, Admission, Conductor, DEFAULT_RESIDENT_BYTES, Limits, Settings, SubmitRequest, Submitted,
    },
    engine::{JobStatus, Retry, Submission},
    json::Json,
    metrics::Metrics,
    store::{ListQuery, PruneQuery, Removal, Store, memory::MemoryStore, sqlite::SqliteStore},
    time::{Clock, SystemClock, Timestamp},
};
use avtomatika_proto::{ErrorCode, JobId};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);

/// A clock that stands still until the test moves it.
#[derive(Clone)]
struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    fn advance(&self, span: Duration) {
        self.0.fetch_add(span.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A job of this one ends by itself.
const INSTANT: &str = "
blueprint: instant
states:
  note: { start: true, pass: { seen: true }, next: completed }
  completed: { end: finished }
";

/// A job of this one waits for a worker, and there is none.
const WAITING: &str = "
blueprint: waiting
states:
  init: { start: true, task: { type: work }, on: { success: completed } }
  completed: { end: finished }
";

/// A job of this one fails by itself.
const SINKING: &str = "
blueprint: sinking
states:
  sink: { start: true, pass: { deep: '${initial_data.water}' }, next: completed }
  completed: { end: finished }
";

/// An orchestrator that keeps jobs for a day, without its wire and with its chore in the test's hands.
struct World {
    clock: ManualClock,
    store: Arc<MemoryStore>,
    metrics: Arc<Metrics>,
    conductor: Conductor,
    pruning: Pruning,
}

fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Conductor {
    let mut registry = Registry::default();
    for text in [INSTANT, WAITING, SINKING] {
        registry.add(Arc::new(load("test.yaml", text).unwrap().definition.into_blueprint(1)), true);
    }
    let settings = Settings {
        limits: Limits { max_open_jobs: 10_000, max_workers: 1, resident_bytes_max: DEFAULT_RESIDENT_BYTES },
        adoption_window: DAY,
        webhooks: None,
        entropy_seed: [7; 32],
    };
    conductor::start(store, clock, Arc::new(registry), settings, metrics).unwrap().conductor
}

fn world() -> World {
    let clock = ManualClock(Arc::new(AtomicI64::new(1_700_000_000_000_000)));
    let (store, metrics) = (Arc::new(MemoryStore::new()), Arc::new(Metrics::new()));
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let conductor = start(store.clone(), shared.clone(), metrics.clone());
    let pruning = Pruning::new(conductor.clone(), shared, Retention::for_age(DAY));
    World { clock, store, metrics, conductor, pruning }
}

fn acme() -> Arc<str> {
    Arc::from("acme")
}

fn request(blueprint: &str) -> SubmitRequest {
    let submission = Submission {
        initial_data: Json::empty(),
        labels: BTreeMap::new(),
        priority: 0,
        dispatch_timeout: None,
        result_timeout: None,
        ..Submission::of(Json::empty())
    };
    SubmitRequest {
        blueprint: blueprint.into(),
        submission,
        idempotency_key: None,
        delay: None,
        wait: Duration::ZERO,
    }
}

impl World {
    async fn submit_as(&self, blueprint: &str, key: Option<&str>) -> Submitted {
        let request = SubmitRequest { idempotency_key: key.map(Into::into), ..request(blueprint) };
        self.conductor.submit(&acme(), request).await.unwrap()
    }

    async fn submit(&self, blueprint: &str) -> JobId {
        self.submit_as(blueprint, None).await.job_id
    }

    /// What the client sees, newest first.
    async fn listed(&self) -> Vec<JobId> {
        let query = ListQuery { client: acme(), limit: 1000, ..ListQuery::default() };
        self.conductor.list(query).await.unwrap().jobs.iter().map(|view| view.job.id).collect()
    }

    /// One round of the chore. Returns how many slices it had.
    async fn round(&mut self) -> usize {
        let mut slices = 1;
        while self.pruning.tick().await.unwrap().is_zero() {
            slices += 1;
        }
        slices
    }
}

#[tokio::test]
async fn jobs_go_by_the_age_of_their_end_and_open_ones_stay() {
    let mut world = world();
    let early = world.submit("instant").await;
    let open = world.submit("waiting").await;
    world.clock.advance(HOUR);
    let late = world.submit("instant").await;
    world.clock.advance(DAY - HOUR - Duration::from_micros(1));
    world.round().await;
    assert_eq!(world.listed().await, [late, open, early], "nothing is a day old yet");
    world.clock.advance(Duration::from_micros(1));
    world.round().await;
    assert_eq!(world.listed().await, [late, open]);
    let gone = world.conductor.get(&acme(), early).await.unwrap_err();
    let no_history = world.conductor.history(&acme(), early, 0, 10).await.unwrap_err();
    let no_watch = world.conductor.watch(&acme(), early).await.err().unwrap();
    let no_cancel = world.conductor.cancel(&acme(), early, None).await.unwrap_err();
    for error in [gone, no_history, no_watch, no_cancel] {
        assert_eq!(error.code, ErrorCode::JobNotFound);
    }
    assert!(world.metrics.render().contains("avtomatika_jobs_pruned_total 1\n"));

    // What was open when the rounds passed it goes a day after its own end.
    world.clock.advance(10 * DAY);
    world.round().await;
    assert_eq!(world.listed().await, [open]);
    let cancelled = world.conductor.cancel(&acme(), open, None).await.unwrap();
    assert_eq!(cancelled.status(), JobStatus::Cancelled);
    world.clock.advance(DAY - HOUR);
    world.round().await;
    assert_eq!(world.listed().await, [open]);
    world.clock.advance(HOUR);
    world.round().await;
    assert_eq!(world.listed().await, []);
}

#[tokio::test]
async fn no_more_are_kept_than_asked_for_and_the_oldest_go_first() {
    let mut world = world();
    let shared: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let at_most = |age, count| Retention { age, count: Some(count) };
    world.pruning = Pruning::new(world.conductor.clone(), shared, at_most(None, 3));
    let open = world.submit("waiting").await;
    let mut ended = Vec::new();
    for _ in 0..300 {
        ended.push(world.submit("instant").await);
    }
    world.round().await;
    assert_eq!(world.listed().await.len(), 301, "their clients are given a minute to read how they ended");
    world.clock.advance(Duration::from_secs(60));
    world.round().await;
    assert_eq!(world.listed().await, [ended[299], ended[298], ended[297], open]);
    world.round().await;
    assert_eq!(world.listed().await.len(), 4, "no more than are too many");

    // Both limits at once: what is too old goes, and of the rest what is too many.
    world.pruning.retention().replace(at_most(Some(DAY), 1));
    world.clock.advance(DAY - HOUR);
    let (late, later) = (world.submit("instant").await, world.submit("instant").await);
    world.clock.advance(HOUR);
    world.round().await;
    assert_eq!(world.listed().await, [later, open]);
    assert_eq!(world.conductor.get(&acme(), late).await.unwrap_err().code, ErrorCode::JobNotFound);
}

#[tokio::test]
async fn what_is_kept_may_be_said_anew_at_any_time() {
    let mut world = world();
    let old = world.submit("instant").await;
    world.clock.advance(DAY);
    world.pruning.retention().replace(Retention::default());
    world.round().await;
    assert_eq!(world.listed().await, [old], "everything is kept for ever");
    world.pruning.retention().replace(Retention::for_age(HOUR));
    world.round().await;
    assert_eq!(world.listed().await, []);
}

#[tokio::test]
async fn a_repeated_submission_whose_job_is_gone_makes_a_new_one() {
    let mut world = world();
    let first = world.submit_as("instant", Some("order-7")).await;
    world.clock.advance(DAY - HOUR);
    world.round().await;
    let again = world.submit_as("instant", Some("order-7")).await;
    assert_eq!((again.job_id, again.deduplicated), (first.job_id, true));
    world.clock.advance(HOUR);
    world.round().await;
    let anew = world.submit_as("instant", Some("order-7")).await;
    assert!(anew.job_id != first.job_id && !anew.deduplicated);
    let again = world.submit_as("instant", Some("order-7")).await;
    assert_eq!((again.job_id, again.deduplicated), (anew.job_id, true));
}

#[tokio::test]
async fn while_there_is_more_to_remove_it_goes_on_at_once_and_then_it_rests() {
    let mut world = world();
    for _ in 0..2 * SLICE_MIN + 1 {
        world.submit("instant").await;
    }
    world.clock.advance(DAY);
    assert_eq!(world.pruning.tick().await, Some(Duration::ZERO));
    assert_eq!(world.listed().await.len(), SLICE_MIN + 1, "a tick removes a slice");
    assert_eq!(world.pruning.tick().await, Some(Duration::ZERO));
    // What becomes old enough meanwhile is for the next round.
    let late = world.submit("instant").await;
    world.clock.advance(DAY);
    assert_eq!(world.pruning.tick().await, Some(Duration::ZERO), "the round has lasted longer than a rest");
    assert_eq!(world.listed().await, [late]);
    assert_eq!(world.pruning.tick().await, Some(ROUND_EVERY));
    assert_eq!(world.listed().await, []);
}

#[tokio::test]
async fn a_listing_goes_on_where_it_was_while_jobs_are_removed() {
    let mut world = world();
    let mut newest_first = Vec::new();
    for n in 0..20 {
        newest_first.insert(0, world.submit("instant").await);
        if n == 9 {
            world.clock.advance(HOUR);
        }
    }
    let query = |below_key| ListQuery { client: acme(), limit: 8, below_key, ..ListQuery::default() };
    let ids = |page: &conductor::JobsPage| page.jobs.iter().map(|view| view.job.id).collect::<Vec<_>>();
    let first = world.conductor.list(query(None)).await.unwrap();
    assert_eq!(ids(&first), newest_first[..8]);
    let second = world.conductor.list(query(first.next_below_key)).await.unwrap();
    assert_eq!(ids(&second), newest_first[8..16]);
    // The older half goes, and with it the job at which the next page begins.
    world.clock.advance(DAY - HOUR);
    world.round().await;
    let third = world.conductor.list(query(second.next_below_key)).await.unwrap();
    assert_eq!((ids(&third), third.next_below_key), (vec![], None));
    let again = world.conductor.list(query(first.next_below_key)).await.unwrap();
    assert_eq!(ids(&again), newest_first[8..10]);
}

#[tokio::test]
async fn the_conductor_removes_no_job_that_it_holds() {
    let world = world();
    let (open, ended) = (world.submit("waiting").await, world.submit("instant").await);
    let removals = [open, ended].map(|job_id| Removal { job_id, idempotency: None });
    assert_eq!(world.conductor.prune(removals.into()).await.unwrap(), 1);
    assert_eq!(world.listed().await, [open]);
    assert_eq!(world.conductor.cancel(&acme(), open, None).await.unwrap().status(), JobStatus::Cancelled);
}

#[tokio::test]
async fn a_full_disk_keeps_what_it_has_and_the_chore_comes_back() {
    let mut world = world();
    let job_id = world.submit("instant").await;
    world.clock.advance(DAY);
    world.store.set_full(true);
    assert_eq!(world.pruning.tick().await, Some(ROUND_EVERY));
    assert!(world.store.load(job_id).unwrap().is_some());
    assert!(world.metrics.render().contains("avtomatika_jobs_pruned_total 0\n"));
    world.store.set_full(false);
    world.round().await;
    assert_eq!(world.store.load(job_id).unwrap(), None);
}

#[tokio::test]
async fn the_chore_ends_with_the_orchestrator() {
    let mut world = world();
    world.submit("instant").await;
    world.clock.advance(DAY);
    world.conductor.drain().await;
    assert_eq!(world.pruning.tick().await, None);
}

/// Submissions by this many clients, each after the other, for a while. Returns how long each took.
async fn submit_for(conductor: &Conductor, clients: usize, span: Duration) -> Vec<Duration> {
    let until = Instant::now() + span;
    let client = |conductor: Conductor| async move {
        let (acme, mut took) = (acme(), Vec::new());
        while Instant::now() < until {
            let started = Instant::now();
            conductor.submit(&acme, request("instant")).await.unwrap();
            took.push(started.elapsed());
        }
        took
    };
    let clients: Vec<_> = (0..clients).map(|_| tokio::spawn(client(conductor.clone()))).collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    all.sort();
    all
}

/// What somebody has read may be true no more: the job was led on by hand, and has just ended anew.
#[tokio::test]
async fn a_job_that_was_repaired_since_it_was_looked_at_stays() {
    let world = world();
    let job_id = world.submit("sinking").await;
    world.clock.advance(2 * DAY);
    let ended_by = world.clock.now();
    let query = PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by, limit: 10 };
    let slice = world.conductor.prunable(query).await.unwrap();
    assert_eq!(slice.removals.len(), 1);
    let retry =
        Retry { state: None, initial_data: None, state_history: None, by: acme(), reason: None, key: None };
    world.conductor.retry(&acme(), job_id, retry, Admission::default()).await.unwrap();
    assert_eq!(world.conductor.prune(slice.removals).await.unwrap(), 0);
    assert_eq!(world.listed().await, [job_id]);
    // In its time it goes as any other.
    world.clock.advance(2 * DAY);
    let slice = world.conductor.prunable(PruneQuery { ended_by: world.clock.now(), ..query }).await.unwrap();
    assert_eq!(world.conductor.prune(slice.removals).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test --release --test pruning -- --ignored --nocapture pruning_keeps_up"]
async fn pruning_keeps_up() {
    const SPAN: Duration = Duration::from_secs(4);
    const RETENTION: Duration = Duration::from_secs(2);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    let (clock, metrics) = (Arc::new(SystemClock::new()), Arc::new(Metrics::new()));
    let conductor = start(store.clone(), clock.clone(), metrics.clone());
    let page = || metrics.render();
    let pruned = || -> u64 {
        let page = page();
        let line = page.lines().find(|line| line.starts_with("avtomatika_jobs_pruned_total")).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    println!("clients  pruning  jobs/s  removed/s  p50 ms  p99 ms  max ms");
    for clients in [4, 64, 1024] {
        // In turns, so that whatever else the machine does hits both alike.
        for is_pruning in [false, true, false, true] {
            let mut chore = Pruning::new(conductor.clone(), clock.clone(), Retention::for_age(RETENTION));
            let work = async move {
                while let Some(rest) = chore.tick().await {
                    // A round every minute would be none, or all there is.
                    tokio::time::sleep(rest.min(Duration::from_millis(100))).await;
                }
            };
            let work = is_pruning.then(|| tokio::spawn(work));
            let (before, began) = (pruned(), Instant::now());
            let took = submit_for(&conductor, clients, SPAN).await;
            let (removed, span) = (pruned() - before, began.elapsed().as_secs_f64());
            work.inspect(tokio::task::JoinHandle::abort);
            let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
            println!(
                "{clients:>7} {is_pruning:>8} {:>7.0} {:>10.0} {:>7.2} {:>7.2} {:>7.2}",
                took.len() as f64 / span,
                removed as f64 / span,
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }
    println!("{} bytes", std::fs::metadata(dir.path().join("avtomatika.db")).unwrap().len());
}
