//! What happens before a connection carries requests: the TLS handshake, where the port speaks TLS.
//!
//! Handshakes have a time to come to an end in, and only so many are under way at once: their arithmetic is the most that a
//! stranger can make us do. A peer that speaks clear text is told so, in the protocol that it speaks. It refuses to know what is
//! said once the connection stands.

use std::{io, net::SocketAddr, time::Duration};

use avtomatika_proto::{ApiError, ErrorCode};
use axum::response::Response;
use http::{HeaderValue, Request, header::CONNECTION};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::Status;

use super::{complaints::Complaints, is_grpc};
use crate::{
    api::{
        limits::{HANDSHAKES_MAX, TLS_HANDSHAKE_TIMEOUT},
        reply,
    },
    tls::{Peer, Tls},
};

/// The first byte of a TLS connection: a record of the handshake.
const TLS_RECORD: u8 = 0x16;

/// How long, and for how much, a peer that was turned away is listened to.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// How a connection has come in.
pub(super) enum Arrival {
    /// Encrypted, and we know this much of the peer.
    Encrypted(Box<TlsStream<TcpStream>>, Peer),
    /// In clear text.
    Plain(TcpStream),
}

/// The TLS of the port, and who is in it.
pub(super) struct Doorway {
    tls: Tls,
    room: Semaphore,
    complaints: Complaints,
}

impl Doorway {
    pub(super) fn new(tls: Tls) -> Self {
        Self::with_room(tls, HANDSHAKES_MAX)
    }

    fn with_room(tls: Tls, handshakes_max: usize) -> Self {
        Self { tls, room: Semaphore::new(handshakes_max), complaints: Complaints::default() }
    }

    /// Waits for the peer's first words and shakes hands. `None` when nothing came of it.
    pub(super) async fn receive(&self, stream: TcpStream) -> Option<Arrival> {
        let Ok(_place) = self.room.try_acquire() else {
            self.complaints.say(|| {
                tracing::warn!(limit = HANDSHAKES_MAX, "too many TLS handshakes under way; closing new ones");
            });
            return None;
        };
        let address = stream.peer_addr().ok();
        match timeout(TLS_HANDSHAKE_TIMEOUT, self.greet(stream)).await {
            Ok(Ok(arrival)) => Some(arrival),
            Ok(Err(error)) => self.tell(address, &error),
            Err(_) => {
                tracing::debug!(?address, "a peer did not finish its TLS handshake in time");
                None
            }
        }
    }

    async fn greet(&self, stream: TcpStream) -> io::Result<Arrival> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first != [TLS_RECORD] {
            return Ok(Arrival::Plain(stream));
        }
        let shaking = TlsAcceptor::from(self.tls.config()).accept(stream).into_fallible();
        let stream = match shaking.await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(error);
            }
        };
        let peer = match self.tls.asks_workers() {
            true => Peer::with(stream.get_ref().1.peer_certificates().and_then(<[_]>::first)),
            false => Peer::default(),
        };
        Ok(Arrival::Encrypted(Box::new(stream), peer))
    }

    /// A peer that only looked whether the port is open is none that needs help; one that failed may be.
    fn tell(&self, address: Option<SocketAddr>, error: &io::Error) -> Option<Arrival> {
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            tracing::debug!(?address, %error, "a TLS handshake broke off");
        } else {
            self.complaints.say(|| tracing::warn!(?address, %error, "a TLS handshake has failed"));
        }
        None
    }
}

/// Lets a peer read why it was turned away: a socket that is closed with something unread takes back what was sent last.
async fn linger(mut stream: TcpStream) {
    let last_words = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER, last_words).await;
}

/// The answer to every request in clear text at a port that speaks TLS.
pub(super) fn misled(request: &Request<Incoming>) -> Response {
    let error =
        ApiError::new(ErrorCode::TlsRequired, "This port speaks TLS, and the request came in clear text");
    if is_grpc(request) {
        return Status::from(error).into_http();
    }
    let mut response = reply::error(&error);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::tls::{
        Files,
        testing::{Authority, FAR},
    };

    fn tls() -> Tls {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = Authority::new().issue(&["localhost"], FAR).save(dir.path(), "server");
        let Ok((tls, _)) = Tls::open(Files { cert, key, client_ca: None }) else { panic!("they are good") };
        tls
    }

    #[tokio::test]
    async fn s_08_beyond_the_limit_of_handshakes_a_connection_is_closed_and_one_that_leaves_makes_room() {
        let doorway = Arc::new(Doorway::with_room(tls(), 1));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = async || {
            let mut peer = TcpStream::connect(address).await.unwrap();
            peer.write_all(&[TLS_RECORD]).await.unwrap();
            (peer, listener.accept().await.unwrap().0)
        };
        let (slow, socket) = connect().await;
        let inside = doorway.clone();
        let first = tokio::spawn(async move { inside.receive(socket).await.is_some() });
        while doorway.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let (mut second, socket) = connect().await;
        assert!(doorway.receive(socket).await.is_none());
        // The end, or a reset because its one byte was not read.
        assert!(!matches!(second.read(&mut [0]).await, Ok(1..)));
        drop(slow);
        assert!(!first.await.unwrap());
        assert_eq!(doorway.room.available_permits(), 1);
    }
}
