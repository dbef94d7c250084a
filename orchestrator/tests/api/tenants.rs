//! Tenants: roles, quotas, rates, what a worker's token is for, reloads, and what is written down about all of it.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use avtomatika_orchestrator::{
    Parts,
    api::Auth,
    assemble,
    audit::Audit,
    store::memory::MemoryStore,
    trust::{Access, ClientEntry, Glob, Rate, Role, Terms, TokenHash, WorkerEntry, WorkerTerms},
};
use avtomatika_proto::{
    ApiError, ErrorCode,
    v1::{
        self, SubmitJobRequest, WatchJobRequest, WorkerMessage, orchestrator_message, submit_jobs_response,
        worker_message, worker_service_client::WorkerServiceClient,
    },
};
use avtomatika_worker::Worker;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc};
use tonic::{Code, Request, Status};

use crate::{
    grpc::{Caller, error},
    support::{Answer, Server, blueprints, parts, read_to_end},
};

const ROOT: &str = "avtc_root";
const OPS: &str = "avtc_ops";
const ACME: &str = "avtc_acme";
const SMALL: &str = "avtc_small";
const GPU: &str = "avtw_gpu";

/// Every token of these tests.
const TOKENS: [&str; 5] = [ROOT, OPS, ACME, SMALL, GPU];

fn client(name: &str, token: &str, terms: Terms) -> ClientEntry {
    let tokens = vec![(TokenHash::of(token.as_bytes()), 1)];
    ClientEntry { name: name.into(), tokens, terms: Arc::new(terms), place: "clients.toml:1".into() }
}

fn role(role: Role) -> Terms {
    Terms { role, ..Terms::default() }
}

fn worker(names: &str, token: &str) -> WorkerEntry {
    let (names, render) = (Glob::new(names).unwrap(), Glob::new("process_*").unwrap());
    WorkerEntry {
        tokens: vec![(TokenHash::of(token.as_bytes()), 1)],
        terms: Arc::new(WorkerTerms { names, allowed_tasks: Some(vec![render]) }),
        credential: Some([7; 32]),
        place: "workers.toml:1".into(),
    }
}

fn everybody() -> Access {
    Access {
        clients: vec![
            client("root", ROOT, role(Role::Admin)),
            client("ops", OPS, role(Role::Operator)),
            client("acme", ACME, role(Role::Client)),
            client("small", SMALL, Terms { quota: Some(2), ..Terms::default() }),
        ],
        workers: vec![worker("gpu-*", GPU)],
    }
}

/// A server, and what it would read if it were told to read again.
struct House {
    server: Server,
    access: Arc<Mutex<Access>>,
    audit: Audit,
    dir: tempfile::TempDir,
}

impl House {
    async fn of(access: Access) -> Self {
        Self::over(Arc::new(MemoryStore::new()), access).await
    }

    async fn over(store: Arc<MemoryStore>, access: Access) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::to_file(&dir.path().join("audit.jsonl")).unwrap();
        let mut parts =
            Parts { auth: Auth::of(access.clone()), ..parts(store.clone(), Duration::from_secs(5)) };
        // Longer than any of these tests takes.
        parts.settings.adoption_window = Duration::from_secs(600);
        let access = Arc::new(Mutex::new(access));
        let read = access.clone();
        let app = assemble(parts)
            .unwrap()
            .reload_from(|| Ok(blueprints()))
            .with_audit(audit.clone())
            .reload_access_from(move || Ok(read.lock().unwrap().clone()));
        Self { server: Server::serve(app, store).await, access, audit, dir }
    }

    /// Has the server read this.
    async fn reload(&self, access: Access) {
        *self.access.lock().unwrap() = access;
        let answer = self.server.by(OPS, "POST", "/api/reload", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn submit(&self, token: &str, key: &str) -> Answer {
        let headers = [("x-avtomatika-token", token), ("idempotency-key", key)];
        self.server.send("POST", "/api/jobs/instant", &headers, "{}").await
    }

    /// What is written down: the event, who, and the outcome.
    fn noted(&self) -> Vec<[String; 3]> {
        let line = |line: &str| {
            let note: Value = serde_json::from_str(line).unwrap();
            ["event", "who", "outcome"].map(|key| note[key].as_str().unwrap().to_owned())
        };
        self.audit_text().lines().map(line).collect()
    }

    fn audit_text(&self) -> String {
        self.audit.flush();
        fs::read_to_string(self.dir.path().join("audit.jsonl")).unwrap()
    }
}

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.text("code"))
}

