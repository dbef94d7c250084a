//! The conductor: **load → decide → commit → reply → perform.**
//!
//! Events arrive in a bounded mailbox. The conductor takes what is there and decides it all; what was decided goes to the
//! store as ONE transaction; only when that is durable do the answers and the effects leave. While one batch is being
//! fsynced the next one is being decided, on top of it. It never waits to fill a batch.
//!
//! One thread owns everything in here, so there are no locks and one writer per job. It refuses to know wire types.

mod admission;
mod batch;
mod book;
mod clients;
mod commit;
mod core;
mod crowd;
mod enact;
mod ended;
mod explain;
mod families;
mod gate;
mod handle;
mod keys;
mod loader;
mod mail;
mod mailbox;
mod measures;
mod migration;
mod notices;
mod paging;
mod pruning;
mod quota;
mod recovery;
mod refused;
mod repair;
mod schedules;
mod sessions;
#[doc(hidden)]
pub mod stepped;
mod turn;
mod view;
mod waiting;
mod watchers;
mod workers;

use std::{sync::Arc, thread, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::enact::records;
pub use self::{
    admission::Admission,
    core::{Limits, Settings},
    explain::{Explanation, Failing, Reason, Situation},
    families::ChildCounts,
    gate::{AHEAD_COUNTED_MAX, AwaitedKey, HOLDERS_NAMED_MAX},
    handle::{Conductor, JobsPage, Watch},
    mail::{
        DueNotices, UNDELIVERED_OF_CLIENT_MAX, UNDER_WAY_MAX, UNDER_WAY_OF_CLIENT_MAX, UNDER_WAY_TO_HOST_MAX,
    },
    mailbox::{FromWorker, Registered, WorkerResult},
    measures::{EXPECTED, Measures, QueueMeasure, REGISTERED, SESSION_STATES},
    migration::{MIGRATION_PAGE_MAX, MigrationPage, MigrationRequest, Move},
    repair::{Repair, RepairQuery, Repaired},
    schedules::{DueTime, SCHEDULE_CHANGES_MAX, ScheduleChange},
    sessions::{OpenStream, Sessions},
    view::{Acted, JobView, LeaseView, Progress, Stats, SubmitRequest, Submitted, WorkerStatus, WorkerView},
};
use self::{
    admission::Admissions,
    commit::{Commits, Writer},
    core::Core,
    loader::{Loader, Loads, Wanted},
    mailbox::{Mailbox, Request},
    turn::{Happening, Helpers, House},
};
use crate::{
    blueprint::{Catalog, Registry},
    live::Live,
    metrics::Metrics,
    store::{Batch, Store, StoreError},
    time::Clock,
};

/// Requests that may wait for the conductor. Callers beyond that wait in turn, which is the back-pressure that workers and
/// clients feel.
pub const MAILBOX_MAX: usize = 8 * 1024;

/// Requests that are decided in one go, so that a batch stays a matter of milliseconds.
pub const BATCH_MAX: usize = 1024;

/// Updates that a watcher may leave unread before it is cut off.
pub const WATCH_BACKLOG_MAX: usize = 256;

/// Memory that waiting jobs may take when nobody says: some twenty thousand jobs of a kilobyte each.
pub const DEFAULT_RESIDENT_BYTES: usize = 64 * 1024 * 1024;

/// A running conductor.
pub struct Running {
    /// The way in.
    pub conductor: Conductor,
    /// Resolves when the conductor has stopped: well after [`Conductor::drain`], or because the store failed.
    pub stopped: oneshot::Receiver<Result<(), StoreError>>,
    /// Whether the last commit found the disk full. After a second without another such commit it reads as not full, so that
    /// work is sent here again and finds out.
    pub storage_full: watch::Receiver<bool>,
}

/// Recovers what the store holds and starts the conductor on a thread of its own.
///
/// # Errors
/// When the store cannot be read.
pub fn start(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    blueprints: Arc<Registry>,
    settings: Settings,
    metrics: Arc<Metrics>,
) -> Result<Running, StoreError> {
    let (mailbox, mut requests) = Mailbox::new();
    let admissions = Admissions::new();
    let webhooks = Live::new(settings.webhooks.clone());
    let catalog = Catalog::new(blueprints);
    let core = Core::recover(store.clone(), clock.clone(), catalog.clone(), settings, metrics.clone())?;
    let conductor = Conductor {
        mailbox,
        store: store.clone(),
        clock,
        catalog: catalog.clone(),
        admissions,
        webhooks,
        notice_news: core.mail.news(),
        ended: core.ended_jobs.clone(),
        tenancy: core.tenancy.clone(),
        limits: core.limits.clone(),
    };
    let (loader, loads, loading) = loader::start(store.clone(), catalog)?;
    let (writer, commits, committer) = commit::start(store, metrics)?;
    let storage_full = core.storage_full.subscribe();
    let (tell, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| StoreError::Failed { reason: format!("no thread for the conductor: {error}") })?;
    thread::Builder::new()
        .name("conductor".into())
        .spawn(move || {
            let outcome = runtime.block_on(async {
                let outcome = run(core, &mut requests, (writer, commits), (loader, loads)).await;
                mailbox::close(requests).await;
                outcome
            });
            // Whoever is told that we have stopped may open the store again. A panic in there was told by the missing outcome.
            let _ = (committer.join(), loading.join());
            let _ = tell.send(outcome);
        })
        .map_err(|error| StoreError::Failed { reason: format!("no thread for the conductor: {error}") })?;
    Ok(Running { conductor, stopped, storage_full })
}

/// Takes one happening after the other, and lets the house do what follows: see [`House::turn`].
async fn run(
    core: Core,
    requests: &mut mpsc::Receiver<Request>,
    (writer, mut commits): (Writer, Commits),
    (loader, mut loads): (Loader, Loads),
) -> Result<(), StoreError> {
    let mut house = House::of(core);
    let mut threads = (writer, loader);
    let mut arrived = Vec::with_capacity(BATCH_MAX);
    loop {
        let room = house.room();
        let happening = tokio::select! {
            biased;
            // A batch has become durable, or could not.
            outcome = commits.recv(), if house.is_committing() => match outcome {
                Some(outcome) => Happening::Committed(outcome),
                None => return Err(StoreError::Failed { reason: "the committing thread has panicked".into() }),
            },
            // Jobs that rested in the store are back.
            loaded = loads.recv(), if house.core.loading => match loaded {
                Some(loaded) => Happening::Loaded(loaded),
                None => return Err(StoreError::Failed { reason: "the loading thread has panicked".into() }),
            },
            // Somebody wants something.
            count = requests.recv_many(&mut arrived, room), if room > 0 => {
                if count == 0 {
                    return Ok(());
                }
                Happening::Requests(&mut arrived)
            }
            // Time passes.
            () = tokio::time::sleep(house.core.until_due()) => Happening::TimePassed,
        };
        if house.turn(happening, &mut threads)?.is_break() {
            return Ok(());
        }
    }
}

impl Helpers for (Writer, Loader) {
    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.0.commit(batch)
    }

    fn load(&mut self, wanted: Vec<Wanted>) -> Result<(), StoreError> {
        self.1.load(wanted)
    }
}

/// The longest sleep: a bound on how late a deadline is noticed when the machine's own timers misbehave.
const SLEEP_MAX: Duration = Duration::from_secs(1);
