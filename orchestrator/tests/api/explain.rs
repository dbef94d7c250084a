//! `explain`: there is an answer for every status, the same by REST and by gRPC.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use avtomatika_orchestrator::{
    blueprint::{Blueprint, KeyLimit, KeyPolicy, Share, load},
    engine::{
        Attempt, Children, Claim, HistoryEntry, HistoryEvent, Hold, Job, JobError, JobStatus, KeyScope,
        Signal, Submission, Wait,
    },
    json::Json,
    store::{Batch, Store, Write, memory::MemoryStore},
    time::{Clock, SystemClock, Timestamp},
};
use avtomatika_proto::{
    JobId, TaskId,
    v1::{ExplainJobRequest, ExplanationReason, job_service_client::JobServiceClient},
};
use avtomatika_worker::{TaskContext, TaskError, Worker};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::Request;

use crate::support::{ALICE, BOB, Server, WORKER};

/// A stored job in a status, and the reason that it is explained with.
struct Sample {
    job: Job,
    entries: Vec<HistoryEntry>,
    reason: &'static str,
    /// What the sentence begins with.
    summary: &'static str,
}

fn blueprint() -> Blueprint {
    let text = "blueprint: test_workflow\nstates:\n  init: { start: true, task: { type: process_data }, on: { success: completed, failure: failed } }\n  completed: { end: finished }\n  failed: { end: failed }\n";
    load("test.yaml", text).unwrap().definition.into_blueprint(1)
}

/// Of a key that one job may have.
fn hold_of_a_key(since: Timestamp) -> Hold {
    let limit = KeyLimit::Concurrency(1);
    let share = Share { key: Arc::from("tenant:acme"), limit, policy: KeyPolicy::Queue };
    Hold { claim: Arc::new(Claim { shares: vec![share] }), since }
}

fn entry(job: &Job, event: HistoryEvent) -> HistoryEntry {
    HistoryEntry {
        sequence: 0,
        at: job.created_at,
        event,
        state: job.state.clone(),
        from_state: None,
        outcome: None,
        task_id: None,
        attempt: None,
        worker_id: None,
        error: None,
        duration: None,
        by: None,
        detail: None,
    }
}

fn error(code: &str) -> Option<JobError> {
    Some(JobError { code: Arc::from(code), message: Arc::from("it is\nwhat it is.") })
}

