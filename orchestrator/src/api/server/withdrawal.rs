//! Answers that go on for long end when the token is withdrawn that they were asked for with.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use crate::trust::Standing;

/// The body of a gRPC stream of answers. When the token is withdrawn, its end says so.
pub(super) struct WhileTrusted {
    body: Body,
    withdrawn: Pin<Box<WaitForCancellationFutureOwned>>,
    is_over: bool,
}

impl WhileTrusted {
    pub(super) fn new(body: Body, standing: &Standing) -> Self {
        Self { body, withdrawn: Box::pin(standing.withdrawn()), is_over: false }
    }
}

impl hyper::body::Body for WhileTrusted {
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
        if this.withdrawn.as_mut().poll(context).is_ready() {
            this.is_over = true;
            return Poll::Ready(Some(Ok(Frame::trailers(farewell()))));
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
fn farewell() -> HeaderMap {
    let status = Status::from(Standing::farewell());
    let mut trailers = status.into_http::<Body>().into_parts().0.headers;
    trailers.remove(CONTENT_TYPE);
    trailers
}
