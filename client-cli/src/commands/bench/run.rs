//! One measurement from beginning to end: start, warm up, load, look at the book, compare the clocks, stop.

use std::{pin::pin, sync::Arc, time::Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Plan, WorkerKind},
    callers::{Callers, Submission},
    figures::Percentiles,
    ledger::Ledger,
    process::WORKER_TOKEN,
    progress::{Progress, TICK},
    subject::{Subject, Usage, somebody_serves, store_name},
    tally::Tally,
    tickets::{End, Pace, Tickets},
    waits::from_ready_to_started,
    worker::{BenchWorker, Place, Samples},
};
use crate::{args::Options, client::Server, failure::Failure};

/// What one run has shown.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    /// Jobs that finished in the measured part.
    pub(super) jobs: u64,
    pub(super) seconds: f64,
    pub(super) jobs_per_s: f64,
    pub(super) submit_to_finished_ms: Option<Percentiles>,
    /// With a worker in this process only.
    pub(super) ready_to_started_ms: Option<Percentiles>,
    /// Of an own orchestrator only.
    pub(super) orchestrator: Option<Usage>,
    /// In an open loop: jobs that had to wait because as many as allowed were in flight.
    pub(super) held_back: Option<u64>,
    pub(super) store: String,
    /// Jobs that were looked at, those of the warm-up included.
    pub(super) verified_jobs: u64,
    /// What was wrong. Empty when every job ended exactly once.
    pub(super) faults: Vec<String>,
}

/// Measures once. `stop` ends it early: what is in flight is waited for, and what was done is told.
pub(super) async fn run(
    plan: &Plan,
    options: &Options,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Run, Failure> {
    progress.phase("starting");
    let subject = Subject::start(plan, options).await?;
    let server = Arc::new(Server::connect(&subject.options).await?);
    let (ledger, samples) = (Arc::new(Ledger::new()), Arc::new(Samples::default()));
    let worker = worker(plan, &subject, &server, &ledger, &samples, (progress, stop)).await?;
    let submission = Submission::new(plan, &subject.blueprint);
    let mut callers = Callers::connect(plan, &subject.options, submission).await?;

    progress.phase("warming up");
    let warmed = Tally::new(Tickets::start(Pace::Closed, End::Jobs(plan.warm_up), 0), Arc::clone(&ledger));
    load(&mut callers, &warmed, progress, stop).await;

    progress.phase(format!("measuring with {}", plan.api.name()));
    samples.begin();
    let cpu_before = subject.cpu_time();
    let started = Instant::now();
    let tally = Tally::new(Tickets::start(plan.pace, plan.end, plan.in_flight), Arc::clone(&ledger));
    let mut failure = warmed.take_failure();
    if failure.is_none() {
        load(&mut callers, &tally, progress, stop).await;
        failure = tally.take_failure();
    }
    let seconds = started.elapsed().as_secs_f64();
    let usage = subject.usage_since(cpu_before, tally.finished());

    progress.phase("verifying");
    let expected = worker.is_some().then_some(plan.tasks_per_job);
    let audit = ledger.audit(warmed.sent() + tally.sent(), expected, subject.is_own());
    let mut faults = audit.faults();
    match failure {
        // Not one job went through: this is about how it was called, and there is nothing to report.
        Some(failure) if audit.sound == 0 => return Err(failure),
        Some(failure) => faults.push(format!("a submission failed: {failure}")),
        None => {}
    }
    let run = Run {
        jobs: tally.finished(),
        seconds,
        jobs_per_s: tally.finished() as f64 / seconds,
        submit_to_finished_ms: tally.percentiles(),
        ready_to_started_ms: match faults.is_empty() {
            true => from_ready_to_started(&server, samples.take()).await?,
            false => None,
        },
        orchestrator: usage,
        held_back: tally.held_back(),
        store: if faults.is_empty() { store_name(&server).await? } else { String::new() },
        verified_jobs: audit.sound,
        faults,
    };
    if let Some(worker) = worker {
        worker.stop().await;
    }
    drop((callers, server));
    match run.faults.is_empty() {
        true => subject.stop().await?,
        // It may be dead or stuck; dropping it kills it.
        false => drop(subject),
    }
    Ok(run)
}

/// The worker in this process, or the certainty that somebody else's is there.
async fn worker(
    plan: &Plan,
    subject: &Subject,
    server: &Server,
    ledger: &Arc<Ledger>,
    samples: &Arc<Samples>,
    (progress, stop): (&Progress, &CancellationToken),
) -> Result<Option<BenchWorker>, Failure> {
    match plan.worker {
        WorkerKind::InProcess => {
            let place = Place {
                url: &subject.options.url,
                tls: subject.options.tls.files(),
                token: &subject.worker_token,
                task_type: &subject.task_type,
                slots: plan.slots,
            };
            BenchWorker::start(place, Arc::clone(ledger), Arc::clone(samples)).await.map(Some)
        }
        WorkerKind::External => {
            let token =
                if subject.is_own() { format!(" with the token {WORKER_TOKEN}") } else { String::new() };
            let what = format!("a worker that serves {} at {}{token}", subject.task_type, server.url());
            progress.phase("waiting for workers");
            progress.say(format!("Waiting for {what}."));
            somebody_serves(server, &subject.task_type, stop).await?;
            Ok(None)
        }
    }
}

/// Runs a load to its end, showing how far it is.
async fn load(callers: &mut Callers, tally: &Arc<Tally>, progress: &Progress, stop: &CancellationToken) {
    if stop.is_cancelled() {
        return;
    }
    let mut running = pin!(callers.run(tally));
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            () = &mut running => return,
            () = stop.cancelled() => break,
            _ = tick.tick() => progress.show(tally.progress()),
        }
    }
    tally.stop();
    running.await;
}
