//! Two threads that run the house in turns, so that a commit needs no change of threads and a slow disk silences nobody.
//!
//! Whoever runs the house and has a batch leaves the house in the *hall*, makes the batch durable, and takes the house up again. On
//! a prompt disk that is all: to wake a committing thread and be woken by it would take as long as the disk. When a commit takes
//! long, or is going to, the other thread takes up the house in the hall and goes on with it: it decides the next batch
//! meanwhile, and answers whoever needs no commit. Then the roles are exchanged.
//!
//! It promises that one batch at a time is with the store, and that whoever runs the house learns what became of it. It refuses to know
//! what is decided. This is the only place where the process waits for the disk with work at hand.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Runtime, sync::mpsc};

use super::{
    BATCH_MAX,
    loader::{Loader, Loads, Wanted},
    mailbox::{self, Request},
    turn::{Happening, Helpers, House},
};
use crate::{
    metrics::Metrics,
    store::{Batch, Store, StoreError},
};

/// How long a house may lie in the hall before the other thread takes it up.
const PATIENCE: Duration = Duration::from_millis(5);

/// After so many looks at a hall where nothing has happened, the other thread sleeps until something does.
const IDLE_LOOKS: u32 = 20;

/// When commits take longer than this on average, the next batch is decided meanwhile. Before that, to wake another thread costs more
/// than it brings.
const PROMPT: Duration = Duration::from_millis(2);

/// While a batch of so many writes becomes durable, the next one is decided too: then there is much to decide. A map over 10,000 items
/// takes a tenth longer without it; with 64, jobs that are submitted by unary calls, 64 at a time, took 6 % longer.
const LARGE_BATCH: usize = 256;

/// How much the last commit weighs in the average, as a divisor.
const COMMITS_AVERAGED: u32 = 16;

/// Everything that runs the house.
pub(super) struct Office {
    house: House,
    requests: mpsc::Receiver<Request>,
    loads: Loads,
    commits: Commits,
    hands: Hands,
    arrived: Vec<Request>,
    /// How long a commit takes, on average over the last ones.
    commit_takes: Duration,
}

/// Those who wait for the disk.
struct Hands {
    loader: Loader,
    /// What is to become durable next.
    batch: Option<Batch>,
}

impl Helpers for Hands {
    fn commit(&mut self, batch: Batch) {
        self.batch = Some(batch);
    }

    fn load(&mut self, wanted: Vec<Wanted>) -> Result<(), StoreError> {
        self.loader.load(wanted)
    }
}

/// What became of a batch, and how long it took.
struct Committed {
    outcome: Result<(), StoreError>,
    took: Duration,
}

/// What has been committed, by either thread.
type Commits = mpsc::Receiver<Committed>;

impl Office {
    /// Takes one happening after the other, and lets the house do what follows, until there is a batch for the store: see
    /// [`House::turn`]. `None` when the house has stopped as it was asked to.
    async fn next_batch(&mut self) -> Result<Option<Batch>, StoreError> {
        loop {
            let room = self.house.room();
            let happening = tokio::select! {
                biased;
                // A batch has become durable, or could not.
                Some(Committed { outcome, took }) = self.commits.recv(), if self.house.is_committing() => {
                    self.commit_takes = (self.commit_takes * (COMMITS_AVERAGED - 1) + took) / COMMITS_AVERAGED;
                    Happening::Committed(outcome)
                }
                // Jobs that rested in the store are back.
                loaded = self.loads.recv(), if self.house.core.loading => match loaded {
                    Some(loaded) => Happening::Loaded(loaded),
                    None => return Err(failed("the loading thread has panicked")),
                },
                // Somebody wants something.
                count = self.requests.recv_many(&mut self.arrived, room), if room > 0 => {
                    if count == 0 {
                        return Ok(None);
                    }
                    Happening::Requests(&mut self.arrived)
                }
                // Time passes.
                () = tokio::time::sleep(self.house.core.until_due()) => Happening::TimePassed,
            };
            if self.house.turn(happening, &mut self.hands)?.is_break() {
                return Ok(None);
            }
            if let Some(batch) = self.hands.batch.take() {
                return Ok(Some(batch));
            }
        }
    }
}

/// Where the house lies while whoever runs it commits.
#[derive(Default)]
struct Hall {
    state: Mutex<Left>,
    changed: Condvar,
}

#[derive(Default)]
struct Left {
    office: Option<Box<Office>>,
    /// How often it was left here.
    times: u64,
    /// Whether it is to be taken up at once.
    is_urgent: bool,
    /// Whether the other thread looks from time to time, and need not be woken.
    is_watched: bool,
    /// Whether there is nothing more to run.
    is_closed: bool,
}

