//! The orchestrator as one piece: parts in, a running service out.

use std::{io, sync::Arc, time::Duration};

use avtomatika_proto::spans::Spans;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Api, Auth, Inside, Intake, Phase, Readiness, Tracing},
    audit::Audit,
    blueprint::{Blueprint, Definition, Finding, Loaded, Registry},
    chores::{
        AtWork,
        pruning::{Pruning, Retention},
        schedules::Scheduling,
        traces,
        webhooks::Webhooks,
    },
    conductor::{self, Conductor, DEFAULT_RESIDENT_BYTES, Limits, Running, Settings},
    config::{self, Adjusted},
    dispatch::{Fleet, session::WorkerGate},
    functions::{self, Functions, InvalidFunction},
    metrics::Metrics,
    reload::{self, Reload},
    schedule::{Schedule, ScheduleError, Schedules},
    store::{Batch, BlueprintRecord, Store, StoreError},
    time::{Clock, SystemClock},
    tls::Tls,
    trust::Access,
    webhook::Poster,
};

/// How long the last commit of a stop may take, even when functions that would not end have used up the time for it: on a disk whose
/// syncs take a second, one may be under way before it.
const COMMIT_WITHIN: Duration = Duration::from_secs(3);

/// How long chores may take to end of which one is in the middle of a read, even when the time for a stop is over.
const CHORES_WITHIN: Duration = Duration::from_millis(200);

/// What an orchestrator is made of.
pub struct Parts {
    /// Where jobs are durable.
    pub store: Arc<dyn Store>,
    /// Where `now` comes from.
    pub clock: Arc<dyn Clock>,
    /// The blueprints to serve. One whose definition differs from the newest stored version becomes the next version.
    pub definitions: Vec<Definition>,
    /// When to make which jobs by itself. A clone of it can give it other ones while the orchestrator runs.
    pub schedules: Schedules,
    /// Who may call.
    pub auth: Auth,
    /// The conductor's knobs.
    pub settings: Settings,
    /// Which jobs are kept after their end.
    pub retention: Retention,
    /// How long a stop may take in all. What connections have not ended by then is cut off.
    pub drain_timeout: Duration,
}

impl Parts {
    /// Of this store, with the machine's clock and every limit as it is when nobody says. No blueprints yet, no webhooks, and no
    /// tokens, so nobody can call from outside: name with `..` what is to be different.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(store: Arc<dyn Store>) -> io::Result<Self> {
        Ok(Self {
            store,
            clock: Arc::new(SystemClock::new()),
            definitions: Vec::new(),
            schedules: Schedules::default(),
            auth: Auth::new([], []),
            settings: Settings {
                limits: Limits {
                    max_open_jobs: config::DEFAULT_MAX_OPEN_JOBS,
                    max_workers: config::DEFAULT_MAX_WORKERS,
                    resident_bytes_max: DEFAULT_RESIDENT_BYTES,
                },
                adoption_window: config::DEFAULT_ADOPTION_WINDOW,
                webhooks: None,
                entropy_seed: Settings::fresh_seed()?,
            },
            retention: Retention::for_age(config::DEFAULT_RETENTION),
            drain_timeout: config::DEFAULT_DRAIN_TIMEOUT,
        })
    }
}

/// Why an orchestrator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read, or the new blueprint versions cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Connections to webhooks cannot be encrypted.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A stored blueprint is not one that this release understands.
    #[error("the stored blueprint {name:?}, version {version}, cannot be loaded: {finding}")]
    StoredBlueprint {
        /// Its name.
        name: Arc<str>,
        /// Its version.
        version: u32,
        /// The first thing that is wrong with it.
        finding: String,
    },
    /// A function cannot be had under its name.
    #[error(transparent)]
    Function(#[from] InvalidFunction),
}

/// An orchestrator that has recovered its jobs and waits for a listener.
pub struct App {
    inside: Inside,
    stopped: oneshot::Receiver<Result<(), StoreError>>,
    storage_full: watch::Receiver<bool>,
    functions: Functions,
    pruning: Pruning,
    webhooks: Option<Webhooks>,
    scheduling: Scheduling,
    tls: Option<Tls>,
    fleet: Fleet,
    drain_timeout: Duration,
}

