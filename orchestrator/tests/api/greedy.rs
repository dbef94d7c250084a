//! Peers that ask for more than they may, or take less than they asked for: each meets a limit with a name.

use std::time::Duration;

use avtomatika_orchestrator::api::limits::{CONNECTION_AGE, HEADER_LIST_BYTES_MAX, WRITE_TIMEOUT};
use avtomatika_proto::{
    limits::{MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX},
    v1::{
        Hello, RegisterWorkerRequest, SupportedTask, WorkerMessage, worker_message::Message,
        worker_service_client::WorkerServiceClient,
    },
};
use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tonic::Request;

use crate::support::{ALICE, Server, WORKER};

/// A hundred times what may be.
const BOMB_BYTES: usize = 100 * 1024 * 1024;

/// A connection of HTTP/2 on which the peer sends at most so much of each answer unasked.
async fn connect(server: &Server, window: u32) -> (SendRequest<Bytes>, Connection<TcpStream, Bytes>) {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).handshake(stream).await.unwrap()
}

fn grpc(server: &Server, path: &str) -> http::request::Builder {
    http::Request::post(server.url(path)).header("content-type", "application/grpc").header("te", "trailers")
}

/// A message as gRPC frames it, said to be so long.
fn framed(message: &[u8], length: usize) -> Bytes {
    let mut frame = vec![0];
    frame.extend((length as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

#[tokio::test]
async fn f32_a_result_of_100_mb_is_refused_before_4_mb_of_it_were_read() {
    let server = Server::start().await;
    let session_id = register(&server).await;
    let (requests, connection) = connect(&server, 65_535).await;
    let connection = tokio::spawn(connection);
    let request = grpc(&server, "/avtomatika.v1.WorkerService/TaskStream").header("x-worker-token", WORKER);
    let mut requests = requests.ready().await.unwrap();
    let (answer, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    let hello = Message::Hello(Hello { session_id, held_task_ids: Vec::new() });
    let hello = WorkerMessage { message: Some(hello) }.encode_to_vec();
    body.send_data(framed(&hello, hello.len()), false).unwrap();
    let mut incoming = answer.await.unwrap().into_body();
    body.send_data(framed(&[], BOMB_BYTES), false).unwrap();
    let mut sent = 0;
    while sent < BOMB_BYTES {
        body.reserve_capacity(64 * 1024);
        match std::future::poll_fn(|cx| body.poll_capacity(cx)).await {
            Some(Ok(room)) if body.send_data(vec![b'x'; room].into(), false).is_ok() => sent += room,
            // The stream is gone.
            _ => break,
        }
    }
    assert!(sent <= MESSAGE_BYTES_MAX, "{sent} bytes were taken");
    // What was said before comes to an end as well, rather than go on as if nothing had been.
    while let Some(Ok(_)) = incoming.data().await {}
    assert_eq!(server.get("/healthz").await.status, 200);
    connection.abort();
}

async fn register(server: &Server) -> String {
    let mut client = WorkerServiceClient::connect(server.url("")).await.unwrap();
    let mut request = Request::new(RegisterWorkerRequest {
        worker_id: "bomber".into(),
        supported_tasks: vec![SupportedTask { r#type: "process_data".into(), ..Default::default() }],
        max_concurrent_tasks: 1,
        ..RegisterWorkerRequest::default()
    });
    request.metadata_mut().insert("x-worker-token", WORKER.parse().unwrap());
    client.register_worker(request).await.unwrap().into_inner().session_id
}

#[tokio::test]
async fn b10_a_body_of_100_mb_is_refused_announced_or_not() {
    let server = Server::start().await;
    let head = format!("POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {ALICE}\r\n");
    let mut announced =
        server.connect(format!("{head}content-length: {BOMB_BYTES}\r\n\r\n").as_bytes()).await;
    let mut first = [0; 12];
    announced.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 413", "before a byte of it came");

    let stream = server.connect(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await;
    let (mut answer, mut request) = stream.into_split();
    let chunk = [format!("{PAYLOAD_BYTES_MAX:x}\r\n").into_bytes(), vec![b' '; PAYLOAD_BYTES_MAX]].concat();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while sent < BOMB_BYTES && request.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
            if request.write_all(b"\r\n").await.is_err() {
                break;
            }
        }
        sent
    });
    answer.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
    drop(answer);
    let sent = sending.await.unwrap();
    assert!(sent < BOMB_BYTES / 2, "{sent} bytes were taken, by us and by the system");
}

#[tokio::test]
async fn b61_metadata_beyond_its_limit_is_answered_431() {
    let server = Server::start().await;
    let (mut requests, connection) = connect(&server, 65_535).await;
    let connection = tokio::spawn(connection);
    let large = "l".repeat(HEADER_LIST_BYTES_MAX as usize);
    let request = http::Request::get(server.url("/healthz")).header("x-large", large).body(()).unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 431);
    connection.abort();
}

#[tokio::test]
async fn s_10_a_compressed_message_is_refused_and_not_unpacked() {
    let server = Server::start().await;
    let (mut requests, connection) = connect(&server, 65_535).await;
    let connection = tokio::spawn(connection);
    let request = grpc(&server, "/avtomatika.v1.JobService/SubmitJob")
        .header("x-avtomatika-token", ALICE)
        .header("grpc-encoding", "gzip");
    let (answer, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(&[1, 0, 0, 0, 4, 0x1f, 0x8b, 8, 0]), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12", "UNIMPLEMENTED: {answer:?}");
    connection.abort();
}

#[tokio::test(start_paused = true)]
async fn s_07_a_peer_that_asks_and_takes_nothing_is_given_up() {
    let server = Server::start().await;
    let (mut requests, mut connection) = connect(&server, 0).await;
    let request = http::Request::get(server.url("/api/jobs")).header("x-avtomatika-token", ALICE);
    let (answer, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
    let began = Instant::now();
    let answer = tokio::select! {
        answer = answer => answer.unwrap(),
        ended = &mut connection => panic!("{ended:?}"),
    };
    // Reset or closed: it ends, although the peer answers to pings.
    let _ = timeout(10 * WRITE_TIMEOUT, connection).await.expect("it ends");
    assert!(began.elapsed() <= WRITE_TIMEOUT + Duration::from_secs(1), "{:?}", began.elapsed());
    drop(answer);
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_great_age_is_asked_to_come_again_and_what_is_under_way_on_it_goes_on() {
    let server = Server::start().await;
    let id = server.post("/api/jobs/test", "{}").await.text("job_id");
    let began = Instant::now();
    let (mut idle, mut connection) = connect(&server, 65_535).await;
    // Strangers do not grow old.
    let request = http::Request::get(server.url("/api/jobs")).header("x-avtomatika-token", ALICE);
    let (answer, _) = idle.send_request(request.body(()).unwrap(), true).unwrap();
    tokio::select! {
        answer = answer => drop(answer.unwrap()),
        ended = &mut connection => panic!("{ended:?}"),
    }
    let (mut busy, mut watched) = connect(&server, 65_535).await;
    let request = http::Request::get(server.url(&format!("/api/jobs/{id}/events")));
    let request = request.header("x-avtomatika-token", ALICE).body(()).unwrap();
    let (answer, _) = busy.send_request(request, true).unwrap();
    let watch = tokio::spawn(async move {
        let mut body = answer.await.unwrap().into_body();
        // Signs of life; the job does not change.
        while let Some(Ok(part)) = body.data().await {
            body.flow_control().release_capacity(part.len()).unwrap();
        }
    });
    tokio::select! {
        ended = connection => ended.unwrap(),
        ended = &mut watched => panic!("a watch was cut off: {ended:?}"),
    }
    let age = began.elapsed();
    assert!(age >= CONNECTION_AGE && age < CONNECTION_AGE + Duration::from_secs(30), "{age:?}");
    // Soon after, the other one would have gone, too.
    assert!(timeout(Duration::from_secs(60), &mut watched).await.is_err());
    assert!(!watch.is_finished());
    drop(idle);
}
