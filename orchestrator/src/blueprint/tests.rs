//! Whole files: what loads, what is found, and that nothing makes the loader panic.

use std::{fs, path::Path, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;

const SEED: &str = include_str!("../../../examples/blueprints/test_workflow.yaml");

mod bad_input;
mod editor;
pub mod kinds;

/// What the loader has to say about a text, one finding a line.
fn findings(text: &str) -> String {
    let findings = match load("f", text) {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings,
    };
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let lines = expected.lines().map(str::trim).filter(|line| !line.is_empty());
    let expected: String = lines.map(|line| format!("{line}\n")).collect();
    assert_eq!(findings(text), expected, "in\n{text}");
}

/// Checks a file that has these states beside the ends `done` and `failed`; its first state stands in line 3.
#[track_caller]
fn check_states(states: &str, expected: &str) {
    check(
        &format!(
            "blueprint: b\nstates:\n{states}\n  done: {{ end: finished }}\n  failed: {{ end: failed }}\n"
        ),
        expected,
    );
}

/// Checks a task state with these lines in its task.
#[track_caller]
fn check_task(task: &str, expected: &str) {
    let task = format!(
        "  init:\n    start: true\n    task:\n      type: work\n{task}\n    on: {{ success: done, failure: failed }}"
    );
    check_states(&task, expected);
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
    assert_eq!(task.work.timeout, Duration::from_secs(60));
    assert_eq!(task.work.retry, RetryPolicy::default());
    assert_eq!(task.on.get("failure").map(|to| &**to), Some("failed"));
    assert!(matches!(
        blueprint.state("completed").unwrap().kind,
        StateKind::End(EndState { end: End::Finished, .. })
    ));
    assert!(matches!(
        blueprint.state("failed").unwrap().kind,
        StateKind::End(EndState { end: End::Failed, .. })
    ));
}

fn examples() -> Vec<Loaded> {
    load_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints")).unwrap()
}

#[test]
fn every_shipped_example_loads_without_findings() {
    let loaded = examples();
    assert!(loaded.len() >= 3);
    for one in loaded {
        assert_eq!(one.warnings, [], "{}", one.definition.name());
    }
}

#[test]
fn the_canonical_form_makes_the_same_blueprint_again() {
    for one in examples() {
        let again = Definition::from_canonical(one.definition.canonical()).unwrap();
        assert_eq!(again.canonical(), one.definition.canonical());
        assert_eq!(
            format!("{:?}", again.into_blueprint(1)),
            format!("{:?}", one.definition.into_blueprint(1))
        );
    }
}

#[test]
fn the_canonical_form_writes_out_every_default() {
    let form = |text| load("f", text).unwrap().definition.canonical().to_string();
    insta::assert_snapshot!(form(SEED), @r#"{"blueprint":"test_workflow","endpoint":"/jobs/test","max_transitions":100,"states":{"init":{"start":true,"task":{"type":"process_data","params":{"job_id":"${job.id}","payload":"${initial_data.input}"},"timeout":"60s","retry":{"max_retries":3,"initial_delay":"1s","max_delay":"60s","multiplier":2.0}},"on":{"failure":"failed","success":"completed"}},"completed":{"end":"finished"},"failed":{"end":"failed"}}}"#);
}

#[test]
fn spelling_makes_no_new_version_and_meaning_does() {
    let form = |text: &str| load("f", text).unwrap().definition.canonical().to_string();
    let same = [
        SEED.replace("timeout: 60s", "timeout: 1m"),
        SEED.replace("timeout: 60s", "timeout: 60000ms\n      retry: { multiplier: 2, max_delay: 1m }"),
        SEED.replace("{ success: completed, failure: failed }", "{ failure: failed, success: 'completed' }"),
        SEED.replace("states:", "max_transitions: 100\nstates: # a remark"),
        form(SEED),
    ];
    for text in same {
        assert_eq!(form(&text), form(SEED), "{text}");
    }
    let other = [
        SEED.replace("timeout: 60s", "timeout: 61s"),
        SEED.replace("/jobs/test", "/jobs/test2"),
        SEED.replace("${job.id}", "${job.id} "),
    ];
    for text in other {
        assert_ne!(form(&text), form(SEED), "{text}");
    }
}

#[test]
fn a_damaged_canonical_form_is_an_error() {
    for text in ["", "{", "[]", "{}", "{\"blueprint\":\"b\",\"states\":{\"x\":{\"map\":1}}}"] {
        assert!(Definition::from_canonical(text).is_err(), "{text}");
    }
}

#[test]
fn all_findings_come_at_once_and_in_the_order_of_the_file() {
    check(
        r#"
blueprint: my workflow
endpoint: jobs
max_transitions: 0
colour: red
states:
  init:
    start: yes
    task:
      tpye: process_data
      params: { id: "${job.id}", amount: "${initial_dta.amount}" }
      timeout: 60
      retry: { max_retries: -1, multiplier: 0.5 }
    on: { failure: faield }
  failed: { end: fail }
"#,
        "
        f:2:12: error: `my workflow` cannot be a blueprint's name; use 1 to 128 characters of a-z, A-Z, 0-9 and ._-
        f:3:11: error: `jobs` cannot be an endpoint; begin it with `/` and use at most 128 characters of a-z, 0-9, `/`, `_` and `-`, as in `/jobs/test`
        f:4:18: error: `max_transitions` must be a whole number, not `0`; write one from 1 to 10000
        f:5:1: error: unknown key `colour` in a blueprint; known are `blueprint`, `endpoint`, `max_transitions`, `input_schema`, `concurrency`, `rate`, `defaults`, `states`
        f:8:12: error: `start` must be true or false, not `yes`; write `start: true` in one state
        f:10:7: error: unknown key `tpye` in the task of state `init`; did you mean `type`?
        f:10:7: error: the task of state `init` has no `type`; say what a worker must serve, as in `type: process_data`
        f:11:45: error: unknown variable `initial_dta`; did you mean `initial_data`?
        f:12:16: error: `timeout` must be a duration, not `60`; write for example 500ms, 30s, 5m or 1h; from 1ms to 8784h
        f:13:29: error: `max_retries` must be a whole number, not `-1`; write one from 0 to 1000
        f:13:45: error: `multiplier` must be a number, not `0.5`; write one from 1 to 100
        f:14:9: error: `on` of state `init` has no `success`; say where a success leads, as in `on: { success: completed }`
        f:14:20: error: there is no state `faield`; did you mean `failed`?
        f:15:18: error: a job cannot end as `fail`; write `end: finished` or `end: failed`
        ",
    );
}

#[test]
fn a_file_that_is_no_blueprint_is_named_as_such() {
    check("", "f:1:1: error: the file is empty; write a blueprint, see docs/blueprints.md");
    check("# only a remark\n", "f:1:1: error: the file is empty; write a blueprint, see docs/blueprints.md");
    check("- 1\n", "f:1:1: error: a blueprint must be a map, not a list; write it as `key: value` lines");
    check("hello", "f:1:1: error: a blueprint must be a map, not a string; write it as `key: value` lines");
    check("blueprint: b\n", "f:1:1: error: a blueprint has no `states`; list the states under `states:`");
    check(
        "blueprint: b\nstates: {}\n",
        "f:2:1: error: the blueprint has no states; add a start and an end, see docs/blueprints.md",
    );
    check(
        "blueprint: 7\nstates: []\n",
        "
        f:1:12: error: a blueprint's name must be a string, not a number; put it in quotes
        f:2:9: error: `states` must be a map, not a list; write it as `key: value` lines
        ",
    );
    check(
        "states: {}\n---\nstates: {}\n",
        "f:2:1: error: the file has a second document; put each blueprint into a file of its own",
    );
}

#[test]
fn text_that_is_no_yaml_is_named_with_its_place() {
    check(
        "blueprint: [\n",
        "f:1:12: error: not YAML: unclosed bracket '['; check the indentation, colons and quotes around here",
    );
    check(
        "blueprint: b\n\tstates: {}\n",
        "f:1:12: error: not YAML: while scanning a plain scalar, found a tab; check the indentation, colons and quotes around here",
    );
    check(
        "a: 1\n b: 2\n",
        "f:2:3: error: not YAML: mapping values are not allowed in this context; check the indentation, colons and quotes around here",
    );
    check(
        "a: { b: ${initial_data.x} }\n",
        "f:1:10: error: not YAML: while parsing a flow mapping, did not find expected ',' or '…; write expressions in quotes, as in `\"${initial_data.id}\"`: within { } and [ ] they end at the first brace",
    );
    check(
        "blueprint: !!str b\n",
        "f:1:12: error: tags are not supported; write the value without its `!` tag",
    );
    check("? [a]\n: b\n", "f:1:3: error: a list cannot be a key; write a plain word before the colon");
    check("a: 1e999\n", "f:1:4: error: the number `1e999` is out of range; write it as a string, in quotes");
    check(
        "a: *nowhere\n",
        "f:1:4: error: not YAML: while parsing node, found unknown anchor; check the indentation, colons and quotes around here",
    );
}

#[test]
fn keys_stand_once() {
    check(
        "blueprint: b\nblueprint: c\nstates:\n  init: { start: true, task: { type: a, type: b }, on: { success: done, success: init } }\n  \
         done: { end: finished }\n  done: { end: failed }\n",
        "
        f:2:1: error: the key `blueprint` stands twice, first at line 1; remove or rename one of them
        f:4:41: error: the key `type` stands twice, first at line 4; remove or rename one of them
        f:4:73: error: the key `success` stands twice, first at line 4; remove or rename one of them
        f:6:3: error: the key `done` stands twice, first at line 5; remove or rename one of them
        ",
    );
}

#[test]
fn there_is_exactly_one_start() {
    check_states(
        "  a: { task: { type: t }, on: { success: done, failure: failed } }",
        "f:2:1: error: no state is the start; add `start: true` to one, perhaps to `a`",
    );
    check_states(
        "  a: { start: true, task: { type: t }, on: { success: b } }\n  b: { start: true, pass: {}, next: done }\n  \
         c: { start: true, task: { type: t }, on: { success: failed } }",
        "
        f:4:8: error: state `b` is a second start beside `a` (line 3); keep `start: true` in one of them
        f:5:8: error: state `c` is a second start beside `a` (line 3); keep `start: true` in one of them
        ",
    );
    check_states(
        "  a: { start: false, task: { type: t }, on: { success: done, failure: failed } }",
        "f:2:1: error: no state is the start; add `start: true` to one, perhaps to `a`",
    );
}

#[test]
fn a_state_has_exactly_one_kind() {
    check_states(
        "  a: { start: true }",
        "f:3:3: error: state `a` has no kind; give it one of `task`, `code`, `map`, `run`, `choice`, `pass`, `wait`, `event`, `approval`, `end`",
    );
    check_states(
        "  a: { start: true, tsak: { type: t }, on: { success: done } }",
        "
        f:3:3: error: state `a` has no kind; give it one of `task`, `code`, `map`, `run`, `choice`, `pass`, `wait`, `event`, `approval`, `end`
        f:3:21: error: unknown key `tsak` in state `a`; did you mean `task`?
        ",
    );
    check_states(
        "  a:\n    start: true\n    pass: {}\n    next: done\n    end: failed",
        "f:7:5: error: state `a` is both `pass` (line 5) and `end`; make two states of it",
    );
    check_states(
        "  a: 7",
        "
        f:2:1: error: no state is the start; add `start: true` to one, perhaps to `a`
        f:3:6: error: state `a` must be a map, not a number; write it as `key: value` lines
    ",
    );
    check_states(
        "  a b: { start: true, end: failed }",
        "f:2:1: error: no state is the start; add `start: true` to one, perhaps to `done`
         f:3:3: error: `a b` cannot be a state's name; use 1 to 128 characters of a-z, A-Z, 0-9 and ._-",
    );
}

#[test]
fn keys_of_another_kind_are_told_from_misspelt_ones() {
    check_states(
        "  a: { start: true, task: { type: t }, on: { success: b, failure: failed }, next: done }\n  \
         b: { choice: [ { when: 'true', next: c } ], else: done, on: { success: done } }\n  \
         c: { pass: {}, next: d, else: done }\n  d: { end: finished, on: { success: done }, nxet: done }",
        "
        f:3:77: error: `next` does not belong to a task state; write the transitions of a task under `on` and `catch`
        f:4:59: error: `on` does not belong to a choice state; write the transitions of a choice as `when`, `next` and `else`
        f:5:27: error: `else` does not belong to a pass state; write the transition of a pass state as `next`
        f:6:23: error: state `d` ends the job and has the transition `on`; remove `end` or the transition
        f:6:46: error: unknown key `nxet` in state `d`; known are `start`, `end`, `result`
        ",
    );
}

#[test]
fn transitions_lead_to_states() {
    check_states(
        "  a: { start: true, task: { type: t }, on: { success: dnoe, failure: Failed, odd: nowhere } }\n  \
         b: { choice: [ { when: 'true', next: don } ], else: 7 }\n  c: { pass: {}, next: bb }",
        "
        f:3:55: error: there is no state `dnoe`; did you mean `done`?
        f:3:70: error: there is no state `Failed`; did you mean `failed`?
        f:3:83: error: there is no state `nowhere`; known are `a`, `b`, `c`, `done`, `failed`
        f:4:40: error: there is no state `don`; did you mean `done`?
        f:4:55: error: `else` must be a string, not a number; put it in quotes
        f:5:24: error: there is no state `bb`; did you mean `b`?
        ",
    );
}

#[test]
fn every_state_is_reached_and_reaches_an_end() {
    check_states(
        "  a: { start: true, task: { type: t }, on: { success: b, failure: failed } }\n  \
         b: { task: { type: t }, on: { success: c } }\n  c: { task: { type: t }, on: { success: b } }\n  \
         lonely: { pass: {}, next: done }",
        "
        f:4:3: error: no way leads from state `b` to an end; add a transition towards an end state
        f:5:3: error: no way leads from state `c` to an end; add a transition towards an end state
        f:6:3: error: no transition leads to state `lonely`; let a transition lead to it, or remove it
        f:7:3: error: no transition leads to state `done`; let a transition lead to it, or remove it
        ",
    );
    check(
        "blueprint: b\nstates:\n  a: { start: true, task: { type: t }, on: { success: a } }\n",
        "f:2:1: error: no state ends the job; add one, as in `completed: { end: finished }`",
    );
}

#[test]
fn a_circle_without_a_task_is_unbounded() {
    check_states(
        "  a: { start: true, choice: [ { when: 'true', next: b } ], else: done }\n  b: { pass: {}, next: c }\n  \
         c: { choice: [ { when: 'true', next: a }, { when: 'true', next: c } ], else: failed }",
        "
        f:3:3: error: unbounded loop a→b→c→a; put a task into it, or let it end
        f:5:3: error: unbounded loop c→c; put a task into it, or let it end
        ",
    );
    // With a task in it, the circle waits for a worker each time round, and max_transitions bounds it.
    check_states(
        "  a: { start: true, choice: [ { when: 'true', next: b } ], else: done }\n  \
         b: { task: { type: t }, on: { success: a, failure: failed } }",
        "",
    );
}

#[test]
fn a_task_says_where_it_leads() {
    check_states(
        "  a: { start: true, task: { type: t } }\n  b: { task: { type: t }, on: {} }\n  \
         c: { task: { type: t }, on: { failure: failed } }\n  d: { task: { type: t }, on: [done] }\n  \
         e: { task: { type: t }, on: { success: done, so so: done } }",
        "
        f:3:3: error: state `a` has no `on`; say where a success leads, as in `on: { success: completed }`
        f:4:31: error: `on` of state `b` is empty; say where a success leads, as in `on: { success: completed }`
        f:5:31: error: `on` of state `c` has no `success`; say where a success leads, as in `on: { success: completed }`
        f:6:31: error: `on` must be a map, not a list; write it as `key: value` lines
        f:7:48: error: `so so` cannot be an outcome; use 1 to 64 characters of a-z, A-Z, 0-9 and ._-
        ",
    );
}

#[test]
fn an_outcome_that_is_nearly_a_usual_one_is_told() {
    check_states(
        "  a: { start: true, task: { type: t }, on: { success: done, failur: failed, rejected: failed } }\n  \
         b: { task: { type: t }, on: { success: a, failed: failed } }",
        "
        f:3:61: warning: the outcome `failur` is not `failure`; did you mean `failure`?
        f:4:3: error: no transition leads to state `b`; let a transition lead to it, or remove it
        f:4:45: warning: the outcome `failed` is not `failure`; did you mean `failure`?
        ",
    );
}

#[test]
fn a_choice_has_conditions_and_better_an_else() {
    check_states(
        "  a: { start: true, choice: [], else: b }\n  b: { choice: done }\n  \
         c: { choice: [ { when: 'initial_data.x >', next: done }, { wehn: 'true', next: done }, 5 ], else: d }\n  \
         d: { choice: [ { when: 'job.priority', next: failed } ] }",
        "
        f:3:29: error: the choice of state `a` is empty; list conditions, as in `choice: [ { when: \"initial_data.amount > 100\", next: manual } ]`
        f:4:16: error: `choice` must be a list, not a string; list conditions, as in `choice: [ { when: \"initial_data.amount > 100\", next: manual } ]`
        f:5:43: error: expected expression, found the end of the expression; expressions are CEL, see docs/blueprints.md
        f:5:60: error: a condition has no `when`; say when, as in `when: \"initial_data.amount > 100\"`
        f:5:62: error: unknown key `wehn` in a condition; did you mean `when`?
        f:5:90: error: a condition must be a map, not a number; write it as `key: value` lines
        f:6:3: warning: state `d` has no `else`: a job for which no condition holds fails; add `else: some_state`
        ",
    );
    check_states(
        "  d: { start: true, choice: [ { when: true, next: failed }, { when: \"1 < 2\", next: done } ] }",
        "f:3:3: warning: state `d` has no `else`: a job for which no condition holds fails; add `else: some_state`",
    );
}

#[test]
fn durations_and_numbers_have_their_ranges() {
    for good in ["1ms", "500ms", "30s", "5m", "1h", "8784h", "366d"] {
        check_task(&format!("      timeout: {good}"), "");
    }
    for bad in [
        "0s",
        "-1s",
        "5x",
        "5",
        "1.5s",
        "1h30m",
        "8785h",
        "367d",
        "99999999999999999999s",
        "9223372036854775807h",
        "s",
    ] {
        check_task(
            &format!("      timeout: {bad}"),
            &format!(
                "f:7:16: error: `timeout` must be a duration, not `{bad}`; write for example 500ms, 30s, 5m or 1h; from 1ms to 8784h"
            ),
        );
    }
    check_task("      retry: { max_retries: 1000, initial_delay: 5m, multiplier: 1 }", "");
    check_task("      retry: { max_delay: 500ms }", "");
    check_task(
        "      retry: { max_retries: 1001, initial_delay: 5m, max_delay: 1m, multiplier: .inf, jitter: 1 }",
        "
        f:7:29: error: `max_retries` must be a whole number, not `1001`; write one from 0 to 1000
        f:7:65: error: `max_delay` 60s is shorter than `initial_delay` 300s; raise `max_delay`
        f:7:81: error: `multiplier` must be a number, not `.inf`; write one from 1 to 100
        f:7:87: error: unknown key `jitter` in `retry`; known are `max_retries`, `initial_delay`, `max_delay`, `multiplier`
        ",
    );
}

#[test]
fn a_written_delay_moves_the_default_of_the_other() {
    let retry = |retry: &str| {
        let text = SEED.replace("timeout: 60s", &format!("retry: {{ {retry} }}"));
        let blueprint = load("f", &text).unwrap().definition.into_blueprint(1);
        match &blueprint.state("init").unwrap().kind {
            StateKind::Task(task) => {
                (task.work.retry.initial_delay.as_millis(), task.work.retry.max_delay.as_millis())
            }
            _ => unreachable!(),
        }
    };
    assert_eq!(retry("initial_delay: 5m"), (300_000, 300_000));
    assert_eq!(retry("max_delay: 500ms"), (500, 500));
    assert_eq!(retry("max_delay: 2m"), (1000, 120_000));
}

#[test]
fn endpoints_leave_room_for_the_api() {
    let endpoint = |path: &str| findings(&SEED.replace("/jobs/test", path));
    for good in [
        "/jobs/test",
        "/orders",
        "/a/b-c/d_e",
        "/jobsx",
        "/v10",
        "/v1x/jobs",
        "/jobs/retry",
        "/jobs/x/retry/y",
    ] {
        assert_eq!(endpoint(good), "", "{good}");
    }
    for taken in [
        "/jobs",
        "/jobs/repair",
        "/jobs/x/retry",
        "/jobs/x/webhooks/redeliver",
        "/jobs/x/webhooks/y/redeliver",
        "/workers",
        "/workers/x/drain",
        "/workers/x/restore",
        "/dashboard",
        "/reload",
        "/blueprints",
        "/blueprints/x",
        "/v1",
        "/v1/jobs/x",
    ] {
        assert_eq!(
            endpoint(taken),
            format!(
                "f:6:11: error: the endpoint `{taken}` is taken by the API itself; choose another, for example `/jobs/my_workflow`\n"
            )
        );
    }
    for empty in ["/a//b", "//a", "/a/"] {
        assert!(endpoint(empty).contains("has an empty part"), "{empty}");
    }
    for bad in ["jobs", "/", "/Jobs", "/a b", "/a?b", "/ä", &format!("/{}", "x".repeat(200))] {
        assert!(endpoint(bad).contains("cannot be an endpoint"), "{bad}");
    }
}

#[test]
fn expressions_are_found_at_their_column() {
    check_task(
        "      params:\n        plain: a ${job.idd} ${jbo.id}\n        single: '${jbo.id}'\n        double: \"€${1 +}\"\n        \
         escaped: \"\\u20ac ${jbo.id}\"\n        list: [ 1, [ '${nothing_like_it}' ] ]\n        \
         block: |\n          one\n          ${jbo.id}\n        open: '${job.id'\n        call: '${siez(job.id)}'\n        fine: '$${ ${job.id}'",
        "
        f:8:31: error: unknown variable `jbo`; did you mean `job`?
        f:9:20: error: unknown variable `jbo`; did you mean `job`?
        f:10:24: error: expected expression, found the end of the expression; expressions are CEL, see docs/blueprints.md
        f:11:18: error: unknown variable `jbo`; did you mean `job`?
        f:12:25: error: unknown variable `nothing_like_it`; known are `job`, `initial_data`, `state_history`, `result`, `results`, `client`, `now`
        f:14:11: error: unknown variable `jbo`; did you mean `job`?
        f:16:16: error: `${` is not closed; close it with `}`, or write `$${` for a plain `${`
        f:17:18: error: unknown function `siez`; did you mean `size`?
        ",
    );
}

#[test]
fn aliases_are_followed_and_bounded() {
    check_states(
        "  a: { start: true, task: { type: t, retry: &patient { max_retries: 9 } }, on: { success: b, failure: failed } }\n  \
         b: { task: { type: t, retry: *patient }, on: { success: done } }",
        "",
    );
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let again = vec![format!("*a{}", n - 1); 10].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{again}]\n"));
    }
    check(&laughs, "f:6:10: error: the file has more than 200000 values; split it");
    let mut deep = "a0: &a0 [x]\n".to_owned();
    for n in 1..100 {
        deep.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
    }
    check(&deep, "f:64:12: error: lists and maps are nested deeper than 64 levels; flatten the data");
}