/// A job of alice's in every status that is stored, in some of them twice.
fn samples() -> Vec<Sample> {
    let now = SystemClock::new().now();
    let past = now - Duration::from_secs(90);
    let later = now + Duration::from_secs(3600);
    let blueprint = blueprint();
    let mut samples = Vec::new();
    let mut add = |status, reason, summary, change: &dyn Fn(&mut Job)| {
        let id = JobId::compose(past.as_unix_ms(), samples.len() as u16, 0);
        let submission = Arc::new(Submission::of(Json::empty()));
        let mut job = Job::accepted(id, Arc::from("alice"), &blueprint, submission, past);
        job.status = status;
        if status.is_terminal() {
            job.finished_at = Some(now);
            job.updated_at = now;
        }
        change(&mut job);
        let mut failed = entry(&job, HistoryEvent::TaskFailed);
        failed.attempt = Some(2);
        failed.worker_id = Some(Arc::from("w7"));
        failed.error = error("TRANSIENT_ERROR");
        failed.state = job.failed_state.clone().unwrap_or_else(|| job.state.clone());
        let mut entries = vec![entry(&job, HistoryEvent::JobAccepted)];
        match (reason, &job.error) {
            (_, Some(error)) if *error.code == *"TRANSIENT_ERROR" => entries.push(failed),
            _ => {}
        }
        for (sequence, entry) in (0..).zip(&mut entries) {
            entry.sequence = sequence;
        }
        job.history_len = entries.len() as u64;
        samples.push(Sample { job, entries, reason, summary });
    };
    use JobStatus::*;
    let task = |job: &mut Job| {
        let (task_type, number) = (Arc::from("process_data"), 2);
        let ready_at = job.created_at;
        job.attempt = Some(Attempt {
            task_id: TaskId::from_random(job.id.key() as u128),
            task_type,
            needs: None,
            number,
            ready_at,
        });
    };
    add(Pending, "accepted", "Accepted: it takes its first step.", &|_| {});
    add(WaitingForWorker, "no_worker", "Waits for a worker that serves \"process_data\", for 1m", &task);
    add(WaitingForParallel, "branches", "Waits in state \"fan\", for 1m", &|job| {
        (job.blueprint, job.state) = (Arc::from("family"), Arc::from("fan"));
        let first = JobId::of_key(job.id.key() + 1_000_000, 7);
        job.wait = Some(Wait::Children(Children { first, total: 3, since: job.created_at }));
    });
    add(WaitingForChild, "child", "Waits in state \"child\", for 1m", &|job| {
        (job.blueprint, job.state) = (Arc::from("family"), Arc::from("child"));
        let first = JobId::of_key(job.id.key() + 2_000_000, 7);
        job.wait = Some(Wait::Children(Children { first, total: 1, since: job.created_at }));
    });
    add(WaitingForHuman, "human", "Waits for a human to decide in state \"init\"", &|job| {
        let (token, message) = (Arc::from("secret-token"), Some(Arc::from("Shall it be?")));
        job.wait = Some(Wait::Approval { token, message, since: job.created_at });
        job.resumes_at = Some(later);
        job.claim = Some(hold_of_a_key(job.created_at));
    });
    add(WaitingForKey, "key", "Waits for a key for itself, for 1m", &|job| {
        job.claim = Some(hold_of_a_key(job.created_at));
        job.wait = Some(Wait::Keys(KeyScope::Job));
    });
    add(WaitingForEvent, "event", "Waits in state \"init\" for the signal \"paid\"", &|job| {
        job.wait = Some(Wait::Signal { name: Arc::from("paid"), since: job.created_at });
        job.signals = ["paid", "other"]
            .map(|name| Signal { name: Arc::from(name), id: None, data: Json::empty(), at: job.created_at })
            .into();
    });
    add(
        WaitingForTimer,
        "timer",
        "Waits in state \"init\" until a point in time: it goes on in 59m",
        &|job| {
            job.wait = Some(Wait::Timer);
            job.resumes_at = Some(later);
        },
    );
    add(WaitingForTimer, "start_time", "Not started yet: it starts in 59m", &|job| {
        job.wait = Some(Wait::Start);
        job.resumes_at = Some(later);
    });
    add(
        WaitingForTimer,
        "retry",
        "Waits for attempt 3 of 4 in state \"init\", which begins in 59m",
        &|job| {
            job.resumes_at = Some(later);
            job.retry_count = 2;
            job.error = error("TRANSIENT_ERROR");
        },
    );
    add(Finished, "finished", "Finished in state \"completed\" after 1m", &|job| {
        job.state = Arc::from("completed");
    });
    add(
        Failed,
        "failed",
        "Failed in state \"failed\" after 1m 30s, because state \"init\" failed at attempt 2 on worker \"w7\": TRANSIENT_ERROR: it is what it is.",
        &|job| {
            job.state = Arc::from("failed");
            job.failed_state = Some(Arc::from("init"));
            job.error = error("TRANSIENT_ERROR");
        },
    );
    add(
        Failed,
        "failed",
        "Failed in state \"init\" after 1m 30s: RESULT_TIMEOUT: it is what it is.",
        &|job| {
            job.failed_state = Some(Arc::from("init"));
            job.error = error("RESULT_TIMEOUT");
        },
    );
    add(Cancelled, "cancelled", "Cancelled in state \"init\" after 1m 30s: it is what it is.", &|job| {
        job.error = error("CANCELLED");
    });
    add(
        Quarantined,
        "quarantined",
        "Quarantined in state \"init\" after 1m 30s at attempt 2 on worker \"w7\": TRANSIENT_ERROR",
        &|job| {
            job.error = error("TRANSIENT_ERROR");
        },
    );
    samples
}

async fn server_with(samples: &[Sample]) -> Server {
    let store = Arc::new(MemoryStore::new());
    let insert = |sample: &Sample| Write::InsertJob {
        job: Arc::new(sample.job.clone()),
        entries: sample.entries.clone(),
        idempotency: None,
    };
    store.commit(&Batch { writes: samples.iter().map(insert).collect() }).unwrap();
    Server::start_over(store, Duration::from_secs(5)).await
}

