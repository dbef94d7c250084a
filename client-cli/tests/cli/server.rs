//! An orchestrator that follows a script, and the real binary beside it.
//!
//! The scripted server speaks the real protocol on a port of its own, so a test decides to the letter what the binary
//! hears: including what a real orchestrator says rarely, such as a stream that breaks at the worst moment.

use std::{
    collections::HashMap,
    io::Write,
    net::SocketAddr,
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, mpsc},
};

use avtomatika_proto::{
    ApiError, ErrorCode,
    v1::{
        admin_service_server::{AdminService, AdminServiceServer},
        job_service_server::{JobService, JobServiceServer},
        *,
    },
};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// The token that the scripted server knows.
pub const TOKEN: &str = "test-client-token";

/// An id that the scripted server knows when a test gives it a job.
pub const JOB_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// What a `WatchJob` stream does after the updates that it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Ends in good order.
    End,
    /// Breaks off with "shutting down".
    Break,
    /// Says nothing more and stays open.
    Stay,
}

/// What the server knows and how it is to behave.
#[derive(Clone, Default)]
pub struct Script {
    /// Jobs that can be read, newest first.
    pub jobs: Vec<Job>,
    /// Answers to successive `WatchJob` calls.
    pub watches: Vec<(Vec<Job>, Then)>,
    pub history: Vec<HistoryEntry>,
    /// Why every job is where it is.
    pub explanation: Explanation,
    /// Answers to successive `RepairJobs` calls.
    pub repairs: Vec<RepairJobsResponse>,
    /// What the webhook of every job was told.
    pub webhooks: Vec<WebhookMessage>,
    pub workers: Vec<WorkerInfo>,
    pub schedules: Vec<ScheduleInfo>,
    pub blueprints: Vec<GetBlueprintResponse>,
    pub stats: GetStatsResponse,
    pub reload: ReloadConfigResponse,
    pub put: PutBlueprintResponse,
    /// Answers to successive `MigrateJobs` calls.
    pub migrations: Vec<MigrateJobsResponse>,
    /// The error that every call is answered with.
    pub error: Option<(ErrorCode, &'static str)>,
    /// Most jobs in one page, whatever was asked for.
    pub page_limit: usize,
    /// Calls are accepted and never answered.
    pub silent: bool,
}

/// What the server was asked.
#[derive(Default)]
pub struct Heard {
    pub submitted: Vec<SubmitJobRequest>,
    pub listed: Vec<ListJobsRequest>,
    pub cancelled: Vec<CancelJobRequest>,
    pub reloads: Vec<ReloadConfigRequest>,
    pub puts: Vec<PutBlueprintRequest>,
    pub signalled: Vec<SignalJobRequest>,
    pub decided: Vec<DecideApprovalRequest>,
    pub retried: Vec<RetryJobRequest>,
    pub skipped: Vec<SkipJobRequest>,
    pub repaired: Vec<RepairJobsRequest>,
    pub redelivered: Vec<RedeliverWebhookRequest>,
    pub migrated: Vec<MigrateJobsRequest>,
    pub authorization: Vec<Option<String>>,
}

/// A scripted server, stopped when dropped.
pub struct Server {
    pub url: String,
    state: Arc<State>,
    watched: mpsc::Receiver<()>,
    _runtime: tokio::runtime::Runtime,
}

struct State {
    script: Mutex<Script>,
    heard: Mutex<Heard>,
    watched: mpsc::Sender<()>,
}

impl Server {
    /// Starts the server on a free port.
    pub fn start(script: Script) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, watched) = mpsc::channel();
        let state = Arc::new(State { script: Mutex::new(script), heard: Mutex::default(), watched: sender });
        let listener = runtime
            .block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))
            .expect("a port is free");
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = tonic::transport::Server::builder()
            .add_service(JobServiceServer::new(Scripted(state.clone())))
            .add_service(AdminServiceServer::new(Scripted(state.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(service);
        Self { url, state, watched, _runtime: runtime }
    }

    /// What was asked so far.
    pub fn heard<T>(&self, read: impl FnOnce(&Heard) -> T) -> T {
        read(&self.state.heard.lock().unwrap())
    }

    /// Returns once a `WatchJob` call has arrived.
    pub fn until_watched(&self) {
        self.watched.recv().expect("the server runs");
    }

    /// The binary, set to talk to this server.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = avtomatika(args);
        command.env("AVTOMATIKA_URL", &self.url);
        command
    }

    /// Runs the binary against this server to its end. The port, which differs from run to run, is not shown.
    pub fn run(&self, args: &[&str]) -> Ran {
        let Ran { code, stdout, stderr } = ran(&mut self.command(args));
        Ran { code, stdout, stderr: stderr.replace(&self.url, "http://SERVER") }
    }
}

