//! Reading the blueprints again while the orchestrator runs, and with them the schedules and whatever else is read from files: all
//! or nothing.
//!
//! One file that cannot be used, and everything stays as it is; whoever asked is told all that is wrong. It refuses to know who
//! asks (a call, a signal, a changed file) and where the blueprints come from.

mod put;

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode};
use tokio::sync::Mutex;

use crate::{
    api::Auth,
    audit::{Audit, Note},
    blueprint::{Change, Definition, Finding, Loaded, Position, Severity},
    chores::pruning::Retention,
    conductor::Conductor,
    config::Adjusted,
    functions::Functions,
    live::Live,
    schedule::{Schedule, ScheduleError, Schedules},
    telemetry,
    trust::{Access, Tenancy},
    webhook::Poster,
};

pub use self::put::{Put, PutOutcome};

/// Reads every blueprint that is to be served. May block.
pub type Source = dyn Fn() -> Result<Vec<Loaded>, Vec<Finding>> + Send + Sync;

/// Reads every schedule there is to be, which may make jobs of these blueprints. May block.
pub type ScheduleSource = dyn Fn(&[&str]) -> Result<Vec<Schedule>, Vec<ScheduleError>> + Send + Sync;

/// Reads something else that a reload renews, such as certificates. May block.
pub type OtherSource = dyn Fn() -> Result<Fresh, Vec<Finding>> + Send + Sync;

/// What was read and is not in force yet.
pub struct Fresh {
    /// What should be looked at.
    pub warnings: Vec<Finding>,
    /// Puts it in force. Cannot fail, so that either everything comes into force or nothing.
    pub enforce: Box<dyn FnOnce() + Send>,
}

/// The way to a reload. Cheap to clone.
#[derive(Clone)]
pub struct Reload {
    conductor: Conductor,
    source: Option<Arc<Source>>,
    functions: Functions,
    /// Where schedules are read, and where they go.
    schedules: Option<(Schedules, Arc<ScheduleSource>)>,
    others: Vec<Arc<OtherSource>>,
    audit: Audit,
    /// Held from reading to the answer, so that what was read earlier cannot come into force later.
    one_at_a_time: Arc<Mutex<()>>,
}

/// What a reload came to.
#[derive(Debug)]
pub enum Reloaded {
    /// What was read is in force, or would be.
    Applied {
        /// What changed for new jobs.
        changes: Vec<Change>,
        /// Blueprints that are served as before.
        unchanged: usize,
        /// What the loader wants looked at.
        warnings: Vec<Finding>,
    },
    /// Nothing has changed, because of these. Warnings may be among them, and at least one error is.
    Refused(Vec<Finding>),
}

impl Reload {
    /// Without anything to read from: every reload is refused.
    pub fn new(conductor: Conductor) -> Self {
        Self {
            conductor,
            source: None,
            functions: Functions::default(),
            schedules: None,
            others: Vec::new(),
            audit: Audit::to_log(),
            one_at_a_time: Arc::default(),
        }
    }

    /// With these functions, so that a blueprint which calls others is warned of.
    pub fn with_functions(self, functions: Functions) -> Self {
        Self { functions, ..self }
    }

    /// With this to read schedules from, whenever blueprints are read.
    pub fn with_schedules(self, schedules: Schedules, source: Arc<ScheduleSource>) -> Self {
        Self { schedules: Some((schedules, source)), ..self }
    }

    /// With this to be read as well, whenever blueprints are: after all others of its kind, and before the blueprints.
    pub fn with_other(mut self, source: Arc<OtherSource>) -> Self {
        self.others.push(source);
        self
    }

