//! A blueprint in Rust: the same data as a file, typed while it is written.
//!
//! The builder puts together what a file would say, and the loader reads it: so a blueprint that was built and one that was
//! written are the same version when they mean the same, and a mistake gets the same finding. It has no rules of its own.
//!
//! Expressions and templates are spelled as in a file: `"${initial_data.url}"` in a value, `state_history.total > 10` as a
//! condition.
//!
//! ```
//! use std::time::Duration;
//! use avtomatika_orchestrator::blueprint::{Blueprint, builder::{choice, failed, finished, task}};
//!
//! let definition = Blueprint::builder("order_review")
//!     .endpoint("/jobs/orders")
//!     .start(
//!         "price",
//!         task("price_order")
//!             .param("order_id", "${initial_data.order.id}")
//!             .timeout(Duration::from_secs(30))
//!             .on("success", "decide")
//!             .on("failure", "refused"),
//!     )
//!     .state("decide", choice().when("state_history.total > 1000", "refused").otherwise("completed"))
//!     .state("completed", finished())
//!     .state("refused", failed())
//!     .build()?;
//! assert_eq!(&**definition.name(), "order_review");
//! # Ok::<(), avtomatika_orchestrator::blueprint::builder::Unsound>(())
//! ```

mod form;
mod keys;
mod place;
mod states;
mod work;

use std::{fmt, time::Duration};

use serde_json::Value;

use self::{form::Form, keys::with_keys, place::Ways, work::retry_form};
pub use self::{
    form::StateForm,
    keys::{Key, at_once, per},
    states::{
        Approval, Choice, End, Event, Pass, Wait, approval, choice, event, failed, finished, pass, wait,
        wait_until,
    },
    work::{Branch, Map, Run, Task, code, map_each, map_named, run, task},
};
use super::{
    Blueprint, Definition, Finding, RetryPolicy, Severity,
    finding::{Findings, Position},
    load::{CURE_TOO_LARGE, FILE_BYTES_MAX, Loaded, load_tree, too_large},
};

/// A blueprint in the making. See the [module](self).
#[derive(Debug, Clone)]
#[must_use = "nothing is checked before `build`"]
pub struct BlueprintBuilder {
    name: String,
    top: Form,
    concurrency: Vec<Value>,
    rate: Vec<Value>,
    defaults: Form,
    states: Form,
}

/// What is wrong with a blueprint that was built: all of it, as the loader says it of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsound {
    /// What was found. At least one is an error.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the blueprint cannot be used")?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

impl std::error::Error for Unsound {}

impl Blueprint {
    /// Begins a blueprint of this name. See [`builder`](self).
    pub fn builder(name: impl Into<String>) -> BlueprintBuilder {
        let name = name.into();
        let top = Form::default().with("blueprint", name.clone());
        BlueprintBuilder {
            name,
            top,
            concurrency: Vec::new(),
            rate: Vec::new(),
            defaults: Form::default(),
            states: Form::default(),
        }
    }
}

impl BlueprintBuilder {
    /// The path under `/api` at which `POST` creates a job, with its leading slash.
    pub fn endpoint(mut self, path: impl Into<String>) -> Self {
        self.top = self.top.with("endpoint", path.into());
        self
    }

    /// Moves that one job may make; without it [`Blueprint::MAX_TRANSITIONS_DEFAULT`].
    pub fn max_transitions(mut self, max_transitions: u32) -> Self {
        self.top = self.top.with("max_transitions", max_transitions);
        self
    }

    /// What the initial data of a job must be like: a JSON Schema.
    pub fn input_schema(mut self, schema: impl Into<Value>) -> Self {
        self.top = self.top.with("input_schema", schema);
        self
    }

    /// Jobs with the same key that may be under way at once. May be said more than once, for several keys.
    pub fn concurrency(mut self, key: Key) -> Self {
        self.concurrency.push(key.into_value());
        self
    }

    /// Jobs with the same key that may start in a time. May be said more than once, for several keys.
    pub fn rate(mut self, key: Key) -> Self {
        self.rate.push(key.into_value());
        self
    }

    /// How long an attempt may run whose state does not say; without it [`Blueprint::TASK_TIMEOUT_DEFAULT`].
    pub fn default_timeout(mut self, timeout: Duration) -> Self {
        self.defaults = self.defaults.with_span("timeout", timeout);
        self
    }

    /// What happens after a failed attempt whose state does not say; without it the default of [`RetryPolicy`].
    pub fn default_retry(mut self, policy: RetryPolicy) -> Self {
        self.defaults = self.defaults.with_form("retry", retry_form(&policy));
        self
    }

    /// Adds the state that a job enters first.
    pub fn start(self, name: impl Into<String>, state: impl Into<StateForm>) -> Self {
        let state: StateForm = state.into();
        self.state(name, StateForm(state.0.with("start", true)))
    }

    /// Adds a state.
    pub fn state(mut self, name: impl Into<String>, state: impl Into<StateForm>) -> Self {
        let state: StateForm = state.into();
        self.states = self.states.with_node(name, state.0.into_node());
        self
    }

    /// The definition, ready to be served. What is probably not meant so goes to the log.
    ///
    /// # Errors
    /// All that a file which says the same would be refused for.
    pub fn build(self) -> Result<Definition, Unsound> {
        let Loaded { definition, warnings, .. } = self.check()?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(definition)
    }

    /// The definition, with what is probably not meant so.
    ///
    /// # Errors
    /// All that a file which says the same would be refused for.
    pub fn check(self) -> Result<Loaded, Unsound> {
        let top = with_keys(self.top, self.concurrency, self.rate).with_form("defaults", self.defaults);
        let mut tree = top.with_node("states", self.states.into_node()).into_node();
        let file = format!("blueprint {}", self.name);
        let ways = Ways::through(&mut tree);
        let told = |findings: Vec<Finding>| findings.into_iter().map(|finding| ways.tell(finding)).collect();
        let mut findings = Findings::new(&file);
        tree.check_made(&mut findings);
        if findings.any_error() {
            return Err(Unsound { findings: told(findings.into_sorted()) });
        }
        let mut loaded =
            load_tree(&tree, findings).map_err(|findings| Unsound { findings: told(findings) })?;
        loaded.warnings = told(loaded.warnings);
        small_enough(&file, loaded)
    }
}

/// The store keeps the canonical form, so it obeys the limit of a text that is read.
fn small_enough(file: &str, loaded: Loaded) -> Result<Loaded, Unsound> {
    let bytes = loaded.definition.canonical().len();
    if bytes <= FILE_BYTES_MAX {
        return Ok(loaded);
    }
    let (severity, file, at) = (Severity::Error, file.to_owned(), Position::default());
    let (what, cure) = (too_large(bytes as u64), CURE_TOO_LARGE.to_owned());
    Err(Unsound { findings: vec![Finding { severity, file, at, what, cure }] })
}

#[cfg(test)]
mod tests;
