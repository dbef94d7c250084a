//! What runs a task: the trait that the worker calls, and the typed form that most handlers have.
//!
//! JSON goes in as text and comes out as text; the typed form parses and writes it at the edge, so a handler's own code
//! sees plain Rust types.

use std::{fmt, marker::PhantomData, pin::Pin, time::Duration};

use avtomatika_proto::{limits, names, outcome, task_error};
use serde::{Serialize, de::DeserializeOwned};

use crate::{TaskContext, TaskError};

/// How long a handler that was told to stop may take before it is dropped.
pub const STOP_GRACE: Duration = Duration::from_secs(1);

/// What a handler's call returns.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<TaskOutcome, TaskError>> + Send>>;

/// Runs tasks of one type. Most handlers are plain functions, see [`WorkerBuilder::handle`](crate::WorkerBuilder::handle);
/// implement this for one that wants the raw JSON.
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt. `params` is JSON as the orchestrator sent it. When the future is dropped the attempt must stop.
    fn call(&self, params: String, context: TaskContext) -> HandlerFuture;

    /// How long an attempt that was told to stop may take to do so before its future is dropped.
    fn stop_grace(&self) -> Duration {
        STOP_GRACE
    }
}

/// What an attempt ended with, when it did not fail: the word that selects the blueprint's transition, and data that is
/// merged into the job's `state_history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOutcome {
    word: String,
    /// JSON text, or why there is none.
    data: Result<String, TaskError>,
}

impl TaskOutcome {
    /// The task did what it was asked for. `data` must serialise to a JSON object; `()` counts as an empty one.
    pub fn success(data: impl Serialize) -> Self {
        Self::custom(outcome::SUCCESS, data)
    }

    /// The task ended with a word of the blueprint's own, such as `needs_review`: 1 to 64 characters of `[a-zA-Z0-9._-]`,
    /// and none of `failure`, `timeout`, `cancelled`, which are not a handler's to claim.
    pub fn custom(word: impl Into<String>, data: impl Serialize) -> Self {
        let data = serde_json::to_string(&data)
            .map_err(|error| TaskError::permanent(format!("the result does not serialise to JSON: {error}")));
        // `()` and an absent option serialise to null, and the wire's word for "no data" is the empty text.
        let data = data.map(|text| if text == "null" { String::new() } else { text });
        Self { word: word.into(), data }
    }

    /// The same with data that is JSON text already.
    pub fn raw(word: impl Into<String>, data: String) -> Self {
        Self { word: word.into(), data: Ok(data) }
    }

    /// The word and the data in the form that travels, if the orchestrator can take them.
    pub(crate) fn into_wire(self) -> Result<(String, String), TaskError> {
        check_word(&self.word)?;
        let data = self.data?;
        let first = data.trim_ascii_start().bytes().next();
        if first.is_some_and(|byte| byte != b'{') {
            let start: String = data.chars().take(40).collect();
            return Err(TaskError::custom(
                task_error::INVALID_RESULT,
                format!("the result is not a JSON object: it starts with {start:?}"),
            ));
        }
        if data.len() > limits::PAYLOAD_BYTES_MAX {
            return Err(too_large(&data.len().to_string()));
        }
        Ok((self.word, data))
    }
}

/// The error for a result over the limit; trying again would produce the same. `bytes` is its size, as far as it is known.
pub(crate) fn too_large(bytes: &str) -> TaskError {
    TaskError::custom(
        task_error::INVALID_RESULT,
        format!(
            "the result has {bytes} bytes and the limit is {}; store large data elsewhere and return a reference to it",
            limits::PAYLOAD_BYTES_MAX
        ),
    )
}

fn check_word(word: &str) -> Result<(), TaskError> {
    if [outcome::FAILURE, outcome::TIMEOUT, outcome::CANCELLED].contains(&word) {
        return Err(TaskError::permanent(format!(
            "the handler returned the outcome {word:?}, which only the worker itself may report; return a TaskError instead"
        )));
    }
    if !names::is_outcome(word) {
        return Err(TaskError::permanent(format!(
            "the handler returned the outcome {word:?}; an outcome has 1 to {} characters of [a-zA-Z0-9._-]",
            limits::OUTCOME_BYTES_MAX
        )));
    }
    Ok(())
}

/// What a typed handler may return: anything that serialises (a success), or a [`TaskOutcome`].
pub trait IntoOutcome {
    /// The outcome to report.
    fn into_outcome(self) -> TaskOutcome;
}

