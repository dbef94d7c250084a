//! A receiver of webhooks, as anybody could write one: an HTTP server that keeps what came and answers as it is told, and a
//! verification that shares no code with the signing.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_rustls::TlsAcceptor;

/// Longest wait for a message that must come; far beyond what it takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a receiver does with a message.
#[derive(Clone)]
pub enum Reply {
    /// Answers with this status.
    Status(u16),
    /// Sends the sender elsewhere.
    Redirect(String),
    /// Reads, and says nothing.
    Never,
    /// Answers well, when the test says so.
    AfterSignal,
    /// Hangs up.
    Close,
    /// Answers with something that is not HTTP.
    Garbage,
}

/// What came.
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn signatures(&self) -> Vec<String> {
        self.header("webhook-signature").split(' ').map(str::to_owned).collect()
    }

    /// The signature that this message must have, computed by the book (RFC 2104).
    pub fn expected_signature(&self, secret: &str) -> String {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let signed =
            format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body);
        let padded = |pad: u8| {
            let mut block = [pad; 64];
            key.iter().zip(&mut block).for_each(|(byte, place)| *place ^= byte);
            block
        };
        let inner = Sha256::new().chain_update(padded(0x36)).chain_update(signed).finalize();
        let outer = Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize();
        format!("v1,{}", STANDARD.encode(outer))
    }
}

struct Script {
    next: VecDeque<Reply>,
    then: Reply,
}

pub struct Receiver {
    authority: String,
    script: Arc<Mutex<Script>>,
    signal: Arc<Notify>,
    received: mpsc::UnboundedReceiver<Received>,
}

impl Receiver {
    /// Listens on a free port of this machine, and answers 200.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same for encrypted connections.
    pub async fn start_tls(config: ServerConfig) -> Self {
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Mutex::new(Script { next: VecDeque::new(), then: Reply::Status(200) }));
        let signal = Arc::new(Notify::new());
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(listen(listener, tls, sender, script.clone(), signal.clone()));
        Self { authority, script, signal, received }
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    /// To the next message, this.
    pub fn answer(&self, reply: Reply) {
        self.script.lock().unwrap().next.push_back(reply);
    }

    /// To every further message, this.
    pub fn answer_always(&self, reply: Reply) {
        self.script.lock().unwrap().then = reply;
    }

    /// Lets one [`Reply::AfterSignal`] go.
    pub fn signal(&self) {
        self.signal.notify_one();
    }

    /// The next message.
    pub async fn next(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.received.recv()).await.expect("a message comes").unwrap()
    }

    /// Everything that was sent and answered has been looked at.
    pub fn assert_nothing_came(&mut self) {
        assert!(self.received.try_recv().is_err(), "a message came");
    }
}

async fn listen(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    sender: mpsc::UnboundedSender<Received>,
    script: Arc<Mutex<Script>>,
    signal: Arc<Notify>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let reply = {
            let mut script = script.lock().unwrap();
            script.next.pop_front().unwrap_or_else(|| script.then.clone())
        };
        let (tls, sender, signal) = (tls.clone(), sender.clone(), signal.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, reply, sender, signal).await,
                // Who does not trust us goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, reply, sender, signal).await;
                    }
                }
            }
        });
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    reply: Reply,
    sender: mpsc::UnboundedSender<Received>,
    signal: Arc<Notify>,
) {
    if matches!(reply, Reply::Garbage) {
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        return;
    }
    let service = service_fn(|request: http::Request<Incoming>| {
        let (sender, reply, signal) = (sender.clone(), reply.clone(), signal.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let received = Received {
                method: head.method.to_string(),
                path: head.uri.to_string(),
                headers: head.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            };
            let _ = sender.send(received);
            answer(reply, &signal).await
        }
    });
    // A sender that goes away is no matter here, and neither is one that was sent away.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(reply: Reply, signal: &Notify) -> io::Result<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"thanks")));
    match reply {
        Reply::Status(status) => *response.status_mut() = StatusCode::from_u16(status).unwrap(),
        Reply::Redirect(to) => {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert("location", to.parse().unwrap());
        }
        Reply::AfterSignal => signal.notified().await,
        Reply::Never => std::future::pending().await,
        Reply::Close | Reply::Garbage => return Err(io::Error::other("hangs up")),
    }
    Ok(response)
}
