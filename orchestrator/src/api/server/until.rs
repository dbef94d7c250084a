//! Answers that go on for long and are ended from here: when the token is withdrawn that they were asked for with, or when the time is
//! over that the caller has for the call.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use avtomatika_proto::{ApiError, ErrorCode};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::Status;

/// How a caller says how long it waits.
const TIMEOUT_HEADER: &str = "grpc-timeout";

/// When the caller stops waiting, if it has said so in a way that can be read: 1 to 8 digits and a unit.
pub(super) fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let text = headers.get(TIMEOUT_HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let span = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    // Further than the clock can say is as good as never.
    Instant::now().checked_add(span)
}

/// What is said to a caller whose time is over. It hardly ever hears it.
pub(super) fn too_late() -> ApiError {
    ApiError::new(ErrorCode::DeadlineExceeded, "The time is over that the caller has for this call")
}

/// The body of a gRPC stream of answers. When `end` comes, its end says why.
pub(super) struct Until<F> {
    body: Body,
    end: Pin<Box<F>>,
    is_over: bool,
}

impl<F> Until<F> {
    pub(super) fn new(body: Body, end: F) -> Self {
        Self { body, end: Box::pin(end), is_over: false }
    }
}

impl<F: Future<Output = ApiError>> hyper::body::Body for Until<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        // First of all, so that a stream that always has something to say ends as well.
        if let Poll::Ready(error) = this.end.as_mut().poll(context) {
            this.is_over = true;
            return Poll::Ready(Some(Ok(Frame::trailers(farewell(error)))));
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The status of an answer that consists of nothing else has it in its head.
fn farewell(error: ApiError) -> HeaderMap {
    let mut trailers = Status::from(error).into_http::<Body>().into_parts().0.headers;
    trailers.remove(CONTENT_TYPE);
    trailers
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timeout_is_read_as_the_protocol_has_it_or_passed_over() {
        for (text, seconds) in [
            ("10S", Some(10.0)),
            ("1H", Some(3600.0)),
            ("2M", Some(120.0)),
            ("250m", Some(0.25)),
            ("1000u", Some(0.001)),
            ("0n", Some(0.0)),
            ("99999999H", Some(99_999_999.0 * 3600.0)),
            ("999999999S", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("S", None),
            ("", None),
            ("10", None),
            ("10s", None),
            ("10\u{e9}", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT_HEADER, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            let found = deadline(&headers).map(|at| (at - Instant::now()).as_secs_f64());
            assert_eq!(found, seconds, "{text:?}");
        }
        assert_eq!(deadline(&HeaderMap::new()), None);
    }
}
