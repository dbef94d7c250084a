//! A worker's stream with nothing behind either end: batches of tasks down, their results up, acknowledgements down.
//!
//! Two batches are under way at any time, half of the tasks in flight each, so that both directions are busy at once.

use std::{pin::Pin, time::Duration};

use avtomatika_proto::{
    limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    outcome,
    v1::{
        orchestrator_message::Message as Down,
        worker_message::Message as Up,
        worker_service_client::WorkerServiceClient,
        worker_service_server::{WorkerService, WorkerServiceServer},
        *,
    },
    wire_time,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::{Stream, wrappers::ReceiverStream, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Endpoint};

use super::{
    Cost, Meter,
    server::{grpc_server, listen, url_of},
};
use crate::{commands::bench::blueprint, failure::Failure};

/// Batches under way.
const BATCHES: usize = 2;

/// Messages that wait for the connection to take them, as in the worker and in the orchestrator.
const OUTGOING_QUEUE: usize = 4;

/// Tasks that go through before it is measured.
const WARM_UP: u64 = 2_000;

/// Sends tasks back and forth for so long, so many of them under way.
pub(super) async fn measure(in_flight: usize, payload_bytes: usize, each: Duration) -> Result<Cost, Failure> {
    let listener = listen().await?;
    let url = url_of(&listener)?;
    let service = WorkerServiceServer::new(Sending {
        task: task(payload_bytes),
        batch_len: (in_flight / BATCHES).max(1),
    })
    .max_decoding_message_size(usize::MAX)
    .max_encoding_message_size(usize::MAX);
    let serving = grpc_server().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serving);
    let cost = work(&url, each).await;
    serving.abort();
    cost.map_err(|status| Failure::System(format!("measuring the worker's stream has failed: {status}")))
}

async fn work(url: &str, each: Duration) -> Result<Cost, Status> {
    let broken = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(broken)?
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES);
    let channel = endpoint.connect().await.map_err(broken)?;
    let mut client = WorkerServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let (up, outgoing) = mpsc::channel(OUTGOING_QUEUE);
    let mut down = client.task_stream(ReceiverStream::new(outgoing)).await?.into_inner();
    answer(&mut down, &up, WARM_UP, None).await?;
    let meter = Meter::start();
    let acknowledged = answer(&mut down, &up, u64::MAX, Instant::now().checked_add(each)).await?;
    Ok(meter.stop(acknowledged))
}

/// Answers tasks until so many results are acknowledged, or until then. Returns how many were.
async fn answer(
    down: &mut Streaming<OrchestratorMessage>,
    up: &mpsc::Sender<WorkerMessage>,
    enough: u64,
    until: Option<Instant>,
) -> Result<u64, Status> {
    let mut acknowledged = 0;
    while acknowledged < enough {
        let message = match until {
            None => down.message().await?,
            Some(until) => match timeout_at(until, down.message()).await {
                Ok(message) => message?,
                Err(_) => break,
            },
        };
        match message.and_then(|message| message.message) {
            Some(Down::Tasks(Tasks { tasks })) => {
                let results = tasks.into_iter().map(result).collect();
                let message = WorkerMessage { message: Some(Up::TaskResults(TaskResults { results })) };
                up.send(message).await.map_err(|_| Status::aborted("the stream has ended"))?;
            }
            Some(Down::ResultsAck(ResultsAck { acks })) => acknowledged += acks.len() as u64,
            _ => return Err(Status::aborted("the stream has ended")),
        }
    }
    Ok(acknowledged)
}

fn result(task: Task) -> TaskResult {
    TaskResult {
        task_id: task.task_id,
        job_id: task.job_id,
        outcome: outcome::SUCCESS.to_owned(),
        data: r#"{"done":true}"#.to_owned(),
        error: None,
        checkpoint: String::new(),
    }
}

/// A task as the orchestrator sends it.
fn task(payload_bytes: usize) -> Task {
    Task {
        task_id: "5f0c7a1e-8a57-4c59-9d3b-1f5a54b1c0de".to_owned(),
        job_id: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        r#type: blueprint::TASK_TYPE.to_owned(),
        params: blueprint::initial_data(payload_bytes).replacen("input", "payload", 1),
        attempt: 1,
        deadline: Some(wire_time::timestamp(1_795_521_600_123_456)),
        timeout: Some(wire_time::duration(Duration::from_secs(300))),
        ..Task::default()
    }
}

/// Sends tasks, and for each result its acknowledgement and another task.
struct Sending {
    task: Task,
    batch_len: usize,
}

#[tonic::async_trait]
impl WorkerService for Sending {
    type TaskStreamStream = Pin<Box<dyn Stream<Item = Result<OrchestratorMessage, Status>> + Send>>;

    async fn register_worker(
        &self,
        _: Request<RegisterWorkerRequest>,
    ) -> Result<Response<RegisterWorkerResponse>, Status> {
        Err(Status::unimplemented("this server only measures"))
    }

    async fn task_stream(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::TaskStreamStream>, Status> {
        let (down, outgoing) = mpsc::channel(OUTGOING_QUEUE);
        tokio::spawn(send(self.task.clone(), self.batch_len, request.into_inner(), down));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

async fn send(
    task: Task,
    batch_len: usize,
    mut up: Streaming<WorkerMessage>,
    down: mpsc::Sender<Result<OrchestratorMessage, Status>>,
) {
    let batch = |len| Down::Tasks(Tasks { tasks: vec![task.clone(); len] });
    let say = async |message| down.send(Ok(OrchestratorMessage { message: Some(message) })).await;
    for _ in 0..BATCHES {
        if say(batch(batch_len)).await.is_err() {
            return;
        }
    }
    while let Ok(Some(WorkerMessage { message: Some(Up::TaskResults(TaskResults { results })) })) =
        up.message().await
    {
        let len = results.len();
        let acks = results.into_iter().map(|result| ResultAck {
            task_id: result.task_id,
            verdict: ResultVerdict::Applied.into(),
            reason: String::new(),
        });
        let acks = Down::ResultsAck(ResultsAck { acks: acks.collect() });
        if say(acks).await.is_err() || say(batch(len)).await.is_err() {
            return;
        }
    }
}
