//! Spans on their way to whoever collects them, by OTLP over gRPC.
//!
//! It promises that nobody waits for a collector: spans wait in a bounded queue, are sent by a thread of their own, and are dropped
//! when the collector is away for too long. Settings are the standard's own environment variables (`OTEL_EXPORTER_OTLP_…`,
//! `OTEL_BSP_…`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED`). It refuses to know
//! what the spans are about.

use std::{
    env, fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, SpanData, SpanExporter, SpanProcessor as _,
    },
};

use crate::trace::{SpanId, TraceContext};

/// How long the end of a process waits for its last spans to be sent.
const LAST_SPANS_WITHIN: Duration = Duration::from_secs(2);

/// What happened from one point in time to another.
#[derive(Debug, Clone)]
pub struct Span {
    /// Its own name, and its trace.
    pub context: TraceContext,
    /// The span that it is a part of.
    pub parent: Option<SpanId>,
    /// What it is, such as `submit test_workflow`.
    pub name: String,
    /// Its place between processes.
    pub kind: Kind,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What else is to be said of it.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// A span's place between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers a request.
    Server,
    /// Does work that somebody else has asked for.
    Consumer,
    /// Stays within its process.
    Internal,
}

/// The way to the collector. Cheap to clone.
#[derive(Clone)]
pub struct Spans {
    inner: Arc<Inner>,
}

struct Inner {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    sampler: Sampler,
    ended: AtomicU64,
    exported: Arc<AtomicU64>,
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spans")
    }
}

impl Spans {
    /// As the environment says; `None` when it names no collector, or says that there are to be no spans. An `endpoint` goes
    /// before `OTEL_EXPORTER_OTLP_ENDPOINT`. To be called on a tokio runtime.
    ///
    /// # Errors
    /// Says which setting cannot be used.
    pub fn from_environment(service: &str, endpoint: Option<&str>) -> Result<Option<Self>, String> {
        let is =
            |name: &str, value: &str| env::var(name).is_ok_and(|found| found.eq_ignore_ascii_case(value));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let named = named.into_iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        match endpoint.map(str::to_owned).or(named) {
            None => Ok(None),
            Some(endpoint) => Self::to(service, &endpoint, Sampler::from_environment()?).map(Some),
        }
    }

    /// To the collector at this address, such as `http://localhost:4317`. To be called on a tokio runtime.
    ///
    /// # Errors
    /// Says why the address cannot be used.
    pub fn to(service: &str, endpoint: &str, sampler: Sampler) -> Result<Self, String> {
        let exporter = OtlpExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| format!("no spans can be sent to {endpoint}: {error}"))?;
        let exported = Arc::<AtomicU64>::default();
        let mut processor =
            BatchSpanProcessor::builder(Counting { exporter, exported: exported.clone() }).build();
        processor.set_resource(&resource(service));
        let scope =
            InstrumentationScope::builder("avtomatika").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { inner: Arc::new(Inner { processor, scope, sampler, ended: AtomicU64::new(0), exported }) })
    }

    /// A new span below this one, or the first of a new trace.
    pub fn begin(&self, parent: Option<&TraceContext>) -> TraceContext {
        let ids = RandomIdGenerator::default();
        let span_id = ids.new_span_id().to_bytes();
        match parent {
            Some(parent) => {
                let is_sampled = self.inner.sampler.below(parent);
                TraceContext { span_id, is_sampled, ..parent.clone() }
            }
            None => {
                let trace_id = ids.new_trace_id().to_bytes();
                let is_sampled = self.inner.sampler.root(trace_id);
                TraceContext { trace_id, span_id, is_sampled, state: None }
            }
        }
    }

    /// Tells of a span that has ended. Never waits; one that is not sampled is nobody's business.
    pub fn end(&self, span: Span) {
        if !span.context.is_sampled {
            return;
        }
        self.inner.ended.fetch_add(1, Ordering::Relaxed);
        self.inner.processor.on_end(self.data(span));
    }

    fn data(&self, span: Span) -> SpanData {
        let Span { context, parent, name, kind, start, end, attributes, error } = span;
        let state = context.state.as_deref().and_then(|state| state.parse::<TraceState>().ok());
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(context.trace_id),
                opentelemetry::trace::SpanId::from_bytes(context.span_id),
                TraceFlags::SAMPLED,
                false,
                state.unwrap_or_default(),
            ),
            parent_span_id: parent.map_or(opentelemetry::trace::SpanId::INVALID, |parent| {
                opentelemetry::trace::SpanId::from_bytes(parent)
            }),
            parent_span_is_remote: parent.is_some() && kind != Kind::Internal,
            span_kind: match kind {
                Kind::Server => SpanKind::Server,
                Kind::Consumer => SpanKind::Consumer,
                Kind::Internal => SpanKind::Internal,
            },
            name: name.into(),
            start_time: start,
            end_time: end.max(start),
            attributes: attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.inner.scope.clone(),
        }
    }

    /// Spans that have ended, and those of them that a collector has taken. Those between wait, or were dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.inner.ended.load(Ordering::Relaxed), self.inner.exported.load(Ordering::Relaxed))
    }

    /// Sends what waits, for a moment at most, and then nothing more.
    pub async fn shutdown(self) {
        let (tell, done) = tokio::sync::oneshot::channel();
        // A thread and no task: a runtime that ends would wait for a task that waits for a collector.
        std::thread::spawn(move || {
            let _ = self.inner.processor.shutdown_with_timeout(LAST_SPANS_WITHIN);
            let _ = tell.send(());
        });
        let _ = tokio::time::timeout(LAST_SPANS_WITHIN, done).await;
    }
}

