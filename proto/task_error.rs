//! Why an attempt at a task failed: the codes that such an error carries, and the error as handlers of workers and functions of an
//! embedding application return it. It is one type for both, so that a step may move from one to the other as it is. What is retried, and
//! what follows, is the orchestrator's business and not known here.

use std::{borrow::Cow, error::Error, fmt};

use crate::limits::{ERROR_MESSAGE_BYTES_MAX, NAME_BYTES_MAX};

/// May succeed when tried again; the default.
pub const TRANSIENT: &str = "TRANSIENT_ERROR";
/// Will not succeed however often it is tried.
pub const PERMANENT: &str = "PERMANENT_ERROR";
/// The job's own data is at fault.
pub const INVALID_INPUT: &str = "INVALID_INPUT_ERROR";
/// The attempt ran longer than the state's `timeout`; handled as transient.
pub const TIMEOUT: &str = "TIMEOUT_ERROR";
/// The worker stops, and gives the task back: it is ready for others at once and has used up no retry. Taken at its word only
/// from a worker that is draining.
pub const WORKER_STOPPED: &str = "WORKER_STOPPED";
/// With the outcome `cancelled`: the handler did not stop by itself within its grace, and was killed or abandoned.
pub const NOT_STOPPED: &str = "NOT_STOPPED";
/// The result cannot be stored (not a JSON object, or too large); handled as permanent.
pub const INVALID_RESULT: &str = "INVALID_RESULT_ERROR";

/// Why an attempt failed, and with it whether another attempt makes sense.
///
/// Any error of another type turns into a transient one with `?`, its causes joined into the message. That is why
/// `TaskError` does not itself implement [`std::error::Error`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    code: Cow<'static, str>,
    message: String,
}

impl TaskError {
    /// May go well when tried again: a service that is down, a lock that is held. The state's retry policy decides.
    pub fn transient(message: impl fmt::Display) -> Self {
        Self::custom(TRANSIENT, message)
    }

    /// Will not go well however often it is tried.
    pub fn permanent(message: impl fmt::Display) -> Self {
        Self::custom(PERMANENT, message)
    }

    /// The job's own data is at fault.
    pub fn invalid_input(message: impl fmt::Display) -> Self {
        Self::custom(INVALID_INPUT, message)
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

    /// The code and the message, cut to what the orchestrator keeps.
    pub fn into_kept(self) -> (String, String) {
        let mut kept = (self.code.into_owned(), self.message);
        kept.0.truncate(kept.0.floor_char_boundary(NAME_BYTES_MAX));
        kept.1.truncate(kept.1.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX));
        kept
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl<E: Error> From<E> for TaskError {
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

impl From<TaskError> for crate::v1::TaskError {
    fn from(error: TaskError) -> Self {
        let (code, message) = error.into_kept();
        Self { code, message }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_a_transient_one_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the model")]
        struct Outer(#[source] std::io::Error);

        fn handler() -> Result<(), TaskError> {
            Err(Outer(std::io::Error::other("disk on fire")))?;
            Ok(())
        }
        let error = handler().unwrap_err();
        assert_eq!(error.to_string(), "TRANSIENT_ERROR: cannot read the model: disk on fire");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let wire = crate::v1::TaskError::from(TaskError::permanent("ж".repeat(ERROR_MESSAGE_BYTES_MAX)));
        assert_eq!(wire.message.len(), ERROR_MESSAGE_BYTES_MAX);
        let long = format!("x{}", "ж".repeat(ERROR_MESSAGE_BYTES_MAX));
        let wire = crate::v1::TaskError::from(TaskError::custom("c".repeat(200), long));
        assert_eq!((wire.code.len(), wire.message.len()), (NAME_BYTES_MAX, ERROR_MESSAGE_BYTES_MAX - 1));
    }
}
