//! Keys: how many hold them, who waits, who is refused or cancelled, and that a full disk and a restart change none of it.

use avtomatika_orchestrator::conductor::{Reason, Situation};

use super::*;

const TASKS: &str = r#"
blueprint: story
states:
  init:
    start: true
    task: { type: work, concurrency: { key: '"tenant:" + initial_data.tenant', limit: 2 }, retry: { max_retries: 0 } }
    on: { success: done }
  done: { end: finished }
"#;

const JOBS: &str = r#"
blueprint: story
concurrency: { key: initial_data.tenant, limit: 1, policy: POLICY }
states:
  first: { start: true, task: { type: work }, on: { success: second } }
  second: { task: { type: work }, on: { success: done } }
  done: { end: finished }
"#;

const BRANCHES: &str = r#"
blueprint: story
concurrency: { key: "'whole'", limit: 1 }
states:
  fan:
    start: true
    map:
      over: initial_data.pages
      task: { type: work, concurrency: [ { key: "'page'", limit: 2 }, { key: "'whole'", limit: 1 } ] }
    on: { success: done }
  done: { end: finished }
"#;

const MAILS: &str = r#"
blueprint: story
states:
  init: { start: true, task: { type: work, rate: { key: "'mail'", limit: 10, per: 10s, burst: 2 } }, on: { success: done } }
  done: { end: finished }
"#;

fn jobs_with(policy: &str) -> String {
    JOBS.replace("POLICY", policy)
}

fn serve(store: Arc<dyn Store>, definition: &str) -> Conductor {
    start_with(store, Arc::new(SystemClock::new()), definition, RESIDENT_BYTES).conductor
}

async fn submit_for(conductor: &Conductor, data: &str) -> Result<JobId, ErrorCode> {
    let submission = Submission::of(Json::object(data).unwrap());
    let submitted = conductor.submit(&acme(), SubmitRequest { submission, ..request() }).await;
    submitted.map(|submitted| submitted.job_id).map_err(|error| error.code)
}

