//! What the peer of one connection has asked for and not taken yet.
//!
//! HTTP/2 lets a peer open a thousand streams and take nothing from any of them, while each holds its whole answer in memory.
//! Here answers are handed out in parts, those of one connection have a bounded size together, few are being made at a time, and
//! a peer that takes no part of one for too long is given up. It refuses to know what the answers say.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::Instant,
};

use crate::api::limits::{ANSWER_PART_BYTES, OWED_BYTES_MAX, READS_AT_ONCE, WRITE_TIMEOUT};

/// The answers of one connection.
pub(super) struct Owed {
    state: Mutex<State>,
    taken: Notify,
    readers: Semaphore,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Answers of which a part is ready, and since when the peer has taken none.
    waiting: BTreeMap<u64, Instant>,
    bytes: usize,
}

impl Owed {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), taken: Notify::new(), readers: Semaphore::new(READS_AT_ONCE) }
    }

    /// Waits until the peer has taken enough for one more answer, and then, if it is one to a reader, for its turn: hold it until
    /// the answer is there. How large it is shows only then, so only few may come at a time.
    pub(super) async fn room(&self, is_read: bool) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        let turn = if is_read { self.readers.acquire().await.ok() } else { None };
        loop {
            let taken = self.taken.notified();
            if self.lock().bytes <= OWED_BYTES_MAX {
                return turn;
            }
            taken.await;
        }
    }

    /// Waits until the peer has taken no part of an answer for [`WRITE_TIMEOUT`].
    pub(super) async fn stalled(&self) {
        loop {
            let oldest = self.lock().waiting.values().min().copied();
            // An answer that comes meanwhile cannot be due before.
            let due = oldest.unwrap_or_else(Instant::now) + WRITE_TIMEOUT;
            if oldest.is_some() && due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer, handed out in parts.
pub(super) struct Answer {
    body: Body,
    /// What came out of it and does not fit into one part.
    rest: Bytes,
    owed: Arc<Owed>,
    id: u64,
    /// Its share of what is owed.
    bytes: usize,
}

impl Answer {
    pub(super) fn new(body: Body, owed: Arc<Owed>) -> Self {
        let bytes = usize::try_from(hyper::body::Body::size_hint(&body).lower()).unwrap_or(usize::MAX);
        let mut state = owed.lock();
        let id = state.next;
        state.next += 1;
        state.bytes = state.bytes.saturating_add(bytes);
        state.waiting.insert(id, Instant::now());
        drop(state);
        Self { body, rest: Bytes::new(), owed, id, bytes }
    }

    /// The next part of what is ready.
    fn part(&mut self) -> Bytes {
        let part = self.rest.split_to(self.rest.len().min(ANSWER_PART_BYTES));
        let taken = part.len().min(self.bytes);
        self.bytes -= taken;
        let mut state = self.owed.lock();
        state.bytes -= taken;
        // The last one, too: HTTP/2 may be waiting to be rid of it, and drops us when it is.
        state.waiting.insert(self.id, Instant::now());
        drop(state);
        self.owed.taken.notify_waiters();
        part
    }

    /// Nothing is ready: it is not the peer who keeps us waiting.
    fn rests(&self) {
        self.owed.lock().waiting.remove(&self.id);
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let polled = Pin::new(&mut this.body).poll_frame(cx);
            if !matches!(polled, Poll::Ready(Some(_))) {
                this.rests();
            }
            match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.holds(data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.part()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Answer {
    /// Takes over what the body has given. Of a stream nobody knew before how much that would be.
    fn holds(&mut self, data: Bytes) {
        let unknown = data.len().saturating_sub(self.bytes);
        self.bytes += unknown;
        self.owed.lock().bytes += unknown;
        self.rest = data;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.owed.lock();
        state.bytes -= self.bytes;
        state.waiting.remove(&self.id);
        drop(state);
        self.owed.taken.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{FutureExt as _, stream};
    use http_body_util::BodyExt as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn an_answer_comes_in_parts_and_is_the_same() {
        let owed = Arc::new(Owed::new());
        let text: Bytes = (0..3 * ANSWER_PART_BYTES + 7).map(|n| n as u8).collect();
        let mut answer = Answer::new(Body::from(text.clone()), owed.clone());
        assert_eq!(owed.lock().bytes, text.len());
        let mut all = Vec::new();
        while let Some(frame) = answer.frame().await {
            let part = frame.unwrap().into_data().unwrap();
            assert!(part.len() <= ANSWER_PART_BYTES);
            all.extend(part);
            assert_eq!(owed.lock().bytes, text.len() - all.len());
        }
        assert_eq!(all, text);
        assert!(owed.lock().waiting.is_empty(), "before it is dropped");
    }

    #[tokio::test]
    async fn what_is_dropped_is_owed_no_more_and_makes_room() {
        let owed = Arc::new(Owed::new());
        let large = Answer::new(Body::from(vec![0; OWED_BYTES_MAX + 1]), owed.clone());
        let waits = tokio::spawn({
            let owed = owed.clone();
            async move { owed.room(false).await.is_none() }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(large);
        assert!(waits.await.unwrap());
        assert_eq!(owed.lock().bytes, 0);
    }

    #[tokio::test]
    async fn readers_take_turns_and_others_do_not_wait_for_them() {
        let owed = Owed::new();
        let mut turns = Vec::new();
        for _ in 0..READS_AT_ONCE {
            turns.push(owed.room(true).await.unwrap());
        }
        assert!(owed.room(true).now_or_never().is_none());
        assert!(owed.room(false).now_or_never().is_some());
        turns.pop();
        assert!(owed.room(true).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_no_part_is_noticed_and_one_that_waits_for_us_is_not() {
        let owed = Arc::new(Owed::new());
        let silent = Body::from_stream(stream::pending::<Result<Bytes, axum::Error>>());
        let mut silent = Answer::new(silent, owed.clone());
        assert!(timeout(Duration::from_secs(1), silent.frame()).await.is_err());
        assert!(timeout(10 * WRITE_TIMEOUT, owed.stalled()).await.is_err());
        let mut large = Answer::new(Body::from(vec![0; 2 * ANSWER_PART_BYTES]), owed.clone());
        large.frame().await.unwrap().unwrap();
        let began = Instant::now();
        owed.stalled().await;
        assert!(began.elapsed() <= WRITE_TIMEOUT + Duration::from_millis(10), "{:?}", began.elapsed());
    }
}
