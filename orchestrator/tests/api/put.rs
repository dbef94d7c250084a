//! Blueprints that come over the wire.

use avtomatika_proto::v1::{FindingSeverity, PutBlueprintRequest};
use serde_json::{Value, json};

use crate::{
    grpc::Caller,
    reload::{task, write},
    support::{ALICE, Answer, Server},
};

impl Server {
    async fn put(&self, name: &str, definition: &str) -> Answer {
        self.by(ALICE, "PUT", &format!("/api/blueprints/{name}"), definition).await
    }

    async fn reloaded(&self) -> Value {
        self.post("/api/reload", "").await.json()["changes"].clone()
    }
}

#[tokio::test]
async fn a_blueprint_is_served_as_soon_as_it_was_put_and_jobs_that_exist_keep_theirs() {
    let server = Server::start().await;
    let answer = server.put("parcel", &task("parcel", "/parcels", "pack")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let put =
        json!({ "applied": true, "name": "parcel", "version": 1, "previous_version": null, "findings": [] });
    assert_eq!(answer.json(), put);
    let old = server.post("/api/parcels", "{}").await.text("job_id");

    // By gRPC, and first only tried.
    let caller = Caller::new(&server, ALICE).await;
    let put = async |dry_run| {
        let definition = task("parcel", "/v2/parcels", "ship");
        let request = PutBlueprintRequest { definition, dry_run, ..Default::default() };
        caller.admin().put_blueprint(caller.request(request)).await.unwrap().into_inner()
    };
    for (dry_run, applied, versions) in [(true, false, (1, 2)), (false, true, (1, 2)), (false, true, (2, 2))]
    {
        let response = put(dry_run).await;
        let change = response.change.unwrap();
        assert_eq!((response.applied, (change.previous_version, change.version)), (applied, versions));
    }
    assert_eq!(server.post("/api/parcels", "{}").await.status, 404, "the endpoint has moved");
    let new = server.post("/api/v2/parcels", "{}").await.text("job_id");
    for (id, version) in [(old, 1), (new, 2)] {
        assert_eq!(server.get(&format!("/api/jobs/{id}")).await.json()["blueprint_version"], version);
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_as_of_a_file_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &task("a", "/a", "pack"));
    let server = Server::start_from(dir.path()).await;
    let no_state = task("b", "/b", "pack").replace("success: done", "success: dnoe");
    for (name, definition, words) in [
        ("b", no_state.as_str(), "`dnoe`"),
        ("b", "blueprint: [", "b: error:"),
        ("c", &task("b", "/b", "pack"), "the blueprint is called `b`, and is put as `c`"),
        ("b", &task("b", "/a", "pack"), "the endpoint `/a` belongs to the blueprint `a`"),
    ] {
        let answer = server.put(name, definition).await;
        assert_eq!((answer.status, answer.text("code").as_str()), (422, "BLUEPRINTS_INVALID"));
        let finding = &answer.json()["findings"][0];
        let shown = format!(
            "{}: {}: {}",
            finding["file"].as_str().unwrap(),
            finding["severity"].as_str().unwrap(),
            finding["what"].as_str().unwrap()
        );
        assert!(shown.contains(words), "{shown:?} does not contain {words:?}");
    }
    let caller = Caller::new(&server, ALICE).await;
    let request = PutBlueprintRequest { definition: no_state, ..Default::default() };
    let response = caller.admin().put_blueprint(caller.request(request)).await.unwrap().into_inner();
    assert!(!response.applied && response.change.is_none());
    assert_eq!(
        (response.findings[0].severity(), response.findings[0].file.as_str()),
        (FindingSeverity::Error, "blueprint")
    );
    assert_eq!(server.get("/api/blueprints").await.json().as_array().unwrap().len(), 1);

    // What it runs may come later.
    let runs = "blueprint: b\nstates:\n  go: { start: true, run: { blueprint: later }, on: { success: done } }\n  done: { end: finished }\n";
    let answer = server.put("b", runs).await.json();
    assert_eq!((&answer["version"], &answer["findings"][0]["severity"]), (&json!(1), &json!("warning")));

    assert_eq!(server.send("PUT", "/api/blueprints/a", &[], "").await.status, 401);
    assert_eq!(server.by(ALICE, "PUT", "/api/blueprints/a?force=1", "").await.status, 400);
    assert_eq!(server.by(ALICE, "PUT", "/api/blueprints/a?dry_run=yes", "").await.status, 400);
    assert_eq!(server.by(ALICE, "PUT", "/api/blueprints/a", &"x".repeat(1 << 21)).await.status, 413);
}

#[tokio::test]
async fn what_was_put_stays_until_its_file_says_something_new() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &task("a", "/a", "pack"));
    let server = Server::start_from(dir.path()).await;
    server.put("a", &task("a", "/a", "ship")).await;
    server.put("b", &task("b", "/b", "ship")).await;
    assert_eq!(server.reloaded().await, json!([]), "neither the file of a nor that b has none");

    // A file cannot take the endpoint away either.
    write(dir.path(), "c.yaml", &task("c", "/b", "pack"));
    let refused = server.post("/api/reload", "").await;
    assert_eq!(refused.status, 422);
    let finding = &refused.json()["findings"][0];
    assert_eq!(finding["what"], "the endpoint `/b` belongs to the blueprint `b`");
    assert!(finding["file"].as_str().unwrap().ends_with("c.yaml") && finding["line"] == 2);
    std::fs::remove_file(dir.path().join("c.yaml")).unwrap();

    write(dir.path(), "a.yaml", &task("a", "/a", "weigh"));
    write(dir.path(), "b.yaml", &task("b", "/b", "weigh"));
    let changes = server.reloaded().await;
    let change =
        |name, version, before| json!({ "name": name, "version": version, "previous_version": before });
    assert_eq!(changes, json!([change("a", 3, 2), change("b", 2, 1)]));
}
