//! What can go wrong while building a worker ([`BuildError`]), and for the worker as a whole ([`WorkerError`]). What goes wrong in a
//! handler is [`TaskError`](crate::TaskError).

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
