//! The log: one line per event, to stderr, as text or as JSON.
//!
//! It promises that a line is one line and shows nothing but printable text, whatever data found its way into it: control
//! characters and marks that turn the direction of text are written as escapes. There are no colours, so that no escape
//! sequence is ever meant. Nobody who logs waits for whoever reads the log: see [`log_queue`](avtomatika_proto::log_queue).
//! It refuses to know what the events mean.
//!
//! Events about a job name it in their message, for people, and carry `job`, `task`, `worker` and `client` as fields, for
//! machines. Text shows the message only.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use avtomatika_proto::log_queue::{LAST_LINES_WITHIN, LogQueue, gap_in_json, gap_in_text};
use tracing_subscriber::{
    EnvFilter, Registry, fmt::format, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{ConfigError, LogFormat};

/// The filter when nobody names one.
pub const DEFAULT_FILTER: &str = "info";

/// Length at which a line of text is cut: enough for every line of ours, too little to flood a terminal with one request.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Fields that every message which has them names by itself.
const NAMED_IN_MESSAGE: [&str; 4] = ["job", "task", "worker", "client"];

/// How long a process that stops at once waits for its last lines to be read.
const HURRIED_LINES_WITHIN: Duration = Duration::from_millis(100);

/// The log of this process: there is one stderr.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// What this process logs, to be replaced.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// What to log.
#[derive(Debug)]
pub struct Filter(EnvFilter);

/// The filter that a text describes.
///
/// # Errors
/// When it describes none.
pub fn filter(text: &str) -> Result<Filter, ConfigError> {
    EnvFilter::try_new(text).map(Filter).map_err(|error| ConfigError {
        key: "log".to_owned(),
        what: format!("{text:?} is not a filter: {error}"),
        hint: "write a level such as info, or a filter such as info,avtomatika_orchestrator=debug".to_owned(),
    })
}

/// Logs what this one says from now on, if the log of this process has been started.
pub fn replace_filter(Filter(filter): Filter) {
    if let Some(handle) = FILTER.get() {
        // The only failure is that nobody logs any more.
        let _ = handle.reload(filter);
    }
}

/// Gives the last lines a second to be read when it goes.
#[derive(Debug)]
#[must_use = "the last lines are lost without it"]
pub struct Log;

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(queue) = QUEUE.get() {
            queue.flush(LAST_LINES_WITHIN);
        }
    }
}

/// Starts the log of this process. Called once, by `main`.
///
/// # Errors
/// When a log has been started before, or the system gives no thread for it; the text says which.
pub fn start(format: LogFormat, Filter(filter): Filter) -> Result<Log, String> {
    let (filter, handle) = reload::Layer::new(filter);
    let is_text = match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let gap = if is_text { gap_in_text } else { gap_in_json };
    let queue = LogQueue::to(io::stderr(), gap).map_err(|error| error.to_string())?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false);
    let lines = queue.clone();
    let started = match is_text {
        true => {
            let layer = layer.fmt_fields(format::debug_fn(field_of_text));
            registry.with(layer.with_writer(move || Line(lines.clone()))).try_init()
        }
        // JSON escapes control characters by itself.
        false => {
            let layer = layer.json().flatten_event(true).with_current_span(false).with_span_list(false);
            registry.with(layer.with_writer(move || lines.clone())).try_init()
        }
    };
    started.map_err(|error| error.to_string())?;
    // Only the first one gets here.
    let _ = (QUEUE.set(queue), FILTER.set(handle));
    Ok(Log)
}

/// Lines of this process's log that were dropped because nobody read it fast enough.
pub fn dropped_lines() -> u64 {
    QUEUE.get().map_or(0, LogQueue::dropped)
}

/// Says why the process ends, as it is, after everything else that was logged. Returns when it is read, or after a second.
pub fn last_words(words: &str) {
    match QUEUE.get() {
        Some(queue) => {
            // A queue takes everything, or counts it.
            let _ = queue.clone().write_all(words.as_bytes());
            queue.flush(LAST_LINES_WITHIN);
        }
        None => eprint!("{words}"),
    }
}

/// Gives the last lines a moment before the process stops at once.
pub fn hurry() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(HURRIED_LINES_WITHIN);
    }
}

fn field_of_text(
    writer: &mut format::Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn std::fmt::Debug,
) -> std::fmt::Result {
    match field.name() {
        "message" => write!(writer, "{value:?}"),
        name if NAMED_IN_MESSAGE.contains(&name) => Ok(()),
        name => write!(writer, " {name}={value:?}"),
    }
}

/// Takes one formatted event per call, as tracing-subscriber writes them, and shows nothing but printable text.
struct Line(LogQueue);

impl Write for Line {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut out = printable(line).into_owned();
        out.push('\n');
        self.0.write_all(out.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::flush(&mut self.0)
    }
}

/// The text on one line, with what is not printable escaped, and cut where it is too long.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= LINE_BYTES_MAX && !text.chars().any(must_be_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    for letter in text.chars() {
        if out.len() >= LINE_BYTES_MAX {
            out.push('…');
            break;
        }
        match must_be_escaped(letter) {
            true => write!(out, "{}", letter.escape_default()).expect("writing into a String cannot fail"),
            false => out.push(letter),
        }
    }
    Cow::Owned(out)
}

fn must_be_escaped(letter: char) -> bool {
    // Control characters; then marks and overrides of the writing direction, and line and paragraph separators.
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printable_is_left_alone_and_the_rest_is_escaped() {
        for (text, shown) in [
            ("plain — grüße", "plain — grüße"),
            ("two\nlines\r\n", "two\\nlines\\r\\n"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("nul\0", "nul\\u{0}"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert!(printable(&"x".repeat(1_000_000)).len() < 9 * 1024);
    }
}
