//! The law that a job obeys: a named, versioned state machine, as plain data.
//!
//! A [`Blueprint`] is immutable and complete: every expression in it is compiled, every transition in it leads to a state
//! that it has. It refuses to know how a job is stored or where a worker is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use indexmap::IndexMap;

mod check;
mod directory;
pub mod expr;
mod finding;
mod graph;
mod load;
mod reader;
mod registry;
mod states;
mod yaml;

pub use directory::load_dir;
pub use expr::{Data, Expr, ExprError, ExprSyntaxError, Scope, Template};
pub use finding::{Finding, Position, Severity};
pub use load::{
    Definition, FILE_BYTES_MAX, Loaded, MAX_RETRIES_MAX, MAX_TRANSITIONS_MAX, MULTIPLIER_MAX, STATES_MAX,
    load,
};
pub use registry::Registry;

/// A state machine that jobs follow.
#[derive(Debug)]
pub struct Blueprint {
    /// Its name, unique among blueprints.
    pub name: Arc<str>,
    /// Counts from 1; a changed definition is a new version. A job keeps the one that it started with.
    pub version: u32,
    /// Path under `/api` at which `POST` creates a job, with its leading slash.
    pub endpoint: Option<Arc<str>>,
    /// The state that a job enters first.
    pub start: Arc<str>,
    /// Moves that one job may make; one more quarantines it.
    pub max_transitions: u32,
    /// The states by name, in the order of the definition.
    pub states: IndexMap<Arc<str>, State>,
    /// The definition in its one canonical form (JSON), from which the same blueprint can be made again.
    pub definition: Arc<str>,
}

/// One step of a blueprint.
#[derive(Debug)]
pub struct State {
    /// Its name, unique within the blueprint.
    pub name: Arc<str>,
    /// What it does.
    pub kind: StateKind,
}

/// What a state does.
#[derive(Debug)]
pub enum StateKind {
    /// Asks a worker for a piece of work.
    Task(TaskState),
    /// Goes on at the first condition that holds.
    Choice(ChoiceState),
    /// Puts data into the state history and goes on.
    Pass(PassState),
    /// Ends the job.
    End(EndState),
}

/// A state that asks a worker for a piece of work.
#[derive(Debug)]
pub struct TaskState {
    /// What a worker must serve to be given the task.
    pub task_type: Arc<str>,
    /// What the handler is given.
    pub params: Template,
    /// How long one attempt may run.
    pub timeout: Duration,
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// The next state, by outcome.
    pub on: BTreeMap<Arc<str>, Arc<str>>,
}

/// How failed attempts are repeated.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Further attempts after the first; 0 means none.
    pub max_retries: u32,
    /// Pause before the first retry.
    pub initial_delay: Duration,
    /// Longest pause.
    pub max_delay: Duration,
    /// Each pause is this many times the one before; at least 1.
    pub multiplier: f64,
}

impl Default for RetryPolicy {
    /// What a task gets whose state names no policy: three retries, one second doubling to at most a minute.
    fn default() -> Self {
        Self {
            max_retries: 3,
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            multiplier: 2.0,
        }
    }
}

/// A state that goes on at the first condition that holds.
#[derive(Debug)]
pub struct ChoiceState {
    /// Conditions with their next state, tried in order.
    pub when: Vec<(Expr, Arc<str>)>,
    /// Where to go when none holds. Without it, a job for which none holds fails.
    pub otherwise: Option<Arc<str>>,
}

/// A state that puts data into the state history and goes on.
#[derive(Debug)]
pub struct PassState {
    /// An object of templates, merged into the state history.
    pub set: Template,
    /// The next state.
    pub next: Arc<str>,
}

/// A state that ends the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndState {
    /// The job is finished.
    Finished,
    /// The job has failed.
    Failed,
}

impl Blueprint {
    /// How long an attempt may run when the state does not say.
    pub const TASK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

    /// Moves that a job may make when the blueprint does not say.
    pub const MAX_TRANSITIONS_DEFAULT: u32 = 100;

    /// The state with this name.
    pub fn state(&self, name: &str) -> Option<&State> {
        self.states.get(name)
    }

    /// Task types that the blueprint needs workers for, sorted, each once.
    pub fn task_types(&self) -> Vec<Arc<str>> {
        let mut types: Vec<Arc<str>> = self
            .states
            .values()
            .filter_map(|state| match &state.kind {
                StateKind::Task(task) => Some(task.task_type.clone()),
                _ => None,
            })
            .collect();
        types.sort();
        types.dedup();
        types
    }
}

#[cfg(test)]
mod tests;
