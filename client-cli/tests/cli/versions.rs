//! Commands about versions of blueprints.

use avtomatika_proto::v1::{
    BlueprintChange, BlueprintInfo, Finding, FindingSeverity, GetBlueprintResponse, JobMove,
    MigrateJobsResponse, PutBlueprintResponse, ReloadConfigResponse,
};
use insta::assert_snapshot;

use crate::{
    files::file,
    server::{JOB_ID, Script, Server, avtomatika, ran},
};

fn change(name: &str, previous_version: u32, version: u32) -> BlueprintChange {
    BlueprintChange { name: name.into(), version, previous_version }
}

fn finding(severity: FindingSeverity, line: u32, what: &str) -> Finding {
    Finding {
        severity: severity.into(),
        file: "blueprints/order.yaml".into(),
        line,
        column: line.min(7),
        what: what.into(),
        cure: "mend it".into(),
    }
}

#[test]
fn reload_shows_what_changed() {
    let reload = ReloadConfigResponse {
        applied: true,
        changes: vec![change("fetch", 0, 1), change("order", 2, 3), change("picture", 1, 0)],
        unchanged: 4,
        findings: vec![finding(FindingSeverity::Warning, 3, "a choice without `else`")],
    };
    let server = Server::start(Script { reload, ..Script::default() });
    assert_snapshot!("reload_table", server.run(&["reload"]));
    assert_snapshot!("reload_json", server.run(&["reload", "-o", "json"]));
    let dry = server.run(&["reload", "--dry-run"]);
    assert_eq!(dry.stderr, "This is what a reload would change; 4 would stay as they are.\n");
    assert_eq!(
        server.heard(|heard| heard.reloads.iter().map(|request| request.dry_run).collect::<Vec<_>>()),
        [false, false, true]
    );
}

#[test]
fn one_blueprint_is_spoken_of_as_one() {
    let reload = ReloadConfigResponse { applied: true, unchanged: 1, ..ReloadConfigResponse::default() };
    let server = Server::start(Script { reload, ..Script::default() });
    assert_eq!(server.run(&["reload"]).stderr, "Reloaded; 1 blueprint is as it was.\n");
    let dry = server.run(&["reload", "--dry-run"]);
    assert_eq!(dry.stderr, "This is what a reload would change; 1 would stay as it is.\n");
}

#[test]
fn a_reload_that_finds_a_mistake_shows_all_of_them_and_ends_with_1() {
    let findings = vec![
        finding(FindingSeverity::Error, 0, "cannot be read: Permission denied"),
        finding(FindingSeverity::Error, 12, "no state `dnoe`"),
    ];
    let reload = ReloadConfigResponse { findings, ..ReloadConfigResponse::default() };
    let server = Server::start(Script { reload, ..Script::default() });
    assert_snapshot!("reload_refused_table", server.run(&["reload"]));
    assert_eq!(server.run(&["reload", "-o", "json"]).code, 1);
}

