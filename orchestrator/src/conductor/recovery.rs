//! After a start: memory is made again from the store.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::watch;

use super::{
    batch::Batch,
    book::Book,
    core::{Core, Settings},
    families::Families,
    gate::Gate,
    mail::Mail,
    pruning::Reopened,
    quota::Usage,
    waiting::Waiting,
    watchers::Watchers,
};
use crate::{
    blueprint::Catalog,
    dispatch::{Adoption, Dispatch},
    engine::Entropy,
    hash::FastSet,
    live::Live,
    metrics::Metrics,
    museum::{Mistake, plants},
    store::{Store, StoreError},
    time::Clock,
    trust::Tenancy,
};

impl Core {
    /// The open jobs, their timers, their ready tasks, and the workers that are expected back. Every job rests: it is read when
    /// it is needed. Nothing is written, so a crash during recovery changes nothing.
    pub fn recover(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        catalog: Catalog,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let now = clock.now();
        let mut dispatch = Dispatch::default();
        let mut book = Book::default();
        let mut gate = Gate::default();
        let mut relatives = Vec::new();
        store.open_jobs(&mut |stub| {
            book.restore(&stub);
            gate.restore(&stub, now);
            if let Some(task) = &stub.task {
                dispatch.restore(task, stub.id.key());
            }
            if stub.children.is_some() || stub.parent.is_some() {
                relatives.push(stub);
            }
        })?;
        store.buckets()?.iter().for_each(|bucket| gate.restore_bucket(bucket, now));
        let mut families = Families::default();
        let last_promised = families.restore(&relatives, &*store)?;
        let mut mail = Mail::default();
        store.pending_notices(&mut |notice| mail.put(&notice))?;
        if mail.undelivered() > 0 && settings.webhooks.is_none() {
            tracing::warn!(
                "{} messages wait for webhooks, and there is no secret to sign them with: see webhook_secrets",
                mail.undelivered()
            );
        }
        // The window begins when workers can come back, and not when the first job is read.
        let sessions = store.sessions()?;
        dispatch.remember(&sessions, now);
        dispatch.expect(Adoption::expect(sessions, clock.now() + settings.adoption_window));
        let last_job_key = store.last_job_key()?.unwrap_or(0).max(last_promised);
        if book.open_total() > 0 {
            tracing::info!("Recovered {} open jobs", book.open_total());
        }
        Ok(Self {
            entropy: Entropy::from_seed(if plants(Mistake::AttemptIdsAgain) {
                [0; 32]
            } else {
                settings.entropy_seed
            }),
            dispatch,
            book,
            families,
            gate,
            gate_paused_until: None,
            mail,
            tenancy: Tenancy::default(),
            weighed: Arc::default(),
            usage: Usage::restore(store.usage()?),
            last_job_key,
            watchers: Watchers::default(),
            batch: Batch::default(),
            keys: HashMap::new(),
            forgetting: FastSet::default(),
            reopened: Reopened::default(),
            detached: 0,
            waiting: Waiting::default(),
            again: Vec::new(),
            gone: Vec::new(),
            again_at: None,
            storage_full: watch::Sender::new(false),
            room_again_at: None,
            broken_check_at: now,
            loading: false,
            load_again_at: None,
            ended: BTreeMap::new(),
            ended_jobs: Default::default(),
            started_at: now,
            draining: None,
            store,
            clock,
            blueprints: catalog.current(),
            catalog,
            enacted: None,
            limits: Live::new(settings.limits),
            metrics,
        })
    }
}
