//! One listener, one accept loop: HTTP/1.1, HTTP/2 and gRPC on one port.
//!
//! The loop is our own because it sets what ready-made servers leave unbounded; each limit stands in [`limits`](super::limits)
//! with its reason. A request goes to gRPC when its content type says so, and to REST otherwise.

use std::{convert::Infallible, future::Future, io, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, ErrorCode, limits::CONNECTION_WINDOW_BYTES, wire_error::CODE_KEY};
use axum::{body::Body, response::Response};
use futures_util::FutureExt;
use http::{
    HeaderValue, Method, Request, Version,
    header::{CONNECTION, CONTENT_TYPE, TRANSFER_ENCODING},
};
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, service::Routes};
use tower::Service as _;

use super::{
    Inside,
    callers::{Call, CameFrom, Visitor},
    grpc::{Gate, is_stream_of_answers, is_stream_of_requests},
    intake::Line,
    limits::{
        BODY_WINDOW_BYTES, CONNECTION_AGE, CONNECTIONS_MAX, FIRST_WORDS_TIMEOUT, FRAME_BYTES_MAX,
        HEADER_LIST_BYTES_MAX, HEADER_READ_TIMEOUT, HEADERS_MAX, HTTP1_BUFFER_BYTES, LOCAL_RESETS_MAX,
        PENDING_RESETS_MAX, PING_INTERVAL, PING_TIMEOUT, SEND_BUFFER_BYTES, STRANGER_FAREWELL,
        STRANGER_TIMEOUT, STREAMS_MAX, TLS_HANDSHAKE_TIMEOUT,
    },
    reply, rest,
    strangers::{Acquaintance, Strangers},
};
use crate::{
    tls::{Peer, Tls},
    trust::Standing,
};

mod addressee;
mod complaints;
mod doorway;
mod owed;
mod patience;
mod porch;
mod until;

use addressee::{elsewhere, is_this_machine};
use complaints::Complaints;
use doorway::{Arrival, Doorway, misled};
use owed::{Answer, Owed};
use patience::{Patient, Punctual};
use porch::{Newcomer, Porch};
use until::Until;

/// Pause after the system could not give us another connection (usually: no files left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that is served at the port. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    inside: Arc<Inside>,
    grpc: axum::Router,
    connections_max: usize,
    porch: Porch,
    strangers: Strangers,
    doorway: Option<Arc<Doorway>>,
    /// Whether requests are answered only that are addressed to this machine.
    is_private: bool,
}

impl Api {
    /// Serves REST itself, and these gRPC services: `grpc::routes(&inside)` and what was added to them.
    pub fn new(inside: Arc<Inside>, grpc: Routes) -> Self {
        let grpc = grpc.prepare().into_axum_router();
        let connections_max = CONNECTIONS_MAX;
        let (porch, strangers) = (Porch::new(), Strangers::new());
        Self { inside, grpc, connections_max, porch, strangers, doorway: None, is_private: false }
    }

    /// Speaks TLS, and nothing else.
    pub fn encrypted(self, tls: Tls) -> Self {
        Self { doorway: Some(Arc::new(Doorway::new(tls))), ..self }
    }
}

/// Serves the port until `shutdown`, then takes no more connections and requests, lets those under way end, and cuts off what is
/// left when `cut` is given.
pub async fn serve(listener: TcpListener, api: Api, shutdown: CancellationToken, cut: CancellationToken) {
    // Where nobody else can come, only this machine can be meant. With TLS, a browser has our certificate for the name that it means.
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let api = Api { is_private: is_local && api.doorway.is_none(), ..api };
    let connections = TaskTracker::new();
    let builder = Arc::new(builder());
    let room = Arc::new(Semaphore::new(api.connections_max));
    let complaints = Complaints::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                complaints.say(|| tracing::error!(%error, "cannot accept connections; trying again"));
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            api.inside.metrics.connection_refused();
            complaints.say(|| {
                tracing::warn!(limit = api.connections_max, "too many connections; closing new ones")
            });
            continue;
        };
        let Some(acquaintance) = api.strangers.take_in(from) else {
            api.inside.metrics.connection_refused();
            complaints.say(|| {
                tracing::warn!(%from, "too many connections of one address without a good token; closing new ones")
            });
            continue;
        };
        let peer = (stream, from, acquaintance);
        let connection = connection(builder.clone(), peer, api.clone(), shutdown.clone(), cut.clone());
        connections.spawn(connection.map(|()| drop(place)));
    }
    drop(listener);
    connections.close();
    let ended = cut.run_until_cancelled(connections.wait()).await;
    if ended.is_none() {
        tracing::warn!(connections = connections.len(), "the drain time is over; cutting the rest off");
        connections.wait().await;
    }
}

