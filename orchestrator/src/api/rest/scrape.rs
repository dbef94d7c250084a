//! `GET /_public/metrics`: the page of figures.
//!
//! It promises to be answered, whatever the conductor and the disk do: they are asked for at most so long, and at most once a
//! second however many ask for the page. Those who come between get the figures of before.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use http::{HeaderValue, header::CONTENT_TYPE};

use crate::{
    api::{Inside, Phase},
    metrics::{self, Metrics, Present},
};

/// How long the conductor and the store may take to say how much there is.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Says that the measuring is over also when the caller has gone away.
struct Measuring(Arc<Metrics>);

impl Drop for Measuring {
    fn drop(&mut self) {
        self.0.measured();
    }
}

pub(super) async fn page(inside: &Inside) -> Response {
    if inside.metrics.may_measure() {
        measure(inside).await;
    }
    let mut response = Response::new(Body::from(inside.metrics.render()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

async fn measure(inside: &Inside) {
    let measuring = Measuring(inside.metrics.clone());
    let conductor = inside.conductor.clone();
    let files = tokio::spawn(async move {
        let measures = conductor.store_measures().await;
        // A disk that hangs is asked again when it has answered, and not by every reader of the page.
        let _ = tokio::task::spawn_blocking(move || measuring.0.read_process()).await;
        measures.ok()
    });
    let (measures, store) = tokio::join!(
        in_time(inside.conductor.measures()),
        in_time(async { files.await.ok().flatten().ok_or(()) })
    );
    let mailbox = inside.conductor.waiting_requests();
    let storage_full = inside.readiness.phase() == Phase::DiskFull;
    let untold = inside.conductor.untold_ends();
    inside.metrics.set_present(&Present { measures, store, mailbox, untold, storage_full });
}

async fn in_time<T, E>(answer: impl Future<Output = Result<T, E>>) -> Option<T> {
    tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()?.ok()
}
