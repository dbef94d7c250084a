//! The orchestrator's process: the real conductor, one turn at a time, and the death of it at the worst moments.

use std::{sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    blueprint::Change,
    conductor::{
        Acted, DueNotices, FromWorker, JobView, Limits, Move, Registered, Settings, SubmitRequest,
        stepped::{Accepted, Answer, Answered, Reading, Stepped},
    },
    dispatch::{ToWorker, Verdict},
    store::{Batch, NoticeRecord, ScheduleRecord, Store, StoreError},
    time::{SystemClock, Timestamp},
};
use avtomatika_proto::{ApiError, ErrorCode, JobId, SessionId};
use tokio::sync::mpsc;

use crate::{
    faults::{MS, SECOND},
    invariants::{Checked, Invariant, Violation, require},
    model::Model,
    movers,
    network::Stream,
    schedules::Kept,
    sometimes::Sometimes as S,
    store::Disk,
    world::{Happening, Wish, World},
};

/// The process, if it lives.
#[derive(Default)]
pub struct Process {
    pub up: Option<Up>,
    /// Until when it stands still.
    pub stands_until: i64,
    /// The wall clock when it started last, and the world's.
    started_at: i64,
    started_when: i64,
}

/// A life of the process.
pub struct Up {
    pub conductor: Stepped,
    wakes_at: i64,
    /// When the chore that delivers to webhooks looks next.
    pub looks_at: i64,
    flight: Flight,
    is_reading: bool,
    streams: Vec<Stream>,
    pub asked: Vec<Asked>,
    ends: Vec<Answer<JobView>>,
    watches: Vec<Watching>,
    is_stopping: bool,
    /// Those of the schedules, when it has taken them over.
    pub keepers: Option<Vec<Kept>>,
}

/// The batch that is with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    None,
    /// Nobody can say yet whether it is durable.
    Syncing,
    /// It is settled, and the conductor does not know.
    Settled,
}

/// How a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    Durable,
    Full,
    Failed,
}

/// A request whose answer has not left.
pub enum Asked {
    Submit {
        number: usize,
        answer: Answer<Result<Accepted, ApiError>>,
        is_repeated_after_crash: bool,
    },
    Act {
        answer: Answer<Result<Acted, ApiError>>,
        by_token: bool,
        event: &'static str,
    },
    Watch {
        answer: Answer<Result<(), ApiError>>,
        updates: Option<mpsc::Receiver<JobView>>,
    },
    Register {
        number: usize,
        link: u32,
        answer: Answer<Result<Registered, ApiError>>,
    },
    Open {
        number: usize,
        link: u32,
        session_id: SessionId,
        answer: Answer<Result<u64, ApiError>>,
        receiver: Option<mpsc::Receiver<ToWorker>>,
    },
    Prune {
        answer: Answer<Result<usize, ApiError>>,
    },
    Notices {
        answer: Answer<DueNotices>,
    },
    Settle {
        answer: Answer<Result<(), ApiError>>,
    },
    Redeliver {
        answer: Answer<Result<Vec<NoticeRecord>, ApiError>>,
    },
    SchedulesBegun {
        records: Vec<ScheduleRecord>,
        answer: Answer<Result<(), ApiError>>,
    },
    Put {
        answer: Answer<Result<Vec<Change>, ApiError>>,
    },
    Migrate {
        version: u32,
        answer: Answer<Result<Vec<Move>, ApiError>>,
    },
    Scheduled {
        place: usize,
        answer: Answer<Result<ScheduleRecord, ApiError>>,
    },
    Remembered {
        place: usize,
        record: ScheduleRecord,
        answer: Answer<Result<(), ApiError>>,
    },
}

/// Somebody follows a job.
struct Watching {
    updates: mpsc::Receiver<JobView>,
    seen: u64,
    has_ended: bool,
}

impl Process {
    pub fn started_at(&self) -> Timestamp {
        Timestamp::from_micros(self.started_at)
    }

    pub fn started_when(&self) -> i64 {
        self.started_when
    }

