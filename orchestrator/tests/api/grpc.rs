//! gRPC: the same table of what may go wrong, and the calls when it does not.

use avtomatika_proto::{
    ApiError, ErrorCode,
    limits::{MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX},
    v1::{
        self, JobStatus, SubmitJobRequest, admin_service_client::AdminServiceClient,
        job_service_client::JobServiceClient, submit_jobs_response,
    },
};
use futures_util::StreamExt;
use tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{ALICE, BOB, Server, WORKER};

const UNKNOWN_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A client's way to the server.
pub struct Caller {
    channel: Channel,
    token: &'static str,
}

impl Caller {
    pub async fn new(server: &Server, token: &'static str) -> Self {
        let endpoint = tonic::transport::Endpoint::try_from(server.url("")).unwrap();
        Self { channel: endpoint.connect().await.unwrap(), token }
    }

    pub fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone()).max_encoding_message_size(4 * MESSAGE_BYTES_MAX)
    }

    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !self.token.is_empty() {
            let value = MetadataValue::try_from(format!("Bearer {}", self.token)).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    async fn submit(&self, request: SubmitJobRequest) -> Result<v1::SubmitJobResponse, Status> {
        self.jobs().submit_job(self.request(request)).await.map(tonic::Response::into_inner)
    }

    async fn list(&self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, Status> {
        self.jobs().list_jobs(self.request(request)).await.map(tonic::Response::into_inner)
    }

    async fn job_count(&self) -> usize {
        self.list(v1::ListJobsRequest::default()).await.unwrap().jobs.len()
    }
}

fn of(blueprint: &str, initial_data: &str) -> SubmitJobRequest {
    SubmitJobRequest {
        blueprint: blueprint.to_owned(),
        initial_data: initial_data.to_owned(),
        ..Default::default()
    }
}

pub fn error(status: &Status) -> ErrorCode {
    ApiError::from_status(status).code
}

#[tokio::test]
async fn a_stranger_is_unauthenticated_in_every_method_known_or_not() {
    let server = Server::start().await;
    for (token, message) in [
        ("", "Missing X-Avtomatika-Token header"),
        ("wrong", "Unauthorized: Invalid token"),
        (WORKER, "Unauthorized: Invalid token"),
    ] {
        let caller = Caller::new(&server, token).await;
        let (mut jobs, mut admin) = (caller.jobs(), caller.admin());
        let bulk = futures_util::stream::iter([of("instant", "{}")]);
        let answers = [
            jobs.submit_job(caller.request(of("instant", "{}"))).await.err(),
            jobs.submit_jobs(caller.request(bulk)).await.err(),
            jobs.get_job(caller.request(v1::GetJobRequest::default())).await.err(),
            jobs.list_jobs(caller.request(v1::ListJobsRequest::default())).await.err(),
            jobs.get_job_history(caller.request(v1::GetJobHistoryRequest::default())).await.err(),
            jobs.watch_job(caller.request(v1::WatchJobRequest::default())).await.err(),
            jobs.cancel_job(caller.request(v1::CancelJobRequest::default())).await.err(),
            jobs.signal_job(caller.request(v1::SignalJobRequest::default())).await.err(),
            jobs.decide_approval(caller.request(v1::DecideApprovalRequest::default())).await.err(),
            jobs.retry_job(caller.request(v1::RetryJobRequest::default())).await.err(),
            jobs.skip_job(caller.request(v1::SkipJobRequest::default())).await.err(),
            jobs.repair_jobs(caller.request(v1::RepairJobsRequest::default())).await.err(),
            admin.list_workers(caller.request(v1::ListWorkersRequest::default())).await.err(),
            admin.list_blueprints(caller.request(v1::ListBlueprintsRequest::default())).await.err(),
            admin.get_blueprint(caller.request(v1::GetBlueprintRequest::default())).await.err(),
            admin.get_stats(caller.request(v1::GetStatsRequest::default())).await.err(),
            unknown_method(&caller).await.err(),
        ];
        for (index, status) in answers.into_iter().enumerate() {
            let status = status.unwrap_or_else(|| panic!("method {index} let a stranger in"));
            assert_eq!((status.code(), status.message()), (Code::Unauthenticated, message), "method {index}");
        }
    }
    assert_eq!(
        unknown_method(&Caller::new(&server, ALICE).await).await.unwrap_err().code(),
        Code::Unimplemented
    );
    assert_eq!(Caller::new(&server, ALICE).await.job_count().await, 0);
}

async fn unknown_method(caller: &Caller) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(caller.channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/avtomatika.v1.JobService/Unknown");
    let codec: tonic_prost::ProstCodec<v1::GetJobRequest, v1::GetJobResponse> = Default::default();
    grpc.unary(caller.request(v1::GetJobRequest::default()), path, codec).await.map(drop)
}

#[tokio::test]
async fn a_client_is_no_worker() {
    let server = Server::start().await;
    for (token, message) in [("", "Missing X-Worker-Token header"), (ALICE, "Unauthorized: Invalid token")] {
        let caller = Caller::new(&server, token).await;
        let mut workers = v1::worker_service_client::WorkerServiceClient::new(caller.channel.clone());
        let register = workers.register_worker(caller.request(v1::RegisterWorkerRequest::default())).await;
        let stream = workers.task_stream(caller.request(futures_util::stream::empty())).await;
        for status in [register.err().unwrap(), stream.err().unwrap()] {
            assert_eq!((status.code(), status.message()), (Code::Unauthenticated, message));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_submitted_is_refused_by_code_and_nothing_is_stored() {
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for data in ["{\"a\":", "[]", "null", "{\"a\":1,\"a\":2}", deep.as_str()] {
        let status = caller.submit(of("instant", data)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "Invalid JSON body"), "{data}");
        assert_eq!(error(&status), ErrorCode::InvalidJson);
    }
    let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let ok = || of("instant", "{}");
    for (request, code, message) in [
        (of("", "{}"), Code::InvalidArgument, "blueprint is missing"),
        (of("nope", "{}"), Code::NotFound, "Blueprint not found: \"nope\""),
        (SubmitJobRequest { priority: 101, ..ok() }, Code::InvalidArgument, "priority is 101"),
        (SubmitJobRequest { wait: duration(301, 0), ..ok() }, Code::InvalidArgument, "wait is longer"),
        (SubmitJobRequest { wait: duration(-1, 0), ..ok() }, Code::InvalidArgument, "wait is negative"),
        (
            SubmitJobRequest { result_timeout: duration(0, -1), ..ok() },
            Code::InvalidArgument,
            "result_timeout is negative",
        ),
        (
            SubmitJobRequest { dispatch_timeout: duration(0, 0), ..ok() },
            Code::InvalidArgument,
            "dispatch_timeout is 0",
        ),
        (
            SubmitJobRequest { idempotency_key: "ü".to_owned(), ..ok() },
            Code::InvalidArgument,
            "the idempotency key",
        ),
        (
            SubmitJobRequest { webhook_url: "http://x".to_owned(), ..ok() },
            Code::FailedPrecondition,
            "This orchestrator has no secret",
        ),
    ] {
        let status = caller.submit(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().starts_with(message), "{status:?}");
    }
    let large = |bytes: usize| of("test_workflow", &format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8)));
    let status = caller.submit(large(PAYLOAD_BYTES_MAX + 1)).await.unwrap_err();
    assert_eq!((status.code(), error(&status)), (Code::ResourceExhausted, ErrorCode::PayloadTooLarge));
    // Beyond the limit of a message the codec refuses by itself.
    let status = caller.submit(large(MESSAGE_BYTES_MAX + 1)).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    assert_eq!(caller.job_count().await, 0);
    caller.submit(large(PAYLOAD_BYTES_MAX)).await.unwrap();
    assert_eq!(caller.job_count().await, 1);
}

#[tokio::test]
async fn a_job_that_is_not_ones_own_cannot_be_told_from_one_that_is_not_there() {
    let server = Server::start().await;
    let (alice, bob) = (Caller::new(&server, ALICE).await, Caller::new(&server, BOB).await);
    let foreign = bob.submit(of("test_workflow", "{}")).await.unwrap().job_id;
    let mut jobs = alice.jobs();
    for id in [foreign.as_str(), UNKNOWN_ID, "", "no uuid", &UNKNOWN_ID.to_uppercase()] {
        let job_id = || id.to_owned();
        let answers = [
            jobs.get_job(alice.request(v1::GetJobRequest { job_id: job_id() })).await.err(),
            jobs.watch_job(alice.request(v1::WatchJobRequest { job_id: job_id() })).await.err(),
            jobs.cancel_job(alice.request(v1::CancelJobRequest { job_id: job_id(), ..Default::default() }))
                .await
                .err(),
            jobs.get_job_history(
                alice.request(v1::GetJobHistoryRequest { job_id: job_id(), ..Default::default() }),
            )
            .await
            .err(),
        ];
        for status in answers {
            let status = status.unwrap();
            assert_eq!((status.code(), status.message()), (Code::NotFound, "Job not found"), "{id}");
        }
    }
    assert_eq!(alice.job_count().await, 0);
}

#[tokio::test]
async fn a_repeated_key_is_the_first_job_again_or_a_conflict() {
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let keyed =
        |data: &str| SubmitJobRequest { idempotency_key: "k".to_owned(), ..of("test_workflow", data) };
    let first = caller.submit(keyed("{\"a\":1}")).await.unwrap();
    let again = caller.submit(keyed("{\"a\":1}")).await.unwrap();
    assert_eq!((again.job_id, again.deduplicated, first.deduplicated), (first.job_id, true, false));
    let status = caller.submit(keyed("{\"a\":2}")).await.unwrap_err();
    assert_eq!((status.code(), error(&status)), (Code::AlreadyExists, ErrorCode::IdempotencyConflict));
    assert_eq!(caller.job_count().await, 1);
}

#[tokio::test]
async fn a_job_is_watched_and_cancelled_and_cannot_be_cancelled_again() {
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let job_id = caller.submit(of("test_workflow", "{}")).await.unwrap().job_id;
    let watch = v1::WatchJobRequest { job_id: job_id.clone() };
    let mut updates = caller.jobs().watch_job(caller.request(watch)).await.unwrap().into_inner();
    let mut next = async || updates.message().await.unwrap().map(|update| update.job.unwrap().status());
    assert_eq!(next().await, Some(JobStatus::WaitingForWorker));
    let cancel = v1::CancelJobRequest { job_id: job_id.clone(), reason: "enough".to_owned() };
    let cancelled = caller.jobs().cancel_job(caller.request(cancel.clone())).await.unwrap().into_inner();
    assert_eq!(cancelled.job.unwrap().status(), JobStatus::Cancelled);
    assert_eq!(next().await, Some(JobStatus::Cancelled));
    assert_eq!(next().await, None, "nothing comes after the end");
    let status = caller.jobs().cancel_job(caller.request(cancel)).await.unwrap_err();
    assert_eq!((status.code(), error(&status)), (Code::FailedPrecondition, ErrorCode::JobTerminal));
    assert!(status.message().contains("cancelled"), "{status:?}");
}

#[tokio::test]
async fn a_wait_answers_with_the_job() {
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let waiting = |blueprint: &str, nanos| SubmitJobRequest {
        wait: Some(prost_types::Duration { seconds: 0, nanos }),
        ..of(blueprint, "{\"input\":1}")
    };
    let done = caller.submit(waiting("instant", 999_999_999)).await.unwrap();
    let job = done.job.unwrap();
    assert_eq!((job.status(), job.state_history.as_str()), (JobStatus::Finished, "{\"seen\":1}"));
    assert_eq!((job.id, job.current_state.as_str()), (done.job_id, "completed"));
    let waits = caller.submit(waiting("test_workflow", 1_000_000)).await.unwrap();
    assert_eq!(waits.job.unwrap().status(), JobStatus::WaitingForWorker);
    assert!(caller.submit(of("instant", "")).await.unwrap().job.is_none());
}

#[tokio::test]
async fn many_requests_of_one_stream_are_answered_in_their_order_good_and_bad() {
    const COUNT: usize = 1000;
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let request = |index: usize| match index % 10 {
        3 => of("instant", "[]"),
        7 => of("nope", "{}"),
        _ => of("named", "{}"),
    };
    let requests = futures_util::stream::iter((0..COUNT).map(request));
    let answers = caller.jobs().submit_jobs(caller.request(requests)).await.unwrap().into_inner();
    let answers: Vec<v1::SubmitJobsResponse> = answers.map(Result::unwrap).collect().await;
    assert_eq!(answers.len(), COUNT);
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.index, index as u64);
        match (index % 10, answer.result.as_ref().unwrap()) {
            (3, submit_jobs_response::Result::Error(error)) => assert_eq!(error.code, "INVALID_JSON"),
            (7, submit_jobs_response::Result::Error(error)) => assert_eq!(error.code, "BLUEPRINT_NOT_FOUND"),
            (0..3 | 4..7 | 8.., submit_jobs_response::Result::Ok(done)) => assert_eq!(done.job_id.len(), 36),
            (_, other) => panic!("request {index}: {other:?}"),
        }
    }
    let mut listed = 0;
    let mut page = v1::ListJobsRequest { page_size: 333, ..Default::default() };
    loop {
        let answer = caller.list(page.clone()).await.unwrap();
        listed += answer.jobs.len();
        page.cursor = answer.next_cursor;
        if page.cursor.is_empty() {
            break;
        }
    }
    assert_eq!(listed, COUNT * 8 / 10, "and nothing was stored for the others");
}

