//! From nothing to a welcomed stream: connect, register or resume, say hello.
//!
//! It makes one try. When to try again, and what to do meanwhile, is `connect.rs`'s business.

use std::{error::Error as _, time::Duration};

use avtomatika_proto::{
    ApiError, ErrorCode, limits,
    v1::{
        GoodbyeReason, Hello, OrchestratorMessage, RegisterWorkerRequest, RegisterWorkerResponse, Welcome,
        WorkerMessage, orchestrator_message, worker_message, worker_service_client::WorkerServiceClient,
    },
    wire_error::innermost,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tracing::info;

use crate::{
    WorkerError,
    tls::{Route, Unreached},
};

/// For a TCP connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For an answer to a registration, and for Welcome after Hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2 pings on an otherwise silent connection: they find a dead peer below the level of the stream's own heartbeats.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that wait for the connection to take them. Few: what waits in the outbox instead travels in larger batches.
const OUTGOING_QUEUE: usize = 4;

/// How often each side says something, and for how long it is believed alive without.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keepalive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// One registration.
struct Registration {
    session_id: String,
    worker_id: String,
    keepalive: Keepalive,
}

/// A stream that has been welcomed.
pub(crate) struct Link {
    pub(crate) worker_id: String,
    pub(crate) keepalive: Keepalive,
    pub(crate) welcome: Welcome,
    pub(crate) outgoing: mpsc::Sender<WorkerMessage>,
    pub(crate) incoming: Streaming<OrchestratorMessage>,
}

/// Why a try failed, and what that says about the next one.
#[derive(Debug)]
pub(crate) enum DialError {
    /// Try again with the usual back-off.
    Retry(String),
    /// Try again, but only a person can mend it: as rarely as the back-off allows.
    RetrySlowly(String),
    /// Give up.
    Fatal(WorkerError),
}

/// One of the addresses at which the orchestrator may be.
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) route: Route,
}

/// Opens streams to one orchestrator, at whichever of its addresses it serves. The session is the same at all of them.
pub(crate) struct Dialer {
    /// At least one.
    addresses: Vec<Address>,
    current: usize,
    /// Addresses that were tried in vain since the last stream, or since the last pause.
    tried: usize,
    authorization: MetadataValue<Ascii>,
    request: RegisterWorkerRequest,
    registration: Option<Registration>,
    /// Once the orchestrator has accepted this worker, a refusal is its trouble and not a typing mistake of ours.
    was_accepted: bool,
}

impl Dialer {
    /// There must be an address.
    pub(crate) fn new(
        addresses: Vec<Address>,
        authorization: MetadataValue<Ascii>,
        request: RegisterWorkerRequest,
    ) -> Self {
        let registration = None;
        Self { addresses, current: 0, tried: 0, authorization, request, registration, was_accepted: false }
    }

    /// Where the orchestrator is looked for now.
    pub(crate) fn url(&self) -> &str {
        &self.address().url
    }

    fn address(&self) -> &Address {
        &self.addresses[self.current]
    }

    /// The present address serves nobody: the next try goes to the one after it. Returns whether it has not been tried yet, so that
    /// there is no reason to pause before.
    pub(crate) fn go_on(&mut self) -> bool {
        self.leave();
        self.tried += 1;
        if self.tried < self.addresses.len() {
            return true;
        }
        self.tried = 0;
        false
    }

    /// The orchestrator leaves its present address: the next try goes to the one after it.
    pub(crate) fn leave(&mut self) {
        self.current = (self.current + 1) % self.addresses.len();
    }

    /// The session broke a rule or has ended: the next try registers again.
    pub(crate) fn forget_session(&mut self) {
        self.registration = None;
    }

    /// One try at the present address. Resumes the session if there is one and the orchestrator knows it; registers otherwise.
    pub(crate) async fn dial(&mut self, held: &[String]) -> Result<Link, DialError> {
        let address = self.address();
        let channel = address.route.connect(&address.endpoint).await.map_err(|error| match error {
            Unreached::Silent(_) => DialError::Retry(error.to_string()),
            Unreached::Tls(fault) => {
                DialError::RetrySlowly(format!("cannot talk to the orchestrator at {}: {fault}", address.url))
            }
        })?;
        let mut client = WorkerServiceClient::new(channel)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);

