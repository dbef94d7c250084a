//! Whole files: what loads, what is found, and that nothing makes the loader panic.

use std::{path::Path, sync::Arc, time::Duration};

use super::*;

const SEED: &str = include_str!("../../../examples/blueprints/test_workflow.yaml");

/// What the loader has to say about a text, one finding a line.
fn findings(text: &str) -> String {
    let findings = match load("f.yaml", text) {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings,
    };
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let expected: String = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(findings(text), expected);
}

#[test]
fn the_seed_blueprint_is_read_as_it_is_written() {
    let blueprint = load("seed", SEED).unwrap().definition.into_blueprint(3);
    assert_eq!(&*blueprint.name, "test_workflow");
    assert_eq!(blueprint.version, 3);
    assert_eq!(blueprint.endpoint.as_deref(), Some("/jobs/test"));
    assert_eq!(&*blueprint.start, "init");
    assert_eq!(blueprint.max_transitions, 100);
    let names: Vec<&str> = blueprint.states.keys().map(|name| &**name).collect();
    assert_eq!(names, ["init", "completed", "failed"]);
    assert_eq!(blueprint.task_types(), [Arc::from("process_data")]);
    let StateKind::Task(task) = &blueprint.state("init").unwrap().kind else { panic!("init is a task") };
    assert_eq!(task.timeout, Duration::from_secs(60));
    assert_eq!(task.retry, RetryPolicy::default());
    assert_eq!(task.on.get("failure").map(|to| &**to), Some("failed"));
    assert!(matches!(blueprint.state("completed").unwrap().kind, StateKind::End(EndState::Finished)));
    assert!(matches!(blueprint.state("failed").unwrap().kind, StateKind::End(EndState::Failed)));
}

#[test]
fn every_shipped_example_loads_without_findings() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints");
    let loaded = load_dir(&dir).unwrap();
    assert!(loaded.len() >= 3);
    for one in loaded {
        assert_eq!(one.warnings, [], "{}", one.definition.name());
    }
}
