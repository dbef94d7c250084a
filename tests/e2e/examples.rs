//! Each blueprint of `examples/blueprints`, run to its end over real sockets, with a worker that does what its tasks ask for.

use std::{fs, path::Path};

use avtomatika_proto::v1::{Job, JobStatus};
use serde_json::{Value, json};

use crate::stack::{RunningWorker, Stack};

/// What the worker answers to a task.
fn answer(task_type: &str, params: &Value) -> Value {
    match task_type {
        "scan_page" => json!({ "text": format!("text of {}", params["page"].as_str().unwrap()) }),
        "join_text" => {
            let texts: Vec<&str> =
                params["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
            json!({ "text": texts.join(", "), "missing": params["missing"] })
        }
        "make_preview" => json!({ "path": format!("{}.png", params["document"].as_str().unwrap()) }),
        "count_words" => json!({ "words": params["text"].as_str().unwrap().split_whitespace().count() }),
        "reserve_stock" if params["item"] == "ghost" => json!({ "reservation": "none" }),
        "reserve_stock" => json!({ "reservation": "R-1", "price": 20, "shelf": 7 }),
        "price_order" => {
            json!({ "total": params["lines"].as_array().unwrap().iter().map(|line| line.as_i64().unwrap()).sum::<i64>() })
        }
        "pay_invoice" => json!({ "paid_by": params["approved_by"] }),
        _ => json!({}),
    }
}

const TASK_TYPES: [&str; 16] = [
    "announce",
    "count_words",
    "fetch",
    "join_text",
    "make_preview",
    "order_from_supplier",
    "pay_invoice",
    "price_order",
    "process_data",
    "reserve_stock",
    "review_order",
    "scale_picture",
    "scan_page",
    "send_bill",
    "send_reminder",
    "ship_order",
];

/// An orchestrator that serves every example, and a worker for them.
async fn with_examples() -> (Stack, RunningWorker) {
    let mut stack = Stack::start().await;
    stack.stop().await;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/blueprints");
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        // That one is served anyhow.
        if !path.ends_with("test_workflow.yaml") {
            stack.blueprints.push(fs::read_to_string(path).unwrap());
        }
    }
    stack.start_again().await;
    let mut worker = stack.worker("all");
    for task_type in TASK_TYPES {
        worker =
            worker.handle(task_type, move |params: Value, _| async move { Ok(answer(task_type, &params)) });
    }
    let worker = RunningWorker::start(worker).await;
    (stack, worker)
}

async fn submit(stack: &Stack, blueprint: &str, initial_data: Value) -> String {
    let body = json!({ "blueprint": blueprint, "initial_data": initial_data });
    let (status, answer) = stack.post("/api/v1/jobs", &body.to_string()).await;
    assert_eq!(status, 202, "{answer}");
    answer["job_id"].as_str().unwrap().to_owned()
}

async fn until(stack: &Stack, job_id: &str, status: JobStatus) -> Job {
    let ended =
        |job: &Job| matches!(job.status(), JobStatus::Finished | JobStatus::Failed | JobStatus::Quarantined);
    let job = stack.grpc().await.until(job_id, |job| job.status() == status || ended(job)).await;
    assert_eq!(job.status(), status, "{job:?}");
    job
}

/// The result of a job that finishes.
async fn result_of(stack: &Stack, job_id: &str) -> Value {
    serde_json::from_str(&until(stack, job_id, JobStatus::Finished).await.result).unwrap()
}

#[tokio::test]
async fn one_task_or_several_and_a_choice() {
    let (stack, _worker) = with_examples().await;
    let job = submit(&stack, "test_workflow", json!({ "input": "x" })).await;
    until(&stack, &job, JobStatus::Finished).await;
    let job = submit(&stack, "fetch_with_retries", json!({ "url": "https://example.com" })).await;
    until(&stack, &job, JobStatus::Finished).await;
    let picture = json!({ "width": 4000, "height": 3000, "caption": "a boat on the lake" });
    let job = submit(&stack, "picture", picture).await;
    assert_eq!(result_of(&stack, &job).await, json!({ "words": 5 }));
    let order = json!({ "order": { "id": "A-1", "items": [{ "price": 400, "count": 3 }] } });
    let job = submit(&stack, "order_review", order).await;
    until(&stack, &job, JobStatus::Finished).await;
}

