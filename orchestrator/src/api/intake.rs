//! How much of what is sent may be in memory before anybody has looked into it.
//!
//! A body is read whole, so whoever sends one takes its *turn* first, for as many bytes as are announced, and lets go of it when
//! the payload has been let in by [`Conductor::admit`](crate::conductor::Conductor::admit). Those for whom there is no room wait, and
//! are not read meanwhile: their senders wait with them. Each client has a share, so that what one sends at a time holds up
//! itself and nobody else; what is small does not wait for what is large, and what is tiny waits for nothing. What waits over HTTP/2
//! has filled windows, which costs memory, and holds up its neighbours on the connection: so only so much may wait there, and others are
//! refused for now. It refuses to know what a body says.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avtomatika_proto::{ApiError, ErrorCode, limits::MESSAGE_BYTES_MAX};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::callers::STRANGERS;
use super::limits::{
    BODY_WINDOW_BYTES, INTAKE_LARGE, INTAKE_SMALL, INTAKE_WITHIN, Lane, SMALL_BODY_BYTES, TINY_BODY_BYTES,
    WAITING_BYTES_MAX, WAITING_BYTES_OF_ALL_MAX, WAITING_BYTES_OF_CLIENT_MAX,
};

/// What permits count.
const UNIT_BYTES: usize = 1024;

/// All bodies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Intake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    clients: Mutex<Clients>,
}

/// Those who have a turn, or wait for one.
#[derive(Debug, Default)]
struct Clients {
    by_name: HashMap<Arc<str>, Client>,
    /// Bytes that wait over HTTP/2, of all clients.
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Client {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    turns: usize,
    /// Bytes that wait over HTTP/2, on all connections and on each.
    waiting_bytes: usize,
    waiting_on: HashMap<usize, usize>,
}

/// Where a request came in, in its extensions. Whose it is shows later.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// Where turns are taken.
    pub intake: Intake,
    /// Its connection, if that speaks HTTP/2.
    pub connection: Option<usize>,
}

/// One request's turn. Cheap to clone: whoever lets go of it does so for all. Nothing is taken yet.
#[derive(Debug, Clone)]
pub struct Turn(Arc<Request>);

#[derive(Debug)]
struct Request {
    intake: Intake,
    client: Arc<str>,
    /// Tells connections over HTTP/2 apart; there is none for the others, which hold nothing while they wait.
    connection: Option<usize>,
    taken: Mutex<Option<Taken>>,
}

/// What somebody takes of the intake. Dropped, it is free for others.
#[derive(Debug)]
struct Taken {
    _share: OwnedSemaphorePermit,
    _whole: OwnedSemaphorePermit,
    _entry: Entry,
}

/// That the client is among those who have a turn.
#[derive(Debug)]
struct Entry {
    intake: Intake,
    client: Arc<str>,
}

/// That so much waits on a connection.
struct Waits<'a> {
    entry: &'a Entry,
    connection: usize,
    bytes: usize,
}

impl Default for Intake {
    fn default() -> Self {
        let all = |lane: Lane| Arc::new(Semaphore::new(lane.bytes_max / UNIT_BYTES));
        let (small, large) = (all(INTAKE_SMALL), all(INTAKE_LARGE));
        Self(Arc::new(Shared { small, large, clients: Mutex::default() }))
    }
}

impl Intake {
    /// The turn of a request of this client, over this connection if it speaks HTTP/2.
    pub fn turn(&self, client: Arc<str>, connection: Option<usize>) -> Turn {
        Turn(Arc::new(Request { intake: self.clone(), client, connection, taken: Mutex::new(None) }))
    }