    pub fn stream_mut(&mut self, number: usize, link: u32) -> Option<&mut Stream> {
        let streams = &mut self.up.as_mut()?.streams;
        streams.iter_mut().find(|stream| (stream.number, stream.link) == (number, link))
    }
}

impl World {
    // ---- Birth ----

    pub fn start(&mut self) -> Checked {
        if self.process.up.is_some() {
            return Ok(());
        }
        if self.is_calm || !self.random.chance(self.faults.failing_read) {
            self.disk.let_reads_fail(0);
        }
        // Dying while it recovers must change nothing.
        if !self.is_calm && self.model.life > 0 && self.random.chance(150) {
            drop(self.recover());
            self.model.met.mark(S::CrashDuringRecovery);
        }
        let Ok(conductor) = self.recover() else {
            self.disk.let_reads_fail(0);
            self.after(SECOND, Happening::Start);
            return Ok(());
        };
        self.disk.let_reads_fail(self.faults.failing_read);
        let started_at = self.wall();
        if started_at < self.process.started_at {
            self.model.met.mark(S::ClockBackAtRestart);
        }
        (self.process.started_at, self.process.started_when) = (started_at, self.now);
        self.model.life += 1;
        self.trace.say(self.now, || format!("-- the process starts, life {}", self.model.life));
        self.process.up = Some(Up {
            conductor,
            wakes_at: i64::MAX,
            looks_at: i64::MAX,
            flight: Flight::None,
            is_reading: false,
            streams: Vec::new(),
            asked: Vec::new(),
            ends: Vec::new(),
            watches: Vec::new(),
            is_stopping: false,
            keepers: None,
        });
        self.check_everything()?;
        self.schedule_deaths();
        self.begin_to_look();
        self.begin_schedules();
        self.look_around()
    }

    fn recover(&mut self) -> Result<Stepped, StoreError> {
        let settings = Settings {
            limits: Limits {
                max_open_jobs: self.faults.max_open_jobs,
                max_workers: self.faults.max_workers,
                resident_bytes_max: self.faults.resident_bytes,
            },
            adoption_window: Duration::from_secs(5),
            webhooks: None,
            entropy_seed: self.random.bytes(),
        };
        let clock = Arc::new(SystemClock::over(self.clock.clone()));
        let (store, blueprints): (Arc<dyn Store>, _) = (self.disk.clone(), self.stored_registry());
        Stepped::recover(store, clock, blueprints, settings, self.metrics.clone())
    }

    fn schedule_deaths(&mut self) {
        let life = self.model.life;
        if self.faults.kill_every > 0 {
            let after = self.random.between(1, self.faults.kill_every);
            self.after(after, Happening::Kill { life });
        }
        if self.faults.stop_every > 0 {
            let after = self.random.between(1, self.faults.stop_every);
            self.after(after, Happening::Stop { life });
        }
    }

    // ---- What arrives ----

