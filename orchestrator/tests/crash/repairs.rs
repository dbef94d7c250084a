//! Jobs that are repaired, one by one and by filter, when the orchestrator is killed just then: each repair is done once, however
//! often it is asked for because its answer was lost, and none that was acknowledged is lost.

use avtomatika_proto::v1::{
    RepairFilter, RepairJobsRequest, RetryAction, RetryJobRequest, SkipAction, SkipJobRequest,
    repair_jobs_request::Action,
};
use serde_json::{Value, json};

use super::{
    attempts::{counts, history},
    waits::{Mortal, Told, code, telling, until_all},
    *,
};

/// Jobs that are repaired one by one, and as many that are repaired by filter.
const JOBS: usize = 24;

/// Jobs that one call repairs at most: many calls, so that kills meet some of them. A call that is killed between its commit and its
/// answer repairs as many without being heard, so there are more than have to be answered.
const AT_ONCE: u32 = 3;

/// Only what is good is made; whatever else is good for nothing.
const CHOOSY: &str = "
blueprint: choosy
states:
  work:
    start: true
    task: { type: choosy, params: { good: \"${initial_data.good}\" }, timeout: 60s }
    on: { success: done }
  done: { end: finished, result: { by: \"${state_history.by}\", number: \"${initial_data.number}\" } }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_with_other_data_is_done_once_whatever_a_kill_meets() {
    repair_and_kill(Repair::Retry, 64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skip_is_done_once_whatever_a_kill_meets() {
    repair_and_kill(Repair::Skip, 64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_with_nothing_in_memory_is_done_once_too() {
    repair_and_kill(Repair::Retry, 0).await;
}

#[derive(Clone, Copy, PartialEq)]
enum Repair {
    Retry,
    Skip,
}

impl Repair {
    /// One job, until there is an answer.
    async fn one(self, url: &str, client: &mut Client, job_id: &str) {
        let (job_id, idempotency_key) = (job_id.to_owned(), "ticket-4711".to_owned());
        loop {
            let (job_id, idempotency_key) = (job_id.clone(), idempotency_key.clone());
            let answer = match self {
                Self::Retry => {
                    let action = Some(self.retry());
                    client.retry_job(RetryJobRequest { job_id, action, idempotency_key }).await.map(drop)
                }
                Self::Skip => {
                    let action = Some(self.skip());
                    client.skip_job(SkipJobRequest { job_id, action, idempotency_key }).await.map(drop)
                }
            };
            let Err(status) = answer else { return };
            assert_eq!(code(&status), None, "{status:?}");
            *client = connect(url).await;
        }
    }

    fn retry(self) -> RetryAction {
        let initial_data_patch = json!({ "good": true }).to_string();
        RetryAction { initial_data_patch, reason: "the flag was wrong".into(), ..Default::default() }
    }

    fn skip(self) -> SkipAction {
        let data = json!({ "by": "hand" }).to_string();
        SkipAction { outcome: "success".into(), data, reason: "done by hand".into() }
    }

    fn many(self) -> Action {
        match self {
            Self::Retry => Action::Retry(self.retry()),
            Self::Skip => Action::Skip(self.skip()),
        }
    }

    fn event(self) -> &'static str {
        match self {
            Self::Retry => "job_retried",
            Self::Skip => "state_skipped",
        }
    }
}

async fn repair_and_kill(repair: Repair, resident_mib: u32) {
    let how = Run { submitters: 0, slots: 4, resident_mib };
    let mut orchestrator = Mortal::serving(&[("choosy", CHOOSY.into())], how);
    let url = orchestrator.url();
    let (journal, stop) = (Journal::default(), Arc::new(Notify::new()));
    let handler = {
        let journal = journal.clone();
        move |params: Value, context: TaskContext| {
            let journal = journal.clone();
            async move {
                journal.note(&context).await;
                match params["good"] == json!(true) {
                    true => Ok(json!({ "by": "worker" })),
                    false => Err(TaskError::permanent("good for nothing")),
                }
            }
        }
    };
    let worker = tokio::spawn(run(worker(&url, "choosy", how.slots).handle("choosy", handler), stop.clone()));

    let ids = submit_bad(&url).await;
    let one_by_one = &ids[..JOBS];
    until_all(&url, &ids, JobStatus::Quarantined).await;
    orchestrator.kill_and_start("while jobs wait to be repaired");

    let (told, mut heard) = telling();
    let repairs = tokio::spawn(repair_each(repair, url.clone(), one_by_one.to_vec(), told));
    for share in [1, JOBS / 3, JOBS * 2 / 3] {
        heard.until(share).await;
        orchestrator.kill_and_start("while jobs are repaired one by one");
    }
    repairs.await.unwrap();
    until_all(&url, one_by_one, JobStatus::Finished).await;

    let (told, mut heard) = telling();
    let repairs = tokio::spawn(repair_by_filter(repair, url.clone(), told));
    for calls in [1, 2, 4] {
        heard.until(calls).await;
        orchestrator.kill_and_start("while jobs are repaired by filter");
    }
    repairs.await.unwrap();
    until_all(&url, &ids, JobStatus::Finished).await;
    check(repair, &url, &ids, &journal).await;
    stop.notify_waiters();
    worker.await.unwrap();
    orchestrator.kill();
}

/// Twice [`JOBS`] jobs that fail.
async fn submit_bad(url: &str) -> Vec<String> {
    let mut client = connect(url).await;
    let mut ids = Vec::new();
    for number in 0..2 * JOBS {
        let initial_data = json!({ "good": false, "number": number }).to_string();
        let request = SubmitJobRequest { blueprint: "choosy".into(), initial_data, ..Default::default() };
        ids.push(client.submit_job(request).await.unwrap().into_inner().job_id);
    }
    ids
}

/// Each repair is asked for twice, as by somebody who did not hear the answer.
async fn repair_each(repair: Repair, url: String, ids: Vec<String>, told: Told) {
    let mut client = connect(&url).await;
    for job_id in ids {
        repair.one(&url, &mut client, &job_id).await;
        told.add();
        repair.one(&url, &mut client, &job_id).await;
    }
}

/// Page by page. A page whose answer was lost is asked for again.
async fn repair_by_filter(repair: Repair, url: String, told: Told) {
    let filter = RepairFilter {
        blueprint: "choosy".into(),
        failed_state: "work".into(),
        error_code: "PERMANENT_ERROR".into(),
        ..Default::default()
    };
    let mut request = RepairJobsRequest {
        filter: Some(filter),
        action: Some(repair.many()),
        limit: AT_ONCE,
        ..Default::default()
    };
    let mut client = connect(&url).await;
    loop {
        match client.repair_jobs(request.clone()).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                assert_eq!((answer.refused_count, &answer.stopped_by), (0, &None), "{answer:?}");
                told.add();
                request.cursor = answer.next_cursor;
                if request.cursor.is_empty() {
                    return;
                }
            }
            Err(status) => {
                assert_eq!(code(&status), None, "{status:?}");
                client = connect(&url).await;
            }
        }
    }
}

async fn check(repair: Repair, url: &str, ids: &[String], journal: &Journal) {
    let mut client = connect(url).await;
    for (number, job_id) in ids.iter().enumerate() {
        let retried = repair == Repair::Retry;
        assert_eq!(journal.runs_of(job_id), if retried { 2 } else { 1 }, "runs of {job_id}");
        let entries = history(&mut client, job_id).await;
        let counts = counts(&entries);
        for (event, times) in [("job_quarantined", 1), (repair.event(), 1), ("job_finished", 1)] {
            assert_eq!(counts.get(event), Some(&times), "{event} in the history of {job_id}");
        }
        let entry = entries.iter().find(|entry| entry.event == repair.event()).unwrap();
        let why = if retried { "the flag was wrong" } else { "done by hand" };
        assert!(entry.detail.contains(why), "{entry:?}");
        let request = avtomatika_proto::v1::GetJobRequest { job_id: job_id.clone() };
        let job = client.get_job(request).await.unwrap().into_inner().job.unwrap();
        let by = if retried { "worker" } else { "hand" };
        let result: Value = serde_json::from_str(&job.result).unwrap();
        assert_eq!(result, json!({ "by": by, "number": number }), "{job:?}");
    }
}
