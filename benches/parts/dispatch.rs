//! Tasks handed out per second, with few and many workers, and with few and many tasks waiting.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use avtomatika_orchestrator::{
    dispatch::{Dispatch, Outbox, ToWorker, Verdict},
    engine::{Entropy, Offer},
    store::{SessionRecord, WorkerRecord},
    time::Timestamp,
};
use avtomatika_proto::{JobId, SessionId, TaskId};
use tokio::sync::mpsc;

use crate::{
    Rounds, median_and_spread,
    report::{Cell, Table, median, progress},
};

const ABOUT: &str = "\
One task's way through Dispatch on one thread: offered, placed, put into a worker's outbox, taken out there,
its result answered, its slot free again. Workers have 4 slots for one type. With tasks queued, every slot is
taken and each answer hands out the next task; with none queued, every worker is idle and each offer chooses
among all of them. The tasks are one client's, or belong to many clients in turn. No log, no watcher, no stream. The cost may grow with the logarithm of the numbers, and
with what no longer fits the caches: each task goes to the worker that was longest without one.";

const SLOTS: u32 = 4;
const WORKERS: [usize; 2] = [10, 10_000];
/// Tasks that wait, and the clients that they belong to.
const QUEUED: [(usize, usize); 4] = [(0, 1), (1_000, 1), (1_000_000, 1), (1_000_000, 1_000)];

/// Tasks that go through between two looks at the time.
const TASKS_AT_ONCE: usize = 256;

pub fn measure(rounds: Rounds, quick: usize) -> Table {
    let columns = &["offers/s", "spread %", "to few workers"];
    let mut table = Table::new("dispatch", ABOUT, columns);
    for (queued, clients) in QUEUED {
        let mut with_few_workers = None;
        for workers in WORKERS {
            let (workers, queued) = (workers.div_ceil(quick), queued.div_ceil(quick));
            let what = match clients {
                1 => format!("{workers} workers, {queued} tasks queued"),
                _ => format!("{workers} workers, {queued} tasks of {clients} clients queued"),
            };
            progress(&format!("dispatch: {what}"));
            let mut floor = Floor::new(workers, queued, clients);
            let per_second = rounds.per_second(|| {
                (0..TASKS_AT_ONCE).for_each(|_| floor.one_task());
                TASKS_AT_ONCE
            });
            let [middle, spread] = median_and_spread(&per_second);
            let figure = median(&per_second);
            let share = figure / *with_few_workers.get_or_insert(figure);
            table.row(what, [middle, spread, Cell::Number(share, 2)]);
        }
    }
    table
}

/// Dispatch with its workers, who finish their tasks in the order in which they got them.
struct Floor {
    dispatch: Dispatch,
    workers: Vec<(SessionId, mpsc::Receiver<ToWorker>)>,
    by_session: HashMap<SessionId, usize>,
    held: VecDeque<(usize, TaskId)>,
    entropy: Entropy,
    task_type: Arc<str>,
    /// Each offer is the next one's.
    clients: Vec<Arc<str>>,
    next_client: usize,
    params: Arc<str>,
    now: Timestamp,
    is_queued: bool,
}

impl Floor {
    fn new(workers: usize, queued: usize, clients: usize) -> Self {
        let mut floor = Self {
            dispatch: Dispatch::default(),
            workers: Vec::with_capacity(workers),
            by_session: HashMap::new(),
            held: VecDeque::new(),
            entropy: Entropy::from_seed([7; 32]),
            task_type: Arc::from("process_data"),
            clients: (0..clients).map(|number| Arc::from(format!("client-{number}"))).collect(),
            next_client: 0,
            params: Arc::from(format!(r#"{{"input":"{}"}}"#, "x".repeat(88))),
            now: Timestamp::from_micros(1_700_000_000_000_000),
            is_queued: queued > 0,
        };
        for number in 0..workers {
            floor.connect(number);
        }
        if queued > 0 {
            for _ in 0..workers * SLOTS as usize + queued {
                floor.offer();
            }
            for worker in 0..workers {
                floor.take_tasks(worker);
            }
            let handed = floor.dispatch.take_handed().len();
            assert_eq!(handed, workers * SLOTS as usize, "every slot is taken");
        }
        floor
    }

    fn connect(&mut self, number: usize) {
        let session_id = SessionId::from_random(self.entropy.next_u128());
        let worker = WorkerRecord {
            worker_id: Arc::from(format!("worker-{number}")),
            worker_type: Arc::from("bench"),
            task_types: vec![self.task_type.clone()],
            slots: SLOTS,
            labels: Default::default(),
            resources: Default::default(),
            hostname: Arc::from("bench"),
            sdk_version: Arc::from(""),
            ..WorkerRecord::default()
        };
        let record = SessionRecord {
            session_id,
            worker: Arc::new(worker),
            credential: [0; 32],
            opened_at: self.now,
            reproach: None,
        };
        let (outbox, mut messages) = Outbox::new();
        self.dispatch.connect(&record, &[], outbox, self.now);
        self.dispatch.credits(session_id, SLOTS, self.now);
        assert!(matches!(messages.try_recv(), Ok(ToWorker::Welcome { .. })), "the welcome comes first");
        self.by_session.insert(session_id, number);
        self.workers.push((session_id, messages));
    }

    fn offer(&mut self) -> TaskId {
        self.now = self.now + Duration::from_micros(1);
        // As the engine makes them: in the order of time.
        let job_id = JobId::of_key(self.now.as_micros(), self.entropy.next_u64());
        let task_id = TaskId::of_job(job_id, self.entropy.next_u64());
        self.next_client = (self.next_client + 1) % self.clients.len();
        let offer = Offer {
            task_id,
            job_id,
            client: self.clients[self.next_client].clone(),
            task_type: self.task_type.clone(),
            needs: None,
            // Of its own, as the engine makes it.
            params: Arc::from(&*self.params),
            attempt: 1,
            checkpoint: None,
            trace: None,
            priority: 0,
            timeout: Duration::from_secs(300),
            ready_at: self.now,
        };
        self.dispatch.offer(offer, self.now);
        task_id
    }

    /// What the worker's stream does: it takes what there is.
    fn take_tasks(&mut self, worker: usize) {
        while let Ok(message) = self.workers[worker].1.try_recv() {
            if let ToWorker::Task(assignment) = message {
                self.held.push_back((worker, assignment.offer.task_id));
            }
        }
    }

    /// One task comes, and one goes.
    fn one_task(&mut self) {
        let offered = self.offer();
        if !self.is_queued {
            let lease = self.dispatch.lease(offered).expect("an idle worker has the task");
            self.take_tasks(self.by_session[&lease.session_id]);
        }
        let (worker, task_id) = self.held.pop_front().expect("workers hold tasks");
        self.dispatch.answer(self.workers[worker].0, task_id, Verdict::Applied, self.now);
        self.take_tasks(worker);
        assert_eq!(self.dispatch.take_handed().len(), 1, "each task that leaves makes room for one");
    }
}
