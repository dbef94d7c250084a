//! The law that a job obeys: a named, versioned state machine, as plain data.
//!
//! A [`Blueprint`] is immutable and complete: every expression in it is compiled, every transition in it leads to a state
//! that it has. It refuses to know how a job is stored or where a worker is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avtomatika_proto::names::CODE_PREFIX;

use crate::{hash::FastIndexMap, time::Timestamp};

mod asking;
pub mod builder;
mod catalog;
mod check;
mod diff;
mod directory;
pub mod expr;
mod finding;
mod graph;
mod keys;
mod load;
mod needs;
mod pauses;
mod put;
mod reader;
mod registry;
mod schema;
mod states;
mod work;
mod yaml;

pub use catalog::Catalog;
pub use diff::{Concern, Diff, Difference, Fate};
pub use directory::{load_dir, load_filled_dir};
pub use expr::{Data, Datum, Expr, ExprError, ExprSyntaxError, Place, Scope, Template};
pub use finding::{Finding, Position, Severity};
pub use graph::{Edge, Graph, Node, Shape, Stands};
pub use keys::{KEY_BYTES_MAX, KEY_LIMIT_MAX, KEY_RULES_MAX, KeyLimit, KeyPolicy, KeyRule, Rate, Share};
pub use load::{
    BRANCHES_MAX, Definition, FILE_BYTES_MAX, Loaded, MAX_RETRIES_MAX, MAX_TRANSITIONS_MAX, MULTIPLIER_MAX,
    STATES_MAX, load,
};
pub use needs::{About, Comparison, Condition, Needs, Preference, Strategy, Test};
pub use registry::{Change, Enactment, Registry};
pub use schema::{Schema, SchemaError};

/// The JSON Schema (draft 2020-12) of a blueprint file, for editors. What it refuses the loader refuses too; the loader finds more.
pub const EDITOR_SCHEMA: &str = include_str!("editor_schema.json");

/// A state machine that jobs follow.
#[derive(Debug)]
pub struct Blueprint {
    /// Its name, unique among blueprints.
    pub name: Arc<str>,
    /// Counts from 1; a changed definition is a new version. A job keeps the one that it started with.
    pub version: u32,
    /// Whether this version was put over the wire. Otherwise it came from a file, or from the program.
    pub is_put: bool,
    /// Path under `/api` at which `POST` creates a job, with its leading slash.
    pub endpoint: Option<Arc<str>>,
    /// The state that a job enters first.
    pub start: Arc<str>,
    /// Moves that one job may make; one more quarantines it.
    pub max_transitions: u32,
    /// What the initial data of a job must be like.
    pub input_schema: Option<Schema>,
    /// The keys that a job takes from its start to its end.
    pub keys: Vec<KeyRule>,
    /// The states by name, in the order of the definition.
    pub states: FastIndexMap<Arc<str>, State>,
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
    /// Waits for a point in time.
    Wait(WaitState),
    /// Waits for a signal.
    Event(EventState),
    /// Waits for a human's decision.
    Approval(ApprovalState),
    /// Runs another blueprint as a child job.
    Run(RunState),
    /// Does the same for each of a list, or several things side by side.
    Map(MapState),
    /// Ends the job.
    End(EndState),
}

impl StateKind {
    /// Where the state leads, by outcome, if it ends with outcomes.
    pub fn transitions(&self) -> Option<&Transitions> {
        match self {
            Self::Task(task) => Some(&task.on),
            Self::Event(event) => Some(&event.on),
            Self::Approval(approval) => Some(&approval.on),
            Self::Run(run) => Some(&run.on),
            Self::Map(map) => Some(&map.on),
            Self::Choice(_) | Self::Pass(_) | Self::Wait(_) | Self::End(_) => None,
        }
    }
}

/// The next state, by outcome.
pub type Transitions = BTreeMap<Arc<str>, Arc<str>>;

/// A state that asks a worker for a piece of work.
#[derive(Debug)]
pub struct TaskState {
    /// The work.
    pub work: TaskWork,
    /// What to merge into the state history instead of the worker's data: an object of templates that see it as `result`.
    pub output: Option<Template>,
    /// The next state after a failure with this error code, before `on.failure` is looked at.
    pub catch: Transitions,
    /// The next state, by outcome.
    pub on: Transitions,
}

