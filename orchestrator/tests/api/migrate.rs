//! Jobs that move to another version of their blueprint.

use std::{fs, path::Path};

use avtomatika_proto::v1::MigrateJobsRequest;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    grpc::Caller,
    support::{ALICE, Answer, BOB, Server},
};

fn write(dir: &Path, states: &str) {
    fs::write(dir.join("order.yaml"), format!("blueprint: order\nendpoint: /orders\nstates:\n{states}"))
        .unwrap();
}

const PACK: &str =
    "  pack: { start: true, task: { type: pack }, on: { success: done } }\n  done: { end: finished }\n";

const PREPARE: &str = "  check: { start: true, approval: {}, on: { approved: prepare } }\n  prepare: { task: { type: pack, params: { v: 2 } }, on: { success: done } }\n  done: { end: finished }\n";

async fn migrate(server: &Server, body: Value) -> Answer {
    server.post("/api/blueprints/order/migrate", &body.to_string()).await
}

async fn job(server: &Server, id: &str) -> Value {
    server.get(&format!("/api/jobs/{id}")).await.json()
}

#[tokio::test]
async fn a_dry_run_says_what_the_migration_then_does() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), PACK);
    let server = Server::start_from(dir.path()).await;
    let old = server.post("/api/orders", "{}").await.text("job_id");
    write(dir.path(), PREPARE);
    assert_eq!(server.post("/api/reload", "").await.status, 200);
    let new = server.post("/api/orders", "{}").await.text("job_id");

    // Without a word about where it is to stand, it stays.
    let stays = json!({
        "to_version": 2,
        "moves": [{
            "job_id": old, "version": 1, "state": "pack", "to_state": "pack", "refused": "no_such_state",
            "why": "the version has no such state: say where the job is to stand",
        }],
        "next_cursor": null,
    });
    assert_eq!(migrate(&server, json!({ "dry_run": true })).await.json(), stays);
    assert_eq!(migrate(&server, json!({})).await.json(), stays);
    assert_eq!(job(&server, &old).await["blueprint_version"], 1);

    let map = json!({ "pack": "prepare" });
    let moves = json!({
        "to_version": 2,
        "moves": [{
            "job_id": old, "version": 1, "state": "pack", "to_state": "prepare", "refused": null, "why": null,
        }],
        "next_cursor": null,
    });
    assert_eq!(migrate(&server, json!({ "states": map, "dry_run": true })).await.json(), moves);
    assert_eq!(job(&server, &old).await["blueprint_version"], 1);
    assert_eq!(migrate(&server, json!({ "states": map })).await.json(), moves);
    let moved = job(&server, &old).await;
    assert_eq!((&moved["blueprint_version"], &moved["current_state"]), (&json!(2), &json!("prepare")));
    let history = server.get(&format!("/api/jobs/{old}/history")).await.json();
    let entry = history["history"].as_array().unwrap().iter().find(|entry| entry["event"] == "job_migrated");
    assert!(entry.is_some(), "{history}");

    assert_eq!(migrate(&server, json!({ "states": map })).await.json()["moves"], json!([]), "it has moved");
    // Back again: the job that waits for a human has no state to stand in.
    let back = migrate(&server, json!({ "to_version": 1, "states": { "prepare": "pack" } })).await.json();
    let told: Vec<(&str, &Value)> = back["moves"]
        .as_array()
        .unwrap()
        .iter()
        .map(|done| (done["job_id"].as_str().unwrap(), &done["refused"]))
        .collect();
    assert_eq!(told, [(new.as_str(), &json!("no_such_state")), (old.as_str(), &Value::Null)]);
}

