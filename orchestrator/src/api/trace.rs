//! The trace of a submission: continued from its caller, or begun here.
//!
//! With spans off, a trace that the caller has begun is passed on to the workers, and nothing else is done; without one, nothing
//! at all.

use std::{sync::Arc, time::SystemTime};

use avtomatika_proto::{
    ApiError,
    spans::{Kind, Span, Spans},
    trace::{TRACEPARENT, TRACESTATE, TraceContext},
};
use http::{HeaderMap, HeaderName};
use tonic::metadata::MetadataMap;

use crate::conductor::Submitted;

/// Whether, and where to, spans are told.
#[derive(Debug, Clone, Default)]
pub struct Tracing(pub Option<Spans>);

/// A submission that is being answered.
pub(super) struct Submitting {
    /// What is stored with the job.
    pub context: Option<Arc<TraceContext>>,
    told: Option<Told>,
}

struct Told {
    spans: Spans,
    parent: Option<TraceContext>,
    since: SystemTime,
}

/// The headers of a trace alone, to be kept while a stream lasts.
pub(super) fn trace_headers(metadata: &MetadataMap) -> HeaderMap {
    let names = [TRACEPARENT, TRACESTATE].map(HeaderName::from_static);
    let found = names.into_iter().filter_map(|name| {
        let value = metadata.as_ref().get(&name)?.clone();
        Some((name, value))
    });
    found.collect()
}

impl Tracing {
    /// Of a request with these headers.
    pub(super) fn begin(&self, headers: &HeaderMap) -> Submitting {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let parent = text(TRACEPARENT).and_then(|parent| TraceContext::parse(parent, text(TRACESTATE)));
        match &self.0 {
            None => Submitting { context: parent.map(Arc::new), told: None },
            Some(spans) => {
                let context = Some(Arc::new(spans.begin(parent.as_ref())));
                let told = Some(Told { spans: spans.clone(), parent, since: SystemTime::now() });
                Submitting { context, told }
            }
        }
    }
}

impl Submitting {
    /// It has been answered.
    pub(super) fn end(self, blueprint: &str, answer: &Result<Submitted, ApiError>) {
        let (Some(context), Some(Told { spans, parent, since })) = (self.context, self.told) else { return };
        let mut attributes = vec![("avtomatika.blueprint", blueprint.to_owned())];
        if let Ok(submitted) = answer {
            attributes.push(("avtomatika.job_id", submitted.job_id.to_string()));
            attributes.push(("avtomatika.deduplicated", submitted.deduplicated.to_string()));
        }
        spans.end(Span {
            context: TraceContext::clone(&context),
            parent: parent.map(|parent| parent.span_id),
            name: format!("submit {blueprint}"),
            kind: Kind::Server,
            start: since,
            end: SystemTime::now(),
            attributes,
            error: answer.as_ref().err().map(|error| error.code.to_string()),
        });
    }
}