        if let Some(registration) = &self.registration {
            match self.open(&mut client, registration, held).await {
                Err(status) if status.code() == Code::FailedPrecondition => {
                    info!("The orchestrator does not know this session any more; registering again");
                    self.registration = None;
                }
                Ok(link) => {
                    self.tried = 0;
                    return Ok(link);
                }
                Err(status) => return Err(self.judge(&status)),
            }
        }
        let registration = self.register(&mut client).await.map_err(|status| self.judge(&status))?;
        self.was_accepted = true;
        // Who had no name has one from now on.
        self.request.worker_id.clone_from(&registration.worker_id);
        info!(worker = %registration.worker_id, "Worker registered: {} at {}", registration.worker_id, self.url());
        let opened = self.open(&mut client, &registration, held).await;
        // Kept even when the stream failed: an orchestrator that crashed in between still knows the session.
        self.registration = Some(registration);
        let link = opened.map_err(|status| self.judge(&status))?;
        self.tried = 0;
        Ok(link)
    }

    async fn register(&self, client: &mut WorkerServiceClient<Channel>) -> Result<Registration, Status> {
        let request = self.authorized(self.request.clone());
        let response = in_time("RegisterWorker", client.register_worker(request)).await?.into_inner();
        Ok(Registration {
            keepalive: keepalive_of(&response),
            session_id: response.session_id,
            worker_id: response.worker_id,
        })
    }

    async fn open(
        &self,
        client: &mut WorkerServiceClient<Channel>,
        registration: &Registration,
        held: &[String],
    ) -> Result<Link, Status> {
        let (outgoing, queue) = mpsc::channel(OUTGOING_QUEUE);
        let hello = Hello { session_id: registration.session_id.clone(), held_task_ids: held.to_vec() };
        let hello = WorkerMessage { message: Some(worker_message::Message::Hello(hello)) };
        // Never full: the queue is new. Queued before the call, because the orchestrator may answer the call only after it.
        outgoing.try_send(hello).map_err(|error| Status::internal(error.to_string()))?;
        let request = self.authorized(ReceiverStream::new(queue));
        let handshake = async {
            let mut incoming = client.task_stream(request).await?.into_inner();
            let first = incoming.message().await?;
            Ok((incoming, first))
        };
        let (incoming, first) = in_time("TaskStream", handshake).await?;
        let welcome = welcome_of(first)?;
        Ok(Link {
            worker_id: registration.worker_id.clone(),
            keepalive: registration.keepalive,
            welcome,
            outgoing,
            incoming,
        })
    }

    fn authorized<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    fn judge(&self, status: &Status) -> DialError {
        let error = ApiError::from_status(status);
        let Address { url, route, .. } = self.address();
        let url = url.clone();
        match status.code() {
            _ if !self.was_accepted && is_about_certificates(error.code) => {
                DialError::Fatal(WorkerError::Refused {
                    url,
                    message: error.to_string(),
                    hint: error.hint.into_owned(),
                })
            }
            Code::Unauthenticated if self.was_accepted => DialError::RetrySlowly(format!(
                "the orchestrator no longer accepts the worker's credentials: {error}"
            )),
            Code::Unauthenticated => {
                DialError::Fatal(WorkerError::Unauthenticated { url, message: error.to_string() })
            }
            // With PERMISSION_DENIED the token is right: what the worker is called or serves is not what the token is for.
            Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented if !self.was_accepted => {
                DialError::Fatal(WorkerError::Refused {
                    url,
                    message: error.to_string(),
                    hint: error.hint.into_owned(),
                })
            }
            Code::PermissionDenied
            | Code::InvalidArgument
            | Code::Unimplemented
            | Code::ResourceExhausted => DialError::RetrySlowly(format!("{error}. {}", error.hint)),
            _ => match route.fault() {
                Some(fault) => {
                    DialError::RetrySlowly(format!("cannot talk to the orchestrator at {url}: {fault}"))
                }
                None => DialError::Retry(status.source().map_or_else(|| error.to_string(), innermost)),
            },
        }
    }
}

fn is_about_certificates(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::WorkerCertificateRequired | ErrorCode::WorkerCertificateMismatch | ErrorCode::TlsRequired
    )
}

/// The connection's settings, which are the same at every try.
pub(crate) fn endpoint(url: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES);
    Ok(endpoint)
}

async fn in_time<T>(what: &str, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("{what} got no answer within {HANDSHAKE_TIMEOUT:?}"));
    timeout(HANDSHAKE_TIMEOUT, call).await.map_err(late)?
}

fn welcome_of(first: Option<OrchestratorMessage>) -> Result<Welcome, Status> {
    use orchestrator_message::Message;
    match first.and_then(|message| message.message) {
        Some(Message::Welcome(welcome)) => Ok(welcome),
        Some(Message::Goodbye(goodbye)) if goodbye.reason() == GoodbyeReason::ProtocolError => {
            Err(Status::failed_precondition(goodbye.message))
        }
        Some(Message::Goodbye(goodbye)) => Err(Status::unavailable(goodbye.message)),
        _ => Err(Status::internal("the orchestrator did not begin the stream with Welcome")),
    }
}

fn keepalive_of(response: &RegisterWorkerResponse) -> Keepalive {
    let span = |span: Option<prost_types::Duration>, default: Duration| {
        let span = span.and_then(|span| Duration::try_from(span).ok());
        span.filter(|span| !span.is_zero()).unwrap_or(default)
    };
    Keepalive {
        interval: span(response.keepalive_interval, limits::KEEPALIVE_INTERVAL),
        timeout: span(response.keepalive_timeout, limits::KEEPALIVE_TIMEOUT),
    }
}
