//! How a worker stops: no new tasks, finish what runs, hand over what is finished, each within its time.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::runner::Runner;

/// Between the end of the last attempt and the end of the worker: for stopping handlers that ran over the drain timeout,
/// and for the acknowledgement of the last results.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The way from running to stopped.
pub(crate) struct Drain {
    requested: CancellationToken,
    timeout: Duration,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Nobody asked the worker to stop.
    Off,
    /// Attempts may run to their end until this moment.
    Working(Instant),
    /// Results may be acknowledged until this moment.
    Flushing(Instant),
}

impl Drain {
    pub(crate) fn new(requested: CancellationToken, timeout: Duration) -> Self {
        Self { requested, timeout, phase: Phase::Off }
    }

    /// Begins to stop, as if the machine had asked for it.
    pub(crate) fn request(&self) {
        self.requested.cancel();
    }

    /// Whether the worker has begun to stop.
    pub(crate) fn is_on(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Waits until the worker is asked to stop, for those who do not know yet; for ever afterwards.
    pub(crate) async fn begins(&self) {
        match self.phase {
            Phase::Off => self.requested.cancelled().await,
            _ => std::future::pending().await,
        }
    }

    /// Takes the steps that are due. True when there is nothing left to wait for.
    pub(crate) fn advance(&mut self, runner: &mut Runner, now: Instant) -> bool {
        if matches!(self.phase, Phase::Off) && self.is_on() {
            info!(
                "Draining: {} tasks running, at most {:?} to finish them",
                runner.held.running(),
                self.timeout
            );
            self.phase = Phase::Working(now + self.timeout);
        }
        if let Phase::Working(until) = self.phase
            && (runner.held.running() == 0 || until <= now)
        {
            if runner.held.running() > 0 {
                warn!("{} tasks did not finish in time and are given back", runner.held.running());
            }
            runner.stop_all();
            self.phase = Phase::Flushing(now + FLUSH_TIMEOUT);
        }
        match self.phase {
            Phase::Flushing(until) => runner.held.is_empty() || until <= now,
            _ => false,
        }
    }

    /// When [`advance`](Self::advance) has something to do even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Off => None,
            Phase::Working(until) | Phase::Flushing(until) => Some(until),
        }
    }
}