    /// With this to write down what nobody called for.
    pub fn with_audit(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// With this to read from.
    pub fn from_source(self, source: Arc<Source>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Reads the blueprints and all the rest, and puts them in force unless it is only asked what that would do.
    ///
    /// # Errors
    /// `UNSUPPORTED` when the blueprints of this orchestrator come from nowhere; `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`.
    /// Nothing has changed then.
    pub async fn reload(&self, dry_run: bool) -> Result<Reloaded, ApiError> {
        let reload = self.clone();
        to_its_end(async move { reload.reload_whole(dry_run).await }).await
    }

    async fn reload_whole(&self, dry_run: bool) -> Result<Reloaded, ApiError> {
        let Some(source) = self.source.clone() else {
            return Err(ApiError::new(
                ErrorCode::Unsupported,
                "This orchestrator reads no blueprint directory",
            )
            .with_hint("Start it again with other blueprints."));
        };
        let _turn = self.one_at_a_time.lock().await;
        let reads_schedules = self.schedules.as_ref().map(|(_, source)| source.clone());
        let others = self.others.clone();
        let read = move || read(&*source, reads_schedules.as_deref(), &others);
        let Files { loaded, schedules, others } = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(read)) => read,
            Ok(Err(findings)) => return Ok(Reloaded::Refused(findings)),
            Err(_) => {
                return Err(ApiError::new(
                    ErrorCode::Internal,
                    "The blueprints could not be read to the end",
                ));
            }
        };
        let clashes = self.conductor.blueprints().clashes_with_put(&loaded);
        if !clashes.is_empty() {
            return Ok(Reloaded::Refused(clashes));
        }
        let total = loaded.len();
        let (definitions, warnings): (Vec<Definition>, Vec<Vec<Finding>>) =
            loaded.into_iter().map(|loaded| (loaded.definition, loaded.warnings)).unzip();
        let (changes, registry) = match dry_run {
            true => {
                let enactment = self.conductor.blueprints().enact(definitions);
                (enactment.changes, Arc::new(enactment.registry))
            }
            false => (self.conductor.enact(definitions).await?, self.conductor.blueprints()),
        };
        if let (false, Some(schedules), Some((board, _))) = (dry_run, schedules, &self.schedules) {
            tracing::info!("Schedules reloaded: there are {}", schedules.len());
            board.replace(schedules);
        }
        let mut odd = Vec::new();
        for other in others {
            odd.extend(other.warnings);
            if !dry_run {
                (other.enforce)();
            }
        }
        let unchanged = total - changes.iter().filter(|change| change.after.is_some()).count();
        let missing = self.functions.missing(&registry);
        let warnings = warnings.into_iter().flatten().chain(missing).chain(odd).collect();
        Ok(Reloaded::Applied { changes, unchanged, warnings })
    }

    /// A reload that nobody waits for: the log tells what it came to.
    pub async fn reload_and_log(&self) {
        let reloaded = self.reload(false).await;
        let outcome = match &reloaded {
            Ok(Reloaded::Applied { .. }) => "ok",
            Ok(Reloaded::Refused(_)) => ErrorCode::BlueprintsInvalid.as_str(),
            Err(error) => error.code.as_str(),
        };
        self.audit.note(Note {
            event: "operator_call",
            who: "SIGHUP",
            what: "reload",
            outcome,
            ..Note::default()
        });
        match reloaded {
            Ok(Reloaded::Applied { changes, unchanged, warnings }) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!("Blueprints reloaded: {} changed, {unchanged} as before", changes.len());
                changes.iter().for_each(|change| tracing::info!("  - {change}"));
            }
            Ok(Reloaded::Refused(findings)) => {
                tracing::error!("The blueprints stay as they are, because of:");
                findings.iter().for_each(|finding| tracing::error!("  - {finding}"));
            }
            Err(error) => tracing::error!(hint = &*error.hint, "The blueprints stay as they are: {error}"),
        }
    }
}

/// Whoever asked for it may leave: what was begun comes to its end, so that it is not left half done.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let unfinished = || ApiError::new(ErrorCode::Internal, "The change did not come to its end");
    tokio::spawn(change).await.unwrap_or_else(|_| Err(unfinished()))
}

