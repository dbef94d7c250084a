//! Why a command could not do what it was asked to: what happened, how to mend it, and the exit code that goes with it.

use std::{error::Error, fmt, io, time::Duration};

use avtomatika_proto::{
    ApiError, ErrorCode,
    wire_error::{self, innermost},
};
use tonic::{Code, Status};

use crate::{exit::Exit, span::Span};

/// A command that did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The arguments, or the data they name, are at fault. Nothing was sent.
    Usage {
        /// What is wrong.
        message: String,
        /// How to mend it.
        hint: String,
    },
    /// There was no connection, or it broke.
    Unreachable {
        /// Where the orchestrator was looked for.
        url: String,
        /// The system's own words.
        why: String,
    },
    /// Connected, but no answer came in time.
    NoAnswer {
        /// Where the orchestrator was looked for.
        url: String,
        /// How long the answer was awaited.
        waited: Duration,
    },
    /// The orchestrator answered with an error.
    Refused(ApiError),
    /// Something answered at the URL, but not as an orchestrator does.
    NotAnOrchestrator {
        /// Where it was.
        url: String,
        /// What it said.
        why: String,
    },
    /// Standard output did not take the answer.
    Output(io::Error),
    /// This machine refused something that it never should.
    System(String),
    /// A failure that needs another hint where it happened.
    Hinted {
        /// What happened.
        failure: Box<Failure>,
        /// How to mend it, here.
        hint: String,
    },
}

impl Failure {
    /// A fault of the command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// The same failure with a hint that fits the place.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self::Hinted { failure: Box::new(self), hint: hint.into() }
    }

    /// The failure behind a gRPC status that came from `url`.
    pub fn from_status(url: &str, status: &Status) -> Self {
        let url = url.to_owned();
        if status.metadata().contains_key(wire_error::CODE_KEY) {
            Self::Refused(ApiError::from_status(status))
        } else if status.source().is_some() || matches!(status.code(), Code::Unavailable | Code::Cancelled) {
            // Statuses made on this side of the wire keep their cause; those that were received have none.
            Self::Unreachable { url, why: status.source().map_or(status.message().to_owned(), innermost) }
        } else {
            Self::NotAnOrchestrator { url, why: format!("{:?}: {}", status.code(), status.message()) }
        }
    }

    /// Whether this is about the way to the orchestrator, or its passing state, and the same call may succeed soon.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } => true,
            Self::Refused(error) => error.code.is_retryable(),
            Self::Hinted { failure, .. } => failure.is_passing(),
            Self::Usage { .. } | Self::NotAnOrchestrator { .. } | Self::Output(_) | Self::System(_) => false,
        }
    }

    /// Whether the reader of standard output has left, as `head` does: an end, not an error. A command that has something else to
    /// say than that all is well ends with [`Exit::after`].
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The code to end with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::NotAnOrchestrator { .. } => {
                Exit::Unreachable
            }
            Self::Refused(error) => match error.code {
                ErrorCode::MissingToken | ErrorCode::InvalidToken => Exit::Unauthenticated,
                ErrorCode::JobNotFound
                | ErrorCode::BlueprintNotFound
                | ErrorCode::WorkerNotFound
                | ErrorCode::EndpointNotFound
                | ErrorCode::WebhookNotFound => Exit::NotFound,
                code if code.is_retryable() => Exit::TryLater,
                _ => Exit::Refused,
            },
            Self::Output(_) if self.is_closed_pipe() => Exit::Ok,
            Self::Output(_) => Exit::Output,
            Self::System(_) => Exit::Internal,
            Self::Hinted { failure, .. } => failure.exit(),
        }
    }

    /// The stable code of an orchestrator's error.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            Self::Hinted { failure, .. } => failure.code(),
            _ => None,
        }
    }

    /// How to mend it, in the words of this program.
    pub fn hint(&self) -> String {
        match self {
            Self::Usage { hint, .. } | Self::Hinted { hint, .. } => hint.clone(),
            Self::Unreachable { .. } => {
                "start an orchestrator with `avtomatika dev`, or name a running one with --url or AVTOMATIKA_URL".into()
            }
            Self::NoAnswer { .. } => "it may be busy or unreachable; give it longer with --timeout".into(),
            Self::NotAnOrchestrator { .. } => {
                "check --url: is it the orchestrator's own address, with nothing in between that does not speak gRPC?".into()
            }
            Self::Refused(error) => match error.retry_after {
                Some(wait) => {
                    let hint = hint_of(error);
                    format!("{}; try again in {}", hint.trim_end_matches('.'), Span(wait).rounded_up())
                }
                None => hint_of(error),
            },
            Self::System(_) => "look for a limit that this process has reached, such as open files".into(),
            Self::Output(_) => "check the disk or the program that reads the output".into(),
        }
    }
}

