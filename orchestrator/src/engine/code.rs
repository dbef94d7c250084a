//! Error codes of the engine's own, beside those that workers send. They are words for programs and never change.

/// An expression has no value for this job.
pub const EXPRESSION: &str = "EXPRESSION_ERROR";
/// No condition of a choice holds and it has no `else`.
pub const NO_CHOICE: &str = "NO_CHOICE_MATCHED";
/// The job would make more moves than its blueprint allows.
pub const TRANSITION_LIMIT: &str = "TRANSITION_LIMIT";
/// An outcome that the state has no transition for.
pub const UNHANDLED_OUTCOME: &str = "UNHANDLED_OUTCOME";
/// The task has cost as many workers as a task may.
pub const WORKER_LOST: &str = "WORKER_LOST";
/// No worker took the task in time.
pub const DISPATCH_TIMEOUT: &str = "DISPATCH_TIMEOUT";
/// The job did not reach its end in time.
pub const RESULT_TIMEOUT: &str = "RESULT_TIMEOUT";
/// Data has grown beyond what a job may have.
pub const DATA_TOO_LARGE: &str = "DATA_TOO_LARGE";
/// The job ended in a state marked `end: failed`.
pub const END_STATE: &str = "END_STATE";
/// The client cancelled the job and said why.
pub const CANCELLED: &str = "CANCELLED";
/// The job stands in a state that its blueprint does not have.
pub const STATE_UNKNOWN: &str = "STATE_UNKNOWN";
/// Data does not fit its schema.
pub const INPUT_INVALID: &str = "INPUT_INVALID";
/// What the job waited for did not come in time.
pub const WAIT_TIMEOUT: &str = "WAIT_TIMEOUT";
/// More branches of a map failed than it tolerates.
pub const BRANCHES_FAILED: &str = "BRANCHES_FAILED";
/// A child did not end well.
pub const CHILD_FAILED: &str = "CHILD_FAILED";
/// Children of children of children, deeper than jobs may nest.
pub const DEPTH_LIMIT: &str = "DEPTH_LIMIT";
/// As many jobs are open as may be, so that none is started for which nobody waits.
pub const OPEN_JOBS_LIMIT: &str = "OPEN_JOBS_LIMIT_REACHED";
/// There is no blueprint with this name to run.
pub const BLUEPRINT_UNKNOWN: &str = "BLUEPRINT_UNKNOWN";
/// A key has no room, and its policy is to refuse the newest.
pub const KEY_LIMIT_REACHED: &str = "KEY_LIMIT_REACHED";
/// A newer job has taken a key, whose policy is to cancel the oldest.
pub const KEY_TAKEN_OVER: &str = "KEY_TAKEN_OVER";
/// The parent of a branch has gone on without it.
pub const PARENT_GONE: &str = "PARENT_GONE";

#[cfg(test)]
mod tests {
    #[test]
    fn every_code_of_a_job_has_its_row_in_the_documentation() {
        let page = include_str!("../../../docs/errors.md");
        let words = [include_str!("code.rs"), include_str!("../../../proto/task_error.rs")];
        let codes: Vec<&str> = words
            .iter()
            .flat_map(|source| source.lines())
            .filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1))
            .collect();
        assert!(codes.len() > 20, "{codes:?}");
        for code in codes {
            assert!(page.contains(&format!("\n| `{code}` |")), "docs/errors.md has no row for {code}");
        }
    }
}
