//! Which trace something belongs to, as the W3C writes it: <https://www.w3.org/TR/trace-context/>.
//!
//! A trace begins with whoever submits a job, and goes on through the job and its tasks to the workers and whatever they call.
//! It promises that what is no trace context reads as none, and that the spans of one job or attempt have the same ids whenever
//! and by whomever they are told of. It refuses to know where spans are sent.

use std::{fmt, sync::Arc};

use crate::{JobId, TaskId};

/// The header, metadata key and (in capitals) environment variable in which a trace context travels.
pub const TRACEPARENT: &str = "traceparent";

/// Where tracing systems keep what is their own.
pub const TRACESTATE: &str = "tracestate";

/// Length of a trace state that is passed on; a longer one is left out, as the W3C has it.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Names one span within its trace.
pub type SpanId = [u8; 8];

/// A span, and the trace to which it belongs: the parent of whatever comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Names the trace. Not all zeros.
    pub trace_id: [u8; 16],
    /// Names the span. Not all zeros.
    pub span_id: SpanId,
    /// Whether the trace is recorded.
    pub is_sampled: bool,
    /// What tracing systems keep there, unchanged.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// What these two headers say; `None` when it is nothing that can be used.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let version: [u8; 1] = from_hex(parts.next()?)?;
        let trace_id: [u8; 16] = from_hex(parts.next()?)?;
        let span_id: SpanId = from_hex(parts.next()?)?;
        let flags: [u8; 1] = from_hex(parts.next()?)?;
        // Later versions may add parts; the first one has none.
        let is_sound = version != [0xff] && (version != [0] || parts.next().is_none());
        if !is_sound || trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        let is_carried = |state: &&str| {
            (1..=TRACESTATE_BYTES_MAX).contains(&state.len())
                && state.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        };
        let state = tracestate.filter(is_carried).map(Arc::from);
        Some(Self { trace_id, span_id, is_sampled: flags[0] & 1 == 1, state })
    }

    /// Another span of the same trace.
    pub fn with_span(&self, span_id: SpanId) -> Self {
        Self { span_id, ..self.clone() }
    }

    /// In the form of the header.
    pub fn traceparent(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.is_sampled))
    }
}

/// The span of whatever has this id, the `number`th of its kind: always the same, so that whoever tells of it need not have
/// remembered it.
pub fn span_of(id: &[u8], number: u64) -> SpanId {
    // FNV-1a, and the finish of SplitMix64: ids of ours are random already, and need no more than to be spread.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in id {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    // No span is named by zeros.
    hash.max(1).to_be_bytes()
}

/// The span of a job: of its first run, or of the `run`th after that which a human has started.
pub fn span_of_job(job_id: JobId, run: u64) -> SpanId {
    span_of(job_id.as_bytes(), run)
}

/// The span of an attempt, below which its worker's is.
pub fn span_of_attempt(task_id: TaskId) -> SpanId {
    span_of(task_id.as_bytes(), 0)
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        // Capitals are not allowed.
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_written_is_read() {
        let context = TraceContext::parse(SOUND, Some("a=1,b=2")).unwrap();
        assert_eq!(context.traceparent(), SOUND);
        assert_eq!((context.is_sampled, context.state.as_deref()), (true, Some("a=1,b=2")));
        let other = context.with_span(span_of(b"job", 0));
        assert_eq!(TraceContext::parse(&other.traceparent(), Some("a=1,b=2")), Some(other));
    }

    #[test]
    fn what_is_no_trace_context_is_none() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-äf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(text, None), None, "{text}");
        }
        let later = TraceContext::parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more", None);
        assert!(!later.unwrap().is_sampled);
        let long = "x".repeat(TRACESTATE_BYTES_MAX + 1);
        for state in ["", "a=ü", &long] {
            assert_eq!(TraceContext::parse(SOUND, Some(state)).unwrap().state, None);
        }
    }

    #[test]
    fn spans_of_different_things_differ_and_of_the_same_are_the_same() {
        let mut seen = std::collections::HashSet::new();
        for id in 0..1_000_u128 {
            for number in 0..10 {
                assert!(seen.insert(span_of(&id.to_be_bytes(), number)));
            }
        }
        assert_eq!(span_of(&7_u128.to_be_bytes(), 3), span_of(&7_u128.to_be_bytes(), 3));
    }
}