/// Whoever slips would find the jobs of that state where they should not be.
#[tokio::test]
async fn a_state_in_which_no_job_can_stand_is_refused_by_name_in_the_dry_run_too() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), PACK);
    let server = Server::start_from(dir.path()).await;
    let old = server.post("/api/orders", "{}").await.text("job_id");
    write(dir.path(), PREPARE);
    assert_eq!(server.post("/api/reload", "").await.status, 200);
    let meant = "No version of \"order\" that is moved has a state \"pac\"; did you mean \"pack\"?";
    let of_no_moved_version = "No version of \"order\" that is moved has a state \"check\"";
    let map = json!({ "pac": "prepare", "pack": "prepare" });
    for (body, told) in [
        (json!({ "states": map }), meant),
        (json!({ "states": map, "dry_run": true }), meant),
        (json!({ "states": map, "from_version": 1 }), meant),
        (json!({ "states": map, "include_failed": true }), meant),
        (json!({ "states": { "check": "prepare" } }), of_no_moved_version),
        (json!({ "states": { "check": "pack" }, "from_version": 1, "to_version": 1 }), of_no_moved_version),
    ] {
        let answer = migrate(&server, body).await;
        assert_eq!((answer.status, answer.text("code").as_str()), (400, "STATE_NOT_FOUND"), "{answer:?}");
        assert_eq!(answer.error(), told);
    }
    assert_eq!(job(&server, &old).await["blueprint_version"], 1, "nothing has moved");
}

#[tokio::test]
async fn a_client_moves_its_own_jobs_only_and_mistakes_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), PACK);
    let server = Server::start_from(dir.path()).await;
    let alices = server.post("/api/orders", "{}").await.text("job_id");
    write(dir.path(), &PACK.replace("type: pack", "type: wrap"));
    assert_eq!(server.post("/api/reload", "").await.status, 200);

    let bobs = server.by(BOB, "POST", "/api/v1/blueprints/order/migrate", "").await;
    assert_eq!((bobs.status, &bobs.json()["moves"]), (200, &json!([])));
    assert_eq!(job(&server, &alices).await["blueprint_version"], 1);
    for (body, status, code) in [
        (json!({ "to_version": 7 }), 404, "BLUEPRINT_NOT_FOUND"),
        (json!({ "states": { "pack": "nowhere" } }), 400, "STATE_NOT_FOUND"),
        (json!({ "cursor": "x" }), 400, "INVALID_ARGUMENT"),
        (json!({ "version": 2 }), 400, "INVALID_JSON"),
    ] {
        let answer = migrate(&server, body).await;
        assert_eq!((answer.status, answer.text("code").as_str()), (status, code), "{answer:?}");
    }
    let answer = server.post("/api/blueprints/none/migrate", "{}").await;
    assert_eq!((answer.status, answer.text("code").as_str()), (404, "BLUEPRINT_NOT_FOUND"));

    let caller = Caller::new(&server, ALICE).await;
    let request = caller.request(MigrateJobsRequest::default());
    assert_eq!(caller.jobs().migrate_jobs(request).await.unwrap_err().code(), Code::InvalidArgument);
    let request = MigrateJobsRequest { blueprint: "order".into(), from_version: 1, ..Default::default() };
    let page = caller.jobs().migrate_jobs(caller.request(request)).await.unwrap().into_inner();
    assert_eq!(
        (page.to_version, page.moves[0].job_id.as_str(), page.moves[0].refused.as_str()),
        (2, &*alices, "")
    );
    assert_eq!(job(&server, &alices).await["current_task"]["type"], "wrap");
}

#[tokio::test]
async fn a_job_that_failed_moves_when_it_is_asked_for_and_stays_failed() {
    let dir = tempfile::tempdir().unwrap();
    let choose = |condition: &str| {
        format!(
            "  pick: {{ start: true, choice: [ {{ when: \"{condition}\", next: done }} ] }}\n  done: {{ end: finished }}\n"
        )
    };
    write(dir.path(), &choose("initial_data.none"));
    let server = Server::start_from(dir.path()).await;
    let id = server.post("/api/orders?wait=10s", "{}").await.text("id");
    assert_eq!(job(&server, &id).await["status"], "failed");
    write(dir.path(), &choose("true"));
    assert_eq!(server.post("/api/reload", "").await.status, 200);

    assert_eq!(migrate(&server, json!({})).await.json()["moves"], json!([]));
    let counted = server.get("/api/dashboard").await.json()["jobs"].clone();
    let moved = migrate(&server, json!({ "include_failed": true })).await.json();
    assert_eq!((&moved["moves"][0]["state"], &moved["moves"][0]["refused"]), (&json!("pick"), &Value::Null));
    let job = job(&server, &id).await;
    assert_eq!((&job["status"], &job["blueprint_version"]), (&json!("failed"), &json!(2)));
    assert_eq!(server.get("/api/dashboard").await.json()["jobs"], counted, "it has not failed twice");
}