async fn explain(server: &Server, id: impl ToString) -> Value {
    let answer = server.get(&format!("/api/jobs/{}/explain", id.to_string())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The same by gRPC.
async fn explain_by_grpc(server: &Server, id: impl ToString) -> avtomatika_proto::v1::ExplainJobResponse {
    let mut jobs = JobServiceClient::connect(server.url("")).await.unwrap();
    let mut request = Request::new(ExplainJobRequest { job_id: id.to_string() });
    request.metadata_mut().insert("authorization", format!("Bearer {ALICE}").parse().unwrap());
    jobs.explain_job(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn every_status_has_its_answer_and_both_surfaces_give_the_same() {
    let samples = samples();
    let server = server_with(&samples).await;
    let mut seen: BTreeSet<&str> = BTreeSet::from(["running"]);
    for Sample { job, reason, summary, .. } in &samples {
        let document = explain(&server, job.id).await;
        assert_eq!((&document["status"], &document["reason"]), (&json!(job.status.as_str()), &json!(reason)));
        let sentence = document["summary"].as_str().unwrap();
        assert!(sentence.starts_with(summary) && sentence.ends_with('.'), "{sentence}");
        assert!(!sentence.contains(char::is_control), "{sentence}");
        assert!(!document.to_string().contains("secret-token"));
        let wire = explain_by_grpc(&server, job.id).await;
        let explanation = wire.explanation.unwrap();
        let name = ExplanationReason::try_from(explanation.reason).unwrap().as_str_name().to_lowercase();
        assert_eq!(name, format!("explanation_reason_{reason}"));
        assert_eq!(i32::from(job.status as u8), wire.status);
        assert!(explanation.summary.starts_with(summary), "{}", explanation.summary);
        seen.insert(job.status.as_str());
    }
    // A worker's hands are not stored: `running` is below.
    let every: BTreeSet<&str> = JobStatus::ALL.iter().map(|status| status.as_str()).collect();
    assert_eq!(seen, every);
}

#[tokio::test]
async fn what_is_known_of_each_wait_stands_in_a_field_of_its_own() {
    let samples = samples();
    let server = server_with(&samples).await;
    let by_reason: BTreeMap<&str, JobId> =
        samples.iter().map(|sample| (sample.reason, sample.job.id)).collect();
    let document = explain(&server, by_reason["key"]).await;
    let key = &document["keys"]["keys"][0];
    assert_eq!((&document["keys"]["scope"], &key["key"]), (&json!("job"), &json!("tenant:acme")));
    assert_eq!((&key["limit"], &key["held"], &key["policy"]), (&json!(1), &json!(1), &json!("queue")));
    assert_eq!(key["holder_job_ids"], json!([by_reason["human"].to_string()]));
    let document = explain(&server, by_reason["branches"]).await;
    let children = &document["children"];
    // They are started one after the other, and nobody serves them: how far that is, is a matter of milliseconds.
    assert_eq!((&children["total"], &children["ended"]), (&json!(3), &json!(0)));
    assert!(children["started"].as_u64().unwrap() <= 1, "{children}");
    assert_eq!((&document["queue"], &document["event"]), (&Value::Null, &Value::Null));

    let document = explain(&server, by_reason["event"]).await;
    assert_eq!(document["event"]["name"], "paid");
    let kept = document["event"]["kept"].as_array().unwrap();
    assert_eq!((&kept[0]["same_name"], &kept[1]["name"], kept.len()), (&json!(true), &json!("other"), 2));
    let sentence = document["summary"].as_str().unwrap();
    assert!(sentence.contains("there is no deadline; 1 signal of this name does not meet"), "{sentence}");

    let document = explain(&server, by_reason["human"]).await;
    assert_eq!(document["approval"]["message"], "Shall it be?");
    assert!(document["until"].is_string());

    let document = explain(&server, by_reason["retry"]).await;
    let failure = &document["last_failure"];
    assert_eq!(
        (&failure["state"], &failure["attempt"], &failure["worker_id"], &failure["error_code"]),
        (&json!("init"), &json!(2), &json!("w7"), &json!("TRANSIENT_ERROR"))
    );
    assert_eq!(document["attempts_max"], 4);

    let document = explain(&server, by_reason["no_worker"]).await;
    assert_eq!(document["queue"]["connected_workers"], 0);
    assert_eq!(document["queue"]["nearest"], Value::Null);
    let actions: Vec<&str> = document["next_steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["start_worker", "cancel"]);
    assert_eq!(document["next_steps"][0]["command"], "avtomatika-worker --task process_data=exec:PROGRAM");
}

#[tokio::test]
async fn a_foreign_job_is_explained_to_nobody() {
    let server = Server::start().await;
    let id = server.by(BOB, "POST", "/api/jobs/test", "{}").await.text("job_id");
    let foreign = server.get(&format!("/api/jobs/{id}/explain")).await;
    let missing = server.get("/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057/explain").await;
    assert_eq!((foreign.status, &foreign.body), (404, &missing.body));
    let refused = server.by(BOB, "GET", &format!("/api/jobs/{id}/explain?x=1"), "").await;
    assert_eq!(refused.status, 400);
}

/// A worker with one slot, which says when it has begun and ends when it is told.
struct Slow {
    begun: mpsc::Receiver<()>,
    finish: mpsc::Sender<()>,
}

async fn slow_worker(server: &Server, name: &str, task_type: &str) -> Slow {
    let ((begin, begun), (finish, finished)) = (mpsc::channel(1), mpsc::channel::<()>(1));
    let finished = Arc::new(tokio::sync::Mutex::new(finished));
    let handler = move |_: Value, _: TaskContext| {
        let (begin, finished) = (begin.clone(), finished.clone());
        async move {
            begin.send(()).await.unwrap();
            finished.lock().await.recv().await;
            Ok::<_, TaskError>(json!({}))
        }
    };
    let worker = Worker::builder(server.url("")).token(WORKER).worker_id(name).slots(1);
    let worker = worker.handle(task_type, handler).build().unwrap();
    let mut handle = worker.handle();
    tokio::spawn(worker.run_until(std::future::pending()));
    handle.registered().await.unwrap();
    Slow { begun, finish }
}

async fn submit(server: &Server) -> String {
    server.post("/api/jobs/test", "{}").await.text("job_id")
}

#[tokio::test]
async fn a_job_is_followed_from_the_queue_into_a_workers_hands() {
    let server = Server::start().await;
    let _other = slow_worker(&server, "other", "process-data").await;
    let first = submit(&server).await;
    let document = explain(&server, &first).await;
    assert_eq!(document["reason"], "no_worker");
    let nearest = &document["queue"]["nearest"];
    assert_eq!(
        (&nearest["worker_id"], &nearest["lacks"], &nearest["similar_task_type"]),
        (&json!("other"), &json!("task_type"), &json!("process-data"))
    );
    let sentence = document["summary"].as_str().unwrap();
    assert!(
        sentence.contains("the only connected worker does not serve it (\"other\" serves \"process-data\": is one of the two misspelt?)"),
        "{sentence}"
    );

    let mut worker = slow_worker(&server, "w1", "process_data").await;
    worker.begun.recv().await.unwrap();
    let document = explain(&server, &first).await;
    assert_eq!((&document["status"], &document["reason"]), (&json!("running"), &json!("running")));
    assert_eq!(document["current_task"]["worker_id"], "w1");
    assert_eq!(document["until"], document["current_task"]["deadline"]);
    let sentence = document["summary"].as_str().unwrap();
    assert!(
        sentence.starts_with("Attempt 1 of 4 of \"process_data\" runs on worker \"w1\", for "),
        "{sentence}"
    );

    let (second, third) = (submit(&server).await, submit(&server).await);
    let document = explain(&server, &third).await;
    assert_eq!(document["reason"], "workers_full");
    let queue = &document["queue"];
    assert_eq!(
        (&queue["ahead"], &queue["queue_length"], &queue["full_workers"]),
        (&json!(1), &json!(2), &json!(1))
    );
    assert_eq!((&queue["nearest"]["held_tasks"], &queue["nearest"]["slots"]), (&json!(1), &json!(1)));
    let sentence = document["summary"].as_str().unwrap();
    assert!(
        sentence.contains("the one worker that serves it has no free slot (\"w1\" holds 1 of 1); 1 task is before it in a queue of 2"),
        "{sentence}"
    );
    assert_eq!(explain(&server, &second).await["queue"]["ahead"], 0);

    worker.finish.send(()).await.unwrap();
    worker.begun.recv().await.unwrap();
    assert_eq!(explain(&server, &second).await["reason"], "running");
    assert_eq!(explain(&server, &first).await["reason"], "finished");
}
