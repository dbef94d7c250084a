//! Jobs and their children over the real wire: how many may fail, whose retries they are, what comes up and what goes down. Much of it
//! is what the Python system got wrong: parents that went on twice, gathering from a part of the branches, failures without a way, and
//! jobs that were cancelled and came back.

use std::sync::{Arc, Mutex};

use avtomatika_proto::v1::{Job, JobStatus};
use avtomatika_worker::{TaskContext, TaskError, TaskOutcome};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::stack::{Client, RunningWorker, Stack, in_time};

/// A map over `initial_data.pages` of which so many may fail.
fn fan(name: &str, tolerate: &str) -> String {
    format!(
        "
blueprint: {name}
states:
  scan:
    start: true
    map:
      over: initial_data.pages
      task: {{ type: page, params: {{ page: '${{item}}', number: '${{index}}' }}, retry: {{ max_retries: 1, initial_delay: 10ms }} }}
      max_parallel: 1
      tolerate: {tolerate}
    on: {{ success: gather, failure: partial }}
  gather: {{ pass: {{ gathered: true }}, next: done }}
  done:
    end: finished
    result: {{ outcomes: '${{results.map(r, r.outcome)}}', codes: '${{results.filter(r, r.error != null).map(r, r.error.code)}}' }}
  partial: {{ end: failed }}
"
    )
}

const BRANCHES: &str = "
blueprint: branches
states:
  look:
    start: true
    map:
      branches:
        preview: { task: { type: page, params: { page: flaky, number: 0 }, retry: { max_retries: 2, initial_delay: 10ms } } }
        text: { run: { blueprint: child, input: { page: good } } }
        extra: { run: { blueprint: child, input: { page: bad } } }
      tolerate: 1
    on: { success: done, failure: failed }
  done:
    end: finished
    result: { all: '${results.map(r, {\"name\": r.name, \"outcome\": r.outcome, \"data\": r.data, \"code\": r.error == null ? null : r.error.code})}' }
  failed: { end: failed }
";

const CHILD: &str = "
blueprint: child
states:
  work:
    start: true
    task: { type: page, params: { page: '${initial_data.page}', number: 7 }, retry: { max_retries: 1, initial_delay: 10ms } }
    on: { success: done, odd: odd }
  odd: { end: failed }
  done: { end: finished, result: { child_saw: '${state_history.page}' } }
";

const PARENT: &str = "
blueprint: parent
states:
  ask_child:
    start: true
    run: { blueprint: child, input: '${initial_data}' }
    on: { success: done, failure: sorry, cancelled: alone, quarantined: look_into_it }
  look_into_it: { approval: { message: 'go on without the child?' }, on: { approved: done, rejected: sorry } }
  done: { end: finished }
  sorry: { end: failed }
  alone: { end: failed }
";

const NEST: &str = "
blueprint: nest
states:
  deeper: { start: true, run: { blueprint: nest, input: { level: '${initial_data.level + 1}' } }, on: { success: done } }
  done: { end: finished }
";

/// What the worker was asked for, in order: page and attempt.
type Asked = Arc<Mutex<Vec<(String, u32)>>>;

async fn with_worker() -> (Stack, RunningWorker, Asked) {
    let fans = [fan("one_may_fail", "1"), fan("a_quarter_may_fail", "25%"), fan("none_may_fail", "0")];
    let mut blueprints: Vec<&str> = fans.iter().map(String::as_str).collect();
    blueprints.extend([BRANCHES, CHILD, PARENT, NEST]);
    let stack = Stack::serving(&blueprints).await;
    let asked = Asked::default();
    let noted = asked.clone();
    let worker = stack.worker("w1").handle("page", move |params: Value, context: TaskContext| {
        let (noted, attempt) = (noted.clone(), context.attempt());
        async move {
            let page = params["page"].as_str().unwrap_or_default().to_owned();
            noted.lock().unwrap().push((page.clone(), attempt));
            match page.as_str() {
                "bad" => Err(TaskError::permanent("nobody can read this")),
                "flaky" if attempt == 1 => Err(TaskError::transient("not yet")),
                "odd" => Ok(TaskOutcome::custom("odd", json!({ "page": page }))),
                _ => Ok(TaskOutcome::success(json!({ "page": page, "number": params["number"] }))),
            }
        }
    });
    let worker = RunningWorker::start(worker).await;
    (stack, worker, asked)
}

