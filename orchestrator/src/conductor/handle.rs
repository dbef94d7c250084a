//! What the rest of the process may ask of the conductor. Cheap to clone; every verb is one message into its mailbox, or one
//! read from the store.
//!
//! Clients' verbs take the client and show it nothing of anybody else's: a foreign job reads as not found.

use std::{collections::HashMap, sync::Arc, time::Duration};

use avtomatika_proto::{
    ApiError, ErrorCode, JobId, TaskId,
    limits::{NAME_BYTES_MAX, START_AHEAD_MAX},
};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    admission::{Admission, Admissions},
    core::Limits,
    ended::Ended,
    mailbox::{Accepted, Act, Follow, Mailbox, Request, Submit},
    measures::Measures,
    view::{Acted, JobView, LeaseView, Stats, SubmitRequest, Submitted, WorkerView},
};
use crate::{
    blueprint::{Blueprint, Catalog, Registry},
    engine::{
        Children, Event, HistoryEntry, Job, JobStatus, Retry, Ruling, Signal, Skip, Submission, outlook,
    },
    functions,
    json::Json,
    live::Live,
    store::{ListQuery, Store, StoreError, StoreMeasures},
    time::{Clock, Timestamp},
    trust::{Glob, Tenancy},
    webhook,
};

/// The way into the conductor, for everything that serves clients.
#[derive(Clone)]
pub struct Conductor {
    pub(super) mailbox: Mailbox,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) catalog: Catalog,
    pub(super) admissions: Admissions,
    pub(super) webhooks: Live<Option<webhook::Setup>>,
    pub(super) notice_news: Arc<Notify>,
    pub(super) ended: Ended,
    pub(super) tenancy: Tenancy,
    pub(super) limits: Live<Limits>,
}

/// One page of a client's jobs.
#[derive(Debug)]
pub struct JobsPage {
    /// The jobs, newest first.
    pub jobs: Vec<JobView>,
    /// Where the next page begins.
    pub next_below_key: Option<i64>,
}

/// The changes of one job: first the present, then each change, and nothing after the job's end.
pub struct Watch {
    updates: mpsc::Receiver<JobView>,
    ended: bool,
}

impl Watch {
    /// The next update. `None` after the one in which the job was terminal.
    ///
    /// # Errors
    /// `WATCH_LAGGED` when updates came faster than they were taken; `SHUTTING_DOWN` when the orchestrator stops.
    pub async fn next(&mut self) -> Option<Result<JobView, ApiError>> {
        if self.ended {
            return None;
        }
        match self.updates.recv().await {
            Some(view) => {
                self.ended = view.job.status.is_terminal();
                Some(Ok(view))
            }
            None => {
                self.ended = true;
                Some(Err(ApiError::new(
                    ErrorCode::WatchLagged,
                    "The watch ended before the job did: updates came faster than they were read, or the orchestrator is stopping",
                )))
            }
        }
    }
}

impl Conductor {
    /// The blueprints that are served now.
    pub fn blueprints(&self) -> Arc<Registry> {
        self.catalog.current()
    }

    /// What holds for which client.
    pub fn tenancy(&self) -> &Tenancy {
        &self.tenancy
    }

    /// The limits in force.
    pub fn limits(&self) -> &Live<Limits> {
        &self.limits
    }

    /// How webhooks are told now.
    pub fn webhooks(&self) -> &Live<Option<webhook::Setup>> {
        &self.webhooks
    }

    /// The time of day, as schedules are meant: see [`Clock::wall`].
    pub fn wall_time(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Name of the store.
    pub fn store_name(&self) -> &'static str {
        self.store.name()
    }

