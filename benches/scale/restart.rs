//! A crash with many open jobs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use avtomatika_worker::{TaskContext, TaskError, Worker, WorkerHandle};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::{
    Figures, Goal, Size,
    load::{data, fill},
    process::{NAME, Orchestrator, WORKER_TOKEN},
    progress,
    report::Table,
};

const ABOUT: &str = "\
With the open jobs of 1 KB stored, a worker of the SDK holds 8 tasks. The orchestrator is killed (SIGKILL) and
started again at once; meanwhile the tasks end. Times count from the start of the new process: `ready` is the
recovery (/readyz answers 200), `connected` when the worker, which comes back by itself, has its stream again,
`new task` when it gets the first task that it did not have before.";

const JOBS: u64 = 1_000_000;
const SLOTS: u32 = 8;

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("restart", ABOUT);
    let jobs = size.of(JOBS);
    progress(&format!("restart: {jobs} jobs"));
    let mut orchestrator = Orchestrator::start(&size.dir).await;
    fill(&orchestrator.url(), jobs, &data(1024)).await;
    let hands = Hands::default();
    let mut worker = start_worker(&orchestrator.url(), &hands);
    hands.until_begun(u64::from(SLOTS)).await;

    progress("restart: kill and start");
    orchestrator.kill();
    let before = hands.let_go();
    let started = orchestrator.start_again(&[]);
    // That the old stream has ended it learns from the system, long before the new process serves.
    while worker.is_connected() {
        tokio::task::yield_now().await;
    }
    orchestrator.ready().await;
    let ready = started.elapsed();
    worker.registered().await.expect("the worker comes back");
    let connected = started.elapsed();
    let new_task = hands.until_begun(before + 1).await.duration_since(started);
    let case = |what: &str| format!("{what} after, s");
    figures.add(case("ready"), ready.as_secs_f64(), 3, Goal::None);
    figures.add(case("connected"), connected.as_secs_f64(), 3, Goal::None);
    figures.add(case("new task"), new_task.as_secs_f64(), 3, Goal::AtMost(2.0));
    figures.add("largest memory of the new process, MiB", orchestrator.peak_mib(), 1, Goal::AtMost(512.0));
    figures.0
}

/// What the worker's handlers know of each other.
#[derive(Clone, Default)]
struct Hands(Arc<Inner>);

#[derive(Default)]
struct Inner {
    begun: watch::Sender<u64>,
    /// The first task that began after the hands let go.
    first_after: Mutex<Option<Instant>>,
    may_end: Notify,
    let_go: AtomicBool,
}

impl Hands {
    /// Waits until so many tasks have begun; says when the first one began after [`Hands::let_go`].
    async fn until_begun(&self, tasks: u64) -> Instant {
        let mut begun = self.0.begun.subscribe();
        // The sender lives as long as this.
        let _ = begun.wait_for(|&begun| begun >= tasks).await;
        self.0.first_after.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(Instant::now)
    }

    /// The tasks that are held may end, and so may all that follow. Returns how many have begun.
    fn let_go(&self) -> u64 {
        self.0.let_go.store(true, Ordering::SeqCst);
        self.0.may_end.notify_waiters();
        *self.0.begun.borrow()
    }

    async fn hold(&self) {
        let may_end = self.0.may_end.notified();
        let is_after = self.0.let_go.load(Ordering::SeqCst);
        if is_after {
            self.0
                .first_after
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(Instant::now);
        }
        self.0.begun.send_modify(|begun| *begun += 1);
        if !is_after {
            may_end.await;
        }
    }
}

fn start_worker(url: &str, hands: &Hands) -> WorkerHandle {
    let hands = hands.clone();
    let handler = move |_: Value, _: TaskContext| {
        let hands = hands.clone();
        async move {
            hands.hold().await;
            Ok::<_, TaskError>(json!({ "ok": true }))
        }
    };
    let worker = Worker::builder(url)
        .token(WORKER_TOKEN)
        .worker_id("bench-restart")
        .slots(SLOTS)
        .handle(NAME, handler)
        .build()
        .expect("a worker");
    let handle = worker.handle();
    // It lives as long as the runtime.
    tokio::spawn(worker.run_until(std::future::pending::<()>()));
    handle
}