/// Recovers what the store holds and starts the conductor. No work is handed out until [`App::serve`] or [`App::run`].
///
/// # Errors
/// When the store cannot be used, or holds a blueprint that cannot be loaded.
pub fn assemble(parts: Parts) -> Result<App, StartError> {
    let Parts { store, clock, definitions, schedules, auth, settings, retention, drain_timeout } = parts;
    let registry = Arc::new(enact(&*store, definitions)?);
    let metrics = Arc::new(Metrics::new());
    let poster = settings.webhooks.as_ref().map(Poster::new).transpose()?;
    let (entropy_seed, fleet) = (settings.entropy_seed, Fleet::new(settings.adoption_window));
    let Running { conductor, stopped, storage_full } =
        conductor::start(store, clock.clone(), registry, settings, metrics.clone())?;
    let pruning = Pruning::new(conductor.clone(), clock.clone(), retention);
    let scheduling = Scheduling::new(conductor.clone(), clock.clone(), schedules.clone(), metrics.clone());
    let deliver = |poster| {
        let (conductor, metrics) = (conductor.clone(), metrics.clone());
        Webhooks::new(conductor, clock, poster, api::compose, metrics, entropy_seed)
    };
    let webhooks = poster.map(deliver);
    conductor.tenancy().replace(auth.access().tenants());
    let reload = Reload::new(conductor.clone());
    let (auth, readiness, functions) = (Arc::new(auth), Readiness::default(), Functions::default());
    let (tracing, audit) = (Tracing::default(), Audit::to_log());
    let intake = Intake::default();
    let inside = Inside { conductor, auth, schedules, metrics, readiness, reload, tracing, audit, intake };
    Ok(App {
        inside,
        stopped,
        storage_full,
        functions,
        pruning,
        scheduling,
        webhooks,
        tls: None,
        fleet,
        drain_timeout,
    })
}

impl App {
    /// The verbs, for a process that embeds the orchestrator.
    pub fn conductor(&self) -> &Conductor {
        &self.inside.conductor
    }

    /// Says where the blueprints are read again when somebody asks for it. Without, a reload is refused.
    pub fn reload_from(
        mut self,
        source: impl Fn() -> Result<Vec<Loaded>, Vec<Finding>> + Send + Sync + 'static,
    ) -> Self {
        self.inside.reload = self.inside.reload.from_source(Arc::new(source));
        self
    }

    /// Says where the schedules are read again whenever the blueprints are. Without, they stay as they are.
    pub fn reload_schedules_from(
        mut self,
        source: impl Fn(&[&str]) -> Result<Vec<Schedule>, Vec<ScheduleError>> + Send + Sync + 'static,
    ) -> Self {
        let schedules = self.inside.schedules.clone();
        self.inside.reload = self.inside.reload.with_schedules(schedules, Arc::new(source));
        self
    }

    /// Says where settings are read again whenever the blueprints are. Without, they stay as they are. Comes before everything else that
    /// is read again, which may depend on them.
    pub fn reload_settings_from(
        mut self,
        source: impl Fn() -> Result<Adjusted, Vec<Finding>> + Send + Sync + 'static,
    ) -> Self {
        let (conductor, retention) = (self.inside.conductor.clone(), self.pruning.retention().clone());
        let poster = self.webhooks.as_ref().map(|webhooks| webhooks.poster().clone());
        let again = move || reload::of_settings(source()?, &conductor, &retention, poster.as_ref());
        self.inside.reload = self.inside.reload.with_other(Arc::new(again));
        self
    }

    /// Speaks TLS at the port, and nothing else there. Its files are read again whenever the blueprints are.
    pub fn encrypted(mut self, tls: Tls) -> Self {
        let again = tls.clone();
        self.inside.reload = self.inside.reload.with_other(Arc::new(move || again.read_again()));
        self.tls = Some(tls);
        self
    }

