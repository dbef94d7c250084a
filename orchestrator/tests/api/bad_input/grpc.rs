//! What is wrong with calls of gRPC: B37 to B49, B51, B52, B61 and B62, and the fields of B04 to B28 as they come here. Frames are
//! written by hand over HTTP/2, so that no library on the way corrects them.

use std::collections::BTreeMap;

use avtomatika_orchestrator::api::limits::INTAKE_LARGE;
use avtomatika_proto::{
    ErrorCode,
    limits::MESSAGE_BYTES_MAX,
    v1::{self, SubmitJobRequest},
};
use bytes::Bytes;
use prost::Message as _;
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::Code;

use super::unharmed;
use crate::{
    frames::{END_HEADERS, END_STREAM, HEADERS, frame, header, hello},
    grpc::{Caller, error},
    support::{ALICE, Server, read_to_end},
};

const SUBMIT: &str = "/avtomatika.v1.JobService/SubmitJob";

/// A connection of HTTP/2, and what moves its frames.
struct Line {
    requests: h2::client::SendRequest<Bytes>,
    moving: JoinHandle<Result<(), h2::Error>>,
    server: String,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.moving.abort();
    }
}

/// A call, as it is written on the wire.
struct Call {
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Call {
    fn of(path: &'static str, body: Vec<u8>) -> Self {
        let headers =
            vec![("content-type", "application/grpc".to_owned()), ("x-avtomatika-token", ALICE.to_owned())];
        Self { path, headers, body }
    }

    fn submitting(body: Vec<u8>) -> Self {
        Self::of(SUBMIT, body)
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A message with its prefix: the flag, and the length that it is said to have.
fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

fn whole(message: &[u8]) -> Vec<u8> {
    framed(0, message.len() as u32, message)
}

impl Line {
    async fn to(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self { requests, moving: tokio::spawn(connection), server: server.url("") }
    }

    /// HTTP's status, gRPC's status and its words.
    async fn answer(&mut self, call: Call) -> (u16, Option<u32>, String) {
        let mut request =
            http::Request::post(format!("{}{}", self.server, call.path)).header("te", "trailers");
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (answer, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        // Whoever is refused early need not take the rest.
        let _ = body.send_data(call.body.into(), true);
        let answer = answer.await.unwrap();
        let (head, mut body) = answer.into_parts();
        while let Some(data) = body.data().await {
            let taken = data.unwrap().len();
            body.flow_control().release_capacity(taken).unwrap();
        }
        let end = match head.headers.contains_key("grpc-status") {
            true => head.headers,
            false => body.trailers().await.unwrap().unwrap_or_default(),
        };
        let text = |name| end.get(name).map(|value: &http::HeaderValue| value.to_str().unwrap().to_owned());
        let status = text("grpc-status").map(|status| status.parse().unwrap());
        (head.status.as_u16(), status, format!("{:?} {:?}", text("grpc-message"), head_of(&end)))
    }
}

/// What else is said of the end of a call.
fn head_of(end: &http::HeaderMap) -> Vec<String> {
    ["avtomatika-error-code", "grpc-accept-encoding"]
        .iter()
        .filter_map(|name| end.get(*name).map(|value| format!("{name}={}", value.to_str().unwrap())))
        .collect()
}

#[tokio::test]
async fn b37_to_b49_messages_that_cannot_be_read() {
    let server = Server::start().await;
    let mut line = Line::to(&server).await;
    let good = SubmitJobRequest { blueprint: "test_workflow".into(), ..Default::default() }.encode_to_vec();
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
    // Of an unknown field, groups in groups: prost follows them to a depth of 100.
    let nested = [[0x83, 0x06].repeat(101), [0x84, 0x06].repeat(101)].concat();
    let code = |code: Code| code as i32 as u32;
    for (number, call, expected, words) in [
        ("B37", Call::of("/avtomatika.v1.JobService/Nothing", whole(&[])), Code::Unimplemented, ""),
        ("B37", Call::of("/avtomatika.v1.Nothing/SubmitJob", whole(&[])), Code::Unimplemented, ""),
        ("B40", Call::submitting(framed(2, 0, &[])), Code::Internal, "flag"),
        ("B40", Call::submitting(framed(255, 0, &[])), Code::Internal, "flag"),
        ("B41", Call::submitting(framed(1, 8, &gzip)), Code::Internal, "compressed"),
        (
            "B42",
            Call::submitting(framed(1, 8, &gzip)).header("grpc-encoding", "snappy"),
            Code::Unimplemented,
            "grpc-accept-encoding=identity",
        ),
        ("B43", Call::submitting(framed(0, u32::MAX, &[])), Code::OutOfRange, "too%20large"),
        (
            "B43",
            Call::submitting(framed(0, MESSAGE_BYTES_MAX as u32 + 1, &[])),
            Code::OutOfRange,
            "too%20large",
        ),
        ("B45", Call::submitting(framed(0, 10, b"abc")), Code::Internal, ""),
        ("B45", Call::submitting(vec![0, 0]), Code::Internal, ""),
        ("B45", Call::submitting(Vec::new()), Code::Internal, ""),
        (
            "B46",
            Call::submitting(framed(1, 8, &gzip)).header("grpc-encoding", "gzip"),
            Code::Unimplemented,
            "grpc-accept-encoding=identity",
        ),
        ("B47", Call::submitting(whole(&[])), Code::InvalidArgument, "blueprint%20is%20missing"),
        ("B48", Call::submitting(whole(&[0xff; 64])), Code::InvalidArgument, "INVALID_ARGUMENT"),
        ("B48", Call::submitting(whole(&[0x08, 0x01])), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (
            "B48",
            Call::submitting(whole(&[0x0a, 0x02, 0xff, 0xfe])),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        ("B48", Call::submitting(whole(&[0x0a, 0x7f])), Code::InvalidArgument, "INVALID_ARGUMENT"),
        ("B49", Call::submitting(whole(&nested)), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (
            "B61",
            Call::submitting(whole(&good)).header("x-avtomatika-token", "\u{e9}"),
            Code::Unauthenticated,
            "INVALID_TOKEN",
        ),
    ] {
        let (status, found, said) = line.answer(call).await;
        assert_eq!((status, found), (200, Some(code(expected))), "{number}: {said}");
        assert!(said.contains(words), "{number}: no {words:?} in {said}");
    }
    unharmed(&server).await;
}

#[tokio::test]
async fn b38_b39_b61_requests_that_are_no_calls_never_reach_a_handler() {
    let server = Server::start().await;
    let mut line = Line::to(&server).await;
    let good = SubmitJobRequest { blueprint: "test_workflow".into(), ..Default::default() }.encode_to_vec();
    for media_type in ["text/plain", "application/json", ""] {
        let call = Call::submitting(whole(&good)).header("content-type", media_type);
        let (status, found, _) = line.answer(call).await;
        assert_eq!((status, found), (415, None), "B38 {media_type:?}");
    }
    // Two tokens: whoever is in front of us might believe in the other one.
    let mut twice = Call::submitting(whole(&good));
    twice.headers.push(("x-avtomatika-token", ALICE.to_owned()));
    let (_, found, said) = line.answer(twice).await;
    assert_eq!(found, Some(Code::Unauthenticated as u32), "B61: {said}");
    drop(line);

    let token = header("x-avtomatika-token", ALICE);
    let grpc = header("content-type", "application/grpc");
    for (number, block) in [
        (
            "B39",
            [&[0x83, 0x86][..], &header(":path", "avtomatika.v1.JobService/SubmitJob"), &grpc, &token]
                .concat(),
        ),
        ("B39", [&[0x83, 0x86][..], &header(":path", ""), &grpc, &token].concat()),
        (
            "B61",
            [&[0x83, 0x86][..], &header(":path", SUBMIT), &grpc, &header("X-Avtomatika-Token", ALICE)]
                .concat(),
        ),
        ("B61", [&[0x83, 0x86][..], &grpc, &token].concat()),
    ] {
        let request = [hello(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)].concat();
        let mut stream = server.connect(&request).await;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("job"), "{number}: {answer:?}");
    }
    unharmed(&server).await;
}

#[tokio::test(start_paused = true)]
async fn b44_a_thousand_messages_of_4_mib_that_are_announced_and_do_not_come() {
    const STREAMS: usize = 1000;
    let server = Server::start().await;
    let line = Line::to(&server).await;
    let mut waiting = Vec::new();
    for _ in 0..STREAMS {
        let mut requests = line.requests.clone().ready().await.unwrap();
        let request = http::Request::post(server.url(SUBMIT)).header("content-type", "application/grpc");
        let request = request.header("x-avtomatika-token", ALICE).body(()).unwrap();
        let (answer, mut body) = requests.send_request(request, false).unwrap();
        body.send_data(framed(0, MESSAGE_BYTES_MAX as u32, &[10]).into(), false).unwrap();
        waiting.push((answer, body));
    }
    assert_eq!(server.get("/healthz").await.status, 200, "the others are served");
    let mut answers = BTreeMap::new();
    for (answer, _body) in waiting {
        let answer = answer.await.unwrap();
        let code = answer.headers()["avtomatika-error-code"].to_str().unwrap().to_owned();
        *answers.entry(code).or_insert(0) += 1;
    }
    // So many were given the memory for what they announced, and the others none.
    let given = INTAKE_LARGE.of_client_max / MESSAGE_BYTES_MAX;
    assert_eq!(answers["OVERLOADED"] + answers["REQUEST_TIMEOUT"], STREAMS, "{answers:?}");
    assert!((given..=2 * given).contains(&answers["REQUEST_TIMEOUT"]), "{answers:?}");
    unharmed(&server).await;
}

#[tokio::test]
async fn b04_to_b28_b51_b52_b62_fields() {
    let server = Server::start().await;
    let caller = Caller::new(&server, ALICE).await;
    let ok = || SubmitJobRequest {
        blueprint: "test_workflow".into(),
        initial_data: "{}".into(),
        ..Default::default()
    };
    let duration = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    let labels = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let data = |text: &str| SubmitJobRequest { initial_data: text.into(), ..ok() };
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    use ErrorCode::{
        BlueprintNotFound, InputInvalid, InvalidArgument, InvalidJson, PayloadTooLarge, WebhooksOff,
    };
    for (number, request, code, words) in [
        ("B02", data("{\"a\":"), InvalidJson, "Invalid JSON body"),
        ("B04", data("[]"), InvalidJson, "Invalid JSON body"),
        (
            "B05",
            SubmitJobRequest { blueprint: String::new(), ..ok() },
            InvalidArgument,
            "blueprint is missing",
        ),
        ("B07", data("{\"a\":1,\"a\":2}"), InvalidJson, "Invalid JSON body"),
        ("B08", data(&deep), InvalidJson, "Invalid JSON body"),
        ("B09", data(&format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20))), PayloadTooLarge, "1048576"),
        ("B14", data("{\"a\":\"\\ud800\"}"), InvalidJson, "Invalid JSON body"),
        ("B16", data("{\"a\":1e400}"), InvalidJson, "Invalid JSON body"),
        (
            "B23",
            SubmitJobRequest { idempotency_key: "k".repeat(300), ..ok() },
            InvalidArgument,
            "idempotency key",
        ),
        (
            "B23",
            SubmitJobRequest { idempotency_key: "a\u{7}".into(), ..ok() },
            InvalidArgument,
            "idempotency key",
        ),
        ("B24", SubmitJobRequest { blueprint: "nope".into(), ..ok() }, BlueprintNotFound, "\"nope\""),
        (
            "B25",
            SubmitJobRequest { blueprint: "checked".into(), ..ok() },
            InputInvalid,
            "\"order\" is a required",
        ),
        (
            "B26",
            SubmitJobRequest { start_at: time(253_402_300_799, 0), ..ok() },
            InvalidArgument,
            "start_at is further",
        ),
        (
            "B26",
            SubmitJobRequest { start_at: time(i64::MAX, 0), ..ok() },
            InvalidArgument,
            "not a valid timestamp",
        ),
        ("B26", SubmitJobRequest { start_at: time(0, -1), ..ok() }, InvalidArgument, "not a valid timestamp"),
        (
            "B26",
            SubmitJobRequest { start_at: time(0, i32::MAX), ..ok() },
            InvalidArgument,
            "not a valid timestamp",
        ),
        (
            "B26",
            SubmitJobRequest { result_timeout: duration(-1, 0), ..ok() },
            InvalidArgument,
            "result_timeout is negative",
        ),
        (
            "B26",
            SubmitJobRequest { dispatch_timeout: duration(0, 0), ..ok() },
            InvalidArgument,
            "dispatch_timeout is 0",
        ),
        (
            "B26",
            SubmitJobRequest { delay: duration(i64::MAX, 0), ..ok() },
            InvalidArgument,
            "delay is longer",
        ),
        (
            "B26",
            SubmitJobRequest { delay: duration(0, 1_000_000_000), ..ok() },
            InvalidArgument,
            "delay is negative or",
        ),
        ("B27", SubmitJobRequest { priority: 300, ..ok() }, InvalidArgument, "priority is 300"),
        ("B27", SubmitJobRequest { labels: labels("a b", "v"), ..ok() }, InvalidArgument, "the label key"),
        (
            "B27",
            SubmitJobRequest { labels: labels("a", "x\u{1b}"), ..ok() },
            InvalidArgument,
            "the value of the label a",
        ),
        ("B28", SubmitJobRequest { webhook_url: "ftp://x".into(), ..ok() }, WebhooksOff, "no secret"),
        (
            "B36",
            SubmitJobRequest { wait: duration(1_000_000_000, 0), ..ok() },
            InvalidArgument,
            "wait is longer",
        ),
    ] {
        let status = caller.jobs().submit_job(caller.request(request)).await.unwrap_err();
        assert_eq!((error(&status), status.code()), (code, code.grpc()), "{number}: {status:?}");
        assert!(status.message().contains(words), "{number}: {status:?}");
    }
    // Numbers that no enum of this version has. None, and 0, is no filter.
    for (number, statuses, good) in
        [("B51", vec![9999], false), ("B51", vec![-1], false), ("B51", vec![0], true)]
    {
        let listed = caller
            .jobs()
            .list_jobs(caller.request(v1::ListJobsRequest { statuses, ..Default::default() }))
            .await;
        assert_eq!(
            listed.map_err(|status| error(&status)).map(drop),
            if good { Ok(()) } else { Err(InvalidArgument) },
            "{number}"
        );
    }
    unharmed(&server).await;

    // A field of a newer peer is passed over, and so is a time that cannot be read. Whoever has none left is not waited for.
    let mut line = Line::to(&server).await;
    let newer = [ok().encode_to_vec(), vec![0xfa, 0x7f, 3, b'n', b'e', b'w']].concat();
    for (number, timeout) in [("B52", "10S"), ("B62", "abc"), ("B62", "-1S"), ("B62", "999999999S")] {
        let (_, found, said) =
            line.answer(Call::submitting(whole(&newer)).header("grpc-timeout", timeout)).await;
        assert_eq!(found, Some(0), "{number} {timeout}: {said}");
    }
    assert_eq!(server.jobs_of(ALICE).await.len(), 4);
}

/// Nobody serves its task, so that it would be waited for until the end of the test.
#[tokio::test]
async fn b62_whoever_has_no_time_left_is_not_waited_for() {
    let server = Server::start().await;
    let mut line = Line::to(&server).await;
    let wait = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let request = SubmitJobRequest {
        blueprint: "test_workflow".into(),
        initial_data: "{}".into(),
        wait,
        ..Default::default()
    };
    let message = whole(&request.encode_to_vec());
    let job_id = {
        let call = Call::submitting(message.clone()).header("grpc-timeout", "50m");
        let (_, found, said) = line.answer(call).await;
        assert_eq!(found, Some(Code::DeadlineExceeded as u32), "{said}");
        assert!(said.contains("DEADLINE_EXCEEDED"), "{said}");
        // It was accepted all the same.
        let jobs = server.jobs_of(ALICE).await;
        assert_eq!(jobs.len(), 1);
        jobs[0].clone()
    };
    let watch = whole(&v1::WatchJobRequest { job_id }.encode_to_vec());
    for call in [
        Call::of("/avtomatika.v1.JobService/WatchJob", watch),
        Call::of("/avtomatika.v1.JobService/SubmitJobs", message),
    ] {
        let path = call.path;
        let (_, found, said) = line.answer(call.header("grpc-timeout", "50m")).await;
        assert_eq!(found, Some(Code::DeadlineExceeded as u32), "{path}: {said}");
    }
}
