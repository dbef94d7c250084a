//! What a command says of its attempt while it runs: lines on its descriptor 3.
//!
//! | line | |
//! |---|---|
//! | `progress 40% page 4 of 10` | how far it is, for people: a share (`40%` or `0.4`), and words that may be left out |
//! | `checkpoint {"page": 4}` | how far it came, for the next attempt, which finds it in `AVTOMATIKA_CHECKPOINT` |
//!
//! Only the latest of each counts, so a command may say as much as it likes. A line that is neither is complained of, in the log and
//! to whoever looks at the job's progress, and the command goes on. A checkpoint that cannot be kept fails the attempt: a command
//! that counts on one that is not there would do its work twice.

use std::{
    io::{self, ErrorKind},
    os::fd::OwnedFd,
};

use avtomatika_proto::limits;
use serde_json::value::RawValue;
use tokio::{net::unix::pipe, task::yield_now};
use tracing::warn;

use crate::{TaskContext, TaskError, error::cut};

/// Where a command says it: the first descriptor after stdin, stdout and stderr.
pub(super) const DESCRIPTOR: i32 = 3;

/// The largest checkpoint and the word before it, with room for blanks.
const LINE_BYTES_MAX: usize = limits::CHECKPOINT_BYTES_MAX + 64;

/// Read at once; then whatever else the worker's thread has to do gets its turn.
const CHUNK_BYTES: usize = 8 * 1024;

/// Read after the command has ended, when somebody it left behind writes on: as much as a pipe can hold unless the system's
/// administrator says otherwise.
const REST_BYTES_MAX: usize = 1024 * 1024;

/// Complaints about one attempt in the log.
const COMPLAINTS_LOGGED: u32 = 5;

/// How much of a line is quoted.
const QUOTED_BYTES: usize = 60;

/// The worker's end of the pipe, and how far it is read.
pub(super) struct Reports {
    pipe: pipe::Receiver,
    context: TaskContext,
    /// The beginning of a line whose end has not come. Of one that is too long, no more than tells what it was to be.
    line: Vec<u8>,
    is_too_long: bool,
    fraction: f64,
    complaints: u32,
}

impl Reports {
    /// A pipe for one command, and the end that the command gets.
    pub(super) fn of(context: &TaskContext) -> io::Result<(Self, OwnedFd)> {
        let (sender, receiver) = pipe::pipe()?;
        let reports = Self {
            pipe: receiver,
            context: context.clone(),
            line: Vec::new(),
            is_too_long: false,
            fraction: 0.0,
            complaints: 0,
        };
        Ok((reports, sender.into_blocking_fd()?))
    }

    /// Takes what comes until nobody can say anything any more. Safe to drop and call again.
    pub(super) async fn follow(&mut self) -> Result<(), TaskError> {
        loop {
            // A pipe that cannot be read any more has said what it had to say.
            if self.pipe.readable().await.is_err() || self.take()? == Some(0) {
                return Ok(());
            }
            yield_now().await;
        }
    }

    /// The command has ended: takes what is left in the pipe.
    pub(super) fn finish(&mut self) -> Result<(), TaskError> {
        let mut taken = 0;
        while taken < REST_BYTES_MAX {
            match self.take()? {
                Some(bytes) if bytes > 0 => taken += bytes,
                _ => break,
            }
        }
        if !self.line.is_empty() {
            // Perhaps the command was killed while it wrote it.
            let line = std::mem::take(&mut self.line);
            self.complain(&format!("the last line has no end and does not count: {}", quoted(&line)));
        }
        Ok(())
    }