#[tokio::test]
async fn s29_what_concerns_everybody_asks_for_the_role_of_an_operator() {
    let house = House::of(everybody()).await;
    for (method, path, body) in [
        ("GET", "/api/workers", ""),
        ("POST", "/api/workers/w1/drain", ""),
        ("GET", "/api/dashboard", ""),
        ("POST", "/api/reload", r#"{"dry_run": true}"#),
        ("POST", "/api/jobs/repair", r#"{"action": "retry", "statuses": ["failed"]}"#),
        ("POST", "/api/blueprints/test_workflow/migrate", "{}"),
        ("POST", "/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057/webhooks/redeliver", ""),
    ] {
        let denied = house.server.by(ACME, method, path, body).await;
        assert_eq!(refusal(&denied), (403, "PERMISSION_DENIED".to_owned()), "{path}");
        for token in [OPS, ROOT] {
            let answer = house.server.by(token, method, path, body).await;
            assert!(![401, 403].contains(&answer.status), "{path}: {answer:?}");
        }
    }
    let audit = house.audit_text();
    let drained =
        audit.lines().find(|line| line.contains("POST /api/workers/w1/drain") && line.contains("ops"));
    assert!(drained.is_some_and(|line| line.contains("\"event\":\"operator_call\"")), "{audit}");
    for path in ["/api/jobs", "/api/blueprints", "/api/blueprints/instant", "/api/schedules"] {
        assert_eq!(house.server.by(ACME, "GET", path, "").await.status, 200, "{path}");
    }
    let caller = Caller::new(&house.server, ACME).await;
    let drain = v1::DrainWorkerRequest { worker_id: "w1".into() };
    let status = caller.admin().drain_worker(caller.request(drain)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = caller.admin().list_workers(caller.request(v1::ListWorkersRequest {})).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(ApiError::from_status(&status).message, "This call asks for the role \"operator\"");
}

#[tokio::test]
async fn an_admin_acts_in_the_name_of_any_client_and_that_is_written_down() {
    let house = House::of(everybody()).await;
    let job = house.submit(ACME, "k").await.text("job_id");
    let by_root = async |client: &str| {
        let headers = [("x-avtomatika-token", ROOT), ("x-avtomatika-client", client)];
        house.server.send("GET", &format!("/api/jobs/{job}"), &headers, "").await
    };
    assert_eq!(by_root("acme").await.status, 200);
    assert_eq!(by_root("small").await.status, 404);
    assert_eq!(
        house.server.by(ROOT, "GET", &format!("/api/jobs/{job}"), "").await.status,
        404,
        "not by itself"
    );
    let by_ops = [("x-avtomatika-token", OPS), ("x-avtomatika-client", "acme")];
    let denied = house.server.send("GET", "/api/jobs", &by_ops, "").await;
    assert_eq!(refusal(&denied), (403, "PERMISSION_DENIED".to_owned()));
    let text = house.audit_text();
    let line = text.lines().find(|line| line.contains("\"client\":\"acme\"")).unwrap();
    assert!(line.contains("\"who\":\"root\"") && line.contains("\"from\":\"127.0.0.1\""), "{line}");
}

#[tokio::test]
async fn what_an_admin_decides_at_the_door_of_approvals_is_written_down_as_anywhere_else() {
    let house = House::of(everybody()).await;
    let ask = r#"{"blueprint": "ask", "initial_data": {"amount": 7}}"#;
    let job = house.server.by(ACME, "POST", "/api/v1/jobs", ask).await.text("job_id");
    let path = format!("/_public/webhooks/approval/{job}");
    let decide = async |token: &str, client: &str, decision: &str| {
        let headers = [("x-avtomatika-token", token), ("x-avtomatika-client", client)];
        let body = json!({ "decision": decision }).to_string();
        house.server.send("POST", &path, &headers, &body).await.status
    };
    assert_eq!(decide(ROOT, "acme", "nonsense").await, 400);
    assert_eq!(decide(ROOT, "acme", "approved").await, 200);
    assert_eq!(decide(ACME, "", "approved").await, 200, "its own decision is nobody's news");
    let note = |line: &str| {
        let note: Value = serde_json::from_str(line).unwrap();
        ["event", "who", "client", "what", "outcome"].map(|key| note[key].as_str().unwrap().to_owned())
    };
    let what = format!("POST {path}");
    let by_root = |outcome| ["operator_call", "root", "acme", &what, outcome].map(str::to_owned);
    let noted: Vec<_> = house.audit_text().lines().map(note).collect();
    assert_eq!(noted, [by_root("OUTCOME_UNKNOWN"), by_root("ok")]);
}

#[tokio::test]
async fn whoever_tries_to_act_as_another_client_is_written_down_by_name() {
    let house = House::of(everybody()).await;
    let as_acme = [("x-avtomatika-token", OPS), ("x-avtomatika-client", "acme")];
    let approval = "/_public/webhooks/approval/01890a5d-ac96-774b-bcce-b302099a8057";
    for (method, path) in [("GET", "/api/jobs"), ("POST", "/api/jobs/instant"), ("POST", approval)] {
        let denied = house.server.send(method, path, &as_acme, "{}").await;
        assert_eq!(refusal(&denied), (403, "PERMISSION_DENIED".to_owned()), "{path}");
    }
    let caller = Caller::new(&house.server, OPS).await;
    let mut request = caller.request(v1::ListJobsRequest::default());
    request.metadata_mut().insert("x-avtomatika-client", "acme".parse().unwrap());
    assert_eq!(caller.jobs().list_jobs(request).await.unwrap_err().code(), Code::PermissionDenied);
    let refused = ["role_refused", "ops", "PERMISSION_DENIED"].map(str::to_owned);
    assert_eq!(house.noted(), vec![refused; 4]);
}

/// A job of a client that nobody is would be found by nobody.
#[tokio::test]
async fn an_admin_makes_no_jobs_of_a_client_that_there_is_not() {
    let house = House::of(everybody()).await;
    let by_root = async |client: &str, method: &str, path: &str, body: &str| {
        let headers = [("x-avtomatika-token", ROOT), ("x-avtomatika-client", client)];
        house.server.send(method, path, &headers, body).await
    };
    let meant = "There is no client \"acm\"; did you mean \"acme\"?";
    for (path, body) in [
        ("/api/jobs/instant", "{}"),
        ("/api/v1/jobs/instant", "{}"),
        ("/api/v1/jobs", "{\"blueprint\":\"instant\"}"),
    ] {
        let refused = by_root("acm", "POST", path, body).await;
        assert_eq!(refusal(&refused), (400, "INVALID_ARGUMENT".to_owned()), "{path}");
        assert_eq!(refused.error(), meant);
        assert!(refused.text("hint").starts_with("X-Avtomatika-Client names a client"), "{refused:?}");
        assert_eq!(by_root("acme", "POST", path, body).await.status, 202, "{path}");
    }
    assert_eq!(
        by_root("nobody", "POST", "/api/jobs/instant", "{}").await.error(),
        "There is no client \"nobody\""
    );
    assert_eq!(by_root("root", "POST", "/api/jobs/instant", "{}").await.status, 202, "itself");
    assert_eq!(
        by_root("acm", "GET", "/api/jobs", "").await.status,
        200,
        "jobs outlive their clients' entries"
    );

    let caller = Caller::new(&house.server, ROOT).await;
    let submission = || SubmitJobRequest { blueprint: "instant".into(), ..SubmitJobRequest::default() };
    let mut one = caller.request(submission());
    one.metadata_mut().insert("x-avtomatika-client", "acm".parse().unwrap());
    let status = caller.jobs().submit_job(one).await.unwrap_err();
    assert_eq!((status.code(), &*ApiError::from_status(&status).message), (Code::InvalidArgument, meant));
    let mut many = caller.request(futures_util::stream::iter([submission()]));
    many.metadata_mut().insert("x-avtomatika-client", "acm".parse().unwrap());
    let mut answers = caller.jobs().submit_jobs(many).await.unwrap().into_inner();
    match answers.next().await.unwrap().unwrap().result.unwrap() {
        submit_jobs_response::Result::Error(error) => assert_eq!(error.message, meant),
        done => panic!("accepted: {done:?}"),
    }
}

#[tokio::test]
async fn a_quota_counts_what_was_accepted_and_nothing_else_and_survives_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let house = House::over(store.clone(), everybody()).await;
    assert_eq!(house.submit(SMALL, "a").await.status, 202);
    // A repetition, a refusal, and reading are free.
    assert_eq!(house.submit(SMALL, "a").await.status, 202);
    let misfit = house.server.by(SMALL, "POST", "/api/jobs/checked", "{}").await;
    assert_eq!(misfit.status, 400);
    for path in ["/api/jobs", "/api/blueprints"] {
        assert_eq!(house.server.by(SMALL, "GET", path, "").await.status, 200);
    }
    store.set_full(true);
    assert_eq!(refusal(&house.submit(SMALL, "full").await), (507, "STORAGE_FULL".to_owned()));
    store.set_full(false);
    assert_eq!(house.submit(SMALL, "b").await.status, 202);
    let over = house.submit(SMALL, "c").await;
    assert_eq!(refusal(&over), (429, "QUOTA_EXCEEDED".to_owned()));
    assert_eq!(over.error(), "Quota exceeded");
    let seconds: u64 = over.header("retry-after").parse().unwrap();
    assert!((1..=31 * 86_400).contains(&seconds), "{seconds}");
    assert_eq!(house.submit(SMALL, "b").await.status, 202, "a repetition still gets its job");
    assert_eq!(house.submit(ACME, "x").await.status, 202, "nobody else is held up");
    assert!(house.noted().contains(&["quota_refused", "small", "QUOTA_EXCEEDED"].map(str::to_owned)));

    house.server.stop();
    house.server.stopped().await;
    let house = House::over(store, everybody()).await;
    assert_eq!(refusal(&house.submit(SMALL, "d").await), (429, "QUOTA_EXCEEDED".to_owned()));
    let mut more = everybody();
    more.clients[3] = client("small", SMALL, Terms { quota: Some(3), ..Terms::default() });
    house.reload(more).await;
    assert_eq!(house.submit(SMALL, "d").await.status, 202);
    assert_eq!(house.submit(SMALL, "e").await.status, 429);
}

#[tokio::test]
async fn a_client_has_so_many_open_jobs_and_others_do_not_notice() {
    let store = Arc::new(MemoryStore::new());
    let with_limit = |limit| {
        let mut access = everybody();
        access.clients[2] = client("acme", ACME, Terms { max_open_jobs: limit, ..role(Role::Operator) });
        access
    };
    let full = (429, "OPEN_JOBS_LIMIT_REACHED".to_owned());
    let submit = async |house: &House, key: &str| {
        let headers = [("x-avtomatika-token", ACME), ("idempotency-key", key)];
        house.server.send("POST", "/api/jobs/test", &headers, "{}").await
    };
    let house = House::over(store.clone(), with_limit(Some(2))).await;
    let failed = house.server.by(ACME, "POST", "/api/v1/jobs?wait=10s", r#"{"blueprint": "named"}"#).await;
    assert_eq!(failed.text("status"), "failed", "what has ended is not counted");
    let retry = format!("/api/jobs/{}/retry", failed.text("id"));
    let first = submit(&house, "a").await.text("job_id");
    assert_eq!(submit(&house, "b").await.status, 202);
    let refused = submit(&house, "c").await;
    assert_eq!((refusal(&refused), refused.header("retry-after")), (full.clone(), "5"));
    assert_eq!(refused.error(), "2 jobs of client \"acme\" are open, as many as it may have");
    let skip = format!("/api/jobs/{}/skip", failed.text("id"));
    for (repair, body) in [(&retry, ""), (&skip, r#"{"outcome": "success"}"#)] {
        assert_eq!(refusal(&house.server.by(ACME, "POST", repair, body).await), full, "{repair}");
    }
    let caller = Caller::new(&house.server, ACME).await;
    let request = SubmitJobRequest { blueprint: "test_workflow".into(), ..Default::default() };
    let status = caller.jobs().submit_job(caller.request(request)).await.unwrap_err();
    assert_eq!((status.code(), error(&status)), (Code::ResourceExhausted, ErrorCode::OpenJobsLimitReached));
    let bulk = [SubmitJobRequest { blueprint: "test_workflow".into(), ..Default::default() }];
    let bulk = caller.request(futures_util::stream::iter(bulk));
    let answers = caller.jobs().submit_jobs(bulk).await.unwrap().into_inner().count().await;
    assert_eq!(answers, 1);
    let noted = |event: &str| {
        let note = [event, "acme", "OPEN_JOBS_LIMIT_REACHED"].map(str::to_owned);
        house.noted().iter().filter(|&other| *other == note).count()
    };
    assert_eq!(noted("quota_refused"), 5);
    assert_eq!(submit(&house, "a").await.text("job_id"), first, "a repetition needs no room");
    assert_eq!(house.submit(SMALL, "s").await.status, 202);

    // After a restart they are counted as before, though none of them is in memory.
    house.server.stop();
    house.server.stopped().await;
    let house = House::over(store, with_limit(Some(2))).await;
    assert_eq!(refusal(&submit(&house, "c").await), full);
    let cancelled = house.server.by(ACME, "POST", &format!("/api/jobs/{first}/cancel"), "").await;
    assert_eq!(cancelled.status, 200);
    assert_eq!(submit(&house, "c").await.status, 202, "one of them has ended");
    assert_eq!(refusal(&submit(&house, "d").await), full);

    house.reload(with_limit(Some(3))).await;
    assert_eq!(house.server.by(ACME, "POST", &retry, "").await.status, 200, "it ends again at once");
    assert_eq!(submit(&house, "d").await.status, 202);
    house.reload(with_limit(Some(1))).await;
    assert_eq!(refusal(&submit(&house, "e").await), full);
    house.reload(with_limit(None)).await;
    assert_eq!(submit(&house, "e").await.status, 202);
}

#[tokio::test]
async fn a_client_submits_to_its_own_blueprints_only() {
    let mut access = everybody();
    let globs = ["inst*", "named"].map(|text| Glob::new(text).unwrap());
    access.clients[2] =
        client("acme", ACME, Terms { allowed_blueprints: Some(globs.into()), ..Terms::default() });
    let house = House::of(access).await;
    assert_eq!(house.submit(ACME, "k").await.status, 202);
    let denied = house.server.by(ACME, "POST", "/api/jobs/test", "{}").await;
    assert_eq!(refusal(&denied), (403, "PERMISSION_DENIED".to_owned()));
    assert_eq!(denied.text("hint"), "It may submit to: inst*, named.");
    let nothing = house.server.by(ACME, "POST", "/api/v1/jobs", r#"{"blueprint": "no_such"}"#).await;
    assert_eq!(refusal(&nothing), refusal(&denied), "nor does it learn what there is");
    assert!(house.noted().contains(&["role_refused", "acme", "PERMISSION_DENIED"].map(str::to_owned)));
}

#[tokio::test]
async fn s22_whoever_calls_too_often_is_told_when_to_come_again() {
    let mut access = everybody();
    access.clients[2] = client("acme", ACME, Terms { rate_limit: Rate::parse("3/h"), ..Terms::default() });
    let house = House::of(access).await;
    let caller = Caller::new(&house.server, ACME).await;
    // Opening the stream is a call, and so is each of its messages.
    let request =
        || SubmitJobRequest { blueprint: "instant".into(), initial_data: "{}".into(), ..Default::default() };
    let bulk = futures_util::stream::iter([request(), request(), request(), request()]);
    let answers = caller.jobs().submit_jobs(caller.request(bulk)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().result.unwrap()).collect().await;
    let is_accepted =
        |answer: &submit_jobs_response::Result| matches!(answer, submit_jobs_response::Result::Ok(_));
    assert_eq!(answers.iter().map(is_accepted).collect::<Vec<_>>(), [true, true, false, false]);
    let status = caller.jobs().list_jobs(caller.request(v1::ListJobsRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let error = ApiError::from_status(&status);
    assert_eq!(error.code, ErrorCode::RateLimited);
    let wait = error.retry_after.unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1200), "{wait:?}");
    let answer = house.server.by(ACME, "GET", "/api/jobs", "").await;
    assert_eq!(refusal(&answer), (429, "RATE_LIMITED".to_owned()));
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=1200).contains(&seconds), "{seconds}");
    assert_eq!(house.submit(SMALL, "x").await.status, 202);
}

/// A worker's stream that says what it is told to.
struct Stream {
    up: mpsc::UnboundedSender<WorkerMessage>,
    down: tonic::Streaming<v1::OrchestratorMessage>,
}

pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-worker-token", token.parse().unwrap());
    request
}

async fn register(server: &Server, token: &str, name: &str, task_type: &str) -> Result<String, Status> {
    let mut workers = WorkerServiceClient::connect(server.url("")).await.unwrap();
    let request = v1::RegisterWorkerRequest {
        worker_id: name.into(),
        supported_tasks: vec![v1::SupportedTask { r#type: task_type.into(), ..Default::default() }],
        max_concurrent_tasks: 1,
        ..Default::default()
    };
    Ok(workers.register_worker(with_token(request, token)).await?.into_inner().session_id)
}

impl Stream {
    async fn open(server: &Server, token: &str, session_id: String, slots: u32) -> Self {
        Self::try_open(server, token, session_id, slots).await.unwrap()
    }

    async fn try_open(server: &Server, token: &str, session_id: String, slots: u32) -> Result<Self, Status> {
        let mut workers = WorkerServiceClient::connect(server.url("")).await.unwrap();
        let (up, mut said) = mpsc::unbounded_channel();
        let say = |message| up.send(WorkerMessage { message: Some(message) }).unwrap();
        say(worker_message::Message::Hello(v1::Hello { session_id, ..Default::default() }));
        say(worker_message::Message::Credits(v1::Credits { slots }));
        let words = futures_util::stream::poll_fn(move |context| said.poll_recv(context));
        let down = workers.task_stream(with_token(words, token)).await?.into_inner();
        Ok(Self { up, down })
    }

    /// The next task, or how the stream ended before one came.
    async fn task(&mut self) -> Result<v1::Task, Status> {
        loop {
            let message = self.down.message().await?.expect("a stream that ends says why");
            if let Some(orchestrator_message::Message::Tasks(tasks)) = message.message {
                return Ok(tasks.tasks[0].clone());
            }
        }
    }
}

#[tokio::test]
async fn s27_a_worker_registers_under_a_name_and_for_types_of_its_token() {
    let house = House::of(everybody()).await;
    let error = async |token: &str, name: &str, task_type: &str| {
        let status = register(&house.server, token, name, task_type).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let denied = |text: &str| (Code::PermissionDenied, text.to_owned());
    assert_eq!(
        error(GPU, "cpu-1", "process_data").await,
        denied("This token is not for a worker called \"cpu-1\"")
    );
    assert_eq!(error(GPU, "gpu-1", "mail").await, denied("Workers with this token may not serve \"mail\""));
    assert_eq!(error(GPU, "", "process_data").await, denied("This token is for workers called gpu-*"));
    assert_eq!(error(ACME, "gpu-1", "process_data").await.0, Code::Unauthenticated);
    assert!(register(&house.server, GPU, "gpu-1", "process_data").await.is_ok());
    assert!(house.noted().contains(&["role_refused", "gpu-*", "PERMISSION_DENIED"].map(str::to_owned)));
}

#[tokio::test]
async fn a_worker_that_nobody_has_named_gets_the_name_of_its_entry() {
    let house = House::of(Access { workers: vec![worker("render-1", GPU)], ..everybody() }).await;
    let worker = Worker::builder(house.server.url("")).token(GPU);
    let worker = worker.handle("process_data", |params: Value, _| async move { Ok(params) }).build().unwrap();
    let mut handle = worker.handle();
    let running = tokio::spawn(worker.run_until(std::future::pending::<()>()));
    assert_eq!(handle.registered().await.as_deref(), Some("render-1"));
    running.abort();
}

/// What a client follows and submits on streams that go on.
struct Begun {
    watch: tonic::Streaming<v1::WatchJobResponse>,
    requests: mpsc::UnboundedSender<SubmitJobRequest>,
    answers: tonic::Streaming<v1::SubmitJobsResponse>,
    events: TcpStream,
}

impl Begun {
    /// All of it with this token, in the name of this client if there is one.
    async fn by(server: &Server, token: &'static str, client: &str, job: &str) -> Self {
        let caller = Caller::new(server, token).await;
        let mut watch = caller.request(WatchJobRequest { job_id: job.to_owned() });
        let (requests, mut queue) = mpsc::unbounded_channel();
        let mut bulk = caller.request(futures_util::stream::poll_fn(move |context| queue.poll_recv(context)));
        for metadata in [watch.metadata_mut(), bulk.metadata_mut()] {
            metadata.insert("x-avtomatika-client", client.parse().unwrap());
        }
        let watch = caller.jobs().watch_job(watch).await.unwrap().into_inner();
        let answers = caller.jobs().submit_jobs(bulk).await.unwrap().into_inner();
        let events = format!(
            "GET /api/jobs/{job}/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-avtomatika-token: {token}\r\n\
             x-avtomatika-client: {client}\r\n\r\n"
        );
        let events = server.connect(events.as_bytes()).await;
        let mut begun = Self { watch, requests, answers, events };
        assert!(begun.watch.message().await.unwrap().is_some());
        assert_eq!(begun.submit().await, Ok(()));
        begun
    }

    /// Submits one more job.
    async fn submit(&mut self) -> Result<(), String> {
        let request =
            SubmitJobRequest { blueprint: "instant".into(), initial_data: "{}".into(), ..Default::default() };
        self.requests.send(request).unwrap();
        match self.answers.message().await.unwrap().unwrap().result.unwrap() {
            submit_jobs_response::Result::Ok(_) => Ok(()),
            submit_jobs_response::Result::Error(error) => Err(error.code),
        }
    }

    /// How each of the streams ends.
    async fn farewells(&mut self) -> [(Code, String); 3] {
        let watch = loop {
            if let Err(status) = self.watch.message().await {
                break status;
            }
        };
        let answers = self.answers.message().await.unwrap_err();
        let events = read_to_end(&mut self.events).await;
        let last = events.split("event: error\ndata: ").nth(1).unwrap_or_else(|| panic!("{events}"));
        let last: Value = serde_json::from_str(last.lines().next().unwrap()).unwrap();
        assert_eq!(last["code"], "INVALID_TOKEN", "{last}");
        let events = (Code::Unauthenticated, last["error"].as_str().unwrap().to_owned());
        [farewell(watch), farewell(answers), events]
    }
}

fn farewell(status: Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

fn withdrawn() -> (Code, String) {
    (Code::Unauthenticated, "The token was withdrawn".to_owned())
}

#[tokio::test]
async fn s28_a_token_that_was_struck_is_dead_at_once_and_its_streams_end() {
    let house = House::of(everybody()).await;
    let server = &house.server;
    let job = server.by(ACME, "POST", "/api/jobs/test", "{}").await.text("job_id");
    let session = register(server, GPU, "gpu-1", "process_data").await.unwrap();
    let mut stream = Stream::open(server, GPU, session, 1).await;
    assert_eq!(stream.task().await.unwrap().job_id, job);

    let mut begun = Begun::by(server, ACME, "", &job).await;

    let mut fewer = everybody();
    fewer.clients.remove(2);
    fewer.workers = vec![worker("gpu-*", "avtw_new")];
    house.reload(fewer).await;

    assert_eq!(begun.farewells().await, [withdrawn(), withdrawn(), withdrawn()]);
    assert_eq!(farewell(stream.task().await.unwrap_err()), withdrawn());
    assert_eq!(server.by(ACME, "GET", "/api/jobs", "").await.status, 401);
    assert_eq!(
        register(server, GPU, "gpu-1", "process_data").await.unwrap_err().code(),
        Code::Unauthenticated
    );

    // What the worker held is another one's now, and its own result is nobody's any more.
    let session = register(server, "avtw_new", "gpu-2", "process_data").await.unwrap();
    let mut other = Stream::open(server, "avtw_new", session, 1).await;
    assert_eq!(other.task().await.unwrap().job_id, job);
    drop((stream.up, other.up));
    assert!(house.noted().contains(&["tokens_withdrawn", "", "ok"].map(str::to_owned)));
}

#[tokio::test]
async fn what_an_admin_began_ends_when_it_is_no_admin_any_more() {
    let house = House::of(everybody()).await;
    let server = &house.server;
    let job = server.by(ACME, "POST", "/api/jobs/test", "{}").await.text("job_id");
    let mut as_acme = Begun::by(server, ROOT, "acme", &job).await;
    let mut by_acme = Begun::by(server, ACME, "", &job).await;
    let mut demoted = everybody();
    demoted.clients[0] = client("root", ROOT, role(Role::Operator));
    demoted.clients[2] = client("acme", ACME, role(Role::Admin));
    house.reload(demoted).await;
    assert_eq!(as_acme.farewells().await, [withdrawn(), withdrawn(), withdrawn()]);
    assert_eq!(server.by(ROOT, "GET", "/api/workers", "").await.status, 200, "its token is still good");
    assert_eq!(by_acme.submit().await, Ok(()), "whose rights have grown goes on");
    assert!(house.noted().contains(&["tokens_withdrawn", "", "ok"].map(str::to_owned)));
}

#[tokio::test]
async fn a_rate_holds_on_streams_that_were_opened_before_it() {
    let house = House::of(everybody()).await;
    let job = house.server.by(ACME, "POST", "/api/jobs/test", "{}").await.text("job_id");
    let mut begun = Begun::by(&house.server, ACME, "", &job).await;
    let limited = |rate| {
        let mut access = everybody();
        access.clients[2] = client("acme", ACME, Terms { rate_limit: Rate::parse(rate), ..Terms::default() });
        access
    };
    house.reload(limited("1/h")).await;
    assert_eq!(begun.submit().await, Ok(()));
    assert_eq!(begun.submit().await, Err("RATE_LIMITED".to_owned()));
    house.reload(everybody()).await;
    assert_eq!(begun.submit().await, Ok(()), "it is not limited any more");
}

#[tokio::test]
async fn a_worker_that_comes_back_with_another_token_of_its_entry_keeps_its_session() {
    let mut access = everybody();
    access.workers[0].tokens.push((TokenHash::of(b"avtw_new"), 2));
    let house = House::of(access.clone()).await;
    let session = register(&house.server, GPU, "gpu-1", "process_data").await.unwrap();
    access.workers[0].tokens.remove(0);
    house.reload(access).await;
    let job = house.server.by(ACME, "POST", "/api/jobs/test", "{}").await.text("job_id");
    let mut stream = Stream::open(&house.server, "avtw_new", session, 1).await;
    assert_eq!(stream.task().await.unwrap().job_id, job);
}

/// An entry's workers keep their sessions over a restart and whatever becomes of its tokens: the terms must hold for those as well.
#[tokio::test]
async fn a_worker_does_not_come_back_to_a_session_that_its_entry_no_longer_allows() {
    let only = |names: &str, task_type: &str| {
        let entry = worker(names, GPU);
        let allowed_tasks = Some(vec![Glob::new(task_type).unwrap()]);
        let terms = Arc::new(WorkerTerms { allowed_tasks, names: entry.terms.names.clone() });
        Access { workers: vec![WorkerEntry { terms, ..entry }], ..everybody() }
    };
    let store = Arc::new(MemoryStore::new());
    let house = House::over(store.clone(), everybody()).await;
    let session = register(&house.server, GPU, "gpu-1", "process_data").await.unwrap();
    let job = house.server.by(ACME, "POST", "/api/jobs/test", "{}").await.text("job_id");
    house.server.stop();
    house.server.stopped().await;

    let house = House::over(store, only("gpu-*", "mail")).await;
    let comes_back = async || Stream::try_open(&house.server, GPU, session.clone(), 1).await;
    let unknown = (Code::FailedPrecondition, ErrorCode::SessionUnknown);
    let refused = async || comes_back().await.err().map(|status| (status.code(), error(&status)));
    assert_eq!(refused().await, Some(unknown), "its type is forbidden since a restart");
    let denied = register(&house.server, GPU, "gpu-1", "process_data").await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "and so it learns when it registers anew");
    house.reload(only("cpu-*", "process_data")).await;
    assert_eq!(refused().await, Some(unknown), "its name is forbidden since a reload");
    house.reload(only("gpu-*", "process_data")).await;
    assert_eq!(comes_back().await.unwrap().task().await.unwrap().job_id, job, "all of it is allowed again");
}

#[tokio::test]
async fn a_reload_with_a_mistake_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clients.toml");
    let hash = |token: &str| TokenHash::of(token.as_bytes()).to_hex();
    let entry = |name: &str, token: &str, role: &str| {
        format!("[{name}]\ntoken_sha256 = \"{}\"\nrole = \"{role}\"\n", hash(token))
    };
    fs::write(&file, entry("ops", OPS, "operator") + &entry("acme", ACME, "client")).unwrap();
    let read = {
        let file = file.clone();
        move || {
            let clients = avtomatika_orchestrator::trust::clients(&file)?;
            Ok(Access { clients, workers: vec![worker("*", GPU)] })
        }
    };
    let store = Arc::new(MemoryStore::new());
    let parts = Parts { auth: Auth::of(read().unwrap()), ..parts(store.clone(), Duration::from_secs(5)) };
    let app = assemble(parts).unwrap().reload_from(|| Ok(blueprints())).reload_access_from(read);
    let server = Server::serve(app, store).await;

    fs::write(&file, entry("ops", OPS, "operator") + "[acme]\ntoken = \"secret\"\n").unwrap();
    let answer = server.by(OPS, "POST", "/api/reload", "").await;
    assert_eq!(answer.status, 422, "{answer:?}");
    let finding = &answer.json()["findings"][0];
    assert_eq!((finding["line"].as_u64(), answer.body.contains("\"secret\"")), (Some(4), false), "{finding}");
    assert!(finding["file"].as_str().unwrap().ends_with("clients.toml"));
    assert_eq!(server.by(ACME, "GET", "/api/jobs", "").await.status, 200, "still there");

    fs::write(&file, entry("ops", OPS, "operator")).unwrap();
    let dry = server.by(OPS, "POST", "/api/reload", r#"{"dry_run": true}"#).await;
    assert_eq!(dry.status, 200);
    assert_eq!(server.by(ACME, "GET", "/api/jobs", "").await.status, 200, "it was only tried");
    assert_eq!(server.by(OPS, "POST", "/api/reload", "").await.status, 200);
    assert_eq!(server.by(ACME, "GET", "/api/jobs", "").await.status, 401);
}

#[tokio::test]
async fn s18_wrong_tokens_are_slowed_down_and_good_ones_beside_them_are_not() {
    let house = House::of(everybody()).await;
    let mut statuses = Vec::new();
    for guess in 0..700 {
        let answer = house.server.by(&format!("guess-{guess}"), "GET", "/api/jobs", "").await;
        statuses.push(answer.status);
        if answer.status == 429 {
            assert_eq!(answer.text("code"), "RATE_LIMITED");
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
        }
        if guess % 50 == 49 {
            let good = house.server.by(ACME, "GET", "/api/jobs", "").await;
            assert_eq!(good.status, 200, "from the same address");
        }
    }
    assert!(statuses[..600].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    let noted = house.noted();
    let refused = noted.iter().filter(|note| note[0] == "token_refused").count();
    assert!((1..=20).contains(&refused), "{refused} of seven hundred are written down");
    assert!(!house.audit_text().contains("guess-"), "and no guess is");
}

#[tokio::test]
async fn s32_no_token_stands_in_anything_that_is_answered_or_written_down() {
    let house = House::of(everybody()).await;
    let server = &house.server;
    let mut seen = String::new();
    let job = server.by(ACME, "POST", "/api/jobs/test", r#"{"input": 1}"#).await.text("job_id");
    let session = register(server, GPU, "gpu-1", "process_data").await.unwrap();
    let mut stream = Stream::open(server, GPU, session, 1).await;
    seen += &format!("{:?}", stream.task().await.unwrap());
    for token in TOKENS {
        for (method, path) in [
            ("GET", "/api/jobs"),
            ("GET", &*format!("/api/jobs/{job}")),
            ("GET", &*format!("/api/jobs/{job}/history")),
            ("GET", &*format!("/api/jobs/{job}/explain")),
            ("GET", &*format!("/api/jobs/{job}/graph")),
            ("GET", "/api/workers"),
            ("GET", "/api/dashboard"),
            ("GET", "/api/blueprints"),
            ("GET", "/api/nothing"),
            ("GET", "/_public/metrics"),
            ("GET", "/_public/status"),
            ("POST", "/api/reload"),
            ("POST", "/api/jobs/checked"),
            ("DELETE", "/api/jobs"),
        ] {
            for header in ["x-avtomatika-token", "x-client-token", "x-worker-token", "authorization"] {
                let value =
                    if header == "authorization" { format!("Bearer {token}") } else { token.to_owned() };
                let answer = server.send(method, path, &[(header, &value)], "").await;
                seen += &format!("{:?} {}", answer.headers, answer.body);
            }
        }
    }
    seen += &house.audit_text();
    seen += &format!("{:?}", house.access.lock().unwrap());
    let auth = Auth::of(everybody());
    seen += &format!("{auth:?}");
    let stored = json!({ "store": format!("{:?}", server.store) });
    seen += &stored.to_string();
    assert!(seen.contains("operator_call") && seen.contains(&job));
    for token in TOKENS {
        let hash = TokenHash::of(token.as_bytes()).to_hex();
        assert!(!seen.contains(token), "{token} stands somewhere");
        assert!(!seen.contains(&hash), "the hash of {token} stands somewhere");
    }
}