/// Who sends them, as `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say, or under this name.
fn resource(service: &str) -> Resource {
    let is_named = env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|attributes| attributes.contains("service.name="));
    let resource = Resource::builder();
    match is_named {
        true => resource.build(),
        false => resource.with_service_name(service.to_owned()).build(),
    }
}

/// Counts what the collector has taken.
#[derive(Debug)]
struct Counting<E> {
    exporter: E,
    exported: Arc<AtomicU64>,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let outcome = self.exporter.export(batch).await;
        if outcome.is_ok() {
            self.exported.fetch_add(count, Ordering::Relaxed);
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// The share of new traces, 0.0 to 1.0.
    ratio: f64,
    /// Whether traces that others have begun are recorded when, and only when, they say so.
    heeds_parents: bool,
}

impl Sampler {
    /// Everything, unless whoever has begun the trace says otherwise. The default.
    pub const ALL: Self = Self { ratio: 1.0, heeds_parents: true };

    /// As `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say.
    ///
    /// # Errors
    /// Says which of them cannot be used.
    pub fn from_environment() -> Result<Self, String> {
        let text = |name: &str| env::var(name).unwrap_or_default();
        Self::named(&text("OTEL_TRACES_SAMPLER"), &text("OTEL_TRACES_SAMPLER_ARG"))
    }

    fn named(name: &str, argument: &str) -> Result<Self, String> {
        let (heeds_parents, kind) = match name.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (name.is_empty(), name),
        };
        let ratio = match kind {
            "" | "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" if argument.is_empty() => 1.0,
            "traceidratio" => match argument.parse() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
                _ => {
                    return Err(format!("OTEL_TRACES_SAMPLER_ARG: {argument:?} is no share from 0.0 to 1.0"));
                }
            },
            _ => return Err(format!("OTEL_TRACES_SAMPLER: {name:?} is not known here")),
        };
        Ok(Self { ratio, heeds_parents })
    }

    fn below(&self, parent: &TraceContext) -> bool {
        if self.heeds_parents { parent.is_sampled } else { self.root(parent.trace_id) }
    }

    /// The same for everybody who asks about the trace, as the standard has it.
    fn root(&self, trace_id: [u8; 16]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace_id;
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        self.ratio >= 1.0 || (number as f64) < self.ratio * (1_u64 << 63) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_are_those_of_the_standard() {
        let sampled = |name, argument| {
            let sampler = Sampler::named(name, argument).unwrap();
            let parent =
                |is_sampled| TraceContext { trace_id: [0x40; 16], span_id: [1; 8], is_sampled, state: None };
            (sampler.root([0x40; 16]), sampler.below(&parent(true)), sampler.below(&parent(false)))
        };
        for (name, argument, expected) in [
            ("", "", (true, true, false)),
            ("parentbased_always_on", "", (true, true, false)),
            ("always_on", "", (true, true, true)),
            ("always_off", "", (false, false, false)),
            ("parentbased_always_off", "", (false, true, false)),
            // The number of this trace is a little above a quarter of the largest.
            ("traceidratio", "0.26", (true, true, true)),
            ("traceidratio", "0.25", (false, false, false)),
            ("parentbased_traceidratio", "0.1", (false, true, false)),
        ] {
            assert_eq!(sampled(name, argument), expected, "{name} {argument}");
        }
        assert!(Sampler::named("jaeger_remote", "").is_err());
        assert!(Sampler::named("traceidratio", "2").is_err());
    }
}
