//! The blueprints of a run: some that are the same in every run, each made for one thing that can go wrong, and some that are
//! drawn: states of every kind, with transitions to anywhere.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use avtomatika_orchestrator::{
    blueprint::{
        ApprovalState, Blueprint, Branch, ChoiceState, End, EndState, EventState, Expr, KeyLimit, KeyPolicy,
        KeyRule, MapState, Over, PassState, Rate, Registry, RetryPolicy, RunState, RunWork, State, StateKind,
        TaskState, TaskWork, Template, Tolerance, Transitions, WaitState, WaitUntil,
    },
    hash::FastIndexMap,
};
use serde_json::{Value, json};

use crate::{editions, random::Random};

/// Blueprints that a run draws.
const DRAWN: usize = 3;

/// The types of all tasks.
pub const TASK_TYPES: [&str; 3] = ["cut", "mix", "send"];

/// An attempt's time. Together with the grace that follows it, a slow worker needs longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What clients call their signals.
pub const SIGNAL: &str = "go";

/// Blueprints that may be run as children: they run no further children that run children.
const LEAVES: [&str; 4] = ["task", "again", "signal", "fan"];

/// Those that are the same in every run: compiled once.
static FIXED: LazyLock<Vec<Arc<Blueprint>>> = LazyLock::new(|| fixed().into_iter().map(Arc::new).collect());

/// The blueprints of a run, and the names under which jobs may be submitted.
pub fn draw(random: &mut Random) -> (Registry, Vec<Arc<str>>) {
    let drawn = (0..DRAWN).map(|number| Arc::new(drawn(&format!("drawn-{number}"), random)));
    let made: Vec<Arc<Blueprint>> = FIXED.iter().cloned().chain(drawn).collect();
    let mut registry = Registry::default();
    let names =
        made.iter().map(|blueprint| blueprint.name.clone()).chain([Arc::from(editions::NAME)]).collect();
    made.into_iter().for_each(|blueprint| registry.add(blueprint, true));
    editions::add_first(&mut registry);
    (registry, names)
}

fn fixed() -> Vec<Blueprint> {
    let ends = || vec![("done", end(End::Finished)), ("bad", end(End::Failed))];
    let with = |name: &str, mut states: Vec<(&str, StateKind)>| {
        states.extend(ends());
        blueprint(name, states)
    };
    vec![
        with("task", vec![("work", task("cut", &[("success", "done"), ("failure", "bad")]))]),
        // A failure that nothing catches: quarantine.
        with("frail", vec![("work", task("mix", &[("success", "done")]))]),
        // The same state again and again, so that results of earlier visits come late.
        with(
            "again",
            vec![
                ("first", task("cut", &[("success", "second"), ("again", "first"), ("failure", "done")])),
                ("second", task("cut", &[("success", "done"), ("again", "first"), ("failure", "first")])),
            ],
        ),
        with("wait", vec![("rest", wait(2)), ("work", task("send", &[("success", "done")]))]),
        with("signal", vec![("listen", event(20, &[("received", "done"), ("timeout", "bad")]))]),
        // Signals come before they are waited for.
        with(
            "late-listener",
            vec![
                ("work", task("mix", &[("success", "listen"), ("failure", "listen")])),
                ("listen", event(20, &[("received", "done"), ("timeout", "done")])),
            ],
        ),
        with("approve", vec![("ask", approval(20, &[("yes", "done"), ("no", "bad"), ("timeout", "bad")]))]),
        with("fan", vec![("map", map(task_branch("cut"), Some(2), 1))]),
        with("wide", vec![("map", map(task_branch("send"), None, 0))]),
        with(
            "nest",
            vec![
                ("child", run_on("again", true, &[("success", "then"), ("failure", "then")])),
                ("then", task("cut", &[("success", "done")])),
            ],
        ),
        with("nest-fan", vec![("map", map(run_branch("signal"), Some(3), 2))]),
        with("branches", vec![("map", named(&["task", "fan"]))]),
        // One key for all of a job and another for each attempt, which children and branches want as well.
        keyed(
            "keyed",
            with(
                "",
                vec![
                    ("work", with_keys(task("cut", &[("success", "again"), ("failure", "bad")]))),
                    ("again", with_keys(task("mix", &[("success", "done"), ("failure", "done")]))),
                ],
            ),
        ),
        keyed("keyed-fan", with("", vec![("map", map(keyed_branch("send"), None, 1))])),
        with("nest-keyed", vec![("map", map(run_branch("keyed"), Some(3), 2))]),
        with(
            "newest",
            vec![(
                "work",
                with_rule(
                    task("cut", &[("success", "done"), ("cancelled", "bad"), ("failure", "bad")]),
                    newest(),
                ),
            )],
        ),
        with("let-go", vec![("child", run("task", false))]),
        with("unknown-child", vec![("child", run("nobody-knows-it", true))]),
        // Runs itself, until jobs may nest no deeper.
        with("deep", vec![("child", run("deep", true))]),
    ]
}

