//! What came back: every answer of a load is told here, counted, timed and entered into the ledger.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use avtomatika_proto::{
    JobId,
    v1::{JobStatus, SubmitJobResponse},
};

use super::{
    figures::{Latencies, Percentiles},
    ledger::Ledger,
    tickets::{Ticket, Tickets},
};
use crate::failure::Failure;

/// Counts the answers of one load.
#[derive(Debug)]
pub(super) struct Tally {
    tickets: Arc<Tickets>,
    ledger: Arc<Ledger>,
    latencies: Latencies,
    sent: AtomicU64,
    finished: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

impl Tally {
    pub(super) fn new(tickets: Arc<Tickets>, ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self {
            tickets,
            ledger,
            latencies: Latencies::new(),
            sent: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            failure: Mutex::new(None),
        })
    }

    /// The right to submit another job, which the caller then does. `None`: it is over.
    pub(super) async fn next(&self) -> Option<Ticket> {
        let ticket = self.tickets.take().await?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Some(ticket)
    }

    /// A submission was answered with a job.
    pub(super) fn answered(&self, ticket: Ticket, job_id: &str, is_finished: bool) {
        let latency = ticket.since.elapsed();
        let Ok(job) = job_id.parse::<JobId>() else {
            let why = format!("a submission was answered with the job id {job_id:?}");
            return self.failed(Failure::System(why));
        };
        self.ledger.ended(job, is_finished);
        if is_finished {
            self.latencies.record(latency);
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A submission was answered by gRPC.
    pub(super) fn response(&self, ticket: Ticket, response: &SubmitJobResponse) {
        let is_finished = response.job.as_ref().is_some_and(|job| job.status() == JobStatus::Finished);
        self.answered(ticket, &response.job_id, is_finished);
    }

    /// A submission got no job. The first of these ends the load: what follows would measure something else.
    pub(super) fn failed(&self, why: Failure) {
        self.tickets.stop();
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Submissions that left.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Jobs that finished.
    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// From submit (or from when it was due) to finished.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        self.latencies.percentiles()
    }

    /// Why the load ended early, if it did.
    pub(super) fn take_failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// When the load's tickets end, from 0 to 1.
    pub(super) fn progress(&self) -> f64 {
        self.tickets.progress()
    }

    /// Jobs that were held back in an open loop.
    pub(super) fn held_back(&self) -> Option<u64> {
        self.tickets.held_back()
    }

    /// Ends the load early; what is in flight is still waited for.
    pub(super) fn stop(&self) {
        self.tickets.stop();
    }
}
