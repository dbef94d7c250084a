//! What a call ends with: an [`Outcome`], or a [`FunctionError`] that says whether trying again makes sense. The words are those of
//! workers' handlers, so that a step may move from one to the other.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use avtomatika_proto::{
    limits::{ERROR_MESSAGE_BYTES_MAX, NAME_BYTES_MAX, OUTCOME_BYTES_MAX, PAYLOAD_BYTES_MAX},
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
    data: Result<String, FunctionError>,
}

impl Outcome {
    /// The function did what it was asked for. `data` must serialise to a JSON object; `()` counts as an empty one.
    pub fn success(data: impl Serialize) -> Self {
        Self::custom(outcome::SUCCESS, data)
    }

    /// The call ended with a word of the blueprint's own, such as `needs_review`: 1 to 64 characters of `[a-zA-Z0-9._-]`, and none
    /// of `failure`, `timeout`, `cancelled`, which are not a function's to claim.
    pub fn custom(word: impl Into<String>, data: impl Serialize) -> Self {
        let data = serde_json::to_string(&data).map_err(|error| {
            FunctionError::permanent(format!("the result does not serialise to JSON: {error}"))
        });
        Self { word: word.into(), data }
    }

    /// The word and the data as the conductor takes them.
    pub(super) fn into_parts(self) -> Result<(Arc<str>, Json), FunctionError> {
        if [outcome::FAILURE, outcome::TIMEOUT, outcome::CANCELLED].contains(&&*self.word) {
            let message = format!(
                "the function returned the outcome {:?}, which is not its to claim; return an error instead",
                self.word
            );
            return Err(FunctionError::permanent(message));
        }
        if !is_outcome(&self.word) {
            let message = format!(
                "the function returned the outcome {:?}; an outcome has 1 to {OUTCOME_BYTES_MAX} characters of [a-zA-Z0-9._-]",
                self.word
            );
            return Err(FunctionError::permanent(message));
        }
        let data = match self.data?.as_str() {
            // What `()` and an absent option serialise to.
            "null" => Json::empty(),
            text if text.len() > PAYLOAD_BYTES_MAX => {
                let message = format!(
                    "the result has {} bytes and the limit is {PAYLOAD_BYTES_MAX}; store large data elsewhere and return a reference to it",
                    text.len()
                );
                return Err(FunctionError::custom(task_error::INVALID_RESULT, message));
            }
            text => Json::object(text).map_err(|error| {
                FunctionError::custom(
                    task_error::INVALID_RESULT,
                    format!("the result is not usable: {error}"),
                )
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

/// Why a call failed, and with it whether another one makes sense.
///
/// Any error of another type turns into a transient one with `?`, its causes joined into the message. That is why
/// `FunctionError` does not itself implement [`std::error::Error`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    code: Cow<'static, str>,
    message: String,
}

impl FunctionError {
    /// May go well when tried again. The state's retry policy decides.
    pub fn transient(message: impl fmt::Display) -> Self {
        Self::custom(task_error::TRANSIENT, message)
    }

    /// Will not go well however often it is tried.
    pub fn permanent(message: impl fmt::Display) -> Self {
        Self::custom(task_error::PERMANENT, message)
    }

    /// The job's own data is at fault.
    pub fn invalid_input(message: impl fmt::Display) -> Self {
        Self::custom(task_error::INVALID_INPUT, message)
    }

    /// An error with a code of one's own, for the `catch` of blueprints and for people; it is retried like a transient one.
    pub fn custom(code: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Self {
        Self { code: code.into(), message: message.to_string() }
    }

    /// The code, such as `PERMANENT_ERROR`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What happened, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// As the engine takes it, cut to what it keeps.
    pub(super) fn into_job_error(self) -> JobError {
        let cut = |text: &str, bytes_max| Arc::from(&text[..text.floor_char_boundary(bytes_max)]);
        JobError {
            code: cut(&self.code, NAME_BYTES_MAX),
            message: cut(&self.message, ERROR_MESSAGE_BYTES_MAX),
        }
    }
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl<E: Error> From<E> for FunctionError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::transient(message)
    }
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

    #[test]
    fn any_error_becomes_a_transient_one_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the model")]
        struct Outer(#[source] std::io::Error);

        fn function() -> Result<(), FunctionError> {
            Err(Outer(std::io::Error::other("disk on fire")))?;
            Ok(())
        }
        let error = function().unwrap_err();
        assert_eq!(error.to_string(), "TRANSIENT_ERROR: cannot read the model: disk on fire");
    }
}
