//! Rust functions that jobs call: what the `code` states of blueprints name.
//!
//! A function runs in the process of the orchestrator and outside of the engine: its state is a task, whose type is `code:` and the
//! name of the function. So it has the durability, the fence, the retries, the cancellation and the history of any task. It is
//! served by a session like those of workers, with the conductor at its other end and no socket between them; nobody else may
//! announce such a type.
//!
//! It refuses to know what a job is, and the engine refuses to know that there are functions.

mod attempt;
mod call;
mod host;
mod outcome;

use std::{collections::BTreeMap, future::Future, marker::PhantomData, pin::Pin, sync::Arc};

pub use avtomatika_proto::TaskError;
use avtomatika_proto::names::{CODE_PREFIX, is_name};
use serde::de::DeserializeOwned;

use self::call::Running;
pub(crate) use self::host::start;
pub use self::{
    call::Call,
    host::WORKER_ID,
    outcome::{IntoOutcome, Outcome},
};
use crate::blueprint::{Finding, Position, Registry, Severity};

/// Calls that may run at once when nobody says.
pub const SLOTS_DEFAULT: u32 = 64;

/// The functions that blueprints may name. Give them to [`App::with_functions`](crate::App::with_functions).
///
/// ```
/// use avtomatika_orchestrator::functions::{Call, TaskError, Functions};
/// use serde_json::{Value, json};
///
/// async fn count_words(params: Value, _: Call) -> Result<Value, TaskError> {
///     let text = params["text"].as_str().ok_or_else(|| TaskError::invalid_input("no text"))?;
///     Ok(json!({ "words": text.split_whitespace().count() }))
/// }
///
/// let functions = Functions::new().slots(8).add("count_words", count_words);
/// assert!(functions.has("count_words"));
/// ```
#[derive(Clone)]
#[must_use = "a function is called once an orchestrator has it"]
pub struct Functions {
    by_name: BTreeMap<Arc<str>, Arc<dyn Function>>,
    slots: u32,
    faults: Vec<InvalidFunction>,
}

/// A function that cannot be had under its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFunction {
    /// No blueprint can name it.
    #[error("{name:?} cannot be a function's name; use 1 to 123 characters of a-z, A-Z, 0-9 and ._-")]
    Name {
        /// The name.
        name: String,
    },
    /// Two functions have one name.
    #[error("there are two functions with the name {name:?}; rename one of them")]
    Twice {
        /// The name.
        name: String,
    },
    /// Nothing would ever be called.
    #[error("functions have no slots; give them at least one")]
    NoSlots,
}

/// One function, as it is called.
trait Function: Send + Sync {
    /// Starts a call. The future ends with the call; `running` is dropped when nothing of it runs any more, which may be later.
    fn call(&self, params: Arc<str>, call: Call, running: Running) -> Calling;
}

type Calling = Pin<Box<dyn Future<Output = Result<Outcome, TaskError>> + Send>>;

impl Default for Functions {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), slots: SLOTS_DEFAULT, faults: Vec::new() }
    }
}

