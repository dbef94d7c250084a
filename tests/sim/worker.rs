//! Workers, good and bad: what they do with what they are told. Each kind is one way in which programs that nobody knows, on
//! machines that come and go, behave.

use std::{collections::BTreeMap, sync::Arc};

use avtomatika_orchestrator::{
    conductor::{FromWorker, Progress, WorkerResult},
    dispatch::{Assignment, Farewell, ToWorker, Verdict},
    engine::JobError,
    json::Json,
    store::WorkerRecord,
};
use avtomatika_proto::{ErrorCode, JobId, SessionId, TaskId};

use crate::{
    blueprints::TASK_TYPES,
    faults::{MS, SECOND},
    invariants::{Checked, Invariant, require},
    random::Random,
    world::{Happening, Wish, World},
};

/// How a worker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Does what it is asked, in time.
    Honest,
    /// Often takes longer than it may.
    Slow,
    /// Dies in the middle, and comes back knowing nothing.
    Crashing,
    /// Stands still for seconds, and goes on as if nothing had happened.
    Stalling,
    /// Says everything several times.
    Repeating,
    /// Does not stop when it is told to, and reports what nobody waits for any more.
    Late,
    /// Speaks of tasks that are not its own, and of jobs that are not there.
    Lying,
    /// Comes and goes.
    Flapping,
    /// Drains, gives back what it has, and comes back.
    Leaving,
}

impl Kind {
    pub const ALL: &[Kind] = &[
        Self::Honest,
        Self::Slow,
        Self::Crashing,
        Self::Stalling,
        Self::Repeating,
        Self::Late,
        Self::Lying,
        Self::Flapping,
        Self::Leaving,
    ];
}

/// A task in a worker's hands.
struct Held {
    job_id: JobId,
    result: Option<WorkerResult>,
}

/// A worker's process, and what it remembers.
pub struct Worker {
    pub kind: Kind,
    /// Whether it is, or was, one that lies.
    pub may_lie: bool,
    /// Whether it is, or was, one that reports what nobody waits for any more. It may be given that very task before the answer.
    pub speaks_late: bool,
    record: WorkerRecord,
    credential: [u8; 32],
    /// Counts its processes: what was to happen in an earlier one does not.
    life: u32,
    session: Option<SessionId>,
    /// Counts its connections.
    pub link: u32,
    pub is_connected: bool,
    held: BTreeMap<TaskId, Held>,
    /// Results that it was told to forget, and did not.
    kept: Vec<WorkerResult>,
    stalled_until: i64,
}

/// What a worker does by itself.
#[derive(Debug, Clone, Copy)]
pub enum Move {
    /// Connects, or registers first.
    Connect,
    /// Ends an attempt.
    Finish(TaskId),
    /// Reports a result that is not acknowledged.
    Report(TaskId),
    /// Notices that its connection is gone.
    NoticeLoss(u32),
    /// Does what is bad about it.
    Misbehave,
}

impl Worker {
    pub fn new(number: usize, kind: Kind, serves_all: bool, random: &mut Random) -> Self {
        let serves = |random: &mut Random| {
            let mut types: Vec<Arc<str>> = TASK_TYPES.iter().copied().map(Arc::from).collect();
            if !serves_all {
                types.remove(random.below(types.len() as u64) as usize);
            }
            types
        };
        let record = WorkerRecord {
            worker_id: Arc::from(format!("worker-{number}")),
            worker_type: Arc::from("sim"),
            task_types: serves(random),
            slots: random.between(1, 4) as u32,
            labels: BTreeMap::new(),
            resources: BTreeMap::new(),
            hostname: Arc::from("sim"),
            sdk_version: Arc::from("1"),
            ..WorkerRecord::default()
        };
        Self {
            kind,
            may_lie: kind == Kind::Lying,
            speaks_late: kind == Kind::Late,
            record,
            credential: [number as u8; 32],
            life: 0,
            session: None,
            link: 0,
            is_connected: false,
            held: BTreeMap::new(),
            kept: Vec::new(),
            stalled_until: 0,
        }
    }
}

impl World {
    // ---- What a worker does by itself ----

    pub fn worker_moves(&mut self, number: usize, life: u32, what: Move) -> Checked {
        let worker = &mut self.workers[number];
        if worker.life != life {
            return Ok(());
        }
        if worker.stalled_until > self.now {
            let until = worker.stalled_until - self.now;
            self.after(until, Happening::Worker { number, life, what });
            return Ok(());
        }
        match what {
            Move::Connect => self.connect(number),
            Move::Finish(task_id) => self.finish(number, task_id),
            Move::Report(task_id) => self.report(number, task_id),
            Move::NoticeLoss(link) => {
                if self.workers[number].link == link {
                    self.connection_is_gone(number);
                }
            }
            Move::Misbehave => self.misbehave(number),
        }
        Ok(())
    }