#[test]
fn files_are_bounded() {
    assert_eq!(
        findings(&"# x\n".repeat(300_000)),
        "f: error: the file has 1200000 bytes, at most 1048576 are allowed; split the blueprint\n"
    );
    for nested in ["[".repeat(10_000), "{a: ".repeat(10_000), "\n- ".repeat(10_000), "- ".repeat(10_000)] {
        assert!(load("f", &format!("a: {nested}")).is_err());
    }
    let mut many = "blueprint: b\nstates:\n  s0: { start: true, end: finished }\n".to_owned();
    for n in 1..=1000 {
        many.push_str(&format!("  s{n}: {{ end: finished }}\n"));
    }
    assert!(findings(&many).starts_with(
"f:3:3: error: the blueprint has 1001 states, at most 1000 are allowed; split it into several blueprints\n"
    ));
}

#[test]
fn editors_and_systems_may_differ() {
    let windows = format!("\u{feff}{}", SEED.replace('\n', "\r\n"));
    assert_eq!(findings(&windows), "");
    assert_eq!(
        findings(&windows.replace("type: pro", "tpye: pro")).lines().next().unwrap(),
        "f:11:7: error: unknown key `tpye` in the task of state `init`; did you mean `type`?"
    );
    let json = load("f", SEED).unwrap().definition.canonical().replace(',', ",\n\t");
    assert_eq!(findings(&json), "");
}