    pub fn arrives(&mut self, wish: Wish) -> Checked {
        let Some(up) = self.process.up.as_mut() else {
            if let Wish::Register { number, link, .. } | Wish::Open { number, link, .. } = wish {
                self.try_again(number, link, None);
            }
            return Ok(());
        };
        match wish {
            Wish::Submit { number } => {
                let intent = &mut self.model.intents[number];
                intent.delivered += 1;
                // Each copy of the request takes the version that is in force when it arrives.
                let least = self.model.versions.least(&intent.blueprint);
                intent.least_version = intent.least_version.min(least);
                let request = SubmitRequest {
                    blueprint: intent.blueprint.clone(),
                    submission: self.submissions[number].clone(),
                    idempotency_key: intent.key.clone(),
                    delay: None,
                    wait: Duration::ZERO,
                };
                let (client, again) =
                    (intent.client.clone(), intent.first_life.get_or_insert(self.model.life));
                let is_repeated_after_crash = *again != self.model.life;
                let follow = self.random.chance(200);
                if let Some((answer, end)) = up.conductor.submit(&client, request, follow) {
                    up.asked.push(Asked::Submit { number, answer, is_repeated_after_crash });
                    up.ends.extend(end);
                }
            }
            Wish::Act { client, job_id, event } => {
                let name = crate::world::name_of(&event);
                let answer = up.conductor.act(client.as_ref(), job_id, *event);
                up.asked.push(Asked::Act { answer, by_token: client.is_none(), event: name });
            }
            Wish::Watch { client, job_id } => {
                let (answer, updates) = up.conductor.watch(&client, job_id);
                up.asked.push(Asked::Watch { answer, updates: Some(updates) });
            }
            Wish::Register { number, link, worker, credential } => {
                let answer = up.conductor.register(worker, credential);
                up.asked.push(Asked::Register { number, link, answer });
            }
            Wish::Open { number, link, session_id, credential, held } => {
                let (outbox, receiver) = Stream::outbox();
                let answer = up.conductor.open(session_id, credential, held, outbox);
                let receiver = Some(receiver);
                up.asked.push(Asked::Open { number, link, session_id, answer, receiver });
            }
            Wish::Redeliver { client, job_id, id } => {
                let answer = up.conductor.redeliver(&client, job_id, id);
                up.asked.push(Asked::Redeliver { answer });
            }
            Wish::Prune { removals } => {
                let answer = up.conductor.prune(removals);
                up.asked.push(Asked::Prune { answer });
            }
        }
        self.take_in()
    }

    pub fn worker_says(&mut self, session_id: SessionId, stream: u64, message: FromWorker) -> Checked {
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        if up.streams.iter().any(|other| other.session_id == session_id && other.stream > stream) {
            self.model.met.mark(S::OldStreamSpeaks);
        }
        if matches!(message, FromWorker::Ended) {
            let ends = |other: &&mut Stream| (other.session_id, other.stream) == (session_id, stream);
            up.streams.iter_mut().find(ends).into_iter().for_each(|stream| stream.is_over = true);
        }
        up.conductor.tell(session_id, stream, message);
        self.take_in()
    }

    /// The orderly stop begins.
    pub fn stop(&mut self, life: u32) -> Checked {
        if life != self.model.life || self.is_calm {
            return Ok(());
        }
        let Some(up) = self.process.up.as_mut().filter(|up| !up.is_stopping) else { return Ok(()) };
        up.is_stopping = true;
        drop(up.conductor.drain());
        self.take_in()
    }

    pub fn take_in(&mut self) -> Checked {
        self.turn(Stepped::take_in)
    }

    // ---- Turns ----

    fn turn(&mut self, happens: impl FnOnce(&mut Stepped) -> Result<bool, StoreError>) -> Checked {
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        match happens(&mut up.conductor) {
            Ok(goes_on) => {
                self.look_around()?;
                if !goes_on {
                    self.trace.say(self.now, || "-- the process has stopped as it was asked to".into());
                    self.model.met.mark(S::DrainAndRestart);
                    self.dies()?;
                }
                Ok(())
            }
            Err(_) => {
                self.model.met.mark(S::FailStop);
                self.dies()
            }
        }
    }

    /// Looks at everything that may have left, and at what the conductor now waits for.
    fn look_around(&mut self) -> Checked {
        self.look_at_answers()?;
        self.look_at_streams()?;
        self.look_at_watches()?;
        let has_news = |up: &Up| up.conductor.has_notice_news();
        if self.has_webhooks && self.process.up.as_ref().is_some_and(has_news) {
            self.look_soon(self.now);
        }
        let sync = if self.is_calm { MS } else { self.random.between(50, self.faults.sync_max) };
        let life = self.model.life;
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        let begins_sync = up.flight == Flight::None && up.conductor.batch().is_some();
        if begins_sync {
            up.flight = Flight::Syncing;
        }
        let begins_reading = !up.is_reading && up.conductor.wants_loading();
        up.is_reading |= begins_reading;
        let until_due = up.conductor.until_due();
        let due = self.now + until_due.as_micros() as i64;
        let wakes = due < up.wakes_at;
        if wakes {
            up.wakes_at = due;
        }
        if begins_sync {
            self.after(sync, Happening::Sync { life });
        }
        if begins_reading {
            let pause = self.random.between(10, 3 * MS);
            self.after(pause, Happening::Read { life });
        }
        if wakes {
            self.after(due - self.now, Happening::Wake { life });
        }
        Ok(())
    }