fn drawn(name: &str, random: &mut Random) -> Blueprint {
    let count = random.between(2, 6) as usize;
    let names: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
    let mut states = Vec::new();
    for state in &names {
        let to = |random: &mut Random| match random.below(count as u64 + 3) as usize {
            place if place < count => names[place].clone(),
            place if place == count => "bad".to_owned(),
            _ => "done".to_owned(),
        };
        let on = |random: &mut Random, outcomes: &[&'static str]| {
            let drawn = outcomes.iter().filter(|outcome| **outcome == outcomes[0] || random.chance(700));
            let drawn: Vec<&&str> = drawn.collect();
            drawn.into_iter().map(|outcome| (*outcome, to(random))).collect::<Vec<_>>()
        };
        let kind = match random.below(10) {
            0..=3 => {
                let on = on(random, &["success", "failure", "again", "timeout", "cancelled"]);
                task(word(random, &TASK_TYPES), &refs(&on))
            }
            4 => event(random.between(1, 15) as u64, &refs(&on(random, &["received", "timeout"]))),
            5 => approval(random.between(1, 15) as u64, &refs(&on(random, &["yes", "no", "timeout"]))),
            6 => {
                let branch = if random.chance(500) {
                    task_branch(word(random, &TASK_TYPES))
                } else {
                    run_branch(word(random, &LEAVES))
                };
                let parallel = random.chance(500).then(|| random.between(1, 3) as u32);
                map_on(branch, parallel, random.below(3) as u32, &refs(&on(random, &["success", "failure"])))
            }
            7 => {
                let on = on(random, &["success", "failure", "cancelled", "quarantined"]);
                run_on(word(random, &LEAVES), random.chance(700), &refs(&on))
            }
            8 if random.chance(300) => pass(&to(random)),
            8 => wait_to(random.between(0, 4) as u64, &to(random)),
            _ => choice(&to(random), &to(random)),
        };
        states.push((state.as_str(), kind));
    }
    states.push(("done", end(End::Finished)));
    states.push(("bad", end(End::Failed)));
    blueprint(name, states)
}

fn word<'a>(random: &mut Random, among: &[&'a str]) -> &'a str {
    among[random.below(among.len() as u64) as usize]
}

fn refs<'a>(on: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    on.iter().map(|(outcome, to)| (*outcome, to.as_str())).collect()
}

// ---- Words for blueprints ----

fn blueprint(name: &str, states: Vec<(&str, StateKind)>) -> Blueprint {
    let states = states.into_iter().map(|(name, kind)| {
        let name: Arc<str> = Arc::from(name);
        (name.clone(), State { name, kind })
    });
    let states: FastIndexMap<Arc<str>, State> = states.collect();
    let start = states[0].name.clone();
    Blueprint {
        name: Arc::from(name),
        version: 1,
        is_put: false,
        endpoint: None,
        start,
        max_transitions: 12,
        input_schema: None,
        keys: Vec::new(),
        states,
        definition: Arc::from("{}"),
    }
}

fn transitions(on: &[(&str, &str)]) -> Transitions {
    on.iter().map(|(outcome, to)| (Arc::from(*outcome), Arc::from(*to))).collect()
}

fn template(value: &Value) -> Template {
    Template::compile(value).unwrap()
}

fn work(task_type: &str, params: &Value) -> TaskWork {
    let second = Duration::from_secs(1);
    TaskWork {
        task_type: Arc::from(task_type),
        params: template(params),
        timeout: TIMEOUT,
        retry: RetryPolicy { max_retries: 2, initial_delay: second / 10, max_delay: second, multiplier: 3.0 },
        result_schema: None,
        keys: Vec::new(),
        needs: None,
    }
}

fn task(task_type: &str, on: &[(&str, &str)]) -> StateKind {
    let work = work(task_type, &json!({ "n": "${initial_data.n}" }));
    let catch = transitions(&[("CAUGHT", "done")]);
    StateKind::Task(TaskState { work, output: None, catch, on: transitions(on) })
}

// ---- Keys ----

fn rule(key: &str, limit: KeyLimit, policy: KeyPolicy) -> KeyRule {
    KeyRule { key: Expr::compile(key).unwrap(), limit, policy }
}

fn keyed(name: &str, mut blueprint: Blueprint) -> Blueprint {
    blueprint.name = Arc::from(name);
    let key = "'whole:' + string(initial_data.n % 3)";
    blueprint.keys = vec![rule(key, KeyLimit::Concurrency(2), KeyPolicy::Queue)];
    blueprint
}

