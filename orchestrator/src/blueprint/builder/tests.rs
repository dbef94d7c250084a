//! What is built is what would have been written, and what is wrong is found in the same words.

mod examples;

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::blueprint::{RetryPolicy, Strategy, Tolerance, load, tests::kinds::ALL_KINDS};

/// The blueprint that has a state of every kind, with every key.
fn all_kinds() -> BlueprintBuilder {
    let once_more = RetryPolicy { max_retries: 1, ..RetryPolicy::default() };
    let (left, middle, right) = (
        task("left").strategy(Strategy::Cheapest),
        code("middle"),
        run("right").input(json!({ "all": "${results}" })),
    );
    Blueprint::builder("all_kinds")
        .input_schema(
            json!({ "type": "object", "properties": { "pages": { "type": "array", "maxItems": 9 } } }),
        )
        .default_timeout(Duration::from_mins(1))
        .default_retry(once_more)
        .start(
            "scan",
            map_each(
                "initial_data.pages",
                task("scan")
                    .param("page", "${item}")
                    .param("number", "${index}")
                    .result_schema(json!({ "type": "object" })),
            )
            .max_parallel(3)
            .tolerate(Tolerance::Percent(10.0))
            .on("success", "both")
            .on("failure", "failed"),
        )
        .state(
            "both",
            map_named()
                .branch("left", left)
                .branch("middle", middle)
                .branch("right", right)
                .tolerate(Tolerance::Count(1))
                .on("success", "child")
                .on("failure", "failed"),
        )
        .state(
            "child",
            run("child")
                .input("${initial_data}")
                .output(json!({ "child": "${result}" }))
                .on("success", "tell")
                .on("failure", "failed")
                .on("cancelled", "failed")
                .on("quarantined", "failed"),
        )
        .state("tell", run("tell").detached().on("success", "ask"))
        .state(
            "ask",
            approval()
                .message("go on with ${job.id}?")
                .deadline(Duration::from_hours(48))
                .on("approved", "listen")
                .on("rejected", "failed")
                .on("timeout", "failed"),
        )
        .state(
            "listen",
            event("paid:${job.id}")
                .when("signal.amount > 3")
                .deadline(Duration::from_hours(1))
                .on("received", "rest")
                .on("timeout", "failed"),
        )
        .state("rest", wait(Duration::from_secs(10)).then("night"))
        .state("night", wait_until("2026-12-24T18:00:00Z").then("computed"))
        .state("computed", wait_until("${state_history.pause}").then("note"))
        .state("note", pass().set("at", "${now}").then("sign"))
        .state(
            "sign",
            code("sign")
                .params("${state_history}")
                .timeout(Duration::from_secs(2))
                .result_schema(json!({ "type": "object" }))
                .output(json!({ "signed": true }))
                .on("success", "which")
                .catch("NO_KEY", "failed"),
        )
        .state("which", choice().when("results.size() > 0", "work").otherwise("finished"))
        .state(
            "work",
            task("work")
                .output(json!({ "sum": "${result.sum}" }))
                .timeout(Duration::from_secs(5))
                .no_retry()
                .requires(json!({
                    "labels": { "zone": ["a", 2], "on": true },
                    "resources": { "cpus": 8 },
                    "software": ["x > 1"],
                    "models": ["m"],
                    "max_cost": 1,
                }))
                .prefer(json!([{ "labels": { "disk": "!= hdd" }, "weight": 7 }]))
                .strategy(Strategy::BestValue)
                .on("success", "finished")
                .on("failure", "failed")
                .catch("NO_STOCK", "rest"),
        )
        .state("finished", finished().result(json!({ "sum": "${state_history.sum}" })))
        .state("failed", failed())
}

#[test]
fn every_kind_of_state_can_be_built() {
    let built = all_kinds().check().unwrap();
    assert_eq!(built.warnings, []);
    let written = load("f", ALL_KINDS).unwrap().definition;
    assert_eq!(built.definition.canonical(), written.canonical());
}