    /// The conductor's own clock rings. Returns whether anything came of it.
    pub fn wakes(&mut self, life: u32) -> Result<bool, Violation> {
        let now = self.now;
        let Some(up) = self.process.up.as_mut().filter(|up| life == self.model.life && up.wakes_at <= now)
        else {
            return Ok(false);
        };
        up.wakes_at = i64::MAX;
        let had_batch = up.conductor.batch().is_some();
        self.turn(Stepped::pass_time)?;
        let has_batch = self.process.up.as_ref().is_some_and(|up| up.conductor.batch().is_some());
        Ok(!had_batch && has_batch)
    }

    /// The disk has done its work on the batch, or has not.
    pub fn sync(&mut self, life: u32) -> Checked {
        if life != self.model.life {
            return Ok(());
        }
        let Some(up) = self.process.up.as_mut().filter(|up| up.flight == Flight::Syncing) else {
            return Ok(());
        };
        let outcome = match () {
            () if self.disk_is_full => Synced::Full,
            () if self.random.chance(self.faults.failing_sync) => Synced::Failed,
            () => Synced::Durable,
        };
        if self.random.chance(self.faults.kill_at_commit / 2) {
            return self.dies();
        }
        up.flight = Flight::Settled;
        if outcome == Synced::Durable || outcome == Synced::Failed && self.random.chance(500) {
            self.make_durable()?;
        }
        if self.random.chance(self.faults.kill_at_commit / 2) {
            self.model.met.mark(S::CrashBetweenCommitAndPerform);
            return self.dies();
        }
        let pause = self.random.between(1, 100);
        self.after(pause, Happening::Told { life, outcome });
        Ok(())
    }

    fn make_durable(&mut self) -> Checked {
        self.model.latest = self.clock.latest();
        let Some(batch) = self.process.up.as_ref().and_then(|up| up.conductor.batch()) else { return Ok(()) };
        for write in &batch.writes {
            use avtomatika_orchestrator::store::Write;
            let (mark, id) = match write {
                Write::InsertJob { job, .. } => (1, job.id),
                Write::UpdateJob { job, .. } => (job.status as u64, job.id),
                Write::RemoveJob(removal) => (99, removal.job_id),
                _ => continue,
            };
            self.trace.add(mark);
            self.trace.add_bytes(id.as_bytes());
            self.trace.say(self.now, || match write {
                Write::InsertJob { job, entries, .. } | Write::UpdateJob { job, entries } => {
                    let events: Vec<_> = entries.iter().map(|entry| entry.event.as_str()).collect();
                    format!("durable: {} {} in {:?}: {}", job.id, job.status, job.state, events.join(", "))
                }
                _ => format!("durable: {id} is forgotten"),
            });
        }
        store(&self.disk, &mut self.model, batch, batch)
    }

    /// The power goes in the middle of a write: some sectors have reached the disk. Whatever the journal then finds is there.
    fn tear(&mut self) -> Checked {
        self.model.latest = self.clock.latest();
        let Some(batch) = self.process.up.as_ref().and_then(|up| up.conductor.batch()).cloned() else {
            return Ok(());
        };
        let missing = *self.random.pick(&[0, 30, 300]);
        let (random, disk) = (&mut self.random, self.disk.synced());
        let known = |id| Ok(disk.load(id)?.map(Arc::new));
        let found = self.torn.tear(&batch, || !random.chance(missing), known);
        let sound = found.is_ok();
        require(sound, Invariant::StoreIsAsCommitted, || {
            format!("a torn batch is taken for one: {found:?}")
        })?;
        match found.ok().flatten() {
            Some(found) => {
                self.model.met.mark(S::CrashKeepsFrame);
                store(&self.disk, &mut self.model, &found, &batch)
            }
            None => {
                self.model.met.mark(S::CrashTearsFrame);
                Ok(())
            }
        }
    }

