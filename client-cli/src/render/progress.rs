//! The one line that shows a job while it is waited for: on a terminal, on standard error, gone when it is dropped.

use std::time::Duration;

use avtomatika_proto::v1::Job;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    job::{detail, status_name},
    text::clean,
};

/// Often enough for the clock to run and the spinner to turn.
const TICK: Duration = Duration::from_millis(100);

/// Steps of the bar: finer than a terminal can draw.
const STEPS: f64 = 1000.0;

const WITHOUT_BAR: &str = "{spinner} {elapsed:>4}  {wide_msg}";
const WITH_BAR: &str = "{spinner} {elapsed:>4}  {bar:20}  {wide_msg}";

/// A live line. Without a terminal it is silent.
pub struct ProgressLine(ProgressBar);

impl ProgressLine {
    /// Starts the line, and its clock.
    pub fn start(live: bool) -> Self {
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let line = Self(ProgressBar::with_draw_target(None, target));
        line.set_template(WITHOUT_BAR);
        if live {
            line.0.enable_steady_tick(TICK);
        }
        line
    }

    fn set_template(&self, template: &str) {
        // The templates above are valid, as a test knows; a line in the default style would do no harm either.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
    }

    /// Shows the job as it is now, with a bar when its worker says how far it is.
    pub fn show(&self, job: &Job) {
        match job.current_task.as_ref().and_then(|task| task.progress.as_ref()) {
            Some(progress) => {
                self.0.set_length(STEPS as u64);
                // A float becomes an integer by saturation: nonsense from a worker is a full or an empty bar.
                self.0.set_position((progress.fraction.clamp(0.0, 1.0) * STEPS) as u64);
                self.set_template(WITH_BAR);
            }
            None => self.set_template(WITHOUT_BAR),
        }
        let message = format!("{}  {}  {}", status_name(job.status), clean(&job.current_state), detail(job));
        self.0.set_message(message);
    }

    /// Shows that the connection is gone and being tried again.
    pub fn show_lost(&self) {
        self.0.set_message("connection lost, trying again");
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [WITHOUT_BAR, WITH_BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