#[test]
fn a_directory_is_read_whole_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("b.yml", SEED);
    write("a.yaml", SEED);
    write("c.json", "{");
    write("d.yaml", &SEED.replace("test_workflow", "other"));
    write("notes.txt", "not a blueprint");
    fs::write(dir.path().join("e.yaml"), b"blueprint: \xff").unwrap();
    fs::create_dir(dir.path().join("f.yaml")).unwrap();
    fs::write(dir.path().join("g.yaml"), vec![b'#'; FILE_BYTES_MAX + 1]).unwrap();
    let found: String =
        load_dir(dir.path()).unwrap_err().iter().map(|finding| format!("{finding}\n")).collect();
    insta::assert_snapshot!(found.replace(&format!("{}/", dir.path().display()), ""), @r"
    b.yml:5:12: error: the blueprint `test_workflow` is defined already at a.yaml:5:12; rename one of them
    b.yml:6:11: error: the endpoint `/jobs/test` is defined already at a.yaml:6:11; rename one of them
    c.json:1:1: error: not YAML: unclosed bracket '{'; check the indentation, colons and quotes around here
    d.yaml:6:11: error: the endpoint `/jobs/test` is defined already at a.yaml:6:11; rename one of them
    e.yaml: error: cannot be read: not UTF-8 at byte 11; check the path and its permissions
    f.yaml: error: cannot be read: it is no regular file; check the path and its permissions
    g.yaml: error: cannot be read: the file has 1048577 bytes, at most 1048576 are allowed; check the path and its permissions
    ");

    let none = dir.path().join("nothing");
    let found = load_dir(&none).unwrap_err();
    assert_eq!(found.len(), 1);
    assert!(found[0].what.starts_with("cannot be read"), "{}", found[0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_makes_the_loader_panic(text in ".{0,400}") {
        let _ = load("f", &text);
    }

    #[test]
    fn no_yaml_like_text_makes_the_loader_panic(text in "[-{}\\[\\]:,&*!|>'\"%#@`?a-c0-9 \n\t$]{0,200}") {
        let _ = load("f", &text);
    }

    #[test]
    fn no_mutation_of_a_blueprint_makes_the_loader_panic(
        example in 0..4_usize,
        cuts in prop::collection::vec((0..2000_usize, 0..20_usize, "[-{}\\[\\]:,&*'\"$a-z0-9 \n]{0,8}"), 1..6),
    ) {
        let examples = [
            SEED,
            include_str!("../../../examples/blueprints/order_review.yaml"),
            include_str!("../../../examples/blueprints/fetch_with_retries.yaml"),
            kinds::ALL_KINDS,
        ];
        let mut text: Vec<char> = examples[example].chars().collect();
        for (at, removed, inserted) in cuts {
            let from = at.min(text.len());
            let to = (from + removed).min(text.len());
            text.splice(from..to, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        match load("f", &text) {
            Ok(loaded) => {
                let again = Definition::from_canonical(loaded.definition.canonical()).unwrap();
                prop_assert_eq!(again.canonical(), loaded.definition.canonical());
            }
            Err(findings) => prop_assert!(findings.iter().any(|finding| finding.severity == Severity::Error)),
        }
    }
}
