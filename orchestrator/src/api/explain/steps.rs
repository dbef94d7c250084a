//! What a human can do about a job: at most a handful of things, the likeliest first, each with the command that does it.

use avtomatika_proto::names::CODE_PREFIX;

use crate::conductor::{Explanation, Situation};
use crate::dispatch::Obstacle;

/// Something that a human can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct NextStep {
    /// In one word, for programs.
    pub action: &'static str,
    /// What that does.
    pub what: String,
    /// How, on the command line.
    pub command: String,
}

/// What can be done about a job.
pub(in crate::api) fn next_steps(explanation: &Explanation) -> Vec<NextStep> {
    let job = &explanation.view.job;
    let mut steps = Vec::new();
    if let (Situation::Worker(standing), Some(attempt)) = (&explanation.situation, &job.attempt)
        && matches!(standing.obstacle, Obstacle::NoWorker | Obstacle::WorkersDraining | Obstacle::WorkersFull)
    {
        steps.push(match attempt.task_type.strip_prefix(CODE_PREFIX) {
            Some(function) => NextStep {
                action: "start_process",
                what: format!("start a process that has the function {function:?}, see docs/embedding.md"),
                command: format!("Functions::new().add({function:?}, …)"),
            },
            None => NextStep {
                action: "start_worker",
                what: format!("start a worker that serves {:?}", attempt.task_type),
                // A task type is a name: nothing in it means anything to a shell.
                command: format!("avtomatika-worker --task {}=exec:PROGRAM", attempt.task_type),
            },
        });
    }
    if !job.status.is_terminal() {
        let what = "end the job".to_owned();
        steps.push(NextStep { action: "cancel", what, command: format!("avtomatika cancel {}", job.id) });
    }
    steps
}