    /// The conductor is told how the sync ended.
    pub fn told(&mut self, life: u32, outcome: Synced) -> Checked {
        if life != self.model.life {
            return Ok(());
        }
        let Some(up) = self.process.up.as_mut().filter(|up| up.flight == Flight::Settled) else {
            return Ok(());
        };
        up.flight = Flight::None;
        let outcome = match outcome {
            Synced::Durable => Ok(()),
            Synced::Full => {
                self.model.met.mark(S::FullAndUndone);
                Err(StoreError::Full { path: "/data".into() })
            }
            Synced::Failed => Err(StoreError::Failed { reason: "fsync: input/output error".into() }),
        };
        self.turn(|conductor| conductor.committed(outcome))?;
        if self.process.up.as_ref().is_some_and(|up| up.conductor.has_arrived()) {
            self.take_in()?;
        }
        self.commits += 1;
        if self.commits.is_multiple_of(self.check_every) { self.check_everything() } else { Ok(()) }
    }

    /// The loader reads.
    pub fn read(&mut self, life: u32) {
        if life != self.model.life {
            return;
        }
        let failed = self.disk.failed_reads();
        let Some(reading) = self.process.up.as_mut().and_then(|up| up.conductor.read()) else { return };
        if self.disk.failed_reads() > failed {
            self.model.met.mark(S::ReadFailed);
        }
        let pause = self.random.between(1, 5 * MS);
        self.after(pause, Happening::Back { life, reading: Box::new(reading) });
    }

    /// What was read is there.
    pub fn back(&mut self, life: u32, reading: Reading) -> Checked {
        if life != self.model.life {
            return Ok(());
        }
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        up.is_reading = false;
        self.model.met.mark(S::Rested);
        if up.conductor.is_outdated(&reading) {
            self.model.met.mark(S::RestedAndChanged);
        }
        self.turn(|conductor| conductor.loaded(reading))
    }

    // ---- What left ----

    fn look_at_streams(&mut self) -> Checked {
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        let mut streams = std::mem::take(&mut up.streams);
        let mut checked = Ok(());
        for stream in &mut streams {
            while let Some(message) = stream.receiver.as_mut().and_then(|receiver| receiver.try_recv().ok()) {
                if checked.is_ok() {
                    checked = self.check_message(stream, &message);
                }
                let cut = self.random.chance(self.faults.cut);
                self.send_down(stream, message);
                if cut && !stream.is_cut {
                    self.cuts.push((stream.number, stream.link));
                }
            }
        }
        if let Some(up) = self.process.up.as_mut() {
            let is_unread = |session_id| {
                streams.iter().any(|stream| stream.session_id == session_id && stream.receiver.is_none())
            };
            if streams.iter().any(|stream| stream.receiver.is_none()) && checked.is_ok() {
                let unread = up.conductor.leases().filter(|(_, _, session_id)| is_unread(*session_id));
                checked = self.model.found(unread);
            }
            // What was said on them before their end was heard has been looked at.
            if !up.conductor.is_behind() {
                streams.retain(|stream| !stream.is_over);
            }
            up.streams = streams;
        }
        while let Some((number, link)) = self.cuts.pop() {
            self.cut(number, link);
        }
        checked
    }