/// Serves one connection to its end.
async fn connection(
    builder: Arc<Builder<TokioExecutor>>,
    (stream, from, acquaintance): (TcpStream, IpAddr, Acquaintance),
    api: Api,
    shutdown: CancellationToken,
    cut: CancellationToken,
) {
    // Answers are small and wanted at once. A socket that cannot be told so works anyway.
    let _ = stream.set_nodelay(true);
    let patience = if api.doorway.is_some() { TLS_HANDSHAKE_TIMEOUT } else { FIRST_WORDS_TIMEOUT };
    let received = tokio::select! {
        received = api.porch.receive(&stream, patience) => received,
        () = shutdown.cancelled() => None,
    };
    let Some(newcomer) = received else { return };
    let requests = Requests {
        api,
        peer: Peer::default(),
        from,
        owed: Arc::new(Owed::new()),
        newcomer: newcomer.clone(),
        acquaintance,
    };
    let mut served = std::pin::pin!(attend(&builder, stream, requests, &shutdown, &cut));
    tokio::select! {
        () = served.as_mut() => {}
        () = newcomer.is_late() => served.await,
    }
}

/// Shakes hands where that is the custom, then answers.
async fn attend(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    requests: Requests,
    shutdown: &CancellationToken,
    cut: &CancellationToken,
) {
    let (owed, acquaintance) = (requests.owed.clone(), requests.acquaintance.clone());
    let with = (&*owed, &acquaintance);
    let Some(doorway) = requests.api.doorway.clone() else {
        return converse(builder, stream, requests, with, shutdown, cut).await;
    };
    let arrival = tokio::select! {
        arrival = doorway.receive(stream) => arrival,
        () = shutdown.cancelled() => None,
    };
    match arrival {
        None => {}
        Some(Arrival::Encrypted(stream, peer)) => {
            let requests = Requests { peer, ..requests };
            converse(builder, *stream, requests, with, shutdown, cut).await;
        }
        Some(Arrival::Plain(stream)) => {
            let misled = Misled { owed: owed.clone() };
            // Long enough for the one answer that there is.
            let told = converse(builder, stream, misled, with, shutdown, cut);
            let _ = tokio::time::timeout(FIRST_WORDS_TIMEOUT, told).await;
        }
    }
}

/// Answers what comes over one connection until its end, or until it is told to stop.
async fn converse<I, S>(
    builder: &Builder<TokioExecutor>,
    stream: I,
    service: S,
    (owed, acquaintance): (&Owed, &Acquaintance),
    shutdown: &CancellationToken,
    cut: &CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = http::Response<Answer>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let io = TokioIo::new(Patient::new(stream));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let mut stalled = std::pin::pin!(owed.stalled());
    let mut is_stranger = false;
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = tokio::time::sleep(CONNECTION_AGE) => None,
        () = acquaintance.is_not_made_within(STRANGER_TIMEOUT) => {
            is_stranger = true;
            None
        }
        () = stalled.as_mut() => return tracing::debug!("a peer does not take what it asked for"),
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = stalled => Ok(()),
                () = cut.cancelled() => Ok(()),
                () = acquaintance.is_not_made_within(STRANGER_FAREWELL), if is_stranger => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        // The peer's doing: a broken request, a time that ran out, a connection that broke off.
        tracing::debug!(%error, "a connection ended badly");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(BODY_WINDOW_BYTES)
        // An adaptive window would shrink the budget of small frames: see CONNECTION_WINDOW_BYTES.
        .adaptive_window(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Whether only the connection that was about to come is lost, and not the ability to accept.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The requests of one connection.
struct Requests {
    api: Api,
    peer: Peer,
    owed: Arc<Owed>,
    from: IpAddr,
    newcomer: Newcomer,
    acquaintance: Acquaintance,
}

impl Service<Request<Incoming>> for Requests {
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (inside, owed, from) = (self.api.inside.clone(), self.owed.clone(), self.from);
        let newcomer = self.newcomer.clone();
        let is_read = is_read(&request);
        let is_astray = self.api.is_private && !is_this_machine(&request);
        // It lives as long as its requests do, so its address tells it from others.
        let connection = (request.version() == Version::HTTP_2).then(|| Arc::as_ptr(&owed).addr());
        if request.version() < Version::HTTP_2 {
            self.acquaintance.speaks_http_1();
        }
        request.extensions_mut().insert(self.acquaintance.clone());
        request.extensions_mut().insert(Line { intake: inside.intake.clone(), connection });
        match is_grpc(&request) {
            true => {
                request.extensions_mut().insert(self.peer.clone());
                let routes = self.api.grpc.clone();
                Box::pin(async move {
                    let _turn = owed.room(is_read).await;
                    let response = grpc(inside, routes, from, is_astray, request).await?;
                    newcomer.is_through();
                    Ok(response.map(|body| Answer::new(body, owed.clone())))
                })
            }
            false => Box::pin(async move {
                let _turn = owed.room(is_read).await;
                let response = match is_framed_oddly(&request) {
                    true => framed_oddly(),
                    false if is_astray => reply::error(&elsewhere()),
                    false => rest::answer(&inside, from, request).await,
                };
                newcomer.is_through();
                inside.metrics.http_request(response.status().as_u16());
                if let Some(code) = response.extensions().get::<ErrorCode>() {
                    inside.metrics.request_refused(*code);
                }
                Ok(response.map(|body| Answer::new(body, owed.clone())))
            }),
        }
    }
}

/// Whether the body is wrapped in more than chunks. The library takes the chunks off and leaves the rest; what stands in front of us might
/// take it for something else, and find another end of the request.
fn is_framed_oddly(request: &Request<Incoming>) -> bool {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    codings.next().is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.next().is_some()
}

fn framed_oddly() -> Response {
    let text = "The transfer-encoding of the request is not \"chunked\" alone";
    let error = ApiError::new(ErrorCode::InvalidArgument, text)
        .with_hint("Send the body in chunks, or with its length.");
    let mut response = reply::error(&error);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The requests of a connection in clear text where none should be.
struct Misled {
    owed: Arc<Owed>,
}

impl Service<Request<Incoming>> for Misled {
    type Response = http::Response<Answer>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(misled(&request).map(|body| Answer::new(body, self.owed.clone()))))
    }
}

