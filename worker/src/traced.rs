//! The run of one task as a span below the attempt that the orchestrator tells of.
//!
//! Without a trace there is nothing here; without somebody to tell, the trace is passed on to the handler and nothing is told.

use std::time::SystemTime;

use avtomatika_proto::{
    spans::{Kind, Span, Spans},
    trace::TraceContext,
    v1,
};

use crate::TaskContext;

/// A run that belongs to a trace.
pub(crate) struct Traced {
    /// Below which the handler's own spans go.
    pub(crate) context: TraceContext,
    told: Option<Told>,
}

struct Told {
    spans: Spans,
    attempt: TraceContext,
    task_type: String,
    since: SystemTime,
}

impl Traced {
    /// Of a task that has just come; `None` when it belongs to no trace.
    pub(crate) fn of(task: &v1::Task, spans: Option<&Spans>) -> Option<Self> {
        if task.traceparent.is_empty() {
            return None;
        }
        let state = Some(task.tracestate.as_str()).filter(|state| !state.is_empty());
        let attempt = TraceContext::parse(&task.traceparent, state)?;
        let Some(spans) = spans else { return Some(Self { context: attempt, told: None }) };
        let context = spans.begin(Some(&attempt));
        let task_type = task.r#type.clone();
        let told = Told { spans: spans.clone(), attempt, task_type, since: SystemTime::now() };
        Some(Self { context, told: Some(told) })
    }

    /// The run is over.
    pub(crate) fn end(self, task: &TaskContext, result: &v1::TaskResult) {
        let Some(Told { spans, attempt, task_type, since }) = self.told else { return };
        spans.end(Span {
            context: self.context,
            parent: Some(attempt.span_id),
            name: format!("task {task_type}"),
            kind: Kind::Consumer,
            start: since,
            end: SystemTime::now(),
            attributes: vec![
                ("avtomatika.job_id", task.job_id().to_owned()),
                ("avtomatika.task_id", task.task_id().to_owned()),
                ("avtomatika.task_type", task_type),
                ("avtomatika.attempt", task.attempt().to_string()),
                ("avtomatika.worker_id", task.worker_id().to_owned()),
                ("avtomatika.outcome", result.outcome.clone()),
            ],
            error: result.error.as_ref().map(|error| error.code.clone()),
        });
    }
}
