//! The thread that commits: the only place where this process waits for the disk.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::sync::mpsc;

use crate::{
    metrics::Metrics,
    store::{Batch, Store, StoreError},
};

/// The way to the committing thread. One batch at a time is with it.
pub(super) struct Writer(std::sync::mpsc::SyncSender<Batch>);

/// Where the outcomes arrive, in the order of the batches.
pub(super) type Commits = mpsc::Receiver<Result<(), StoreError>>;

impl Writer {
    /// Hands over a batch.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.0.send(batch).map_err(|_| StoreError::Failed { reason: "the committing thread is gone".into() })
    }
}

/// Starts the committing thread. It ends when the [`Writer`] is dropped.
pub(super) fn start(
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
) -> Result<(Writer, Commits, JoinHandle<()>), StoreError> {
    let (sender, batches) = std::sync::mpsc::sync_channel::<Batch>(1);
    let (outcomes, commits) = mpsc::channel(1);
    let body = move || {
        for batch in batches {
            let started = Instant::now();
            let outcome = store.commit(&batch);
            metrics.committed(batch.writes.len(), started.elapsed());
            if outcomes.blocking_send(outcome).is_err() {
                return;
            }
        }
    };
    let committer = thread::Builder::new()
        .name("committer".into())
        .spawn(body)
        .map_err(|error| StoreError::Failed { reason: format!("no thread for the committer: {error}") })?;
    Ok((Writer(sender), commits, committer))
}
