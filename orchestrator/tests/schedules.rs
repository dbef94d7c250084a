//! Schedules make one job for each due time: through restarts, full disks, clocks that jump, and jobs that take longer than the
//! next one waits.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use avtomatika_orchestrator::{
    Parts, assemble,
    blueprint::{Registry, load},
    chores::{
        Chore,
        schedules::{AGAIN_AFTER, AHEAD_MAX, Scheduling},
    },
    conductor::{self, Conductor, DEFAULT_RESIDENT_BYTES, JobView, Limits, Settings},
    engine::JobStatus,
    metrics::Metrics,
    reload::{Reload, Reloaded},
    schedule::{Known, Schedule, ScheduleView, Schedules, parse},
    store::{ListQuery, PruneQuery, SkipReason, Store, memory::MemoryStore},
    time::{Clock, Timestamp},
    trust::{Tenants, Terms},
};
use avtomatika_proto::{ErrorCode, JobId};
use tokio_util::sync::CancellationToken;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A time that has passed, and a time of day, which stand still until the test moves them.
#[derive(Clone)]
struct ManualClock {
    now: Arc<AtomicI64>,
    wall: Arc<AtomicI64>,
}

impl ManualClock {
    /// At the full hour.
    fn new() -> Self {
        let start = Timestamp::from_rfc3339("2026-01-05T00:00:00Z").unwrap().as_micros();
        Self { now: Arc::new(start.into()), wall: Arc::new(start.into()) }
    }

    fn advance(&self, span: Duration) {
        self.now.fetch_add(span.as_micros() as i64, Ordering::SeqCst);
        self.wall.fetch_add(span.as_micros() as i64, Ordering::SeqCst);
    }