/// Whether the answer may be large and comes at once; one that is waited for must not keep others waiting.
fn is_read(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    match is_grpc(request) {
        true => path
            .rsplit('/')
            .next()
            .is_some_and(|method| ["Get", "List", "Explain"].iter().any(|word| method.starts_with(word))),
        false => request.method() == Method::GET && !path.ends_with("/events"),
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let media_type = request.headers().get(CONTENT_TYPE);
    media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"application/grpc"))
}

async fn grpc(
    inside: Arc<Inside>,
    mut routes: axum::Router,
    from: IpAddr,
    is_astray: bool,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let uri = request.uri().clone();
    let call = Call { from, method: "", path: uri.path() };
    let admitted = match is_astray {
        true => Err(elsewhere().into()),
        false => Gate::admit(&inside.auth, &mut request),
    };
    let response = match admitted {
        Ok(visitor) => {
            let deadline = until::deadline(request.headers());
            let line = Line::of(&request);
            let turn = line.turn(visitor.name());
            request.extensions_mut().insert(turn.clone());
            request.extensions_mut().insert(CameFrom(from));
            let called = async {
                match is_stream_of_requests(call.path) {
                    true => routes.call(request).await,
                    false => routes.call(request.map(|body| Punctual::new(body, turn.clone()))).await,
                }
            };
            let response = match deadline {
                None => called.await?,
                // Whoever has stopped waiting is no reason to wait.
                Some(at) => match timeout_at(at, called).await {
                    Ok(response) => response?,
                    Err(_) => Status::from(until::too_late()).into_http(),
                },
            };
            let response = unreadable(response);
            let code = response.headers().get(CODE_KEY).and_then(|code| code.to_str().ok());
            call.answered(&inside.audit, &inside.auth, &visitor, code);
            bounded(response, &visitor, call.path, deadline)
        }
        Err(unwelcome) => Status::from(call.turned_away(&inside.audit, &inside.auth, unwelcome)).into_http(),
    };
    // An error without a message stands in the head; a stream that began well counts as well.
    let status = response.headers().get(Status::GRPC_STATUS);
    inside.metrics.grpc_request(status.map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes())));
    let code = response.headers().get(CODE_KEY).and_then(|code| ErrorCode::from_name(code.to_str().ok()?));
    if let Some(code) = code {
        inside.metrics.request_refused(code);
    }
    Ok(response)
}

/// A message that cannot be read is the caller's fault, while the codec calls it one of ours (INTERNAL).
fn unreadable(response: Response) -> Response {
    let headers = response.headers();
    let internal = headers
        .get(Status::GRPC_STATUS)
        .is_some_and(|status| Code::from_bytes(status.as_bytes()) == Code::Internal);
    if !internal || headers.contains_key(CODE_KEY) {
        return response;
    }
    match Status::from_header_map(headers) {
        Some(status) if status.message().starts_with(OF_THE_CODEC) => {
            let found = status.message()[OF_THE_CODEC.len()..].trim_start_matches([':', ' ']);
            let text = format!("The message cannot be read: {found}");
            let error = ApiError::new(ErrorCode::InvalidArgument, text);
            Status::from(error.with_hint("Send the message that the method takes: see the .proto files."))
                .into_http()
        }
        _ => response,
    }
}

/// How prost begins to say that a message is none. A test (B48) tells when it says so in other words.
const OF_THE_CODEC: &str = "failed to decode Protobuf message";