async fn submit(stack: &Stack, blueprint: &str, initial_data: Value) -> String {
    let body = json!({ "blueprint": blueprint, "initial_data": initial_data });
    let (status, answer) = stack.post("/api/v1/jobs", &body.to_string()).await;
    assert_eq!(status, 202, "{answer}");
    answer["job_id"].as_str().unwrap().to_owned()
}

async fn ended(client: &mut Client, job_id: &str) -> Job {
    client.until(job_id, |job| job.finished_at.is_some()).await
}

/// The children of a job, oldest first.
async fn children(stack: &Stack, parent: &str) -> Vec<Value> {
    let (_, listed) = stack.get("/api/jobs?limit=1000").await;
    let jobs = listed["jobs"].as_array().unwrap();
    let mut children: Vec<Value> =
        jobs.iter().filter(|job| job["parent_job_id"] == parent).cloned().collect();
    children.reverse();
    children
}

async fn times(stack: &Stack, job_id: &str, event: &str) -> usize {
    let (_, history) = stack.get(&format!("/api/jobs/{job_id}/history")).await;
    history["history"].as_array().unwrap().iter().filter(|entry| entry["event"] == event).count()
}

#[tokio::test]
async fn as_many_branches_may_fail_as_are_tolerated_and_one_more_lets_nobody_gather() {
    let (stack, _worker, asked) = with_worker().await;
    let mut client = stack.grpc().await;
    for (blueprint, pages, is_enough) in [
        ("one_may_fail", "good bad good", true),
        ("one_may_fail", "bad bad good good", false),
        ("a_quarter_may_fail", "bad good bad good good good good good", true),
        // A quarter of seven is one.
        ("a_quarter_may_fail", "bad good bad good good good good", false),
        ("none_may_fail", "flaky good", true),
        ("none_may_fail", "bad good good", false),
    ] {
        asked.lock().unwrap().clear();
        let pages: Vec<&str> = pages.split(' ').collect();
        let job_id = submit(&stack, blueprint, json!({ "pages": pages })).await;
        let job = ended(&mut client, &job_id).await;
        let told = format!("{blueprint} {pages:?}: {job:?}");
        let asked = asked.lock().unwrap().clone();
        if is_enough {
            let outcomes: Vec<&str> =
                pages.iter().map(|page| if *page == "bad" { "failure" } else { "success" }).collect();
            let codes =
                vec!["PERMANENT_ERROR"; outcomes.iter().filter(|outcome| **outcome == "failure").count()];
            let result: Value = serde_json::from_str(&job.result).unwrap();
            assert_eq!(result, json!({ "outcomes": outcomes, "codes": codes }), "{told}");
        } else {
            assert_eq!((job.status(), job.current_state.as_str()), (JobStatus::Failed, "partial"), "{told}");
            assert_eq!(
                (job.error_code.as_str(), job.state_history.as_str()),
                ("BRANCHES_FAILED", "{}"),
                "{told}"
            );
            // What had not begun when it was decided does not begin.
            let last_bad = pages.iter().rposition(|page| *page == "bad").unwrap();
            assert_eq!(asked.len(), last_bad + 1, "{told}: {asked:?}");
        }
    }
    assert!(asked.lock().unwrap().len() == 1, "the last map ended with its first page");
}

#[tokio::test]
async fn named_branches_are_tasks_and_children_each_with_its_own_retries() {
    let (stack, _worker, asked) = with_worker().await;
    let job_id = submit(&stack, "branches", json!({})).await;
    let job = ended(&mut stack.grpc().await, &job_id).await;
    let result: Value = serde_json::from_str(&job.result).unwrap();
    assert_eq!(
        result["all"],
        json!([
            { "name": "preview", "outcome": "success", "data": { "page": "flaky", "number": 0 }, "code": null },
            { "name": "text", "outcome": "success", "data": { "child_saw": "good" }, "code": null },
            { "name": "extra", "outcome": "quarantined", "data": null, "code": "PERMANENT_ERROR" },
        ]),
        "{job:?}"
    );
    let mut asked = asked.lock().unwrap().clone();
    asked.sort();
    let runs = [("bad", 1), ("flaky", 1), ("flaky", 2), ("good", 1)];
    assert_eq!(asked, runs.map(|(page, attempt)| (page.to_owned(), attempt)));
}