    /// Somebody sets the machine's clock.
    fn set_back(&self, span: Duration) {
        self.wall.fetch_sub(span.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_micros(self.wall.load(Ordering::SeqCst))
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

/// Of this one, too; and there may be one job only.
const ALONE: &str = "
blueprint: alone
concurrency: { key: \"'report'\", limit: 1, policy: refuse_newest }
states:
  init: { start: true, task: { type: work }, on: { success: completed } }
  completed: { end: finished }
";

const JOBS_MAX: usize = 2000;

/// An orchestrator without its wire, with its chore in the test's hands.
struct World {
    clock: ManualClock,
    store: Arc<MemoryStore>,
    conductor: Conductor,
    schedules: Schedules,
    metrics: Arc<Metrics>,
    chore: Scheduling,
}

fn schedules(text: &str) -> Vec<Schedule> {
    let known = Known { blueprints: &["instant", "waiting", "alone", "gone"], clients: &["acme"] };
    parse("test.toml", text, known).unwrap_or_else(|errors| panic!("{errors:?}"))
}

impl World {
    fn new(text: &str) -> Self {
        Self::over(Arc::new(MemoryStore::new()), ManualClock::new(), text)
    }

    fn over(store: Arc<MemoryStore>, clock: ManualClock, text: &str) -> Self {
        let mut registry = Registry::default();
        for text in [INSTANT, WAITING, ALONE] {
            registry.add(Arc::new(load("test.yaml", text).unwrap().definition.into_blueprint(1)), true);
        }
        let settings = Settings {
            limits: Limits {
                max_open_jobs: JOBS_MAX,
                max_workers: 1,
                resident_bytes_max: DEFAULT_RESIDENT_BYTES,
            },
            adoption_window: HOUR,
            webhooks: None,
            entropy_seed: Settings::fresh_seed().unwrap(),
        };
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let metrics = Arc::new(Metrics::new());
        let running =
            conductor::start(store.clone(), shared.clone(), Arc::new(registry), settings, metrics.clone())
                .unwrap();
        let schedules = Schedules::new(schedules(text));
        let chore = Scheduling::new(running.conductor.clone(), shared, schedules.clone(), metrics.clone());
        Self { clock, store, conductor: running.conductor, schedules, metrics, chore }
    }

    /// What a kill leaves is the store; what a start needs beside it is the same file of schedules.
    fn killed_and_started_again(self, text: &str) -> Self {
        let Self { clock, store, .. } = self;
        Self::over(store, clock, text)
    }

    /// The chore works until it rests. Returns how long it will.
    async fn settle(&mut self) -> Duration {
        loop {
            let rest = self.chore.tick().await.expect("the orchestrator runs");
            if !rest.is_zero() {
                return rest;
            }
        }
    }

    /// Time passes, and the chore notices at the end of it.
    async fn pass(&mut self, span: Duration) {
        self.clock.advance(span);
        self.settle().await;
    }

    /// The jobs there are, oldest first.
    async fn jobs(&self) -> Vec<JobView> {
        let query = ListQuery { client: Arc::from("acme"), limit: 10 * JOBS_MAX, ..ListQuery::default() };
        let mut jobs = self.conductor.list(query).await.unwrap().jobs;
        jobs.reverse();
        jobs
    }

    /// The minutes of the due times that have a job, in the order in which the jobs were made.
    async fn made_for(&self) -> Vec<u64> {
        let start = ManualClock::new().now();
        let minute = |view: &JobView| {
            let due_at = Timestamp::from_rfc3339(&view.job.submission.labels["due_at"]).unwrap();
            due_at.saturating_since(start).as_secs() / 60
        };
        self.jobs().await.iter().map(minute).collect()
    }

    fn view(&self) -> ScheduleView {
        self.schedules.list(self.clock.wall()).remove(0)
    }

    fn last_skip(&self) -> Option<(SkipReason, Timestamp)> {
        self.view().standing.unwrap().record.last_skip.map(|skip| (skip.reason, skip.due_at))
    }

    async fn cancel(&self, job_id: JobId) {
        self.conductor.cancel(&Arc::from("acme"), job_id, None).await.unwrap();
    }
}

/// A schedule of every ten minutes.
fn every_ten_minutes(blueprint: &str, more: &str) -> String {
    format!("[s]\nblueprint = '{blueprint}'\ninterval = '10m'\n{more}")
}

#[tokio::test]
async fn every_due_time_makes_one_job_when_it_comes() {
    let text = "[s]\nblueprint = 'instant'\ninterval = '10m'\npriority = 3\nlabels = { team = 'a' }\n[never]\nblueprint = 'instant'\ninterval = '1m'\nenabled = false";
    let mut world = World::new(text);
    world.settle().await;
    assert_eq!(world.made_for().await, [0; 0], "it begins now, and nothing is due");
    world.pass(10 * MINUTE - Duration::from_millis(300)).await;
    assert!(world.made_for().await.is_empty());
    assert_eq!(world.settle().await, Duration::from_millis(300), "it rests until the next due time");
    world.pass(Duration::from_millis(300)).await;
    for _ in 0..10 {
        world.pass(2 * MINUTE).await;
    }
    assert_eq!(world.made_for().await, [10, 20, 30]);
    let jobs = world.jobs().await;
    let submission = &jobs[0].job.submission;
    assert_eq!(submission.priority, 3);
    let labels: Vec<_> = submission.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["due_at=2026-01-05T00:10:00Z", "schedule=s", "team=a"]);
    let views = world.schedules.list(world.clock.wall());
    let run = views[1].standing.as_ref().unwrap().record.last_run.unwrap();
    assert_eq!(run.job_id, jobs[2].job.id);
    assert_eq!(views[1].next.first().unwrap().to_rfc3339(), "2026-01-05T00:40:00Z");
    assert!(views[0].next.is_empty(), "the other one is not enabled");
}

/// What an hour without the chore is answered with: the clock jumped, or nobody was there.
const HOUR_MISSED: [(&str, &[u64]); 3] = [("skip", &[]), ("once", &[60]), ("all", &[10, 20, 30, 40, 50, 60])];

#[tokio::test]
async fn an_hour_that_the_clock_jumps_over_is_let_go_made_up_by_one_job_or_by_all() {
    for (policy, made) in HOUR_MISSED {
        let mut world = World::new(&every_ten_minutes("instant", &format!("on_missed = '{policy}'")));
        world.settle().await;
        world.pass(HOUR + 5 * MINUTE).await;
        assert_eq!(world.made_for().await, made, "{policy}");
        world.pass(5 * MINUTE).await;
        assert_eq!(world.made_for().await, [made, &[70]].concat(), "{policy} goes on");
    }
}

#[tokio::test]
async fn an_hour_that_nobody_was_there_is_no_other() {
    for (policy, made) in HOUR_MISSED {
        let text = every_ten_minutes("instant", &format!("on_missed = '{policy}'"));
        let mut world = World::new(&text);
        world.settle().await;
        world.clock.advance(HOUR + 5 * MINUTE);
        let mut world = world.killed_and_started_again(&text);
        world.settle().await;
        assert_eq!(world.made_for().await, made, "{policy}");
        let missed = world.last_skip().map(|(reason, _)| reason);
        assert_eq!(missed, (policy != "all").then_some(SkipReason::Missed), "{policy}");
        // Whoever starts twice in a second finds everything decided.
        let mut world = world.killed_and_started_again(&text);
        world.settle().await;
        assert_eq!(world.made_for().await, made, "{policy}");
    }
}

#[tokio::test]
async fn a_due_time_that_passes_during_a_short_restart_is_on_time_whatever_the_policy() {
    let text = every_ten_minutes("instant", "on_missed = 'skip'");
    let mut world = World::new(&text);
    world.settle().await;
    world.clock.advance(10 * MINUTE + Duration::from_secs(30));
    let mut world = world.killed_and_started_again(&text);
    world.settle().await;
    assert_eq!(world.made_for().await, [10]);
}

#[tokio::test]
async fn a_kill_in_the_midst_of_catching_up_loses_nothing_and_repeats_nothing() {
    let text = every_ten_minutes("instant", "on_missed = 'all'");
    let mut world = World::new(&text);
    world.settle().await;
    world.clock.advance(5 * HOUR);
    for made in 0..30 {
        assert_eq!(world.made_for().await.len(), made);
        assert!(world.chore.tick().await.is_some());
        world = world.killed_and_started_again(&text);
    }
    world.settle().await;
    assert_eq!(world.made_for().await, (1..=30).map(|n| n * 10).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_kill_after_the_commit_and_before_its_answer_repeats_nothing() {
    let text = every_ten_minutes("instant", "on_missed = 'all'");
    let mut world = World::new(&text);
    world.settle().await;
    world.clock.advance(10 * MINUTE);
    {
        // The request is on its way. The answer may be there at once, and nobody hears it.
        let tick = std::pin::pin!(world.chore.tick());
        let _ = futures_util::poll!(tick);
    }
    while world.store.last_job_key().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let mut world = world.killed_and_started_again(&text);
    world.settle().await;
    assert_eq!(world.made_for().await, [10]);
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [10, 20]);
}

#[tokio::test]
async fn a_commit_that_fails_leaves_the_due_time_to_the_next_start() {
    let text = every_ten_minutes("instant", "on_missed = 'once'");
    let mut world = World::new(&text);
    world.settle().await;
    world.clock.advance(10 * MINUTE);
    world.store.set_broken(true);
    assert_eq!(world.chore.tick().await, None, "the conductor has stopped");
    world.store.set_broken(false);
    let mut world = world.killed_and_started_again(&text);
    world.settle().await;
    assert_eq!(world.made_for().await, [10]);
}

#[tokio::test]
async fn what_a_full_disk_refuses_is_tried_again_and_shown_until_then() {
    let mut world = World::new(&every_ten_minutes("instant", ""));
    world.settle().await;
    world.store.set_full(true);
    world.pass(10 * MINUTE).await;
    world.pass(AGAIN_AFTER).await;
    assert_eq!(world.view().standing.unwrap().trouble.as_deref(), Some("The orchestrator's disk is full"));
    world.store.set_full(false);
    world.pass(AGAIN_AFTER).await;
    assert_eq!(world.made_for().await, [10]);
    assert_eq!(world.view().standing.unwrap().trouble, None);
}

#[tokio::test]
async fn a_due_time_whose_job_cannot_be_made_is_not_taken_for_done() {
    let text = every_ten_minutes("gone", "");
    let mut world = World::new(&text);
    world.settle().await;
    world.pass(10 * MINUTE).await;
    let standing = world.view().standing.unwrap();
    assert_eq!(standing.trouble.as_deref(), Some("Blueprint not found: \"gone\""));
    assert_eq!(standing.record.last_run, None);
    // The blueprint is there after the next start; what was due is made up.
    world.clock.advance(5 * MINUTE);
    let mut world = world.killed_and_started_again(&every_ten_minutes("instant", ""));
    world.settle().await;
    assert_eq!(world.made_for().await, [10]);
}

#[tokio::test]
async fn the_limit_of_open_jobs_is_the_schedules_limit_too() {
    let text = "[s]\nblueprint = 'waiting'\ninterval = '1s'\non_missed = 'all'";
    let mut world = World::new(text);
    world.settle().await;
    for _ in 0..3 {
        world.pass(Duration::from_secs(1000)).await;
    }
    assert_eq!(world.jobs().await.len(), JOBS_MAX);
    let trouble = world.view().standing.unwrap().trouble.unwrap();
    assert!(trouble.contains("2000 jobs are open"), "{trouble}");
}

#[tokio::test]
async fn at_its_clients_limit_a_due_time_waits_for_room_until_its_policy_lets_it_go() {
    for (policy, made_in_the_end) in [("once", &[10, 20, 30][..]), ("skip", &[10, 20])] {
        let mut world = World::new(&every_ten_minutes("waiting", &format!("on_missed = '{policy}'")));
        let terms = Terms { max_open_jobs: Some(1), ..Terms::default() };
        world.conductor.tenancy().replace(Arc::new(Tenants::new([(Arc::from("acme"), Arc::new(terms))])));
        world.settle().await;
        world.pass(10 * MINUTE).await;
        world.pass(10 * MINUTE).await;
        assert_eq!(world.made_for().await, [10]);
        let trouble = world.view().standing.unwrap().trouble.unwrap();
        assert_eq!(&*trouble, "1 jobs of client \"acme\" are open, as many as it may have");
        world.cancel(world.jobs().await[0].job.id).await;
        world.pass(AGAIN_AFTER).await;
        assert_eq!(world.made_for().await, [10, 20], "soon enough is on time for every policy");
        assert_eq!(world.view().standing.unwrap().trouble, None);
        world.pass(10 * MINUTE).await;
        world.pass(2 * MINUTE).await;
        world.cancel(world.jobs().await[1].job.id).await;
        world.pass(AGAIN_AFTER).await;
        assert_eq!(world.made_for().await, made_in_the_end, "{policy}");
        let start = ManualClock::new().now();
        let skipped = (policy == "skip").then_some((SkipReason::Missed, start + 30 * MINUTE));
        assert_eq!(world.last_skip(), skipped, "{policy}");
    }
}

// ---- The job before has not ended ----

#[tokio::test]
async fn jobs_run_beside_each_other_if_that_is_allowed() {
    let mut world = World::new(&every_ten_minutes("waiting", ""));
    world.settle().await;
    world.pass(10 * MINUTE).await;
    world.pass(10 * MINUTE).await;
    let open = world.jobs().await.iter().filter(|view| !view.status().is_terminal()).count();
    assert_eq!(open, 2);
}

#[tokio::test]
async fn a_due_time_is_skipped_while_the_last_job_is_open_through_restarts_too() {
    let text = every_ten_minutes("waiting", "overlap = 'skip'");
    let mut world = World::new(&text);
    world.settle().await;
    world.pass(10 * MINUTE).await;
    let mut world = world.killed_and_started_again(&text);
    world.settle().await;
    world.pass(10 * MINUTE).await;
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [10]);
    assert_eq!(world.last_skip(), Some((SkipReason::Overlap, world.clock.wall())));
    world.cancel(world.jobs().await[0].job.id).await;
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [10, 40]);
}

#[tokio::test]
async fn what_becomes_of_due_times_is_counted() {
    let mut world = World::new(&every_ten_minutes("waiting", "overlap = 'skip'\non_missed = 'skip'"));
    world.settle().await;
    for span in [10 * MINUTE, 10 * MINUTE, 10 * MINUTE, HOUR + 5 * MINUTE] {
        world.pass(span).await;
    }
    let page = world.metrics.render();
    for (outcome, times) in [("made", 1), ("overlap", 2), ("missed", 1)] {
        let line = format!("avtomatika_schedule_due_total{{outcome=\"{outcome}\"}} {times}\n");
        assert!(page.contains(&line), "no {line:?} in {page}");
    }
}

#[tokio::test]
async fn the_last_job_makes_room_for_the_next_if_it_is_to_be_cancelled() {
    for blueprint in ["waiting", "alone"] {
        let mut world = World::new(&every_ten_minutes(blueprint, "overlap = 'cancel'"));
        world.settle().await;
        world.pass(10 * MINUTE).await;
        world.pass(10 * MINUTE).await;
        let jobs = world.jobs().await;
        let statuses: Vec<JobStatus> = jobs.iter().map(JobView::status).collect();
        assert_eq!(statuses, [JobStatus::Cancelled, JobStatus::WaitingForWorker], "{blueprint}");
        let error = jobs[0].job.error.as_ref().unwrap();
        assert!(error.message.contains(&format!("its next job, {}", jobs[1].job.id)), "{error:?}");
    }
}

#[tokio::test]
async fn a_cancellation_that_could_not_be_stored_with_the_next_job_has_not_happened() {
    let mut world = World::new(&every_ten_minutes("waiting", "overlap = 'cancel'"));
    world.settle().await;
    world.pass(10 * MINUTE).await;
    world.store.set_full(true);
    world.pass(10 * MINUTE).await;
    let jobs = world.jobs().await;
    assert_eq!((jobs.len(), jobs[0].status()), (1, JobStatus::WaitingForWorker));
    world.store.set_full(false);
    world.pass(AGAIN_AFTER).await;
    assert_eq!(world.made_for().await, [10, 20]);
    assert_eq!(world.jobs().await[0].status(), JobStatus::Cancelled);
}

// ---- Clocks that are set ----

#[tokio::test]
async fn a_clock_that_is_set_back_repeats_nothing() {
    let text = every_ten_minutes("instant", "on_missed = 'all'");
    let mut world = World::new(&text);
    world.settle().await;
    for _ in 0..3 {
        world.pass(10 * MINUTE).await;
    }
    world.clock.set_back(20 * MINUTE);
    let mut world = world.killed_and_started_again(&text);
    world.settle().await;
    world.pass(10 * MINUTE).await;
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [10, 20, 30], "these have been");
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [10, 20, 30, 40]);
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_does_not_hold_a_schedule_up_until_then() {
    let mut world = World::new(&every_ten_minutes("instant", ""));
    let ahead = AHEAD_MAX + 2 * HOUR;
    world.settle().await;
    world.pass(ahead).await;
    assert_eq!(world.made_for().await.len(), 1);
    world.clock.set_back(ahead);
    world.settle().await;
    world.pass(10 * MINUTE).await;
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await[1..], [10, 20]);
}