async fn job_for(conductor: &Conductor, tenant: &str) -> JobId {
    submit_for(conductor, &format!(r#"{{"tenant":"{tenant}"}}"#)).await.unwrap()
}

async fn status(conductor: &Conductor, job_id: JobId) -> JobStatus {
    conductor.get(&acme(), job_id).await.unwrap().status()
}

async fn until(conductor: &Conductor, job_id: JobId, wanted: JobStatus) -> Arc<Job> {
    let mut watch = conductor.watch(&acme(), job_id).await.unwrap();
    while let Some(update) = watch.next().await {
        let update = update.unwrap();
        if update.status() == wanted {
            return update.job;
        }
    }
    panic!("the job ended and was never {wanted}");
}

#[tokio::test]
async fn no_more_attempts_have_a_key_than_it_allows_and_the_next_one_follows_at_once() {
    let conductor = serve(Faulty::new(), TASKS);
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(job_for(&conductor, "a").await);
    }
    let other = job_for(&conductor, "b").await;
    let mut tasks = Vec::new();
    for expected in [jobs[0], jobs[1], other] {
        let task = worker.task().await;
        assert_eq!(task.offer.job_id, expected);
        tasks.push(task);
    }
    for waiting in &jobs[2..] {
        assert_eq!(status(&conductor, *waiting).await, JobStatus::WaitingForKey);
    }
    worker.report(&tasks[1]).await;
    let next = worker.task().await;
    assert_eq!(next.offer.job_id, jobs[2]);
    assert_eq!(status(&conductor, jobs[3]).await, JobStatus::WaitingForKey);
    worker.report(&tasks[0]).await;
    worker.report(&next).await;
    let last = worker.task().await;
    worker.report(&last).await;
    worker.report(&tasks[2]).await;
    for job_id in jobs.into_iter().chain([other]) {
        assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
    }
}

#[tokio::test]
async fn a_job_has_its_key_until_its_end_and_a_cancelled_one_lets_go() {
    let conductor = serve(Faulty::new(), &jobs_with("queue"));
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let [first, second, third] =
        [job_for(&conductor, "a").await, job_for(&conductor, "a").await, job_for(&conductor, "a").await];
    let task = worker.task().await;
    worker.report(&task).await;
    let task = worker.task().await;
    assert_eq!(task.offer.job_id, first, "between its states it has the key too");
    assert_eq!(status(&conductor, second).await, JobStatus::WaitingForKey);
    // One that waits is cancelled: it was never in the way.
    conductor.cancel(&acme(), second, None).await.unwrap();
    assert_eq!(status(&conductor, third).await, JobStatus::WaitingForKey);
    conductor.cancel(&acme(), first, None).await.unwrap();
    let job = until(&conductor, third, JobStatus::Running).await;
    assert!(job.claim.is_some());
}

#[tokio::test]
async fn the_newest_is_refused_by_name_and_makes_no_job() {
    let conductor = serve(Faulty::new(), &jobs_with("refuse_newest"));
    let first = job_for(&conductor, "a").await;
    let data = r#"{"tenant":"a"}"#;
    assert_eq!(submit_for(&conductor, data).await, Err(ErrorCode::KeyLimitReached));
    assert_eq!(conductor.stats().await.unwrap().jobs, BTreeMap::from([(JobStatus::WaitingForWorker, 1)]));
    job_for(&conductor, "b").await;
    conductor.cancel(&acme(), first, None).await.unwrap();
    assert!(submit_for(&conductor, data).await.is_ok());
}

#[tokio::test]
async fn the_oldest_is_cancelled_by_name_for_the_newest() {
    let conductor = serve(Faulty::new(), &jobs_with("cancel_oldest"));
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let old = job_for(&conductor, "a").await;
    let task = worker.task().await;
    let new = job_for(&conductor, "a").await;
    assert_eq!(end_of(&conductor, old).await, JobStatus::Cancelled);
    let error = conductor.get(&acme(), old).await.unwrap().job.error.clone().unwrap();
    assert_eq!(&*error.code, "KEY_TAKEN_OVER");
    assert!(error.message.contains(&new.to_string()), "{}", error.message);
    // Its worker is told, and the newer one has its turn.
    let mut told = false;
    loop {
        match worker.next().await {
            ToWorker::Cancel { task_id, .. } => told = task_id == task.offer.task_id,
            ToWorker::Task(next) => {
                assert_eq!(next.offer.job_id, new);
                break;
            }
            _ => {}
        }
    }
    assert!(told);
}

#[tokio::test]
async fn branches_take_keys_of_their_own_and_work_under_those_of_their_parent() {
    let conductor = serve(Faulty::new(), BRANCHES);
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let parent = submit_for(&conductor, r#"{"pages":[1,2,3,4]}"#).await.unwrap();
    let second = submit_for(&conductor, r#"{"pages":[]}"#).await.unwrap();
    let mut held = vec![worker.task().await, worker.task().await];
    for more in [true, true, false, false] {
        let view = conductor.get(&acme(), parent).await.unwrap();
        assert_eq!(view.status(), JobStatus::WaitingForParallel);
        assert!(worker.messages.try_recv().is_err(), "two pages at once");
        assert_eq!(status(&conductor, second).await, JobStatus::WaitingForKey);
        let task = held.remove(0);
        worker.report(&task).await;
        assert_eq!(worker.verdict().await, Verdict::Applied);
        if more {
            held.push(worker.task().await);
        }
    }
    for job_id in [parent, second] {
        assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
    }
}

#[tokio::test]
async fn a_full_disk_takes_nobody_a_key_and_gives_nobody_one() {
    let store = Faulty::new();
    let conductor = serve(store.clone(), TASKS);
    let mut worker = Worker::join(&conductor, "w1", 5).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(job_for(&conductor, "a").await);
    }
    let (first, second) = (worker.task().await, worker.task().await);
    store.full_after(0);
    // The end of one that has the key comes to nothing, and so does the turn of the one that waits.
    worker.report(&first).await;
    assert_eq!(worker.verdict().await, Verdict::RetryLater);
    assert_eq!(submit_for(&conductor, r#"{"tenant":"a"}"#).await, Err(ErrorCode::StorageFull));
    assert_eq!(status(&conductor, jobs[2]).await, JobStatus::WaitingForKey);
    store.make_room();
    worker.report(&second).await;
    let third = worker.task().await;
    assert_eq!(third.offer.job_id, jobs[2]);
    worker.report(&first).await;
    worker.report(&third).await;
    for job_id in jobs {
        assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
    }
}

#[tokio::test]
async fn a_restart_leaves_every_key_with_those_who_have_it() {
    let store = Arc::new(MemoryStore::default());
    let mut jobs = Vec::new();
    let (session_id, held);
    {
        let conductor = serve(Faulty::over(store.clone()), TASKS);
        let mut worker = Worker::join(&conductor, "w1", 5).await;
        for _ in 0..4 {
            jobs.push(job_for(&conductor, "a").await);
        }
        held = vec![worker.task().await, worker.task().await];
        session_id = worker.session_id;
    }
    // Another process over the same store; the worker comes back with one of the two.
    let conductor = serve(Faulty::over(store), TASKS);
    let tasks = vec![held[0].offer.task_id];
    let mut worker = Worker::open(&conductor, session_id, tasks.clone(), 5).await;
    assert_eq!(worker.welcome().await, (tasks, vec![]));
    let again = worker.task().await;
    assert_eq!(again.offer.job_id, jobs[1], "it has the key, and is handed out again");
    for waiting in &jobs[2..] {
        assert_eq!(status(&conductor, *waiting).await, JobStatus::WaitingForKey);
    }
    worker.report(&held[0]).await;
    let third = worker.task().await;
    assert_eq!(third.offer.job_id, jobs[2]);
    worker.report(&again).await;
    worker.report(&third).await;
    let last = worker.task().await;
    worker.report(&last).await;
    for job_id in jobs {
        assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
    }
}

#[tokio::test]
async fn the_attempt_after_a_lost_worker_has_the_place_of_the_lost_one() {
    let conductor = serve(Faulty::new(), TASKS);
    let mut lost = Worker::join(&conductor, "w1", 5).await;
    let [first, second, third] =
        [job_for(&conductor, "a").await, job_for(&conductor, "a").await, job_for(&conductor, "a").await];
    lost.task().await;
    lost.task().await;
    lost.stream.tell(FromWorker::Ended).await;
    let mut worker = Worker::join(&conductor, "w2", 5).await;
    let tasks = [worker.task().await, worker.task().await];
    // They were lost in the same moment, so either may be the first.
    let mut again = tasks.each_ref().map(|task| task.offer.job_id);
    again.sort();
    assert_eq!(again, [first, second]);
    assert_eq!(status(&conductor, third).await, JobStatus::WaitingForKey);
    worker.report(&tasks[0]).await;
    assert_eq!(worker.task().await.offer.job_id, third);
}

#[tokio::test]
async fn starts_of_a_rate_come_one_by_one_and_a_restart_fills_no_bucket() {
    let store = Arc::new(MemoryStore::default());
    let clock = ManualClock::new();
    let serve = || {
        let store = Faulty::over(store.clone());
        start_with(store, Arc::new(clock.clone()), MAILS, RESIDENT_BYTES).conductor
    };
    let conductor = serve();
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(submit(&conductor).await);
    }
    let ready = async |conductor: &Conductor| {
        let jobs = conductor.stats().await.unwrap().jobs;
        jobs.get(&JobStatus::WaitingForWorker).copied().unwrap_or(0)
    };
    assert_eq!(ready(&conductor).await, 2, "so many in a row");
    clock.advance(Duration::from_millis(999));
    assert_eq!(ready(&conductor).await, 2);
    drop(conductor);
    // The clock of the next process is behind that of the one before.
    clock.advance(Duration::ZERO);
    let conductor = serve();
    assert_eq!(ready(&conductor).await, 2);
    let explanation = conductor.explain(&acme(), jobs[2]).await.unwrap();
    let Situation::Keys { keys, .. } = &explanation.situation else { panic!("{explanation:?}") };
    assert_eq!(keys[0].next_token_at, Some(clock.now() + Duration::from_millis(1)));
    clock.advance(Duration::from_millis(1));
    // Whoever asks wakes the conductor, whose own sleep goes by another clock.
    while ready(&conductor).await < 3 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(1));
    while ready(&conductor).await < 4 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_waits_for_a_key_is_told_which_and_who_has_it() {
    let conductor = serve(Faulty::new(), &jobs_with("queue"));
    let [first, second, third] =
        [job_for(&conductor, "a").await, job_for(&conductor, "a").await, job_for(&conductor, "a").await];
    let explanation = conductor.explain(&acme(), third).await.unwrap();
    assert_eq!(explanation.reason(), Reason::Key);
    let Situation::Keys { keys, .. } = &explanation.situation else { panic!("{explanation:?}") };
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!((&*key.share.key, key.held, key.ahead, key.waiting), ("a", 1, 1, 2));
    assert_eq!(key.holders, [first]);
    // Another client's jobs are counted and not named.
    let submission = Submission::of(Json::object(r#"{"tenant":"a"}"#).unwrap());
    let other: Arc<str> = Arc::from("umbrella");
    let foreign = conductor.submit(&other, SubmitRequest { submission, ..request() }).await.unwrap().job_id;
    let explanation = conductor.explain(&other, foreign).await.unwrap();
    let Situation::Keys { keys, .. } = &explanation.situation else { panic!("{explanation:?}") };
    assert_eq!((keys[0].held, keys[0].ahead, keys[0].holders.as_slice()), (1, 2, &[][..]));
    conductor.cancel(&acme(), second, None).await.unwrap();
}
