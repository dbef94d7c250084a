//! The log: one line per event, to stderr, as text or as JSON.
//!
//! It promises that a line is one line and shows nothing but printable text, whatever data found its way into it: control
//! characters and marks that turn the direction of text are written as escapes. There are no colours, so that no escape
//! sequence is ever meant. It refuses to know what the events mean.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// The filter when nobody names one.
pub const DEFAULT_FILTER: &str = "info";

/// Length at which a line of text is cut: enough for every line of ours, too little to flood a terminal with one request.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Starts the log of this process. Called once, by `main`.
///
/// # Errors
/// When the filter is no filter, or a log has been started before; the text says which.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false);
    let started = match format {
        LogFormat::Text => registry.with(layer.with_writer(Printable)).try_init(),
        // JSON escapes control characters by itself.
        LogFormat::Json => registry.with(layer.json().with_writer(io::stderr)).try_init(),
    };
    started.map_err(|error| error.to_string())
}

/// Makes writers that show nothing but printable text.
struct Printable;

impl<'a> MakeWriter<'a> for Printable {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line
    }
}

/// Takes one formatted event per call, as tracing-subscriber writes them.
struct Line;

impl Write for Line {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut out = printable(line).into_owned();
        out.push('\n');
        io::stderr().lock().write_all(out.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
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