// ---- Another set of schedules ----

#[tokio::test]
async fn a_set_of_schedules_can_be_replaced_while_the_orchestrator_runs() {
    let mut world = World::new(&every_ten_minutes("instant", ""));
    world.settle().await;
    world.pass(10 * MINUTE).await;
    // The same times: it goes on, with what is new of it.
    world.schedules.replace(schedules(&every_ten_minutes("instant", "labels = { v = '2' }")));
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [10, 20]);
    assert_eq!(world.jobs().await[1].job.submission.labels["v"], "2");
    // Other times: nothing of the past is due.
    world.schedules.replace(schedules("[s]\nblueprint = 'instant'\ndaily_at = ['00:15', '00:30']"));
    world.settle().await;
    assert_eq!(world.made_for().await, [10, 20]);
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [10, 20, 30]);
    // None, and then again: it is a new one, although it has the old name.
    world.schedules.replace(Vec::new());
    world.settle().await;
    assert!(world.schedules.list(world.clock.wall()).is_empty());
    assert!(world.store.schedules().unwrap().is_empty());
    world.clock.advance(HOUR);
    world.schedules.replace(schedules(&every_ten_minutes("instant", "on_missed = 'all'")));
    world.settle().await;
    assert_eq!(world.made_for().await, [10, 20, 30]);
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [10, 20, 30, 100]);
}

