//! One attempt to deliver one message: connect, sign, send, look at the status of the answer.
//!
//! It takes a bounded time, follows no redirect, and reads no body: what a receiver has to say is said by its status.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use tokio::time::timeout;

use super::{
    Setup,
    connect::{Connector, Resolve, Stream, SystemResolver, trusted_roots},
    signature::{Key, sign},
    target::Target,
};
use crate::time::Timestamp;

/// How long it may take to find the receiver and to connect to it.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long an attempt may take as a whole.
pub const POST_WITHIN: Duration = Duration::from_secs(15);

/// Length of the answer's head; a receiver that sends more is not one.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Length of the text that says why an attempt was in vain.
const PROBLEM_BYTES_MAX: usize = 300;

const USER_AGENT: &str = concat!("avtomatika/", env!("CARGO_PKG_VERSION"));

/// What is sent.
#[derive(Debug)]
pub struct Message {
    /// Where to.
    pub url: Arc<str>,
    /// Its name, the same for every attempt.
    pub id: String,
    /// When this attempt is made.
    pub at: Timestamp,
    /// What it says: JSON.
    pub body: Bytes,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The receiver has taken the message, and answered with this status.
    Taken(u16),
    /// It has not.
    Not {
        /// The status of its answer, if it gave one.
        status: Option<u16>,
        /// Why the message does not count as taken.
        problem: Arc<str>,
        /// Whether the receiver wants no more of them.
        is_final: bool,
        /// How long the receiver asks to be left alone.
        retry_after: Option<Duration>,
    },
}

/// Who sends messages.
pub struct Poster {
    keys: Vec<Key>,
    connector: Connector,
    connect_within: Duration,
    post_within: Duration,
}

impl Poster {
    /// With the machine's resolver, and trusting whom the machine trusts.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(setup: &Setup) -> Result<Self, rustls::Error> {
        Self::over(setup, Arc::new(SystemResolver), trusted_roots())
    }

    /// With this resolver, trusting these authorities.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn over(
        setup: &Setup,
        resolver: Arc<dyn Resolve>,
        roots: RootCertStore,
    ) -> Result<Self, rustls::Error> {
        let connector = Connector::new(resolver, setup.allow_private, roots)?;
        let keys = setup.keys.clone();
        Ok(Self { keys, connector, connect_within: CONNECT_WITHIN, post_within: POST_WITHIN })
    }

    /// With other limits than [`CONNECT_WITHIN`] and [`POST_WITHIN`].
    pub fn within(self, connect_within: Duration, post_within: Duration) -> Self {
        Self { connect_within, post_within, ..self }
    }

    /// Makes one attempt.
    pub async fn post(&self, message: Message) -> Answer {
        match timeout(self.post_within, self.attempt(message)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(problem)) => not_taken(None, &problem),
            Err(_) => not_taken(None, &format!("no answer within {} s", self.post_within.as_secs_f32())),
        }
    }

    async fn attempt(&self, message: Message) -> Result<Answer, String> {
        let target = Target::of(&message.url)?;
        let stream = match timeout(self.connect_within, self.connector.connect(&target)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(format!("no connection within {} s", self.connect_within.as_secs_f32())),
        };
        let request = self.request(&target, message)?;
        send(stream, request).await
    }

    fn request(&self, target: &Target, message: Message) -> Result<Request<Full<Bytes>>, String> {
        let timestamp_s = message.at.as_micros().div_euclid(1_000_000);
        Request::post(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-signature", sign(&self.keys, &message.id, timestamp_s, &message.body))
            .header("webhook-id", message.id)
            .header("webhook-timestamp", timestamp_s)
            .body(Full::new(message.body))
            .map_err(|error| format!("the request cannot be written: {error}"))
    }
}

async fn send(stream: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Both in this task, so that nothing of the connection outlives the attempt.
    let mut answer = pin!(sender.send_request(request));
    let answered = tokio::select! {
        answered = &mut answer => answered,
        // Whatever ended it, the request knows.
        _ = connection => answer.await,
    };
    let (head, _) = answered.map_err(broken)?.into_parts();
    Ok(judge(head.status, &head.headers))
}

fn judge(status: StatusCode, headers: &HeaderMap) -> Answer {
    if status.is_success() {
        return Answer::Taken(status.as_u16());
    }
    let follows = if status.is_redirection() { "; redirects are not followed" } else { "" };
    let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    Answer::Not {
        status: Some(status.as_u16()),
        problem: bounded(&format!("the receiver answered {status}{follows}")),
        is_final: status == StatusCode::GONE,
        // The other form, a date, is rare, and the usual pause does as well.
        retry_after: retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs),
    }
}

fn not_taken(status: Option<u16>, problem: &str) -> Answer {
    Answer::Not { status, problem: bounded(problem), is_final: false, retry_after: None }
}

fn bounded(text: &str) -> Arc<str> {
    Arc::from(&text[..text.floor_char_boundary(PROBLEM_BYTES_MAX)])
}