impl Functions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// So many calls may run at once; without it [`SLOTS_DEFAULT`].
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        if slots == 0 {
            self.faults.push(InvalidFunction::NoSlots);
        }
        self
    }

    /// Adds a function. Its params are what the state puts together, deserialised; what it returns is merged into the job's
    /// state history, or is an [`Outcome`] of its own choice.
    ///
    /// It runs on the runtime on which the orchestrator is served and must not block: what computes for long, or waits without
    /// `await`, is for [`Functions::add_blocking`].
    pub fn add<P, R, F, Fut>(self, name: &str, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: IntoOutcome + 'static,
        F: Fn(P, Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
    {
        self.insert(name, Arc::new(Async { function, params: PhantomData }))
    }

    /// Adds a function that may block its thread. It runs on a thread of its own, and should look at [`Call::is_cancelled`] now
    /// and then: a thread cannot be stopped from outside, and holds its slot until it ends.
    pub fn add_blocking<P, R, F>(self, name: &str, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: IntoOutcome + 'static,
        F: Fn(P, Call) -> Result<R, TaskError> + Send + Sync + 'static,
    {
        self.insert(name, Arc::new(Blocking { function: Arc::new(function), params: PhantomData }))
    }

    fn insert(mut self, name: &str, function: Arc<dyn Function>) -> Self {
        if name.is_empty() || name.contains(':') || !is_name(&task_type(name)) {
            self.faults.push(InvalidFunction::Name { name: name.to_owned() });
        } else if self.by_name.insert(Arc::from(name), function).is_some() {
            self.faults.push(InvalidFunction::Twice { name: name.to_owned() });
        }
        self
    }

    /// Whether there is one with this name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What these blueprints call and is not here: a warning for each. A job that comes to it waits for a process that has it, which
    /// may be meant so.
    pub fn missing(&self, blueprints: &Registry) -> Vec<Finding> {
        let mut warnings = Vec::new();
        for blueprint in blueprints.served() {
            let called = blueprint.functions().into_iter().filter(|name| !self.has(name));
            warnings.extend(called.map(|name| Finding {
                severity: Severity::Warning,
                file: format!("blueprint {}", blueprint.name),
                at: Position::default(),
                what: format!("no function `{name}` is in this process: jobs that come to it will wait"),
                cure: "give it to the process, or start one that has it".to_owned(),
            }));
        }
        warnings
    }

    /// Whether all of them can be called.
    pub(crate) fn check(&self) -> Result<(), InvalidFunction> {
        self.faults.first().cloned().map_or(Ok(()), Err)
    }

    fn of_type(&self, task_type: &str) -> Option<&Arc<dyn Function>> {
        self.by_name.get(task_type.strip_prefix(CODE_PREFIX)?)
    }

    fn task_types(&self) -> Vec<Arc<str>> {
        self.by_name.keys().map(|name| Arc::from(task_type(name))).collect()
    }
}

/// The task type of a function.
fn task_type(function: &str) -> String {
    format!("{CODE_PREFIX}{function}")
}

struct Async<P, F> {
    function: F,
    params: PhantomData<fn(P)>,
}

impl<P, R, F, Fut> Function for Async<P, F>
where
    P: DeserializeOwned + Send + 'static,
    R: IntoOutcome + 'static,
    F: Fn(P, Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
{
    fn call(&self, params: Arc<str>, call: Call, running: Running) -> Calling {
        match parse(&params) {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(params) => {
                let calling = (self.function)(params, call);
                Box::pin(async move {
                    let _running = running;
                    Ok(calling.await?.into_outcome())
                })
            }
        }
    }
}

struct Blocking<P, F> {
    function: Arc<F>,
    params: PhantomData<fn(P)>,
}

impl<P, R, F> Function for Blocking<P, F>
where
    P: DeserializeOwned + Send + 'static,
    R: IntoOutcome + 'static,
    F: Fn(P, Call) -> Result<R, TaskError> + Send + Sync + 'static,
{
    fn call(&self, params: Arc<str>, call: Call, running: Running) -> Calling {
        let function = self.function.clone();
        let on_its_thread = move || {
            let _running = running;
            Ok(function(parse(&params)?, call)?.into_outcome())
        };
        Box::pin(async move {
            match tokio::task::spawn_blocking(on_its_thread).await {
                Ok(ended) => ended,
                // To where panics of all functions are caught.
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => Err(TaskError::transient("the runtime was shut down")),
                },
            }
        })
    }
}

fn parse<P: DeserializeOwned>(params: &str) -> Result<P, TaskError> {
    serde_json::from_str(params)
        .map_err(|error| TaskError::invalid_input(format!("the params do not fit the function: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blueprints_call_and_is_not_here_is_named() {
        use crate::blueprint::{Blueprint, builder};
        let mut registry = Registry::default();
        let definition = Blueprint::builder("text")
            .start("a", builder::code("count_words").on("success", "b"))
            .state("b", builder::code("checksum").on("success", "done"))
            .state("done", builder::finished())
            .build()
            .unwrap();
        registry.add(Arc::new(definition.into_blueprint(1)), true);
        let missing = Functions::new().add("count_words", nothing).missing(&registry);
        assert_eq!(
            missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "blueprint text: warning: no function `checksum` is in this process: jobs that come to it will wait; \
                 give it to the process, or start one that has it"
            ]
        );
    }

    async fn nothing(_: serde_json::Value, _: Call) -> Result<(), TaskError> {
        Ok(())
    }

    #[test]
    fn a_function_that_nobody_could_call_is_refused_by_name() {
        let fault = |functions: Functions| functions.check().unwrap_err().to_string();
        for name in ["", "two words", "code:x", "größe", &"n".repeat(124)] {
            assert!(fault(Functions::new().add(name, nothing)).starts_with(&format!("{name:?} cannot be")));
        }
        let twice = Functions::new().add("a", nothing).add_blocking("a", |(), _| Ok(()));
        assert_eq!(fault(twice), "there are two functions with the name \"a\"; rename one of them");
        assert_eq!(fault(Functions::new().slots(0)), "functions have no slots; give them at least one");
        assert_eq!(Functions::new().add(&"n".repeat(123), nothing).check(), Ok(()));
    }
}