#[tokio::test]
async fn listings_are_filtered_and_refuse_what_they_did_not_give_out() {
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let waiting = caller.submit(of("test_workflow", "{}")).await.unwrap().job_id;
    caller.submit(of("named", "{}")).await.unwrap();
    let by_status = |statuses| v1::ListJobsRequest { statuses, ..Default::default() };
    let found = caller.list(by_status(vec![JobStatus::WaitingForWorker.into()])).await.unwrap();
    assert_eq!(found.jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&waiting]);
    assert_eq!(caller.list(by_status(vec![0])).await.unwrap().jobs.len(), 2);
    for request in [
        by_status(vec![9999]),
        v1::ListJobsRequest { page_size: 1001, ..Default::default() },
        v1::ListJobsRequest { cursor: "h0000000000000000".to_owned(), ..Default::default() },
    ] {
        assert_eq!(caller.list(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let history = |cursor: &str| v1::GetJobHistoryRequest {
        job_id: waiting.clone(),
        page_size: 1,
        cursor: cursor.to_owned(),
    };
    let mut jobs = caller.jobs();
    let first = jobs.get_job_history(caller.request(history(""))).await.unwrap().into_inner();
    assert_eq!(first.entries[0].event, "job_accepted");
    let second =
        jobs.get_job_history(caller.request(history(&first.next_cursor))).await.unwrap().into_inner();
    assert_eq!(second.entries[0].sequence, 1);
    let status = jobs.get_job_history(caller.request(history("tampered"))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn operators_see_blueprints_and_counts() {
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let mut admin = caller.admin();
    let served =
        admin.list_blueprints(caller.request(v1::ListBlueprintsRequest {})).await.unwrap().into_inner();
    let names: Vec<&str> = served.blueprints.iter().map(|blueprint| blueprint.name.as_str()).collect();
    assert_eq!(names, ["ask", "checked", "family", "fragile", "instant", "listen", "named", "test_workflow"]);
    let get =
        |version| v1::GetBlueprintRequest { name: "test_workflow".to_owned(), version, graph_format: 0 };
    let one = admin.get_blueprint(caller.request(get(0))).await.unwrap().into_inner();
    assert_eq!(one.blueprint.unwrap().task_types, ["process_data"]);
    assert!(one.graph_dot.starts_with("digraph") && one.definition.starts_with('{'));
    assert!(admin.get_blueprint(caller.request(get(1))).await.is_ok());
    assert_eq!(admin.get_blueprint(caller.request(get(2))).await.unwrap_err().code(), Code::NotFound);
    caller.submit(of("test_workflow", "{}")).await.unwrap();
    let stats = admin.get_stats(caller.request(v1::GetStatsRequest {})).await.unwrap().into_inner();
    assert_eq!((stats.jobs["waiting_for_worker"], stats.ready_tasks["process_data"]), (1, 1));
    assert_eq!(stats.store, "memory");
    assert!(
        admin
            .list_workers(caller.request(v1::ListWorkersRequest {}))
            .await
            .unwrap()
            .into_inner()
            .workers
            .is_empty()
    );
}

#[tokio::test]
async fn health_and_reflection_ask_for_no_token() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let server = Server::start().await;
    let stranger = Caller::new(&server, "").await;
    let mut health = HealthClient::new(stranger.channel.clone());
    for service in ["", "avtomatika.v1.JobService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    let unknown = HealthCheckRequest { service: "nope".to_owned() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);

    let mut reflection = ServerReflectionClient::new(stranger.channel.clone());
    let ask = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let answers = reflection.server_reflection_info(futures_util::stream::iter([ask])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    for name in ["avtomatika.v1.JobService", "avtomatika.v1.WorkerService", "avtomatika.v1.AdminService"] {
        assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn a_stop_ends_watches_and_says_so_to_whoever_asks_for_health() {
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let mut health = HealthClient::new(caller.channel.clone());
    let mut phases = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(phases.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let job_id = caller.submit(of("test_workflow", "{}")).await.unwrap().job_id;
    let watch = v1::WatchJobRequest { job_id };
    let mut updates = caller.jobs().watch_job(caller.request(watch)).await.unwrap().into_inner();
    updates.message().await.unwrap().unwrap();
    server.stop();
    assert_eq!(phases.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(phases.message().await.unwrap().is_none());
    let status = updates.message().await.unwrap_err();
    assert!(ApiError::from_status(&status).code.is_retryable(), "{status:?}");
    server.stopped().await;
}

/// As many as a connection takes at a time: what there is no turn for yet waits, and is not refused.
#[tokio::test]
async fn sixty_payloads_of_the_largest_size_at_a_time_come_in_over_one_connection() {
    const AT_ONCE: usize = 60;
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let initial_data = format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX - 100));
    let request = SubmitJobRequest { blueprint: "test_workflow".into(), initial_data, ..Default::default() };
    let submissions = (0..AT_ONCE).map(|_| caller.submit(request.clone()));
    for answer in futures_util::future::join_all(submissions).await {
        answer.unwrap();
    }
    assert_eq!(server.jobs_of(ALICE).await.len(), AT_ONCE);
}
