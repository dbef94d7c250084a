//! The line that shows how far a benchmark is: on a terminal, on standard error, gone when it is dropped.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;

/// Often enough for the bar to move.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Steps of the bar: finer than a terminal can draw.
const STEPS: u64 = 1000;

/// Words on their way to people: few are said, and each is taken at once.
const WORDS_MAX: usize = 16;

const TEMPLATE: &str = "{spinner} {elapsed:>4}  {bar:20}  {wide_msg}";

/// A live line. Without a terminal it is silent.
pub(super) struct Progress {
    bar: ProgressBar,
    words: mpsc::Sender<String>,
}

impl Progress {
    /// Starts the line. The receiver gets what is to be said to people beside it.
    pub(super) fn start(live: bool) -> (Self, mpsc::Receiver<String>) {
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(STEPS), target);
        // The template is valid, as a test knows; the default style would do no harm either.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        let (words, said) = mpsc::channel(WORDS_MAX);
        (Self { bar, words }, said)
    }

    /// Something else begins.
    pub(super) fn phase(&self, what: impl Into<String>) {
        self.bar.set_position(0);
        self.bar.set_message(what.into());
        self.bar.tick();
    }

    /// How far it is, from 0 to 1.
    pub(super) fn show(&self, share: f64) {
        // A float becomes an integer by saturation.
        self.bar.set_position((share.clamp(0.0, 1.0) * STEPS as f64) as u64);
    }

    /// Says something to people, terminal or not. If nobody listens, nobody is missing it.
    pub(super) fn say(&self, words: String) {
        let _ = self.words.try_send(words);
    }

    /// Lets somebody else use the terminal for a moment.
    pub(super) fn aside<T>(&self, then: impl FnOnce() -> T) -> T {
        self.bar.suspend(then)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
