//! The loader of blueprints, which reads files and what is put over the wire; and the pictures of what it has loaded.

use std::path::Path;

use crate::{
    blueprint::{Definition, load},
    graph::{Format, render},
};

const WORDS: [&str; 40] = [
    "blueprint: ",
    "states:\n",
    "  a:\n",
    "start: true",
    "end: finished",
    "task: { type: t }",
    "on: { success: a }",
    "pass: {}",
    "next: a",
    "choice: [{ when: 'true', next: a }]",
    "else: a",
    "wait: 1s",
    "event: { name: e }",
    "approval: {}",
    "map: { over: '[1]', task: { type: t } }",
    "run: { blueprint: b }",
    "retry: { max_retries: 1 }",
    "catch: [{ code: X, next: a }]",
    "concurrency: [{ key: 'job.id', limit: 1 }]",
    "rate: [{ key: 'a', limit: 1/s }]",
    "requires: { labels: { a: b } }",
    "input_schema: { type: object }",
    "endpoint: /a",
    "defaults: {}",
    "max_transitions: 3",
    "output: { a: 'result.x' }",
    "'${job.id}'",
    "&x ",
    "*x",
    "<<: *x",
    "? ",
    "!!str ",
    "---\n",
    "- ",
    ": ",
    "\n  ",
    "\t",
    "|\n",
    "{",
    "}",
];

/// What is loaded says the same in its canonical form, and can be drawn; what is not is told in sentences.
fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match load("f", text) {
        Ok(loaded) => {
            let canonical = loaded.definition.canonical().clone();
            let again = Definition::from_canonical(&canonical)
                .unwrap_or_else(|found| panic!("{found:?}\n{canonical}"));
            assert_eq!(again.canonical(), &canonical);
            let graph = loaded.definition.into_blueprint(1).graph();
            for format in Format::ALL {
                assert!(!render(&graph, format).is_empty());
            }
        }
        Err(findings) => {
            assert!(!findings.is_empty());
            for finding in findings {
                let said = finding.to_string();
                assert!(said.len() < 2000 && !said.chars().any(char::is_control), "{said:?}");
            }
        }
    }
}

#[test]
fn fuzz_blueprint() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints");
    let examples = super::files(&examples).into_iter().map(|file| std::fs::read(file).unwrap());
    super::fuzz("blueprint", examples.collect(), &WORDS, check);
}
