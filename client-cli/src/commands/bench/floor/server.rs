//! A server that takes submissions and answers at once with a finished job, as large as a real one.
//!
//! gRPC is tonic's own server, REST is hyper's: the same libraries that the orchestrator is made with, and nothing behind them.

use std::{convert::Infallible, net::SocketAddr, pin::Pin};

use avtomatika_proto::{
    limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    v1::{
        job_service_server::{JobService, JobServiceServer},
        *,
    },
    wire_time,
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request as HttpRequest, Response as HttpResponse,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::super::{args::Api, blueprint};
use crate::{failure::Failure, render::json};

/// Ids of the usual length.
const JOB_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// When everything happens here.
const NOON_UNIX_US: i64 = 1_795_521_600_123_456;

/// A running server, stopped when dropped.
pub(super) struct NoOp {
    url: String,
    serving: AbortHandle,
}

impl NoOp {
    /// Starts one for this API, whose jobs have initial data of so many bytes.
    pub(super) async fn start(api: Api, payload_bytes: usize) -> Result<Self, Failure> {
        let listener = listen().await?;
        let url = url_of(&listener)?;
        let job = finished_job(payload_bytes);
        let serving = match api {
            Api::Rest => {
                tokio::spawn(serve_rest(listener, json::line(&json::job(&job)).into())).abort_handle()
            }
            Api::Grpc | Api::GrpcStream => tokio::spawn(serve_grpc(listener, job)).abort_handle(),
        };
        Ok(Self { url, serving })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for NoOp {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A port of this machine.
pub(super) async fn listen() -> Result<TcpListener, Failure> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .map_err(|error| Failure::System(format!("no port to listen on: {error}")))
}

/// Where the listener can be reached.
pub(super) fn url_of(listener: &TcpListener) -> Result<String, Failure> {
    let address = listener.local_addr();
    let address = address.map_err(|error| Failure::System(format!("a port without an address: {error}")))?;
    Ok(format!("http://{address}"))
}

/// tonic's server with the windows that the orchestrator has.
pub(super) fn grpc_server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
}

async fn serve_grpc(listener: TcpListener, job: Job) {
    let incoming = TcpListenerStream::new(listener).map(|stream| {
        stream.inspect(|stream| {
            // A socket that cannot be told so works anyway.
            let _ = stream.set_nodelay(true);
        })
    });
    let answer = SubmitJobResponse { job_id: job.id.clone(), deduplicated: false, job: Some(job) };
    let service = JobServiceServer::new(Answering(answer));
    // It ends when it is aborted; who calls it would notice if it ended before.
    let _ = grpc_server().add_service(service).serve_with_incoming(incoming).await;
}

async fn serve_rest(listener: TcpListener, body: Bytes) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let body = body.clone();
        let answer = service_fn(move |request: HttpRequest<Incoming>| {
            let body = body.clone();
            async move { Ok::<_, Infallible>(answer(request, body).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

async fn answer(request: HttpRequest<Incoming>, body: Bytes) -> HttpResponse<Full<Bytes>> {
    // It is read, as everybody must.
    let _ = request.into_body().collect().await;
    let mut response = HttpResponse::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A job as the orchestrator answers with it.
fn finished_job(payload_bytes: usize) -> Job {
    let at = Some(wire_time::timestamp(NOON_UNIX_US));
    Job {
        id: JOB_ID.to_owned(),
        blueprint_name: blueprint::NAME.to_owned(),
        blueprint_version: 1,
        current_state: "done".to_owned(),
        status: JobStatus::Finished.into(),
        initial_data: blueprint::initial_data(payload_bytes),
        state_history: r#"{"done":true}"#.to_owned(),
        result: r#"{"done":true}"#.to_owned(),
        transition_count: 1,
        created_at: at,
        updated_at: at,
        finished_at: at,
        ..Job::default()
    }
}

/// Answers every submission with the same job.
struct Answering(SubmitJobResponse);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this server only measures"))
}

#[tonic::async_trait]
impl JobService for Answering {
    type SubmitJobsStream = Answers<SubmitJobsResponse>;
    type WatchJobStream = Answers<WatchJobResponse>;

    async fn submit_job(&self, _: Request<SubmitJobRequest>) -> Result<Response<SubmitJobResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn submit_jobs(
        &self,
        request: Request<Streaming<SubmitJobRequest>>,
    ) -> Result<Response<Self::SubmitJobsStream>, Status> {
        let answer = self.0.clone();
        let mut index = 0;
        let answers = request.into_inner().map(move |request| {
            request?;
            let result = Some(submit_jobs_response::Result::Ok(answer.clone()));
            index += 1;
            Ok(SubmitJobsResponse { index: index - 1, result })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_job(&self, _: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        not_here()
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        not_here()
    }

    async fn get_job_history(
        &self,
        _: Request<GetJobHistoryRequest>,
    ) -> Result<Response<GetJobHistoryResponse>, Status> {
        not_here()
    }

    async fn watch_job(&self, _: Request<WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        not_here()
    }

    async fn cancel_job(&self, _: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        not_here()
    }

    async fn list_webhooks(
        &self,
        _: Request<ListWebhooksRequest>,
    ) -> Result<Response<ListWebhooksResponse>, Status> {
        not_here()
    }

    async fn redeliver_webhook(
        &self,
        _: Request<RedeliverWebhookRequest>,
    ) -> Result<Response<RedeliverWebhookResponse>, Status> {
        not_here()
    }

    async fn get_job_graph(
        &self,
        _: Request<GetJobGraphRequest>,
    ) -> Result<Response<GetJobGraphResponse>, Status> {
        not_here()
    }

    async fn explain_job(
        &self,
        _: Request<ExplainJobRequest>,
    ) -> Result<Response<ExplainJobResponse>, Status> {
        not_here()
    }

    async fn signal_job(&self, _: Request<SignalJobRequest>) -> Result<Response<SignalJobResponse>, Status> {
        not_here()
    }

    async fn decide_approval(
        &self,
        _: Request<DecideApprovalRequest>,
    ) -> Result<Response<DecideApprovalResponse>, Status> {
        not_here()
    }

    async fn retry_job(&self, _: Request<RetryJobRequest>) -> Result<Response<RetryJobResponse>, Status> {
        not_here()
    }

    async fn skip_job(&self, _: Request<SkipJobRequest>) -> Result<Response<SkipJobResponse>, Status> {
        not_here()
    }

    async fn repair_jobs(
        &self,
        _: Request<RepairJobsRequest>,
    ) -> Result<Response<RepairJobsResponse>, Status> {
        not_here()
    }

    async fn migrate_jobs(
        &self,
        _: Request<MigrateJobsRequest>,
    ) -> Result<Response<MigrateJobsResponse>, Status> {
        not_here()
    }
}
