//! The kinds of states, each with the words that belong to it.
//!
//! Expressions and templates are written as in a file: `"${initial_data.url}"` in a value, `state_history.total > 10` as a
//! condition.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::RetryPolicy,
    form::{Form, StateForm},
};

/// A state that asks a worker for a piece of work of this type.
pub fn task(task_type: impl Into<String>) -> Task {
    Task {
        task: Form::default().with("type", task_type.into()),
        params: Form::default(),
        on: Form::default(),
    }
}

/// A state that goes on at the first condition that holds.
pub fn choice() -> Choice {
    Choice { when: Vec::new(), rest: Form::default() }
}

/// A state that puts data into the state history and goes on.
pub fn pass() -> Pass {
    Pass { set: Form::default(), rest: Form::default() }
}

/// A state that ends the job well.
pub fn finished() -> EndForm {
    EndForm(Form::default().with("end", "finished"))
}

/// A state that ends the job badly.
pub fn failed() -> EndForm {
    EndForm(Form::default().with("end", "failed"))
}

/// See [`task`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Task {
    task: Form,
    params: Form,
    on: Form,
}

impl Task {
    /// One of the params that the handler is given.
    pub fn param(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.params = self.params.with(key, value);
        self
    }

    /// How long one attempt may run; without it [`Blueprint::TASK_TIMEOUT_DEFAULT`](super::Blueprint::TASK_TIMEOUT_DEFAULT).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.task = self.task.with_span("timeout", timeout);
        self
    }

    /// What happens after a failed attempt; without it the default of [`RetryPolicy`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        let retry = Form::default()
            .with("max_retries", policy.max_retries)
            .with_span("initial_delay", policy.initial_delay)
            .with_span("max_delay", policy.max_delay)
            .with("multiplier", policy.multiplier);
        self.task = self.task.with_form("retry", retry);
        self
    }

    /// One attempt and no more.
    pub fn no_retry(self) -> Self {
        self.retry(RetryPolicy { max_retries: 0, ..RetryPolicy::default() })
    }

    /// The next state after an outcome: `success`, `failure`, `timeout`, `cancelled`, or a word of the worker's own.
    pub fn on(mut self, outcome: impl Into<String>, next: impl Into<String>) -> Self {
        self.on = self.on.with(outcome, next.into());
        self
    }
}

impl From<Task> for StateForm {
    fn from(state: Task) -> Self {
        let task = state.task.with_form("params", state.params);
        StateForm(Form::default().with_node("task", task.into_node()).with_form("on", state.on))
    }
}

/// See [`choice`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Choice {
    when: Vec<Value>,
    rest: Form,
}

impl Choice {
    /// Where to go when this expression holds, and none before it.
    pub fn when(mut self, condition: impl Into<String>, next: impl Into<String>) -> Self {
        self.when.push(serde_json::json!({ "when": condition.into(), "next": next.into() }));
        self
    }

    /// Where to go when none holds. Without it, a job for which none holds fails.
    pub fn otherwise(mut self, next: impl Into<String>) -> Self {
        self.rest = self.rest.with("else", next.into());
        self
    }
}

impl From<Choice> for StateForm {
    fn from(state: Choice) -> Self {
        StateForm(state.rest.with("choice", state.when))
    }
}

/// See [`pass`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Pass {
    set: Form,
    rest: Form,
}

impl Pass {
    /// One of the values to put into the state history.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set = self.set.with(key, value);
        self
    }

    /// The next state.
    pub fn then(mut self, next: impl Into<String>) -> Self {
        self.rest = self.rest.with("next", next.into());
        self
    }
}

impl From<Pass> for StateForm {
    fn from(state: Pass) -> Self {
        StateForm(state.rest.with_node("pass", state.set.into_node()))
    }
}

/// See [`finished`] and [`failed`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct EndForm(Form);

impl From<EndForm> for StateForm {
    fn from(state: EndForm) -> Self {
        StateForm(state.0)
    }
}
