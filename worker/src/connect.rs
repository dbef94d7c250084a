//! The worker's life on its own thread: dial, run the stream, and again, until it is asked to stop.
//!
//! Handlers run on, time out and finish while there is no stream; their results wait.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{spans::Spans, v1::WorkerState};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    WorkerError,
    backoff::{Backoff, random},
    dial::{DialError, Dialer, Link},
    drain::Drain,
    runner::{Handlers, Runner},
    session::{Session, StreamEnd},
};

/// Between tries to reach the orchestrator: soon enough for a restart to be felt as a hiccup, and rarely enough when it is gone for
/// long. Where there are many workers the orchestrator asks for longer pauses: see [`Backoff::spread_over`].
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_CAP: Duration = Duration::from_secs(2);

/// How a worker stands with its orchestrator, for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// No stream now.
    Apart,
    /// Welcomed under this name.
    Connected(Arc<str>),
    /// Never again.
    Stopped,
}

/// Everything the thread needs.
pub(crate) struct Connection {
    pub(crate) dialer: Dialer,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) handlers_run_on: Handle,
    pub(crate) slots: u32,
    pub(crate) shutdown: CancellationToken,
    pub(crate) drain_timeout: Duration,
    pub(crate) spans: Option<Spans>,
    pub(crate) status: Arc<watch::Sender<Status>>,
    pub(crate) state: Arc<watch::Sender<WorkerState>>,
}

impl Connection {
    /// Runs until the worker is asked to stop and has, or cannot go on.
    pub(crate) async fn run(mut self) -> Result<(), WorkerError> {
        let mut runner =
            Runner::new(Arc::clone(&self.handlers), self.handlers_run_on.clone(), self.spans.clone());
        let mut drain = Drain::new(self.shutdown.clone(), self.drain_timeout);
        let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_CAP);
        loop {
            let held = runner.held.ids();
            let Some(dialled) = meanwhile(&mut runner, &mut drain, self.dialer.dial(&held)).await else {
                break;
            };
            let pause = match dialled {
                Ok(link) => {
                    backoff.reset();
                    if self.serve(link, &mut runner, &mut drain, &mut backoff).await? == Next::Stop {
                        break;
                    }
                    backoff.next(random())
                }
                Err(DialError::Fatal(error)) => return Err(error),
                Err(DialError::Retry(why)) => {
                    let why = format!("Cannot reach the orchestrator at {}: {why}", self.dialer.url());
                    if self.dialer.go_on() {
                        warn!("{why}; trying {}", self.dialer.url());
                        continue;
                    }
                    let pause = backoff.next(random());
                    warn!("{why}; trying again in {pause:.0?}");
                    pause
                }
                Err(DialError::RetrySlowly(why)) => {
                    if self.dialer.go_on() {
                        error!("{why}; trying {}", self.dialer.url());
                        continue;
                    }
                    error!("{why}; trying again in {RECONNECT_CAP:?}");
                    RECONNECT_CAP
                }
            };
            let pause = tokio::time::sleep(pause);
            if meanwhile(&mut runner, &mut drain, pause).await.is_none() {
                break;
            }
        }
        if runner.held.unacknowledged() > 0 {
            warn!("{} results were not acknowledged and are lost", runner.held.unacknowledged());
        }
        info!("Worker stopped");
        Ok(())
    }

    async fn serve(
        &mut self,
        link: Link,
        runner: &mut Runner,
        drain: &mut Drain,
        backoff: &mut Backoff,
    ) -> Result<Next, WorkerError> {
        let worker_id: Arc<str> = Arc::from(link.worker_id.as_str());
        runner.resume(&worker_id, &link.welcome);
        info!("Task stream open; {} slots, {} tasks held", self.slots, runner.held.ids().len());
        self.status.send_replace(Status::Connected(Arc::clone(&worker_id)));
        let end = Session::new(link, runner, drain, backoff, self.slots, self.state.subscribe()).run().await;
        self.status.send_replace(Status::Apart);
        match end {
            StreamEnd::Drained => return Ok(Next::Stop),
            StreamEnd::Replaced => return Err(WorkerError::Replaced { worker_id: worker_id.to_string() }),
            StreamEnd::Lost(why) => warn!("Task stream lost: {why}; {} tasks run on", runner.held.running()),
            StreamEnd::Stopped(why) => {
                warn!("The orchestrator has stopped: {why}; {} tasks run on", runner.held.running());
                self.dialer.leave();
            }
            StreamEnd::ProtocolError(why) => {
                error!("The orchestrator ended the stream because a rule was broken: {why}");
                self.dialer.forget_session();
            }
        }
        Ok(Next::Reconnect)
    }
}

#[derive(PartialEq)]
enum Next {
    Reconnect,
    Stop,
}

/// Waits for `what` while attempts end and the drain goes on. `None` when the drain is over before.
async fn meanwhile<T>(runner: &mut Runner, drain: &mut Drain, what: impl Future<Output = T>) -> Option<T> {
    let mut what = std::pin::pin!(what);
    loop {
        let now = Instant::now();
        runner.advance(now);
        if drain.advance(runner, now) {
            return None;
        }
        let deadline = [runner.deadline(), drain.deadline()].into_iter().flatten().min();
        tokio::select! {
            done = &mut what => return Some(done),
            () = runner.collect() => {}
            () = drain.begins() => {}
            () = until(deadline) => {}
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
