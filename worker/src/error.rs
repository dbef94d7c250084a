//! What can go wrong: in a handler ([`TaskError`]), while building a worker ([`BuildError`]), and for the worker as a
//! whole ([`WorkerError`]).

use std::{borrow::Cow, error::Error, fmt};

use avtomatika_proto::{limits, task_error};

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

    /// An error with a code of the worker's own, for blueprints and people; it is retried like a transient one.
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

    /// The wire form, with the message cut to what the orchestrator keeps.
    pub(crate) fn into_wire(self) -> avtomatika_proto::v1::TaskError {
        let mut message = self.message;
        cut(&mut message, limits::ERROR_MESSAGE_BYTES_MAX);
        avtomatika_proto::v1::TaskError { code: self.code.into_owned(), message }
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

/// Shortens `text` to at most `bytes_max` bytes without cutting a character in two.
pub(crate) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}

/// What [`WorkerBuilder::build`](crate::WorkerBuilder::build) found wrong. The text names the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BuildError(pub(crate) String);

/// Why a worker stopped although nobody asked it to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// The orchestrator does not know the token. Said on the first registration only; later the worker keeps trying.
    #[error(
        "the orchestrator at {url} refused the worker's token ({message}); give the token that the orchestrator's \
         configuration has for this worker"
    )]
    Unauthenticated {
        /// Where the orchestrator is.
        url: String,
        /// What it said.
        message: String,
    },
    /// The orchestrator does not accept this worker as it describes itself. Said on the first registration only.
    #[error("the orchestrator at {url} refused to register the worker: {message}. {hint}")]
    Refused {
        /// Where the orchestrator is.
        url: String,
        /// What it said.
        message: String,
        /// How to mend it.
        hint: String,
    },
    /// Another worker registered under the same name, and the later one wins.
    #[error(
        "another worker registered as {worker_id:?} and took this one's place; give every worker its own worker id, or \
         stop the other one"
    )]
    Replaced {
        /// The name that two workers share.
        worker_id: String,
    },
    /// The thread that talks to the orchestrator could not start or died: a fault of this library or of the system.
    #[error("the thread that talks to the orchestrator failed: {0}")]
    SessionThread(String),
}

#[cfg(test)]
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
        let wire = TaskError::permanent("ж".repeat(limits::ERROR_MESSAGE_BYTES_MAX)).into_wire();
        assert_eq!(wire.message.len(), limits::ERROR_MESSAGE_BYTES_MAX);
        let wire =
            TaskError::permanent(format!("x{}", "ж".repeat(limits::ERROR_MESSAGE_BYTES_MAX))).into_wire();
        assert_eq!(wire.message.len(), limits::ERROR_MESSAGE_BYTES_MAX - 1);
    }
}
