//! The schema for editors agrees with the loader: what loads fits it, and what it refuses does not load.

use serde_json::Value;

use super::*;
use crate::blueprint::{
    finding::Findings,
    yaml::{self, Node},
};

fn schema() -> Schema {
    Schema::compile(&serde_json::from_str(EDITOR_SCHEMA).unwrap()).unwrap()
}

fn tree(text: &str) -> Value {
    Node::to_json(&yaml::parse(text, &mut Findings::new("f")).unwrap())
}

/// Every file that the repository shows, and one with everything in it.
fn sound() -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints");
    let mut texts: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    texts.push(kinds::ALL_KINDS.to_owned());
    texts
}

#[test]
fn every_example_and_its_canonical_form_fit_the_schema_of_editors() {
    let schema = schema();
    let texts = sound();
    assert!(texts.len() > 5);
    for text in texts {
        assert_eq!(schema.check("file", &tree(&text)), Ok(()), "{text}");
        let canonical: Value =
            serde_json::from_str(load("f", &text).unwrap().definition.canonical()).unwrap();
        assert_eq!(schema.check("canonical", &canonical), Ok(()), "{canonical}");
    }
}

#[test]
fn what_is_broken_in_its_form_does_not_fit_and_does_not_load() {
    let schema = schema();
    let all = kinds::ALL_KINDS;
    assert!(schema.check("file", &tree(all)).is_ok());
    for (sound, broken) in [
        ("blueprint: all_kinds", "name: all_kinds"),
        ("blueprint: all_kinds", "blueprint: all kinds"),
        ("defaults: { timeout: 1m", "defaults: { timeout: 60"),
        ("over: initial_data.pages", "list: initial_data.pages"),
        ("max_parallel: 3", "max_parallel: 0"),
        ("tolerate: 10%", "tolerate: ten"),
        ("on: { success: both, failure: failed }", "on: { failure: failed }"),
        ("on: { success: both, failure: failed }", "on: { success: both, failed: failed }"),
        ("left: { task: { type: left, strategy: cheapest } }", "left: { task: { type: left }, code: left }"),
        ("left: { task: { type: left, strategy: cheapest } }", "left: { pass: {} }"),
        ("strategy: cheapest", "strategy: cheap"),
        ("resources: { cpus: 8 }", "resources: { cpus: many }"),
        ("models: [m]", "models: m"),
        ("max_cost: 1", "max_cost: -1"),
        ("weight: 7", "weight: 0"),
        ("wait: false", "wait: 'no'"),
        ("run: { blueprint: child, ", "run: { "),
        ("approval: { message", "approval: { question"),
        ("event: { name: \"paid:${job.id}\", ", "event: { "),
        ("rest: { wait: 10s, next: night }", "rest: { wait: 10, next: night }"),
        ("rest: { wait: 10s, next: night }", "rest: { wait: 10s }"),
        ("else: finished }", "otherwise: finished }"),
        ("{ when: results.size() > 0, next: work }", "{ when: results.size() > 0 }"),
        ("catch: { NO_STOCK: rest }", "catch: [ rest ]"),
        ("retry: { max_retries: 0 }", "retry: { max_retries: -1 }"),
        ("end: finished, result: { sum: \"${state_history.sum}\" }", "end: done"),
        ("failed: { end: failed }", "failed: { end: failed, on: { success: failed } }"),
        ("failed: { end: failed }", "failed: { start: false }"),
    ] {
        assert!(all.contains(sound), "{sound}");
        let text = all.replacen(sound, broken, 1);
        assert!(schema.check("file", &tree(&text)).is_err(), "{broken} fits");
        assert!(load("f", &text).is_err(), "{broken} loads");
    }
}
