//! Patience with an end, where nobody else watches the time: [`Patient`] is a socket whose peer has to say its first words and
//! to read what we say; [`Punctual`] is a body that has to have come by a point in time. All other waiting is bounded by HTTP
//! itself: see [`super`].

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use avtomatika_proto::{ApiError, limits::MESSAGE_BYTES_MAX};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tonic::Status;

use crate::api::{
    intake::Turn,
    limits::{BODY_READ_TIMEOUT, FIRST_WORDS_TIMEOUT, TINY_BODY_BYTES, WRITE_TIMEOUT},
    submission::body_timeout,
};

/// The first words of HTTP/2. As long as everything that came is a part of them, the protocol is not known.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The socket.
pub(super) struct Patient<S> {
    socket: S,
    /// While the protocol is not known: how much of the preface has come, and until when the rest must.
    first_words: Option<(usize, Pin<Box<Sleep>>)>,
    /// While the peer takes nothing: until when it must.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(socket: S) -> Self {
        let deadline = tokio::time::sleep_until(Instant::now() + FIRST_WORDS_TIMEOUT);
        Self { socket, first_words: Some((0, Box::pin(deadline))), stuck: None }
    }

    /// Passes on what a write came to, and watches the time while it comes to nothing.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let deadline = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        let Some((known, deadline)) = &mut this.first_words else { return read };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not speak")));
        }
        let words = &buffer.filled()[before..];
        let expected = &PREFACE[*known..];
        let part = words.len().min(expected.len());
        *known += part;
        if words[..part] != expected[..part] || *known == PREFACE.len() {
            this.first_words = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.watch_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, parts);
        this.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        this.watch_write(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// The body of a gRPC call that is no stream: it has its turn before its message is read, which has to come within
/// [`BODY_READ_TIMEOUT`] then.
pub(super) struct Punctual {
    body: Incoming,
    turn: Turn,
    state: State,
    /// Set as soon as there is something to wait for.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// How much is known of the message.
enum State {
    /// What has come of its prefix: whether it is compressed, and its length.
    Prefix(Vec<u8>),
    /// What has come of it, kept until it has its turn.
    Waiting(Bytes, Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>>),
    /// It is to be read.
    Read,
    /// It had no turn. It is let pass by all the same: to break it off would take resets, and a peer that meets many of those loses its
    /// connection.
    Passing(ApiError),
}

/// Of a message in gRPC.
const PREFIX_BYTES: usize = 5;

impl Punctual {
    pub(super) fn new(body: Incoming, turn: Turn) -> Self {
        Self { body, turn, state: State::Prefix(Vec::new()), deadline: None }
    }

    /// What has come is handed on, unless it says that it needs a turn.
    fn look_into(&mut self, data: Bytes) -> Option<Bytes> {
        let State::Prefix(prefix) = &mut self.state else { return Some(data) };
        let more = data.len().min(PREFIX_BYTES - prefix.len());
        prefix.extend_from_slice(&data[..more]);
        let Some(&[_, a, b, c, d]) = prefix.first_chunk() else { return Some(data) };
        let announced = u32::from_be_bytes([a, b, c, d]) as usize;
        // What is too long is refused by whoever decodes it, before it is read.
        if announced <= TINY_BODY_BYTES || announced > MESSAGE_BYTES_MAX {
            self.state = State::Read;
            return Some(data);
        }
        let turn = self.turn.clone();
        self.state = State::Waiting(data, Box::pin(async move { turn.take(announced).await }));
        None
    }
}

impl Body for Punctual {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        loop {
            if let State::Waiting(data, turn) = &mut this.state {
                let taken = ready!(turn.as_mut().poll(cx));
                let data = std::mem::take(data);
                // It is not the peer who kept us waiting.
                this.deadline = None;
                match taken {
                    Ok(()) => {
                        this.state = State::Read;
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Err(error) => this.state = State::Passing(error),
                }
            }
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else { break };
            if let State::Passing(error) = &this.state {
                match frame {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(Some(Err(Status::from(error.clone()).into()))),
                }
            }
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            };
            match frame.into_data() {
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                Ok(data) => {
                    if let Some(data) = this.look_into(data) {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
        }
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(BODY_READ_TIMEOUT)));
        ready!(deadline.as_mut().poll(cx));
        let error = match &this.state {
            State::Passing(error) => error.clone(),
            _ => body_timeout(),
        };
        Poll::Ready(Some(Err(Status::from(error).into())))
    }

    fn is_end_stream(&self) -> bool {
        !matches!(self.state, State::Waiting(..) | State::Passing(_)) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_or_half_a_preface_is_given_up() {
        for words in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
            let (mut peer, socket) = duplex(64);
            peer.write_all(words).await.unwrap();
            let mut heard = Vec::new();
            let error = Patient::new(socket).read_to_end(&mut heard).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(heard, words);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_protocol_is_known_is_left_to_it() {
        for words in [&b"G"[..], b"PRI * HTTP/1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let (mut peer, socket) = duplex(64);
            let mut socket = Patient::new(socket);
            peer.write_all(words).await.unwrap();
            let mut heard = vec![0; words.len()];
            socket.read_exact(&mut heard).await.unwrap();
            let more = tokio::time::timeout(FIRST_WORDS_TIMEOUT * 10, socket.read_u8()).await;
            assert!(more.is_err(), "still waiting, without an end of its own");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (_peer, socket) = duplex(64);
        let error = Patient::new(socket).write_all(&[0; 65]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