    /// Creates a job, and waits for its end for as long as the request says.
    ///
    /// # Errors
    /// `BLUEPRINT_NOT_FOUND`, `INPUT_INVALID`, `INVALID_ARGUMENT` for a start too far ahead, `WEBHOOKS_OFF`,
    /// `WEBHOOK_URL_FORBIDDEN`, `TOO_MANY_NOTICES`, `IDEMPOTENCY_CONFLICT`, `TOO_MANY_OPEN_JOBS`, `QUOTA_EXCEEDED`,
    /// `PERMISSION_DENIED` for the blueprint, `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`.
    /// Nothing was stored when any of them is returned.
    pub async fn submit(&self, client: &Arc<str>, request: SubmitRequest) -> Result<Submitted, ApiError> {
        let admission = self.admit(request.submission.initial_data.as_str().len()).await;
        self.submit_admitted(client, request, admission).await
    }

    /// Waits until a payload of so many bytes may come in. To be asked before anybody looks into it; what is not large need not
    /// wait.
    pub async fn admit(&self, payload_bytes: usize) -> Admission {
        self.admissions.admit(payload_bytes).await
    }

    /// [`Conductor::submit`] of a payload that has been let in.
    ///
    /// # Errors
    /// The same.
    pub async fn submit_admitted(
        &self,
        client: &Arc<str>,
        request: SubmitRequest,
        admission: Admission,
    ) -> Result<Submitted, ApiError> {
        let SubmitRequest { blueprint: name, mut submission, idempotency_key, delay, wait } = request;
        let mut blueprint = self.check_submission(client, &name, &submission);
        let idempotency = idempotency_key.map(|key| (key, fingerprint(&name, &submission, delay)));
        match start_at(submission.start_at, delay, self.clock.now()) {
            Ok(start_at) => submission.start_at = start_at,
            Err(error) => blueprint = blueprint.and(Err(error)),
        }
        // What comes under a key may have made its job when its blueprint was another one.
        let blueprint = if idempotency.is_none() { Ok(blueprint?) } else { blueprint };
        let submission = Arc::new(submission);
        let submit =
            |follow| Submit { client: client.clone(), blueprint, submission, idempotency, follow, admission };
        if wait.is_zero() {
            let submit = submit(Follow::Not);
            let accepted = self.mailbox.ask(|reply| Request::Submit(submit, reply)).await??;
            return Ok(Submitted { job_id: accepted.job_id, deduplicated: accepted.deduplicated, job: None });
        }
        let ((end, ended), (reply, accepted)) = (oneshot::channel(), oneshot::channel());
        self.mailbox.send(Request::Submit(submit(Follow::End(end)), reply)).await?;
        // First the end: whoever waits for it need not be woken for the acceptance as well.
        let end = tokio::time::timeout(wait, ended).await;
        let Accepted { job_id, deduplicated } = accepted.await.map_err(|_| shutting_down())??;
        let job = match end {
            Ok(Ok(view)) => view,
            // The wait is over, or the conductor has stopped: the job itself is safe and can be shown.
            Ok(Err(_)) | Err(_) => self.get(client, job_id).await?,
        };
        Ok(Submitted { job_id, deduplicated, job: Some(job) })
    }

    /// What a job of this submission would follow, if there can be one now.
    fn check_submission(
        &self,
        client: &str,
        name: &str,
        submission: &Submission,
    ) -> Result<Arc<Blueprint>, ApiError> {
        check_allowed(&self.tenancy, client, name)?;
        let blueprints = self.blueprints();
        let blueprint = blueprints.newest(name).cloned().ok_or_else(|| no_blueprint(&blueprints, name))?;
        check_input(&blueprint, &submission.initial_data)?;
        self.check_webhook(submission.webhook_url.as_deref())?;
        Ok(blueprint)
    }

    /// The job as it is now.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `STORAGE_FAILED`, `OVERLOADED`.
    pub async fn get(&self, client: &Arc<str>, job_id: JobId) -> Result<JobView, ApiError> {
        let job = self.load_own(client, job_id).await?;
        self.with_leases(vec![job]).await?.pop().ok_or_else(job_not_found)
    }

