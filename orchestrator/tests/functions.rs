//! Functions of the process itself as steps of jobs: over a real conductor and a real store, without a socket.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use avtomatika_orchestrator::{
    Parts, StartError, assemble,
    blueprint::{
        Blueprint, Definition, RetryPolicy,
        builder::{code, finished},
    },
    conductor::{Conductor, JobView, SubmitRequest},
    engine::{HistoryEvent, JobStatus},
    functions::{Call, Functions, Outcome, TaskError, WORKER_ID},
    json::Json,
    store::{Store, StoreError, journal, memory::MemoryStore},
};
use avtomatika_proto::JobId;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that must happen; far beyond what it takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An orchestrator without a listener.
struct Embedded {
    conductor: Conductor,
    client: Arc<str>,
    stop: CancellationToken,
    ran: JoinHandle<Result<(), StoreError>>,
}

impl Embedded {
    fn start(functions: Functions) -> Self {
        Self::over(Arc::new(MemoryStore::default()), functions)
    }

    fn over(store: Arc<dyn Store>, functions: Functions) -> Self {
        let parts =
            Parts { definitions: definitions(), drain_timeout: PATIENCE, ..Parts::new(store).unwrap() };
        let app = assemble(parts).unwrap().with_functions(functions).unwrap();
        let conductor = app.conductor().clone();
        let stop = CancellationToken::new();
        let ran = tokio::spawn(app.run(stop.clone()));
        Self { conductor, client: Arc::from("acme"), stop, ran }
    }

    async fn submit(&self, blueprint: &str, initial_data: Value) -> JobId {
        let input = Json::object(&initial_data.to_string()).unwrap();
        let submitted =
            in_time(self.conductor.submit(&self.client, SubmitRequest::of(blueprint, input))).await;
        submitted.unwrap().job_id
    }

    /// Follows the job until it satisfies the condition.
    async fn until(&self, job_id: JobId, condition: impl Fn(&JobView) -> bool) -> JobView {
        let mut watch = in_time(self.conductor.watch(&self.client, job_id)).await.unwrap();
        loop {
            let view = in_time(watch.next()).await.expect("the job ended too early").unwrap();
            if condition(&view) {
                return view;
            }
        }
    }

    async fn end_of(&self, job_id: JobId) -> JobView {
        self.until(job_id, |view| view.status().is_terminal()).await
    }

    async fn history(&self, job_id: JobId) -> Vec<HistoryEvent> {
        let entries = self.conductor.history(&self.client, job_id, 0, 100).await.unwrap();
        entries.into_iter().map(|entry| entry.event).collect()
    }

    async fn stop(self) {
        self.stop.cancel();
        in_time(self.ran).await.unwrap().unwrap();
    }
}

/// Fails the test instead of hanging it.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}

fn definitions() -> Vec<Definition> {
    let step = |function: &str| {
        let soon = RetryPolicy {
            max_retries: 1,
            initial_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(1),
            multiplier: 1.0,
        };
        code(function).param("n", "${initial_data.n}").retry(soon).on("success", "done")
    };
    let of = |function: &str, step: avtomatika_orchestrator::blueprint::builder::Task| {
        Blueprint::builder(function).start("call", step).state("done", finished()).build().unwrap()
    };
    vec![
        of("add_one", step("add_one")),
        of("brittle", step("brittle").on("rejected", "done")),
        of("slow", step("slow")),
        of("short", step("short").timeout(Duration::from_millis(50))),
    ]
}

async fn add_one(params: Value, _: Call) -> Result<Value, TaskError> {
    let n = params["n"].as_i64().ok_or_else(|| TaskError::invalid_input("n is no number"))?;
    Ok(json!({ "n": n + 1 }))
}

/// A function that says when it is called, and waits for the test to let it end.
#[derive(Clone, Default)]
struct Held {
    calls: Arc<AtomicU32>,
    begun: Arc<Notify>,
    release: Arc<Notify>,
}

impl Held {
    fn serve(&self, functions: Functions, name: &str) -> Functions {
        let held = self.clone();
        functions.add(name, move |_: Value, _: Call| {
            let held = held.clone();
            async move {
                held.calls.fetch_add(1, Ordering::SeqCst);
                held.begun.notify_one();
                held.release.notified().await;
                Ok(json!({ "held": true }))
            }
        })
    }
}

