//! Traces: once a traced job has ended, its history is told as spans.
//!
//! Nothing is remembered while a job runs, and nothing is lost with a process that is killed: the history is durable, and the ids of
//! spans follow from those of jobs and attempts. It promises that nobody waits for it; when more jobs end than it can tell of, some
//! are left out and counted. It refuses to know where spans go.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avtomatika_proto::{
    TaskId,
    spans::{Kind, Span, Spans},
    trace::{SpanId, TraceContext, span_of, span_of_attempt, span_of_job},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    conductor::Conductor,
    engine::{HistoryEntry, HistoryEvent, Job, JobStatus},
    time::Timestamp,
};

/// Entries of a history that are told; what comes after them is left out.
const ENTRIES_MAX: usize = 2_000;

/// The spans of a job's states are numbered from here on, by the entry with which they begin.
const FIRST_STATE: u64 = 1 << 32;

/// Tells of jobs as they end, until `stop`, and then of those that have.
pub async fn tell(
    mut ended: mpsc::Receiver<Arc<Job>>,
    conductor: Conductor,
    spans: Spans,
    stop: CancellationToken,
) {
    loop {
        let job = tokio::select! {
            biased;
            job = ended.recv() => job,
            () = stop.cancelled() => break,
        };
        let Some(job) = job else { break };
        tell_one(&job, &conductor, &spans).await;
    }
    while let Ok(job) = ended.try_recv() {
        tell_one(&job, &conductor, &spans).await;
    }
    spans.shutdown().await;
}

async fn tell_one(job: &Job, conductor: &Conductor, spans: &Spans) {
    let Some(trace) = job.submission.trace.as_ref().filter(|trace| trace.is_sampled) else { return };
    match conductor.history(&job.client, job.id, 0, ENTRIES_MAX).await {
        Ok(entries) => Story::of(job, trace, &entries).into_iter().for_each(|span| spans.end(span)),
        Err(error) => tracing::debug!(job = %job.id, "Job {} cannot be told of: {error}", job.id),
    }
}

/// A job's last run, as far as it has been told.
struct Story<'a> {
    job: &'a Job,
    trace: &'a TraceContext,
    whole: SpanId,
    spans: Vec<Span>,
    state: Option<(SpanId, &'a HistoryEntry)>,
    attempts: HashMap<TaskId, &'a HistoryEntry>,
}

impl<'a> Story<'a> {
    /// The spans of a job that has ended: those of its last run, if a human has started it again.
    fn of(job: &'a Job, trace: &'a TraceContext, entries: &'a [HistoryEntry]) -> Vec<Span> {
        let ends = entries.iter().enumerate().filter(|(_, entry)| is_end(entry.event)).map(|(at, _)| at);
        let ends: Vec<usize> = ends.collect();
        let runs_before = ends.len().saturating_sub(1);
        let first = runs_before.checked_sub(1).map_or(0, |last| ends[last] + 1);
        let Some((begin, end)) = entries[first..].first().zip(entries.last()) else { return Vec::new() };
        let whole = span_of_job(job.id, runs_before as u64);
        let (spans, attempts) = (Vec::new(), HashMap::new());
        let mut story = Self { job, trace, whole, spans, state: None, attempts };
        entries[first..].iter().for_each(|entry| story.go_on(entry));
        story.end(begin, end);
        story.spans
    }

    fn go_on(&mut self, entry: &'a HistoryEntry) {
        match entry.event {
            HistoryEvent::StateEntered => {
                self.leave_state(entry);
                self.state = Some((span_of(self.job.id.as_bytes(), FIRST_STATE + entry.sequence), entry));
            }
            HistoryEvent::TaskReady => {
                self.attempts.extend(entry.task_id.map(|task_id| (task_id, entry)));
            }
            HistoryEvent::TaskSucceeded
            | HistoryEvent::TaskFailed
            | HistoryEvent::TaskTimedOut
            | HistoryEvent::TaskCancelled
            | HistoryEvent::TaskReturned
            | HistoryEvent::WorkerLost => {
                let begun =
                    entry.task_id.and_then(|task_id| Some((task_id, self.attempts.remove(&task_id)?)));
                if let Some((task_id, ready)) = begun {
                    self.attempt(task_id, ready, entry);
                }
            }
            _ => {}
        }
    }

