//! Parents and children: how many run at once, what comes up, what goes down, and that none of it is lost or done twice.

use avtomatika_orchestrator::engine::Retry;

use super::*;

/// The tests' blueprints: each job does what its input says.
const FAN: &str = "
blueprint: fan
states:
  scan:
    start: true
    map:
      over: initial_data.items
      task: { type: work, params: { n: '${item}', of: '${initial_data.items.size()}' }, retry: { max_retries: 0 } }
      max_parallel: 2
      tolerate: 1
    on: { success: done, failure: failed }
  done: { end: finished, result: { sum: '${results.map(r, r.data == null ? 0 : r.data.n)}', all: '${results.map(r, r.outcome)}' } }
  failed: { end: failed }
";

const WIDE: &str = "
blueprint: wide
states:
  scan:
    start: true
    map: { over: initial_data.items, task: { type: work, params: { n: '${item.n}', of: '${initial_data.of}' } } }
    on: { success: done }
  done: { end: finished, result: { count: '${results.size()}', sum: '${results[0].data.n}' } }
";

const CHILD: &str = "
blueprint: child
states:
  work: { start: true, task: { type: work, params: { n: '${initial_data.n}' }, retry: { max_retries: 0 } }, on: { success: done, failure: failed } }
  done: { end: finished, result: { n: '${state_history.n}' } }
  failed: { end: failed }
";

const PARENT: &str = "
blueprint: parent
states:
  run:
    start: true
    run: { blueprint: child, input: { n: '${initial_data.n}' }, output: { child: '${result.n}' } }
    on: { success: done, failure: failed, cancelled: failed }
  done: { end: finished, result: { n: '${state_history.child}' } }
  failed: { end: failed }
";

const GRANDPARENT: &str = "
blueprint: grandparent
states:
  run:
    start: true
    run: { blueprint: parent, input: '${initial_data}', output: { grandchild: '${result.n}' } }
    on: { success: done, failure: failed }
  done: { end: finished }
  failed: { end: failed }
";

const DEEP: &str = "
blueprint: deep
states:
  deeper: { start: true, run: { blueprint: deep }, on: { success: done } }
  done: { end: finished }
";

const LOST: &str = "
blueprint: lost
states:
  run: { start: true, run: { blueprint: nowhere }, on: { success: done } }
  done: { end: finished }
";

const CARELESS: &str = "
blueprint: careless
states:
  tell: { start: true, run: { blueprint: nowhere, wait: false }, on: { success: done } }
  done: { end: finished }
";

const TELLER: &str = "
blueprint: teller
states:
  tell: { start: true, run: { blueprint: child, input: { n: 7 }, wait: false }, on: { success: rest } }
  rest: { wait: 1h, next: done }
  done: { end: finished }
";

fn start_family(store: Arc<dyn Store>) -> Running {
    start_family_at(store, Arc::new(SystemClock::new()), JOBS_MAX)
}

fn start_family_at(store: Arc<dyn Store>, clock: Arc<dyn Clock>, max_open_jobs: usize) -> Running {
    let mut registry = Registry::default();
    for definition in [FAN, WIDE, CHILD, PARENT, GRANDPARENT, DEEP, LOST, CARELESS, TELLER] {
        let loaded = load("family.yaml", definition).unwrap_or_else(|findings| panic!("{findings:?}"));
        registry.add(Arc::new(loaded.definition.into_blueprint(1)), true);
    }
    let settings = Settings {
        limits: Limits { max_open_jobs, max_workers: 3, resident_bytes_max: RESIDENT_BYTES },
        adoption_window: Duration::from_secs(3600),
        webhooks: None,
        entropy_seed: Settings::fresh_seed().unwrap(),
    };
    conductor::start(store, clock, Arc::new(registry), settings, Arc::new(Metrics::new()))
        .expect("the conductor starts")
}

async fn submit_to(conductor: &Conductor, blueprint: &str, data: &str) -> JobId {
    let request = SubmitRequest {
        blueprint: Arc::from(blueprint),
        submission: Submission::of(Json::object(data).unwrap()),
        ..request()
    };
    conductor.submit(&acme(), request).await.expect("accepted").job_id
}

