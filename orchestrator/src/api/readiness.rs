//! Whether this process should be sent work: what `/readyz` and the gRPC health service answer.

use std::sync::Arc;

use tokio::sync::watch;

/// What the process is doing, as far as callers are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Recovering jobs from the store.
    Starting,
    /// Serving.
    Ready,
    /// Serving reads; the disk is full.
    DiskFull,
    /// Stopping.
    Draining,
}

/// The phase, shared by those who set it and those who show it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<watch::Sender<Phase>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Starting)))
    }
}

impl Readiness {
    /// Sets the phase. Draining is final.
    pub fn set(&self, phase: Phase) {
        self.0.send_if_modified(|present| {
            let changes = *present != phase && *present != Phase::Draining;
            if changes {
                *present = phase;
            }
            changes
        });
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Follows the phase.
    pub(super) fn follow(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Returns when the process is stopping.
    pub(super) async fn draining(&self) {
        // The sender lives as long as `self`, so this ends by the phase only.
        let _ = self.follow().wait_for(|phase| *phase == Phase::Draining).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_draining() {
        let readiness = Readiness::default();
        assert_eq!(readiness.phase(), Phase::Starting);
        readiness.set(Phase::Ready);
        readiness.set(Phase::Draining);
        readiness.set(Phase::Ready);
        assert_eq!(readiness.phase(), Phase::Draining);
    }
}