    fn check_message(&mut self, stream: &Stream, message: &ToWorker) -> Checked {
        self.trace.say(self.now, || {
            let name = format!("worker-{}", stream.number);
            match message {
                ToWorker::Welcome { adopted, dropped } => {
                    format!("to {name}: welcome, goes on with {adopted:?}, drops {dropped:?}")
                }
                ToWorker::Task(assignment) => {
                    let offer = &assignment.offer;
                    format!("to {name}: task {} of {} attempt {}", offer.task_id, offer.job_id, offer.attempt)
                }
                other => format!("to {name}: {other:?}"),
            }
        });
        let session_id = stream.session_id;
        match message {
            ToWorker::Welcome { adopted, dropped } => {
                if !dropped.is_empty() {
                    self.model.met.mark(S::Dropped);
                }
                adopted.iter().try_for_each(|task_id| self.model.adopted(session_id, *task_id))
            }
            ToWorker::Task(assignment) => {
                self.trace.add_bytes(assignment.offer.task_id.as_bytes());
                self.model.given(session_id, assignment)
            }
            ToWorker::Ack { task_id, verdict } => {
                self.trace.add(match verdict {
                    Verdict::Applied => 1,
                    Verdict::Refused(reason) => 2 + reason.len() as u64,
                    Verdict::RetryLater => 3,
                });
                let worker = &self.workers[stream.number];
                let may_lie = worker.may_lie || worker.speaks_late;
                self.model.answered(session_id, *task_id, *verdict, may_lie)
            }
            ToWorker::Goodbye(farewell) => {
                if *farewell == avtomatika_orchestrator::dispatch::Farewell::Replaced {
                    self.model.met.mark(S::SessionReplaced);
                }
                Ok(())
            }
            ToWorker::Cancel { .. } | ToWorker::Drain | ToWorker::Draining => Ok(()),
        }
    }

    fn look_at_answers(&mut self) -> Checked {
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        let mut asked = std::mem::take(&mut up.asked);
        let mut place = 0;
        let mut checked = Ok(());
        while place < asked.len() {
            let has_left = match self.look_at_answer(&mut asked[place]) {
                Ok(has_left) => has_left,
                Err(violation) => {
                    checked = Err(violation);
                    break;
                }
            };
            if has_left {
                asked.swap_remove(place);
            } else {
                place += 1;
            }
        }
        if let Some(up) = self.process.up.as_mut() {
            up.asked = asked;
        }
        checked
    }