    fn attempt(&mut self, task_id: TaskId, ready: &HistoryEntry, end: &HistoryEntry) {
        let span_id = span_of_attempt(task_id);
        let parent = self.state.map_or(self.whole, |(span_id, _)| span_id);
        let mut attributes = vec![
            ("avtomatika.task_id", task_id.to_string()),
            ("avtomatika.attempt", ready.attempt.unwrap_or(1).to_string()),
        ];
        attributes.extend(end.worker_id.as_ref().map(|worker| ("avtomatika.worker_id", worker.to_string())));
        let outcome = end.outcome.as_deref().unwrap_or(end.event.as_str());
        attributes.push(("avtomatika.outcome", outcome.to_owned()));
        let is_well = matches!(end.event, HistoryEvent::TaskSucceeded | HistoryEvent::TaskReturned);
        let error = (!is_well).then(|| match &end.error {
            Some(error) => error.code.to_string(),
            None => end.event.as_str().to_owned(),
        });
        let name = format!("attempt {}", ready.state);
        self.put(span_id, parent, name, (ready.at, end.at), attributes, error);
        // What the worker did not hold it for, it had waited for a worker.
        if let Some(held_for) = end.duration {
            let dispatched = Timestamp::from_micros(end.at.as_micros() - held_for.as_micros() as i64);
            let times = (ready.at, dispatched.max(ready.at));
            let waited = span_of(task_id.as_bytes(), 1);
            self.put(waited, span_id, "wait for a worker".to_owned(), times, Vec::new(), None);
        }
    }

    fn leave_state(&mut self, end: &HistoryEntry) {
        let Some((span_id, entered)) = self.state.take() else { return };
        let attributes = vec![("avtomatika.state", entered.state.to_string())];
        let name = format!("state {}", entered.state);
        self.put(span_id, self.whole, name, (entered.at, end.at), attributes, None);
    }

    fn end(&mut self, begin: &HistoryEntry, end: &'a HistoryEntry) {
        // Attempts that nobody waits for any more.
        let mut open: Vec<_> = std::mem::take(&mut self.attempts).into_iter().collect();
        open.sort_by_key(|(_, ready)| ready.sequence);
        open.into_iter().for_each(|(task_id, ready)| self.attempt(task_id, ready, end));
        self.leave_state(end);
        let job = self.job;
        let attributes = vec![
            ("avtomatika.job_id", job.id.to_string()),
            ("avtomatika.blueprint", job.blueprint.to_string()),
            ("avtomatika.blueprint_version", job.blueprint_version.to_string()),
            ("avtomatika.client", job.client.to_string()),
            ("avtomatika.status", job.status.to_string()),
        ];
        let failed = matches!(job.status, JobStatus::Failed | JobStatus::Quarantined);
        let error = failed.then(|| match &job.error {
            Some(error) => error.code.to_string(),
            None => job.status.to_string(),
        });
        let name = format!("job {}", job.blueprint);
        self.put(self.whole, self.trace.span_id, name, (begin.at, end.at), attributes, error);
    }

    fn put(
        &mut self,
        span_id: SpanId,
        parent: SpanId,
        name: String,
        (start, end): (Timestamp, Timestamp),
        attributes: Vec<(&'static str, String)>,
        error: Option<String>,
    ) {
        self.spans.push(Span {
            context: self.trace.with_span(span_id),
            parent: Some(parent),
            name,
            kind: Kind::Internal,
            start: system_time(start),
            end: system_time(end),
            attributes,
            error,
        });
    }
}

fn is_end(event: HistoryEvent) -> bool {
    matches!(
        event,
        HistoryEvent::JobFinished
            | HistoryEvent::JobFailed
            | HistoryEvent::JobQuarantined
            | HistoryEvent::JobCancelled
    )
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0))
}
