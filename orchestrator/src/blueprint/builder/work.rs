//! States in which somebody works: a worker, a function, another blueprint, or many of them side by side.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::{RetryPolicy, Strategy, Tolerance},
    form::{Form, StateForm},
    keys::{Key, with_keys},
};

/// A state that asks a worker for a piece of work of this type.
pub fn task(task_type: impl Into<String>) -> Task {
    Task::of("task", Form::default().with("type", task_type.into()))
}

/// A state that calls a function of the orchestrator's own process: see [`functions`](crate::functions).
pub fn code(function: impl Into<String>) -> Task {
    Task::of("code", Form::default().with("function", function.into()))
}

/// A state that runs another blueprint as a child job.
pub fn run(blueprint: impl Into<String>) -> Run {
    Run { run: Form::default().with("blueprint", blueprint.into()), on: Form::default() }
}

/// A state that does the same for each item of the list that this expression gives. The branch sees `item` and `index`.
pub fn map_each(list: impl Into<String>, branch: impl Into<Branch>) -> Map {
    let branch: Branch = branch.into();
    Map {
        map: Form::default().with("over", list.into()).and(branch.0),
        branches: Form::default(),
        on: Form::default(),
    }
}

/// A state that does several things side by side, each named by [`Map::branch`].
pub fn map_named() -> Map {
    Map { map: Form::default(), branches: Form::default(), on: Form::default() }
}

/// See [`task`] and [`code`]. As a branch of a map it has no transitions and no output.
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Task {
    kind: &'static str,
    work: Form,
    params: Form,
    concurrency: Vec<Value>,
    rate: Vec<Value>,
    on: Form,
    catch: Form,
}

impl Task {
    fn of(kind: &'static str, work: Form) -> Self {
        Self {
            kind,
            work,
            params: Form::default(),
            concurrency: Vec::new(),
            rate: Vec::new(),
            on: Form::default(),
            catch: Form::default(),
        }
    }

    /// One of the params that the handler is given.
    pub fn param(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params = self.params.with(key, value);
        self
    }

    /// All params at once, for those that are not put together: `"${initial_data}"`.
    pub fn params(mut self, params: impl Into<Value>) -> Self {
        self.work = self.work.with("params", params);
        self
    }

    /// How long one attempt may run; without it, what the blueprint says for all.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.work = self.work.with_span("timeout", timeout);
        self
    }

    /// What happens after a failed attempt; without it, what the blueprint says for all.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.work = self.work.with_form("retry", retry_form(&policy));
        self
    }

    /// One attempt and no more.
    pub fn no_retry(self) -> Self {
        self.retry(RetryPolicy { max_retries: 0, ..RetryPolicy::default() })
    }

    /// What the data of a success must be like: a JSON Schema.
    pub fn result_schema(mut self, schema: impl Into<Value>) -> Self {
        self.work = self.work.with("result_schema", schema);
        self
    }

    /// What a worker must have, as in a file: `json!({ "resources": { "gpu_vram_gb": ">= 16" } })`.
    pub fn requires(mut self, requires: impl Into<Value>) -> Self {
        self.work = self.work.with("requires", requires);
        self
    }

    /// What a worker should rather have, as in a file: a list such as `json!([{ "labels": { "disk": "ssd" }, "weight": 3 }])`.
    pub fn prefer(mut self, prefer: impl Into<Value>) -> Self {
        self.work = self.work.with("prefer", prefer);
        self
    }

    /// How a worker is chosen among those that suit equally; without it, the default.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.work = self.work.with("strategy", strategy.as_str());
        self
    }

    /// What to merge into the state history instead of the data: an object of templates that see it as `result`.
    pub fn output(mut self, output: impl Into<Value>) -> Self {
        self.work = self.work.with("output", output);
        self
    }

    /// Attempts with the same key that may be under way at once. May be said more than once, for several keys.
    pub fn concurrency(mut self, key: Key) -> Self {
        self.concurrency.push(key.into_value());
        self
    }

    /// Attempts with the same key that may start in a time. May be said more than once, for several keys.
    pub fn rate(mut self, key: Key) -> Self {
        self.rate.push(key.into_value());
        self
    }

    /// The next state after an outcome: `success`, `failure`, `timeout`, `cancelled`, or a word of the handler's own.
    pub fn on(mut self, outcome: impl Into<String>, next: impl Into<String>) -> Self {
        self.on = self.on.with(outcome, next.into());
        self
    }

    /// The next state after a failure with this error code, before `failure` is looked at.
    pub fn catch(mut self, error_code: impl Into<String>, next: impl Into<String>) -> Self {
        self.catch = self.catch.with(error_code, next.into());
        self
    }

    fn into_form(self) -> Form {
        let work = self.work.with_form("params", self.params);
        let work = with_keys(work, self.concurrency, self.rate);
        let form = Form::default().with_node(self.kind, work.into_node());
        form.with_form("on", self.on).with_form("catch", self.catch)
    }
}