    /// Takes one piece of what is in the pipe: how many bytes, 0 at its end, `None` when there is nothing.
    fn take(&mut self) -> Result<Option<usize>, TaskError> {
        let mut chunk = [0; CHUNK_BYTES];
        let bytes = match self.pipe.try_read(&mut chunk) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(_) => 0,
        };
        for piece in chunk[..bytes].split_inclusive(|&byte| byte == b'\n') {
            let ended = piece.ends_with(b"\n");
            self.line.extend_from_slice(piece);
            if self.line.len() > LINE_BYTES_MAX {
                self.is_too_long = true;
                self.line.truncate(QUOTED_BYTES);
            }
            if ended {
                let line = std::mem::take(&mut self.line);
                self.hear(&line)?;
                self.is_too_long = false;
            }
        }
        Ok(Some(bytes))
    }

    fn hear(&mut self, line: &[u8]) -> Result<(), TaskError> {
        let is_utf8 = str::from_utf8(line).is_ok();
        // What the line was to be can be seen however broken the rest of it is, or wherever it was cut.
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        let (word, said) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match word {
            "" => {}
            "checkpoint" if self.is_too_long => {
                let limit = limits::CHECKPOINT_BYTES_MAX;
                return Err(TaskError::permanent(format!(
                    "a checkpoint on descriptor {DESCRIPTOR} has more than {limit} bytes; save where the work stands and not the \
                     work"
                )));
            }
            "checkpoint" if !is_utf8 => {
                return Err(TaskError::permanent(format!(
                    "a checkpoint on descriptor {DESCRIPTOR} is not UTF-8: {}",
                    quoted(line)
                )));
            }
            _ if self.is_too_long => {
                self.complain(&format!("a line has more than {LINE_BYTES_MAX} bytes: {}", quoted(line)));
            }
            _ if !is_utf8 => self.complain(&format!("a line is not UTF-8: {}", quoted(line))),
            "checkpoint" => self.save(said)?,
            "progress" => self.progress(said),
            _ => self.complain(&format!(
                "{} is neither `progress 40% …` nor `checkpoint {{…}}`",
                quoted(text.as_bytes())
            )),
        }
        Ok(())
    }

    fn progress(&mut self, said: &str) {
        let (share, message) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
        match fraction(share) {
            Some(fraction) => {
                self.fraction = fraction;
                self.context.progress(fraction, message.trim());
            }
            None => self.complain(&format!(
                "the progress {} is no share: write it from 0% to 100%, or from 0 to 1, before the words",
                quoted(share.as_bytes())
            )),
        }
    }

    fn save(&self, said: &str) -> Result<(), TaskError> {
        let checkpoint: &RawValue = serde_json::from_str(said).map_err(|error| {
            TaskError::permanent(format!(
                "a checkpoint on descriptor {DESCRIPTOR} is no JSON object on one line ({error}): {}",
                quoted(said.as_bytes())
            ))
        })?;
        self.context.save(checkpoint)
    }

    /// Tells people what was not understood: those who look after the worker, and those who look at the job.
    fn complain(&mut self, what: &str) {
        self.complaints = self.complaints.saturating_add(1);
        if self.complaints <= COMPLAINTS_LOGGED {
            warn!("On descriptor {DESCRIPTOR} of the command, {what}");
        }
        self.context.progress(self.fraction, format!("on descriptor {DESCRIPTOR}, {what}"));
    }
}

/// `40%` and `0.4` are the same. `None` for what is no number, or no share of a whole.
fn fraction(share: &str) -> Option<f64> {
    let fraction = match share.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok()? / 100.0,
        None => share.parse().ok()?,
    };
    (0.0..=1.0).contains(&fraction).then_some(fraction)
}

/// The beginning of a line, in quotes.
fn quoted(line: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(line).trim_end().to_owned();
    cut(&mut text, QUOTED_BYTES);
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::fraction;

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        for (share, expected) in [
            ("0", Some(0.0)),
            ("0.25", Some(0.25)),
            ("25%", Some(0.25)),
            ("100%", Some(1.0)),
            ("1", Some(1.0)),
            ("40", None),
            ("101%", None),
            ("-1%", None),
            ("NaN", None),
            ("inf%", None),
            ("half", None),
            ("", None),
        ] {
            assert_eq!(fraction(share), expected, "{share:?}");
        }
    }
}
