//! Blueprints that change while they are served.

use std::{fs, path::Path};

use avtomatika_proto::v1::{FindingSeverity, ReloadConfigRequest};
use serde_json::json;
use tonic::Code;

use crate::{
    grpc::Caller,
    support::{ALICE, Server},
};

/// A job of it waits for a worker.
pub fn task(name: &str, endpoint: &str, task_type: &str) -> String {
    format!(
        "blueprint: {name}\nendpoint: {endpoint}\nstates:\n  work: {{ start: true, task: {{ type: {task_type} }}, on: {{ success: done }} }}\n  done: {{ end: finished }}\n"
    )
}

pub fn write(dir: &Path, file: &str, text: &str) {
    fs::write(dir.join(file), text).unwrap();
}

#[tokio::test]
async fn new_jobs_take_the_new_version_and_jobs_that_exist_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "order.yaml", &task("order", "/orders", "pack"));
    write(dir.path(), "other.yaml", &task("other", "/others", "pack"));
    let server = Server::start_from(dir.path()).await;
    let old = server.post("/api/orders", "{}").await.text("job_id");

    write(dir.path(), "order.yaml", &task("order", "/v2/orders", "ship"));
    let answer = server.post("/api/reload", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let changed = json!({
        "applied": true,
        "changes": [{ "name": "order", "version": 2, "previous_version": 1 }],
        "unchanged": 1,
        "findings": [],
    });
    assert_eq!(answer.json(), changed);

    assert_eq!(server.post("/api/orders", "{}").await.status, 404, "the endpoint has moved");
    let new = server.post("/api/v2/orders", "{}").await.text("job_id");
    let version = async |id: &str| {
        let job = server.get(&format!("/api/jobs/{id}")).await.json();
        (job["blueprint_version"].as_u64().unwrap(), job["current_task"]["type"].clone())
    };
    assert_eq!(version(&old).await, (1, json!("pack")));
    assert_eq!(version(&new).await, (2, json!("ship")));
    assert_eq!(server.get("/api/blueprints/order").await.json()["version"], 2);
}

#[tokio::test]
async fn one_file_with_a_mistake_and_nothing_changes_and_every_mistake_is_told() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &task("a", "/a", "pack"));
    let server = Server::start_from(dir.path()).await;
    write(dir.path(), "a.yaml", &task("a", "/a", "ship"));
    write(dir.path(), "b.yaml", "blueprint: b\nstates:\n  only: { start: true, end: nowhere }\n");
    write(dir.path(), "c.yaml", "blueprint: [");

    let answer = server.post("/api/reload", "").await;
    assert_eq!((answer.status, answer.text("code").as_str()), (422, "BLUEPRINTS_INVALID"));
    let findings = answer.json()["findings"].clone();
    let files: Vec<&str> = findings.as_array().unwrap().iter().map(|f| f["file"].as_str().unwrap()).collect();
    assert!(
        files.iter().any(|file| file.ends_with("b.yaml"))
            && files.iter().any(|file| file.ends_with("c.yaml"))
    );
    assert!(findings[0]["line"].as_u64().unwrap() > 0 && findings[0]["cure"].as_str().unwrap().len() > 5);

    let caller = Caller::new(&server, ALICE).await;
    let request = caller.request(ReloadConfigRequest { dry_run: false });
    let response = caller.admin().reload_config(request).await.unwrap().into_inner();
    assert!(!response.applied && response.changes.is_empty());
    assert_eq!(response.findings.len(), files.len());
    assert!(response.findings.iter().all(|finding| finding.severity() == FindingSeverity::Error));
    assert_eq!(server.get("/api/blueprints/a").await.json()["version"], 1);
    assert_eq!(server.get("/api/blueprints").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_blueprint_that_has_left_takes_no_new_jobs_and_its_jobs_go_on() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &task("a", "/a", "pack"));
    write(dir.path(), "b.yaml", &task("b", "/b", "pack"));
    let server = Server::start_from(dir.path()).await;
    let job = server.post("/api/a", "{}").await.text("job_id");
    fs::remove_file(dir.path().join("a.yaml")).unwrap();

    let caller = Caller::new(&server, ALICE).await;
    let reload = async |dry_run| {
        let request = caller.request(ReloadConfigRequest { dry_run });
        caller.admin().reload_config(request).await.unwrap().into_inner()
    };
    let tried = reload(true).await;
    assert!(!tried.applied && tried.changes.len() == 1);
    assert_eq!(server.get("/api/blueprints/a").await.status, 200, "only tried");
    let done = reload(false).await;
    assert!(done.applied && done.unchanged == 1);
    assert_eq!((done.changes[0].previous_version, done.changes[0].version), (1, 0));

    assert_eq!(server.get("/api/blueprints/a").await.status, 404);
    assert_eq!(server.post("/api/v1/jobs", r#"{"blueprint":"a"}"#).await.text("code"), "BLUEPRINT_NOT_FOUND");
    assert_eq!(server.get(&format!("/api/jobs/{job}")).await.json()["status"], "waiting_for_worker");
    // Back again and unchanged, it is what it was.
    write(dir.path(), "a.yaml", &task("a", "/a", "pack"));
    assert_eq!(reload(false).await.changes[0].version, 1);
    assert!(reload(false).await.changes.is_empty());
}

#[tokio::test]
async fn an_orchestrator_without_a_directory_says_so_and_strangers_are_told_nothing() {
    let server = Server::start().await;
    let answer = server.post("/api/v1/reload", "{}").await;
    assert_eq!((answer.status, answer.text("code").as_str()), (501, "UNSUPPORTED"));
    assert_eq!(server.send("POST", "/api/reload", &[], "").await.status, 401);
    for (path, body) in [("/api/reload?now=1", ""), ("/api/reload", "7"), ("/api/reload", r#"{"dry":true}"#)]
    {
        assert_eq!(server.post(path, body).await.status, 400, "{path} {body}");
    }
    let caller = Caller::new(&server, ALICE).await;
    let request = caller.request(ReloadConfigRequest::default());
    assert_eq!(caller.admin().reload_config(request).await.unwrap_err().code(), Code::Unimplemented);
}
