//! The worker of a benchmark: the SDK's own, with a handler that notes what it was given and returns at once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avtomatika_proto::{JobId, TaskId, outcome};
use avtomatika_worker::{
    Handler, HandlerFuture, TaskContext, TaskOutcome, Worker, WorkerError, tls::TlsFiles,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use crate::failure::Failure;

/// Starts of tasks that are kept for the comparison with the orchestrator's history.
const SAMPLES_MAX: usize = 10_000;

/// How long the worker may take to register.
const REGISTERED_WITHIN: Duration = Duration::from_secs(10);

/// What a task returns.
const RESULT: &str = r#"{"done":true}"#;

/// Where a worker works, and as whom.
pub(super) struct Place<'a> {
    pub(super) url: &'a str,
    pub(super) tls: TlsFiles,
    pub(super) token: &'a str,
    pub(super) task_type: &'a str,
    pub(super) slots: u32,
}

/// A worker in this process.
pub(super) struct BenchWorker {
    stop: CancellationToken,
    worked: JoinHandle<Result<(), WorkerError>>,
}

impl BenchWorker {
    /// Starts it and waits until it gets tasks.
    pub(super) async fn start(
        place: Place<'_>,
        ledger: Arc<Ledger>,
        samples: Arc<Samples>,
    ) -> Result<Self, Failure> {
        let worker = Worker::builder(place.url)
            .tls_files(place.tls)
            .token(place.token)
            .worker_type("bench")
            .slots(place.slots)
            // Its tasks return at once. What is left to wait for is an acknowledgement, and none comes of an orchestrator that has died.
            .drain_timeout(Duration::ZERO)
            .handler(place.task_type, Arc::new(AtOnce { ledger, samples }))
            .build()
            .map_err(|error| {
                Failure::usage(error.to_string(), "check --url, --task-type and --worker-token")
            })?;
        let mut handle = worker.handle();
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let worked = tokio::spawn(worker.run_until(async move { asked.cancelled().await }));
        let started = Self { stop, worked };
        match tokio::time::timeout(REGISTERED_WITHIN, handle.registered()).await {
            Ok(Some(_)) => Ok(started),
            Ok(None) => Err(match started.worked.await {
                Ok(Err(error)) => Failure::usage(
                    format!("the worker of the benchmark was refused: {error}"),
                    "give the worker's token with --worker-token or AVTOMATIKA_WORKER_TOKEN",
                ),
                _ => Failure::System("the worker of the benchmark has stopped".to_owned()),
            }),
            Err(_) => Err(Failure::NoAnswer { url: place.url.to_owned(), waited: REGISTERED_WITHIN }),
        }
    }

    /// Lets it finish what it has.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // Whatever it ended with: every job has been answered, or the audit says which has not.
        let _ = self.worked.await;
    }
}

/// Returns at once.
struct AtOnce {
    ledger: Arc<Ledger>,
    samples: Arc<Samples>,
}

impl Handler for AtOnce {
    fn call(&self, _params: String, context: TaskContext) -> HandlerFuture {
        self.samples.started(&context);
        // An id that is none would be missing in the ledger, which the audit finds.
        if let Ok(job) = context.job_id().parse() {
            self.ledger.ran(job);
        }
        Box::pin(async { Ok(TaskOutcome::raw(outcome::SUCCESS, RESULT.to_owned())) })
    }
}

/// When a task started, by this machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) job: JobId,
    pub(super) task: TaskId,
    pub(super) at_unix_us: i64,
}

/// Starts of every k-th task, where k grows with the run so that a bounded number is kept.
#[derive(Debug, Default)]
pub(super) struct Samples {
    is_on: std::sync::atomic::AtomicBool,
    seen: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// Every such start is kept; a power of two.
    stride: u64,
    starts: Vec<(u64, Start)>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { stride: 1, starts: Vec::new() }
    }
}

impl Samples {
    /// From now on starts are kept: what came before was warm-up.
    pub(super) fn begin(&self) {
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// What was kept.
    pub(super) fn take(&self) -> Vec<Start> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *kept).starts.into_iter().map(|(_, start)| start).collect()
    }

    fn started(&self, context: &TaskContext) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.wants(number)
            && let (Ok(job), Ok(task)) = (context.job_id().parse(), context.task_id().parse())
        {
            kept.keep(number, Start { job, task, at_unix_us: now_unix_us() });
        }
    }
}

impl Kept {
    fn wants(&self, number: u64) -> bool {
        number.is_multiple_of(self.stride)
    }

    /// Keeps one. When there are too many, every other one goes.
    fn keep(&mut self, number: u64, start: Start) {
        self.starts.push((number, start));
        if self.starts.len() >= SAMPLES_MAX {
            self.stride *= 2;
            let stride = self.stride;
            self.starts.retain(|(number, _)| number.is_multiple_of(stride));
        }
    }
}

fn now_unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_a_run_is_a_bounded_and_even_sample_is_kept() {
        let mut kept = Kept::default();
        let start = Start { job: JobId::compose(1, 0, 1), task: TaskId::from_random(1), at_unix_us: 0 };
        for number in 0..100_000 {
            if kept.wants(number) {
                kept.keep(number, start);
            }
        }
        assert!((SAMPLES_MAX / 2..SAMPLES_MAX).contains(&kept.starts.len()), "{}", kept.starts.len());
        let numbers: Vec<u64> = kept.starts.iter().map(|(number, _)| *number).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] == kept.stride));
    }
}