async fn job(conductor: &Conductor, job_id: JobId) -> Arc<Job> {
    conductor.get(&acme(), job_id).await.unwrap().job
}

/// The children of a job, by number.
async fn children(conductor: &Conductor, parent: JobId) -> BTreeMap<u32, Arc<Job>> {
    all_jobs(conductor)
        .await
        .into_iter()
        .filter_map(|view| {
            let found = view.job.submission.parent.clone().filter(|found| found.job_id == parent)?;
            Some((found.index, view.job))
        })
        .collect()
}

async fn all_jobs(conductor: &Conductor) -> Vec<conductor::JobView> {
    let query = ListQuery {
        client: acme(),
        statuses: vec![],
        blueprint: None,
        labels: BTreeMap::new(),
        created_from: None,
        created_before: None,
        below_key: None,
        limit: 1000,
    };
    conductor.list(query).await.unwrap().jobs
}

/// How often a job's history tells of something.
async fn times(conductor: &Conductor, job_id: JobId, event: &str) -> usize {
    let history = conductor.history(&acme(), job_id, 0, 1000).await.unwrap();
    history.iter().filter(|entry| entry.event.as_str() == event).count()
}

/// What a worker makes of a task: data for a success, a code for a failure.
type Answer = Result<String, &'static str>;

/// The task's own params as its data.
fn echo(task: &Assignment) -> Answer {
    Ok(task.offer.params.to_string())
}

impl Worker {
    async fn answer(&self, task: &Assignment, answer: Answer) {
        let (outcome, data, error) = match answer {
            Ok(data) => ("success", Json::object(&data).unwrap(), None),
            Err(code) => {
                let error = JobError { code: Arc::from(code), message: Arc::from("as the test wants it") };
                ("failure", Json::empty(), Some(error))
            }
        };
        let result = WorkerResult {
            task_id: task.offer.task_id,
            job_id: Some(task.offer.job_id),
            outcome: Arc::from(outcome),
            data,
            error,
            checkpoint: None,
        };
        self.stream.tell(FromWorker::Results(vec![result])).await;
    }

    /// The next task, whatever comes before it.
    async fn any_task(&mut self) -> Assignment {
        loop {
            if let ToWorker::Task(assignment) = self.next().await {
                return *assignment;
            }
        }
    }

    /// Does so many tasks, one after the other.
    async fn serve(&mut self, count: usize, answer: impl Fn(&Assignment) -> Answer) {
        for _ in 0..count {
            let task = self.any_task().await;
            self.answer(&task, answer(&task)).await;
        }
    }

    /// Nothing is handed to it although everything is decided.
    async fn has_no_task(&mut self, conductor: &Conductor) {
        for _ in 0..3 {
            conductor.stats().await.unwrap();
        }
        while let Ok(message) = self.messages.try_recv() {
            assert!(!matches!(message, ToWorker::Task(_)), "{message:?}");
        }
    }
}

/// `n` of a task's params.
fn n_of(task: &Assignment) -> u64 {
    let params: serde_json::Value = serde_json::from_str(&task.offer.params).unwrap();
    params["n"].as_u64().unwrap()
}

// ---- How many at once, and what comes up ----