    pub fn worker_will(&mut self, number: usize, delay: i64, what: Move) {
        let life = self.workers[number].life;
        self.after(delay, Happening::Worker { number, life, what });
    }

    fn connect(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        if worker.is_connected {
            return;
        }
        worker.link += 1;
        let link = worker.link;
        let wish = match worker.session {
            None => {
                Wish::Register { number, link, worker: worker.record.clone(), credential: worker.credential }
            }
            Some(session_id) => {
                let mut held: Vec<TaskId> = worker.held.keys().copied().collect();
                let credential = worker.credential;
                if worker.kind == Kind::Lying && !self.is_calm {
                    held.extend(self.somebody_elses_task().map(|(task_id, _)| task_id));
                }
                Wish::Open { number, link, session_id, credential, held }
            }
        };
        self.request(wish);
    }

    /// The connection is gone, and the worker knows it.
    pub fn connection_is_gone(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        worker.is_connected = false;
        worker.link += 1;
        let pause = self.random.between(10 * MS, 400 * MS);
        self.worker_will(number, pause, Move::Connect);
    }

    /// What it tried over this link came to nothing.
    pub fn try_again(&mut self, number: usize, link: u32, error: Option<ErrorCode>) {
        let worker = &mut self.workers[number];
        if worker.link != link || worker.is_connected {
            return;
        }
        if matches!(error, Some(ErrorCode::SessionUnknown | ErrorCode::InvalidToken)) {
            worker.session = None;
        }
        let pause = self.random.between(50 * MS, 2 * SECOND);
        self.worker_will(number, pause, Move::Connect);
    }

    pub fn registered(&mut self, number: usize, link: u32, session_id: SessionId) {
        let worker = &mut self.workers[number];
        if worker.link == link && !worker.is_connected {
            worker.session = Some(session_id);
            self.connect(number);
        }
    }

    fn finish(&mut self, number: usize, task_id: TaskId) {
        let (kind, is_calm) = (self.workers[number].kind, self.is_calm);
        let Some(held) = self.workers[number].held.get_mut(&task_id) else { return };
        if held.result.is_none() {
            let job_id = Some(held.job_id);
            held.result = Some(result(&mut self.random, task_id, job_id, kind, is_calm));
        }
        self.report(number, task_id);
    }

    fn report(&mut self, number: usize, task_id: TaskId) {
        let worker = &self.workers[number];
        let Some(result) = worker.held.get(&task_id).and_then(|held| held.result.clone()) else { return };
        if worker.is_connected {
            let copies = if worker.kind == Kind::Repeating { self.random.between(1, 4) } else { 1 };
            for _ in 0..copies {
                self.send_up(number, FromWorker::Results(vec![result.clone()]));
            }
        }
        let again = self.random.between(SECOND, 3 * SECOND);
        self.worker_will(number, again, Move::Report(task_id));
    }

    fn misbehave(&mut self, number: usize) {
        if self.is_calm {
            self.workers[number].kind = Kind::Honest;
            return;
        }
        let pause = match self.workers[number].kind {
            Kind::Honest | Kind::Slow | Kind::Repeating => return,
            Kind::Crashing => {
                self.worker_dies(number);
                self.random.between(SECOND / 10, 4 * SECOND)
            }
            Kind::Stalling => {
                self.workers[number].stalled_until = self.now + self.random.between(SECOND, 12 * SECOND);
                self.random.between(2 * SECOND, 30 * SECOND)
            }
            Kind::Late => {
                let kept = std::mem::take(&mut self.workers[number].kept);
                if self.workers[number].is_connected && !kept.is_empty() {
                    self.send_up(number, FromWorker::Results(kept));
                }
                self.random.between(SECOND / 2, 4 * SECOND)
            }
            Kind::Lying => {
                self.lie(number);
                self.random.between(20 * MS, SECOND)
            }
            Kind::Flapping => {
                let is_connected = self.workers[number].is_connected;
                if is_connected {
                    self.hang_up(number);
                }
                200 * MS
            }
            Kind::Leaving => {
                self.leave(number);
                self.random.between(2 * SECOND, 10 * SECOND)
            }
        };
        self.worker_will(number, pause, Move::Misbehave);
    }

