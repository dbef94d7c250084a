//! Which worker a task goes to, over real sockets: what it requires, what it may cost, and what is said while nobody suits.

use avtomatika_cli::Exit;
use avtomatika_proto::v1::JobStatus;
use avtomatika_worker::{TaskContext, TaskError, WorkerBuilder};
use serde_json::{Value, json};

use crate::{
    jobs::cli,
    stack::{RunningWorker, Stack, in_time},
};

const VIDEO_RENDER: &str = include_str!("../../examples/blueprints/video_render.yaml");

/// Serves both tasks of the example, and says who had the second one.
fn studio(stack: &Stack, name: &'static str) -> WorkerBuilder {
    stack
        .worker(name)
        .handle("cut", |_: Value, _: TaskContext| async { Ok(json!({ "scenes": 2 })) })
        .handle("render", move |_: Value, _: TaskContext| async move { Ok(json!({ "rendered_by": name })) })
        .software("ffmpeg", "6.1")
        .label("region", "eu")
        .label("tier", "3")
        .model("upscaler", "2.0")
        .resource("cpus", 16.0)
}

async fn submit(stack: &Stack) -> String {
    let (status, answer) = stack.post("/api/jobs/video_render", r#"{"video":"a.mkv"}"#).await;
    assert_eq!(status, 202, "{answer}");
    answer["job_id"].as_str().unwrap().to_owned()
}

/// Asks until it is the task `render` that is explained.
async fn why_render_waits(stack: &Stack, job_id: &str) -> Value {
    in_time(async {
        loop {
            let (_, explanation) = stack.get(&format!("/api/jobs/{job_id}/explain")).await;
            if explanation["current_state"] == "render" && explanation["reason"] != "changing" {
                return explanation;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_task_waits_for_a_worker_that_suits_it_and_explain_says_what_the_nearest_one_lacks() {
    let stack = Stack::serving(&[VIDEO_RENDER]).await;
    let small =
        RunningWorker::start(studio(&stack, "small").resource("gpu_vram_gb", 12.0).cost("render", 0.1)).await;
    let job_id = submit(&stack).await;
    let explanation = why_render_waits(&stack, &job_id).await;
    assert_eq!(explanation["reason"], "no_suitable_worker");
    let nearest = &explanation["queue"]["nearest"];
    assert_eq!(
        (&nearest["worker_id"], &nearest["lacks"], &nearest["requires"], &nearest["has"]),
        (&json!("small"), &json!("resource"), &json!("gpu_vram_gb >= 16"), &json!("12"))
    );
    assert_eq!(
        (&explanation["queue"]["serving_workers"], &explanation["queue"]["unsuited_workers"]),
        (&json!(1), &json!(1))
    );
    small.stop().await.unwrap();
    // One that is too dear, and one that says nothing of its cost.
    let _dear =
        RunningWorker::start(studio(&stack, "dear").resource("gpu_vram_gb", 24.0).cost("render", 0.9)).await;
    let _silent = RunningWorker::start(studio(&stack, "silent").resource("gpu_vram_gb", 24.0)).await;
    let explanation = why_render_waits(&stack, &job_id).await;
    assert_eq!(
        (&explanation["reason"], &explanation["queue"]["nearest"]["worker_id"]),
        (&json!("no_suitable_worker"), &json!("dear"))
    );
    assert_eq!(explanation["queue"]["nearest"]["lacks"], "cost");
    let _large =
        RunningWorker::start(studio(&stack, "large").resource("gpu_vram_gb", 16.0).cost("render", 0.5)).await;
    let job = stack.grpc().await.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    let history: Value = serde_json::from_str(&job.state_history).unwrap();
    assert_eq!(history["rendered_by"], "large");
}

#[tokio::test]
async fn what_is_preferred_goes_before_what_is_cheap() {
    let stack = Stack::serving(&[VIDEO_RENDER]).await;
    let suiting =
        |name, vram: f64, cost| studio(&stack, name).resource("gpu_vram_gb", vram).cost("render", cost);
    let _cheap = RunningWorker::start(suiting("cheap", 16.0, 0.01)).await;
    let _vast = RunningWorker::start(suiting("vast", 48.0, 0.4)).await;
    let _quick = RunningWorker::start(suiting("quick", 16.0, 0.5).label("disk", "ssd")).await;
    let job_id = submit(&stack).await;
    let job = stack.grpc().await.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    let history: Value = serde_json::from_str(&job.state_history).unwrap();
    assert_eq!(history["rendered_by"], "quick", "three are more than one, and one more than none");
}

#[tokio::test]
async fn a_worker_on_which_everything_fails_is_set_aside_shown_and_brought_back() {
    const ONCE: &str = "blueprint: once\nstates:\n  init:\n    start: true\n    task: { type: once, retry: { max_retries: 0 }, requires: { labels: { kind: broken } } }\n    on: { success: done, failure: failed }\n  done: { end: finished }\n  failed: { end: failed }\n";
    let stack = Stack::serving(&[ONCE]).await;
    let broken =
        stack.worker("broken").label("kind", "broken").handle("once", |_: Value, _: TaskContext| async {
            Err::<Value, _>(TaskError::transient("the lens is cracked"))
        });
    let _broken = RunningWorker::start(broken).await;
    let whole = stack.worker("whole").handle("once", |_: Value, _: TaskContext| async { Ok(json!({})) });
    let _whole = RunningWorker::start(whole).await;
    let mut client = stack.grpc().await;
    for _ in 0..10 {
        let (_, answer) = stack.post("/api/v1/jobs", r#"{"blueprint":"once","initial_data":{}}"#).await;
        client.until(answer["job_id"].as_str().unwrap(), |job| job.status() == JobStatus::Failed).await;
    }
    let shown = async || {
        let (_, workers) = stack.get("/api/workers").await;
        workers.as_array().unwrap().iter().find(|worker| worker["worker_id"] == "broken").cloned().unwrap()
    };
    // The last job is seen to have failed before its worker is.
    let aside = in_time(async {
        loop {
            let worker = shown().await;
            if worker["status"] == "set_aside" {
                return worker;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(aside["set_aside_until"].is_string() && aside["reputation"].as_f64().unwrap() < 0.7, "{aside}");
    let (exit, out) = cli(&stack, &["workers"]).await;
    assert!(exit == Exit::Ok && out.contains("set_aside"), "{out}");
    let (exit, out) = cli(&stack, &["workers", "restore", "broken"]).await;
    assert_eq!((exit, out.as_str()), (Exit::Ok, "Worker broken is idle; nothing is held against it.\n"));
    assert_eq!((&shown().await["status"], &shown().await["reputation"]), (&json!("idle"), &json!(1.0)));
    let (exit, out) = cli(&stack, &["workers", "restore", "nobody"]).await;
    assert_ne!(exit, Exit::Ok, "{out}");
}
