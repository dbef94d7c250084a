//! Moves what has gathered in the journal to the store behind it, on a thread of its own.
//!
//! Nobody waits for it, unless the journal is full or something takes the direct way. A store behind without room is tried
//! again; after any other failure nothing is applied any more, and no further commit is taken.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Pending, Shared, State};
use crate::store::{Store, StoreError};

/// Between two tries to apply what did not fit the disk.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The longest sleep: what a wait may last without trouble on any platform.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Starts the thread. It ends when the store is closed or has failed.
pub(super) fn start<S: Store>(shared: Arc<Shared<S>>) -> Result<JoinHandle<()>, StoreError> {
    let body = move || {
        let mut panicked = Panicked { shared: &shared, armed: true };
        while let Some(batch) = shared.next() {
            shared.apply(&batch);
        }
        panicked.armed = false;
    };
    thread::Builder::new()
        .name("applier".into())
        .spawn(body)
        .map_err(|error| StoreError::Failed { reason: format!("no thread for the applier: {error}") })
}

/// Tells the others when the thread ends as it should not.
struct Panicked<'s, S> {
    shared: &'s Shared<S>,
    armed: bool,
}

impl<S> Drop for Panicked<'_, S> {
    fn drop(&mut self) {
        if self.armed {
            self.shared.state().failed = Some("the applying thread has panicked".to_owned());
            self.shared.changed.notify_all();
        }
    }
}

impl<S> Shared<S> {
    /// Waits until enough has gathered, or somebody is in a hurry, and takes it. `None` when there is nothing more to do.
    fn next(&self) -> Option<Arc<Pending>> {
        let mut state = self.state();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(again) = state.applying.clone() {
                // It did not fit. Who closes the store does not wait for room: the journal keeps it.
                if state.is_closing {
                    return None;
                }
                let (next, waited) = self.wait(state, Some(AGAIN_AFTER));
                state = next;
                if waited.timed_out() {
                    return Some(again);
                }
                continue;
            }
            if state.gathering.is_empty() {
                if state.is_closing {
                    return None;
                }
                state = self.wait(state, None).0;
                continue;
            }
            let age = state.gathering.since.map(|since| since.elapsed()).unwrap_or_default();
            let is_enough = state.gathering.bytes >= self.pace.bytes || age >= self.pace.age;
            if is_enough || state.hurry || state.is_closing {
                state.hurry = false;
                let batch = Arc::new(std::mem::take(&mut state.gathering));
                state.applying = Some(batch.clone());
                return Some(batch);
            }
            state = self.wait(state, Some(self.pace.age.saturating_sub(age))).0;
        }
    }

    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State>,
        at_most: Option<Duration>,
    ) -> (MutexGuard<'s, State>, std::sync::WaitTimeoutResult) {
        // An hour is as good as for ever: it waits again.
        let at_most = at_most.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> Shared<S> {
    fn apply(&self, pending: &Pending) {
        let outcome = self.behind.commit(&pending.to_batch());
        let mut state = self.state();
        match outcome {
            Ok(()) => {
                state.applying = None;
                state.is_blocked = false;
                state.applied = pending.last.or(state.applied);
            }
            Err(StoreError::Full { .. }) => {
                if !state.is_blocked {
                    tracing::warn!("The disk is full: commits go on while the journal has room");
                }
                state.is_blocked = true;
            }
            Err(error) => state.failed = Some(error.to_string()),
        }
        self.changed.notify_all();
    }
}
