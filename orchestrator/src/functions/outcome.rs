//! What a call ends with: an [`Outcome`], or a [`TaskError`] that says whether trying again makes sense. The words are those of
//! workers' handlers, so that a step may move from one to the other.

use std::sync::Arc;

use avtomatika_proto::{
    TaskError,
    limits::{OUTCOME_BYTES_MAX, PAYLOAD_BYTES_MAX},
    names::is_outcome,
    outcome, task_error,
};
use serde::Serialize;

use crate::{engine::JobError, json::Json};

/// What a call ended with when it did not fail: the word that selects the blueprint's transition, and data that is merged into
/// the job's state history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    word: String,
    /// JSON text, or why there is none.
    data: Result<String, TaskError>,
}

impl Outcome {
    /// The function did what it was asked for. `data` must serialise to a JSON object; `()` counts as an empty one.
    pub fn success(data: impl Serialize) -> Self {
        Self::custom(outcome::SUCCESS, data)
    }

    /// The call ended with a word of the blueprint's own, such as `needs_review`: 1 to 64 characters of `[a-zA-Z0-9._-]`, and none
    /// of `failure`, `timeout`, `cancelled`, which are not a function's to claim.
    pub fn custom(word: impl Into<String>, data: impl Serialize) -> Self {
        let data = serde_json::to_string(&data)
            .map_err(|error| TaskError::permanent(format!("the result does not serialise to JSON: {error}")));
        Self { word: word.into(), data }
    }

    /// The word and the data as the conductor takes them.
    pub(super) fn into_parts(self) -> Result<(Arc<str>, Json), TaskError> {
        if [outcome::FAILURE, outcome::TIMEOUT, outcome::CANCELLED].contains(&&*self.word) {
            let message = format!(
                "the function returned the outcome {:?}, which is not its to claim; return an error instead",
                self.word
            );
            return Err(TaskError::permanent(message));
        }
        if !is_outcome(&self.word) {
            let message = format!(
                "the function returned the outcome {:?}; an outcome has 1 to {OUTCOME_BYTES_MAX} characters of [a-zA-Z0-9._-]",
                self.word
            );
            return Err(TaskError::permanent(message));
        }
        let data = match self.data?.as_str() {
            // What `()` and an absent option serialise to.
            "null" => Json::empty(),
            text if text.len() > PAYLOAD_BYTES_MAX => {
                let message = format!(
                    "the result has {} bytes and the limit is {PAYLOAD_BYTES_MAX}; store large data elsewhere and return a reference to it",
                    text.len()
                );
                return Err(TaskError::custom(task_error::INVALID_RESULT, message));
            }
            text => Json::object(text).map_err(|error| {
                TaskError::custom(task_error::INVALID_RESULT, format!("the result is not usable: {error}"))
            })?,
        };
        Ok((Arc::from(self.word), data))
    }
}

/// What a function may return: anything that serialises (a success), or an [`Outcome`].
pub trait IntoOutcome {
    /// The outcome to report.
    fn into_outcome(self) -> Outcome;
}

impl<T: Serialize> IntoOutcome for T {
    fn into_outcome(self) -> Outcome {
        Outcome::success(self)
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

/// As the engine takes it.
pub(super) fn job_error(error: TaskError) -> JobError {
    let (code, message) = error.into_kept();
    JobError { code: Arc::from(code), message: Arc::from(message) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_serialises_is_a_success_and_nothing_is_an_empty_object() {
        let parts = |outcome: Outcome| {
            let (word, data) = outcome.into_parts().unwrap();
            (word.to_string(), data.to_string())
        };
        assert_eq!(parts(json!({ "a": 1 }).into_outcome()), ("success".into(), r#"{"a":1}"#.into()));
        assert_eq!(parts(().into_outcome()), ("success".into(), "{}".into()));
        assert_eq!(parts(Outcome::custom("rejected", ())), ("rejected".into(), "{}".into()));
    }

    #[test]
    fn what_cannot_be_taken_is_a_failure_by_name() {
        let code = |outcome: Outcome| outcome.into_parts().unwrap_err().code().to_owned();
        assert_eq!(code(vec![1, 2].into_outcome()), task_error::INVALID_RESULT);
        assert_eq!(
            code(json!({ "x": "y".repeat(PAYLOAD_BYTES_MAX) }).into_outcome()),
            task_error::INVALID_RESULT
        );
        for word in ["failure", "timeout", "cancelled", "two words", ""] {
            assert_eq!(code(Outcome::custom(word, ())), task_error::PERMANENT, "{word:?}");
        }
    }
}