#[tokio::test]
async fn how_a_child_ends_selects_the_way_and_a_parent_goes_on_once() {
    let (stack, _worker, _) = with_worker().await;
    let mut client = stack.grpc().await;
    for (page, state) in [("good", "done"), ("odd", "sorry")] {
        let job_id = submit(&stack, "parent", json!({ "page": page })).await;
        assert_eq!(ended(&mut client, &job_id).await.current_state, state, "{page}");
    }
    // The child is quarantined, and its parent goes on to ask a human. When the child is mended later, the parent has gone on.
    let job_id = submit(&stack, "parent", json!({ "page": "bad" })).await;
    client.until(&job_id, |job| job.status() == JobStatus::WaitingForHuman).await;
    let child = children(&stack, &job_id).await[0]["id"].as_str().unwrap().to_owned();
    let mended = json!({ "initial_data_patch": { "page": "good" } }).to_string();
    let (status, answer) = stack.post(&format!("/api/jobs/{child}/retry"), &mended).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(ended(&mut client, &child).await.status(), JobStatus::Finished);
    let (_, parent) = stack.get(&format!("/api/jobs/{job_id}")).await;
    assert_eq!(
        (&parent["status"], &parent["current_state"]),
        (&json!("waiting_for_human"), &json!("look_into_it"))
    );
    assert_eq!(times(&stack, &job_id, "children_ended").await, 1);
}

#[tokio::test]
async fn jobs_nest_ten_deep_and_the_limit_is_named_at_the_top() {
    let (stack, _worker, _) = with_worker().await;
    let job_id = submit(&stack, "nest", json!({ "level": 1 })).await;
    let job = ended(&mut stack.grpc().await, &job_id).await;
    assert_eq!((job.status(), job.error_code.as_str()), (JobStatus::Failed, "DEPTH_LIMIT"), "{job:?}");
    let (_, listed) = stack.get("/api/jobs?blueprint=nest&limit=1000").await;
    let levels =
        listed["jobs"].as_array().unwrap().iter().map(|job| job["initial_data"]["level"].as_u64().unwrap());
    assert_eq!(levels.max(), Some(11), "the job at the top and ten below it");
}

#[tokio::test]
async fn a_cancelled_job_takes_its_children_along_and_late_results_bring_nobody_back() {
    static RELEASE: Notify = Notify::const_new();
    let holding = fan("holding", "0")
        .replace("max_parallel: 1", "max_parallel: 2")
        .replace("type: page", "type: stubborn");
    let above = "
blueprint: above
states:
  fan: { start: true, run: { blueprint: holding, input: '${initial_data}' }, on: { success: done, failure: failed, cancelled: failed } }
  done: { end: finished }
  failed: { end: failed }
";
    let stack = Stack::serving(&[&holding, above]).await;
    // It is told to stop and answers all the same.
    let worker = stack.worker("w1").handle("stubborn", |_: Value, context: TaskContext| async move {
        context.cancellation().cancelled().await;
        RELEASE.notify_one();
        Ok::<_, TaskError>(json!({ "made": "too late" }))
    });
    let worker = RunningWorker::start(worker).await;
    let mut client = stack.grpc().await;
    let top = submit(&stack, "above", json!({ "pages": ["a", "b", "c"] })).await;
    client.until(&top, |job| job.status() == JobStatus::WaitingForChild).await;
    let fan = children(&stack, &top).await[0]["id"].as_str().unwrap().to_owned();
    let branches = in_time(async {
        loop {
            let branches = children(&stack, &fan).await;
            if branches.iter().filter(|branch| branch["status"] == "running").count() == 2 {
                return branches;
            }
        }
    })
    .await;
    let (status, answer) = stack.post(&format!("/api/jobs/{top}/cancel"), "{}").await;
    assert_eq!((status, &answer["status"]), (200, &json!("cancelled")), "{answer}");
    in_time(RELEASE.notified()).await;
    // When the worker has ended, all that it had to say is said.
    worker.stop().await.unwrap();
    for job_id in
        [&top, &fan].into_iter().map(String::as_str).chain(branches.iter().map(|b| b["id"].as_str().unwrap()))
    {
        let job = ended(&mut client, job_id).await;
        assert_eq!((job.status(), job.result.as_str()), (JobStatus::Cancelled, ""), "{job:?}");
    }
    assert_eq!(children(&stack, &fan).await.len(), 2, "the third page did not begin");
    let (status, refused) = stack.post(&format!("/api/jobs/{top}/retry"), "{}").await;
    assert_eq!((status, &refused["code"]), (409, &json!("NOT_REPAIRABLE")), "{refused}");
}
