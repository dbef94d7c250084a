//! An error on its way across a process boundary, and its form as a gRPC status.
//!
//! The server makes a status of it, clients make it of a status; nothing is lost between the two.

use std::{borrow::Cow, error::Error, fmt, time::Duration};

use tonic::{Code, Status, metadata::MetadataValue};

use crate::ErrorCode;

/// The metadata key of the error code. Every error that an orchestrator makes carries it, and nobody else's errors do.
pub const CODE_KEY: &str = "avtomatika-error-code";
const HINT_KEY: &str = "avtomatika-error-hint";
const RETRYABLE_KEY: &str = "avtomatika-retryable";
/// Milliseconds to wait before the next attempt.
const RETRY_AFTER_KEY: &str = "avtomatika-retry-after-ms";

/// What happened, why, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// For machines.
    pub code: ErrorCode,
    /// What happened and why, for people.
    pub message: Cow<'static, str>,
    /// How to mend it.
    pub hint: Cow<'static, str>,
    /// How long to wait before trying again, where that is known. In whole milliseconds on the wire.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error with the hint that belongs to its code.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), hint: Cow::Borrowed(code.hint()), retry_after: None }
    }

    /// The same error, to be tried again after this long.
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same error with a better hint.
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The error that a status carries, whoever made it. A status without our metadata (a proxy, a broken connection)
    /// keeps its message and gets the nearest code.
    pub fn from_status(status: &Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok());
        let code = text(CODE_KEY).and_then(ErrorCode::from_name).unwrap_or(match status.code() {
            Code::Unauthenticated => ErrorCode::InvalidToken,
            Code::PermissionDenied => ErrorCode::PermissionDenied,
            Code::InvalidArgument => ErrorCode::InvalidArgument,
            Code::NotFound => ErrorCode::EndpointNotFound,
            Code::FailedPrecondition => ErrorCode::ProtocolViolation,
            Code::ResourceExhausted | Code::OutOfRange => ErrorCode::PayloadTooLarge,
            Code::Unimplemented => ErrorCode::Unsupported,
            Code::Unavailable | Code::Cancelled => ErrorCode::Overloaded,
            Code::DeadlineExceeded => ErrorCode::RequestTimeout,
            _ => ErrorCode::Internal,
        });
        let hint = text(HINT_KEY).map_or(Cow::Borrowed(code.hint()), |hint| Cow::Owned(hint.to_owned()));
        let retry_after = text(RETRY_AFTER_KEY).and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        Self { code, message: Cow::Owned(status.message().to_owned()), hint, retry_after }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ApiError {}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut status = Status::new(error.code.grpc(), error.message);
        let metadata = status.metadata_mut();
        metadata.insert(CODE_KEY, MetadataValue::from_static(error.code.as_str()));
        metadata.insert(
            RETRYABLE_KEY,
            MetadataValue::from_static(if error.code.is_retryable() { "true" } else { "false" }),
        );
        // A hint may quote input that no header may carry; the code's own hint is always ASCII.
        let hint = MetadataValue::try_from(error.hint.as_ref())
            .unwrap_or_else(|_| MetadataValue::from_static(error.code.hint()));
        metadata.insert(HINT_KEY, hint);
        if let Some(wait) = error.retry_after {
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            metadata.insert(RETRY_AFTER_KEY, MetadataValue::from(ms));
        }
        status
    }
}

/// Why a call did not come through: the cause at the bottom of the chain, which is the system's own word ("Connection
/// refused"). The layers above only say that there was an error.
pub fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_a_status() {
        for &code in ErrorCode::ALL {
            let error = ApiError::new(code, format!("about {code}")).with_hint("do this");
            let later = error.clone().with_retry_after(Duration::from_millis(1500));
            assert_eq!(ApiError::from_status(&Status::from(later.clone())), later);
            let status = Status::from(error.clone());
            assert_eq!(status.code(), code.grpc());
            assert_eq!(ApiError::from_status(&status), error);
        }
    }

    #[test]
    fn a_hint_that_no_header_can_carry_falls_back_to_the_hint_of_its_code() {
        let status = Status::from(ApiError::new(ErrorCode::InvalidJson, "x").with_hint("a\nb"));
        assert_eq!(ApiError::from_status(&status).hint, ErrorCode::InvalidJson.hint());
    }
}
