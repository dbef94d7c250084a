//! One run: everything that happens, in the order of virtual time, from one seed.
//!
//! First a time in which things go wrong, and nothing that was promised may break; then a time in which nothing goes wrong any
//! more, and everything must come to its end.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::Arc,
    time::Duration,
};

use avtomatika_orchestrator::{
    blueprint::Registry,
    conductor::{FromWorker, stepped::Reading},
    dispatch::ToWorker,
    engine::{Event, Submission},
    metrics::Metrics,
    schedule::Schedule,
    store::{NoticeId, NoticeRecord, Removal, Store, WorkerRecord, journal::torn},
    time::{Hands, Timestamp},
};
use avtomatika_proto::{JobId, SessionId, TaskId};

use crate::{
    blueprints,
    clock::WorldClock,
    editions::versions_of,
    faults::{Faults, MS, SECOND},
    invariants::{Checked, Invariant, Violation, require},
    model::Model,
    process::{Process, Synced},
    quick::QuickSet,
    random::Random,
    schedules,
    sometimes::Sometimes,
    store::Disk,
    tale::Tale,
    trace::{Detail, Trace},
    worker::{Move, Worker},
};

/// When everything must have ended after the last fault. The longest way of a job, with every retry and every deadline, is
/// shorter.
const CALM_MAX: i64 = 1800 * SECOND;

/// Happenings at one and the same moment: more, and somebody turns in circles.
const AT_ONCE_MAX: u64 = 50_000;

/// What somebody wants of the orchestrator.
pub enum Wish {
    Submit { number: usize },
    Act { client: Option<Arc<str>>, job_id: JobId, event: Box<Event> },
    Watch { client: Arc<str>, job_id: JobId },
    Register { number: usize, link: u32, worker: WorkerRecord, credential: [u8; 32] },
    Open { number: usize, link: u32, session_id: SessionId, credential: [u8; 32], held: Vec<TaskId> },
    Redeliver { client: Arc<str>, job_id: JobId, id: Option<NoticeId> },
    Prune { removals: Vec<Removal> },
}

/// Something that happens.
pub enum Happening {
    // ---- In the orchestrator's process. Those with a life concern nobody after its end ----
    Start,
    Kill { life: u32 },
    Stop { life: u32 },
    Pause,
    Wake { life: u32 },
    Sync { life: u32 },
    Told { life: u32, outcome: Synced },
    Read { life: u32 },
    Back { life: u32, reading: Box<Reading> },
    Look { life: u32 },
    Post { life: u32, id: NoticeId },
    Posted { life: u32, id: NoticeId, after: Option<Box<NoticeRecord>> },
    Schedules { life: u32 },
    Put,
    Migrate,
    // ---- Around it ----
    ClockIsSet,
    DiskFills,
    DiskHasRoom,
    Prune,
    // ---- On the way ----
    Arrives(Box<Wish>),
    Up { life: u32, session_id: SessionId, stream: u64, message: Box<FromWorker> },
    Down { number: usize, link: u32, message: ToWorker },
    Registered { number: usize, link: u32, session_id: SessionId },
    // ---- With the others ----
    Worker { number: usize, life: u32, what: Move },
    Client,
}