/// Checks what is found in a blueprint `b`, one finding a line.
#[track_caller]
fn check(builder: BlueprintBuilder, expected: &str) {
    let found = match builder.check() {
        Ok(loaded) => loaded.warnings,
        Err(unsound) => unsound.findings,
    };
    let lines = expected.lines().map(str::trim).filter(|line| !line.is_empty());
    let expected: Vec<String> = lines.map(|line| format!("blueprint b{line}")).collect();
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
}

/// Checks a blueprint that starts with this state and has the end `done` beside it.
#[track_caller]
fn check_start(start: impl Into<StateForm>, expected: &str) {
    check(Blueprint::builder("b").start("init", start).state("done", finished()), expected);
}

#[test]
fn a_mistake_is_found_as_in_a_file_and_told_by_the_way_to_it() {
    check_start(
        task("work").param("x", "${initial_dta.x}").on("success", "dome"),
        "
        , states.init.task.params.x: error: unknown variable `initial_dta`; did you mean `initial_data`?
        , states.init.on.success: error: there is no state `dome`; did you mean `done`?
        ",
    );
    check_start(
        choice().when("initial_data.a", "done").when("initial_data.b", "dome").otherwise("done"),
        ", states.init.choice[1].next: error: there is no state `dome`; did you mean `done`?",
    );
    check_start(
        pass(),
        ", states.init: error: state `init` has no `next`; say where it leads, as in `next: some_state`",
    );
    check(
        Blueprint::builder("b").start("a", finished()).start("c", finished()),
        ", states.c.start: error: state `c` is a second start beside `a`; keep `start: true` in one of them",
    );
    check(
        Blueprint::builder("b"),
        ", states: error: the blueprint has no states; add a start and an end, see docs/blueprints.md",
    );
    check_start(
        choice().when("initial_data.a", "done"),
        ", states.init: warning: state `init` has no `else`: a job for which no condition holds fails; add `else: some_state`",
    );
}

#[test]
fn a_branch_has_no_transitions_and_no_output() {
    let map = map_each("initial_data.pages", task("scan").on("success", "done")).on("success", "done");
    check_start(
        map,
        ", states.init.map.on: error: unknown key `on` in the map of state `init`; known are `over`, `task`, `code`, `run`, `branches`, `max_parallel`, `tolerate`",
    );
    let map = map_named().branch("a", code("scan").output(json!({}))).on("success", "done");
    check_start(
        map,
        ", states.init.map.branches.a.code.output: error: unknown key `output` in the code of branch `a` of the map of state `init`; known are `function`, `params`, `timeout`, `retry`, `result_schema`, `concurrency`, `rate`",
    );
}

#[test]
fn what_is_given_twice_is_found_and_not_overwritten() {
    check_start(
        task("work").param("x", 1).param("x", 2).on("success", "done").on("success", "done"),
        "
        , states.init.task.params.x: error: the key `x` stands twice; remove or rename one of them
        , states.init.on.success: error: the key `success` stands twice; remove or rename one of them
        ",
    );
    check(
        Blueprint::builder("b").start("a", finished()).state("a", failed()),
        ", states.a: error: the key `a` stands twice; remove or rename one of them",
    );
}

#[test]
fn what_a_file_cannot_say_cannot_be_built() {
    let work = || task("work").on("success", "done");
    check_start(
        work().timeout(Duration::from_micros(1500)),
        ", states.init.task.timeout: error: `timeout` must be a duration, not `1.5ms`; write for example 500ms, 30s, 5m or 1h; from 1ms to 8784h",
    );
    check_start(
        work().retry(RetryPolicy { multiplier: f64::NAN, ..RetryPolicy::default() }),
        ", states.init.task.retry.multiplier: error: `multiplier` must be a number, not nothing; write one from 1 to 100",
    );
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    check_start(
        work().param("deep", deep),
        ": error: lists and maps are nested deeper than 64 levels; flatten the data",
    );
    let long = Blueprint::builder("b")
        .start("init", work().param("long", "x".repeat(FILE_BYTES_MAX)))
        .state("done", finished());
    let unsound = long.build().unwrap_err();
    assert!(unsound.to_string().contains("at most 1048576 are allowed; split the blueprint"), "{unsound}");
}