    fn worker_dies(&mut self, number: usize) {
        if self.random.chance(500) {
            self.hang_up(number);
        } else {
            // Its machine has lost power: nobody says goodbye, and its silence is noticed later than it is back.
            let link = self.workers[number].link;
            if let Some(stream) = self.process.stream_mut(number, link) {
                stream.is_cut = true;
            }
            let pause = self.random.between(SECOND, 3 * SECOND);
            self.server_notices(number, link, pause);
        }
        let worker = &mut self.workers[number];
        worker.life += 1;
        worker.session = None;
        worker.held.clear();
        worker.is_connected = false;
        worker.link += 1;
        let pause = self.random.between(50 * MS, 3 * SECOND);
        self.worker_will(number, pause, Move::Connect);
    }

    /// It drains, gives its tasks back, and is gone for a moment.
    fn leave(&mut self, number: usize) {
        if !self.workers[number].is_connected {
            return;
        }
        self.send_up(number, FromWorker::Drain);
        let running: Vec<TaskId> = self.workers[number].held.keys().copied().collect();
        for task_id in running {
            let Some(held) = self.workers[number].held.get_mut(&task_id) else { continue };
            let error = error("WORKER_STOPPED");
            let (job_id, outcome, data) = (Some(held.job_id), Arc::from("failure"), Json::empty());
            held.result.get_or_insert(WorkerResult {
                task_id,
                job_id,
                outcome,
                data,
                error: Some(error),
                checkpoint: None,
            });
            self.report(number, task_id);
        }
        let pause = self.random.between(10 * MS, SECOND);
        let link = self.workers[number].link;
        self.worker_will(number, pause, Move::NoticeLoss(link));
        self.server_notices(number, link, pause);
    }

    fn lie(&mut self, number: usize) {
        if !self.workers[number].is_connected {
            return;
        }
        let message = match self.random.below(5) {
            0 => FromWorker::Credits(*self.random.pick(&[0, 1, 1000, u32::MAX])),
            1 => FromWorker::State { hot_cache: vec![Arc::from("cut")], load: 7.5 },
            choice => {
                let Some((task_id, job_id)) = self.somebody_elses_task() else { return };
                let job_id = match self.random.below(4) {
                    0 => None,
                    1 => Some(JobId::compose(1, 2, 3)),
                    _ => Some(job_id),
                };
                if choice == 2 {
                    let progress = Progress { fraction: 0.5, message: Arc::from(""), checkpoint: None };
                    FromWorker::Progress(task_id, progress)
                } else {
                    let outcome = Arc::from("success");
                    let data = Json::object("{\"lie\":true}").unwrap();
                    FromWorker::Results(vec![WorkerResult {
                        task_id,
                        job_id,
                        outcome,
                        data,
                        error: None,
                        checkpoint: None,
                    }])
                }
            }
        };
        self.send_up(number, message);
    }

    /// An attempt at a random job, held by whoever.
    fn somebody_elses_task(&mut self) -> Option<(TaskId, JobId)> {
        if self.model.ids.is_empty() {
            return None;
        }
        let count = self.model.ids.len() as u64;
        let back = self.random.below(count.min(40));
        let id = self.model.ids[(count - 1 - back) as usize];
        let job = self.model.job(id)?;
        let task_id = job.attempt.as_ref().map(|attempt| attempt.task_id).or(job.settled_task)?;
        Some((task_id, id))
    }

    // ---- What a worker is told ----

    pub fn worker_hears(&mut self, number: usize, link: u32, message: ToWorker) -> Checked {
        let worker = &mut self.workers[number];
        if worker.link != link {
            return Ok(());
        }
        if worker.stalled_until > self.now {
            let until = worker.stalled_until - self.now;
            self.after(until, Happening::Down { number, link, message });
            return Ok(());
        }
        match message {
            ToWorker::Welcome { adopted, dropped } => self.welcomed(number, &adopted, &dropped),
            ToWorker::Task(assignment) => return self.start_task(number, &assignment),
            ToWorker::Cancel { task_id, .. } => self.told_to_stop(number, task_id),
            ToWorker::Ack { task_id, verdict } => self.acknowledged(number, task_id, verdict),
            ToWorker::Drain | ToWorker::Draining => {}
            ToWorker::Goodbye(farewell) => {
                if farewell == Farewell::Replaced {
                    worker.session = None;
                }
                self.connection_is_gone(number);
            }
        }
        Ok(())
    }

