//! How a command ends, for scripts: one code for each thing that a script would do differently.

use std::{fmt::Write, process::ExitCode};

use crate::failure::Failure;

macro_rules! exits {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $meaning:literal;)*) => {
        /// What the process tells its caller. The numbers are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Exit { $($(#[$doc])* $variant,)* }

        impl Exit {
            /// Every way to end, by code.
            pub const ALL: &[Exit] = &[$(Exit::$variant),*];

            /// The number that the shell sees.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// What the number means, for `--help`.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

exits! {
    /// The command did what it was asked to.
    Ok = 0, "done; with --wait or watch: the job finished";
    /// A followed job ended as `failed`, a checked file has errors, some jobs cannot be moved as they are, or a benchmark has found
    /// something wrong.
    Failed = 1, "the job ended as failed; with blueprint check, blueprint put or reload: a file has errors; \
        with blueprint diff or migrate: some jobs cannot be moved as they are; with bench: a check failed";
    /// The command line or its data is at fault; nothing was sent.
    Usage = 2, "the command line or its data is wrong; nothing was sent";
    /// A followed job ended as `cancelled`.
    JobCancelled = 3, "the job was cancelled";
    /// A followed job stopped for a human.
    JobQuarantined = 4, "the job was quarantined: it needs a human";
    /// The command stopped following a job that goes on.
    StillOpen = 5, "the wait ended before the job did; the job goes on";
    /// No answer from the orchestrator.
    Unreachable = 10, "the orchestrator did not answer";
    /// The token is missing or not known.
    Unauthenticated = 11, "the token is missing or wrong";
    /// There is no such job, blueprint, worker, message or call.
    NotFound = 12, "no such job, blueprint, worker or message";
    /// The orchestrator refused, and would again.
    Refused = 13, "the orchestrator refused the request";
    /// The orchestrator refused for now.
    TryLater = 14, "refused for now; the same command may succeed later";
    /// The answer could not be written to standard output.
    Output = 15, "the output could not be written";
    /// A fault of this program or of its machine.
    Internal = 70, "a fault of this program or its machine";
    /// Stopped by Ctrl+C while following a job, which goes on.
    Interrupted = 130, "Ctrl+C; a followed job goes on";
    /// Stopped by SIGTERM while following a job, which goes on.
    Terminated = 143, "SIGTERM; a followed job goes on";
}

impl Exit {
    /// This code, once the answer was `shown`. A reader that left early, as `head` does, changes nothing about it: what was done
    /// or found is the same. Errors: every other reason why the answer could not be shown.
    pub fn after(self, shown: Result<(), Failure>) -> Result<Self, Failure> {
        match shown {
            Err(failure) if failure.is_closed_pipe() => Ok(self),
            other => other.map(|()| self),
        }
    }

    /// The table of codes, as `--help` shows it.
    pub fn help() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {:>3}  {}", exit.code(), exit.meaning());
        }
        text.truncate(text.trim_end().len());
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own_and_the_table_is_in_order() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(codes, sorted);
    }
}