    /// Says where clients and workers are read again whenever the blueprints are. Without, they stay as they are. Comes after
    /// [`App::with_audit`].
    pub fn reload_access_from(
        mut self,
        source: impl Fn() -> Result<Access, Vec<Finding>> + Send + Sync + 'static,
    ) -> Self {
        let (auth, tenancy) = (self.inside.auth.clone(), self.inside.conductor.tenancy().clone());
        let audit = self.inside.audit.clone();
        let again = move || Ok(reload::of_access(source()?, &auth, &tenancy, &audit));
        self.inside.reload = self.inside.reload.with_other(Arc::new(again));
        self
    }

    /// Says where operators' calls and security events are written down. Without, they go to the log.
    pub fn with_audit(mut self, audit: Audit) -> Self {
        self.inside.reload = self.inside.reload.with_audit(audit.clone());
        self.inside.audit = audit;
        self
    }

    /// Reads the blueprints again, for a process that embeds the orchestrator.
    pub fn reload(&self) -> &Reload {
        &self.inside.reload
    }

    /// Has the `code` states of blueprints call these functions. Without one that a blueprint names, its jobs wait there, which
    /// is said by name when the orchestrator starts to run, and when blueprints are read again.
    ///
    /// # Errors
    /// When a function cannot be had under its name.
    pub fn with_functions(mut self, functions: Functions) -> Result<Self, StartError> {
        functions.check()?;
        self.inside.reload = self.inside.reload.with_functions(functions.clone());
        self.functions = functions;
        Ok(self)
    }

    /// Tells of submissions and of traced jobs there. Without it, traces that clients have begun reach the workers, and that is all.
    pub fn with_spans(mut self, spans: Spans) -> Self {
        self.inside.tracing = Tracing(Some(spans));
        self
    }

    /// The schedules, which may be given other ones.
    pub fn schedules(&self) -> &Schedules {
        &self.inside.schedules
    }

