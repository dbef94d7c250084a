//! What runs by itself, beside the conductor. Each file is one chore. Its `tick` does a bounded piece of work and answers how
//! long the chore rests before the next one, or `None` when the orchestrator stops.
//!
//! A chore decides nothing about jobs: it asks the conductor, as a client would. It refuses to know wire types. One that panics is
//! never missed in silence: whoever has set it to work learns its name.

pub mod pruning;
pub mod schedules;
pub mod traces;
pub mod webhooks;

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// Work that nobody asks for.
pub trait Chore: Send + 'static {
    /// Does a bounded piece of it. Answers how long to rest before the next one, or `None` when the orchestrator stops.
    fn tick(&mut self) -> impl Future<Output = Option<Duration>> + Send;

    /// Resolves when a rest is to end early.
    fn woken(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Chores at work. Dropping it ends them where they are.
pub(crate) struct AtWork {
    stop: CancellationToken,
    /// Each ends with its name when it has panicked.
    chores: JoinSet<Option<&'static str>>,
}

impl AtWork {
    /// None yet. They are to work until `stop`, or until the orchestrator stops.
    pub fn until(stop: CancellationToken) -> Self {
        Self { stop, chores: JoinSet::new() }
    }

    /// Sets a chore to work. A tick that has begun comes to its end.
    pub fn start(&mut self, name: &'static str, mut chore: impl Chore) {
        let stop = self.stop.clone();
        self.spawn(name, async move {
            while let Some(rest) = chore.tick().await {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = time::sleep(rest) => {}
                    () = chore.woken() => {}
                }
            }
        });
    }

    /// Sets to work what has no ticks, and knows by itself when to stop.
    pub fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        // Nothing that it has is used after a panic.
        let work = AssertUnwindSafe(work).catch_unwind();
        self.chores.spawn(async move { work.await.is_err().then_some(name) });
    }

    /// Waits for one to panic, and names it. One that ends otherwise has learnt that the orchestrator stops. Safe to drop and call again.
    pub async fn panicked(&mut self) -> &'static str {
        while let Some(ended) = self.chores.join_next().await {
            if let Ok(Some(name)) = ended {
                return name;
            }
        }
        std::future::pending().await
    }

    /// Waits until all have ended.
    pub async fn ended(&mut self) {
        while self.chores.join_next().await.is_some() {}
    }
}
