//! Connections that have just come, and what they may take of the machine together.
//!
//! A connection's first moments (the TLS handshake, the greetings of HTTP/2, a worker's Hello) cost as much as dozens of requests.
//! When thousands come at once, everybody else would wait behind all of them. So only a few are at it at a time, in the order of
//! their first words; whoever has not spoken yet costs nothing and keeps nobody waiting. A place is free again with the first
//! answer, or soon in any case: it is the far end that such a connection waits for then. It refuses to know what is asked and
//! answered.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use crate::api::limits::NEWCOMERS_MAX;

/// How long a newcomer that is not through keeps its place. Together with [`NEWCOMERS_MAX`]: 3,200 newcomers a second get in even
/// if the way to each of them is long.
const PLACE_KEPT: Duration = Duration::from_millis(20);

/// The places of newcomers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Porch(Arc<Semaphore>);

/// A connection that has not had its first answer. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Newcomer(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Porch {
    pub(super) fn new() -> Self {
        Self::with_room(NEWCOMERS_MAX)
    }

    fn with_room(newcomers_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(newcomers_max)))
    }

    /// Waits for the peer's first words, at most so long, and for a place. `None` when no words come.
    pub(super) async fn receive(&self, stream: &TcpStream, patience: Duration) -> Option<Newcomer> {
        timeout(patience, stream.readable()).await.ok()?.ok()?;
        // Never closed.
        let place = self.0.clone().acquire_owned().await.ok()?;
        Some(Newcomer(Arc::new(Mutex::new(Some(place)))))
    }
}

impl Newcomer {
    /// It is through: its place is for the next one.
    pub(super) fn is_through(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Gives its place up when it has had it for long enough.
    pub(super) async fn is_late(&self) {
        sleep(PLACE_KEPT).await;
        self.is_through();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::api::limits::FIRST_WORDS_TIMEOUT;

    /// Both ends of a connection.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (peer, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn newcomers_wait_for_each_other_in_the_order_of_their_first_words() {
        let porch = Porch::with_room(1);
        let (_silent, silent) = connection().await;
        let silent = tokio::spawn({
            let porch = porch.clone();
            async move { porch.receive(&silent, FIRST_WORDS_TIMEOUT).await.is_some() }
        });
        let ((mut first, inside), (mut second, waits)) = (connection().await, connection().await);
        first.write_all(b"x").await.unwrap();
        let first =
            porch.receive(&inside, FIRST_WORDS_TIMEOUT).await.expect("the silent one is in nobody's way");
        second.write_all(b"x").await.unwrap();
        waits.readable().await.unwrap();
        let mut second = Box::pin(porch.receive(&waits, FIRST_WORDS_TIMEOUT));
        assert!(second.as_mut().now_or_never().is_none(), "the place is taken");
        first.is_through();
        let second = second.await.expect("it has spoken");
        assert_eq!(porch.0.available_permits(), 0);
        second.is_late().await;
        assert_eq!(porch.0.available_permits(), 1, "whoever takes long keeps nobody waiting");
        silent.abort();
    }
}