#[tokio::test]
async fn pages_are_scanned_side_by_side_and_come_back_in_order() {
    let (stack, _worker) = with_examples().await;
    let pages: Vec<String> = (1..=9).map(|page| format!("p{page}")).collect();
    let job = submit(&stack, "page_scan", json!({ "pages": pages })).await;
    let texts: Vec<String> = pages.iter().map(|page| format!("text of {page}")).collect();
    assert_eq!(result_of(&stack, &job).await, json!({ "text": texts.join(", "), "pages": 9 }));
    let (status, refused) = stack.post("/api/jobs/scans", r#"{"pages": ["p1", 2]}"#).await;
    assert_eq!((status, &refused["code"]), (400, &json!("INPUT_INVALID")));
    assert_eq!(refused["error"], r#"initial_data/pages/1: the value is not of type "string"; it is 2"#);
}

#[tokio::test]
async fn a_document_has_branches_children_and_a_child_of_its_own() {
    let (stack, _worker) = with_examples().await;
    let job = submit(&stack, "document_intake", json!({ "document": "c.pdf", "pages": ["p1", "p2"] })).await;
    assert_eq!(result_of(&stack, &job).await, json!({ "preview": "c.pdf.png", "words": 6 }));
}

#[tokio::test]
async fn an_invoice_is_approved_by_two_humans_and_a_restart_between_them() {
    let (mut stack, worker) = with_examples().await;
    let job = submit(&stack, "invoice_approval", json!({ "invoice": "R-17", "amount": 1200 })).await;
    until(&stack, &job, JobStatus::WaitingForHuman).await;
    let decide =
        |decision: &str, by: &str| json!({ "decision": decision, "by": by, "comment": "fine" }).to_string();
    let path = format!("/api/v1/jobs/{job}/decide");
    let (status, _) = stack.post(&path, &decide("escalate", "eve")).await;
    assert_eq!(status, 400, "the state has no such decision");
    let (status, decided) = stack.post(&path, &decide("approved", "eve")).await;
    assert_eq!((status, &decided["current_state"]), (200, &json!("head")), "{decided}");
    stack.stop().await;
    stack.start_again().await;
    let (status, decided) = stack.post(&path, &decide("approved", "boss")).await;
    assert_eq!(status, 200, "{decided}");
    assert_eq!(result_of(&stack, &job).await, json!({ "paid_by": "boss" }));
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn reports_of_a_tenant_share_their_keys() {
    let (stack, _worker) = with_examples().await;
    let report = |tenant: &str| json!({ "tenant": tenant, "pages": ["p1", "p2", "p3", "p4", "p5"] });
    let acme = submit(&stack, "tenant_report", report("acme")).await;
    let other = submit(&stack, "tenant_report", report("umbrella")).await;
    for job in [&acme, &other] {
        until(&stack, job, JobStatus::Finished).await;
    }
}

#[tokio::test]
async fn a_payment_waits_for_its_own_signal() {
    let (stack, _worker) = with_examples().await;
    let order = json!({ "order": "A-1", "amount": 40, "ship_after": "10ms" });
    let job = submit(&stack, "payment", order).await;
    let signal = |data: Value| json!({ "name": "paid", "data": data }).to_string();
    let path = format!("/api/v1/jobs/{job}/signal");
    let (status, kept) = stack.post(&path, &signal(json!({ "order": "B-2", "amount": 40 }))).await;
    assert_eq!((status, &kept["status"]), (200, &json!("waiting_for_event")), "{kept}");
    let (status, taken) = stack.post(&path, &signal(json!({ "order": "A-1", "amount": 41 }))).await;
    assert_eq!(status, 200, "{taken}");
    let history: Value =
        serde_json::from_str(&until(&stack, &job, JobStatus::Finished).await.state_history).unwrap();
    assert_eq!(history, json!({ "order": "A-1", "amount": 41 }));
}

#[tokio::test]
async fn a_stock_order_keeps_a_part_of_its_results_and_catches_those_that_do_not_fit() {
    let (stack, _worker) = with_examples().await;
    let job = submit(&stack, "stock_order", json!({ "item": "boat", "count": 2 })).await;
    let job = until(&stack, &job, JobStatus::Finished).await;
    assert_eq!(job.result, r#"{"reservation":"R-1","total":40}"#);
    assert_eq!(job.state_history, job.result, "the shelf was left out");
    let job = submit(&stack, "stock_order", json!({ "item": "ghost", "count": 2 })).await;
    let job = until(&stack, &job, JobStatus::Failed).await;
    assert_eq!(job.current_state, "failed");
    assert!(format!("{job:?}").contains("INVALID_RESULT_ERROR"), "{job:?}");
}
