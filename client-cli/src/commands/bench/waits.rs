//! From ready to started: how long a ready task waited for its handler.
//!
//! The orchestrator's history says when a task became ready, by its clock; the worker's samples say when its handler began, by
//! this machine's. On one machine the two clocks are one. With an orchestrator elsewhere they may differ, and the figure with
//! them.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::v1::{GetJobHistoryRequest, HistoryEntry};
use tokio::task::JoinSet;

use super::{
    figures::{Latencies, Percentiles},
    worker::Start,
};
use crate::{client::Server, failure::Failure};

/// Histories that are asked for at once.
const AT_ONCE: usize = 32;

/// Asks for the histories of the sampled jobs and compares. `None` when there are no samples.
pub(super) async fn from_ready_to_started(
    server: &Arc<Server>,
    starts: Vec<Start>,
) -> Result<Option<Percentiles>, Failure> {
    let latencies = Arc::new(Latencies::new());
    let mut starts = starts.into_iter();
    let mut asking = JoinSet::new();
    for start in starts.by_ref().take(AT_ONCE) {
        asking.spawn(compare(Arc::clone(server), start, Arc::clone(&latencies)));
    }
    while let Some(compared) = asking.join_next().await {
        compared.map_err(|error| Failure::System(format!("comparing times has failed: {error}")))??;
        if let Some(start) = starts.next() {
            asking.spawn(compare(Arc::clone(server), start, Arc::clone(&latencies)));
        }
    }
    Ok(latencies.percentiles())
}

async fn compare(server: Arc<Server>, start: Start, latencies: Arc<Latencies>) -> Result<(), Failure> {
    let request = GetJobHistoryRequest { job_id: start.job.to_string(), ..Default::default() };
    let history = server.answer(server.jobs().get_job_history(request)).await?;
    if let Some(wait) = wait(&history.entries, start) {
        latencies.record(wait);
    }
    Ok(())
}

/// How long the task waited. Two readings of a clock may be the wrong way round by its grain: that counts as no wait.
fn wait(history: &[HistoryEntry], start: Start) -> Option<Duration> {
    let task = start.task.to_string();
    let ready = history.iter().find(|entry| entry.event == "task_ready" && entry.task_id == task)?;
    let at = ready.at.as_ref()?;
    let ready_unix_us = at.seconds.checked_mul(1_000_000)?.checked_add(i64::from(at.nanos) / 1000)?;
    Some(Duration::from_micros(u64::try_from(start.at_unix_us - ready_unix_us).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::{JobId, TaskId, wire_time};

    use super::*;

    #[test]
    fn a_wait_is_from_the_tasks_own_entry_to_its_start_and_never_negative() {
        let (task, other) = (TaskId::from_random(1), TaskId::from_random(2));
        let entry = |event: &str, task: TaskId, at_us| HistoryEntry {
            event: event.into(),
            task_id: task.to_string(),
            at: Some(wire_time::timestamp(at_us)),
            ..Default::default()
        };
        let history = [
            entry("task_ready", other, 1_000),
            entry("task_ready", task, 5_000_000),
            entry("task_succeeded", task, 9_000_000),
        ];
        let start = |at_unix_us| Start { job: JobId::compose(1, 0, 1), task, at_unix_us };
        assert_eq!(wait(&history, start(5_000_250)), Some(Duration::from_micros(250)));
        assert_eq!(wait(&history, start(4_999_999)), Some(Duration::ZERO));
        assert_eq!(wait(&history[..1], start(1)), None);
    }
}
