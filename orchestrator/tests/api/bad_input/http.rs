//! What is wrong with HTTP itself: B10, B11, B20 and B31 to B34, B63 and B64. Most of it never comes as far as a request, so that
//! there is no code of ours in the answer, or none at all; what is told is the status, and that the connection ends.

use std::time::Duration;

use avtomatika_orchestrator::api::limits::{
    FIRST_WORDS_TIMEOUT, FRAME_BYTES_MAX, HEADERS_MAX, HTTP1_BUFFER_BYTES,
};
use tokio::time::Instant;

use super::unharmed;
use crate::{
    frames::{self, END_HEADERS, GET, HEADERS, SETTINGS, WINDOW_UPDATE, frame},
    support::{ALICE, Server, read_to_end},
    wire::goodbye_after,
};

/// The head of a submission that is in order so far.
fn head() -> String {
    format!("POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {ALICE}\r\n")
}

#[tokio::test]
async fn b10_b20_b31_b32_b34_heads_that_cannot_be_meant_end_their_connection() {
    let server = Server::start().await;
    let head = head();
    let many: String = (0..=HEADERS_MAX).map(|n| format!("h{n}: x\r\n")).collect();
    let large = "x".repeat(500 * 1024);
    assert!(large.len() > HTTP1_BUFFER_BYTES);
    for (number, request, status) in [
        ("B10", format!("{head}content-length: 10737418240\r\n\r\n"), "413"),
        ("B10", format!("{head}content-length: -1\r\n\r\n"), "400"),
        ("B10", format!("{head}content-length: 99999999999999999999\r\n\r\n"), "400"),
        ("B20", "ge\u{1}t / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), "400"),
        ("B31", format!("{head}{many}\r\n"), "431"),
        ("B31", format!("{head}h: {large}\r\n\r\n"), "431"),
        ("B31", format!("GET /{large} HTTP/1.1\r\nhost: localhost\r\n\r\n"), "431"),
        ("B32", format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\n{{}}"), "400"),
        ("B32", format!("{head}transfer-encoding: chunked, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"), "400"),
        ("B32", format!("{head}transfer-encoding: gzip\r\n\r\n{{}}"), "400"),
        (
            "B32",
            format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{{}}\r\n0\r\n\r\n"),
            "400",
        ),
        ("B32", format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"), "400"),
        ("B32", "GET /healthz HTTP/1.1\r\nhost: localhost\r\na: b\r\n c\r\n\r\n".to_owned(), "400"),
        ("B32", "GET /healthz HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(), "400"),
        ("B32", "GET /healthz HTTP/1.1\r\nhost: localhost\r\na\u{0}: b\r\n\r\n".to_owned(), "400"),
        ("B34", "GET /healthz\r\n\r\n".to_owned(), "400"),
        ("B34", "GET /healthz HTTP/3.0\r\n\r\n".to_owned(), "400"),
        ("B34", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(), "400"),
        ("B34", "\u{7f}\u{1}\0\0SSH-2.0\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = read_to_end(&mut server.connect(request.as_bytes()).await).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{number} {:?}: {answer}", &request[..request.len().min(150)]);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{number}: one answer, not two: {answer}");
    }
    unharmed(&server).await;
}

/// No field is wrong that somebody could correct: the hint is about the chunks.
#[tokio::test]
async fn b32_a_body_whose_chunks_break_off_is_told_how_chunks_are() {
    let server = Server::start().await;
    for chunks in ["zz\r\n", "2\r\n{}x\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n"] {
        let request = format!("{}transfer-encoding: chunked\r\n\r\n{chunks}", head());
        let answer = read_to_end(&mut server.connect(request.as_bytes()).await).await;
        assert!(answer.contains("the request body broke off before its end"), "{chunks:?}: {answer}");
        assert!(answer.contains("\"hint\":\"Send the body whole, with its length"), "{chunks:?}: {answer}");
    }
    unharmed(&server).await;
}

/// The end of a request is said in two ways, and a proxy in front of us may believe in the other one. What follows is read by nobody.
#[tokio::test]
async fn b32_what_follows_a_request_with_two_ends_is_not_taken_for_another() {
    let server = Server::start().await;
    let (length, chunked) = ("content-length: 2\r\n", "transfer-encoding: chunked\r\n");
    for (n, ends) in [[length, chunked], [chunked, length]].iter().enumerate() {
        let body = "2\r\n{}\r\n0\r\n\r\n";
        let request = format!("{}{}\r\n{body}{}content-length: 2\r\n\r\n{{}}", head(), ends.concat(), head());
        let answer = read_to_end(&mut server.connect(request.as_bytes()).await).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(server.jobs_of(ALICE).await.len(), n + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn b11_b33_b63_whoever_is_too_slow_is_cut_off() {
    let server = Server::start().await;
    let chunked = format!("{}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n", head());
    for (number, said, longest, answered) in [
        ("B11", chunked.as_bytes(), Duration::from_secs(30), "HTTP/1.1 408 "),
        ("B33", &b""[..], FIRST_WORDS_TIMEOUT, ""),
        (
            "B33",
            b"POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-to",
            FIRST_WORDS_TIMEOUT,
            "",
        ),
        ("B63", b"PRI * HTTP/2.0\r\n", FIRST_WORDS_TIMEOUT, ""),
    ] {
        let began = Instant::now();
        let answer = read_to_end(&mut server.connect(said).await).await;
        assert!(answer.starts_with(answered) && !answer.starts_with("HTTP/1.1 2"), "{number}: {answer}");
        let took = began.elapsed();
        assert!(took <= longest + Duration::from_millis(100), "{number}: {took:?}, {answer}");
    }
    unharmed(&server).await;
}

#[tokio::test]
async fn b63_a_call_of_grpc_over_http_1_is_told_to_use_http_2() {
    let server = Server::start().await;
    let request = format!(
        "POST /avtomatika.v1.JobService/ListJobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-avtomatika-token: {ALICE}\r\n\
         content-type: application/grpc\r\ncontent-length: 5\r\n\r\n\0\0\0\0\0"
    );
    let answer = read_to_end(&mut server.connect(request.as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    unharmed(&server).await;
}

#[tokio::test]
async fn b64_frames_that_break_http_2_end_the_connection_with_the_code_of_rfc_9113() {
    const PROTOCOL_ERROR: u32 = 1;
    const FLOW_CONTROL_ERROR: u32 = 3;
    const FRAME_SIZE_ERROR: u32 = 6;
    let server = Server::start().await;
    let setting = |key: u16, value: u32| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat();
    for (what, frame, code) in [
        ("DATA on stream 0", frame(frames::DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, GET), PROTOCOL_ERROR),
        ("an even stream", frame(HEADERS, END_HEADERS, 2, GET), PROTOCOL_ERROR),
        ("DATA on a stream that nobody opened", frame(frames::DATA, 0, 7, b"x"), PROTOCOL_ERROR),
        ("a window that grows by 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        (
            "a window that grows beyond its limit",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            FLOW_CONTROL_ERROR,
        ),
        ("a setting that is neither 0 nor 1", frame(SETTINGS, 0, 0, &setting(2, 2)), PROTOCOL_ERROR),
        ("a frame size that may not be", frame(SETTINGS, 0, 0, &setting(5, 1)), PROTOCOL_ERROR),
        // RFC 9113 has finer words for this one, the PING and the header: of sizes, of compression. h2 has this one.
        ("half a setting", frame(SETTINGS, 0, 0, &[0, 4, 0]), PROTOCOL_ERROR),
        ("a huge frame", frame(frames::DATA, 0, 1, &vec![0; FRAME_BYTES_MAX as usize + 1]), FRAME_SIZE_ERROR),
        ("a PING of 7 bytes", frame(frames::PING, 0, 0, &[0; 7]), PROTOCOL_ERROR),
        ("a header that is in no table", frame(HEADERS, END_HEADERS, 1, &[0xff, 0x80, 0x01]), PROTOCOL_ERROR),
        ("a continuation of nothing", frame(frames::CONTINUATION, END_HEADERS, 1, GET), PROTOCOL_ERROR),
    ] {
        let found = goodbye_after(&server, frame).await;
        assert_eq!(found, Some(code), "B64: {what}");
    }
    unharmed(&server).await;
}