impl Hall {
    /// Leaves the house here, to be taken up by the other thread when it lies for long, or at once.
    fn leave(&self, office: Box<Office>, is_urgent: bool) {
        let mut state = self.state();
        state.office = Some(office);
        state.times += 1;
        state.is_urgent = is_urgent;
        if is_urgent || !state.is_watched {
            self.changed.notify_all();
        }
    }

    /// Takes the house up again. `None` when the other thread has it.
    fn take_up(&self) -> Option<Box<Office>> {
        self.state().office.take()
    }

    /// Waits until the house has been left for longer than a prompt commit takes, and takes it up. `None` when there is nothing more to
    /// run.
    fn stand_in(&self) -> Option<Box<Office>> {
        let mut state = self.state();
        let (mut seen, mut idle_looks) = (None, 0);
        while !state.is_closed {
            let is_overdue = state.is_urgent || seen == Some(state.times);
            if is_overdue && let Some(office) = state.office.take() {
                state.is_watched = false;
                return Some(office);
            }
            idle_looks = if seen == Some(state.times) { idle_looks + 1 } else { 0 };
            seen = Some(state.times);
            state.is_watched = idle_looks < IDLE_LOOKS;
            state = match state.is_watched {
                true => self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0,
                false => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        None
    }

    fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, Left> {
        // Each change of it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What either of the two threads has.
struct Runner {
    runtime: Runtime,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    hall: Arc<Hall>,
    /// Where to tell whoever has the house of a commit.
    outcomes: mpsc::Sender<Committed>,
}

impl Runner {
    /// Runs the house whenever it is this thread's turn, and this one first if it gets the house.
    fn run(&self, mut office: Option<Box<Office>>) -> Result<(), StoreError> {
        let _closing = Closing(&self.hall);
        while let Some(mut mine) = office.take().or_else(|| self.hall.stand_in()) {
            let batch = match self.runtime.block_on(mine.next_batch()) {
                Ok(Some(batch)) => batch,
                ended => {
                    let Office { house, requests, .. } = *mine;
                    drop(house);
                    self.runtime.block_on(mailbox::close(requests));
                    return ended.map(|_| ());
                }
            };
            let is_urgent = mine.commit_takes > PROMPT || batch.writes.len() >= LARGE_BATCH;
            self.hall.leave(mine, is_urgent);
            let outcome = self.commit(&batch);
            office = self.hall.take_up();
            // There is room for the one batch that is with the store; a house that has ended asks for nothing.
            let _ = self.outcomes.try_send(outcome);
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch) -> Committed {
        let started = Instant::now();
        // The store is not used again after a panic: the house ends with this outcome.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.store.commit(batch)))
            .unwrap_or_else(|_| Err(failed("a commit has panicked")));
        let took = started.elapsed();
        self.metrics.committed(batch.writes.len(), took);
        Committed { outcome, took }
    }
}

/// Ends the relay when one of its threads ends, however it does.
struct Closing<'a>(&'a Hall);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Two threads that will run a house.
pub(super) struct Relay {
    first: Runner,
    second: Runner,
    commits: Commits,
}

impl Relay {
    pub(super) fn new(store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let (outcomes, commits) = mpsc::channel(1);
        let hall = Arc::<Hall>::default();
        let runner = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .map_err(|error| failed(&format!("no runtime for the conductor: {error}")))?;
            let (store, metrics) = (store.clone(), metrics.clone());
            Ok(Runner { runtime, store, metrics, hall: hall.clone(), outcomes: outcomes.clone() })
        };
        Ok(Self { first: runner()?, second: runner()?, commits })
    }

    /// Runs the house to its end, on this thread and another one. Neither uses the store any more when it returns.
    ///
    /// # Errors
    /// When the store fails, or there can be no other thread.
    pub(super) fn run(
        self,
        house: House,
        requests: mpsc::Receiver<Request>,
        (loader, loads): (Loader, Loads),
    ) -> Result<(), StoreError> {
        let Self { first, second, commits } = self;
        let second = thread::Builder::new()
            .name("conductor".into())
            .spawn(move || second.run(None))
            .map_err(|error| failed(&format!("no second thread for the conductor: {error}")))?;
        let hands = Hands { loader, batch: None };
        let arrived = Vec::with_capacity(BATCH_MAX);
        let office = Office { house, requests, loads, commits, hands, arrived, commit_takes: Duration::ZERO };
        let ended = first.run(Some(Box::new(office)));
        // One of them has run the house to its end; the other one has only stopped.
        let stopped = second.join().unwrap_or_else(|_| Err(failed("a thread of the conductor has panicked")));
        ended.and(stopped)
    }
}

fn failed(reason: &str) -> StoreError {
    StoreError::Failed { reason: reason.to_owned() }
}