/// A stream ends when its token is withdrawn, or when its caller's time is over. What is no stream was asked for while the token was
/// good, and has its answer.
fn bounded(response: Response, visitor: &Visitor, path: &str, deadline: Option<Instant>) -> Response {
    if !is_stream_of_answers(path) {
        return response;
    }
    let withdrawn = visitor.standing().map(Standing::withdrawn);
    let end = async move {
        tokio::select! {
            () = or_never(withdrawn) => Standing::farewell(),
            () = or_never(deadline.map(sleep_until)) => until::too_late(),
        }
    };
    response.map(|body| Body::new(Until::new(body, end)))
}

async fn or_never(end: Option<impl Future<Output = ()>>) {
    match end {
        Some(end) => end.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinHandle,
    };

    use super::*;
    use crate::{
        api::{Auth, Intake, Readiness, Secret, grpc::routes},
        audit::Audit,
        blueprint::Registry,
        conductor::{self, Limits, Settings},
        metrics::Metrics,
        reload::Reload,
        store::memory::MemoryStore,
        time::SystemClock,
    };

    const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

    async fn start(connections_max: usize) -> (SocketAddr, Arc<Metrics>, CancellationToken, JoinHandle<()>) {
        start_with(connections_max, Strangers::new()).await
    }

    async fn start_with(
        connections_max: usize,
        strangers: Strangers,
    ) -> (SocketAddr, Arc<Metrics>, CancellationToken, JoinHandle<()>) {
        let metrics = Arc::new(Metrics::new());
        let settings = Settings {
            limits: Limits { max_open_jobs: 1, max_workers: 1, resident_bytes_max: 0 },
            adoption_window: Duration::ZERO,
            webhooks: None,
            entropy_seed: [0; 32],
        };
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(SystemClock::new());
        let running =
            conductor::start(store, clock, Arc::new(Registry::default()), settings, metrics.clone()).unwrap();
        let token = Secret::new("t");
        let inside = Arc::new(Inside {
            reload: Reload::new(running.conductor.clone()),
            conductor: running.conductor,
            schedules: crate::schedule::Schedules::default(),
            auth: Arc::new(Auth::new([("c", &token)], [])),
            metrics: metrics.clone(),
            readiness: Readiness::default(),
            tracing: crate::api::Tracing::default(),
            audit: Audit::to_log(),
            intake: Intake::default(),
        });
        let grpc = routes(&inside);
        let api = Api { connections_max, strangers, ..Api::new(inside, grpc) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, api, shutdown.clone(), CancellationToken::new()));
        (address, metrics, shutdown, serving)
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    async fn is_answered(stream: &mut TcpStream) -> bool {
        let mut first = [0; 8];
        stream.write_all(PROBE).await.is_ok() && stream.read_exact(&mut first).await.is_ok()
    }

    #[tokio::test]
    async fn beyond_the_limit_a_connection_is_closed_at_once_and_the_others_go_on() {
        let (address, metrics, ..) = start(2).await;
        let (mut first, mut second) = (connect(address).await, connect(address).await);
        assert!(is_answered(&mut first).await && is_answered(&mut second).await);
        assert!(!is_answered(&mut connect(address).await).await, "the third one");
        assert!(is_answered(&mut first).await && is_answered(&mut second).await);
        assert!(metrics.render().contains("avtomatika_connections_refused_total 1\n"));
        drop(first);
        // Its place is free as soon as its end was noticed.
        while !is_answered(&mut connect(address).await).await {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn beyond_so_many_strangers_of_one_address_a_connection_is_closed_and_whoever_is_known_makes_room()
    {
        let (address, metrics, ..) = start_with(CONNECTIONS_MAX, Strangers::with_ours(2)).await;
        let (mut first, mut second) = (connect(address).await, connect(address).await);
        assert!(is_answered(&mut first).await && is_answered(&mut second).await);
        assert!(!is_answered(&mut connect(address).await).await, "the third one");
        assert!(metrics.render().contains("avtomatika_connections_refused_total 1\n"));
        let asked = b"GET /api/jobs HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: t\r\n\r\n";
        second.write_all(asked).await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("\"jobs\"") {
            assert_ne!(second.read_buf(&mut answer).await.unwrap(), 0);
        }
        let mut third = connect(address).await;
        assert!(is_answered(&mut third).await, "the second one is no stranger any more");
        assert!(!is_answered(&mut connect(address).await).await, "the fourth one");
        assert!(is_answered(&mut first).await);
    }

    #[tokio::test]
    async fn a_stop_closes_idle_connections_and_the_port_without_waiting() {
        let (address, _, shutdown, serving) = start(2).await;
        let mut idle = connect(address).await;
        assert!(is_answered(&mut idle).await);
        shutdown.cancel();
        serving.await.unwrap();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