    /// Whether the answer has left, and whether it may.
    fn look_at_answer(&mut self, asked: &mut Asked) -> Result<bool, Violation> {
        match asked {
            Asked::Submit { number, answer, is_repeated_after_crash } => match answer.look_accepted() {
                Answered::NotYet => return Ok(false),
                Answered::Never => {}
                Answered::Yes(Ok(submitted)) => {
                    let number = *number;
                    self.trace.add(number as u64);
                    self.trace.say(self.now, || format!("submission {number} is accepted: {submitted:?}"));
                    if *is_repeated_after_crash && submitted.deduplicated {
                        self.model.met.mark(S::RepeatedAfterCrash);
                    }
                    self.model.accepted(number, &submitted)?;
                }
                Answered::Yes(Err(error)) => match error.code {
                    ErrorCode::IdempotencyConflict => self.model.met.mark(S::KeyConflict),
                    ErrorCode::TooManyOpenJobs => self.model.met.mark(S::TooManyOpen),
                    _ => {}
                },
            },
            Asked::Act { answer, by_token, event } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Never => {}
                Answered::Yes(Ok(Acted { view, repeated })) => {
                    self.trace.say(self.now, || format!("{event} of {} is answered", view.job.id));
                    self.model.shown(&view)?;
                    if repeated {
                        self.model.met.mark(S::SignalRepeated);
                    }
                    if *event == "decide" && *by_token {
                        self.model.met.mark(S::DecidedByToken);
                    }
                }
                Answered::Yes(Err(error)) => self.note_refused(event, error.code),
            },
            Asked::Watch { answer, updates } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Yes(Ok(())) => {
                    if let (Some(updates), Some(up)) = (updates.take(), self.process.up.as_mut()) {
                        up.watches.push(Watching { updates, seen: 0, has_ended: false });
                    }
                }
                Answered::Never | Answered::Yes(Err(_)) => {}
            },
            Asked::Register { number, link, answer } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Never => self.try_again(*number, *link, None),
                Answered::Yes(Ok(registered)) => {
                    let (number, link, session_id) = (*number, *link, registered.session_id);
                    let way = self.way();
                    self.after(way, Happening::Registered { number, link, session_id });
                }
                Answered::Yes(Err(error)) => self.try_again(*number, *link, Some(error.code)),
            },
            Asked::Open { number, link, session_id, answer, receiver } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Never => self.try_again(*number, *link, None),
                Answered::Yes(Ok(stream)) => {
                    if let (Some(receiver), Some(up)) = (receiver.take(), self.process.up.as_mut()) {
                        if up.streams.iter().any(|other| other.session_id == *session_id) {
                            self.model.met.mark(S::StreamTaken);
                        }
                        up.streams.push(Stream::new(*number, *link, *session_id, stream, receiver));
                    }
                }
                Answered::Yes(Err(error)) => self.try_again(*number, *link, Some(error.code)),
            },
            Asked::Notices { answer } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Yes(due) => self.begin_to_deliver(due),
                Answered::Never => {}
            },
            Asked::SchedulesBegun { records, answer } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Yes(answer) => self.schedules_have_begun(std::mem::take(records), answer)?,
                Answered::Never => {}
            },
            Asked::Scheduled { place, answer } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Yes(outcome) => self.schedule_has_come(*place, outcome),
                Answered::Never => {}
            },
            Asked::Remembered { place, record, answer } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Yes(answer) => {
                    let record = record.clone();
                    self.schedule_has_come(*place, answer.map(|()| record));
                }
                Answered::Never => {}
            },
            Asked::Put { answer } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Yes(Ok(changes)) => self.is_in_force(&changes)?,
                Answered::Never | Answered::Yes(Err(_)) => {}
            },
            Asked::Migrate { version, answer } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Yes(Ok(moves)) => self.has_migrated(&moves, *version)?,
                Answered::Never | Answered::Yes(Err(_)) => {}
            },
            Asked::Prune { answer } => return Ok(!matches!(answer.look(), Answered::NotYet)),
            Asked::Settle { answer } => return Ok(!matches!(answer.look(), Answered::NotYet)),
            Asked::Redeliver { answer } => match answer.look() {
                Answered::NotYet => return Ok(false),
                Answered::Yes(Ok(promised)) => self.model.owed.promised(&promised)?,
                Answered::Never | Answered::Yes(Err(_)) => {}
            },
        }
        Ok(true)
    }

    fn note_refused(&mut self, event: &str, code: ErrorCode) {
        match (event, code) {
            ("decide", ErrorCode::ApprovalNotFound | ErrorCode::JobNotFound | ErrorCode::JobTerminal) => {
                self.model.met.mark(S::DecidedTwice);
            }
            (_, ErrorCode::NotRepairable) => self.model.met.mark(S::NotRepairable),
            _ => {}
        }
    }

    fn look_at_watches(&mut self) -> Checked {
        let Some(up) = self.process.up.as_mut() else { return Ok(()) };
        for watching in &mut up.watches {
            while let Ok(view) = watching.updates.try_recv() {
                self.model.shown(&view)?;
                let forward = view.job.history_len >= watching.seen && !watching.has_ended;
                require(forward, Invariant::WatchesAreInOrder, || {
                    format!("after {} changes a watch shows {:?}", watching.seen, view.job)
                })?;
                watching.seen = view.job.history_len;
                watching.has_ended = view.job.status.is_terminal();
                if watching.has_ended {
                    self.model.met.mark(S::WatchedToTheEnd);
                }
            }
        }
        up.watches.retain(|watching| !watching.has_ended);
        let mut place = 0;
        while place < up.ends.len() {
            match up.ends[place].look() {
                Answered::NotYet => place += 1,
                Answered::Never => drop(up.ends.swap_remove(place)),
                Answered::Yes(view) => {
                    self.model.shown(&view)?;
                    require(view.job.status.is_terminal(), Invariant::WatchesAreInOrder, || {
                        format!("somebody who waits for the end is told of {:?}", view.job)
                    })?;
                    self.model.met.mark(S::EndTold);
                    up.ends.swap_remove(place);
                }
            }
        }
        Ok(())
    }

    // ---- Death ----

    pub fn kill(&mut self, life: u32) -> Checked {
        if life != self.model.life || self.is_calm { Ok(()) } else { self.dies() }
    }

    /// The process is gone, and with it everything that is not on the disk.
    pub fn dies(&mut self) -> Checked {
        let Some(up) = self.process.up.as_ref() else { return Ok(()) };
        self.trace.say(self.now, || "-- the process dies".into());
        if up.flight == Flight::Syncing {
            // Whether the disk had done it, nobody can know.
            match self.random.below(10) {
                0..3 if !self.disk_is_full => {
                    self.make_durable()?;
                    self.model.met.mark(S::CrashKeepsBatch);
                }
                3..6 if !self.disk_is_full => self.tear()?,
                _ => self.model.met.mark(S::CrashLosesBatch),
            }
        }
        let Some(up) = self.process.up.take() else { return Ok(()) };
        for stream in up.streams.iter().filter(|stream| !stream.is_cut) {
            let pause = self.random.between(MS, SECOND);
            self.worker_will(stream.number, pause, crate::worker::Move::NoticeLoss(stream.link));
        }
        for asked in &up.asked {
            if let Asked::Register { number, link, .. } | Asked::Open { number, link, .. } = asked {
                self.try_again(*number, *link, None);
            }
        }
        self.check_changed()?;
        let longest = if self.random.chance(200) { 10 * SECOND } else { SECOND };
        let pause = self.random.between(10 * MS, longest);
        self.after(pause, Happening::Start);
        Ok(())
    }

    // ---- Everything at once ----

    /// What is on the disk is what was committed: every job that has changed since somebody looked.
    fn check_changed(&mut self) -> Checked {
        let changed = std::mem::take(&mut self.model.changed);
        changed.into_iter().try_for_each(|id| self.check_stored(id))
    }

    /// All that was ever submitted is on the disk as it was committed, or is not there because it was forgotten.
    pub fn check_disk(&mut self) -> Checked {
        self.model.ids.iter().try_for_each(|id| self.check_stored(*id))
    }

    fn check_stored(&self, id: JobId) -> Checked {
        let stored = self.disk.synced().load(id).ok().flatten();
        let committed = self.model.job(id).map(|job| &**job);
        require(stored.as_ref() == committed, Invariant::StoreIsAsCommitted, || {
            format!("{committed:?} was committed, and the store has {stored:?}")
        })
    }

    /// What the conductor knows follows from what is on the disk, and every open job has something that moves it on. It is asked
    /// when nothing is settled that it does not know of.
    pub fn check_everything(&mut self) -> Checked {
        let Some(up) = self.process.up.as_ref().filter(|up| up.flight != Flight::Settled) else {
            return Ok(());
        };
        let (conductor, now) = (&up.conductor, self.now_of_the_process());
        let mut waits_for_room = false;
        for known in self.model.open.iter().filter_map(|key| self.model.jobs.get(key)) {
            waits_for_room |= movers::check(conductor, &known.job, &self.model, now)?;
        }
        if conductor.batch().is_none() && !conductor.has_more_decided() {
            let (knows, open) = (conductor.open_total(), self.model.open.len());
            require(knows == open, Invariant::MemoryFollowsStore, || {
                format!("the conductor takes {knows} jobs for open, and {open} are")
            })?;
        }
        movers::check_leases(conductor, &self.model)?;
        if waits_for_room {
            self.model.met.mark(S::FullAndTriedAgain);
        }
        Ok(())
    }

    pub fn open_jobs(&self) -> Option<usize> {
        let up = self.process.up.as_ref()?;
        (up.flight == Flight::None).then_some(self.model.open.len())
    }

    /// One job, for words.
    pub fn describe(&self, id: JobId) -> String {
        let hold =
            self.process.up.as_ref().zip(self.model.job(id)).and_then(|(up, job)| up.conductor.hold(job));
        format!("{:?}, held by {hold:?}", self.model.job(id))
    }
}

/// This is on the disk now, and it ought to be this batch.
fn store(disk: &Disk, model: &mut Model, found: &Batch, batch: &Batch) -> Checked {
    let stored = disk.commit(found);
    require(stored.is_ok(), Invariant::StoreIsAsCommitted, || {
        format!("the store takes no such batch: {stored:?}")
    })?;
    model.committed(batch)
}