    /// The client's jobs that meet the query, newest first.
    ///
    /// # Errors
    /// `STORAGE_FAILED`, `OVERLOADED`.
    pub async fn list(&self, mut query: ListQuery) -> Result<JobsPage, ApiError> {
        let wanted = query.statuses.clone();
        // Whether a task is in a worker's hands is not stored: both are waiting_for_worker there.
        if wanted.contains(&JobStatus::Running) && !wanted.contains(&JobStatus::WaitingForWorker) {
            query.statuses.push(JobStatus::WaitingForWorker);
        }
        let page = self.read(move |store| store.list(&query)).await?;
        let jobs = page.jobs.into_iter().map(Arc::new).collect();
        let mut jobs = self.with_leases(jobs).await?;
        if !wanted.is_empty() {
            jobs.retain(|view| wanted.contains(&view.status()));
        }
        Ok(JobsPage { jobs, next_below_key: page.next_below_key })
    }

    /// Entries of the job's history from a sequence number on, at most `limit`.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `STORAGE_FAILED`.
    pub async fn history(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        from_sequence: u64,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, ApiError> {
        self.load_own(client, job_id).await?;
        let entries = self.read(move |store| store.history(job_id, from_sequence, limit)).await?;
        if entries.is_empty() {
            // The job may have been forgotten between the two reads.
            self.load_own(client, job_id).await?;
        }
        Ok(entries)
    }

    /// Follows the job to its end.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `STORAGE_FAILED`, `SHUTTING_DOWN`.
    pub async fn watch(&self, client: &Arc<str>, job_id: JobId) -> Result<Watch, ApiError> {
        let (sender, updates) = mpsc::channel(super::WATCH_BACKLOG_MAX);
        let client = client.clone();
        self.mailbox.ask(|reply| Request::Watch { client, job_id, sender, reply }).await??;
        Ok(Watch { updates, ended: false })
    }

    /// Ends the job as cancelled.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `JOB_TERMINAL`, `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn cancel(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        reason: Option<Arc<str>>,
    ) -> Result<JobView, ApiError> {
        let act = Act::by(client, job_id, Event::CancelRequested { reason }, Admission::default());
        Ok(self.act(act).await?.view)
    }