/// The orchestrator's hint. Where it only has its general one, which speaks of HTTP, the same in this program's words.
fn hint_of(error: &ApiError) -> String {
    if error.hint != error.code.hint() {
        return error.hint.clone().into_owned();
    }
    match error.code {
        ErrorCode::MissingToken => "give the client token with --token or AVTOMATIKA_TOKEN".into(),
        ErrorCode::InvalidToken => {
            "check --token or AVTOMATIKA_TOKEN; client tokens and worker tokens are different things".into()
        }
        ErrorCode::JobNotFound => {
            "list your jobs with `avtomatika list`; a client sees its own jobs only, and a job that ended longer ago than the \
             orchestrator's retention has been removed"
                .into()
        }
        ErrorCode::BlueprintNotFound => "list what is served with `avtomatika blueprints`".into(),
        ErrorCode::WorkerNotFound => "list who is connected with `avtomatika workers`".into(),
        ErrorCode::WebhookNotFound => {
            "list the messages about the job with `avtomatika webhooks JOB_ID`".into()
        }
        // How long to wait is said beside the hint, if it is known.
        ErrorCode::RateLimited => "call less often".into(),
        code => code.hint().into(),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage { message, .. } => f.write_str(message),
            Self::Unreachable { url, why } => write!(f, "cannot reach an orchestrator at {url}: {why}"),
            Self::NoAnswer { url, waited } => write!(f, "no answer from {url} within {}", Span(*waited)),
            Self::NotAnOrchestrator { url, why } => {
                write!(f, "what answers at {url} is not a matching orchestrator: {why}")
            }
            Self::Refused(error) => error.fmt(f),
            Self::System(message) => f.write_str(message),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
            Self::Hinted { failure, .. } => failure.fmt(f),
        }
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_of_the_contract_has_an_exit_that_says_failure() {
        for &code in ErrorCode::ALL {
            let failure = Failure::from_status("http://host", &ApiError::new(code, "what happened").into());
            assert!(failure.exit().code() >= 10, "{code}");
            assert_eq!(failure.code(), Some(code));
            assert!(!failure.hint().is_empty());
        }
    }

    #[test]
    fn a_status_without_our_code_is_the_work_of_someone_else() {
        let stranger =
            Failure::from_status("http://host", &Status::unimplemented("grpc-status header missing"));
        assert!(matches!(stranger, Failure::NotAnOrchestrator { .. }));
        let proxy = Failure::from_status("http://host", &Status::unavailable("no healthy upstream"));
        assert_eq!(proxy.exit(), Exit::Unreachable);
        assert!(proxy.is_passing());
    }

    #[test]
    fn a_reader_that_leaves_is_not_an_error_and_a_full_disk_is() {
        assert_eq!(Failure::Output(io::ErrorKind::BrokenPipe.into()).exit(), Exit::Ok);
        assert_eq!(Failure::Output(io::ErrorKind::StorageFull.into()).exit(), Exit::Output);
    }

    #[test]
    fn a_hint_made_for_the_case_wins_over_the_general_one() {
        let special =
            Failure::Refused(ApiError::new(ErrorCode::JobNotFound, "x").with_hint("look elsewhere"));
        assert_eq!(special.hint(), "look elsewhere");
        let general = Failure::Refused(ApiError::new(ErrorCode::BlueprintNotFound, "x"));
        assert!(general.hint().contains("avtomatika blueprints"));
    }

    #[test]
    fn an_error_that_passes_by_itself_says_when_to_try_again_and_never_too_early() {
        let hint = |error: ApiError, ms| {
            let error = error.with_retry_after(Duration::from_millis(ms));
            Failure::from_status("http://host", &error.into()).hint()
        };
        let limited = || ApiError::new(ErrorCode::RateLimited, "x");
        assert_eq!(hint(limited(), 312), "call less often; try again in 312ms");
        assert_eq!(hint(limited(), 4_201), "call less often; try again in 4.3s");
        let quota = ApiError::new(ErrorCode::QuotaExceeded, "x").with_hint("It begins anew at midnight.");
        assert_eq!(hint(quota, 7_200_001), "It begins anew at midnight; try again in 2h 1m");
        assert_eq!(Failure::Refused(limited()).hint(), "call less often");
    }
}
