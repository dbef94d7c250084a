//! The kinds of states one by one: what each is read as, its canonical form, and what can be wrong with it.

use super::*;

/// A state of every kind, with every key.
pub const ALL_KINDS: &str = r#"
blueprint: all_kinds
input_schema: { type: object, properties: { pages: { type: array, maxItems: 9 } } }
defaults: { timeout: 1m, retry: { max_retries: 1 } }
states:
  scan:
    start: true
    map:
      over: initial_data.pages
      task: { type: scan, params: { page: "${item}", number: "${index}" }, result_schema: { type: object } }
      max_parallel: 3
      tolerate: 10%
    on: { success: both, failure: failed }
  both:
    map:
      branches:
        left: { task: { type: left, strategy: cheapest } }
        middle: { code: middle }
        right: { run: { blueprint: right, input: { all: "${results}" } } }
      tolerate: 1
    on: { success: child, failure: failed }
  child:
    run: { blueprint: child, input: "${initial_data}", output: { child: "${result}" } }
    on: { success: tell, failure: failed, cancelled: failed, quarantined: failed }
  tell: { run: { blueprint: tell, wait: false }, on: { success: ask } }
  ask:
    approval: { message: "go on with ${job.id}?", deadline: 2d }
    on: { approved: listen, rejected: failed, timeout: failed }
  listen:
    event: { name: "paid:${job.id}", when: "signal.amount > 3", deadline: 1h }
    on: { received: rest, timeout: failed }
  rest: { wait: 10s, next: night }
  night: { wait: { until: 2026-12-24T18:00:00Z }, next: computed }
  computed: { wait: "${state_history.pause}", next: note }
  note: { pass: { at: "${now}" }, next: sign }
  sign:
    code: { function: sign, params: "${state_history}", timeout: 2s, result_schema: { type: object }, output: { signed: true } }
    on: { success: which }
    catch: { NO_KEY: failed }
  which: { choice: [ { when: results.size() > 0, next: work } ], else: finished }
  work:
    task:
      type: work
      output: { sum: "${result.sum}" }
      timeout: 5s
      retry: { max_retries: 0 }
      requires: { labels: { zone: [a, 2], on: true }, resources: { cpus: 8 }, software: ["x > 1"], models: [m], max_cost: 1 }
      prefer: [ { labels: { disk: "!= hdd" }, weight: 7 } ]
      strategy: best_value
    on: { success: finished, failure: failed }
    catch: { NO_STOCK: rest }
  finished: { end: finished, result: { sum: "${state_history.sum}" } }
  failed: { end: failed }
"#;

#[test]
fn a_blueprint_may_have_all_kinds() {
    let loaded = load("f", ALL_KINDS).unwrap();
    assert_eq!(loaded.warnings, []);
    let again = Definition::from_canonical(loaded.definition.canonical()).unwrap();
    assert_eq!(again.canonical(), loaded.definition.canonical());
    let (again, once) = (again.into_blueprint(1), loaded.definition.into_blueprint(1));
    assert_eq!(format!("{again:?}"), format!("{once:?}"));
    assert_eq!(once.task_types(), ["code:middle", "code:sign", "left", "scan", "work"].map(Arc::from));
    assert_eq!(once.functions(), ["middle", "sign"].map(Arc::from));
}

/// The blueprint with this state as its start, and the canonical form of that state. The ends are `done` and `failed`.
#[track_caller]
fn state_of(state: &str) -> (Blueprint, String) {
    let mut text = "blueprint: b\nstates:\n  it:\n    start: true\n".to_owned();
    text.extend(state.lines().map(|line| format!("    {line}\n")));
    for (name, end) in [("done", "finished"), ("failed", "failed")] {
        if state.contains(name) {
            text.push_str(&format!("  {name}: {{ end: {end} }}\n"));
        }
    }
    let loaded = load("f", &text).unwrap_or_else(|findings| panic!("{text}\n{findings:?}"));
    let canonical = loaded.definition.canonical().clone();
    let again = Definition::from_canonical(&canonical).unwrap();
    assert_eq!(again.canonical(), &canonical, "the canonical form is its own canonical form");
    let tree: serde_json::Value = serde_json::from_str(&canonical).unwrap();
    (again.into_blueprint(1), tree["states"]["it"].to_string())
}

#[track_caller]
fn form_of(state: &str) -> String {
    state_of(state).1
}

fn it(blueprint: &Blueprint) -> &StateKind {
    &blueprint.state("it").unwrap().kind
}

