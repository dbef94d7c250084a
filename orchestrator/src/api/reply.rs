//! How an error reaches a caller over HTTP. (Over gRPC it is a status: see `ApiError` in the contract crate.)

use avtomatika_proto::{ApiError, ErrorCode};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The body of every error.
#[derive(Serialize)]
pub(super) struct ErrorBody<'a> {
    error: &'a str,
    code: &'static str,
    hint: &'a str,
}

impl<'a> ErrorBody<'a> {
    pub(super) fn of(error: &'a ApiError) -> Self {
        Self { error: &error.message, code: error.code.as_str(), hint: &error.hint }
    }
}

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            response
        }
        Err(fault) => {
            tracing::error!(%fault, "an answer could not be written as JSON");
            error(&ApiError::new(ErrorCode::Internal, "The answer could not be written"))
        }
    }
}

/// The answer that carries this error.
pub(super) fn error(error: &ApiError) -> Response {
    error_with_status(error, status(error))
}

/// The HTTP status that this error has.
pub(super) fn status(error: &ApiError) -> StatusCode {
    StatusCode::from_u16(error.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The same with a status of its own, for probes that must answer 503.
pub(super) fn error_with_status(error: &ApiError, status: StatusCode) -> Response {
    let bytes = serde_json::to_vec(&ErrorBody::of(error)).expect("three strings always serialise");
    let mut response = (status, Body::from(bytes)).into_response();
    // For whoever counts the answers.
    response.extensions_mut().insert(error.code);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    // Rounded up: who comes a little early is refused again.
    let known = error
        .retry_after
        .map(|wait| HeaderValue::from(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))));
    if let Some(seconds) = known.or_else(|| retry_after(error.code).map(HeaderValue::from_static)) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Seconds after which the same request has a fair chance.
fn retry_after(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::Overloaded
        | ErrorCode::ShuttingDown
        | ErrorCode::WatchLagged
        | ErrorCode::KeyLimitReached
        | ErrorCode::RateLimited => Some("1"),
        ErrorCode::QuotaExceeded => Some("3600"),
        ErrorCode::TooManyOpenJobs
        | ErrorCode::OpenJobsLimitReached
        | ErrorCode::TooManyWorkers
        | ErrorCode::TooManySignals => Some("5"),
        ErrorCode::StorageFull | ErrorCode::TooManyNotices => Some("30"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_that_may_succeed_later_says_when() {
        for &code in ErrorCode::ALL {
            let response = error(&ApiError::new(code, "x"));
            assert_eq!(response.status().as_u16(), code.http());
            if matches!(code.http(), 429 | 503 | 507) {
                assert!(response.headers().contains_key(header::RETRY_AFTER), "{code}");
            }
        }
    }
}
