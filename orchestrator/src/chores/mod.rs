//! What runs by itself, beside the conductor. Each file is one chore. Its `tick` does a bounded piece of work and answers how
//! long the chore rests before the next one, or `None` when the orchestrator stops.
//!
//! A chore decides nothing about jobs: it asks the conductor, as a client would. It refuses to know wire types.

pub mod pruning;
pub mod schedules;
pub mod traces;
pub mod webhooks;

use std::time::Duration;

use tokio::{task::JoinHandle, time};
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

/// Sets the chore to work until `stop`, or until the orchestrator stops. A tick that has begun comes to its end.
pub(crate) fn start(mut chore: impl Chore, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(rest) = chore.tick().await {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = time::sleep(rest) => {}
                () = chore.woken() => {}
            }
        }
    })
}
