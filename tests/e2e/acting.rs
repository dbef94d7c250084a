//! Jobs that wait for somebody, and jobs that somebody has to mend: signals, approvals, retry, skip, repair of many.

use avtomatika_cli::Exit;
use avtomatika_proto::{
    ApiError, ErrorCode,
    v1::{
        DecideApprovalRequest, GetJobHistoryRequest, GetJobRequest, JobStatus, RepairFilter,
        RepairJobsRequest, RetryAction, RetryJobRequest, SignalJobRequest, SkipAction, SkipJobRequest,
        SubmitJobRequest, repair_jobs_request::Action,
    },
};
use avtomatika_worker::{TaskContext, TaskError};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    jobs::cli,
    stack::{Client, RunningWorker, Stack, in_time},
};

const ORDER: &str = "
blueprint: order
states:
  prepare:
    start: true
    task: { type: slow, timeout: 5m }
    on: { success: payment }
  payment:
    event: { name: \"paid:${initial_data.order}\", when: \"signal.amount >= initial_data.amount\", deadline: 5m }
    on: { received: done, timeout: unpaid }
  done: { end: finished }
  unpaid: { end: failed }
";

const IMPATIENT: &str = "
blueprint: impatient
states:
  payment: { start: true, event: { name: paid, deadline: 100ms }, on: { received: review, timeout: review } }
  review: { approval: { message: \"ship unpaid?\", deadline: 100ms }, on: { approved: done, rejected: late, timeout: late } }
  done: { end: finished }
  late: { end: failed }
";

const REVIEW: &str = "
blueprint: review
states:
  review:
    start: true
    approval: { message: \"ship ${initial_data.order}?\" }
    on: { approved: done, rejected: refused }
  done: { end: finished, result: { by: \"${result.by}\", why: \"${result.comment}\" } }
  refused: { end: failed }
";

const CHOOSY: &str = "
blueprint: choosy
states:
  work:
    start: true
    task: { type: choosy, params: { good: \"${initial_data.good}\" }, timeout: 5m }
    on: { success: done }
  done: { end: finished }
";

async fn stack() -> Stack {
    Stack::serving(&[ORDER, IMPATIENT, REVIEW, CHOOSY]).await
}

async fn submit(client: &mut Client, blueprint: &str, initial_data: Value) -> String {
    let request = SubmitJobRequest {
        blueprint: blueprint.into(),
        initial_data: initial_data.to_string(),
        ..Default::default()
    };
    in_time(client.jobs.submit_job(request)).await.unwrap().into_inner().job_id
}

async fn events_of(client: &mut Client, job_id: &str) -> Vec<String> {
    let request = GetJobHistoryRequest { job_id: job_id.into(), ..Default::default() };
    let entries = in_time(client.jobs.get_job_history(request)).await.unwrap().into_inner().entries;
    entries.into_iter().map(|entry| format!("{} {}", entry.event, entry.by).trim_end().to_owned()).collect()
}

fn code<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> ErrorCode {
    ApiError::from_status(&answer.unwrap_err()).code
}

/// A worker of type `slow` that ends when it is told to, and one of type `choosy` that wants good params.
async fn worker(stack: &Stack, release: &'static Notify) -> RunningWorker {
    let builder = stack
        .worker("w1")
        .handle("slow", move |_: Value, _: TaskContext| async move {
            release.notified().await;
            Ok::<_, TaskError>(json!({ "prepared": true }))
        })
        .handle("choosy", |params: Value, _: TaskContext| async move {
            match params["good"].as_bool() {
                Some(true) => Ok(json!({ "done": true })),
                _ => Err(TaskError::permanent("the params are no good")),
            }
        });
    RunningWorker::start(builder).await
}

#[tokio::test]
async fn a_signal_is_taken_early_or_late_when_it_fits_and_once() {
    static RELEASE: Notify = Notify::const_new();
    let stack = stack().await;
    let mut client = stack.grpc().await;
    let _worker = worker(&stack, &RELEASE).await;
    let signal = |job_id: &str, id: &str, amount: u32| SignalJobRequest {
        job_id: job_id.into(),
        name: "paid:o-1".into(),
        id: id.into(),
        data: json!({ "amount": amount, "id": id }).to_string(),
    };
    let order = json!({ "order": "o-1", "amount": 10 });

    // Early: nobody waits yet. The one that is too small is kept and passed by.
    let early = submit(&mut client, "order", order.clone()).await;
    client.until(&early, |job| job.status() == JobStatus::Running).await;
    for (id, amount) in [("small", 1), ("early", 10), ("early", 10)] {
        let answer = in_time(client.jobs.signal_job(signal(&early, id, amount))).await.unwrap().into_inner();
        assert_eq!(answer.job.unwrap().status(), JobStatus::Running);
    }
    RELEASE.notify_one();
    let job = client.until(&early, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(serde_json::from_str::<Value>(&job.state_history).unwrap()["id"], "early");

    // While it waits: what does not fit leaves it waiting.
    let waiting = submit(&mut client, "order", order).await;
    RELEASE.notify_one();
    let job = client.until(&waiting, |job| job.status() == JobStatus::WaitingForEvent).await;
    assert!(job.resumes_at.is_some());
    let answer = in_time(client.jobs.signal_job(signal(&waiting, "a", 9))).await.unwrap().into_inner();
    assert_eq!(answer.job.unwrap().status(), JobStatus::WaitingForEvent);
    let answer = in_time(client.jobs.signal_job(signal(&waiting, "b", 11))).await.unwrap().into_inner();
    assert_eq!((answer.deduplicated, answer.job.unwrap().status()), (false, JobStatus::Finished));
    // Its sender did not hear the answer.
    let answer = in_time(client.jobs.signal_job(signal(&waiting, "b", 11))).await.unwrap().into_inner();
    assert_eq!((answer.deduplicated, answer.job.unwrap().status()), (true, JobStatus::Finished));

    // Too late.
    let late = submit(&mut client, "impatient", json!({})).await;
    client.until(&late, |job| job.status() == JobStatus::Failed).await;
    let signal = SignalJobRequest { job_id: late, name: "paid".into(), ..Default::default() };
    assert_eq!(code(in_time(client.jobs.signal_job(signal)).await), ErrorCode::JobTerminal);
}

#[tokio::test]
async fn an_approval_is_decided_by_its_owner_or_once_by_its_token_or_by_time() {
    let stack = stack().await;
    let mut client = stack.grpc().await;
    let by_owner = submit(&mut client, "review", json!({ "order": "o-1" })).await;
    let (exit, page) = cli(&stack, &["get", &by_owner]).await;
    assert_eq!(exit, Exit::Ok);
    assert!(
        page.contains("asks: ship o-1?") && page.contains(&format!("avtomatika approve {by_owner}")),
        "{page}"
    );
    let (exit, said) = cli(&stack, &["approve", &by_owner, "--comment", "paid", "--by", "anna"]).await;
    assert_eq!(exit, Exit::Ok, "{said}");
    let job = client.until(&by_owner, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(job.result, r#"{"by":"anna","why":"paid"}"#);
    assert!(events_of(&mut client, &by_owner).await.contains(&"approval_decided anna".to_owned()));

    // Whoever has the token needs nothing else, and can use it once.
    let by_token = submit(&mut client, "review", json!({ "order": "o-2" })).await;
    let (_, job) = stack.get(&format!("/api/jobs/{by_token}")).await;
    let token = job["waiting_for"]["approval"]["token"].as_str().unwrap().to_owned();
    let decide = async |job_id: &str, token: &str, decision: &str| {
        let body = json!({ "decision": decision, "token": token, "by": "bert" }).to_string();
        let url = format!("{}/_public/webhooks/approval/{job_id}", stack.url);
        in_time(reqwest::Client::new().post(url).body(body).send()).await.unwrap().status().as_u16()
    };
    assert_eq!(decide(&by_token, "0123456789abcdef0123456789abcdef", "rejected").await, 404);
    assert_eq!(decide(&by_owner, &token, "rejected").await, 404);
    assert_eq!(decide(&by_token, &token, "rejected").await, 200);
    assert_eq!(decide(&by_token, &token, "approved").await, 404);
    client.until(&by_token, |job| job.status() == JobStatus::Failed && job.outcome == "rejected").await;
    assert!(events_of(&mut client, &by_token).await.contains(&"approval_decided bert (by token)".to_owned()));

    // Nobody decides in time.
    let by_time = submit(&mut client, "impatient", json!({})).await;
    let job = client.until(&by_time, |job| job.status() == JobStatus::Failed).await;
    assert_eq!((job.current_state.as_str(), job.failed_state.as_str()), ("late", "review"));
    let decide = DecideApprovalRequest { job_id: by_time, decision: "approved".into(), ..Default::default() };
    assert_eq!(code(in_time(client.jobs.decide_approval(decide)).await), ErrorCode::JobTerminal);
}

#[tokio::test]
async fn a_quarantined_job_is_retried_with_other_data_or_skipped() {
    static RELEASE: Notify = Notify::const_new();
    let stack = stack().await;
    let mut client = stack.grpc().await;
    let _worker = worker(&stack, &RELEASE).await;
    let job_id = submit(&mut client, "choosy", json!({ "good": false, "page": 7 })).await;
    let job = client.until(&job_id, |job| job.status() == JobStatus::Quarantined).await;
    assert_eq!((job.failed_state.as_str(), job.error_code.as_str()), ("work", "PERMANENT_ERROR"));
    let action = RetryAction {
        initial_data_patch: json!({ "good": true }).to_string(),
        reason: "the flag was wrong".into(),
        ..Default::default()
    };
    let request = RetryJobRequest { job_id: job_id.clone(), action: Some(action), ..Default::default() };
    let job = in_time(client.jobs.retry_job(request)).await.unwrap().into_inner().job.unwrap();
    assert!(job.finished_at.is_none(), "{job:?}");
    let job = client.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(job.initial_data, r#"{"good":true,"page":7}"#);
    assert!(events_of(&mut client, &job_id).await.contains(&"job_retried acme".to_owned()));

    // A state that is skipped ends without its worker, which is told to stop.
    let job_id = submit(&mut client, "slow", json!({})).await;
    client.until(&job_id, |job| job.status() == JobStatus::Running).await;
    let action =
        SkipAction { outcome: "success".into(), data: "{\"by\":\"hand\"}".into(), ..Default::default() };
    let request = SkipJobRequest { job_id: job_id.clone(), action: Some(action), ..Default::default() };
    let job = in_time(client.jobs.skip_job(request)).await.unwrap().into_inner().job.unwrap();
    assert_eq!((job.status(), job.state_history.as_str()), (JobStatus::Finished, r#"{"by":"hand"}"#));
    let (_, workers) = stack.get("/api/workers").await;
    assert_eq!(workers[0]["worker_id"], "w1");
}

#[tokio::test]
async fn many_jobs_are_counted_then_repaired() {
    static RELEASE: Notify = Notify::const_new();
    let stack = stack().await;
    let mut client = stack.grpc().await;
    let _worker = worker(&stack, &RELEASE).await;
    let mut job_ids = Vec::new();
    for page in 0..10 {
        job_ids.push(submit(&mut client, "choosy", json!({ "good": false, "page": page })).await);
    }
    for job_id in &job_ids {
        client.until(job_id, |job| job.status() == JobStatus::Quarantined).await;
    }
    let filter = RepairFilter {
        blueprint: "choosy".into(),
        failed_state: "work".into(),
        error_code: "PERMANENT_ERROR".into(),
        ..Default::default()
    };
    let action = RetryAction { initial_data_patch: "{\"good\":true}".into(), ..Default::default() };
    let mut request = RepairJobsRequest {
        filter: Some(filter),
        action: Some(Action::Retry(action)),
        dry_run: true,
        limit: 4,
        ..Default::default()
    };
    let dry = in_time(client.jobs.repair_jobs(request.clone())).await.unwrap().into_inner();
    assert_eq!((dry.count, dry.job_ids.len(), dry.next_cursor.is_empty()), (4, 4, false));
    assert_eq!(dry.job_ids[0], job_ids[9], "newest first");
    let (_, said) = cli(&stack, &["retry", "--blueprint", "choosy", "--dry-run"]).await;
    assert!(said.starts_with("10 jobs would be started again.\n"), "{said}");

    request.dry_run = false;
    let mut counts = Vec::new();
    loop {
        let done = in_time(client.jobs.repair_jobs(request.clone())).await.unwrap().into_inner();
        assert_eq!(done.refused_count, 0, "{done:?}");
        counts.push(done.count);
        request.cursor = done.next_cursor;
        if request.cursor.is_empty() {
            break;
        }
    }
    assert_eq!(counts.iter().sum::<u32>(), 10);
    for job_id in &job_ids {
        client.until(job_id, |job| job.status() == JobStatus::Finished).await;
    }
    let (_, said) = cli(&stack, &["retry", "--all"]).await;
    assert_eq!(said, "0 jobs started again.\n");
}

#[tokio::test]
async fn what_waits_for_a_human_waits_through_a_restart() {
    let mut stack = stack().await;
    let mut client = stack.grpc().await;
    let job_id = submit(&mut client, "review", json!({ "order": "o-1" })).await;
    let (_, before) = stack.get(&format!("/api/jobs/{job_id}")).await;
    stack.stop().await;
    stack.start_again().await;
    let (_, after) = stack.get(&format!("/api/jobs/{job_id}")).await;
    assert_eq!(after["waiting_for"], before["waiting_for"]);
    let mut client = stack.grpc().await;
    let decide =
        DecideApprovalRequest { job_id: job_id.clone(), decision: "approved".into(), ..Default::default() };
    in_time(client.jobs.decide_approval(decide)).await.unwrap();
    let job = in_time(client.jobs.get_job(GetJobRequest { job_id })).await.unwrap().into_inner().job.unwrap();
    assert_eq!(job.status(), JobStatus::Finished);
}