/// What a worker is asked to do.
#[derive(Debug)]
pub struct TaskWork {
    /// What a worker must serve to be given the task.
    pub task_type: Arc<str>,
    /// What the handler is given.
    pub params: Template,
    /// How long one attempt may run.
    pub timeout: Duration,
    /// What happens after a failed attempt.
    pub retry: RetryPolicy,
    /// What the data of a result must be like.
    pub result_schema: Option<Schema>,
    /// The keys that an attempt takes before it is offered to workers.
    pub keys: Vec<KeyRule>,
    /// What is asked of the worker beside the type, if anything is.
    pub needs: Option<Box<Needs>>,
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

/// A state that waits for a point in time.
#[derive(Debug)]
pub struct WaitState {
    /// Until when.
    pub until: WaitUntil,
    /// The next state.
    pub next: Arc<str>,
}

/// How long a [`WaitState`] waits.
#[derive(Debug)]
pub enum WaitUntil {
    /// So long, from the moment at which the state is entered.
    Span(Duration),
    /// Until this time; one that has passed is no wait.
    Time(Timestamp),
    /// Whatever this gives: a span such as `"10m"`, a number of seconds, or a time in RFC 3339.
    Computed(Template),
}

/// A state that waits for a signal.
#[derive(Debug)]
pub struct EventState {
    /// The signal's name.
    pub name: Template,
    /// Only a signal for which this holds; it sees the signal's data as `signal`.
    pub when: Option<Expr>,
    /// How long to wait. Then the outcome is `timeout`.
    pub deadline: Option<Duration>,
    /// The next state, by outcome: `received` or `timeout`.
    pub on: Transitions,
}

/// A state that waits for a human's decision.
#[derive(Debug)]
pub struct ApprovalState {
    /// What the human is asked.
    pub message: Option<Template>,
    /// How long to wait. Then the outcome is `timeout`.
    pub deadline: Option<Duration>,
    /// The next state, by decision; and `timeout`.
    pub on: Transitions,
}

/// A state that runs another blueprint as a child job.
#[derive(Debug)]
pub struct RunState {
    /// What is run.
    pub work: RunWork,
    /// Whether the job waits for the child's end. A child that is not waited for lives on by itself.
    pub waits: bool,
    /// What to merge into the state history instead of the child's result.
    pub output: Option<Template>,
    /// The next state, by the child's end: `success`, `failure`, `cancelled`, `quarantined`. Without waiting: `success`.
    pub on: Transitions,
}

/// Another blueprint and its input.
#[derive(Debug)]
pub struct RunWork {
    /// The blueprint's name. Its newest version at that moment is run.
    pub blueprint: Arc<str>,
    /// The child's initial data.
    pub input: Template,
}

/// A state that has several branches, each of them a job of its own.
#[derive(Debug)]
pub struct MapState {
    /// The branches.
    pub over: Over,
    /// Branches that may run at once; without it, all.
    pub max_parallel: Option<u32>,
    /// Branches that may fail.
    pub tolerate: Tolerance,
    /// The next state, by outcome: `success`, or `failure` when more branches failed than are tolerated.
    pub on: Transitions,
}

/// The branches of a [`MapState`].
#[derive(Debug)]
pub enum Over {
    /// One for each item of a list. The branch's templates see `item` and `index`.
    Each {
        /// The list.
        list: Expr,
        /// What is done for each item.
        branch: Box<Branch>,
    },
    /// These, by name.
    Named(Vec<(Arc<str>, Branch)>),
}

/// What one branch does.
#[derive(Debug)]
pub enum Branch {
    /// Asks a worker.
    Task(TaskWork),
    /// Runs another blueprint.
    Run(RunWork),
}

/// How many branches may fail before their state fails.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// So many.
    Count(u32),
    /// So many of a hundred, 0 to 100.
    Percent(f64),
}

impl Over {
    /// What is done, each thing once.
    pub fn branches(&self) -> impl Iterator<Item = &Branch> {
        let (each, named) = match self {
            Self::Each { branch, .. } => (Some(&**branch), [].as_slice()),
            Self::Named(named) => (None, named.as_slice()),
        };
        each.into_iter().chain(named.iter().map(|(_, branch)| branch))
    }

    /// What branch number `index` does, and its name if it has one.
    pub fn branch(&self, index: u32) -> Option<(&Branch, Option<&Arc<str>>)> {
        match self {
            Self::Each { branch, .. } => Some((branch, None)),
            Self::Named(named) => named.get(index as usize).map(|(name, branch)| (branch, Some(name))),
        }
    }
}

impl TaskWork {
    /// The function of the orchestrator's own process that does the work, if it is not a worker's.
    pub fn function(&self) -> Option<&str> {
        self.task_type.strip_prefix(CODE_PREFIX)
    }
}

impl Branch {
    fn task_type(&self) -> Option<&Arc<str>> {
        match self {
            Self::Task(work) => Some(&work.task_type),
            Self::Run(_) => None,
        }
    }
}

impl Tolerance {
    /// Branches that may fail of so many.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (f64::from(total) * percent / 100.0).floor() as u32,
        }
    }
}

/// A state that ends the job.
#[derive(Debug)]
pub struct EndState {
    /// How it ends.
    pub end: End,
    /// The job's result, instead of the data of the last one: an object of templates.
    pub result: Option<Template>,
}

/// How a job may end by its blueprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
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
            .flat_map(|state| match &state.kind {
                StateKind::Task(task) => vec![&task.work.task_type],
                StateKind::Map(map) => map.over.branches().filter_map(Branch::task_type).collect(),
                _ => Vec::new(),
            })
            .cloned()
            .collect();
        types.sort();
        types.dedup();
        types
    }

    /// Functions of the orchestrator's own process that the blueprint calls, sorted, each once.
    pub fn functions(&self) -> Vec<Arc<str>> {
        let types = self.task_types();
        types.iter().filter_map(|task_type| task_type.strip_prefix(CODE_PREFIX)).map(Arc::from).collect()
    }
}

#[cfg(test)]
mod tests;