#[test]
fn a_task_maps_its_result_and_catches_errors_by_code() {
    let (blueprint, form) = state_of(
        "task:\n  type: work\n  result_schema: { type: object, required: [total] }\n  output: { sum: \"${result.total}\" }\n\
         on: { success: done }\ncatch: { OUT_OF_STOCK: failed, INVALID_RESULT_ERROR: done }\n",
    );
    insta::assert_snapshot!(form, @r#"{"start":true,"task":{"type":"work","params":{},"timeout":"300s","retry":{"max_retries":3,"initial_delay":"1s","max_delay":"60s","multiplier":2.0},"result_schema":{"type":"object","required":["total"]},"output":{"sum":"${result.total}"}},"on":{"success":"done"},"catch":{"INVALID_RESULT_ERROR":"done","OUT_OF_STOCK":"failed"}}"#);
    let StateKind::Task(task) = it(&blueprint) else { panic!("a task") };
    assert!(task.output.is_some());
    assert_eq!(task.catch.get("OUT_OF_STOCK").map(|to| &**to), Some("failed"));
    let schema = task.work.result_schema.as_ref().unwrap();
    assert!(schema.check("result", &serde_json::json!({"total": 1})).is_ok());
    assert!(schema.check("result", &serde_json::json!({})).is_err());
}

#[test]
fn a_map_does_the_same_for_each_item_of_a_list() {
    let (blueprint, form) = state_of(
        "map:\n  over: initial_data.pages\n  task: { type: scan, params: { page: \"${item}\", number: \"${index + 1}\" }, timeout: 10s }\n  \
         max_parallel: 4\n  tolerate: 10%\non: { success: done, failure: failed }\n",
    );
    insta::assert_snapshot!(form, @r#"{"start":true,"map":{"over":"initial_data.pages","task":{"type":"scan","params":{"page":"${item}","number":"${index + 1}"},"timeout":"10s","retry":{"max_retries":3,"initial_delay":"1s","max_delay":"60s","multiplier":2.0}},"max_parallel":4,"tolerate":"10%"},"on":{"failure":"failed","success":"done"}}"#);
    let StateKind::Map(map) = it(&blueprint) else { panic!("a map") };
    assert_eq!((map.max_parallel, map.tolerate), (Some(4), Tolerance::Percent(10.0)));
    assert_eq!(blueprint.task_types(), [Arc::from("scan")]);
    // Braces around the expression mean the same, and so does a tolerance of nothing.
    let map = |over: &str, more: &str| {
        form_of(&format!(
            "map:\n  over: {over}\n  run: {{ blueprint: page, input: {{ page: \"${{item}}\" }} }}\n{more}\non: {{ success: done, failure: failed }}\n"
        ))
    };
    let plain = map("initial_data.pages", "");
    insta::assert_snapshot!(plain, @r#"{"start":true,"map":{"over":"initial_data.pages","run":{"blueprint":"page","input":{"page":"${item}"}}},"on":{"failure":"failed","success":"done"}}"#);
    assert_eq!(map("\"${initial_data.pages}\"", ""), plain);
    assert_eq!(map("initial_data.pages", "  tolerate: 0"), plain);
    assert_eq!(map("initial_data.pages", "  tolerate: 0%"), plain);
    assert_ne!(map("initial_data.pages", "  tolerate: 1"), plain);
    assert_ne!(map("initial_data.pages", "  max_parallel: 1"), plain);
}

#[test]
fn a_map_has_fixed_branches_by_name() {
    let (blueprint, form) = state_of(
        "map:\n  branches:\n    thumbnail: { task: { type: scale } }\n    text: { run: { blueprint: ocr, input: \"${initial_data}\" } }\n  \
         tolerate: 1\non: { success: done, failure: failed }\n",
    );
    insta::assert_snapshot!(form, @r#"{"start":true,"map":{"branches":{"thumbnail":{"task":{"type":"scale","params":{},"timeout":"300s","retry":{"max_retries":3,"initial_delay":"1s","max_delay":"60s","multiplier":2.0}}},"text":{"run":{"blueprint":"ocr","input":"${initial_data}"}}},"tolerate":1},"on":{"failure":"failed","success":"done"}}"#);
    let StateKind::Map(map) = it(&blueprint) else { panic!("a map") };
    let names: Vec<_> =
        (0..3).map(|n| map.over.branch(n).map(|(_, name)| name.unwrap().to_string())).collect();
    assert_eq!(names, [Some("thumbnail".to_owned()), Some("text".to_owned()), None]);
}

#[test]
fn a_run_waits_for_its_child_or_does_not() {
    let form = form_of(
        "run: { blueprint: invoice, input: { order: \"${initial_data.order}\" }, wait: true, output: { invoice: \"${result}\" } }\n\
         on: { success: done, failure: failed, cancelled: failed, quarantined: failed }\n",
    );
    insta::assert_snapshot!(form, @r#"{"start":true,"run":{"blueprint":"invoice","input":{"order":"${initial_data.order}"},"output":{"invoice":"${result}"}},"on":{"cancelled":"failed","failure":"failed","quarantined":"failed","success":"done"}}"#);
    let (blueprint, form) =
        state_of("run: { blueprint: audit, wait: false }\non: { success: done, failure: failed }\n");
    insta::assert_snapshot!(form, @r#"{"start":true,"run":{"blueprint":"audit","input":{},"wait":false},"on":{"failure":"failed","success":"done"}}"#);
    assert!(matches!(it(&blueprint), StateKind::Run(RunState { waits: false, .. })));
}

#[test]
fn an_approval_asks_and_an_event_listens() {
    let form = form_of(
        "approval: { message: \"ship ${initial_data.order}?\", deadline: 48h }\n\
         on: { approved: done, rejected: failed, timeout: failed }\n",
    );
    insta::assert_snapshot!(form, @r#"{"start":true,"approval":{"message":"ship ${initial_data.order}?","deadline":"172800s"},"on":{"approved":"done","rejected":"failed","timeout":"failed"}}"#);
    for nothing in ["approval:", "approval: {}"] {
        let form = form_of(&format!("{nothing}\non: {{ approved: done, rejected: failed }}\n"));
        assert_eq!(form, r#"{"start":true,"approval":{},"on":{"approved":"done","rejected":"failed"}}"#);
    }
    let (blueprint, form) = state_of(
        "event: { name: \"paid/${initial_data.order}\", when: \"signal.amount >= initial_data.amount\", deadline: 1d }\n\
         on: { received: done, timeout: failed }\n",
    );
    insta::assert_snapshot!(form, @r#"{"start":true,"event":{"name":"paid/${initial_data.order}","when":"signal.amount >= initial_data.amount","deadline":"86400s"},"on":{"received":"done","timeout":"failed"}}"#);
    assert!(matches!(it(&blueprint), StateKind::Event(EventState { when: Some(_), .. })));
}

#[test]
fn a_wait_has_four_spellings() {
    let form = |wait: &str| form_of(&format!("wait: {wait}\nnext: done\n"));
    for (wait, canonical) in [
        ("10m", r#""600s""#),
        ("{ until: 2026-12-24T18:00:00Z }", r#"{"until":"2026-12-24T18:00:00.000000Z"}"#),
        ("{ until: '2026-12-24T19:00:00+01:00' }", r#"{"until":"2026-12-24T18:00:00.000000Z"}"#),
        ("'${initial_data.pause}'", r#""${initial_data.pause}""#),
        ("'${initial_data.minutes}m'", r#""${initial_data.minutes}m""#),
        ("{ until: '${initial_data.at}' }", r#""${initial_data.at}""#),
    ] {
        let expected = format!(r#"{{"start":true,"wait":{canonical},"next":"done"}}"#);
        assert_eq!(form(wait), expected, "{wait}");
    }
}

#[test]
fn an_end_may_have_a_result() {
    let form = |end: &str| {
        let text = format!("blueprint: b\nstates:\n  it: {{ start: true, {end} }}\n");
        load("f", &text).unwrap().definition.canonical().to_string()
    };
    insta::assert_snapshot!(form("end: finished, result: { total: '${state_history.total}' }"), @r#"{"blueprint":"b","max_transitions":100,"states":{"it":{"start":true,"end":"finished","result":{"total":"${state_history.total}"}}}}"#);
    insta::assert_snapshot!(form("end: failed, result: '${state_history}'"), @r#"{"blueprint":"b","max_transitions":100,"states":{"it":{"start":true,"end":"failed","result":"${state_history}"}}}"#);
}

#[test]
fn a_blueprint_has_a_schema_for_its_input_and_defaults_for_its_tasks() {
    let text = "blueprint: b\ninput_schema: { type: object, required: [url] }\ndefaults: { timeout: 10s, retry: { max_retries: 7, initial_delay: 2s } }\n\
                states:\n  a: { start: true, task: { type: t }, on: { success: b, failure: failed } }\n  \
                b: { task: { type: t, timeout: 20s, retry: { max_delay: 1s } }, on: { success: done } }\n  \
                done: { end: finished }\n  failed: { end: failed }\n";
    let definition = load("f", text).unwrap().definition;
    // Defaults are written out where they hold, so that the canonical form needs none.
    insta::assert_snapshot!(definition.canonical(), @r#"{"blueprint":"b","max_transitions":100,"input_schema":{"type":"object","required":["url"]},"states":{"a":{"start":true,"task":{"type":"t","params":{},"timeout":"10s","retry":{"max_retries":7,"initial_delay":"2s","max_delay":"60s","multiplier":2.0}},"on":{"failure":"failed","success":"b"}},"b":{"task":{"type":"t","params":{},"timeout":"20s","retry":{"max_retries":7,"initial_delay":"1s","max_delay":"1s","multiplier":2.0}},"on":{"success":"done"}},"done":{"end":"finished"},"failed":{"end":"failed"}}}"#);
    let blueprint = definition.into_blueprint(1);
    let schema = blueprint.input_schema.unwrap();
    assert_eq!(
        schema.check("initial_data", &serde_json::json!({})).unwrap_err().to_string(),
        "initial_data: \"url\" is a required property"
    );
}

#[test]
fn what_is_wrong_with_a_map_is_named() {
    let map = |map: &str, expected: &str| {
        check_states(
            &format!("  it:\n    start: true\n    map: {map}\n    on: {{ success: done, failure: failed }}"),
            expected,
        );
    };
    map(
        "{}",
        "f:5:10: error: the map of state `it` has neither `over` nor `branches`; say over what, as in `over: initial_data.pages`, or name `branches`",
    );
    map(
        "{ over: initial_data.x }",
        "f:5:10: error: the map of state `it` does nothing; give it one `task`, one `code` or one `run`",
    );
    map(
        "{ over: initial_data.x, task: { type: t }, run: { blueprint: c } }",
        "f:5:53: error: the map of state `it` has both a `task` and a `run`; give it one `task`, one `code` or one `run`",
    );
    map(
        "{ over: initial_data.x, branches: { a: { task: { type: t } } } }",
        "f:5:34: error: the map of state `it` has both `over` and `branches`; keep `over` for the same work on each item of a list, or `branches` for different works",
    );
    map(
        "{ branches: { a: { task: { type: t } } }, task: { type: t } }",
        "f:5:52: error: `task` stands beside the branches of the map of state `it`; write it into a branch, as in `branches: { first: { task: … } }`",
    );
    map(
        "{ branches: {} }",
        "f:5:22: error: the map of state `it` has 0 branches; name 1 to 10000, as in `branches: { first: { task: … } }`",
    );
    map(
        "{ branches: { a: { pass: {} }, b c: { task: { type: t } } } }",
        "
        f:5:27: error: branch `a` of the map of state `it` does nothing; give it one `task`, one `code` or one `run`
        f:5:29: error: unknown key `pass` in branch `a` of the map of state `it`; known are `task`, `code`, `run`
        f:5:41: error: `b c` cannot be a branch's name; use 1 to 128 characters of a-z, A-Z, 0-9 and ._-
        ",
    );
    map(
        "{ over: [1, 2], task: { type: t } }",
        "f:5:18: error: `over` must be an expression, not a list; write for example `over: initial_data.pages` or `over: \"['a', 'b']\"`; works that differ are `branches`",
    );
    map(
        "{ over: 'pages ${initial_data.x}', task: { type: t } }",
        "f:5:25: error: unexpected character; expressions are CEL, see docs/blueprints.md",
    );
    map(
        "{ over: initial_data.x, max_parallel: 0, tolerate: half, task: { type: t } }",
        "
        f:5:48: error: `max_parallel` must be a whole number, not `0`; write one from 1 to 10000
        f:5:61: error: `tolerate` must be a number of branches or a share of them, not `half`; write a whole number from 0 to 10000, or for example \"10%\"
        ",
    );
    for bad in ["101%", "-1", "1.5", "-5%", "NaN%", "10001", "true", "..%"] {
        map(
            &format!("{{ over: initial_data.x, tolerate: {bad}, task: {{ type: t }} }}"),
            &format!(
                "f:5:44: error: `tolerate` must be a number of branches or a share of them, not `{bad}`; write a whole number from 0 to 10000, or for example \"10%\""
            ),
        );
    }
    map(
        "{ branches: { a: { task: { type: t } }, b: { task: { type: t } } }, tolerate: 3 }",
        "f:5:88: error: the map of state `it` tolerates 3 failed branches and has 2; lower `tolerate`",
    );
    map(
        "{ over: initial_data.x, task: { type: t, params: [1], output: {} } }",
        "
        f:5:59: error: the params of a branch must be a map, not a list; write it as `key: value` lines, or as one `${…}` that gives an object
        f:5:64: error: unknown key `output` in the task of the map of state `it`; known are `type`, `params`, `timeout`, `retry`, `result_schema`, `concurrency`, `rate`, `requires`, `prefer`, `strategy`
        ",
    );
    check_states(
        "  it: { start: true, map: { over: initial_data.x, task: { type: t } }, on: { succes: done, failure: failed } }",
        "
        f:3:76: error: `on` of state `it` has no `success`; say where a success leads, as in `on: { success: gather, failure: failed }`
        f:3:78: error: `succes` is no outcome of a map; did you mean `success`?
        ",
    );
}

#[test]
fn what_is_wrong_with_a_run_is_named() {
    check_states(
        "  it: { start: true, run: { blueprint: 'a b', input: 7, wait: maybe }, on: { received: done, success: failed } }",
        "
        f:3:40: error: `a b` cannot be a blueprint's name; use 1 to 128 characters of a-z, A-Z, 0-9 and ._-
        f:3:54: error: `input` must be a map, not `7`; write it as `key: value` lines, or as one `${…}` that gives an object
        f:3:63: error: `wait` must be true or false, not `maybe`; write one of them, without quotes
        f:3:78: error: `received` is no outcome of a run; known are `success`, `failure`, `cancelled`, `quarantined`
        ",
    );
    check_states(
        "  it: { start: true, run: { wait: false, output: {} }, on: { success: done, cancelled: failed } }",
        "
        f:3:27: error: the run of state `it` has no `blueprint`; name the blueprint to run, as in `blueprint: my_workflow`
        f:3:42: error: the run of state `it` has an `output` and does not wait for the child's result; remove `output` or `wait: false`
        f:3:77: error: `cancelled` is no outcome of a run that is not waited for; known are `success`, `failure`
        ",
    );
}

#[test]
fn deadlines_and_timeouts_belong_together() {
    check_states(
        "  it: { start: true, event: { name: paid }, on: { received: a, timeout: failed } }\n  \
         a: { approval: {}, on: { approved: b, timeout: failed } }\n  \
         b: { event: { name: paid, deadline: 1h }, on: { received: c } }\n  \
         c: { approval: { deadline: 1h }, on: { approved: d } }\n  \
         d: { event: { name: paid, deadline: 1h }, on: { received: done, failure: failed } }",
        "
        f:3:29: error: the event of state `it` has a transition for `timeout` and no deadline; add for example `deadline: 48h`, or remove the transition
        f:4:18: error: the approval of state `a` has a transition for `timeout` and no deadline; add for example `deadline: 48h`, or remove the transition
        f:5:29: warning: the event of state `b` has a deadline and no transition for `timeout`: a job that waits too long fails; add `timeout: some_state` to `on`
        f:6:20: warning: the approval of state `c` has a deadline and no transition for `timeout`: a job that waits too long fails; add `timeout: some_state` to `on`
        ",
    );
}

#[test]
fn what_is_wrong_with_an_event_or_an_approval_is_named() {
    check_states(
        "  it: { start: true, event: { name: two words, when: 'signal.x >' }, on: { success: done, timeout: failed } }\n  \
         a: { event: paid, on: { received: done } }",
        "
        f:3:29: error: the event of state `it` has a transition for `timeout` and no deadline; add for example `deadline: 48h`, or remove the transition
        f:3:37: error: `two words` cannot be a signal's name; use 1 to 128 characters of a-z, A-Z, 0-9 and ._:/-
        f:3:65: error: expected expression, found the end of the expression; expressions are CEL, see docs/blueprints.md
        f:3:74: error: `on` of state `it` has no `received`; say where the signal leads, as in `on: { received: ship, timeout: give_up }`
        f:3:76: error: `success` is no outcome of an event; known are `received`, `timeout`, `failure`
        f:4:15: error: the event of state `a` must be a map, not a string; write it as `key: value` lines
        ",
    );
    check_states(
        "  it: { start: true, approval: { messge: hello }, on: { approve: done, escalate: done, give_up: failed } }\n  \
         a: { approval: { message: 7, deadline: 1h }, on: { timeout: done } }",
        "
        f:3:34: error: unknown key `messge` in the approval of state `it`; did you mean `message`?
        f:3:57: warning: the decision `approve` is not `approved`; did you mean `approved`?
        f:4:29: error: `message` must be a string, not a number; put it in quotes
        f:4:52: error: `on` of state `a` has no decision; name the decisions, as in `on: { approved: ship, rejected: refused }`
        ",
    );
}

#[test]
fn what_is_wrong_with_a_wait_is_named() {
    for (wait, expected) in [
        (
            "7",
            "f:3:28: error: `wait` must be a duration, not `7`; write for example 500ms, 30s, 5m or 1h; from 1ms to 8784h",
        ),
        (
            "{ unitl: x }",
            "f:3:28: error: `wait` has no `until`; say until when, as in `until: \"2026-12-24T18:00:00Z\"`
                          f:3:30: error: unknown key `unitl` in `wait`; did you mean `until`?",
        ),
        (
            "{ until: tomorrow }",
            "f:3:37: error: `until` must be a time, not `tomorrow`; write it as in \"2026-12-24T18:00:00Z\", or as a `${…}` that gives one",
        ),
        (
            "'$${x}'",
            "f:3:28: error: `wait` must be a duration or a `${…}`, not `$${x}`; write for example 10m, or `${initial_data.pause}`",
        ),
        ("'${nwo}'", "f:3:31: error: unknown variable `nwo`; did you mean `now`?"),
    ] {
        check_states(
            &format!(
                "  it: {{ start: true, wait: {wait}, next: a }}\n  a: {{ task: {{ type: t }}, on: {{ success: done, failure: failed }} }}"
            ),
            expected,
        );
    }
}

#[test]
fn what_is_wrong_with_a_task_of_many_keys_is_named() {
    check_states(
        "  it:\n    start: true\n    task: { type: t, output: [1], result_schema: { type: strng }, catch: {} }\n    \
         on: { success: done, failure: failed }\n    catch: { 'a b': done, X: nowhere }\n    output: {}",
        "
        f:5:30: error: `output` must be a map, not a list; write it as `key: value` lines, or as one `${…}` that gives an object
        f:5:58: error: `result_schema` is no JSON Schema: \"strng\" is not valid under any of the schemas listed in the 'anyOf' keyword; see https://json-schema.org, draft 2020-12; other documents cannot be referred to
        f:5:67: error: unknown key `catch` in the task of state `it`; known are `type`, `params`, `timeout`, `retry`, `result_schema`, `concurrency`, `rate`, `output`, `requires`, `prefer`, `strategy`
        f:7:14: error: `a b` cannot be an error code; use 1 to 64 characters of a-z, A-Z, 0-9 and ._-
        f:7:30: error: there is no state `nowhere`; known are `it`, `done`, `failed`
        f:8:5: error: `output` stands beside the task of state `it`; write it under `task`
        ",
    );
}

#[test]
fn a_code_state_is_a_task_of_a_type_that_no_worker_can_have() {
    let (blueprint, form) = state_of("code: count_words\non: { success: done }\n");
    assert_eq!(form, form_of("code: { function: count_words, timeout: 5m }\non: { success: done }\n"));
    insta::assert_snapshot!(form, @r#"{"start":true,"code":{"function":"count_words","params":{},"timeout":"300s","retry":{"max_retries":3,"initial_delay":"1s","max_delay":"60s","multiplier":2.0}},"on":{"success":"done"}}"#);
    let StateKind::Task(task) = it(&blueprint) else { panic!("a task") };
    assert_eq!((&*task.work.task_type, task.work.function()), ("code:count_words", Some("count_words")));
}

#[test]
fn what_is_wrong_with_a_code_state_is_named() {
    let code = |code: &str, expected: &str| {
        check_states(
            &format!("  it:\n    start: true\n    {code}\n    on: {{ success: done, failure: failed }}"),
            expected,
        );
    };
    code(
        "code: {}",
        "f:5:11: error: the code of state `it` has no `function`; name it, as in `function: count_words`",
    );
    code(
        "code: { function: a, type: b }",
        "f:5:26: error: unknown key `type` in the code of state `it`; known are `function`, `params`, `timeout`, `retry`, `result_schema`, `concurrency`, `rate`, `output`",
    );
    code(
        "code: count words",
        "f:5:11: error: `count words` cannot be a function's name; use 1 to 123 characters of a-z, A-Z, 0-9 and ._-",
    );
    code(
        "task: { type: 'code:count_words' }",
        "f:5:19: error: the type `code:count_words` belongs to functions and not to workers; write `code: count_words` instead of `task`",
    );
    code(
        "code: [a]",
        "f:5:11: error: the code of state `it` must be a map, not a list; write it as `key: value` lines",
    );
    code(
        "code: a\n    timeout: 5s",
        "f:6:5: error: `timeout` stands beside the code of state `it`; write it under `code`",
    );
}

#[test]
fn schemas_fetch_nothing_and_are_checked_where_they_stand() {
    let schema = |schema: &str| {
        findings(&format!(
            "blueprint: b\ninput_schema: {schema}\nstates:\n  it: {{ start: true, end: finished }}\n"
        ))
    };
    for good in [
        "{}",
        "{ type: object, properties: { a: { $ref: '#/$defs/x' } }, $defs: { x: { type: integer } } }",
        "{ $ref: '#' }",
        "{ properties: { child: { $ref: '#' } } }",
        "{ format: email }",
        "{ $schema: 'http://json-schema.org/draft-07/schema#', type: object }",
    ] {
        assert_eq!(schema(good), "", "{good}");
    }
    for bad in [
        "true",
        "7",
        "[]",
        "{ type: 7 }",
        "{ $ref: 'https://example.com/schema.json' }",
        "{ $ref: 'file:///etc/passwd' }",
        "{ $ref: other.json }",
        "{ $ref: '#/nowhere' }",
        "{ pattern: '(' }",
        "{ pattern: '(a+)+(?=b)' }",
        "{ properties: [] }",
        "{ format: emial }",
        "{ $schema: 'https://example.com/meta' }",
        "{ pattern: '((a{1000}){1000}){1000}' }",
        "{ required: [a, a] }",
    ] {
        let found = schema(bad);
        assert!(found.starts_with("f:2:") && found.contains(": error: `input_schema`"), "{bad}: {found:?}");
    }
    insta::assert_snapshot!(schema("{ properties: { size: { type: intger } } }"), @r#"f:2:45: error: `input_schema` is no JSON Schema: "intger" is not valid under any of the schemas listed in the 'anyOf' keyword; see https://json-schema.org, draft 2020-12; other documents cannot be referred to"#);
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let schema = Schema::compile(&serde_json::json!({ "$ref": "#" })).unwrap();
    assert!(schema.check("x", &serde_json::json!({ "a": 1 })).is_ok());
}

#[test]
fn names_have_their_places() {
    check_states(
        "  it:\n    start: true\n    task: { type: t, params: { a: '${item}', b: '${signal.x}', c: '${results}', d: '${now}' } }\n    \
         on: { success: m, failure: failed }\n  \
         m: { map: { over: 'item', task: { type: t, params: { a: '${item.x + index}', b: '${signal}' } } }, on: { success: n } }\n  \
         n: { map: { branches: { x: { task: { type: t, params: { a: '${index}' } } } } }, on: { success: e } }\n  \
         e: { event: { name: '${signal.y}', when: 'signal.x == item && results.size() > 0' }, on: { received: done } }",
        "
        f:5:38: error: `item` has a value only in the branch of a map over a list; look at `initial_data`, `state_history`, `result` or `results` here
        f:5:52: error: `signal` has a value only in the `when` of an event; look at `initial_data`, `state_history`, `result` or `results` here
        f:7:22: error: `item` has a value only in the branch of a map over a list; look at `initial_data`, `state_history`, `result` or `results` here
        f:7:86: error: `signal` has a value only in the `when` of an event; look at `initial_data`, `state_history`, `result` or `results` here
        f:8:65: error: `index` has a value only in the branch of a map over a list; look at `initial_data`, `state_history`, `result` or `results` here
        f:9:26: error: `signal` has a value only in the `when` of an event; look at `initial_data`, `state_history`, `result` or `results` here
        f:9:57: error: `item` has a value only in the branch of a map over a list; look at `initial_data`, `state_history`, `result` or `results` here
        ",
    );
    check_states(
        "  it: { start: true, task: { type: t, params: { a: '${results[0]}', item: '${[1].map(item, item)}' } }, on: { success: done, failure: failed } }",
        "f:3:52: warning: `results` is what the branches of a map end with, and this blueprint has no map; look at `result`, the data of the last task",
    );
}

#[test]
fn only_waiting_interrupts_a_circle() {
    let circle = |state: &str| {
        format!(
            "  a: {{ start: true, choice: [ {{ when: 'job.priority > 0', next: b }} ], else: done }}\n  b: {{ {state} }}\n  \
             c: {{ wait: 1s, next: failed }}"
        )
    };
    for waits in [
        "event: { name: x }, on: { received: a, failure: c }",
        "approval: {}, on: { approved: a, rejected: c }",
        "run: { blueprint: x }, on: { success: a, failure: c }",
        "map: { over: initial_data.x, task: { type: t } }, on: { success: a, failure: c }",
    ] {
        check_states(&circle(waits), "");
    }
    check_states(
        &circle("run: { blueprint: x, wait: false }, on: { success: a, failure: c }"),
        "f:3:3: error: unbounded loop a→b→a; put a task into it, or let it end",
    );
    let wait = |wait: &str| {
        format!(
            "  a: {{ start: true, choice: [ {{ when: 'job.priority > 0', next: b }} ], else: c }}\n  b: {{ wait: {wait}, next: a }}\n  \
             c: {{ task: {{ type: t }}, on: {{ success: done, failure: failed }} }}"
        )
    };
    check_states(&wait("1m"), "");
    check_states(&wait("'${initial_data.pause}'"), "");
    // A time that has come has come for ever.
    check_states(
        &wait("{ until: '2026-12-24T18:00:00Z' }"),
        "f:3:3: error: unbounded loop a→b→a; put a task into it, or let it end",
    );
}

#[test]
fn transitions_belong_to_their_kinds() {
    check_states(
        "  it: { start: true, wait: 1s, next: a, on: { success: done } }\n  \
         a: { event: { name: x }, on: { received: b }, catch: { X: done } }\n  \
         b: { approval:, on: { approved: c }, next: done }\n  \
         c: { map: { over: initial_data.x, task: { type: t } }, on: { success: done, failure: failed }, else: done }",
        "
        f:3:41: error: `on` does not belong to a wait state; write the transition of a wait state as `next`
        f:4:49: error: `catch` does not belong to an event state; write its transitions under `on`
        f:5:40: error: `next` does not belong to an approval state; write its transitions under `on`
        f:6:98: error: `else` does not belong to a map state; write its transitions under `on`
        ",
    );
}

#[test]
fn a_blueprint_that_is_run_should_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let parent = |name: &str, child: &str| {
        fs::write(
            dir.path().join(format!("{name}.yaml")),
            format!(
                "blueprint: {name}\nstates:\n  it: {{ start: true, run: {{ blueprint: {child} }}, on: {{ success: done, failure: failed }} }}\n  \
                 done: {{ end: finished }}\n  failed: {{ end: failed }}\n"
            ),
        )
        .unwrap();
    };
    parent("first", "second");
    parent("second", "secnod");
    parent("third", "third");
    let warnings: String = load_dir(dir.path())
        .unwrap()
        .iter()
        .flat_map(|one| &one.warnings)
        .map(|warning| format!("{warning}\n"))
        .collect();
    insta::assert_snapshot!(warnings.replace(&format!("{}/", dir.path().display()), ""), @"second.yaml:3:40: warning: no file defines the blueprint `secnod`, which is run here; did you mean `second`?");
}

#[test]
fn a_task_says_what_it_asks_of_its_worker() {
    let task = |asks: &str| {
        format!(
            "blueprint: b\nstates:\n  s:\n    start: true\n    task: {{ type: t, {asks} }}\n    on: {{ success: e }}\n  e: {{ end: finished }}\n"
        )
    };
    let needs = |asks: &str| {
        let blueprint = load("f", &task(asks)).unwrap().definition.into_blueprint(1);
        match &blueprint.state("s").unwrap().kind {
            StateKind::Task(task) => task.work.needs.as_deref().cloned(),
            _ => None,
        }
    };
    assert_eq!(needs("strategy: default"), None, "which is what a task asks for that says nothing");
    let asked = needs("requires: { labels: { a: b, c: '=x', d: '= >1' }, resources: { r: 2, q: '= 3' } }, prefer: [ { models: [m] } ]")
        .unwrap();
    assert_eq!(
        &*asked.text,
        r#"{"requires":{"labels":{"a":"b","c":"x","d":"= >1"},"resources":{"r":">= 2","q":"= 3"}},"prefer":[{"models":["m"],"weight":1}]}"#
    );
    assert_eq!(Needs::parse(&asked.text), Some(asked), "the canonical text asks for the same");
    assert_eq!(Needs::parse("{}"), None);
    assert_eq!(Needs::parse(r#"{"requires":{"moon":"full"}}"#), None);
    for (asks, what, cure) in [
        ("requires: { label: { a: b } }", "unknown key `label` in `requires`", "did you mean `labels`?"),
        ("requires: { resources: { gpu: 16GB } }", "a quantity cannot be `16GB`", "a comparison"),
        ("requires: { resources: { gpu: '>= much' } }", "a quantity cannot be `>= much`", "a comparison"),
        ("requires: { labels: { a: '>=' } }", "`>=` compares with nothing", "for example `>= 2`"),
        ("requires: { labels: { a: [] } }", "none of no values", "[eu, us]"),
        ("requires: { software: ffmpeg }", "`software` must be a list", "ffmpeg"),
        ("requires: { software: ['> 1'] }", "cannot be a name in `software`", "bytes"),
        ("requires: { max_cost: -1 }", "`max_cost` must be a number", "max_cost: 0.5"),
        ("prefer: { labels: { a: b } }", "`prefer` must be a list", "weight: 5"),
        ("prefer: [ { weight: 3 } ]", "a preference has no condition", "labels"),
        ("prefer: [ { labels: { a: b }, weight: 0 } ]", "`weight` must be a whole number", "from 1"),
        ("strategy: cheap", "there is no strategy `cheap`", "did you mean `cheapest`?"),
    ] {
        let findings = load("f", &task(asks)).unwrap_err();
        let found = findings.iter().find(|finding| finding.what.contains(what));
        let found = found.unwrap_or_else(|| panic!("{asks}: {findings:?}"));
        assert!(found.cure.contains(cure) && found.at.line == 5, "{asks}: {found}");
    }
    let code = task("").replace("task: { type: t,  }", "code: { function: f, strategy: cheapest }");
    assert!(load("f", &code).is_err(), "a function is where it is");
}
