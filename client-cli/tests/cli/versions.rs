//! Commands about versions of blueprints.

use avtomatika_proto::v1::{BlueprintChange, Finding, FindingSeverity, ReloadConfigResponse};
use insta::assert_snapshot;

use crate::server::{Script, Server};

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
    assert!(dry.stderr.contains("This is what a reload would change"), "{dry}");
    assert_eq!(
        server.heard(|heard| heard.reloads.iter().map(|request| request.dry_run).collect::<Vec<_>>()),
        [false, false, true]
    );
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
