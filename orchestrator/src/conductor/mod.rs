//! The conductor: **load → decide → commit → reply → perform.**
//!
//! Events arrive in a bounded mailbox. The conductor takes what is there and decides it all; what was decided goes to the
//! store as ONE transaction; only when that is durable do the answers and the effects leave. What has arrived meanwhile is the
//! next batch; if the sync takes long, it is decided meanwhile, on top of the last one. It never waits to fill a batch.
//!
//! One thread at a time owns everything in here (`relay`), so there are no locks and one writer per job. It refuses to know
//! wire types.

mod admission;
mod batch;
mod book;
mod clients;
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
mod relay;
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

use tokio::sync::{oneshot, watch};

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
use self::{admission::Admissions, core::Core, mailbox::Mailbox, relay::Relay, turn::House};
use crate::{
    blueprint::{Catalog, Registry},
    live::Live,
    metrics::Metrics,
    store::{Store, StoreError},
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
    let (mailbox, requests) = Mailbox::new();
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
    let relay = Relay::new(store, metrics)?;
    let storage_full = core.storage_full.subscribe();
    let (tell, stopped) = oneshot::channel();
    thread::Builder::new()
        .name("conductor".into())
        .spawn(move || {
            let outcome = relay.run(House::of(core), requests, (loader, loads));
            // Whoever is told that we have stopped may open the store again. A panic in there was told by the missing outcome.
            let _ = loading.join();
            let _ = tell.send(outcome);
        })
        .map_err(|error| StoreError::Failed { reason: format!("no thread for the conductor: {error}") })?;
    Ok(Running { conductor, stopped, storage_full })
}

/// The longest sleep: a bound on how late a deadline is noticed when the machine's own timers misbehave.
const SLEEP_MAX: Duration = Duration::from_secs(1);