impl<T: Serialize> IntoOutcome for T {
    fn into_outcome(self) -> TaskOutcome {
        TaskOutcome::success(self)
    }
}

impl IntoOutcome for TaskOutcome {
    fn into_outcome(self) -> TaskOutcome {
        self
    }
}

/// A function over typed params as a [`Handler`].
pub(crate) struct Typed<P, F> {
    function: F,
    params: PhantomData<fn(P)>,
}

impl<P, F> Typed<P, F> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, params: PhantomData }
    }
}

impl<P, F> fmt::Debug for Typed<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed")
    }
}

impl<P, R, F, Fut> Handler for Typed<P, F>
where
    P: DeserializeOwned + 'static,
    R: IntoOutcome,
    F: Fn(P, TaskContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, TaskError>> + Send + 'static,
{
    fn call(&self, params: String, context: TaskContext) -> HandlerFuture {
        let parsed = serde_json::from_str::<P>(if params.is_empty() { "{}" } else { &params });
        match parsed {
            Ok(params) => {
                let running = (self.function)(params, context);
                Box::pin(async move { Ok(running.await?.into_outcome()) })
            }
            Err(error) => {
                let error = TaskError::invalid_input(format!("the params do not fit the task type: {error}"));
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::v1;
    use serde::Deserialize;

    use super::*;
    use crate::context::context_for_test;

    #[derive(Deserialize)]
    struct Sum {
        numbers: Vec<u64>,
    }

    async fn run<R: IntoOutcome + Send + 'static>(
        params: &str,
        function: impl Fn(Sum, TaskContext) -> Result<R, TaskError> + Send + Sync + 'static,
    ) -> Result<(String, String), TaskError> {
        let handler = Typed::new(move |params: Sum, context| std::future::ready(function(params, context)));
        handler.call(params.to_owned(), context_for_test(&v1::Task::default())).await?.into_wire()
    }

    fn total(sum: &Sum) -> serde_json::Value {
        serde_json::json!({ "total": sum.numbers.iter().sum::<u64>() })
    }

    #[tokio::test]
    async fn params_and_results_are_typed() {
        let result = run(r#"{"numbers": [1, 2]}"#, |sum, _| Ok(total(&sum))).await;
        assert_eq!(result, Ok(("success".into(), r#"{"total":3}"#.into())));
    }

    #[tokio::test]
    async fn params_that_do_not_fit_are_invalid_input_and_the_handler_is_not_called() {
        let error = run::<()>(r#"{"numbers": "no"}"#, |_, _| panic!("called")).await.unwrap_err();
        assert_eq!(error.code(), task_error::INVALID_INPUT);
        assert!(error.message().contains("numbers") || error.message().contains("sequence"), "{error}");
    }

    #[tokio::test]
    async fn a_handler_may_end_with_a_word_of_its_own() {
        let result =
            run(r#"{"numbers": []}"#, |sum, _| Ok(TaskOutcome::custom("needs_review", total(&sum)))).await;
        assert_eq!(result, Ok(("needs_review".into(), r#"{"total":0}"#.into())));
    }

    #[tokio::test]
    async fn a_result_that_the_orchestrator_cannot_take_is_a_named_failure() {
        let code = |result: Result<(String, String), TaskError>| result.unwrap_err().code().to_owned();
        let sum = r#"{"numbers": []}"#;
        assert_eq!(code(run(sum, |_, _| Ok(vec![1, 2])).await), task_error::INVALID_RESULT);
        assert_eq!(
            code(run(sum, |_, _| Ok(TaskOutcome::custom("timeout", ()))).await),
            task_error::PERMANENT
        );
        assert_eq!(
            code(run(sum, |_, _| Ok(TaskOutcome::custom("no spaces", ()))).await),
            task_error::PERMANENT
        );
        let large = |_, _| Ok(serde_json::json!({ "x": "y".repeat(limits::PAYLOAD_BYTES_MAX) }));
        assert_eq!(code(run(sum, large).await), task_error::INVALID_RESULT);
    }

    #[tokio::test]
    async fn a_handler_that_returns_nothing_reports_no_data() {
        let result = run(r#"{"numbers": []}"#, |_, _| Ok(())).await;
        assert_eq!(result, Ok(("success".into(), String::new())));
    }
}