    /// Gives the job news that it waits for, or will. A repeated signal changes nothing.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `JOB_TERMINAL`, `TOO_MANY_SIGNALS`, `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn signal(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        signal: Signal,
        admission: Admission,
    ) -> Result<Acted, ApiError> {
        self.act(Act::by(client, job_id, Event::Signalled(signal), admission)).await
    }

    /// Decides what a job of this client asks a human. If the ruling has a token, it must be that of the approval.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `JOB_TERMINAL`, `APPROVAL_NOT_FOUND`, `OUTCOME_UNKNOWN`, `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn approve(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        ruling: Ruling,
        admission: Admission,
    ) -> Result<JobView, ApiError> {
        Ok(self.act(Act::by(client, job_id, Event::Decided(ruling), admission)).await?.view)
    }

    /// Decides for whoever has an approval's token, and no other right. Guesses cost a read, and never the conductor.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND` for a wrong or used token as for a job that is not there; `OUTCOME_UNKNOWN` with the right one;
    /// `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn approve_with_token(
        &self,
        job_id: JobId,
        ruling: Ruling,
        admission: Admission,
    ) -> Result<JobView, ApiError> {
        let job = self.read(move |store| store.load(job_id)).await?;
        let awaits =
            job.as_ref().and_then(|job| job.wait.as_ref()).is_some_and(|wait| wait.opens_to(&ruling));
        if ruling.token.is_none() || !awaits {
            return Err(job_not_found());
        }
        let event = Box::new(Event::Decided(ruling));
        Ok(self.act(Act { client: None, job_id, event, seen: None, admission }).await?.view)
    }

    /// Starts a failed or quarantined job again. A repetition under its key changes nothing.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `NOT_REPAIRABLE`, `IDEMPOTENCY_CONFLICT`, `STATE_NOT_FOUND`, `PAYLOAD_TOO_LARGE`, `TOO_MANY_OPEN_JOBS`, `STORAGE_FULL`,
    /// `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn retry(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        retry: Retry,
        admission: Admission,
    ) -> Result<Acted, ApiError> {
        self.act(Act::by(client, job_id, Event::RetryRequested(retry), admission)).await
    }

    /// Lets a job go on as if its state had ended with an outcome. A repetition under its key changes nothing.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `NOT_REPAIRABLE`, `IDEMPOTENCY_CONFLICT`, `OUTCOME_UNKNOWN`, `PAYLOAD_TOO_LARGE`, `TOO_MANY_OPEN_JOBS`, `STORAGE_FULL`,
    /// `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn skip(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        skip: Skip,
        admission: Admission,
    ) -> Result<Acted, ApiError> {
        self.act(Act::by(client, job_id, Event::SkipRequested(skip), admission)).await
    }

    /// What may be decided where the job asks a human.
    pub fn decisions(&self, job: &Job) -> Vec<Arc<str>> {
        match self.blueprints().version(&job.blueprint, job.blueprint_version) {
            Some(blueprint) => outlook::decisions(job, blueprint),
            None => Vec::new(),
        }
    }

    pub(super) async fn act(&self, act: Act) -> Result<Acted, ApiError> {
        self.mailbox.ask(|reply| Request::Act(act, reply)).await?
    }

    /// The connected workers, by name.
    ///
    /// # Errors
    /// `SHUTTING_DOWN`, `OVERLOADED`.
    pub async fn workers(&self) -> Result<Vec<WorkerView>, ApiError> {
        let mut workers = self.mailbox.ask(Request::Workers).await?;
        workers.sort_by(|a, b| a.worker.worker_id.cmp(&b.worker.worker_id));
        Ok(workers)
    }

    /// Ends the time for which a worker is set aside; nothing that failed on it is held against it any more.
    ///
    /// # Errors
    /// `WORKER_NOT_FOUND`, `SHUTTING_DOWN`, `OVERLOADED`.
    pub async fn restore_worker(&self, worker_id: &str) -> Result<WorkerView, ApiError> {
        let id = Arc::from(worker_id);
        let view = self.mailbox.ask(|reply| Request::RestoreWorker(id, reply)).await?;
        view.ok_or_else(|| worker_not_found(worker_id))
    }

    /// Lets a worker stop in order: it gets no more tasks, and is told to finish what it holds and end.
    ///
    /// # Errors
    /// `WORKER_NOT_FOUND`, `INVALID_ARGUMENT` for the functions of this process, `SHUTTING_DOWN`, `OVERLOADED`.
    pub async fn drain_worker(&self, worker_id: &str) -> Result<WorkerView, ApiError> {
        if worker_id == functions::WORKER_ID {
            let text = "The functions of the orchestrator's own process end with it, and cannot be drained by themselves";
            return Err(ApiError::new(ErrorCode::InvalidArgument, text));
        }
        let id = Arc::from(worker_id);
        let view = self.mailbox.ask(|reply| Request::DrainWorker(id, reply)).await?;
        view.ok_or_else(|| worker_not_found(worker_id))
    }

    /// Counts of the whole.
    ///
    /// # Errors
    /// `SHUTTING_DOWN`, `OVERLOADED`.
    pub async fn stats(&self) -> Result<Stats, ApiError> {
        self.mailbox.ask(Request::Stats).await
    }

    /// How much there is of everything, for the page of figures.
    ///
    /// # Errors
    /// `SHUTTING_DOWN`, `OVERLOADED`.
    pub async fn measures(&self) -> Result<Measures, ApiError> {
        self.mailbox.ask(Request::Measures).await
    }

    /// Requests that wait for the conductor.
    pub fn waiting_requests(&self) -> usize {
        self.mailbox.len()
    }

    /// The size of what is stored. Looks at files.
    ///
    /// # Errors
    /// `INTERNAL` when the look did not come to its end.
    pub async fn store_measures(&self) -> Result<StoreMeasures, ApiError> {
        self.read(|store| Ok(store.measures())).await
    }

    /// Stops: hands out nothing more, makes durable what is in flight, says goodbye to the workers. Their tasks stay theirs.
    pub async fn drain(&self) {
        // A conductor that has stopped already has nothing left to do.
        let _ = self.mailbox.ask_patiently(Request::Drain).await;
    }

    pub(super) async fn load_own(&self, client: &Arc<str>, job_id: JobId) -> Result<Arc<Job>, ApiError> {
        let job = self.read(move |store| store.load(job_id)).await?;
        match job {
            Some(job) if job.client == *client => Ok(Arc::new(job)),
            _ => Err(job_not_found()),
        }
    }

    /// Lays over committed jobs what only the conductor knows: who holds their tasks, how far their children are. Jobs whose task is
    /// nowhere have moved on since they were read, and are read again; those that are gone by then are left out.
    async fn with_leases(&self, mut jobs: Vec<Arc<Job>>) -> Result<Vec<JobView>, ApiError> {
        let mut places = self.places(&jobs).await?;
        let has_moved_on = |job: &Arc<Job>| match (&job.attempt, &places) {
            (Some(attempt), Some(places)) => !places.contains_key(&attempt.task_id),
            _ => false,
        };
        if jobs.iter().any(has_moved_on) {
            let moved: Vec<JobId> = jobs.iter().filter(|job| has_moved_on(job)).map(|job| job.id).collect();
            let read = move |store: &dyn Store| {
                let read = |id: JobId| Ok((id, store.load(id)?.map(Arc::new)));
                moved.into_iter().map(read).collect::<Result<HashMap<_, _>, _>>()
            };
            let present = self.read(read).await?;
            jobs = jobs
                .into_iter()
                .filter_map(|job| present.get(&job.id).cloned().unwrap_or(Some(job)))
                .collect();
            places = self.places(&jobs).await?;
        }
        let mut places = places.unwrap_or_default();
        let parents: Vec<Children> = jobs.iter().filter_map(|job| job.children().cloned()).collect();
        let families = match parents.is_empty() {
            true => HashMap::new(),
            false => {
                let families = self.mailbox.ask(|reply| Request::Families(parents, reply)).await;
                unless_stopped(families)?.unwrap_or_default()
            }
        };
        let view = |job: Arc<Job>| {
            let lease = job.attempt.as_ref().and_then(|attempt| places.remove(&attempt.task_id)?);
            let children = job.children().and_then(|children| families.get(&children.first).copied());
            JobView { job, lease, children }
        };
        Ok(jobs.into_iter().map(view).collect())
    }

    /// Where the tasks of these jobs are; `None` when the conductor has stopped.
    async fn places(
        &self,
        jobs: &[Arc<Job>],
    ) -> Result<Option<HashMap<TaskId, Option<LeaseView>>>, ApiError> {
        let attempts: Vec<TaskId> =
            jobs.iter().filter_map(|job| job.attempt.as_ref().map(|attempt| attempt.task_id)).collect();
        if attempts.is_empty() {
            return Ok(None);
        }
        unless_stopped(self.mailbox.ask(|reply| Request::Leases(attempts, reply)).await)
    }

    /// Runs a read of the store where it may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || read(&*store)).await {
            Ok(result) => result.map_err(storage_error),
            Err(_) => Err(ApiError::new(ErrorCode::Internal, "A read of the store did not come to its end")),
        }
    }
}