#[tokio::test]
async fn branches_run_as_many_at_once_as_is_said_and_their_results_come_up_in_order() {
    let conductor = start_family(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let fan = submit_to(&conductor, "fan", r#"{"items":[10,11,12,13]}"#).await;
    let (first, second) = (worker.any_task().await, worker.any_task().await);
    assert_eq!([&*first.offer.params, &*second.offer.params], [r#"{"n":10,"of":4}"#, r#"{"n":11,"of":4}"#]);
    worker.has_no_task(&conductor).await;
    // The second ends first; the third takes its place.
    worker.answer(&second, echo(&second)).await;
    let third = worker.any_task().await;
    worker.has_no_task(&conductor).await;
    worker.answer(&third, echo(&third)).await;
    worker.answer(&first, echo(&first)).await;
    let fourth = worker.any_task().await;
    worker.answer(&fourth, echo(&fourth)).await;
    assert_eq!(end_of(&conductor, fan).await, JobStatus::Finished);
    let result = job(&conductor, fan).await.result.clone().unwrap();
    assert_eq!(result.as_str(), r#"{"sum":[10,11,12,13],"all":["success","success","success","success"]}"#);
    assert_eq!(times(&conductor, fan, "children_ended").await, 1);
}

#[tokio::test]
async fn as_many_branches_may_fail_as_are_tolerated() {
    let conductor = start_family(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let fan = submit_to(&conductor, "fan", r#"{"items":[0,1,2]}"#).await;
    worker.serve(3, |task| if n_of(task) == 1 { Err("PERMANENT_ERROR") } else { echo(task) }).await;
    assert_eq!(end_of(&conductor, fan).await, JobStatus::Finished);
    let result = job(&conductor, fan).await.result.clone().unwrap();
    assert_eq!(result.as_str(), r#"{"sum":[0,0,2],"all":["success","failure","success"]}"#);
}

#[tokio::test]
async fn when_too_many_branches_have_failed_the_others_are_let_go_and_no_more_begin() {
    let conductor = start_family(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let fan = submit_to(&conductor, "fan", r#"{"items":[0,1,2,3,4,5,6]}"#).await;
    let (first, second) = (worker.any_task().await, worker.any_task().await);
    worker.answer(&first, Err("PERMANENT_ERROR")).await;
    let third = worker.any_task().await;
    worker.answer(&second, Err("PERMANENT_ERROR")).await;
    // The one that is under way is called back; it may not even hear of it.
    loop {
        if let ToWorker::Cancel { task_id, .. } = worker.next().await {
            assert_eq!(task_id, third.offer.task_id);
            break;
        }
    }
    assert_eq!(end_of(&conductor, fan).await, JobStatus::Failed);
    worker.answer(&third, echo(&third)).await;
    worker.has_no_task(&conductor).await;
    let parent = job(&conductor, fan).await;
    assert_eq!(&*parent.error.as_ref().unwrap().code, "BRANCHES_FAILED");
    assert_eq!(times(&conductor, fan, "children_ended").await, 1);
    let statuses: Vec<JobStatus> = children(&conductor, fan).await.values().map(|job| job.status).collect();
    assert_eq!(statuses, [JobStatus::Failed, JobStatus::Failed, JobStatus::Cancelled]);
}

#[tokio::test]
async fn the_result_of_a_childs_child_comes_up_once() {
    let conductor = start_family(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let top = submit_to(&conductor, "grandparent", r#"{"n":42}"#).await;
    let task = worker.any_task().await;
    assert_eq!(job(&conductor, top).await.status, JobStatus::WaitingForChild);
    worker.answer(&task, echo(&task)).await;
    worker.answer(&task, echo(&task)).await;
    assert_eq!(end_of(&conductor, top).await, JobStatus::Finished);
    assert_eq!(job(&conductor, top).await.state_history.as_str(), r#"{"grandchild":42}"#);
    assert_eq!(times(&conductor, top, "children_ended").await, 1);
}

#[tokio::test]
async fn jobs_do_not_nest_for_ever() {
    let conductor = start_family(Faulty::new()).conductor;
    let top = submit_to(&conductor, "deep", "{}").await;
    assert_eq!(end_of(&conductor, top).await, JobStatus::Failed);
    assert_eq!(&*job(&conductor, top).await.error.as_ref().unwrap().code, "DEPTH_LIMIT");
    assert_eq!(all_jobs(&conductor).await.len(), 11);
}

#[tokio::test]
async fn a_child_of_an_unknown_blueprint_fails_and_so_its_parent() {
    let conductor = start_family(Faulty::new()).conductor;
    for (blueprint, jobs) in [("lost", 2), ("careless", 3)] {
        let parent = submit_to(&conductor, blueprint, "{}").await;
        assert_eq!(end_of(&conductor, parent).await, JobStatus::Failed);
        let error = job(&conductor, parent).await.error.clone().unwrap();
        assert_eq!(
            (&*error.code, &*error.message),
            ("BLUEPRINT_UNKNOWN", "There is no blueprint \"nowhere\" to run")
        );
        assert_eq!(
            all_jobs(&conductor).await.len(),
            jobs,
            "nothing is left of a child that nobody waits for"
        );
    }
}

#[tokio::test]
async fn a_child_that_never_began_is_not_repaired_and_says_who_can_be() {
    let conductor = start_family(Faulty::new()).conductor;
    let parent = submit_to(&conductor, "lost", "{}").await;
    assert_eq!(end_of(&conductor, parent).await, JobStatus::Failed);
    let jobs = all_jobs(&conductor).await;
    let child = jobs.iter().map(|view| view.job.id).find(|id| *id != parent).unwrap();
    let refused = conductor.retry(&acme(), child, retry(), conductor.admit(0).await).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotRepairable);
    assert_eq!(
        refused.message,
        "The job failed before it began, so that there is nothing to go on with: There is no blueprint \"nowhere\" to run"
    );
    let hint = format!(
        "Retry its parent, job {parent}, which starts its children anew, or submit a job with what it needs."
    );
    assert_eq!(refused.hint, hint);
}

#[tokio::test]
async fn a_house_that_is_full_still_lets_families_get_on_and_so_does_a_client_that_may_have_no_more() {
    const FULL: usize = 3;
    for (of_all, of_client) in [(FULL, None), (JOBS_MAX, Some(FULL))] {
        let conductor = start_family_at(Faulty::new(), Arc::new(SystemClock::new()), of_all).conductor;
        let terms = Terms { max_open_jobs: of_client, ..Terms::default() };
        conductor.tenancy().replace(Arc::new(Tenants::new([(acme(), Arc::new(terms))])));
        let mut worker = Worker::join(&conductor, "w1", 5).await;
        // A pair, and then a parent that takes the last place: its children come in one at a time.
        let other = submit_to(&conductor, "parent", r#"{"n":1}"#).await;
        let fan = submit_to(
            &conductor,
            "wide",
            r#"{"of":0,"items":[{"n":0},{"n":1},{"n":2},{"n":3},{"n":4},{"n":5}]}"#,
        )
        .await;
        worker.serve(7, echo).await;
        assert_eq!(end_of(&conductor, fan).await, JobStatus::Finished);
        assert_eq!(end_of(&conductor, other).await, JobStatus::Finished);
    }
}

#[tokio::test]
async fn a_family_that_found_the_house_full_gets_on_when_it_is_not_although_a_child_still_runs() {
    const FULL: usize = 3;
    let conductor = start_family_at(Faulty::new(), Arc::new(SystemClock::new()), FULL).conductor;
    let one = r#"{"n":1}"#;
    let others = [submit_to(&conductor, "child", one).await, submit_to(&conductor, "child", one).await];
    submit_to(&conductor, WIDE_PAIR.0, WIDE_PAIR.1).await;
    let until_open = async |count: u64| {
        while open_jobs(&conductor).await != count {
            tokio::task::yield_now().await;
        }
    };
    // The first of its children begins beyond the limit, and does not end: nobody works.
    until_open(4).await;
    for other in others {
        conductor.cancel(&acme(), other, None).await.unwrap();
    }
    until_open(3).await;
}

async fn open_jobs(conductor: &Conductor) -> u64 {
    let jobs = conductor.stats().await.unwrap().jobs;
    jobs.iter().filter(|(status, _)| !status.is_terminal()).map(|(_, count)| count).sum()
}

/// A parent of two.
const WIDE_PAIR: (&str, &str) = ("wide", r#"{"of":0,"items":[{"n":0},{"n":1}]}"#);

/// Jobs of these blueprints with these data, all of which are there before the first has a child.
async fn submit_at_once(
    store: &Faulty,
    conductor: &Conductor,
    jobs: Vec<(&'static str, &'static str)>,
) -> Vec<JobId> {
    let count = jobs.len() as u64;
    store.close_gate();
    let submit = |(blueprint, data)| {
        let conductor = conductor.clone();
        tokio::spawn(async move { submit_to(&conductor, blueprint, data).await })
    };
    let submissions: Vec<_> = jobs.into_iter().map(submit).collect();
    while open_jobs(conductor).await < count {
        tokio::task::yield_now().await;
    }
    store.open_gate();
    let mut ids = Vec::new();
    for submission in submissions {
        ids.push(submission.await.unwrap());
    }
    ids
}

/// Each of the parents in a full house could have a child, and each of those again.
#[tokio::test]
async fn a_full_house_takes_a_few_children_beyond_its_limit_and_in_the_end_all() {
    const FULL: usize = 100;
    let store = Faulty::new();
    let conductor = start_family_at(store.clone(), Arc::new(SystemClock::new()), FULL).conductor;
    let open = || open_jobs(&conductor);
    let parents = submit_at_once(&store, &conductor, vec![WIDE_PAIR; FULL]).await;
    // Nothing ends, and so nothing more begins.
    while open().await < 164 {}
    for _ in 0..100 {
        assert_eq!(open().await, 164, "64 beyond the limit");
    }
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    worker.serve(2 * FULL, echo).await;
    for parent in parents {
        assert_eq!(end_of(&conductor, parent).await, JobStatus::Finished);
    }
}

/// Those that wait beyond the limit wait for room, too.
#[tokio::test]
async fn families_that_found_no_room_get_on_when_there_is_some_although_no_child_ends() {
    const FULL: usize = 200;
    let (store, clock) = (Faulty::new(), ManualClock::new());
    let conductor = start_family_at(store.clone(), Arc::new(clock.clone()), FULL).conductor;
    let open = || open_jobs(&conductor);
    let parents_and_others = [WIDE_PAIR, ("child", r#"{"n":0}"#)].map(|job| vec![job; FULL / 2]).concat();
    let ids = submit_at_once(&store, &conductor, parents_and_others).await;
    while open().await < 264 {}
    // All the others end, so that there is room for 36.
    for id in &ids[FULL / 2..] {
        conductor.cancel(&acme(), *id, None).await.unwrap();
    }
    assert_eq!(open().await, 164);
    clock.advance(Duration::from_secs(1));
    while open().await < FULL as u64 {}
}

// ---- What goes down ----

#[tokio::test]
async fn cancelling_goes_down_to_the_last_child() {
    let conductor = start_family(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let top = submit_to(&conductor, "grandparent", r#"{"n":1}"#).await;
    let task = worker.any_task().await;
    conductor.cancel(&acme(), top, None).await.unwrap();
    loop {
        if let ToWorker::Cancel { task_id, .. } = worker.next().await {
            assert_eq!(task_id, task.offer.task_id);
            break;
        }
    }
    // A result does not bring any of them back.
    worker.answer(&task, echo(&task)).await;
    assert_eq!(worker.verdict().await, Verdict::Refused("job_terminal"));
    let middle = children(&conductor, top).await.remove(&0).unwrap();
    let bottom = children(&conductor, middle.id).await.remove(&0).unwrap();
    for job in [middle, bottom] {
        assert_eq!(end_of(&conductor, job.id).await, JobStatus::Cancelled);
    }
    assert_eq!(job(&conductor, top).await.status, JobStatus::Cancelled);
    assert!(conductor.stats().await.unwrap().ready_tasks.is_empty());
}

#[tokio::test]
async fn a_child_that_nobody_waits_for_lives_on_when_its_parent_ends() {
    let conductor = start_family(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let parent = submit_to(&conductor, "teller", "{}").await;
    let task = worker.any_task().await;
    conductor.cancel(&acme(), parent, None).await.unwrap();
    worker.answer(&task, echo(&task)).await;
    assert_eq!(end_of(&conductor, task.offer.job_id).await, JobStatus::Finished);
    assert_eq!(job(&conductor, parent).await.status, JobStatus::Cancelled);
}

#[tokio::test]
async fn a_child_that_is_cancelled_by_itself_is_a_failure_of_its_parent() {
    let conductor = start_family(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let parent = submit_to(&conductor, "parent", r#"{"n":1}"#).await;
    let child = worker.any_task().await.offer.job_id;
    conductor.cancel(&acme(), child, None).await.unwrap();
    assert_eq!(end_of(&conductor, parent).await, JobStatus::Failed);
}

// ---- Humans ----

fn retry() -> Retry {
    Retry { state: None, initial_data: None, state_history: None, by: acme(), reason: None, key: None }
}

#[tokio::test]
async fn a_child_that_is_started_again_does_not_resume_its_parent() {
    let conductor = start_family(Faulty::new()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let parent = submit_to(&conductor, "parent", r#"{"n":1}"#).await;
    let task = worker.any_task().await;
    worker.answer(&task, Err("PERMANENT_ERROR")).await;
    assert_eq!(end_of(&conductor, parent).await, JobStatus::Failed);
    let child = task.offer.job_id;
    conductor.retry(&acme(), child, retry(), conductor.admit(0).await).await.unwrap();
    worker.serve(1, echo).await;
    assert_eq!(end_of(&conductor, child).await, JobStatus::Finished);
    assert_eq!(job(&conductor, parent).await.status, JobStatus::Failed);
    // The parent runs a child of its own when it is started again.
    conductor.retry(&acme(), parent, retry(), conductor.admit(0).await).await.unwrap();
    let second = worker.any_task().await;
    assert_ne!(second.offer.job_id, child);
    worker.answer(&second, echo(&second)).await;
    assert_eq!(end_of(&conductor, parent).await, JobStatus::Finished);
    assert_eq!(times(&conductor, parent, "children_ended").await, 2);
}

// ---- Restarts ----

#[tokio::test]
async fn a_family_goes_on_after_a_restart_in_the_middle() {
    let store = Arc::new(MemoryStore::default());
    let before = start_family(Faulty::over(store.clone())).conductor;
    let mut worker = Worker::join(&before, "w1", 5).await;
    let fan = submit_to(&before, "fan", r#"{"items":[0,1,2,3,4]}"#).await;
    worker.serve(2, echo).await;
    let (third, fourth) = (worker.any_task().await, worker.any_task().await);

    let after = start_family(Faulty::over(store)).conductor;
    let held = vec![third.offer.task_id, fourth.offer.task_id];
    let mut worker = Worker::open(&after, worker.session_id, held.clone(), 3).await;
    assert_eq!(worker.welcome().await, (held, vec![]));
    worker.has_no_task(&after).await;
    worker.answer(&third, echo(&third)).await;
    worker.answer(&fourth, echo(&fourth)).await;
    worker.serve(1, echo).await;
    assert_eq!(end_of(&after, fan).await, JobStatus::Finished);
    let result = job(&after, fan).await.result.clone().unwrap();
    assert_eq!(
        result.as_str(),
        r#"{"sum":[0,1,2,3,4],"all":["success","success","success","success","success"]}"#
    );
    assert_eq!(times(&after, fan, "children_ended").await, 1);
    assert_eq!(children(&after, fan).await.len(), 5);
}

#[tokio::test]
async fn failures_of_before_a_restart_count() {
    let store = Arc::new(MemoryStore::default());
    let before = start_family(Faulty::over(store.clone())).conductor;
    let mut worker = Worker::join(&before, "w1", 5).await;
    let fan = submit_to(&before, "fan", r#"{"items":[0,1,2,3,4,5]}"#).await;
    let (first, second) = (worker.any_task().await, worker.any_task().await);
    worker.answer(&first, Err("PERMANENT_ERROR")).await;
    let third = worker.any_task().await;

    let after = start_family(Faulty::over(store)).conductor;
    let held = vec![second.offer.task_id, third.offer.task_id];
    let mut worker = Worker::open(&after, worker.session_id, held, 3).await;
    worker.answer(&second, Err("PERMANENT_ERROR")).await;
    assert_eq!(end_of(&after, fan).await, JobStatus::Failed);
    worker.has_no_task(&after).await;
    assert_eq!(children(&after, fan).await.len(), 3, "none of the others has begun");
}

#[tokio::test]
async fn an_end_that_the_parent_did_not_hear_of_before_a_crash_is_told_after_it() {
    let store = Arc::new(MemoryStore::default());
    let faulty = Faulty::over(store.clone());
    let before = start_family(faulty.clone()).conductor;
    let mut worker = Worker::join(&before, "w1", 5).await;
    let parent = submit_to(&before, "parent", r#"{"n":5}"#).await;
    let task = worker.any_task().await;
    worker.answer(&task, echo(&task)).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    // Whether the parent has heard of it by now or not: another orchestrator comes to the same end.
    faulty.close_gate();
    let after = start_family(Faulty::over(store)).conductor;
    assert_eq!(end_of(&after, parent).await, JobStatus::Finished);
    assert_eq!(times(&after, parent, "children_ended").await, 1);
    // The first one must not write to the store any more.
    faulty.broken.store(true, Ordering::SeqCst);
    faulty.open_gate();
}

// ---- A disk that is full, a job that is damaged ----

#[tokio::test]
async fn children_that_could_not_be_stored_are_started_again_as_the_same() {
    let store = Faulty::new();
    let conductor = start_family(store.clone()).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    // The parent is stored, and then there is no more room.
    store.close_gate();
    let submitting = tokio::spawn({
        let conductor = conductor.clone();
        async move { submit_to(&conductor, "fan", r#"{"items":[0,1,2]}"#).await }
    });
    while !conductor.stats().await.unwrap().jobs.contains_key(&JobStatus::WaitingForParallel) {
        tokio::task::yield_now().await;
    }
    store.full_after(1);
    store.open_gate();
    let fan = submitting.await.unwrap();
    while store.refused.load(Ordering::SeqCst) == 0 {
        conductor.stats().await.unwrap();
    }
    store.make_room();
    worker.serve(3, echo).await;
    assert_eq!(end_of(&conductor, fan).await, JobStatus::Finished);
    assert_eq!(children(&conductor, fan).await.len(), 3);
    assert_eq!(times(&conductor, fan, "children_ended").await, 1);
}

#[tokio::test]
async fn a_parent_that_could_not_be_cancelled_goes_on_with_its_children() {
    let (store, clock) = (Faulty::new(), ManualClock::new());
    let conductor = start_family_at(store.clone(), Arc::new(clock.clone()), JOBS_MAX).conductor;
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let fan = submit_to(&conductor, "fan", r#"{"items":[0,1,2,3]}"#).await;
    let (first, second) = (worker.any_task().await, worker.any_task().await);
    // One ends, which is stored; before another can begin, the parent is cancelled; that cannot be stored.
    store.close_gate();
    worker.answer(&first, echo(&first)).await;
    // The result is on its way to the store when this is answered.
    conductor.stats().await.unwrap();
    let cancelling = tokio::spawn({
        let conductor = conductor.clone();
        async move { conductor.cancel(&acme(), fan, None).await }
    });
    while conductor.stats().await.unwrap().jobs.contains_key(&JobStatus::WaitingForParallel) {
        tokio::task::yield_now().await;
    }
    store.full_after(1);
    store.open_gate();
    assert_eq!(cancelling.await.unwrap().unwrap_err().code, ErrorCode::StorageFull);
    // All is as before when this is answered, and the next try has its time.
    conductor.stats().await.unwrap();
    store.make_room();
    clock.advance(Duration::from_secs(1));
    worker.answer(&second, echo(&second)).await;
    worker.serve(2, echo).await;
    assert_eq!(end_of(&conductor, fan).await, JobStatus::Finished);
    assert_eq!(times(&conductor, fan, "children_ended").await, 1);
}

#[tokio::test]
async fn a_damaged_child_is_a_failed_one_and_holds_nobody_up() {
    let memory = Arc::new(MemoryStore::default());
    let before = start_family(Faulty::over(memory.clone())).conductor;
    let mut worker = Worker::join(&before, "w1", 5).await;
    let fan = submit_to(&before, "fan", r#"{"items":[0,1,2]}"#).await;
    let (first, second) = (worker.any_task().await, worker.any_task().await);
    worker.answer(&first, echo(&first)).await;
    let third = worker.any_task().await;

    let store = Faulty::over(memory);
    *store.damaged.lock().unwrap() = Some(first.offer.job_id);
    let after = start_family(store).conductor;
    let held = vec![second.offer.task_id, third.offer.task_id];
    let worker = Worker::open(&after, worker.session_id, held, 3).await;
    worker.answer(&second, echo(&second)).await;
    worker.answer(&third, echo(&third)).await;
    assert_eq!(end_of(&after, fan).await, JobStatus::Finished);
    let result = job(&after, fan).await.result.clone().unwrap();
    assert_eq!(result.as_str(), r#"{"sum":[0,1,2],"all":["failure","success","success"]}"#);
}