/// What stands under `retry`.
pub(super) fn retry_form(policy: &RetryPolicy) -> Form {
    Form::default()
        .with("max_retries", policy.max_retries)
        .with_span("initial_delay", policy.initial_delay)
        .with_span("max_delay", policy.max_delay)
        .with("multiplier", policy.multiplier)
}

/// See [`run`]. As a branch of a map it has no transitions and no output, and is waited for.
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Run {
    run: Form,
    on: Form,
}

impl Run {
    /// The child's initial data: an object with templates in it, or one `${…}` that gives an object.
    pub fn input(mut self, input: impl Into<Value>) -> Self {
        self.run = self.run.with("input", input);
        self
    }

    /// Goes on at once and leaves the child to itself.
    pub fn detached(mut self) -> Self {
        self.run = self.run.with("wait", false);
        self
    }

    /// What to merge into the state history instead of the child's result: an object of templates that see it as `result`.
    pub fn output(mut self, output: impl Into<Value>) -> Self {
        self.run = self.run.with("output", output);
        self
    }

    /// The next state by the child's end: `success`, `failure`, `cancelled` or `quarantined`.
    pub fn on(mut self, outcome: impl Into<String>, next: impl Into<String>) -> Self {
        self.on = self.on.with(outcome, next.into());
        self
    }

    fn into_form(self) -> Form {
        Form::default().with_node("run", self.run.into_node()).with_form("on", self.on)
    }
}

/// See [`map_each`] and [`map_named`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Map {
    map: Form,
    branches: Form,
    on: Form,
}

impl Map {
    /// One of the things to do side by side.
    pub fn branch(mut self, name: impl Into<String>, branch: impl Into<Branch>) -> Self {
        let branch: Branch = branch.into();
        self.branches = self.branches.with_node(name, branch.0.into_node());
        self
    }

    /// Branches that may run at once; without it, all.
    pub fn max_parallel(mut self, max_parallel: u32) -> Self {
        self.map = self.map.with("max_parallel", max_parallel);
        self
    }

    /// Branches that may fail; without it, none.
    pub fn tolerate(mut self, tolerance: Tolerance) -> Self {
        let tolerance: Value = match tolerance {
            Tolerance::Count(count) => count.into(),
            Tolerance::Percent(percent) => format!("{percent}%").into(),
        };
        self.map = self.map.with("tolerate", tolerance);
        self
    }

    /// The next state after an outcome: `success`, or `failure` when more branches failed than are tolerated.
    pub fn on(mut self, outcome: impl Into<String>, next: impl Into<String>) -> Self {
        self.on = self.on.with(outcome, next.into());
        self
    }
}

impl From<Task> for StateForm {
    fn from(state: Task) -> Self {
        StateForm(state.into_form())
    }
}

impl From<Run> for StateForm {
    fn from(state: Run) -> Self {
        StateForm(state.into_form())
    }
}

impl From<Map> for StateForm {
    fn from(state: Map) -> Self {
        let map = state.map.with_form("branches", state.branches);
        StateForm(Form::default().with_node("map", map.into_node()).with_form("on", state.on))
    }
}

/// What one branch of a map does: a [`Task`] or a [`Run`].
#[derive(Debug, Clone)]
pub struct Branch(Form);

impl From<Task> for Branch {
    fn from(task: Task) -> Self {
        Branch(task.into_form())
    }
}

impl From<Run> for Branch {
    fn from(run: Run) -> Self {
        Branch(run.into_form())
    }
}