/// A happening and its moment.
struct Slot {
    at: i64,
    number: u64,
    what: Happening,
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Slot {}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slot {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Everything there is.
pub struct World {
    pub random: Random,
    pub faults: Faults,
    pub now: i64,
    /// Happenings so far.
    pub steps: u64,
    pub is_calm: bool,
    pub trace: Trace,
    pub model: Model,
    pub clock: WorldClock,
    pub disk: Arc<Disk>,
    /// Where the journal writes.
    pub torn: torn::Place,
    pub disk_is_full: bool,
    /// Whether any job of the run owes anybody a message.
    pub has_webhooks: bool,
    pub process: Process,
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    pub blueprints: Vec<Arc<str>>,
    pub workers: Vec<Worker>,
    pub clients: Vec<Arc<str>>,
    pub schedules: Vec<Arc<Schedule>>,
    /// What each intent of the model asks for.
    pub submissions: Vec<Submission>,
    pub client_pause: i64,
    /// Connections that break when nobody holds the list of them.
    pub cuts: Vec<(usize, u32)>,
    pub commits: u64,
    pub check_every: u64,
    queue: BinaryHeap<Reverse<Slot>>,
    scheduled: u64,
    at_once: u64,
    stormy_steps: u64,
    calm_since: i64,
}

impl World {
    /// The world of this seed.
    pub fn new(seed: u64, metrics: &Arc<Metrics>, detail: Detail) -> Self {
        let mut random = Random::of(seed);
        let faults = Faults::draw(&mut random);
        let (registry, names) = blueprints::draw(&mut random);
        let registry = Arc::new(registry);
        let serves_all = |number: usize| number == 0 || faults.max_workers < 10;
        let workers = faults.workers.iter().enumerate();
        let workers = workers.map(|(n, kind)| Worker::new(n, *kind, serves_all(n), &mut random)).collect();
        let schedules = schedules::draw(&mut random, faults.schedules, &names);
        let mut world = Self {
            now: 0,
            steps: 0,
            is_calm: false,
            trace: Trace::new(detail),
            model: Model::new(registry.clone(), faults.max_open_jobs, &schedules),
            clock: WorldClock::new(),
            disk: Arc::new(Disk::default()),
            torn: torn::Place::default(),
            disk_is_full: false,
            has_webhooks: faults.webhooks > 0,
            process: Process::default(),
            registry,
            metrics: metrics.clone(),
            blueprints: names,
            workers,
            schedules,
            clients: ["acme", "globex"].map(Arc::from).to_vec(),
            submissions: Vec::new(),
            client_pause: *random.pick(&[2 * MS, 20 * MS, 100 * MS]),
            cuts: Vec::new(),
            commits: 0,
            check_every: 16,
            queue: BinaryHeap::new(),
            scheduled: 0,
            at_once: 0,
            stormy_steps: random.between(500, 6000) as u64,
            calm_since: 0,
            faults,
            random,
        };
        world.trace.say(0, || format!("seed {seed}: {:?}", world.faults));
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.after(0, Happening::Start);
        for number in 0..self.workers.len() {
            let pause = self.random.between(1, SECOND / 2);
            self.worker_will(number, pause, Move::Connect);
            self.worker_will(number, pause + SECOND, Move::Misbehave);
        }
        self.after(MS, Happening::Client);
        let (jumps, pauses, fills) = (self.faults.clock_is_set, self.faults.pauses, self.faults.full_disk);
        let (prunes, editions) = (self.faults.prunes, self.faults.editions);
        for (is_on, what) in [
            (jumps, Happening::ClockIsSet),
            (pauses, Happening::Pause),
            (fills, Happening::DiskFills),
            (prunes, Happening::Prune),
            (editions, Happening::Put),
            (editions, Happening::Migrate),
        ] {
            if is_on {
                let pause = self.random.between(SECOND, 5 * SECOND);
                self.after(pause, what);
            }
        }
    }

    /// Something will happen, so many microseconds from now.
    pub fn after(&mut self, delay: i64, what: Happening) {
        self.scheduled += 1;
        self.queue.push(Reverse(Slot { at: self.now + delay.max(0), number: self.scheduled, what }));
    }

    /// Somebody sends a request. It may get lost, as may its answer.
    pub fn request(&mut self, wish: Wish) {
        let unanswered = self.faults.unanswered;
        if self.random.chance(unanswered / 2) {
            if let Wish::Register { number, link, .. } | Wish::Open { number, link, .. } = wish {
                self.try_again(number, link, None);
            }
            return;
        }
        if let Wish::Submit { number } = wish
            && self.model.intents[number].key.is_some()
            && self.random.chance(unanswered / 2)
        {
            let way = self.way();
            self.after(way, Happening::Arrives(Box::new(Wish::Submit { number })));
        }
        let way = self.way();
        self.after(way, Happening::Arrives(Box::new(wish)));
    }

    /// Runs to the end of the run, or to what must not be.
    pub fn run(&mut self) -> Checked {
        loop {
            if !self.is_calm && self.steps >= self.stormy_steps {
                self.calm_down()?;
            }
            if self.is_calm && self.open_jobs() == Some(0) && self.model.owed.pending() == 0 {
                return self.end();
            }
            let Some(Reverse(slot)) = self.queue.pop() else {
                return require(false, Invariant::EverythingEnds, || "nothing will ever happen again".into());
            };
            self.at_once = if slot.at == self.now { self.at_once + 1 } else { 0 };
            require(self.at_once < AT_ONCE_MAX, Invariant::TimeGoesOn, || "time stands still".into())?;
            self.now = slot.at;
            self.clock.pass_to(self.now);
            self.step(slot.what)?;
            if self.is_calm {
                require(self.now - self.calm_since < CALM_MAX, Invariant::EverythingEnds, || {
                    self.still_open()
                })?;
            }
        }
    }

    fn step(&mut self, what: Happening) -> Checked {
        if self.process.stands_until > self.now && what.is_in_the_process() {
            let until = self.process.stands_until - self.now;
            self.after(until, what);
            return Ok(());
        }
        self.steps += 1;
        self.trace.add(self.now as u64);
        match what {
            Happening::Start => self.start(),
            Happening::Kill { life } => self.kill(life),
            Happening::Stop { life } => self.stop(life),
            Happening::Pause => self.pause(),
            Happening::Wake { life } => {
                // An alarm after which nothing is decided is no happening.
                self.steps -= 1;
                let decided = self.wakes(life)?;
                self.steps += u64::from(decided);
                Ok(())
            }
            Happening::Sync { life } => self.sync(life),
            Happening::Told { life, outcome } => self.told(life, outcome),
            Happening::Read { life } => {
                self.read(life);
                Ok(())
            }
            Happening::Back { life, reading } => self.back(life, *reading),
            Happening::Look { life } => {
                // An alarm of the chore: what it takes leaves step by step.
                self.steps -= 1;
                self.look_for_notices(life)
            }
            Happening::Schedules { life } => {
                // An alarm: what follows from it is committed, step by step.
                self.steps -= 1;
                self.look_at_schedules(life)
            }
            Happening::Put => self.puts_blueprint(),
            Happening::Migrate => self.migrates(),
            Happening::Post { life, id } => self.post(life, id),
            Happening::Posted { life, id, after } => self.posted(life, id, after.map(|after| *after)),
            Happening::ClockIsSet => self.set_clock(),
            Happening::DiskFills => self.fill_disk(),
            Happening::DiskHasRoom => {
                self.disk_is_full = false;
                Ok(())
            }
            Happening::Prune => {
                self.prune();
                Ok(())
            }
            Happening::Arrives(wish) => self.arrives(*wish),
            Happening::Up { life, session_id, stream, message } => {
                if life == self.model.life {
                    self.worker_says(session_id, stream, *message)
                } else {
                    Ok(())
                }
            }
            Happening::Down { number, link, message } => self.worker_hears(number, link, message),
            Happening::Registered { number, link, session_id } => {
                self.registered(number, link, session_id);
                Ok(())
            }
            Happening::Worker { number, life, what } => self.worker_moves(number, life, what),
            Happening::Client => {
                self.client_acts();
                Ok(())
            }
        }
    }

    // ---- Faults around the process ----

    fn pause(&mut self) -> Checked {
        if !self.is_calm {
            self.process.stands_until = self.now + self.random.between(SECOND / 10, 30 * SECOND);
            self.model.met.mark(Sometimes::Paused);
            let pause = self.random.between(10 * SECOND, 60 * SECOND);
            self.after(pause, Happening::Pause);
        }
        Ok(())
    }

    fn set_clock(&mut self) -> Checked {
        if !self.is_calm {
            let hour = 3600 * SECOND;
            let by = *self.random.pick(&[-hour, hour, -40 * SECOND, 40 * SECOND, -24 * hour]);
            self.clock.set(by);
            if self.process.up.is_some() {
                self.model.met.mark(Sometimes::ClockSetWhileRunning);
            }
            let pause = self.random.between(SECOND, 10 * SECOND);
            self.after(pause, Happening::ClockIsSet);
        }
        Ok(())
    }

    fn fill_disk(&mut self) -> Checked {
        if !self.is_calm {
            self.disk_is_full = true;
            let until = self.random.between(MS, 3 * SECOND);
            self.after(until, Happening::DiskHasRoom);
            let pause = self.random.between(until, until + 5 * SECOND);
            self.after(pause, Happening::DiskFills);
        }
        Ok(())
    }

    // ---- The end ----

    /// The faults end. Whoever sets the clock right starts the process again, so that it takes notice.
    fn calm_down(&mut self) -> Checked {
        self.trace.say(self.now, || "-- from now on nothing goes wrong".into());
        self.is_calm = true;
        self.calm_since = self.now;
        self.faults.end();
        self.disk_is_full = false;
        self.disk.let_reads_fail(0);
        self.process.stands_until = self.now;
        self.clock.set_right();
        self.dies()
    }

    fn still_open(&self) -> String {
        let open = self.model.jobs.values().find(|known| !known.job.status.is_terminal());
        open.map_or_else(
            || format!("still to be delivered: {:?}", self.model.owed.first_pending()),
            |known| format!("still open: {}", self.describe(known.job.id)),
        )
    }

    /// The last look at everything: what is stored is what was committed, and each job is what its stored history tells.
    fn end(&mut self) -> Checked {
        self.check_disk()?;
        for (number, known) in self.model.jobs.values().enumerate() {
            if number % 4 != 0 {
                continue;
            }
            let job = &known.job;
            let history = self.disk.synced().history(job.id, 0, usize::MAX).unwrap_or_default();
            let mut tale = Tale::new();
            let mut settled = QuickSet::default();
            let versions = versions_of(job, &history);
            for (life, (entry, version)) in history.iter().zip(versions).enumerate() {
                let Some(law) = self.model.registry().version(&job.blueprint, version) else { continue };
                // The process may have died between any two of them.
                tale.tell(entry, law, life as u32, &mut settled)?;
            }
            tale.agrees_with(job)?;
        }
        let lost = self.model.acknowledged().find(|known| !known.job.status.is_terminal());
        require(lost.is_none(), Invariant::EverythingEnds, || self.still_open())
    }

    /// What the wall clock shows.
    pub fn wall(&self) -> i64 {
        self.clock.wall().as_micros()
    }

    /// What the clock of the process shows.
    pub fn now_of_the_process(&self) -> Timestamp {
        self.process.started_at() + Duration::from_micros((self.now - self.process.started_when()) as u64)
    }
}

impl Happening {
    fn is_in_the_process(&self) -> bool {
        matches!(
            self,
            Self::Stop { .. }
                | Self::Wake { .. }
                | Self::Sync { .. }
                | Self::Told { .. }
                | Self::Read { .. }
                | Self::Back { .. }
                | Self::Look { .. }
                | Self::Schedules { .. }
                | Self::Put
                | Self::Migrate
                | Self::Post { .. }
                | Self::Posted { .. }
                | Self::Arrives(_)
                | Self::Up { .. }
        )
    }
}

/// What a client wants to do, in a word.
pub fn name_of(event: &Event) -> &'static str {
    match event {
        Event::CancelRequested { .. } => "cancel",
        Event::Signalled(_) => "signal",
        Event::Decided(_) => "decide",
        Event::RetryRequested(_) => "retry",
        Event::SkipRequested(_) => "skip",
        _ => "something else",
    }
}

/// What must not be, with everything that helps to find out why.
pub fn report(seed: u64, world: &World, violation: &Violation) -> String {
    format!(
        "seed {seed}, step {}: not true: {}\n  {}\nthe last that happened:\n{}",
        world.steps, violation.invariant, violation.what, world.trace
    )
}