/// A conductor that has stopped knows nothing that is not stored: jobs are then shown as they are stored.
fn unless_stopped<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Err(error) if error.code == ErrorCode::ShuttingDown => Ok(None),
        answer => answer.map(Some),
    }
}

pub(super) fn no_blueprint(blueprints: &Registry, name: &str) -> ApiError {
    let served: Vec<&str> = blueprints.served().map(|blueprint| &*blueprint.name).collect();
    let shown = &name[..name.floor_char_boundary(64)];
    ApiError::new(ErrorCode::BlueprintNotFound, format!("Blueprint not found: {shown:?}"))
        .with_hint(format!("Served blueprints: {}.", served.join(", ")))
}

/// Whether the client may submit to the blueprint. It is told so whether there is one of that name or not.
fn check_allowed(tenancy: &Tenancy, client: &str, name: &str) -> Result<(), ApiError> {
    let tenants = tenancy.current();
    let terms = tenants.of(client);
    if terms.may_use(name) {
        return Ok(());
    }
    let globs: Vec<&str> = terms.allowed_blueprints.iter().flatten().map(Glob::as_str).collect();
    let shown = &name[..name.floor_char_boundary(64)];
    let text = format!("Client {client:?} may not submit to the blueprint {shown:?}");
    Err(ApiError::new(ErrorCode::PermissionDenied, text)
        .with_hint(format!("It may submit to: {}.", globs.join(", "))))
}