fn task_keys() -> Vec<KeyRule> {
    let rate = Rate { count: 4, per: Duration::from_secs(1), burst: 2 };
    vec![
        rule("'attempt'", KeyLimit::Concurrency(2), KeyPolicy::Queue),
        rule("'attempt:' + string(initial_data.n % 2)", KeyLimit::Concurrency(1), KeyPolicy::Queue),
        rule("initial_data.n % 5 == 0 ? 'rare' : null", KeyLimit::Rate(rate), KeyPolicy::Queue),
    ]
}

fn newest() -> Vec<KeyRule> {
    vec![rule("'newest'", KeyLimit::Concurrency(1), KeyPolicy::CancelOldest)]
}

fn with_keys(task: StateKind) -> StateKind {
    with_rule(task, task_keys())
}

fn with_rule(mut task: StateKind, keys: Vec<KeyRule>) -> StateKind {
    if let StateKind::Task(task) = &mut task {
        task.work.keys = keys;
    }
    task
}

fn keyed_branch(task_type: &str) -> Branch {
    let mut work = work(task_type, &json!({ "n": "${initial_data.n}" }));
    work.keys = task_keys();
    Branch::Task(work)
}

fn task_branch(task_type: &str) -> Branch {
    Branch::Task(work(task_type, &json!({ "n": "${initial_data.n}" })))
}

fn run_branch(name: &str) -> Branch {
    let input = json!({ "n": "${initial_data.n}", "items": "${initial_data.items}" });
    Branch::Run(RunWork { blueprint: Arc::from(name), input: template(&input) })
}

fn map(branch: Branch, max_parallel: Option<u32>, tolerated: u32) -> StateKind {
    map_on(branch, max_parallel, tolerated, &[("success", "done"), ("failure", "bad")])
}

fn map_on(branch: Branch, max_parallel: Option<u32>, tolerated: u32, on: &[(&str, &str)]) -> StateKind {
    let list = Expr::compile("initial_data.items").unwrap();
    StateKind::Map(MapState {
        over: Over::Each { list, branch: Box::new(branch) },
        max_parallel,
        tolerate: Tolerance::Count(tolerated),
        on: transitions(on),
    })
}

/// Side by side: a task, and each of these blueprints.
fn named(blueprints: &[&str]) -> StateKind {
    let run = |name: &&str| {
        let input = json!({ "n": "${initial_data.n}", "items": "${initial_data.items}" });
        let work = RunWork { blueprint: Arc::from(*name), input: template(&input) };
        (Arc::from(*name), Branch::Run(work))
    };
    let mut over = vec![(Arc::from("here"), Branch::Task(work("mix", &json!({ "n": "${initial_data.n}" }))))];
    over.extend(blueprints.iter().map(run));
    StateKind::Map(MapState {
        over: Over::Named(over),
        max_parallel: None,
        tolerate: Tolerance::Percent(50.0),
        on: transitions(&[("success", "done"), ("failure", "bad")]),
    })
}

fn run(name: &str, waits: bool) -> StateKind {
    run_on(name, waits, &[("success", "done"), ("failure", "bad"), ("cancelled", "done")])
}

fn run_on(name: &str, waits: bool, on: &[(&str, &str)]) -> StateKind {
    let input = json!({ "n": "${initial_data.n}", "items": "${initial_data.items}" });
    let work = RunWork { blueprint: Arc::from(name), input: template(&input) };
    StateKind::Run(RunState { work, waits, output: None, on: transitions(on) })
}

fn wait(seconds: u64) -> StateKind {
    wait_to(seconds, "work")
}

fn wait_to(seconds: u64, next: &str) -> StateKind {
    StateKind::Wait(WaitState { until: WaitUntil::Span(Duration::from_secs(seconds)), next: Arc::from(next) })
}

fn event(deadline: u64, on: &[(&str, &str)]) -> StateKind {
    StateKind::Event(EventState {
        name: template(&json!(SIGNAL)),
        when: None,
        deadline: Some(Duration::from_secs(deadline)),
        on: transitions(on),
    })
}

fn approval(deadline: u64, on: &[(&str, &str)]) -> StateKind {
    let deadline = Some(Duration::from_secs(deadline));
    StateKind::Approval(ApprovalState { message: None, deadline, on: transitions(on) })
}

fn choice(then: &str, otherwise: &str) -> StateKind {
    let when = vec![(Expr::compile("initial_data.n % 2 == 0").unwrap(), Arc::from(then))];
    StateKind::Choice(ChoiceState { when, otherwise: Some(Arc::from(otherwise)) })
}

fn pass(next: &str) -> StateKind {
    let set = template(&json!({ "passed": "${initial_data.n}" }));
    StateKind::Pass(PassState { set, next: Arc::from(next) })
}

fn end(end: End) -> StateKind {
    StateKind::End(EndState { end, result: None })
}
