//! The catalogue of bad input: docs/bad-input.md has a row for each thing that may be wrong with what is sent to the port, and
//! these tables send it. A row has the number of the catalogue, so that whoever looks for one finds it. Whatever it is, the answer has
//! its status and its code, says what was found, and nothing is stored.

mod grpc;
mod http;
mod rest;
mod stream;

use tokio::io::AsyncWriteExt as _;

use crate::support::{ALICE, Answer, Server, read_to_end};

/// How much of what was sent may stand in an answer, with everything else that it says.
const ANSWER_BYTES_MAX: usize = 4096;

/// What is sent over HTTP.
#[derive(Clone)]
struct Sent {
    method: &'static str,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Sent {
    fn new(method: &'static str, path: impl Into<String>) -> Self {
        let headers = vec![("x-avtomatika-token".to_owned(), ALICE.into())];
        Self { method, path: path.into(), headers, body: Vec::new() }
    }

    fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same without a token, or with another.
    fn stranger(self) -> Self {
        Self { headers: Vec::new(), ..self }
    }

    /// Sends it byte for byte on a connection of its own: no library on the way corrects what is wrong on purpose.
    async fn to(&self, server: &Server) -> Answer {
        let head =
            format!("{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", self.method, self.path);
        let mut request = head.into_bytes();
        for (name, value) in &self.headers {
            request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        request.extend(format!("content-length: {}\r\n\r\n", self.body.len()).into_bytes());
        request.extend(&self.body);
        let mut stream = server.connect(b"").await;
        // Whoever is refused may see the connection close before everything is sent.
        let _ = stream.write_all(&request).await;
        parsed(&read_to_end(&mut stream).await)
    }
}

fn get(path: impl Into<String>) -> Sent {
    Sent::new("GET", path)
}

fn post(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Sent {
    Sent::new("POST", path).body(body)
}

fn parsed(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no answer of HTTP/1: {text:?}"));
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Answer { status, headers, body: body.to_owned() }
}

/// A row: its number, what is sent, and the status, the code and words of the answer.
type Row = (&'static str, Sent, u16, &'static str, &'static str);

/// Sends every row. Each is refused as it says, in JSON, without an echo that is long or can command a terminal.
async fn refuses(server: &Server, rows: impl IntoIterator<Item = Row>) {
    for (number, sent, status, code, words) in rows {
        let answer = sent.to(server).await;
        let said = format!("{number} {} {:.80}: {answer:?}", sent.method, sent.path);
        assert_eq!((answer.status, answer.text("code").as_str()), (status, code), "{said}");
        let (error, hint) = (answer.error(), answer.text("hint"));
        assert!(error.contains(words) || hint.contains(words), "no {words:?} in {said}");
        assert!(!hint.is_empty(), "{said}");
        assert!(answer.body.len() <= ANSWER_BYTES_MAX, "{said}");
        assert!(!error.chars().chain(hint.chars()).any(char::is_control), "{said}");
        assert_eq!(answer.header("content-type"), "application/json; charset=utf-8", "{said}");
    }
}

/// Nothing of all that has left a trace, and the port is well.
async fn unharmed(server: &Server) {
    assert!(server.jobs_of(ALICE).await.is_empty(), "something was stored");
    assert_eq!(server.get("/healthz").await.status, 200);
}
