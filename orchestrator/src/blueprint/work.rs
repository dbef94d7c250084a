//! The grammar of states in which somebody works: `task`, `code`, `run` and `map`.
//!
//! What a worker or a function is asked to do and which blueprint is run are spelled the same way in a state of their own and in the
//! branches of a map. A function is asked as a worker would be, for a type of task that no worker can have. How long a child or a branch takes is its own business.

use std::sync::Arc;

use avtomatika_proto::{
    limits::{NAME_BYTES_MAX, OUTCOME_BYTES_MAX},
    names::CODE_PREFIX,
};
use serde_json::{Map, Value, json};

use super::{
    Branch, MapState, Over, RetryPolicy, RunState, RunWork, TaskState, TaskWork, Template, Tolerance,
    Transitions,
    asking::ASKING_KEYS,
    expr::Place,
    finding::shown,
    load::{BRANCHES_MAX, MAX_RETRIES_MAX, MULTIPLIER_MAX},
    reader::{Members, Reader, duration_text, literal},
    states::{Outcomes, Reading, Words},
    yaml::{Node, Yaml},
};

const OUTCOMES_OF_TASK: Outcomes = Outcomes {
    of: "a task",
    required: Some("success"),
    words: Words::Own { called: "the outcome", usual: &["success", "failure", "timeout", "cancelled"] },
    cure: "say where a success leads, as in `on: { success: completed }`",
};

const OUTCOMES_OF_RUN: Outcomes = Outcomes {
    of: "a run",
    required: Some("success"),
    words: Words::Only(&["success", "failure", "cancelled", "quarantined"]),
    cure: "say where a success leads, as in `on: { success: completed, failure: failed }`",
};

const OUTCOMES_OF_DETACHED_RUN: Outcomes = Outcomes {
    of: "a run that is not waited for",
    required: Some("success"),
    words: Words::Only(&["success", "failure"]),
    cure: "say where to go on, as in `on: { success: completed }`",
};

const OUTCOMES_OF_MAP: Outcomes = Outcomes {
    of: "a map",
    required: Some("success"),
    words: Words::Only(&["success", "failure"]),
    cure: "say where a success leads, as in `on: { success: gather, failure: failed }`",
};

/// What a branch of a map may do.
const BRANCH_KINDS: [&str; 3] = ["task", "code", "run"];

/// A piece of a state with its canonical form.
type WithForm<T> = (T, Map<String, Value>);

impl Reader {
    // ---- Tasks ----

    /// A `task` or a `code` state, as `key` says.
    pub fn task(&mut self, key: &str, node: &Node, mut state: Reading<'_, '_>) -> Option<TaskState> {
        // Transitions are read even if the task is wrong, so that what they lead to is not called unreachable.
        let on = self.outcomes(&mut state, &OUTCOMES_OF_TASK);
        let catch = self.catch(&mut state);
        let task = self.asked(key, node, &state.members.what, true)?;
        let work = self.work(key, node, &task, Place::Common);
        let output = self.output(&task);
        let ((work, mut form), (output, output_form)) = (work?, output?);
        form.extend(output_form.map(|output| ("output".to_owned(), output)));
        let task = TaskState { work, output, catch: catch?, on: on? };
        state.form.insert(key.to_owned(), Value::Object(form));
        state.form.insert("on".to_owned(), json!(task.on));
        if !task.catch.is_empty() {
            state.form.insert("catch".to_owned(), json!(task.catch));
        }
        Some(task)
    }

