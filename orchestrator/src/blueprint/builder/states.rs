//! States that move a job or let it wait, each with the words that belong to it.

use std::time::Duration;

use serde_json::Value;

use super::form::{Form, StateForm};

/// A state that goes on at the first condition that holds.
pub fn choice() -> Choice {
    Choice { when: Vec::new(), rest: Form::default() }
}

/// A state that puts data into the state history and goes on.
pub fn pass() -> Pass {
    Pass { set: Form::default(), rest: Form::default() }
}

/// A state that waits for so long, from the moment at which it is entered.
pub fn wait(span: Duration) -> Wait {
    Wait(Form::default().with_span("wait", span))
}

/// A state that waits until this time: RFC 3339, or a `${…}` that gives a time, a span such as `10m`, or a number of seconds.
pub fn wait_until(time: impl Into<String>) -> Wait {
    let until = Form::default().with("until", time.into());
    Wait(Form::default().with_node("wait", until.into_node()))
}

/// A state that waits for a signal of this name, which may hold expressions in `${…}`.
pub fn event(name: impl Into<String>) -> Event {
    Event { event: Form::default().with("name", name.into()), on: Form::default() }
}

/// A state that waits for a human's decision.
pub fn approval() -> Approval {
    Approval { approval: Form::default(), on: Form::default() }
}

/// A state that ends the job well.
pub fn finished() -> End {
    End(Form::default().with("end", "finished"))
}

/// A state that ends the job badly.
pub fn failed() -> End {
    End(Form::default().with("end", "failed"))
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

/// See [`wait`] and [`wait_until`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Wait(Form);

impl Wait {
    /// The next state.
    pub fn then(self, next: impl Into<String>) -> Self {
        Self(self.0.with("next", next.into()))
    }
}

impl From<Wait> for StateForm {
    fn from(state: Wait) -> Self {
        StateForm(state.0)
    }
}

/// See [`event`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Event {
    event: Form,
    on: Form,
}

impl Event {
    /// Only a signal for which this expression holds. It sees the signal's data as `signal`.
    pub fn when(mut self, condition: impl Into<String>) -> Self {
        self.event = self.event.with("when", condition.into());
        self
    }

    /// How long to wait. Then the outcome is `timeout`.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.event = self.event.with_span("deadline", deadline);
        self
    }

    /// The next state after an outcome: `received` or `timeout`.
    pub fn on(mut self, outcome: impl Into<String>, next: impl Into<String>) -> Self {
        self.on = self.on.with(outcome, next.into());
        self
    }
}

impl From<Event> for StateForm {
    fn from(state: Event) -> Self {
        StateForm(Form::default().with_node("event", state.event.into_node()).with_form("on", state.on))
    }
}

/// See [`approval`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct Approval {
    approval: Form,
    on: Form,
}

impl Approval {
    /// What the human is asked; it may hold expressions in `${…}`.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.approval = self.approval.with("message", message.into());
        self
    }

    /// How long to wait. Then the outcome is `timeout`.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.approval = self.approval.with_span("deadline", deadline);
        self
    }

    /// The next state after a decision, such as `approved`, or after `timeout`.
    pub fn on(mut self, decision: impl Into<String>, next: impl Into<String>) -> Self {
        self.on = self.on.with(decision, next.into());
        self
    }
}

impl From<Approval> for StateForm {
    fn from(state: Approval) -> Self {
        StateForm(Form::default().with_node("approval", state.approval.into_node()).with_form("on", state.on))
    }
}

/// See [`finished`] and [`failed`].
#[derive(Debug, Clone)]
#[must_use = "add it to a blueprint"]
pub struct End(Form);

impl End {
    /// The job's result, instead of the data of the last one: an object with templates in it, or one `${…}` that gives an object.
    pub fn result(self, result: impl Into<Value>) -> Self {
        Self(self.0.with("result", result))
    }
}

impl From<End> for StateForm {
    fn from(state: End) -> Self {
        StateForm(state.0)
    }
}
