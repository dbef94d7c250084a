//! The figures that are no counts but say how much there is now. They are set when somebody asks for the page.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};

use super::{ENDS, Metrics, Shelf, gauge};
use crate::{
    conductor::{EXPECTED, MAILBOX_MAX, Measures, QueueMeasure, REGISTERED, SESSION_STATES},
    engine::JobStatus,
    store::StoreMeasures,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileLabel {
    file: &'static str,
}

/// What is to be shown.
#[derive(Debug, Default)]
pub struct Present {
    /// What the conductor says; `None` when it did not answer in time. Its figures then stay as they were.
    pub measures: Option<Measures>,
    /// What the store says; `None` when it did not answer in time.
    pub store: Option<StoreMeasures>,
    /// Requests that wait for the conductor.
    pub mailbox: usize,
    /// Traced jobs that ended and were not told of.
    pub untold: u64,
    /// Whether the last commit found the disk full.
    pub storage_full: bool,
}

/// See the module. What belongs to a task type stands with its other figures.
#[derive(Debug)]
pub(super) struct Gauges {
    /// Nanoseconds since the page's beginning of time when it was last measured, to do so once for many readers.
    measured_at: AtomicU64,
    is_measuring: AtomicBool,
    begin: std::time::Instant,
    jobs: Family<StatusLabel, Gauge>,
    jobs_resting: Gauge,
    jobs_resident_bytes: Gauge,
    tasks_running: Gauge,
    sessions: Family<StateLabel, Gauge>,
    slots: Family<StateLabel, Gauge>,
    workers_connected: Gauge,
    webhooks_pending: Gauge,
    mailbox: Gauge,
    conductor_responsive: Gauge,
    storage_full: Gauge,
    store_bytes: Family<FileLabel, Gauge>,
    journal_pending: Gauge,
    journal_capacity: Gauge,
}

/// How old figures of the present may be: more readers than one a second cost the conductor nothing.
const FRESH_FOR: Duration = Duration::from_secs(1);

impl Gauges {
    pub(super) fn new(shelf: &mut Shelf) -> Self {
        let one = Gauge::default;
        let mailbox_capacity =
            shelf.put("mailbox_capacity", "Requests that may wait for the conductor", one());
        mailbox_capacity.set(gauge(MAILBOX_MAX as u64));
        Self {
            measured_at: AtomicU64::new(0),
            is_measuring: AtomicBool::new(false),
            begin: std::time::Instant::now(),
            jobs: shelf.put("jobs", "Open jobs, by status", Family::default()),
            jobs_resting: shelf.put(
                "jobs_resting",
                "Open jobs that wait in the store and not in memory",
                one(),
            ),
            jobs_resident_bytes: shelf.put(
                "jobs_resident_bytes",
                "About how much memory the other open jobs take",
                one(),
            ),
            tasks_running: shelf.put("tasks_running", "Tasks in workers' hands", one()),
            sessions: shelf.put("sessions", "Sessions of workers, by what they do", Family::default()),
            slots: shelf.put(
                "worker_slots",
                "Slots of connected workers: free ones are their credits",
                Family::default(),
            ),
            workers_connected: shelf.put("workers_connected", "Workers with an open stream", one()),
            webhooks_pending: shelf.put("webhooks_pending", "Messages that wait for webhooks", one()),
            mailbox: shelf.put("mailbox_requests", "Requests that wait for the conductor", one()),
            conductor_responsive: shelf.put(
                "conductor_responsive",
                "1 when the conductor answered the last question for figures within a second",
                one(),
            ),
            storage_full: shelf.put("storage_full", "1 while commits find the disk full", one()),
            store_bytes: shelf.put("store_bytes", "Size of the store's files", Family::default()),
            journal_pending: shelf.put(
                "journal_pending_bytes",
                "What is durable in the journal and not yet in the database",
                one(),
            ),
            journal_capacity: shelf.put("journal_capacity_bytes", "Largest size of the journal", one()),
        }
    }

    fn set_measures(&self, measures: &Measures) {
        for &status in JobStatus::ALL.iter().filter(|status| !ENDS.contains(status)) {
            let count = measures.open_jobs.get(&status).copied().unwrap_or(0);
            self.jobs.get_or_create(&StatusLabel { status: status.as_str() }).set(gauge(count));
        }
        let mut connected = 0;
        for state in SESSION_STATES {
            let count = measures.sessions.get(state).copied().unwrap_or(0);
            if ![REGISTERED, EXPECTED].contains(&state) {
                connected += count;
            }
            self.sessions.get_or_create(&StateLabel { state }).set(gauge(count));
        }
        self.workers_connected.set(gauge(connected));
        for (state, count) in [("free", measures.free_slots), ("taken", measures.taken_slots)] {
            self.slots.get_or_create(&StateLabel { state }).set(gauge(count));
        }
        self.jobs_resting.set(gauge(measures.resting_jobs));
        self.jobs_resident_bytes.set(gauge(measures.resident_bytes));
        self.tasks_running.set(gauge(measures.running_tasks));
        self.webhooks_pending.set(gauge(measures.undelivered_notices));
    }

    fn set_store(&self, store: &StoreMeasures) {
        let files =
            [("database", store.database_bytes), ("log", store.log_bytes), ("journal", store.journal_bytes)];
        for (file, bytes) in files {
            self.store_bytes.get_or_create(&FileLabel { file }).set(gauge(bytes));
        }
        self.journal_pending.set(gauge(store.journal_pending_bytes));
        self.journal_capacity.set(gauge(store.journal_capacity_bytes));
    }
}

impl Metrics {
    /// Whether whoever asks is to measure now, since the last figures are old and nobody else does. Then it must
    /// [say so](Metrics::measured) when it is done.
    pub fn may_measure(&self) -> bool {
        let gauges = &self.gauges;
        let now = gauges.begin.elapsed();
        let measured_at = Duration::from_nanos(gauges.measured_at.load(Ordering::Relaxed));
        let is_old = measured_at.is_zero() || now.saturating_sub(measured_at) >= FRESH_FOR;
        is_old && !gauges.is_measuring.swap(true, Ordering::Relaxed)
    }

    /// The measuring is over; the next may begin when the figures are old again.
    pub fn measured(&self) {
        let now = u64::try_from(self.gauges.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.gauges.measured_at.store(now.max(1), Ordering::Relaxed);
        self.gauges.is_measuring.store(false, Ordering::Relaxed);
    }

    /// Asks the system about this process. Reads a few files: where blocking is allowed.
    pub fn read_process(&self) {
        self.process.read();
    }

    /// Sets what the page shows of the present.
    pub fn set_present(&self, present: &Present) {
        self.jobs_untold.inner().store(present.untold, Ordering::Relaxed);
        let gauges = &self.gauges;
        gauges.conductor_responsive.set(present.measures.is_some().into());
        gauges.storage_full.set(present.storage_full.into());
        gauges.mailbox.set(gauge(present.mailbox as u64));
        if let Some(measures) = &present.measures {
            gauges.set_measures(measures);
            self.set_queues(&measures.queues);
        }
        if let Some(store) = &present.store {
            gauges.set_store(store);
        }
    }

    fn set_queues(&self, queues: &BTreeMap<Arc<str>, QueueMeasure>) {
        self.types.each(|meters| {
            meters.ready.set(0);
            meters.oldest_age.set(0.0);
            meters.workers.set(0);
        });
        for (task_type, queue) in queues {
            // Workers may announce any name. Those that tasks have are of blueprints.
            if queue.ready == 0 && !self.types.knows(task_type) {
                continue;
            }
            let meters = self.types.of(task_type);
            meters.ready.inc_by(gauge(queue.ready));
            meters.oldest_age.set(meters.oldest_age.get().max(queue.oldest_age.as_secs_f64()));
            meters.workers.set(meters.workers.get().max(gauge(queue.workers)));
        }
    }
}