    /// Enters the client among those who have a turn. Returns its share of the lane.
    fn enter(&self, client: &Arc<str>, is_large: bool) -> (Entry, Arc<Semaphore>) {
        let mut clients = self.lock();
        let known = clients.by_name.entry(client.clone()).or_insert_with(|| {
            let share = |lane: Lane| Arc::new(Semaphore::new(lane.of_client_max / UNIT_BYTES));
            let (small, large) = (share(INTAKE_SMALL), share(INTAKE_LARGE));
            Client { small, large, turns: 0, waiting_bytes: 0, waiting_on: HashMap::new() }
        });
        known.turns += 1;
        let share = if is_large { &known.large } else { &known.small };
        (Entry { intake: self.clone(), client: client.clone() }, share.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        // Counts are whole at any time.
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Where this request came in. One that did not come through the port stands alone.
    pub fn of<B>(request: &http::Request<B>) -> Self {
        let alone = || Self { intake: Intake::default(), connection: None };
        request.extensions().get().cloned().unwrap_or_else(alone)
    }

    /// The turn of somebody who came this way.
    pub fn turn(&self, client: Arc<str>) -> Turn {
        self.intake.turn(client, self.connection)
    }
}

impl Turn {
    /// That of the gRPC request with these extensions. One that did not come through the port stands alone.
    pub fn of(extensions: &tonic::Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Intake::default().turn(STRANGERS.into(), None))
    }

    /// The turn of another request of the same sender, over the same connection.
    pub fn another(&self) -> Self {
        self.0.intake.turn(self.0.client.clone(), self.0.connection)
    }

    /// Waits until a body of this size may be read. To be called before it is; once for each turn.
    ///
    /// # Errors
    /// `OVERLOADED` when there is no room within [`INTAKE_WITHIN`], or too much waits already.
    pub async fn take(&self, bytes: usize) -> Result<(), ApiError> {
        self.take_ahead_of(bytes, bytes).await
    }

    /// The same for a message of a stream that has been read, and of which the next may not be: while it waits, the stream's window
    /// fills.
    ///
    /// # Errors
    /// The same.
    pub async fn take_of_stream(&self, bytes: usize) -> Result<(), ApiError> {
        self.take_ahead_of(bytes, BODY_WINDOW_BYTES as usize).await
    }

    /// While it waits, so much may come that is not read.
    async fn take_ahead_of(&self, bytes: usize, unread: usize) -> Result<(), ApiError> {
        if bytes <= TINY_BODY_BYTES {
            return Ok(());
        }
        let Request { intake, client, connection, taken } = &*self.0;
        let is_large = bytes > SMALL_BODY_BYTES;
        let whole = if is_large { &intake.0.large } else { &intake.0.small };
        let (entry, share) = intake.enter(client, is_large);
        let units = bytes.min(MESSAGE_BYTES_MAX).div_ceil(UNIT_BYTES) as u32;
        // The share first: whoever waits for its own holds nothing that others could have.
        let got = match share.clone().try_acquire_many_owned(units) {
            Err(_) => None,
            Ok(share) => match whole.clone().try_acquire_many_owned(units) {
                Ok(whole) => Some((share, whole)),
                // Given back: in line, it is the share that comes first again.
                Err(_) => None,
            },
        };
        let (share, whole) = match got {
            Some(got) => got,
            None => {
                let _waits = connection.map(|connection| entry.wait_on(connection, unread)).transpose()?;
                within(async {
                    Ok((
                        share.acquire_many_owned(units).await?,
                        whole.clone().acquire_many_owned(units).await?,
                    ))
                })
                .await?
            }
        };
        let turn = Taken { _share: share, _whole: whole, _entry: entry };
        *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
        Ok(())
    }

    /// The payload is let in, or nothing is left of it: others may come.
    pub fn let_go(&self) {
        drop(self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

async fn within(
    permits: impl Future<Output = Result<Permits, tokio::sync::AcquireError>>,
) -> Result<Permits, ApiError> {
    match timeout(INTAKE_WITHIN, permits).await {
        Ok(Ok(permits)) => Ok(permits),
        // Nobody closes a semaphore; if somebody did, there would be no room either.
        Ok(Err(_)) | Err(_) => Err(full("no room for the body came within 30 s")),
    }
}

fn full(what: &str) -> ApiError {
    ApiError::new(ErrorCode::Overloaded, format!("Too much is being sent at a time: {what}"))
        .with_hint("Send fewer large payloads at a time, and try again after a short pause.")
}

impl Entry {
    fn wait_on(&self, connection: usize, bytes: usize) -> Result<Waits<'_>, ApiError> {
        let bytes = bytes.min(BODY_WINDOW_BYTES as usize);
        let mut clients = self.intake.lock();
        let of_all = clients.waiting_bytes + bytes;
        let Some(client) = clients.by_name.get_mut(&self.client) else {
            // It is there for as long as its entry is.
            return Err(full("it is not known who sends"));
        };
        let of_client = client.waiting_bytes + bytes;
        let here = client.waiting_on.get(&connection).copied().unwrap_or(0) + bytes;
        if here > WAITING_BYTES_MAX {
            return Err(full("too many bodies wait on this connection"));
        }
        if of_client > WAITING_BYTES_OF_CLIENT_MAX || of_all > WAITING_BYTES_OF_ALL_MAX {
            return Err(full("too many bodies wait"));
        }
        client.waiting_on.insert(connection, here);
        client.waiting_bytes = of_client;
        clients.waiting_bytes = of_all;
        Ok(Waits { entry: self, connection, bytes })
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut clients = self.entry.intake.lock();
        clients.waiting_bytes -= self.bytes;
        let Some(client) = clients.by_name.get_mut(&self.entry.client) else { return };
        client.waiting_bytes -= self.bytes;
        let Some(here) = client.waiting_on.get_mut(&self.connection) else { return };
        *here -= self.bytes;
        if *here == 0 {
            client.waiting_on.remove(&self.connection);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut clients = self.intake.lock();
        let Some(client) = clients.by_name.get_mut(&self.client) else { return };
        client.turns -= 1;
        if client.turns == 0 {
            clients.by_name.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use futures_util::FutureExt as _;

    use super::*;

    const MEGABYTE: usize = 1024 * 1024;

    fn client(number: usize) -> Arc<str> {
        Arc::from(format!("c{number}"))
    }

    async fn taken(intake: &Intake, client: &Arc<str>, bytes: usize) -> Turn {
        let turn = intake.turn(client.clone(), None);
        turn.take(bytes).now_or_never().expect("there is room").unwrap();
        turn
    }

    fn is_empty(intake: &Intake) -> bool {
        let clients = intake.lock();
        clients.by_name.is_empty() && clients.waiting_bytes == 0
    }

    #[tokio::test]
    async fn a_client_waits_for_its_own_and_others_do_not_notice() {
        let intake = Intake::default();
        let (greedy, other) = (client(1), client(2));
        let mut turns = Vec::new();
        for _ in 0..INTAKE_LARGE.of_client_max / MEGABYTE {
            turns.push(taken(&intake, &greedy, MEGABYTE).await);
        }
        let late = intake.turn(greedy.clone(), None);
        let mut late_takes: Pin<Box<_>> = Box::pin(late.take(MEGABYTE));
        assert!(late_takes.as_mut().now_or_never().is_none());
        // What is small has a lane of its own, what is tiny needs none, and another client its share.
        taken(&intake, &greedy, SMALL_BODY_BYTES).await;
        taken(&intake, &greedy, TINY_BODY_BYTES).await;
        taken(&intake, &other, MEGABYTE).await;
        turns[0].clone().let_go();
        late_takes.await.unwrap();
        turns.clear();
        drop(late);
        assert!(is_empty(&intake), "nobody is remembered who has no turn");
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_have_no_more_than_there_is_and_are_refused_in_the_end() {
        let intake = Intake::default();
        let mut turns = Vec::new();
        let clients = INTAKE_LARGE.bytes_max / INTAKE_LARGE.of_client_max;
        for number in 0..clients {
            for _ in 0..INTAKE_LARGE.of_client_max / MESSAGE_BYTES_MAX {
                turns.push(taken(&intake, &client(number), MESSAGE_BYTES_MAX).await);
            }
        }
        let late = intake.turn(client(clients), None);
        let began = tokio::time::Instant::now();
        assert_eq!(late.take(MEGABYTE).await.unwrap_err().code, ErrorCode::Overloaded);
        assert_eq!(began.elapsed(), INTAKE_WITHIN);
        drop((turns, late));
        assert!(is_empty(&intake));
    }

    #[tokio::test]
    async fn over_http_2_so_much_may_wait_on_a_connection_of_a_client_and_in_all() {
        let intake = Intake::default();
        let mut held = Vec::new();
        for number in 0..INTAKE_LARGE.bytes_max / INTAKE_LARGE.of_client_max {
            for _ in 0..INTAKE_LARGE.of_client_max / MESSAGE_BYTES_MAX {
                held.push(taken(&intake, &client(number), MESSAGE_BYTES_MAX).await);
            }
        }
        let on_one = WAITING_BYTES_MAX / BODY_WINDOW_BYTES as usize;
        let connections = WAITING_BYTES_OF_CLIENT_MAX / WAITING_BYTES_MAX;
        let mut turns = Vec::new();
        for number in 0..WAITING_BYTES_OF_ALL_MAX / WAITING_BYTES_OF_CLIENT_MAX {
            for connection in 0..connections {
                turns.extend((0..on_one).map(|_| intake.turn(client(number), Some(connection))));
            }
        }
        let mut waiting: Vec<_> = turns.iter().map(|turn| Box::pin(turn.take(MESSAGE_BYTES_MAX))).collect();
        // One connection after the other, and one client after the other.
        for (number, wait) in waiting.iter_mut().enumerate() {
            assert!(wait.as_mut().now_or_never().is_none());
            if (number + 1).is_multiple_of(on_one) {
                let (connection, client) =
                    (number / on_one % connections, client(number / on_one / connections));
                let late = intake.turn(client, Some(connection));
                let refused = late.take(MEGABYTE).now_or_never().expect("it is full there");
                assert_eq!(refused.unwrap_err().code, ErrorCode::Overloaded);
            }
        }
        for elsewhere in [client(0), client(turns.len())] {
            let late = intake.turn(elsewhere, Some(connections));
            let refused = late.take(MEGABYTE).now_or_never().expect("there is no more for this one");
            assert_eq!(refused.unwrap_err().code, ErrorCode::Overloaded);
        }
        // One that waits no more makes room for the next.
        drop(waiting.pop());
        let late = intake.turn(client(0), Some(0));
        assert!(late.take(MEGABYTE).now_or_never().is_some(), "of this one as much waits as before");
        drop(waiting);
        assert!(pin!(late.take(MEGABYTE)).now_or_never().is_none());
        drop((held, turns, late));
        assert!(is_empty(&intake));
    }
}
