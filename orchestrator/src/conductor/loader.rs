//! The thread that reads resting jobs from the store, so that the conductor need not wait for the disk.
//!
//! It makes the offers of their tasks too. It promises to answer for the first of the jobs that it is asked for, at least, and
//! to change nothing.

use std::{
    ops::ControlFlow,
    sync::{Arc, mpsc::SyncSender},
    thread::{self, JoinHandle},
};

use avtomatika_proto::JobId;
use tokio::sync::mpsc;

use super::book::{Version, bytes_of};
use crate::{
    blueprint::{Catalog, Registry},
    dispatch::Place,
    engine::{Job, Offer, offer_again},
    store::{Store, StoreError},
};

/// Jobs that are asked for at once. Read within some ten milliseconds.
pub(super) const LOAD_MAX: usize = 512;

/// About how many bytes are read at once, whatever was asked for.
const LOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A resting job whose task is needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub id: JobId,
    /// The version that rests.
    pub version: Version,
    /// Where its task stands.
    pub place: Place,
}

/// What the store has.
pub(super) struct Loaded {
    pub wanted: Wanted,
    /// `None` when there is no such job.
    pub found: Result<Option<Found>, StoreError>,
}

/// A job, and the offer of its task; no offer when none can be made.
pub(super) type Found = (Arc<Job>, Option<Offer>);

/// The way to the loading thread. One request at a time is with it.
pub(super) struct Loader(SyncSender<Vec<Wanted>>);

/// Where the answers arrive, one for each request.
pub(super) type Loads = mpsc::Receiver<Vec<Loaded>>;

impl Loader {
    /// Asks for these jobs.
    pub fn load(&self, wanted: Vec<Wanted>) -> Result<(), StoreError> {
        self.0.send(wanted).map_err(|_| StoreError::Failed { reason: "the loading thread is gone".into() })
    }
}

/// Starts the loading thread. It ends when the [`Loader`] is dropped.
pub(super) fn start(
    store: Arc<dyn Store>,
    catalog: Catalog,
) -> Result<(Loader, Loads, JoinHandle<()>), StoreError> {
    let (sender, requests) = std::sync::mpsc::sync_channel::<Vec<Wanted>>(1);
    let (answers, loads) = mpsc::channel(1);
    let body = move || {
        for wanted in requests {
            if answers.blocking_send(load(&*store, &catalog.current(), &wanted)).is_err() {
                return;
            }
        }
    };
    let loader = thread::Builder::new()
        .name("loader".into())
        .spawn(body)
        .map_err(|error| StoreError::Failed { reason: format!("no thread for the loader: {error}") })?;
    Ok((Loader(sender), loads, loader))
}

/// Reads the first of these jobs, as many as [`LOAD_BYTES_MAX`] allows or until one cannot be read.
pub(super) fn load(store: &dyn Store, blueprints: &Registry, wanted: &[Wanted]) -> Vec<Loaded> {
    let ids: Vec<JobId> = wanted.iter().map(|wanted| wanted.id).collect();
    let mut loaded = Vec::with_capacity(wanted.len());
    let mut bytes = 0;
    let outcome = store.load_many(&ids, &mut |_, job| {
        bytes += job.as_ref().map_or(0, bytes_of);
        let found = job.map(|job| {
            let offer = offer_of(&job, blueprints);
            (Arc::new(job), offer)
        });
        loaded.push(Loaded { wanted: wanted[loaded.len()], found: Ok(found) });
        if bytes < LOAD_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let Err(error) = outcome
        && let Some(&wanted) = wanted.get(loaded.len())
    {
        loaded.push(Loaded { wanted, found: Err(error) });
    }
    loaded
}

/// The offer of the job's task; `None` when none can be made.
pub(super) fn offer_of(job: &Job, blueprints: &Registry) -> Option<Offer> {
    let blueprint = blueprints.version(&job.blueprint, job.blueprint_version)?;
    offer_again(job, blueprint)
}