/// The binary with an environment that every machine has.
pub fn avtomatika(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avtomatika"));
    for name in ["AVTOMATIKA_URL", "AVTOMATIKA_TOKEN", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.args(args).env("COLUMNS", "100").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl std::fmt::Display for Ran {
    /// All that a person and a script see, for snapshots.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Runs to the end.
pub fn ran(command: &mut Command) -> Ran {
    told(command.output().expect("the binary starts"))
}

/// Runs to the end, with something on standard input.
pub fn ran_with_input(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().unwrap().write_all(input).expect("the binary reads its input");
    told(child.wait_with_output().unwrap())
}

pub fn told(output: Output) -> Ran {
    Ran {
        code: output.status.code().expect("the binary exits by itself"),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

struct Scripted(Arc<State>);

type Answer<T> = Result<Response<T>, Status>;
type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Scripted {
    /// What every call goes through first.
    async fn enter<T>(&self, request: Request<T>) -> Result<T, Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        self.0.heard.lock().unwrap().authorization.push(token.clone());
        if self.0.script.lock().unwrap().silent {
            std::future::pending::<()>().await;
        }
        match token.as_deref().map(|token| token.strip_prefix("Bearer ")) {
            None => {
                return Err(
                    ApiError::new(ErrorCode::MissingToken, "Missing X-Avtomatika-Token header").into()
                );
            }
            Some(Some(TOKEN)) => {}
            Some(_) => {
                return Err(ApiError::new(ErrorCode::InvalidToken, "Unauthorized: Invalid token").into());
            }
        }
        match self.0.script.lock().unwrap().error {
            Some((code, message)) => Err(ApiError::new(code, message).into()),
            None => Ok(request.into_inner()),
        }
    }

    fn job(&self, id: &str) -> Result<Job, Status> {
        let script = self.0.script.lock().unwrap();
        let found = script.jobs.iter().find(|job| job.id == id).cloned();
        found.ok_or_else(|| ApiError::new(ErrorCode::JobNotFound, "Job not found").into())
    }
}

#[tonic::async_trait]
impl JobService for Scripted {
    async fn submit_job(&self, request: Request<SubmitJobRequest>) -> Answer<SubmitJobResponse> {
        let request = self.enter(request).await?;
        let mut heard = self.0.heard.lock().unwrap();
        let deduplicated = !request.idempotency_key.is_empty()
            && heard.submitted.iter().any(|earlier| earlier.idempotency_key == request.idempotency_key);
        heard.submitted.push(request);
        Ok(Response::new(SubmitJobResponse { job_id: JOB_ID.into(), deduplicated, job: None }))
    }

    type SubmitJobsStream = Updates<SubmitJobsResponse>;

    async fn submit_jobs(&self, _: Request<Streaming<SubmitJobRequest>>) -> Answer<Self::SubmitJobsStream> {
        Err(Status::unimplemented("the command line submits one job at a time"))
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Answer<GetJobResponse> {
        let request = self.enter(request).await?;
        Ok(Response::new(GetJobResponse { job: Some(self.job(&request.job_id)?) }))
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Answer<ListJobsResponse> {
        let request = self.enter(request).await?;
        self.0.heard.lock().unwrap().listed.push(request.clone());
        let script = self.0.script.lock().unwrap();
        let start: usize = request.cursor.parse().unwrap_or(0);
        let size =
            (request.page_size as usize).min(if script.page_limit == 0 { 1000 } else { script.page_limit });
        let jobs: Vec<_> = script.jobs.iter().skip(start).take(size).cloned().collect();
        let end = start + jobs.len();
        let next_cursor = if end < script.jobs.len() { end.to_string() } else { String::new() };
        Ok(Response::new(ListJobsResponse { jobs, next_cursor }))
    }

    async fn get_job_history(&self, request: Request<GetJobHistoryRequest>) -> Answer<GetJobHistoryResponse> {
        let request = self.enter(request).await?;
        self.job(&request.job_id)?;
        let entries = self.0.script.lock().unwrap().history.clone();
        // Two entries a page, so that every history of a test takes more than one.
        let start: usize = request.cursor.parse().unwrap_or(0);
        let end = (start + 2).min(entries.len());
        let next_cursor = if end < entries.len() { end.to_string() } else { String::new() };
        Ok(Response::new(GetJobHistoryResponse { entries: entries[start..end].to_vec(), next_cursor }))
    }

    type WatchJobStream = Updates<WatchJobResponse>;

    async fn watch_job(&self, request: Request<WatchJobRequest>) -> Answer<Self::WatchJobStream> {
        let request = self.enter(request).await?;
        // A test that ends early does not listen any more.
        let _ = self.0.watched.send(());
        let (updates, then) = {
            let mut script = self.0.script.lock().unwrap();
            if script.watches.is_empty() {
                drop(script);
                return Err(self
                    .job(&request.job_id)
                    .err()
                    .unwrap_or_else(|| Status::internal("not in the script")));
            }
            script.watches.remove(0)
        };
        let updates = tokio_stream::iter(updates).map(|job| Ok(WatchJobResponse { job: Some(job) }));
        let broken = ApiError::new(ErrorCode::ShuttingDown, "the orchestrator is shutting down");
        Ok(Response::new(match then {
            Then::End => Box::pin(updates),
            Then::Break => Box::pin(updates.chain(tokio_stream::once(Err(broken.into())))),
            Then::Stay => Box::pin(updates.chain(tokio_stream::pending())),
        }))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Answer<CancelJobResponse> {
        let request = self.enter(request).await?;
        let mut job = self.job(&request.job_id)?;
        job.set_status(JobStatus::Cancelled);
        self.0.heard.lock().unwrap().cancelled.push(request);
        Ok(Response::new(CancelJobResponse { job: Some(job) }))
    }

    async fn list_webhooks(&self, request: Request<ListWebhooksRequest>) -> Answer<ListWebhooksResponse> {
        let request = self.enter(request).await?;
        self.job(&request.job_id)?;
        let messages = self.0.script.lock().unwrap().webhooks.clone();
        Ok(Response::new(ListWebhooksResponse { messages }))
    }

    async fn redeliver_webhook(
        &self,
        request: Request<RedeliverWebhookRequest>,
    ) -> Answer<RedeliverWebhookResponse> {
        let request = self.enter(request).await?;
        self.job(&request.job_id)?;
        let mut messages = self.0.script.lock().unwrap().webhooks.clone();
        messages.retain(|message| match request.webhook_id.is_empty() {
            true => message.status() == WebhookStatus::Failed,
            false => message.id == request.webhook_id,
        });
        self.0.heard.lock().unwrap().redelivered.push(request);
        Ok(Response::new(RedeliverWebhookResponse { messages }))
    }

    async fn migrate_jobs(&self, request: Request<MigrateJobsRequest>) -> Answer<MigrateJobsResponse> {
        let request = self.enter(request).await?;
        self.0.heard.lock().unwrap().migrated.push(request);
        Ok(Response::new(self.0.script.lock().unwrap().migrations.remove(0)))
    }

    async fn get_job_graph(&self, request: Request<GetJobGraphRequest>) -> Answer<GetJobGraphResponse> {
        let request = self.enter(request).await?;
        self.job(&request.job_id)?;
        let graph = format!("a graph as {:?}\n", request.format());
        Ok(Response::new(GetJobGraphResponse { graph }))
    }

    async fn explain_job(&self, request: Request<ExplainJobRequest>) -> Answer<ExplainJobResponse> {
        let request = self.enter(request).await?;
        let job = self.job(&request.job_id)?;
        let explanation = self.0.script.lock().unwrap().explanation.clone();
        Ok(Response::new(ExplainJobResponse {
            job_id: job.id,
            blueprint_name: job.blueprint_name,
            blueprint_version: job.blueprint_version,
            current_state: job.current_state,
            status: job.status,
            explanation: Some(explanation),
            current_task: job.current_task,
        }))
    }

    async fn signal_job(&self, request: Request<SignalJobRequest>) -> Answer<SignalJobResponse> {
        let request = self.enter(request).await?;
        let job = Some(self.job(&request.job_id)?);
        let mut heard = self.0.heard.lock().unwrap();
        let deduplicated =
            !request.id.is_empty() && heard.signalled.iter().any(|earlier| earlier.id == request.id);
        heard.signalled.push(request);
        Ok(Response::new(SignalJobResponse { job, deduplicated }))
    }

    async fn decide_approval(
        &self,
        request: Request<DecideApprovalRequest>,
    ) -> Answer<DecideApprovalResponse> {
        let request = self.enter(request).await?;
        let mut job = self.job(&request.job_id)?;
        job.set_status(JobStatus::WaitingForWorker);
        job.waiting_for = None;
        self.0.heard.lock().unwrap().decided.push(request);
        Ok(Response::new(DecideApprovalResponse { job: Some(job) }))
    }

    async fn retry_job(&self, request: Request<RetryJobRequest>) -> Answer<RetryJobResponse> {
        let request = self.enter(request).await?;
        let mut job = self.job(&request.job_id)?;
        job.set_status(JobStatus::WaitingForWorker);
        let mut heard = self.0.heard.lock().unwrap();
        let key = &request.idempotency_key;
        let deduplicated =
            !key.is_empty() && heard.retried.iter().any(|earlier| earlier.idempotency_key == *key);
        heard.retried.push(request);
        Ok(Response::new(RetryJobResponse { job: Some(job), deduplicated }))
    }

    async fn skip_job(&self, request: Request<SkipJobRequest>) -> Answer<SkipJobResponse> {
        let request = self.enter(request).await?;
        let mut job = self.job(&request.job_id)?;
        job.set_status(JobStatus::WaitingForWorker);
        self.0.heard.lock().unwrap().skipped.push(request);
        Ok(Response::new(SkipJobResponse { job: Some(job), deduplicated: false }))
    }

    async fn repair_jobs(&self, request: Request<RepairJobsRequest>) -> Answer<RepairJobsResponse> {
        let request = self.enter(request).await?;
        self.0.heard.lock().unwrap().repaired.push(request);
        let mut answers = self.0.script.lock().unwrap();
        match answers.repairs.is_empty() {
            true => Err(Status::internal("not in the script")),
            false => Ok(Response::new(answers.repairs.remove(0))),
        }
    }
}

#[tonic::async_trait]
impl AdminService for Scripted {
    async fn list_workers(&self, request: Request<ListWorkersRequest>) -> Answer<ListWorkersResponse> {
        self.enter(request).await?;
        Ok(Response::new(ListWorkersResponse { workers: self.0.script.lock().unwrap().workers.clone() }))
    }

    async fn restore_worker(&self, request: Request<RestoreWorkerRequest>) -> Answer<RestoreWorkerResponse> {
        let RestoreWorkerRequest { worker_id } = self.enter(request).await?;
        let script = self.0.script.lock().unwrap();
        let worker = script.workers.iter().find(|worker| worker.worker_id == worker_id).cloned();
        let message = format!("Worker not found: {worker_id:?}");
        let worker = worker.ok_or_else(|| ApiError::new(ErrorCode::WorkerNotFound, message))?;
        let status = WorkerStatus::Idle.into();
        Ok(Response::new(RestoreWorkerResponse { worker: Some(WorkerInfo { status, ..worker }) }))
    }

    async fn drain_worker(&self, request: Request<DrainWorkerRequest>) -> Answer<DrainWorkerResponse> {
        let DrainWorkerRequest { worker_id } = self.enter(request).await?;
        let script = self.0.script.lock().unwrap();
        let worker = script.workers.iter().find(|worker| worker.worker_id == worker_id).cloned();
        let worker = worker.ok_or_else(|| {
            ApiError::new(ErrorCode::WorkerNotFound, format!("Worker not found: {worker_id:?}"))
        })?;
        let status = WorkerStatus::Draining.into();
        Ok(Response::new(DrainWorkerResponse { worker: Some(WorkerInfo { status, ..worker }) }))
    }

    async fn list_schedules(&self, request: Request<ListSchedulesRequest>) -> Answer<ListSchedulesResponse> {
        self.enter(request).await?;
        let schedules = self.0.script.lock().unwrap().schedules.clone();
        Ok(Response::new(ListSchedulesResponse { schedules }))
    }

    async fn list_blueprints(
        &self,
        request: Request<ListBlueprintsRequest>,
    ) -> Answer<ListBlueprintsResponse> {
        self.enter(request).await?;
        let script = self.0.script.lock().unwrap();
        let blueprints = script.blueprints.iter().filter_map(|one| one.blueprint.clone()).collect();
        Ok(Response::new(ListBlueprintsResponse { blueprints }))
    }

    async fn get_blueprint(&self, request: Request<GetBlueprintRequest>) -> Answer<GetBlueprintResponse> {
        let request = self.enter(request).await?;
        let script = self.0.script.lock().unwrap();
        let found = script.blueprints.iter().find(|one| one.blueprint.as_ref().unwrap().name == request.name);
        found
            .cloned()
            .map(Response::new)
            .ok_or_else(|| ApiError::new(ErrorCode::BlueprintNotFound, "Blueprint not found: nope").into())
    }

    async fn get_stats(&self, request: Request<GetStatsRequest>) -> Answer<GetStatsResponse> {
        self.enter(request).await?;
        Ok(Response::new(self.0.script.lock().unwrap().stats.clone()))
    }

    async fn reload_config(&self, request: Request<ReloadConfigRequest>) -> Answer<ReloadConfigResponse> {
        let request = self.enter(request).await?;
        self.0.heard.lock().unwrap().reloads.push(request);
        Ok(Response::new(self.0.script.lock().unwrap().reload.clone()))
    }

    async fn put_blueprint(&self, request: Request<PutBlueprintRequest>) -> Answer<PutBlueprintResponse> {
        let request = self.enter(request).await?;
        self.0.heard.lock().unwrap().puts.push(request);
        Ok(Response::new(self.0.script.lock().unwrap().put.clone()))
    }
}

/// 2026-01-31T12:00:00Z plus milliseconds.
pub fn at(ms: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: 1_769_860_800 + ms / 1000,
        nanos: i32::try_from(ms % 1000).unwrap() * 1_000_000,
    })
}

/// A point before now, in the middle of a unit, so that "3h ago" stays "3h ago" however slow the test is.
pub fn hours_ago(hours: i64) -> Option<prost_types::Timestamp> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    Some(prost_types::Timestamp { seconds: i64::try_from(now).unwrap() - hours * 3600 - 1800, nanos: 0 })
}

/// The seed's job in a status, with times that never change.
pub fn job(status: JobStatus) -> Job {
    let ended = matches!(
        status,
        JobStatus::Finished | JobStatus::Failed | JobStatus::Cancelled | JobStatus::Quarantined
    );
    let state = match status {
        JobStatus::Finished => "completed",
        JobStatus::Failed => "failed",
        _ => "init",
    };
    let (error_code, error_message) = match status {
        JobStatus::Failed | JobStatus::Quarantined => ("PERMANENT_ERROR", "the disk\nis on fire"),
        _ => ("", ""),
    };
    let finished = status == JobStatus::Finished;
    let task = CurrentTask {
        id: "5f0c7a1e-8a57-4c59-9d3b-1f5a54b1c0de".into(),
        r#type: "process_data".into(),
        attempt: 2,
        worker_id: "worker-1".into(),
        ready_at: at(10),
        dispatched_at: at(20),
        deadline: at(60_020),
        progress: Some(TaskProgressReport { fraction: 0.4, message: "page 2 of 5".into() }),
        checkpoint: r#"{"page":7}"#.into(),
    };
    Job {
        id: JOB_ID.into(),
        blueprint_name: "test_workflow".into(),
        blueprint_version: 3,
        current_state: state.into(),
        status: status.into(),
        initial_data: "{\n  \"input\": 42,\n  \"exact\": 12345678901234567890.10\n}".into(),
        state_history: if finished { "{\"output\":84}".into() } else { "{}".into() },
        result: if finished { "{\"output\":84}".into() } else { String::new() },
        error_message: error_message.into(),
        error_code: error_code.into(),
        retry_count: 1,
        transition_count: 1,
        labels: HashMap::from([("team".into(), "billing".into()), ("env".into(), "test".into())]),
        priority: 5,
        current_task: (status == JobStatus::Running).then_some(task),
        created_at: at(0),
        updated_at: at(if ended { 1_250 } else { 30 }),
        finished_at: if ended { at(1_250) } else { None },
        failed_state: if status == JobStatus::Quarantined { "init".into() } else { String::new() },
        ..Job::default()
    }
}