    /// The members of a `task` or `code`.
    fn asked<'n>(&mut self, key: &str, node: &'n Node, of: &str, has_output: bool) -> Option<Members<'n>> {
        let what = format!("the {key} of {of}");
        if key == "code" && matches!(node.value, Yaml::Text(_)) {
            // `code: name` names a function and says nothing else.
            return Some(Members { at: node.at, what, entries: &[] });
        }
        let name = if key == "code" { "function" } else { "type" };
        let mut keys = vec![name, "params", "timeout", "retry", "result_schema", "concurrency", "rate"];
        if has_output {
            keys.push("output");
        }
        if key == "task" {
            // A function is where it is.
            keys.extend(ASKING_KEYS);
        }
        self.members(node, &what, &keys)
    }

    fn task_type(&mut self, task: &Members<'_>) -> Option<Arc<str>> {
        let node = task.required(self, "type", "say what a worker must serve, as in `type: process_data`")?;
        let text = self.text(node, "a task's type")?;
        if let Some(function) = text.strip_prefix(CODE_PREFIX) {
            self.findings.error(
                node.at,
                format!("the type `{}` belongs to functions and not to workers", shown(text)),
                format!("write `code: {}` instead of `task`", shown(function)),
            );
            return None;
        }
        self.checked(text, node.at, "a task's type", NAME_BYTES_MAX, "._:-")
    }

    /// The type of the task that calls a function.
    fn function_type(&mut self, node: &Node, code: &Members<'_>) -> Option<Arc<str>> {
        let node = match &node.value {
            Yaml::Text(_) => node,
            _ => code.required(self, "function", "name it, as in `function: count_words`")?,
        };
        let text = self.text(node, "a function's name")?;
        let bytes_max = NAME_BYTES_MAX - CODE_PREFIX.len();
        let name = self.checked(text, node.at, "a function's name", bytes_max, "._-")?;
        Some(Arc::from(format!("{CODE_PREFIX}{name}")))
    }

    /// What a worker or a function is asked to do. In a branch, the params are an object: they are what the branch is made with.
    fn work(
        &mut self,
        key: &str,
        node: &Node,
        task: &Members<'_>,
        place: Place,
    ) -> Option<WithForm<TaskWork>> {
        let task_type = match key {
            "code" => self.function_type(node, task),
            _ => self.task_type(task),
        };
        let params_form = task.value("params").map_or_else(|| json!({}), Node::to_json);
        let params = match task.value("params") {
            Some(node) => self.template(node, place),
            None => Some(Template::Literal(json!({}))),
        };
        let timeout = match task.value("timeout") {
            Some(node) => self.duration(node, "timeout"),
            None => Some(self.defaults.timeout),
        };
        let retry = match task.value("retry") {
            Some(node) => self.retry(node),
            None => Some(self.defaults.retry.clone()),
        };
        let result_schema = match task.value("result_schema") {
            Some(node) => self.schema(node, "`result_schema`").map(Some),
            None => Some(None),
        };
        let keys = self.key_rules(task, place);
        let needs = self.needs(task);
        let (keys, keys_form) = keys?;
        let (needs, asking) = needs?.unzip();
        let work = TaskWork {
            task_type: task_type?,
            params: params?,
            timeout: timeout?,
            retry: retry?,
            result_schema: result_schema?,
            keys,
            needs: needs.map(Box::new),
        };
        let mut form = Map::new();
        match work.function() {
            Some(function) => form.insert("function".to_owned(), json!(function)),
            None => form.insert("type".to_owned(), json!(work.task_type)),
        };
        form.insert("params".to_owned(), params_form);
        form.insert("timeout".to_owned(), json!(duration_text(work.timeout)));
        form.insert("retry".to_owned(), retry_form(&work.retry));
        if let Some(node) = task.value("result_schema") {
            form.insert("result_schema".to_owned(), node.to_json());
        }
        form.extend(keys_form);
        form.extend(asking.into_iter().flatten());
        Some((work, form))
    }

    /// What to merge into the state history instead of the data. Nothing is an answer too.
    fn output(&mut self, of: &Members<'_>) -> Option<(Option<Template>, Option<Value>)> {
        let Some(node) = of.value("output") else { return Some((None, None)) };
        Some((Some(self.object(node, "`output`", Place::Common)?), Some(node.to_json())))
    }

    /// The next states by error code.
    fn catch(&mut self, state: &mut Reading<'_, '_>) -> Option<Transitions> {
        let Some(node) = state.members.value("catch") else { return Some(Transitions::new()) };
        let mut catch = Transitions::new();
        for entry in self.map(node, "`catch`")? {
            let code = self.checked(&entry.key, entry.key_at, "an error code", OUTCOME_BYTES_MAX, "._-");
            let to = self.link(&entry.value, "the state after an error", state.links);
            if let (Some(code), Some(to)) = (code, to) {
                catch.insert(code, to);
            }
        }
        Some(catch)
    }

    /// Timeout and retries of the tasks that say nothing else.
    pub fn read_defaults(&mut self, node: &Node) {
        let Some(defaults) = self.members(node, "`defaults`", &["timeout", "retry"]) else { return };
        if let Some(timeout) = defaults.value("timeout").and_then(|node| self.duration(node, "timeout")) {
            self.defaults.timeout = timeout;
        }
        if let Some(retry) = defaults.value("retry").and_then(|node| self.retry(node)) {
            self.defaults.retry = retry;
        }
    }

    fn retry(&mut self, node: &Node) -> Option<RetryPolicy> {
        let keys = ["max_retries", "initial_delay", "max_delay", "multiplier"];
        let retry = self.members(node, "`retry`", &keys)?;
        let default = self.defaults.retry.clone();
        // Everything is read before giving up, so that every error is found.
        let max_retries = match retry.value("max_retries") {
            Some(node) => self.integer(node, "max_retries", 0, MAX_RETRIES_MAX),
            None => Some(default.max_retries),
        };
        let initial = retry.value("initial_delay").map(|node| self.duration(node, "initial_delay"));
        let max = retry.value("max_delay").map(|node| self.duration(node, "max_delay"));
        let multiplier = match retry.value("multiplier") {
            Some(node) => self.multiplier(node),
            None => Some(default.multiplier),
        };
        // A default gives way to what is written.
        let (initial_delay, max_delay) = match (initial, max) {
            (Some(initial), Some(max)) => (initial?, max?),
            (Some(initial), None) => (initial?, default.max_delay.max(initial?)),
            (None, Some(max)) => (default.initial_delay.min(max?), max?),
            (None, None) => (default.initial_delay, default.max_delay),
        };
        if initial_delay > max_delay {
            let (initial, max) = (duration_text(initial_delay), duration_text(max_delay));
            self.findings.error(
                retry.entry("max_delay").map_or(node.at, |entry| entry.value.at),
                format!("`max_delay` {max} is shorter than `initial_delay` {initial}"),
                "raise `max_delay`",
            );
        }
        Some(RetryPolicy { max_retries: max_retries?, initial_delay, max_delay, multiplier: multiplier? })
    }

    fn multiplier(&mut self, node: &Node) -> Option<f64> {
        let number = match &node.value {
            Yaml::Number(number) => number.as_f64(),
            _ => None,
        };
        if let Some(number) = number.filter(|number| (1.0..=MULTIPLIER_MAX).contains(number)) {
            return Some(number);
        }
        self.findings.error(
            node.at,
            format!("`multiplier` must be a number, not {}", literal(node)),
            format!("write one from 1 to {MULTIPLIER_MAX}"),
        );
        None
    }

    // ---- Children ----

    pub fn run(&mut self, node: &Node, mut state: Reading<'_, '_>) -> Option<RunState> {
        let what = format!("the run of {}", state.members.what);
        let run = self.members(node, &what, &["blueprint", "input", "wait", "output"]);
        let waits = match run.as_ref().and_then(|run| run.value("wait")) {
            None => Some(true),
            Some(node) => self.boolean(node, "wait"),
        };
        let detached = waits == Some(false);
        let wanted = if detached { &OUTCOMES_OF_DETACHED_RUN } else { &OUTCOMES_OF_RUN };
        let on = self.outcomes(&mut state, wanted);
        let run = run?;
        if let Some(output) = run.entry("output").filter(|_| detached) {
            self.findings.error(
                output.key_at,
                format!("{what} has an `output` and does not wait for the child's result"),
                "remove `output` or `wait: false`",
            );
        }
        let work = self.run_work(&run, Place::Common);
        let output = self.output(&run);
        let ((work, mut form), (output, output_form)) = (work?, output?);
        if detached {
            form.insert("wait".to_owned(), Value::Bool(false));
        }
        form.extend(output_form.map(|output| ("output".to_owned(), output)));
        let run = RunState { work, waits: waits?, output, on: on? };
        state.form.insert("run".to_owned(), Value::Object(form));
        state.form.insert("on".to_owned(), json!(run.on));
        Some(run)
    }

    fn run_work(&mut self, run: &Members<'_>, place: Place) -> Option<WithForm<RunWork>> {
        let blueprint = run
            .required(self, "blueprint", "name the blueprint to run, as in `blueprint: my_workflow`")
            .and_then(|node| self.name(node, "a blueprint's name").map(|name| (name, node.at)));
        let input = match run.value("input") {
            Some(node) => self.object(node, "`input`", place),
            None => Some(Template::Literal(json!({}))),
        };
        if let Some((blueprint, at)) = &blueprint {
            self.runs.push((blueprint.clone(), *at));
        }
        let work = RunWork { blueprint: blueprint?.0, input: input? };
        let mut form = Map::new();
        form.insert("blueprint".to_owned(), json!(work.blueprint));
        form.insert("input".to_owned(), run.value("input").map_or_else(|| json!({}), Node::to_json));
        Some((work, form))
    }

    // ---- Maps ----

    pub fn fan_out(&mut self, node: &Node, mut state: Reading<'_, '_>) -> Option<MapState> {
        let on = self.outcomes(&mut state, &OUTCOMES_OF_MAP);
        let what = format!("the map of {}", state.members.what);
        let keys = ["over", "task", "code", "run", "branches", "max_parallel", "tolerate"];
        let map = self.members(node, &what, &keys)?;
        let over = match (map.entry("over"), map.entry("branches")) {
            (Some(over), None) => self.each(&over.value, &map),
            (None, Some(branches)) => self.named_branches(&branches.value, &map),
            (Some(_), Some(branches)) => {
                self.findings.error(
                    branches.key_at,
                    format!("{what} has both `over` and `branches`"),
                    "keep `over` for the same work on each item of a list, or `branches` for different works",
                );
                None
            }
            (None, None) => {
                self.findings.error(
                    map.at,
                    format!("{what} has neither `over` nor `branches`"),
                    "say over what, as in `over: initial_data.pages`, or name `branches`",
                );
                None
            }
        };
        let max_parallel = match map.value("max_parallel") {
            Some(node) => self.integer(node, "max_parallel", 1, BRANCHES_MAX).map(Some),
            None => Some(None),
        };
        let tolerate = match map.value("tolerate") {
            Some(node) => self.tolerance(node),
            None => Some(Tolerance::Count(0)),
        };
        let ((over, mut form), tolerate, max_parallel) = (over?, tolerate?, max_parallel?);
        if let (Over::Named(named), Tolerance::Count(count)) = (&over, tolerate)
            && count as usize > named.len()
        {
            let at = map.value("tolerate").map_or(map.at, |node| node.at);
            let fault = format!("{what} tolerates {count} failed branches and has {}", named.len());
            self.findings.error(at, fault, "lower `tolerate`");
        }
        form.extend(max_parallel.map(|most| ("max_parallel".to_owned(), json!(most))));
        form.extend(tolerance_form(tolerate).map(|tolerate| ("tolerate".to_owned(), tolerate)));
        let map = MapState { over, max_parallel, tolerate, on: on? };
        state.form.insert("map".to_owned(), Value::Object(form));
        state.form.insert("on".to_owned(), json!(map.on));
        Some(map)
    }

    /// The same for each item of a list.
    fn each(&mut self, node: &Node, map: &Members<'_>) -> Option<WithForm<Over>> {
        let list = self.list_expression(node);
        let branch = self.one_branch(map, Place::Branch);
        let (list, (branch, mut form)) = (list?, branch?);
        form.shift_insert(0, "over".to_owned(), json!(list.source()));
        Some((Over::Each { list, branch: Box::new(branch) }, form))
    }

    /// An expression, which `${…}` may surround.
    fn list_expression(&mut self, node: &Node) -> Option<super::Expr> {
        match &node.value {
            Yaml::Text(text) if text.starts_with("${") => match self.template(node, Place::Common)? {
                Template::Expr(expr) => Some(expr),
                _ => {
                    self.findings.error(
                        node.at,
                        format!("`over` must be one expression, not {}", literal(node)),
                        "write for example `over: initial_data.pages`",
                    );
                    None
                }
            },
            Yaml::List(_) => {
                self.findings.error(
                    node.at,
                    "`over` must be an expression, not a list",
                    "write for example `over: initial_data.pages` or `over: \"['a', 'b']\"`; works that differ are `branches`",
                );
                None
            }
            _ => self.expression(node, "`over`", Place::Common),
        }
    }

    /// Different works side by side.
    fn named_branches(&mut self, node: &Node, map: &Members<'_>) -> Option<WithForm<Over>> {
        for stray in BRANCH_KINDS.into_iter().filter_map(|key| map.entry(key)) {
            self.findings.error(
                stray.key_at,
                format!("`{}` stands beside the branches of {}", stray.key, map.what),
                "write it into a branch, as in `branches: { first: { task: … } }`",
            );
        }
        let entries = self.map(node, "`branches`")?;
        if entries.is_empty() || entries.len() > BRANCHES_MAX as usize {
            self.findings.error(
                node.at,
                format!("{} has {} branches", map.what, entries.len()),
                format!("name 1 to {BRANCHES_MAX}, as in `branches: {{ first: {{ task: … }} }}`"),
            );
            return None;
        }
        let mut forms = Map::new();
        // All are read before giving up, so that every error is found.
        let branches: Vec<Option<(Arc<str>, Branch)>> = entries
            .iter()
            .map(|entry| {
                let name = self.checked(&entry.key, entry.key_at, "a branch's name", NAME_BYTES_MAX, "._-");
                let what = format!("branch `{}` of {}", entry.key, map.what);
                let members = self.members(&entry.value, &what, &BRANCH_KINDS)?;
                let (branch, form) = self.one_branch(&members, Place::Common)?;
                forms.insert(entry.key.clone(), Value::Object(form));
                Some((name?, branch))
            })
            .collect();
        let branches: Vec<(Arc<str>, Branch)> = branches.into_iter().collect::<Option<_>>()?;
        let mut form = Map::new();
        form.insert("branches".to_owned(), Value::Object(forms));
        Some((Over::Named(branches), form))
    }

    /// What a branch with these members does.
    fn one_branch(&mut self, members: &Members<'_>, place: Place) -> Option<WithForm<Branch>> {
        const CURE: &str = "give it one `task`, one `code` or one `run`";
        let mut kinds = BRANCH_KINDS.into_iter().filter_map(|key| members.entry(key));
        let (kind, second) = (kinds.next(), kinds.next());
        let Some(kind) = kind else {
            self.findings.error(members.at, format!("{} does nothing", members.what), CURE);
            return None;
        };
        if let Some(second) = second {
            let fault = format!("{} has both a `{}` and a `{}`", members.what, kind.key, second.key);
            self.findings.error(second.key_at, fault, CURE);
            return None;
        }
        let (key, node) = (kind.key.as_str(), &kind.value);
        let (branch, form) = match key {
            "run" => {
                let what = format!("the run of {}", members.what);
                let run = self.members(node, &what, &["blueprint", "input"])?;
                let (work, form) = self.run_work(&run, place)?;
                (Branch::Run(work), form)
            }
            _ => {
                let task = self.asked(key, node, &members.what, false)?;
                if let Some(params) = task.value("params") {
                    self.object(params, "the params of a branch", place)?;
                }
                let (work, form) = self.work(key, node, &task, place)?;
                (Branch::Task(work), form)
            }
        };
        let mut outer = Map::new();
        outer.insert(key.to_owned(), Value::Object(form));
        Some((branch, outer))
    }

    /// A number of branches, or a share of them such as `10%`.
    fn tolerance(&mut self, node: &Node) -> Option<Tolerance> {
        let tolerance = match &node.value {
            Yaml::Number(number) => {
                number.as_u64().and_then(|count| u32::try_from(count).ok()).map(Tolerance::Count)
            }
            Yaml::Text(text) => text
                .strip_suffix('%')
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
                .and_then(|digits| digits.parse().ok())
                .map(
                    |percent| if percent == 0.0 { Tolerance::Count(0) } else { Tolerance::Percent(percent) },
                ),
            _ => None,
        };
        let fits = |tolerance: &Tolerance| match tolerance {
            Tolerance::Count(count) => *count <= BRANCHES_MAX,
            Tolerance::Percent(percent) => *percent <= 100.0,
        };
        if tolerance.as_ref().is_some_and(fits) {
            return tolerance;
        }
        self.findings.error(
            node.at,
            format!("`tolerate` must be a number of branches or a share of them, not {}", literal(node)),
            format!("write a whole number from 0 to {BRANCHES_MAX}, or for example \"10%\""),
        );
        None
    }
}

fn retry_form(retry: &RetryPolicy) -> Value {
    json!({
        "max_retries": retry.max_retries,
        "initial_delay": duration_text(retry.initial_delay),
        "max_delay": duration_text(retry.max_delay),
        "multiplier": retry.multiplier,
    })
}

fn tolerance_form(tolerance: Tolerance) -> Option<Value> {
    match tolerance {
        Tolerance::Count(0) => None,
        Tolerance::Count(count) => Some(json!(count)),
        Tolerance::Percent(percent) => Some(json!(format!("{percent}%"))),
    }
}