    /// Serves the listener until `shutdown`, then stops in order: no new work, calls of functions get half of the drain time to end,
    /// what is in flight is made durable, the workers are told to come back, and connections get the drain time to end.
    ///
    /// # Errors
    /// When the store fails, or something has panicked that the orchestrator cannot do without: nothing was acknowledged that is not
    /// durable, and the process should end and start again.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        let (sessions, auth) = (self.inside.conductor.sessions(), self.inside.auth.clone());
        let gate = WorkerGate::new(sessions, auth, self.fleet.clone());
        let inside = Arc::new(self.inside.clone());
        let grpc = api::grpc::routes(&inside).add_service(gate.into_service());
        let (closing, cut) = (CancellationToken::new(), CancellationToken::new());
        let mut api = Api::new(inside, grpc);
        if let Some(tls) = self.tls.take() {
            api = api.encrypted(tls);
        }
        let serving = tokio::spawn(api::serve(listener, api, closing.clone(), cut.clone()));
        self.work(Some((serving, cut)), closing, shutdown).await
    }

    /// Runs without a listener until `shutdown`, then stops in order: for a process that submits jobs by
    /// [`App::conductor`] and does their work in functions.
    ///
    /// # Errors
    /// The same as of [`App::serve`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        self.work(None, CancellationToken::new(), shutdown).await
    }

    async fn work(
        self,
        serving: Option<(JoinHandle<()>, CancellationToken)>,
        closing: CancellationToken,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        let Self {
            inside,
            mut stopped,
            storage_full,
            functions,
            pruning,
            scheduling,
            webhooks,
            drain_timeout,
            ..
        } = self;
        for warning in functions.missing(&inside.conductor.blueprints()) {
            tracing::warn!("{warning}");
        }
        let hosting = functions::start(functions, inside.conductor.sessions(), drain_timeout / 2);
        inside.readiness.set(Phase::Ready);
        tokio::spawn(show_full_disk(storage_full, inside.readiness.clone()));
        let mut at_work = AtWork::until(closing.clone());
        at_work.start("schedules", scheduling);
        at_work.start("pruning", pruning);
        if let Some((spans, ended)) = inside.tracing.0.clone().zip(inside.conductor.traced_ends()) {
            inside.metrics.count_spans(spans.clone());
            at_work.spawn("traces", traces::tell(ended, inside.conductor.clone(), spans, closing.clone()));
        }
        if let Some(webhooks) = webhooks {
            at_work.start("webhooks", webhooks);
        }
        // One deadline for all that follows: whoever wants us to stop waits for the whole of it.
        let (outcome, until) = tokio::select! {
            () = shutdown.cancelled() => {
                let until = Instant::now() + drain_timeout;
                inside.readiness.set(Phase::Draining);
                if let Some(hosting) = hosting {
                    hosting.drain().await;
                }
                let committed_by = until.max(Instant::now() + COMMIT_WITHIN);
                let drained = async {
                    inside.conductor.drain().await;
                    (&mut stopped).await
                };
                let outcome = tokio::time::timeout_at(committed_by, drained).await.unwrap_or_else(|_| {
                    Ok(Err(StoreError::Failed { reason: "the disk did not answer in time".into() }))
                });
                (outcome, until)
            }
            outcome = &mut stopped => (outcome, Instant::now() + drain_timeout),
            // Nobody would miss it for days: whoever looks after the process is to start it again, and the chore with it.
            name = at_work.panicked() => {
                let reason = format!("the chore {name:?} has panicked");
                (Ok(Err(StoreError::Failed { reason })), Instant::now() + drain_timeout)
            }
        };
        inside.readiness.set(Phase::Draining);
        closing.cancel();
        let outcome = outcome
            .unwrap_or_else(|_| Err(StoreError::Failed { reason: "the conductor has panicked".into() }));
        match (&outcome, serving) {
            // Nothing more can be promised to anybody: the sooner the process ends, the sooner it can recover.
            (Err(_), serving) => serving.iter().for_each(|(serving, _)| serving.abort()),
            (Ok(()), serving) => {
                if let Some((mut serving, cut)) = serving
                    && tokio::time::timeout_at(until, &mut serving).await.is_err()
                {
                    cut.cancel();
                    let _ = serving.await;
                }
                // They hold the store, which others may open once we have stopped.
                let chores_by = until.max(Instant::now() + CHORES_WITHIN);
                let _ = tokio::time::timeout_at(chores_by, at_work.ended()).await;
            }
        }
        outcome
    }
}

/// Tells load balancers about a full disk for as long as it is one.
async fn show_full_disk(mut storage_full: watch::Receiver<bool>, readiness: Readiness) {
    // Ends with the conductor.
    while storage_full.changed().await.is_ok() {
        let full = *storage_full.borrow_and_update();
        readiness.set(if full { Phase::DiskFull } else { Phase::Ready });
    }
}

/// All stored versions, and the given definitions as the newest of each: a changed definition is stored as a new version, so
/// that running jobs keep the one that they started with.
fn enact(store: &dyn Store, definitions: Vec<Definition>) -> Result<Registry, StartError> {
    let mut stored = Registry::default();
    for record in store.blueprints()? {
        stored.add(Arc::new(load_stored(record)?), false);
    }
    let enactment = stored.enact(definitions);
    for blueprint in enactment.registry.without_their_endpoint() {
        tracing::warn!(
            "The blueprint {:?}, which was put over the wire, is served by its name only: a file has taken its endpoint",
            blueprint.name
        );
    }
    let batch = Batch { writes: conductor::records(&enactment.new_versions).collect() };
    if !batch.writes.is_empty() {
        store.commit(&batch)?;
    }
    Ok(enactment.registry)
}

fn load_stored(record: BlueprintRecord) -> Result<Blueprint, StartError> {
    match Definition::from_canonical(&record.definition) {
        Ok(definition) => {
            Ok(Blueprint { is_put: record.is_put, ..definition.into_blueprint(record.version) })
        }
        Err(findings) => Err(StartError::StoredBlueprint {
            name: record.name,
            version: record.version,
            finding: findings.first().map(ToString::to_string).unwrap_or_default(),
        }),
    }
}