/// Everybody who may call from now on, once it is enforced. First the tokens: whoever is not among them any more does nothing
/// under the new terms.
pub(crate) fn of_access(access: Access, auth: &Arc<Auth>, tenancy: &Tenancy, audit: &Audit) -> Fresh {
    let (auth, tenancy, audit) = (auth.clone(), tenancy.clone(), audit.clone());
    let enforce = move || {
        let (clients, workers, tenants) = (access.clients.len(), access.workers.len(), access.tenants());
        let withdrawn = auth.replace(access);
        tenancy.replace(tenants);
        tracing::info!(
            "Access reloaded: {clients} clients, {workers} entries of workers, {withdrawn} tokens withdrawn"
        );
        if withdrawn > 0 {
            let what = format!("{withdrawn} tokens are no longer in the files, or not for the same");
            audit.note(Note { event: "tokens_withdrawn", what: &what, ..Note::default() });
        }
    };
    Fresh { warnings: Vec::new(), enforce: Box::new(enforce) }
}

/// These settings, once they are enforced. Whoever delivers messages to webhooks is prepared before that, because it may fail.
pub(crate) fn of_settings(
    adjusted: Adjusted,
    conductor: &Conductor,
    retention: &Live<Retention>,
    poster: Option<&Live<Poster>>,
) -> Result<Fresh, Vec<Finding>> {
    let Adjusted { limits, retention: kept, webhooks, log, warnings } = adjusted;
    let (conductor, retention) = (conductor.clone(), retention.clone());
    let webhooks = match (poster, webhooks) {
        (Some(poster), Some(setup)) if Some(&setup) != (*conductor.webhooks().current()).as_ref() => {
            let fresh = Poster::new(&setup).map_err(|error| {
                vec![Finding {
                    severity: Severity::Error,
                    file: "webhook_secrets".to_owned(),
                    at: Position::default(),
                    what: format!("TLS cannot be set up: {error}"),
                    cure: "check the authorities that this machine trusts".to_owned(),
                }]
            })?;
            Some((poster.clone(), fresh, setup))
        }
        _ => None,
    };
    let enforce = move || {
        conductor.limits().replace(limits);
        retention.replace(kept);
        if let Some((poster, fresh, setup)) = webhooks {
            poster.replace(fresh);
            conductor.webhooks().replace(Some(setup));
        }
        if let Some(log) = log {
            telemetry::replace_filter(log);
        }
    };
    Ok(Fresh { warnings, enforce: Box::new(enforce) })
}

/// Everything there is to read.
struct Files {
    loaded: Vec<Loaded>,
    /// If there is anything to read them from.
    schedules: Option<Vec<Schedule>>,
    others: Vec<Fresh>,
}

/// Everything, or what is wrong with it.
fn read(
    source: &Source,
    schedules: Option<&ScheduleSource>,
    others: &[Arc<OtherSource>],
) -> Result<Files, Vec<Finding>> {
    let (mut fresh, mut wrong) = (Vec::new(), Vec::new());
    for other in others {
        match other() {
            Ok(read) => fresh.push(read),
            Err(findings) => wrong.extend(findings),
        }
    }
    match files(source, schedules) {
        Ok((loaded, schedules)) if wrong.is_empty() => Ok(Files { loaded, schedules, others: fresh }),
        Ok(_) => Err(wrong),
        Err(mut findings) => {
            findings.extend(wrong);
            Err(findings)
        }
    }
}

type Jobs = (Vec<Loaded>, Option<Vec<Schedule>>);

fn files(source: &Source, schedules: Option<&ScheduleSource>) -> Result<Jobs, Vec<Finding>> {
    let loaded = source()?;
    let names: Vec<&str> = loaded.iter().map(|loaded| &**loaded.definition.name()).collect();
    let schedules = schedules.map(|read| read(&names)).transpose();
    let schedules = schedules.map_err(|errors| errors.into_iter().map(finding).collect::<Vec<_>>())?;
    Ok((loaded, schedules))
}

fn finding(ScheduleError { place, what, hint }: ScheduleError) -> Finding {
    Finding { severity: Severity::Error, file: place, at: Position::default(), what, cure: hint }
}
