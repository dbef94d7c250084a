//! `POST /api/v1/jobs?wait=…` over HTTP/1.1: a kept-alive connection for each job in flight.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, task::JoinSet};

use super::{super::tally::Tally, Submission, WAIT, refusal};
use crate::{
    args::Options,
    client::{Bearer, checked_uri},
    failure::Failure,
};

/// A connection that was idle for so long is replaced: the orchestrator closes idle ones after ten seconds, and a request
/// that crosses with that is lost.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// As much of a strange answer as belongs into a message.
const EXCERPT_CHARS: usize = 300;

/// So many connections to one place.
pub(in super::super) struct Callers {
    connections: Vec<Connection>,
    template: Arc<Template>,
}

/// Where to and what, the same for every request.
struct Template {
    url: String,
    authority: String,
    target: Uri,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    body: Bytes,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    used: Instant,
}

impl Callers {
    pub(super) async fn connect(
        options: &Options,
        submission: Submission,
        callers: usize,
    ) -> Result<Self, Failure> {
        let template = Arc::new(Template::new(options, &submission)?);
        let mut connections = Vec::with_capacity(callers);
        for _ in 0..callers {
            connections.push(template.connect().await?);
        }
        Ok(Self { connections, template })
    }

    pub(super) async fn run(&mut self, tally: &Arc<Tally>) {
        let mut callers = JoinSet::new();
        for connection in self.connections.drain(..) {
            callers.spawn(call(connection, Arc::clone(&self.template), Arc::clone(tally)));
        }
        self.connections = callers.join_all().await;
    }
}

async fn call(mut connection: Connection, template: Arc<Template>, tally: Arc<Tally>) -> Connection {
    while let Some(ticket) = tally.next().await {
        match submit(&mut connection, &template).await {
            Ok(Ended { id, is_finished }) => tally.answered(ticket, &id, is_finished),
            Err(failure) => tally.failed(failure),
        }
    }
    connection
}

async fn submit(connection: &mut Connection, template: &Template) -> Result<Ended, Failure> {
    if connection.used.elapsed() > IDLE_MAX {
        *connection = template.connect().await?;
    }
    let lost = |error: hyper::Error| template.unreachable(&error);
    let response = connection.sender.send_request(template.request()).await.map_err(lost)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
    connection.used = Instant::now();
    read(status, &body, &template.url)
}

impl Template {
    fn new(options: &Options, submission: &Submission) -> Result<Self, Failure> {
        let uri: Uri = checked_uri(&options.url)?;
        if uri.scheme_str() == Some("https") {
            return Err(Failure::usage(
                "the load over REST speaks no TLS",
                "measure over gRPC, or at an address in clear text",
            ));
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let bearer = Bearer::from_options(options, &uri)?;
        let host = HeaderValue::try_from(&authority)
            .map_err(|error| Failure::System(format!("{authority} cannot be sent as a host: {error}")))?;
        let target = Uri::try_from(format!("/api/v1/jobs?wait={}s", WAIT.as_secs()))
            .map_err(|error| Failure::System(format!("a path of our own is refused: {error}")))?;
        let body = format!(
            r#"{{"blueprint":{},"initial_data":{}}}"#,
            serde_json::Value::from(submission.blueprint.as_str()),
            submission.initial_data
        );
        Ok(Self {
            url: options.url.clone(),
            authority: match uri.port() {
                Some(_) => authority,
                None => format!("{authority}:80"),
            },
            target,
            host,
            authorization: bearer.header(),
            body: body.into(),
        })
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| self.unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(&error))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        // What ends it is told to whoever sends the next request.
        tokio::spawn(connection);
        Ok(Connection { sender, used: Instant::now() })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.target.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::Unreachable { url: self.url.clone(), why: avtomatika_proto::wire_error::innermost(error) }
    }
}

/// A job that was waited for.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    id: String,
    is_finished: bool,
}

/// What an answer says.
fn read(status: StatusCode, body: &[u8], url: &str) -> Result<Ended, Failure> {
    #[derive(Deserialize)]
    struct Job {
        id: String,
        status: String,
    }
    #[derive(Deserialize)]
    struct Accepted {
        job_id: String,
    }
    #[derive(Deserialize)]
    struct Refused {
        error: String,
        code: String,
        hint: String,
    }
    let strange = |_| {
        let start: String = String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS).collect();
        Failure::NotAnOrchestrator { url: url.to_owned(), why: format!("{status}: {start}") }
    };
    match status {
        StatusCode::OK => serde_json::from_slice(body)
            .map(|Job { id, status }| Ended { id, is_finished: status == "finished" })
            .map_err(strange),
        StatusCode::ACCEPTED => serde_json::from_slice(body)
            .map(|Accepted { job_id }| Ended { id: job_id, is_finished: false })
            .map_err(strange),
        _ => {
            let Refused { error, code, hint } = serde_json::from_slice(body).map_err(strange)?;
            Err(refusal(&code, error, hint, url))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::args::Cli;

    fn told(status: u16, body: &str) -> Result<Ended, String> {
        let status = StatusCode::from_u16(status).unwrap();
        read(status, body.as_bytes(), "http://host").map_err(|failure| failure.to_string())
    }

    #[tokio::test]
    async fn a_connection_that_was_idle_for_long_is_not_relied_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // The first connection is closed unused; the second one is served.
        tokio::spawn(async move {
            drop(listener.accept().await.unwrap());
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            let body = r#"{"id":"x","status":"finished"}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).await.unwrap();
            std::future::pending::<()>().await
        });
        let line = ["avtomatika", "--url", &url, "stats"];
        let options = Cli::read(line).unwrap().options;
        let submission = Submission { blueprint: "b".into(), initial_data: "{}".into() };
        let mut callers = Callers::connect(&options, submission, 1).await.unwrap();
        let connection = &mut callers.connections[0];
        connection.used = Instant::now().checked_sub(2 * IDLE_MAX).expect("a machine that has run for 10 s");
        let ended = submit(connection, &callers.template).await.unwrap();
        assert_eq!(ended, Ended { id: "x".into(), is_finished: true });
        assert!(connection.used.elapsed() < IDLE_MAX);
    }

    #[test]
    fn an_answer_is_a_job_or_a_refusal() {
        let ended = |id: &str, is_finished| Ok(Ended { id: id.to_owned(), is_finished });
        for (status, body, meant) in [
            (200, r#"{"id":"x","current_state":"done","status":"finished"}"#, ended("x", true)),
            (200, r#"{"id":"x","status":"failed"}"#, ended("x", false)),
            (202, r#"{"status":"accepted","job_id":"y"}"#, ended("y", false)),
            (404, r#"{"error":"No x","code":"BLUEPRINT_NOT_FOUND","hint":"h"}"#, Err("No x".to_owned())),
        ] {
            assert_eq!(told(status, body), meant, "{status} {body}");
        }
        for (status, body) in [(200, "<html>"), (502, "<html>"), (200, "{}")] {
            let why = told(status, body).expect_err(body);
            assert!(why.contains("not a matching orchestrator") && why.contains(body), "{why}");
        }
    }
}
