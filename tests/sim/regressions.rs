//! Seeds that failed once. They run first, and must never fail again.
//!
//! What a seed does changes when the simulation does; so each fault that was found also stands in words, in
//! `orchestrator/tests/stepped.rs`.

use crate::{
    runs::{Outcome, run_one},
    trace::Detail,
};

/// The seed, and what it found.
const FAILED_ONCE: &[(u64, &str)] = &[
    (15, "children were dropped when their parent was to be cancelled, though that could not be stored"),
    (180, "a job that was about to be forgotten was started again, and the store did not know it"),
    (193, "a signal for a job whose task was aside held up the queue for ever"),
    (368, "a full batch had the conductor look for what is due without a pause until the disk had answered"),
    (675, "a child was forgotten while its parent could not be told how it had ended"),
];

#[test]
fn what_failed_once_does_not_fail_again() {
    for (seed, found) in FAILED_ONCE {
        if let Outcome::Failed(report) = run_one(*seed, Detail::Sum) {
            panic!("again? {found}\n{report}");
        }
    }
}