    fn welcomed(&mut self, number: usize, adopted: &[TaskId], dropped: &[TaskId]) {
        let worker = &mut self.workers[number];
        worker.is_connected = true;
        for task_id in dropped {
            if let Some(held) = worker.held.remove(task_id)
                && worker.kind == Kind::Late
            {
                worker.kept.extend(held.result);
            }
        }
        worker.held.retain(|task_id, _| adopted.contains(task_id));
        // A lie of the time before would cost a slot for ever: whoever has told one begins anew.
        if self.is_calm && worker.held.len() < adopted.len() {
            return self.hang_up(number);
        }
        let finished = worker.held.iter().filter(|(_, held)| held.result.is_some());
        let finished: Vec<TaskId> = finished.map(|(task_id, _)| *task_id).collect();
        let slots = worker.record.slots;
        self.send_up(number, FromWorker::Credits(slots));
        finished.into_iter().for_each(|task_id| self.report(number, task_id));
    }

    fn start_task(&mut self, number: usize, assignment: &Assignment) -> Checked {
        let (task_id, job_id) = (assignment.offer.task_id, assignment.offer.job_id);
        let worker = &mut self.workers[number];
        worker.held.insert(task_id, Held { job_id, result: None });
        let (held, slots, may_lie) = (worker.held.len(), worker.record.slots as usize, worker.may_lie);
        // Whoever reports what has not ended has its slot back before it is free.
        require(held <= slots || may_lie, Invariant::SlotsAreRespected, || {
            format!("{} has {slots} slots and is given task {held}", self.workers[number].record.worker_id)
        })?;
        let kind = self.workers[number].kind;
        let slow = kind == Kind::Slow && !self.is_calm && self.random.chance(400);
        let needs = if slow {
            self.random.between(4 * SECOND, 12 * SECOND)
        } else {
            self.random.between(MS, 40 * MS) * if self.random.chance(50) { 50 } else { 1 }
        };
        if self.random.chance(100) {
            let checkpoint = self.random.chance(500).then(|| Json::object("{\"at\":1}").unwrap());
            let progress = Progress { fraction: 0.1, message: Arc::from("so far"), checkpoint };
            self.send_up(number, FromWorker::Progress(task_id, progress));
        }
        self.worker_will(number, needs, Move::Finish(task_id));
        Ok(())
    }

    fn told_to_stop(&mut self, number: usize, task_id: TaskId) {
        let worker = &mut self.workers[number];
        if worker.kind == Kind::Late {
            return;
        }
        let Some(held) = worker.held.get_mut(&task_id) else { return };
        if held.result.is_none() {
            let (job_id, outcome) = (Some(held.job_id), Arc::from("cancelled"));
            held.result = Some(WorkerResult {
                task_id,
                job_id,
                outcome,
                data: Json::empty(),
                error: None,
                checkpoint: None,
            });
        }
        let pause = self.random.between(MS, 20 * MS);
        self.worker_will(number, pause, Move::Report(task_id));
    }

    fn acknowledged(&mut self, number: usize, task_id: TaskId, verdict: Verdict) {
        if verdict == Verdict::RetryLater {
            let pause = self.random.between(SECOND / 2, SECOND);
            return self.worker_will(number, pause, Move::Report(task_id));
        }
        let worker = &mut self.workers[number];
        // Only a result can be acknowledged: the answer to a lie is not one to a task that runs.
        if worker.held.get(&task_id).is_some_and(|held| held.result.is_some())
            && let Some(held) = worker.held.remove(&task_id)
            && worker.kind == Kind::Late
        {
            worker.kept.extend(held.result);
        }
    }
}

/// How an attempt ends.
fn result(
    random: &mut Random,
    task_id: TaskId,
    job_id: Option<JobId>,
    kind: Kind,
    is_calm: bool,
) -> WorkerResult {
    let (outcome, code) = match if is_calm { 0 } else { random.below(100) } {
        0..80 => ("success", None),
        80..88 => ("failure", Some("TRANSIENT_ERROR")),
        88..90 => ("failure", Some("PERMANENT_ERROR")),
        90 => ("failure", Some("INVALID_INPUT_ERROR")),
        91 => ("failure", Some("CAUGHT")),
        92 => ("failure", Some("WORKER_STOPPED")),
        93 => ("timeout", None),
        94 => ("cancelled", None),
        95 if kind == Kind::Lying => ("no such word", None),
        _ => ("again", None),
    };
    let data = match random.below(3) {
        0 => Json::empty(),
        1 => Json::object("{\"size\":3}").unwrap(),
        _ => Json::object("{\"kind\":\"b\",\"list\":[1,2]}").unwrap(),
    };
    WorkerResult {
        task_id,
        job_id,
        outcome: Arc::from(outcome),
        data,
        error: code.map(error),
        checkpoint: None,
    }
}

fn error(code: &str) -> JobError {
    JobError { code: Arc::from(code), message: Arc::from("as it happens") }
}
