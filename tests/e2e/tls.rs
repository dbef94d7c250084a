//! Encryption: everybody over one port, what is refused, and certificates that are renewed while everything runs.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use avtomatika_cli::Exit;
use avtomatika_orchestrator::tls::{Files, Tls};
use avtomatika_proto::{
    ApiError, ErrorCode,
    v1::{
        Hello, RegisterWorkerRequest, SupportedTask, WorkerMessage, worker_message::Message,
        worker_service_client::WorkerServiceClient,
    },
};
use avtomatika_worker::{
    WorkerBuilder, WorkerError, builtin,
    tls::{Route, TlsFiles},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tonic::{Request, transport::Endpoint};

use crate::stack::{CLIENT_TOKEN, RunningWorker, Stack, WORKER_TOKEN, in_time};

#[path = "../../orchestrator/tests/certificates/mod.rs"]
mod certificates;

use certificates::{Authority, Date, FAR};

const LONG_AGO: Date = (2020, 1, 1);

/// Certificates in a directory, and the authority that signs them.
struct Pki {
    dir: TempDir,
    authority: Authority,
}

impl Pki {
    fn new() -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        fs::write(dir.path().join("ca.pem"), &authority.cert).unwrap();
        Self { dir, authority }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate and its key as files of this name.
    fn issue(&self, file: &str, names: &[&str], until: Date) -> (PathBuf, PathBuf) {
        self.authority.issue(names, until).save(self.dir.path(), file)
    }

    /// The port's files: with a certificate for this machine.
    fn files(&self) -> Files {
        let (cert, key) = self.issue("server", &["localhost", "127.0.0.1"], FAR);
        Files { cert, key, client_ca: None }
    }

    /// An orchestrator that asks workers for certificates of this authority.
    async fn strict(&self) -> Stack {
        encrypted(Files { client_ca: Some(self.ca()), ..self.files() }).await
    }
}

async fn encrypted(files: Files) -> Stack {
    match Tls::open(files) {
        Ok((tls, _)) => Stack::encrypted(tls).await,
        Err(findings) => panic!("{findings:?}"),
    }
}

fn echo(stack: &Stack, pki: &Pki, name: &str) -> WorkerBuilder {
    stack.worker(name).tls_ca(pki.ca()).handler("process_data", builtin::by_name("process_data").unwrap())
}

/// What a line of the command line ends with, and what it says on stderr.
async fn cli(url: &str, ca: Option<&Path>, more: &[&str]) -> (Exit, String) {
    let mut line = vec!["avtomatika", "--url", url, "--token", CLIENT_TOKEN];
    if let Some(ca) = ca {
        line.extend(["--tls-ca", ca.to_str().unwrap()]);
    }
    line.extend(more);
    let said = Said::default();
    let exit = in_time(avtomatika_cli::run_into(line, io::sink(), said.clone())).await;
    (exit, String::from_utf8(said.0.lock().unwrap().clone()).unwrap())
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that speaks HTTP/1.1 within TLS, as curl's is.
async fn connect(stack: &Stack, ca: &Path, protocol: &str) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let address = stack.url.strip_prefix("https://").unwrap();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// One request and its answer: status and JSON. By which name a port with TLS is called is a matter of its certificate.
async fn ask(stream: &mut TlsStream<TcpStream>, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: jobs.example\r\nx-avtomatika-token: {CLIENT_TOKEN}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let (mut head, mut wanted) = (0, usize::MAX);
    while answer.len() < wanted {
        assert_ne!(in_time(stream.read_buf(&mut answer)).await.unwrap(), 0, "the answer broke off");
        let text = String::from_utf8_lossy(&answer);
        if let (0, Some(end)) = (head, text.find("\r\n\r\n")) {
            head = end + 4;
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            wanted = head + length.parse::<usize>().unwrap();
        }
    }
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, serde_json::from_slice(&answer[head..]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_through_over_one_encrypted_port_by_rest_grpc_and_a_worker_with_a_certificate() {
    let pki = Pki::new();
    let stack = pki.strict().await;
    let (cert, key) = pki.issue("w1", &["uri:avtomatika://worker/w1"], FAR);
    let worker = RunningWorker::start(echo(&stack, &pki, "w1").tls_certificate(cert, key)).await;

    let mut rest = connect(&stack, &pki.ca(), "http/1.1").await.unwrap();
    let (status, answer) = ask(&mut rest, "POST", "/api/jobs/test?wait=30s", r#"{"input": "x"}"#).await;
    assert_eq!((status, &answer["status"]), (200, &"finished".into()), "{answer}");

    let id = answer["id"].as_str().unwrap();
    assert_eq!(cli(&stack.url, Some(&pki.ca()), &["get", id]).await, (Exit::Ok, String::new()));
    let by_address = stack.url.replace("localhost", "127.0.0.1");
    assert_eq!(cli(&by_address, Some(&pki.ca()), &["get", id]).await.0, Exit::Ok);
    let refused = connect(&stack, &pki.ca(), "http/1.0").await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_cannot_be_believed_is_not_spoken_to_and_why_is_told() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (cert, key) = pki.issue("server", &["localhost"], FAR);
    let stack = encrypted(Files { cert, key, client_ca: None }).await;
    let (exit, said) = cli(&stack.url, Some(&other.ca()), &["list"]).await;
    assert_eq!(exit, Exit::Unreachable);
    assert!(said.contains("signed by an authority that is not trusted here"), "{said}");
    assert!(said.contains("hint: name the authority's certificate with --tls-ca"), "{said}");
    let (_, said) = cli(&stack.url, None, &["list"]).await;
    assert!(said.contains("not trusted here"), "nor do the authorities of this machine know it: {said}");
    let by_address = stack.url.replace("localhost", "127.0.0.1");
    let (exit, said) = cli(&by_address, Some(&pki.ca()), &["list"]).await;
    assert_eq!(exit, Exit::Unreachable);
    assert!(said.contains("its certificate is for "), "{said}");
    assert!(said.contains("localhost"), "{said}");
    assert!(said.contains("not for 127.0.0.1"), "{said}");
    let (exit, said) = cli(&expired(&pki).await, Some(&pki.ca()), &["list"]).await;
    assert_eq!(exit, Exit::Unreachable);
    assert!(
        said.contains("its certificate has expired\n hint: renew it where the orchestrator runs"),
        "{said}"
    );
}

/// The address of a server that has run for too long: no orchestrator would start with such a certificate.
async fn expired(pki: &Pki) -> String {
    let (cert, key) = pki.issue("expired", &["localhost"], LONG_AGO);
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(cert).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // It is the peer that ends this.
        let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn b34_clear_text_and_tls_where_the_other_is_spoken_are_told_so() {
    let pki = Pki::new();
    let stack = encrypted(pki.files()).await;
    let clear = stack.url.replace("https://", "http://");
    let (exit, said) = cli(&clear, None, &["list"]).await;
    assert_eq!(exit, Exit::Refused, "{said}");
    assert!(said.contains("This port speaks TLS, and the request came in clear text"), "{said}");
    assert!(said.contains("https://"), "{said}");
    let answer = reqwest::get(format!("{clear}/healthz")).await.unwrap();
    assert_eq!(answer.status(), 400);
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(answer["code"], "TLS_REQUIRED");
    let worker = avtomatika_worker::Worker::builder(&clear).token(WORKER_TOKEN).handler("x", builtin::echo());
    let refused = in_time(worker.build().unwrap().run_until(std::future::pending())).await.unwrap_err();
    assert!(refused.to_string().contains("Write https:// instead of http://"), "{refused}");

    let plain = Stack::start().await;
    let (exit, said) = cli(&plain.url.replace("http://", "https://"), None, &["list"]).await;
    assert_eq!(exit, Exit::Unreachable);
    assert!(said.contains("it does not speak TLS\n hint: write http:// instead of https://"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s_23_a_worker_without_a_certificate_or_with_another_ones_is_refused() {
    let pki = Pki::new();
    let stack = pki.strict().await;
    let refused = async |worker: WorkerBuilder| {
        let worker = worker.build().unwrap();
        match in_time(worker.run_until(std::future::pending())).await.unwrap_err() {
            WorkerError::Refused { message, hint, .. } => format!("{message}. {hint}"),
            other => panic!("{other}"),
        }
    };
    let said = refused(echo(&stack, &pki, "w1")).await;
    assert!(said.contains("shows no certificate, and workers need one here"), "{said}");
    assert!(said.contains("--tls-cert and --tls-key"), "{said}");
    let (cert, key) = pki.issue("w2", &["uri:avtomatika://worker/w2"], FAR);
    let said = refused(echo(&stack, &pki, "w1").tls_certificate(&cert, &key)).await;
    assert!(said.contains(r#"The certificate is that of worker "w2", not of "w1""#), "{said}");
    assert!(said.contains("Start the worker as w2"), "{said}");
    let (cert, key) = pki.issue("two", &["w1", "w2"], FAR);
    let said = refused(echo(&stack, &pki, "w1").tls_certificate(&cert, &key)).await;
    assert!(said.contains("The certificate names several workers"), "{said}");
    // A good certificate replaces no token.
    let (cert, key) = pki.issue("w1", &["w1"], FAR);
    let without = echo(&stack, &pki, "w1").token("wrong").tls_certificate(&cert, &key).build().unwrap();
    let error = in_time(without.run_until(std::future::pending())).await.unwrap_err();
    assert!(matches!(error, WorkerError::Unauthenticated { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s_23_a_certificate_of_another_authority_or_one_that_has_expired_opens_no_connection() {
    let (pki, other) = (Pki::new(), Pki::new());
    let stack = pki.strict().await;
    for (cert, key, why) in [
        {
            let (cert, key) = other.issue("foreign", &["w1"], FAR);
            (cert, key, "it does not know the authority that signed our certificate")
        },
        {
            let (cert, key) = pki.issue("expired", &["w1"], LONG_AGO);
            (cert, key, "it says that our certificate has expired")
        },
    ] {
        let own = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap(), "list"];
        let (exit, said) = cli(&stack.url, Some(&pki.ca()), &own).await;
        assert_eq!(exit, Exit::Unreachable, "{said}");
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(cli(&stack.url, Some(&pki.ca()), &["list"]).await.0, Exit::Ok, "clients need none");
}

#[tokio::test(flavor = "multi_thread")]
async fn s_24_a_session_is_not_opened_with_the_certificate_of_another_worker() {
    let pki = Pki::new();
    let stack = pki.strict().await;
    let client = async |name: &str| {
        let (cert, key) = pki.issue(name, &[name], FAR);
        let files = TlsFiles { ca: Some(pki.ca()), cert: Some(cert), key: Some(key) };
        let endpoint = Endpoint::from_shared(stack.url.clone()).unwrap();
        WorkerServiceClient::new(Route::to(&stack.url, files).unwrap().connect(&endpoint).await.unwrap())
    };
    fn authorized<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-worker-token", WORKER_TOKEN.parse().unwrap());
        request
    }
    let (mut own, mut thief) = (client("w1").await, client("w2").await);
    let registration = RegisterWorkerRequest {
        worker_id: "w1".into(),
        supported_tasks: vec![SupportedTask { r#type: "x".into(), ..SupportedTask::default() }],
        max_concurrent_tasks: 1,
        ..RegisterWorkerRequest::default()
    };
    let session_id = own.register_worker(authorized(registration)).await.unwrap().into_inner().session_id;
    let hello =
        WorkerMessage { message: Some(Message::Hello(Hello { session_id, held_task_ids: Vec::new() })) };
    let stream = |hello: &WorkerMessage| {
        let (hello, open) = (tokio_stream::once(hello.clone()), tokio_stream::pending());
        authorized(tokio_stream::StreamExt::chain(hello, open))
    };
    let refused = in_time(thief.task_stream(stream(&hello))).await.unwrap_err();
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::SessionUnknown, "{refused}");
    in_time(own.task_stream(stream(&hello))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_everything_runs_and_a_broken_one_changes_nothing() {
    let (old, new) = (Pki::new(), Pki::new());
    let files = old.files();
    let stack = encrypted(files.clone()).await;
    let worker = RunningWorker::start(echo(&stack, &old, "w1")).await;
    let mut open = connect(&stack, &old.ca(), "http/1.1").await.unwrap();

    fs::write(&files.cert, "-----BEGIN").unwrap();
    let (status, answer) = ask(&mut open, "POST", "/api/reload", "").await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer.to_string().contains("server.pem"), "{answer}");
    assert!(connect(&stack, &old.ca(), "http/1.1").await.is_ok(), "the old one is in force");

    let renewed = new.authority.issue(&["localhost"], FAR);
    renewed.save(files.cert.parent().unwrap(), "server");
    let (status, answer) = ask(&mut open, "POST", "/api/reload", r#"{"dry_run": true}"#).await;
    assert_eq!(status, 200, "{answer}");
    assert!(connect(&stack, &old.ca(), "http/1.1").await.is_ok(), "it was only asked");
    let (status, answer) = ask(&mut open, "POST", "/api/reload", "").await;
    assert_eq!(status, 200, "{answer}");

    assert!(connect(&stack, &old.ca(), "http/1.1").await.is_err(), "new connections meet the new one");
    let mut fresh = connect(&stack, &new.ca(), "http/1.1").await.unwrap();
    // The worker came before, and goes on.
    let (_, answer) = ask(&mut fresh, "POST", "/api/jobs/test?wait=30s", r#"{"input": "x"}"#).await;
    assert_eq!(answer["status"], "finished", "{answer}");
    let (status, _) = ask(&mut open, "GET", "/api/jobs", "").await;
    assert_eq!(status, 200, "and so does what was open");
    worker.stop().await.unwrap();
}
