//! The port itself: peers that are slow, silent, greedy or hostile, and the order in which it stops. Time is paused where a
//! timeout is waited for: it then passes as soon as nothing else happens.

use std::time::Duration;

use avtomatika_orchestrator::api::limits::{
    HEADER_READ_TIMEOUT, HEADERS_MAX, HTTP1_BUFFER_BYTES, LOCAL_RESETS_MAX, PENDING_RESETS_MAX,
    STRANGER_FAREWELL, STRANGER_TIMEOUT, STREAMS_MAX,
};
use bytes::Bytes;
use tokio::{
    io::AsyncReadExt as _,
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{
    frames::{END_HEADERS, END_STREAM, GET, HEADERS, RST_STREAM, WINDOW_UPDATE, frame, header, hello},
    support::{ALICE, BOB, Server, read_to_end},
};

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_finish_its_first_words_is_given_up() {
    let server = Server::start().await;
    for words in [
        &b""[..],
        b"G",
        b"PRI * HTTP/2.0\r\n",
        b"POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-to",
    ] {
        let mut stream = server.connect(words).await;
        let began = Instant::now();
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("200"), "{answer}");
        // To the millisecond, because nothing but the timer happens.
        assert!(began.elapsed() <= HEADER_READ_TIMEOUT + Duration::from_millis(10), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_another_request_is_closed() {
    let server = Server::start().await;
    let mut stream = server.connect(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_answered_408() {
    let server = Server::start().await;
    let request = format!(
        "POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {ALICE}\r\ncontent-length: 10\r\n\r\n{{\"a\""
    );
    let answer = read_to_end(&mut server.connect(request.as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("did not arrive within 30 seconds"), "{answer}");
}

#[tokio::test]
async fn a_head_beyond_its_limits_is_refused_and_nonsense_is_too() {
    let server = Server::start().await;
    let get = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n";
    let headers = |count: usize| (0..count).map(|n| format!("h{n}: x\r\n")).collect::<String>();
    let large = format!("{get}h: {}\r\n\r\n", "x".repeat(HTTP1_BUFFER_BYTES));
    for (request, status) in [
        (format!("{get}connection: close\r\n{}\r\n", headers(HEADERS_MAX - 2)), "HTTP/1.1 200"),
        (format!("{get}{}\r\n", headers(HEADERS_MAX)), "HTTP/1.1 431"),
        (large, "HTTP/1.1 431"),
        (format!("{get}content-length: 1\r\ncontent-length: 2\r\n\r\n"), "HTTP/1.1 400"),
        ("GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("GET /\u{1}\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(), "HTTP/1.1 400"),
    ] {
        let answer = read_to_end(&mut server.connect(request.as_bytes()).await).await;
        assert!(answer.starts_with(status), "{:?}: {answer}", &request[..request.len().min(60)]);
    }
    assert_eq!(server.get("/healthz").await.status, 200, "and the port is well");
}

#[tokio::test(start_paused = true)]
async fn a_grpc_message_that_stops_coming_is_given_up() {
    let server = Server::start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(server.url("/avtomatika.v1.JobService/SubmitJob"))
        .header("content-type", "application/grpc")
        .header("x-avtomatika-token", ALICE)
        .body(())
        .unwrap();
    let (answer, mut body) = requests.send_request(request, false).unwrap();
    // A message of 4 MiB is announced; one byte of it comes.
    body.send_data(Bytes::from_static(&[0, 0, 0x40, 0, 0, 10]), false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4", "{answer:?}");
    assert_eq!(answer.headers()["avtomatika-error-code"], "REQUEST_TIMEOUT", "{answer:?}");
    connection.abort();
}

#[tokio::test]
async fn rest_is_served_over_http_2_and_the_limit_of_streams_is_announced() {
    let server = Server::start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        let request = http::Request::post(server.url(path)).header("x-avtomatika-token", ALICE);
        request.body(()).unwrap()
    };
    let (answer, mut body) = requests.send_request(request("/api/jobs/test"), false).unwrap();
    body.send_data(Bytes::from_static(b"{}"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 202);
    assert_eq!(requests.current_max_send_streams(), STREAMS_MAX as usize);
    // One chunk over the limit: refused as over HTTP/1.
    let (answer, mut body) = requests.send_request(request("/api/jobs/test"), false).unwrap();
    body.send_data(Bytes::from(vec![b'x'; (1 << 20) + 1]), false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 413);
    drop((requests, body));
    connection.abort();
    assert_eq!(server.jobs_of(ALICE).await.len(), 1);
}

const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Sends frames after a preface, and returns the code with which the peer says goodbye.
pub async fn goodbye_after(server: &Server, frames: Vec<u8>) -> Option<u32> {
    let stream = server.connect(&hello(&[])).await;
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        // The peer closes before it has read everything; that is what is tested.
        let _ = writer.write_all(&frames).await;
        writer
    });
    let mut code = None;
    let mut head = [0; 9];
    while reader.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if reader.read_exact(&mut payload).await.is_err() {
            break;
        }
        if head[3] == GOAWAY {
            code = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
        }
    }
    drop(sending.await);
    code
}

#[tokio::test]
async fn opening_and_resetting_streams_in_a_flood_ends_the_connection() {
    let server = Server::start().await;
    let flood = (0..200 * PENDING_RESETS_MAX as u32).flat_map(|n| {
        let stream = 2 * n + 1;
        // END_HEADERS, with a body to come.
        [frame(HEADERS, 0x4, stream, GET), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    assert_eq!(goodbye_after(&server, flood.collect()).await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn making_us_reset_streams_in_a_flood_ends_the_connection() {
    let server = Server::start().await;
    let flood = (0..10 * LOCAL_RESETS_MAX as u32).flat_map(|n| {
        let stream = 2 * n + 1;
        // A window that grows beyond what it may be is an error of its stream.
        let grow = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [frame(HEADERS, 0x4, stream, GET), grow].concat()
    });
    assert_eq!(goodbye_after(&server, flood.collect()).await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(server.get("/healthz").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_silent_http_2_peer_that_does_not_answer_pings_is_given_up() {
    let server = Server::start().await;
    let began = Instant::now();
    // With a token, for strangers are sent away anyway.
    let path = header(":path", "/api/jobs");
    let known = [&[0x82, 0x86][..], &path, &header("x-avtomatika-token", ALICE)].concat();
    goodbye_after(&server, frame(HEADERS, END_HEADERS | END_STREAM, 1, &known)).await;
    assert!(began.elapsed() > STRANGER_TIMEOUT + STRANGER_FAREWELL, "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// A connection over HTTP/2 whose peer is there, and over which this was asked for.
async fn asked_over_http_2(server: &Server, path: &str, token: &str) -> JoinHandle<Duration> {
    let began = Instant::now();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(async move {
        // However it ends.
        let _ = connection.await;
        began.elapsed()
    });
    let request = http::Request::get(server.url(path)).header("x-avtomatika-token", token).body(()).unwrap();
    let (answer, _) = requests.send_request(request, true).unwrap();
    answer.await.unwrap();
    // With its last handle, a connection ends from this side.
    tokio::spawn(async move {
        let _requests = requests;
        std::future::pending::<()>().await;
    });
    connection
}

#[tokio::test(start_paused = true)]
async fn who_shows_no_good_token_over_http_2_is_sent_away_and_who_has_shown_one_stays() {
    let server = Server::start().await;
    for (path, token) in [("/healthz", ""), ("/_public/metrics", ALICE), ("/api/jobs", "of-nobody")] {
        let stayed = asked_over_http_2(&server, path, token).await.await.unwrap();
        let longest = STRANGER_TIMEOUT + STRANGER_FAREWELL + Duration::from_millis(10);
        assert!(stayed >= STRANGER_TIMEOUT && stayed <= longest, "{path}: {stayed:?}");
    }
    let mut known = asked_over_http_2(&server, "/api/jobs", ALICE).await;
    assert!(timeout(6 * STRANGER_TIMEOUT, &mut known).await.is_err(), "it stays");
}

#[tokio::test]
async fn what_is_under_way_at_a_stop_gets_the_drain_time_and_no_more() {
    let server = Server::start_with(Duration::from_millis(50)).await;
    let request = format!(
        "POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {ALICE}\r\ncontent-length: 10\r\n\r\n"
    );
    // A body that will not come keeps its request under way.
    let mut stuck = server.connect(request.as_bytes()).await;
    assert_eq!(server.get("/healthz").await.status, 200);
    server.stop();
    server.stopped().await;
    assert_eq!(read_to_end(&mut stuck).await, "");
}

/// A message of gRPC on its way: a flag, its length, and itself.
fn framed(message: &impl prost::Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
    frame.extend_from_slice(&body);
    frame.into()
}

/// What is large comes in one at a time, and whoever has its turn must not keep it until somebody takes an answer.
#[tokio::test]
async fn a_bulk_stream_whose_answers_nobody_takes_holds_up_no_other_large_payload() {
    let server = Server::start().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    // So few bytes of answers are taken that not even the first one fits.
    let (requests, connection) =
        h2::client::Builder::new().initial_window_size(4).handshake::<_, Bytes>(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let head = http::Request::post(server.url("/avtomatika.v1.JobService/SubmitJobs"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-avtomatika-token", ALICE);
    let mut requests = requests.ready().await.unwrap();
    let (answer, mut body) = requests.send_request(head.body(()).unwrap(), false).unwrap();
    let large = avtomatika_proto::v1::SubmitJobRequest {
        blueprint: "test_workflow".into(),
        initial_data: format!("{{\"text\":\"{}\"}}", "x".repeat(900_000)),
        ..Default::default()
    };
    for _ in 0..8 {
        body.send_data(framed(&large), false).unwrap();
    }
    let answer = answer.await.unwrap();
    // Then no more of the stream is looked at, wherever it is.
    while server.jobs_of(ALICE).await.is_empty() {}
    let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
    let beside = reqwest::Client::new()
        .post(server.url("/api/jobs/test"))
        .header("x-avtomatika-token", BOB)
        .body(payload)
        .send();
    assert_eq!(beside.await.unwrap().status(), 202);
    drop((answer, body, requests));
    connection.abort();
}