/// Whether an input is what its blueprint wants.
pub(super) fn check_input(blueprint: &Blueprint, initial_data: &Json) -> Result<(), ApiError> {
    let Some(schema) = &blueprint.input_schema else { return Ok(()) };
    let input = serde_json::Value::Object(initial_data.to_map());
    schema
        .check("initial_data", &input)
        .map_err(|cause| ApiError::new(ErrorCode::InputInvalid, cause.to_string()))
}

/// The one answer for a job that is not there and for a job that is somebody else's.
pub(super) fn job_not_found() -> ApiError {
    ApiError::new(ErrorCode::JobNotFound, "Job not found")
}

fn worker_not_found(worker_id: &str) -> ApiError {
    let shown: String = worker_id.chars().filter(|c| !c.is_control()).take(NAME_BYTES_MAX).collect();
    ApiError::new(ErrorCode::WorkerNotFound, format!("Worker not found: {shown:?}"))
}

pub(super) fn shutting_down() -> ApiError {
    ApiError::new(ErrorCode::ShuttingDown, "The orchestrator is stopping")
}

/// What a client is told when the store fails it.
pub(super) fn storage_error(error: StoreError) -> ApiError {
    match error {
        // The path is the operator's business, not the client's.
        StoreError::Full { .. } => ApiError::new(ErrorCode::StorageFull, "The orchestrator's disk is full"),
        other => {
            tracing::error!(error = %other, hint = other.hint(), "the store failed");
            ApiError::new(ErrorCode::StorageFailed, "The orchestrator's store failed")
        }
    }
}

/// When the job is to start, as it is now.
fn start_at(
    start_at: Option<Timestamp>,
    delay: Option<Duration>,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApiError> {
    let start_at = delay.map(|delay| now + delay).or(start_at);
    if start_at.is_some_and(|start_at| start_at > now + START_AHEAD_MAX) {
        let days = START_AHEAD_MAX.as_secs() / 86_400;
        let text = format!("start_at is further ahead than the limit of {days} days");
        return Err(ApiError::new(ErrorCode::InvalidArgument, text));
    }
    Ok(start_at)
}

/// Tells a repeated request from another one under the same key.
pub(super) fn fingerprint(blueprint: &str, submission: &Submission, delay: Option<Duration>) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(blueprint.as_bytes());
    field(submission.initial_data.as_str().as_bytes());
    for (key, value) in &submission.labels {
        field(key.as_bytes());
        field(value.as_bytes());
    }
    field(&submission.priority.to_le_bytes());
    for timeout in [submission.dispatch_timeout, submission.result_timeout] {
        field(&timeout.map_or([0xff; 16], |timeout| timeout.as_micros().to_le_bytes()));
    }
    // What requests did not have in earlier releases leaves no trace when it is absent, so that their fingerprints stay.
    if let Some(start_at) = submission.start_at {
        field(b"start_at");
        field(&start_at.as_micros().to_le_bytes());
    }
    if let Some(delay) = delay {
        field(b"delay");
        field(&delay.as_micros().to_le_bytes());
    }
    if let Some(url) = &submission.webhook_url {
        field(b"webhook_url");
        field(url.as_bytes());
    }
    hash.finalize().into()
}
