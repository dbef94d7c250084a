//! Where a command speaks: answers to standard output, words for people to standard error.
//!
//! It strips colours where nobody sees them (no terminal, `NO_COLOR`), and it turns a failed write into a value, so that
//! `avtomatika list | head -1` ends quietly instead of panicking.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};

use crate::{args::Format, failure::Failure, render::text};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();

/// The two streams of a command and what is known about who reads them.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    format: Format,
    live: bool,
}

impl Console {
    /// The streams of this process. Colours follow the terminal, `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE`.
    pub fn of_this_process(format: Format) -> Self {
        Self {
            live: io::stderr().is_terminal(),
            out: Box::new(anstream::AutoStream::auto(io::stdout())),
            err: Box::new(anstream::AutoStream::auto(io::stderr())),
            format,
        }
    }

    /// Two streams of the caller's, without colours and without a progress line.
    pub fn new(format: Format, out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        let (out, err): (Box<dyn Write + Send>, Box<dyn Write + Send>) = (Box::new(out), Box::new(err));
        Self {
            out: Box::new(anstream::StripStream::new(out)),
            err: Box::new(anstream::StripStream::new(err)),
            format,
            live: false,
        }
    }

    /// What the answer is to look like.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether someone watches standard error, so that a line that changes in place makes sense.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Writes a piece of the answer. Errors: [`Failure::Output`].
    pub fn print(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(Failure::Output)
    }

    /// Writes a line of the answer. Errors: [`Failure::Output`].
    pub fn print_line(&mut self, line: &str) -> Result<(), Failure> {
        self.print(&format!("{line}\n"))
    }

    /// Tells a person something beside the answer. If nobody listens, nobody is missing it.
    pub fn note(&mut self, words: &str) {
        let _ = writeln!(self.err, "{words}");
    }

    /// Tells a person what went wrong and how to mend it.
    pub fn tell(&mut self, failure: &Failure) {
        if failure.is_closed_pipe() {
            return;
        }
        let message = text::clean(&failure.to_string()).into_owned();
        let code = failure.code().map_or(String::new(), |code| format!(" {DIM}({code}){DIM:#}"));
        let hint = text::clean(&failure.hint()).into_owned();
        self.note(&format!("{ERROR}error:{ERROR:#} {message}{code}\n {HINT}hint:{HINT:#} {hint}"));
    }
}
