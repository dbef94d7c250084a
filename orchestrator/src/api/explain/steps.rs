//! What a human can do about a job: a handful of things, the likeliest first, each with the command that does it.

use std::sync::Arc;

use avtomatika_proto::names::CODE_PREFIX;

use crate::{
    conductor::{Explanation, Situation},
    dispatch::{Lack, Nearest, Obstacle, Standing},
    engine::{Job, Wait},
};

/// Decisions that are named one by one.
const DECISIONS_MAX: usize = 5;

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
    let mut steps = of_the_situation(explanation);
    if job.is_repairable() {
        let state = job.failed_state.as_ref().unwrap_or(&job.state);
        let what = format!("try again from state {state:?}");
        steps.push(NextStep { action: "retry", what, command: format!("avtomatika retry {}", job.id) });
    }
    let is_worth_skipping = matches!(
        explanation.situation,
        Situation::Ended
            | Situation::Retry
            | Situation::Timer
            | Situation::Signal
            | Situation::Approval { .. }
    );
    if is_worth_skipping && let [first, ..] = explanation.skips.as_slice() {
        let outcome =
            if explanation.skips.iter().any(|skip| &**skip == "success") { "success" } else { first };
        let what = format!("go on as if the state had ended with {}", listed(&explanation.skips));
        let command = format!("avtomatika skip {} --outcome {outcome}", job.id);
        steps.push(NextStep { action: "skip", what, command });
    }
    if !job.status.is_terminal() {
        let what = "end the job".to_owned();
        steps.push(NextStep { action: "cancel", what, command: format!("avtomatika cancel {}", job.id) });
    }
    steps
}

fn of_the_situation(explanation: &Explanation) -> Vec<NextStep> {
    let job = &*explanation.view.job;
    match &explanation.situation {
        Situation::Worker(standing) => {
            restore(standing).into_iter().chain(start_worker(job, standing.obstacle)).collect()
        }
        Situation::Approval { decisions } => {
            decisions.iter().take(DECISIONS_MAX).map(|decision| decide(job, decision)).collect()
        }
        Situation::Signal => signal(job).into_iter().collect(),
        Situation::Keys { keys, .. } => {
            let holder = keys.iter().filter(|key| !key.has_room).find_map(|key| key.holders.first());
            let what = |holder| NextStep {
                action: "explain",
                what: "ask about a job that holds the key".to_owned(),
                command: format!("avtomatika explain {holder}"),
            };
            holder.map(what).into_iter().collect()
        }
        Situation::Children { running, .. } => {
            let what = |child| NextStep {
                action: "explain",
                what: "ask about a child that runs".to_owned(),
                command: format!("avtomatika explain {child}"),
            };
            running.first().map(what).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn restore(standing: &Standing) -> Option<NextStep> {
    let Nearest { worker_id, lacks: Lack::Trust(_) } = standing.nearest.as_ref()? else { return None };
    Some(NextStep {
        action: "restore_worker",
        what: "try the worker again at once".to_owned(),
        command: format!("avtomatika workers restore {}", word(worker_id)),
    })
}

fn start_worker(job: &Job, obstacle: Obstacle) -> Option<NextStep> {
    if !matches!(
        obstacle,
        Obstacle::NoWorker | Obstacle::WorkersDraining | Obstacle::WorkersFull | Obstacle::WorkersSetAside
    ) {
        return None;
    }
    let task_type = &job.attempt.as_ref()?.task_type;
    Some(match task_type.strip_prefix(CODE_PREFIX) {
        Some(function) => NextStep {
            action: "start_process",
            what: format!("start a process that has the function {function:?}, see docs/embedding.md"),
            command: format!("Functions::new().add({function:?}, …)"),
        },
        None => NextStep {
            action: "start_worker",
            what: format!("start a worker that serves {task_type:?}"),
            // A task type is a name: nothing in it means anything to a shell.
            command: format!("avtomatika-worker --task {task_type}=exec:PROGRAM"),
        },
    })
}

fn decide(job: &Job, decision: &str) -> NextStep {
    let command = match decision {
        "approved" => format!("avtomatika approve {}", job.id),
        "rejected" => format!("avtomatika reject {}", job.id),
        // An outcome is a name as well.
        decision => format!("avtomatika approve {} --decision {decision}", job.id),
    };
    NextStep { action: "decide", what: format!("decide: {decision}"), command }
}

fn signal(job: &Job) -> Option<NextStep> {
    let Some(Wait::Signal { name, .. }) = &job.wait else { return None };
    let command = format!("avtomatika signal {} {}", job.id, word(name));
    Some(NextStep { action: "signal", what: "send the signal".to_owned(), command })
}

fn listed(names: &[Arc<str>]) -> String {
    names.iter().map(|name| &**name).collect::<Vec<_>>().join(" or ")
}

/// A text as one word of a shell, whatever is in it.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    match !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        true => text.to_owned(),
        // What controls a terminal has no business in a command that people copy.
        false => {
            let shown: String = text.chars().filter(|c| !c.is_control()).collect();
            format!("'{}'", shown.replace('\'', "'\\''"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::sample, *};
    use crate::conductor::Reason;

    fn commands(reason: Reason) -> Vec<String> {
        next_steps(&sample(reason))
            .into_iter()
            .map(|step| step.command.replace(&sample(reason).view.job.id.to_string(), "JOB"))
            .collect()
    }

    #[test]
    fn whoever_can_do_something_is_told_how() {
        for (reason, expected) in [
            (
                Reason::NoWorker,
                &["avtomatika-worker --task resize=exec:PROGRAM", "avtomatika cancel JOB"][..],
            ),
            (Reason::Running, &["avtomatika cancel JOB"]),
            (Reason::Human, &["avtomatika approve JOB", "avtomatika reject JOB", "avtomatika cancel JOB"]),
            (Reason::Event, &["avtomatika signal JOB paid", "avtomatika cancel JOB"]),
            (Reason::Quarantined, &["avtomatika retry JOB", "avtomatika skip JOB --outcome success"]),
            (Reason::Failed, &["avtomatika retry JOB", "avtomatika skip JOB --outcome success"]),
            (Reason::Finished, &[]),
            (Reason::Cancelled, &[]),
        ] {
            assert_eq!(commands(reason), expected, "{reason:?}");
        }
    }

    #[test]
    fn a_signals_name_is_one_word_of_a_shell_whatever_it_is() {
        for (name, expected) in [
            ("paid", "paid"),
            ("order/7:paid", "order/7:paid"),
            ("", "''"),
            ("--help", "'--help'"),
            ("a; rm -rf ~", "'a; rm -rf ~'"),
            ("it's $(here)\u{1b}\n", "'it'\\''s $(here)'"),
        ] {
            assert_eq!(word(name), expected);
        }
    }
}