#[test]
fn put_sends_the_file_and_says_what_new_jobs_take() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir, "order.yaml", NEW);
    let put = |change, findings: Vec<Finding>| {
        let put = PutBlueprintResponse { applied: true, change, findings };
        Server::start(Script { put, ..Script::default() })
    };
    let server = put(Some(change("order", 2, 3)), vec![]);
    let answer = server.run(&["blueprint", "put", &file]);
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "Blueprint order: version 3 instead of 2.\n"));
    let dry = server.run(&["blueprint", "put", &file, "--dry-run", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!(shown["change"], serde_json::json!({ "name": "order", "version": 3, "previous_version": 2 }));
    let heard = server.heard(|heard| heard.puts.clone());
    assert_eq!(
        (heard[0].definition.as_str(), heard[0].file.as_str(), heard[0].dry_run),
        (NEW, &*file, false)
    );
    assert!(heard[1].dry_run);

    let same = put(Some(change("order", 3, 3)), vec![]).run(&["blueprint", "put", &file]);
    assert_eq!(same.stdout, "Blueprint order is served like this already: version 3.\n");
    let refused = put(None, vec![finding(FindingSeverity::Error, 12, "no state `dnoe`")]);
    let refused = refused.run(&["blueprint", "put", &file]);
    assert_eq!((refused.code, refused.stderr.as_str()), (1, "Nothing has changed.\n"));
    assert!(refused.stdout.contains("12:7: error: no state `dnoe`; mend it"), "{refused}");
    assert_eq!(server.run(&["blueprint", "put", "nowhere.yaml"]).code, 2);
}

fn moved(version: u32, state: &str, to_state: &str, refused: &str) -> JobMove {
    let why = if refused.is_empty() { "" } else { "it waits for children: it can move when they have ended" };
    JobMove {
        job_id: JOB_ID.into(),
        version,
        state: state.into(),
        to_state: to_state.into(),
        refused: refused.into(),
        why: why.into(),
    }
}

fn two_pages() -> Script {
    let page = |moves, next_cursor: &str| MigrateJobsResponse {
        to_version: 3,
        moves,
        next_cursor: next_cursor.to_owned(),
    };
    let first =
        vec![moved(2, "pack", "prepare", ""), moved(2, "init", "init", ""), moved(1, "init", "init", "")];
    let second = vec![moved(1, "init", "init", ""), moved(1, "fan", "fan", "children_run")];
    Script { migrations: vec![page(first, "c1"), page(second, "")], ..Script::default() }
}

#[test]
fn migrate_counts_the_jobs_by_where_they_stand_and_what_becomes_of_them() {
    let arguments = ["blueprint", "migrate", "order", "--map", "pack=prepare", "--from", "2", "--failed"];
    let server = Server::start(two_pages());
    assert_snapshot!("migrate_table", server.run(&arguments));
    let heard = server.heard(|heard| heard.migrated.clone());
    assert_eq!((heard[0].to_version, heard[0].from_version, heard[0].include_failed), (0, 2, true));
    assert_eq!(heard[0].states["pack"], "prepare");
    assert_eq!((heard[1].to_version, heard[1].cursor.as_str()), (3, "c1"), "all pages go to one version");

    let server = Server::start(two_pages());
    assert_snapshot!("migrate_dry_run_table", server.run(&["blueprint", "migrate", "order", "--dry-run"]));
    let server = Server::start(two_pages());
    assert_snapshot!("migrate_json", server.run(&["blueprint", "migrate", "order", "-o", "json"]));
}

#[test]
fn migrate_with_nothing_to_do_says_so() {
    let nothing = MigrateJobsResponse { to_version: 3, ..MigrateJobsResponse::default() };
    let server = Server::start(Script { migrations: vec![nothing], ..Script::default() });
    let answer = server.run(&["blueprint", "migrate", "order"]);
    assert_eq!((answer.code, answer.stderr.as_str()), (0, "No open job has another version than 3.\n"));
    let answer = server.run(&["blueprint", "migrate", "order", "--map", "pack"]);
    assert!(answer.code == 2 && answer.stderr.contains("expected OLD=NEW"), "{answer}");
}

const OLD: &str = "blueprint: order
states:
  init: { start: true, task: { type: check, timeout: 1m }, on: { success: pack } }
  pack: { task: { type: pack }, on: { success: ask } }
  ask: { approval: { message: sure? }, on: { approved: done } }
  done: { end: finished }
";

const NEW: &str = "blueprint: order
states:
  init: { start: true, task: { type: check, timeout: 2m }, on: { success: prepare, failure: done } }
  prepare: { task: { type: pack }, on: { success: ask } }
  ask: { approval: { message: really? }, on: { approved: done } }
  done: { end: finished }
";

#[test]
fn diff_tells_what_changes_and_what_that_means_for_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (file(&dir, "old.yaml", OLD), file(&dir, "new.yaml", NEW));
    let diff = |arguments: &[&str]| ran(&mut avtomatika(&[&["blueprint", "diff"], arguments].concat()));
    assert_snapshot!("diff_table", diff(&[&old, &new]));
    assert_snapshot!("diff_json", diff(&[&old, &new, "-o", "json"]));
    let same = diff(&[&old, &old]);
    assert_eq!((same.code, same.stdout.as_str(), same.stderr.as_str()), (0, "", "The two mean the same.\n"));
    let broken = file(&dir, "broken.yaml", "blueprint: [");
    assert_eq!(diff(&[&old, &broken]).code, 2);
    assert!(diff(&[&old, "order@x"]).stderr.contains("names no version"));

    // A served version against a file.
    let loaded = avtomatika_orchestrator::blueprint::load("old.yaml", OLD).unwrap();
    let served = GetBlueprintResponse {
        blueprint: Some(BlueprintInfo { name: "order".into(), version: 3, ..BlueprintInfo::default() }),
        definition: loaded.definition.canonical().to_string(),
        ..GetBlueprintResponse::default()
    };
    let server = Server::start(Script { blueprints: vec![served], ..Script::default() });
    let answer = server.run(&["blueprint", "diff", "order@3", &new]);
    assert_eq!((answer.code, answer.stdout), (1, diff(&[&old, &new]).stdout));
}