/// What a reload reads, as the test has it.
type Files = Arc<Mutex<(Vec<&'static str>, String)>>;

fn reload_of(world: &World, files: &Files) -> Reload {
    let (blueprints, texts) = (files.clone(), files.clone());
    let read_blueprints = move || {
        let texts = blueprints.lock().unwrap().0.clone();
        Ok(texts.into_iter().map(|text| load("test.yaml", text).unwrap()).collect())
    };
    let read_schedules = move |blueprints: &[&str]| {
        parse("test.toml", &texts.lock().unwrap().1, Known { blueprints, clients: &["acme"] })
    };
    Reload::new(world.conductor.clone())
        .from_source(Arc::new(read_blueprints))
        .with_schedules(world.schedules.clone(), Arc::new(read_schedules))
}

#[tokio::test]
async fn schedules_are_reloaded_with_the_blueprints_and_neither_without_the_other() {
    let mut world = World::new(&every_ten_minutes("instant", ""));
    let files: Files = Arc::new(Mutex::new((vec![INSTANT, WAITING], every_ten_minutes("waiting", ""))));
    let reload = reload_of(&world, &files);
    world.settle().await;
    let served = |world: &World| world.conductor.blueprints().served().count();
    assert!(matches!(reload.reload(true).await.unwrap(), Reloaded::Applied { .. }));
    assert_eq!(&*world.view().schedule.blueprint, "instant", "it was only asked");
    assert!(matches!(reload.reload(false).await.unwrap(), Reloaded::Applied { .. }));
    assert_eq!(&*world.view().schedule.blueprint, "waiting");
    world.pass(10 * MINUTE).await;
    assert_eq!(world.jobs().await[0].status(), JobStatus::WaitingForWorker);

    // A schedule whose blueprint would be gone keeps everything as it is.
    files.lock().unwrap().0.pop();
    let Reloaded::Refused(findings) = reload.reload(false).await.unwrap() else { panic!("it was applied") };
    assert_eq!(findings.len(), 1);
    let text = findings[0].to_string();
    assert_eq!(text, "test.toml: s.blueprint: error: there is no \"waiting\"; blueprints: instant");
    assert_eq!(served(&world), 2);
    assert_eq!(&*world.view().schedule.blueprint, "waiting");
}

#[tokio::test]
async fn a_schedule_that_was_not_enabled_has_missed_nothing_and_knows_its_last_job() {
    let (on, off) = (every_ten_minutes("waiting", "overlap = 'skip'\non_missed = 'all'"), "enabled = false");
    let mut world = World::new(&on);
    world.settle().await;
    world.pass(10 * MINUTE).await;
    let mut world = world.killed_and_started_again(&format!("{on}\n{off}"));
    world.pass(HOUR).await;
    let run = world.view().standing.unwrap().record.last_run.unwrap();
    let mut world = world.killed_and_started_again(&on);
    world.settle().await;
    assert_eq!(world.made_for().await, [10]);
    world.pass(10 * MINUTE).await;
    assert_eq!(world.last_skip().unwrap().0, SkipReason::Overlap, "{run:?} is still open");
}

#[tokio::test]
async fn a_job_that_was_removed_does_not_bring_its_due_time_back() {
    let text = every_ten_minutes("instant", "on_missed = 'all'\noverlap = 'skip'");
    let mut world = World::new(&text);
    world.settle().await;
    world.pass(10 * MINUTE).await;
    let ended_by = world.clock.now() + HOUR;
    let query = PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by, limit: 10 };
    let slice = world.conductor.prunable(query).await.unwrap();
    assert_eq!(world.conductor.prune(slice.removals).await.unwrap(), 1);
    let mut world = world.killed_and_started_again(&text);
    world.settle().await;
    assert!(world.made_for().await.is_empty());
    world.pass(10 * MINUTE).await;
    assert_eq!(world.made_for().await, [20]);
}

#[tokio::test]
async fn the_chore_ends_with_the_orchestrator() {
    let mut world = World::new(&every_ten_minutes("instant", ""));
    world.settle().await;
    world.conductor.drain().await;
    world.clock.advance(10 * MINUTE);
    assert_eq!(world.chore.tick().await, None);
    let job_id = JobId::compose(0, 0, 0);
    let refused = world.conductor.cancel(&Arc::from("acme"), job_id, None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::ShuttingDown);
}

/// A clock that fails whoever asks for the time of day.
struct NoTimeOfDay;

impl Clock for NoTimeOfDay {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn wall(&self) -> Timestamp {
        panic!("a clock with a fault of its own")
    }
}

#[tokio::test]
async fn an_orchestrator_whose_schedules_have_panicked_ends_and_says_so() {
    let parts =
        Parts { clock: Arc::new(NoTimeOfDay), ..Parts::new(Arc::new(MemoryStore::default())).unwrap() };
    let running = assemble(parts).unwrap().run(CancellationToken::new());
    let ended = tokio::time::timeout(MINUTE, running).await.expect("it goes on without them");
    assert_eq!(ended.unwrap_err().to_string(), "the store failed: the chore \"schedules\" has panicked");
}