#[tokio::test]
async fn a_function_does_the_work_of_a_state() {
    let orchestrator = Embedded::start(Functions::new().add("add_one", add_one));
    let job_id = orchestrator.submit("add_one", json!({ "n": 41 })).await;
    let job = orchestrator.end_of(job_id).await.job;
    assert_eq!(job.status, JobStatus::Finished);
    assert_eq!(job.state_history.to_string(), r#"{"n":42}"#);
    let entries = orchestrator.conductor.history(&orchestrator.client, job_id, 0, 100).await.unwrap();
    let done = entries.iter().find(|entry| entry.event == HistoryEvent::TaskSucceeded).unwrap();
    assert_eq!(done.worker_id.as_deref(), Some(WORKER_ID));
    let workers = orchestrator.conductor.workers().await.unwrap();
    assert_eq!(workers[0].worker.task_types, [Arc::from("code:add_one")]);
    orchestrator.stop().await;
}

#[tokio::test]
async fn whatever_a_function_does_only_its_attempt_suffers() {
    let brittle = |params: Value, call: Call| async move {
        match params["n"].as_u64() {
            Some(1) => panic!("a fault of its own"),
            Some(2) => Err(TaskError::permanent("beyond repair")),
            Some(3) => Err(TaskError::invalid_input("not like this")),
            Some(4) if call.attempt() == 1 => Err(TaskError::transient("try again")),
            Some(5) => Ok(Outcome::custom("rejected", json!({ "why": "no" }))),
            Some(6) => Ok(Outcome::custom("unheard_of", ())),
            Some(7) => Ok(Outcome::success([1, 2])),
            _ => Ok(Outcome::success(json!({ "attempt": call.attempt() }))),
        }
    };
    let panics = |params: Value, _: Call| match params["n"].as_u64() {
        Some(1) => panic!("a fault of its own"),
        _ => Ok(json!({ "attempt": 1 })),
    };
    let functions = Functions::new().add("brittle", brittle).add_blocking("add_one", panics);
    let orchestrator = Embedded::start(functions);
    let cases = [
        (
            "brittle",
            1,
            JobStatus::Quarantined,
            "TRANSIENT_ERROR: Task failed after 2 attempts: the function panicked: a fault of its own",
        ),
        ("brittle", 2, JobStatus::Quarantined, "PERMANENT_ERROR: beyond repair"),
        ("brittle", 3, JobStatus::Failed, "INVALID_INPUT_ERROR: not like this"),
        ("brittle", 4, JobStatus::Finished, r#"{"attempt":2}"#),
        ("brittle", 5, JobStatus::Finished, r#"{"why":"no"}"#),
        ("brittle", 6, JobStatus::Failed, "UNHANDLED_OUTCOME: Worker returned unhandled status: unheard_of"),
        (
            "brittle",
            7,
            JobStatus::Quarantined,
            "INVALID_RESULT_ERROR: the result is not usable: expected a JSON object, got an array",
        ),
        (
            "add_one",
            1,
            JobStatus::Quarantined,
            "TRANSIENT_ERROR: Task failed after 2 attempts: the function panicked: a fault of its own",
        ),
        ("add_one", 8, JobStatus::Finished, r#"{"attempt":1}"#),
    ];
    for (blueprint, n, status, said) in cases {
        let job_id = orchestrator.submit(blueprint, json!({ "n": n })).await;
        let job = orchestrator.end_of(job_id).await.job;
        let heard = match &job.error {
            Some(error) => format!("{}: {}", error.code, error.message),
            None => job.state_history.to_string(),
        };
        assert_eq!((job.status, heard.as_str()), (status, said), "{blueprint} {n}");
    }
    orchestrator.stop().await;
}

#[tokio::test]
async fn params_that_do_not_fit_the_function_are_bad_input() {
    let typed = |n: (u32, u32), _: Call| async move { Ok(json!({ "n": n.0 })) };
    let orchestrator = Embedded::start(Functions::new().add("add_one", typed));
    let job_id = orchestrator.submit("add_one", json!({ "n": 1 })).await;
    let error = orchestrator.end_of(job_id).await.job.error.clone().unwrap();
    assert_eq!(&*error.code, "INVALID_INPUT_ERROR");
    assert!(error.message.starts_with("the params do not fit the function: "), "{}", error.message);
    orchestrator.stop().await;
}

#[tokio::test]
async fn cancelling_a_job_reaches_its_function() {
    let (heard, hears) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (cancelled, began) = (heard.clone(), hears.clone());
    let slow = move |_: Value, call: Call| {
        let (cancelled, began) = (cancelled.clone(), began.clone());
        async move {
            began.notify_one();
            call.cancellation().cancelled().await;
            cancelled.notify_one();
            Ok(())
        }
    };
    let orchestrator = Embedded::start(Functions::new().add("slow", slow));
    let job_id = orchestrator.submit("slow", json!({ "n": 1 })).await;
    in_time(hears.notified()).await;
    orchestrator.conductor.cancel(&orchestrator.client, job_id, None).await.unwrap();
    in_time(heard.notified()).await;
    assert_eq!(orchestrator.end_of(job_id).await.status(), JobStatus::Cancelled);
    orchestrator.stop().await;
}

#[tokio::test]
async fn a_function_that_takes_too_long_is_dropped() {
    let dropped = Arc::new(Notify::new());
    struct Tell(Arc<Notify>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let drops = dropped.clone();
    let short = move |_: Value, _: Call| {
        let tell = Tell(drops.clone());
        async move {
            let _tell = tell;
            std::future::pending::<Result<(), TaskError>>().await
        }
    };
    let orchestrator = Embedded::start(Functions::new().add("short", short));
    let job_id = orchestrator.submit("short", json!({ "n": 1 })).await;
    let job = orchestrator.end_of(job_id).await.job;
    let error = job.error.clone().unwrap();
    assert_eq!((job.status, &*error.code), (JobStatus::Quarantined, "TIMEOUT_ERROR"));
    assert_eq!(&*error.message, "Task failed after 2 attempts: the function ran longer than 50ms");
    in_time(dropped.notified()).await;
    orchestrator.stop().await;
}

#[tokio::test]
async fn a_thread_that_does_not_stop_keeps_its_slot_and_stalls_nobody() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    // The first call ignores that its time is over; its thread ends when the test says so.
    let short = move |params: Value, _: Call| {
        if params["n"] == 1 {
            released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        Ok(json!({ "n": params["n"] }))
    };
    let functions = Functions::new().slots(2).add_blocking("short", short).add("add_one", add_one);
    let orchestrator = Embedded::start(functions);
    let slots = || async { orchestrator.conductor.workers().await.unwrap()[0].running_tasks };
    let stuck = orchestrator.submit("short", json!({ "n": 1 })).await;
    // Its only attempt with a retry left: the retry blocks on the lock of the first, and both threads are stuck.
    let job = orchestrator.end_of(stuck).await.job;
    assert_eq!(job.status, JobStatus::Quarantined, "{:?}", job.error);
    assert_eq!(slots().await, 0, "nothing is held any more");
    let waits = orchestrator.submit("add_one", json!({ "n": 1 })).await;
    let view = orchestrator.conductor.get(&orchestrator.client, waits).await.unwrap();
    assert_eq!(view.status(), JobStatus::WaitingForWorker, "both slots are taken by threads that run on");
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(orchestrator.end_of(waits).await.status(), JobStatus::Finished);
    orchestrator.stop().await;
}

#[tokio::test]
async fn what_an_attempt_has_saved_is_there_for_the_next_and_progress_is_seen() {
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let slow = move |_: Value, call: Call| {
        let released = released.clone();
        async move {
            let Some(saved) = call.checkpoint() else {
                call.save(json!({ "page": 7 }))?;
                call.progress(0.5, "half");
                released.notified().await;
                return Err(TaskError::transient("lost the connection"));
            };
            Ok(Value::Object(saved.to_map()))
        }
    };
    let orchestrator = Embedded::start(Functions::new().add("slow", slow));
    let job_id = orchestrator.submit("slow", json!({ "n": 1 })).await;
    let progress = |view: &JobView| view.lease.as_ref().and_then(|lease| lease.progress.clone());
    let view =
        orchestrator.until(job_id, |view| progress(view).is_some_and(|said| said.fraction > 0.0)).await;
    assert_eq!(&*progress(&view).unwrap().message, "half");
    release.notify_one();
    assert_eq!(orchestrator.end_of(job_id).await.job.state_history.to_string(), r#"{"page":7}"#);
    orchestrator.stop().await;
}

#[tokio::test]
async fn what_is_saved_at_the_last_moment_is_not_lost() {
    let slow = |_: Value, call: Call| async move {
        let page = call.checkpoint().map_or(0, |saved| saved.to_map()["page"].as_u64().unwrap());
        if page == 1 {
            return Ok(json!({ "page": page }));
        }
        call.save(json!({ "page": page + 1 }))?;
        Err(TaskError::transient("lost the connection"))
    };
    let orchestrator = Embedded::start(Functions::new().add("slow", slow));
    let mut jobs = Vec::new();
    for n in 0..20 {
        jobs.push(orchestrator.submit("slow", json!({ "n": n })).await);
    }
    for job_id in jobs {
        assert_eq!(orchestrator.end_of(job_id).await.job.state_history.to_string(), r#"{"page":1}"#);
    }
    orchestrator.stop().await;
}

#[tokio::test]
async fn a_job_waits_for_a_process_that_has_its_function() {
    let store = Arc::new(MemoryStore::default());
    let without = Embedded::over(store.clone(), Functions::new());
    let job_id = without.submit("add_one", json!({ "n": 1 })).await;
    let view = without.conductor.get(&without.client, job_id).await.unwrap();
    assert_eq!(view.status(), JobStatus::WaitingForWorker);
    without.stop().await;
    let with = Embedded::over(store, Functions::new().add("add_one", add_one));
    assert_eq!(with.end_of(job_id).await.status(), JobStatus::Finished);
    with.stop().await;
}

#[tokio::test]
async fn an_orchestrator_that_stops_lets_its_calls_end() {
    let held = Held::default();
    let store = Arc::new(MemoryStore::default());
    let orchestrator = Embedded::over(store.clone(), held.serve(Functions::new(), "slow"));
    let job_id = orchestrator.submit("slow", json!({ "n": 1 })).await;
    in_time(held.begun.notified()).await;
    let stopping = tokio::spawn(orchestrator.stop());
    held.release.notify_one();
    in_time(stopping).await.unwrap();
    let job = store.load(job_id).unwrap().unwrap();
    assert_eq!(job.status, JobStatus::Finished, "the result was durable before the end");
    assert_eq!(store.sessions().unwrap().len(), 0, "nobody is expected back");
}

#[tokio::test]
async fn a_call_that_does_not_end_in_time_is_given_back_and_made_again() {
    let held = Held::default();
    let store = Arc::new(MemoryStore::default());
    let functions = held.serve(Functions::new(), "slow");
    let parts = Parts {
        definitions: definitions(),
        drain_timeout: Duration::from_millis(20),
        ..Parts::new(store.clone()).unwrap()
    };
    let app = assemble(parts).unwrap().with_functions(functions.clone()).unwrap();
    let conductor = app.conductor().clone();
    let stop = CancellationToken::new();
    let ran = tokio::spawn(app.run(stop.clone()));
    let request = SubmitRequest::of("slow", Json::object(r#"{"n":1}"#).unwrap());
    let job_id = conductor.submit(&Arc::from("acme"), request).await.unwrap().job_id;
    in_time(held.begun.notified()).await;
    stop.cancel();
    in_time(ran).await.unwrap().unwrap();
    let again = Embedded::over(store, functions);
    in_time(held.begun.notified()).await;
    held.release.notify_one();
    let job = again.end_of(job_id).await.job;
    assert_eq!((job.status, job.retry_count, job.workers_lost), (JobStatus::Finished, 0, 0));
    assert!(again.history(job_id).await.contains(&HistoryEvent::TaskReturned));
    again.stop().await;
}

#[tokio::test]
async fn functions_that_nobody_could_call_are_refused() {
    let app = assemble(Parts::new(Arc::new(MemoryStore::default())).unwrap()).unwrap();
    let refused = app.with_functions(Functions::new().add("code:x", add_one)).err().unwrap();
    assert!(matches!(refused, StartError::Function(_)), "{refused}");
}

// ---- Killed ----

const DIR: &str = "AVTOMATIKA_TEST_FUNCTIONS";

/// Runs in a process of its own, which the test below kills.
#[test]
#[ignore = "the other half of the test that kills it"]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let slow = |_: Value, call: Call| async move {
            println!("\ncalled {} {} {}", call.job_id(), call.task_id(), call.attempt());
            std::future::pending::<Result<(), TaskError>>().await
        };
        let store = Arc::new(journal::open(Path::new(&dir)).unwrap());
        let orchestrator = Embedded::over(store, Functions::new().add("slow", slow));
        if orchestrator.conductor.stats().await.unwrap().jobs.is_empty() {
            orchestrator.submit("slow", json!({ "n": 1 })).await;
        }
        orchestrator.ran.await.unwrap().unwrap();
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the other process; returns it with what it says.
fn start(dir: &Path) -> (Killed, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (Killed(child), lines)
}

#[tokio::test]
async fn a_killed_process_makes_its_calls_again_and_that_counts_against_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut called = Vec::new();
    // More often than a task may cost workers their lives.
    for _ in 0..4 {
        let (process, mut lines) = start(dir.path());
        let call = lines.find_map(|line| Some(line.strip_prefix("called ")?.to_owned()));
        called.push(call.expect("the function is called"));
        drop(process);
    }
    assert!(called.iter().all(|call| *call == called[0]), "one attempt, made again: {called:?}");
    let store = Arc::new(journal::open(dir.path()).unwrap());
    let quick = |_: Value, _: Call| async { Ok(json!({ "done": true })) };
    let orchestrator = Embedded::over(store, Functions::new().add("slow", quick));
    let job_id = called[0].split_once(' ').unwrap().0.parse().unwrap();
    let job = orchestrator.end_of(job_id).await.job;
    assert_eq!((job.status, job.retry_count, job.workers_lost), (JobStatus::Finished, 0, 0));
    let history = orchestrator.history(job_id).await;
    assert!(!history.contains(&HistoryEvent::WorkerLost), "{history:?}");
    orchestrator.stop().await;
}
