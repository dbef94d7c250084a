//! Traces of the real program, taken by a collector that the test plays: one trace from the client to the worker, whatever happens
//! to the orchestrator between.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use avtomatika_proto::{
    spans::{Sampler, Spans},
    trace::{TraceContext, span_of_attempt},
};
use avtomatika_worker::{TaskContext, TaskError, Worker};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::running::{PATIENCE, Running, TOKENS, complete_on, in_time};

/// The client's own span.
const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector, and everything that it was told.
#[derive(Clone, Default)]
struct Collector {
    /// With the names of the services that told it.
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    news: Arc<Notify>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap().attributes;
            let service = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let service = format!("{:?}", service.value);
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            self.spans.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        self.news.notify_waiters();
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

impl Collector {
    /// Where it listens.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (collector, url)
    }

    /// The span with this name, when it has come.
    async fn span(&self, name: &str) -> (String, Span) {
        let found = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                let found = self.spans.lock().unwrap().iter().find(|(_, span)| span.name == name).cloned();
                if let Some(found) = found {
                    return found;
                }
                news.await;
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => {
                let spans = self.spans.lock().unwrap();
                let names: Vec<&str> = spans.iter().map(|(_, span)| span.name.as_str()).collect();
                panic!("no span {name:?} came, only {names:?}");
            }
        }
    }
}

/// The program, which tells this collector, if any.
fn start(dir: &Path, port: u16, collector: Option<&str>) -> Running {
    let mut command = complete_on(port, dir);
    if let Some(collector) = collector {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector).env("OTEL_BSP_SCHEDULE_DELAY", "20");
    }
    Running::start(command)
}

async fn submit(running: &Running, traceparent: Option<&str>, wait: &str) -> Value {
    let mut request = reqwest::Client::new().post(format!("{}/api/jobs/test{wait}", running.url()));
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let request = request.header("X-Avtomatika-Token", TOKENS[1]).body(r#"{"input": "x"}"#);
    let answer = in_time(request.send()).await.unwrap();
    serde_json::from_str(&in_time(answer.text()).await.unwrap()).unwrap()
}

/// A worker whose handler says in which trace it is, and then waits to be let go on.
fn work(url: &str, spans: Option<Spans>) -> (mpsc::Receiver<(String, Option<TraceContext>)>, Arc<Notify>) {
    let (tell, told) = mpsc::channel(8);
    let go_on = Arc::new(Notify::new());
    let gate = go_on.clone();
    let process = move |_: Value, context: TaskContext| {
        let (tell, gate) = (tell.clone(), gate.clone());
        async move {
            let trace = context.trace().cloned();
            tell.send((context.task_id().to_owned(), trace)).await.unwrap();
            gate.notified().await;
            Ok::<_, TaskError>(json!({ "done": true }))
        }
    };
    let mut worker = Worker::builder(url).token(TOKENS[3]).worker_id("w1").handle("process_data", process);
    if let Some(spans) = spans {
        worker = worker.spans(spans);
    }
    tokio::spawn(worker.build().unwrap().run_until(std::future::pending()));
    (told, go_on)
}

#[tokio::test]
async fn one_trace_leads_from_the_client_to_the_worker_also_when_the_orchestrator_is_killed_between() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, url) = Collector::start().await;
    let mut orchestrator = start(dir.path(), 0, Some(&url));
    let spans = Spans::to("test-worker", &url, Sampler::ALL).unwrap();
    let (mut told, go_on) = work(&orchestrator.url(), Some(spans.clone()));

    let job = submit(&orchestrator, Some(CLIENT), "").await;
    let job_id = job["job_id"].as_str().unwrap();
    let (task_id, seen) = in_time(told.recv()).await.unwrap();
    let (service, submitted) = collector.span("submit test_workflow").await;
    assert!(service.contains("avtomatika-orchestrator"), "{service}");
    // While the worker has the task.
    orchestrator.kill();
    let orchestrator = start(dir.path(), orchestrator.port, Some(&url));
    go_on.notify_one();

    let (_, whole) = collector.span("job test_workflow").await;
    let (_, state) = collector.span("state init").await;
    let (_, attempt) = collector.span("attempt init").await;
    let (_, wait) = collector.span("wait for a worker").await;
    spans.shutdown().await;
    let (service, run) = collector.span("task process_data").await;
    assert!(service.contains("test-worker"), "{service}");

    let client = TraceContext::parse(CLIENT, None).unwrap();
    for (child, parent) in [
        (&submitted, &client.span_id[..]),
        (&whole, &submitted.span_id[..]),
        (&state, &whole.span_id[..]),
        (&attempt, &state.span_id[..]),
        (&wait, &attempt.span_id[..]),
        (&run, &attempt.span_id[..]),
    ] {
        assert_eq!(child.trace_id, client.trace_id, "{}", child.name);
        assert_eq!(child.parent_span_id, parent, "{}", child.name);
        assert!(child.start_time_unix_nano <= child.end_time_unix_nano, "{}", child.name);
    }
    assert_eq!(
        attempt.span_id,
        span_of_attempt(task_id.parse().unwrap()),
        "the attempt is the one of before"
    );
    // What the handler calls is below its own span.
    let seen = seen.unwrap();
    assert_eq!((seen.trace_id, &seen.span_id[..]), (client.trace_id, &run.span_id[..]));
    let attribute = |span: &Span, key: &str| {
        span.attributes.iter().find(|found| found.key == key).map(|found| format!("{:?}", found.value))
    };
    assert!(attribute(&whole, "avtomatika.job_id").unwrap().contains(job_id));
    assert!(attribute(&run, "avtomatika.job_id").unwrap().contains(job_id));
    assert!(attribute(&whole, "avtomatika.status").unwrap().contains("finished"));
    orchestrator.stop();
}

#[tokio::test]
async fn a_collector_that_is_away_delays_nobody() {
    let dir = tempfile::tempdir().unwrap();
    // Somebody has the port, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let orchestrator = start(dir.path(), 0, Some(&url));
    let (mut told, go_on) = work(&orchestrator.url(), Some(Spans::to("w", &url, Sampler::ALL).unwrap()));
    for _ in 0..20 {
        go_on.notify_one();
        let job = submit(&orchestrator, None, "?wait=50s").await;
        in_time(told.recv()).await.unwrap();
        assert_eq!(job["status"], "finished", "{job}");
    }
    let page = in_time(reqwest::get(format!("{}/_public/metrics", orchestrator.url()))).await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("avtomatika_spans_exported_total 0\n"), "{page}");
    orchestrator.stop();
}

#[tokio::test]
async fn without_spans_a_clients_trace_reaches_the_worker_and_without_a_trace_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let orchestrator = start(dir.path(), 0, None);
    let (mut told, go_on) = work(&orchestrator.url(), None);
    submit(&orchestrator, Some(CLIENT), "").await;
    let (task_id, seen) = in_time(told.recv()).await.unwrap();
    let expected =
        TraceContext::parse(CLIENT, None).unwrap().with_span(span_of_attempt(task_id.parse().unwrap()));
    assert_eq!(seen, Some(expected));
    go_on.notify_one();
    submit(&orchestrator, None, "").await;
    assert_eq!(in_time(told.recv()).await.unwrap().1, None);
    submit(&orchestrator, Some("no trace"), "").await;
    go_on.notify_one();
    assert_eq!(in_time(told.recv()).await.unwrap().1, None);
}
