//! An explanation as one sentence or two: what the job waits for, how long it has, and what is in the way.

use std::{fmt::Write as _, time::Duration};

use avtomatika_proto::{limits::NAME_BYTES_MAX, names::CODE_PREFIX};

use crate::{
    blueprint::KeyLimit,
    conductor::{AwaitedKey, ChildCounts, Explanation, Failing, Situation},
    dispatch::{Lack, Nearest, Obstacle, Standing},
    engine::{JobStatus, KeyScope, Wait},
    time::Timestamp,
};

/// Longest error message that a sentence quotes, in characters. The whole of it stands beside.
const MESSAGE_CHARS_MAX: usize = 200;

/// The explanation in words.
pub(in crate::api) fn summary(explanation: &Explanation) -> String {
    let mut text = match &explanation.situation {
        Situation::Accepted => "Accepted: it takes its first step".to_owned(),
        Situation::Changing => {
            "Something has just happened to it, and what follows is being stored: ask again".to_owned()
        }
        Situation::Worker(standing) => waiting_for_worker(explanation, standing),
        Situation::Running => running(explanation),
        Situation::Retry => retry(explanation),
        Situation::Start => format!("Not started yet: it starts {}", goes_on(explanation)),
        Situation::Timer => format!(
            "Waits in state {:?} until a point in time: it goes on {}",
            state(explanation),
            goes_on(explanation)
        ),
        Situation::Signal => signal(explanation),
        Situation::Approval { decisions } => {
            let decisions: Vec<&str> = decisions.iter().map(|decision| &**decision).collect();
            format!(
                "Waits for a human to decide in state {:?} ({}), {}{}",
                state(explanation),
                decisions.join(" or "),
                so_far(explanation),
                deadline(explanation)
            )
        }
        Situation::Keys { scope, keys } => awaited_keys(explanation, *scope, keys),
        Situation::Children { counts, running } => {
            let first = running.first().map(ToString::to_string);
            children(explanation, counts, first.as_deref())
        }
        Situation::Ended => ended(explanation),
    };
    if explanation.storage_full {
        text.push_str("; the orchestrator's disk is full, and nothing moves until there is room");
    }
    text.push('.');
    text
}

fn waiting_for_worker(explanation: &Explanation, standing: &Standing) -> String {
    let Some(attempt) = &explanation.view.job.attempt else { return String::new() };
    let task_type = &attempt.task_type;
    let function = task_type.strip_prefix(CODE_PREFIX);
    let workers = &standing.workers;
    // The one, or the many.
    let serving = |one: &str, many: &str| match workers.serving {
        1 => format!("the one worker that serves it {one}"),
        serving => format!("the {serving} workers that serve it {many}"),
    };
    let why = match standing.obstacle {
        Obstacle::Stopping => "the orchestrator is stopping and hands out nothing more".to_owned(),
        Obstacle::WorkersExpected(until) => format!(
            "{} of before the restart may still have it, and {} waited for until {}",
            count(workers.expected, "worker", "workers"),
            if workers.expected == 1 { "is" } else { "are" },
            moment(until)
        ),
        Obstacle::NoWorker if function.is_some() => "no process has it".to_owned(),
        Obstacle::NoWorker => match workers.connected {
            0 => "no worker is connected".to_owned(),
            1 => "the only connected worker does not serve it".to_owned(),
            connected => format!("none of the {connected} connected workers serves it"),
        },
        Obstacle::NoneSuits => match workers.serving {
            1 => "the one worker that serves it does not meet what the task requires".to_owned(),
            serving => format!("none of the {serving} workers that serve it meets what the task requires"),
        },
        Obstacle::WorkersSetAside => serving(
            "is set aside, because too many jobs failed on it",
            "are set aside, because too many jobs failed on them",
        ),
        Obstacle::WorkersDraining => serving("will leave soon", "will leave soon"),
        Obstacle::WorkersPaused => serving("takes no tasks at the moment", "take no tasks at the moment"),
        Obstacle::WorkersFull if workers.full == workers.serving => {
            serving("has no free slot", "have no free slot")
        }
        Obstacle::WorkersFull => {
            format!("{}: {}", serving("has no free slot", "have no free slot between them"), shares(standing))
        }
        Obstacle::Turn => "a worker is free and it is being handed out".to_owned(),
    };
    // Nobody could take it from an orchestrator that stops, and nobody comes near to having a function.
    let nearest =
        standing.nearest.as_ref().filter(|_| standing.obstacle != Obstacle::Stopping && function.is_none());
    let what = match function {
        Some(function) => format!("process that has the function {function:?}"),
        None => format!("worker that serves {task_type:?}"),
    };
    let mut text = format!(
        "Waits for a {what}, {}: {why}{}{}",
        so_far(explanation),
        nearest.map(in_brackets).unwrap_or_default(),
        ahead(standing)
    );
    if let Some(deadline) = explanation.view.job.dispatch_deadline() {
        let _ = write!(text, "; the task is given up {}", by(deadline, explanation.at));
    }
    text
}

fn shares(standing: &Standing) -> String {
    let workers = &standing.workers;
    let least = if workers.at_least { "at least " } else { "" };
    let shares = [
        (workers.full, "full"),
        (workers.paused, "paused"),
        (workers.draining, "draining"),
        (workers.set_aside, "set aside"),
        (workers.unsuited, "unsuitable"),
    ];
    let shares =
        shares.iter().filter(|(share, _)| *share > 0).map(|(share, what)| format!("{least}{share} {what}"));
    shares.collect::<Vec<_>>().join(", ")
}

fn in_brackets(nearest: &Nearest) -> String {
    let name = quoted(&nearest.worker_id);
    match &nearest.lacks {
        Lack::FreeSlot { held, slots } => format!(" ({name} holds {held} of {slots})"),
        Lack::TypeSlot { held, limit } => format!(" ({name} holds {held} of {limit} of this type)"),
        Lack::Needs(unmet) => {
            let has = unmet.has.as_deref().map_or_else(|| "nothing".to_owned(), quoted);
            let needs = cut(&unmet.needs);
            format!(" ({name} comes nearest: the task requires {} {needs}, and it has {has})", unmet.about)
        }
        Lack::Trust(until) => format!(" ({name} comes nearest: it is tried again at {})", moment(*until)),
        Lack::Credits | Lack::Permanence => format!(" ({name} comes nearest)"),
        Lack::TaskType { similar: Some(similar), .. } => {
            format!(" ({name} serves {similar:?}: is one of the two misspelt?)")
        }
        Lack::TaskType { serves, .. } => {
            let serves: Vec<String> = serves.iter().map(|name| format!("{name:?}")).collect();
            format!(
                " ({name} serves {})",
                if serves.is_empty() { "nothing".to_owned() } else { serves.join(", ") }
            )
        }
    }
}

fn ahead(standing: &Standing) -> String {
    let position = &standing.position;
    match (position.ahead, position.at_least) {
        (0, false) => "; it is the next in its queue".to_owned(),
        (ahead, false) => format!(
            "; {} before it in a queue of {}",
            count(ahead as usize, "task is", "tasks are"),
            position.length
        ),
        (ahead, true) => format!("; more than {ahead} tasks are before it in a queue of {}", position.length),
    }
}

fn running(explanation: &Explanation) -> String {
    let (Some(lease), Some(attempt)) = (&explanation.view.lease, &explanation.view.job.attempt) else {
        return String::new();
    };
    let mut text = format!(
        "{} of {:?} runs on worker {}, {}",
        of_attempts(explanation, attempt.number),
        attempt.task_type,
        quoted(&lease.worker_id),
        so_far(explanation),
    );
    if let Some(progress) = &lease.progress {
        let percent = (progress.fraction.clamp(0.0, 1.0) * 100.0).round();
        let _ = write!(text, ", and is at {percent}%");
        if !progress.message.is_empty() {
            let _ = write!(text, " ({})", cut(&progress.message));
        }
    }
    let _ = write!(text, "; the attempt is given up {}", by(lease.deadline, explanation.at));
    text
}

fn retry(explanation: &Explanation) -> String {
    let job = &explanation.view.job;
    let mut text = format!(
        "Waits for {} in state {:?}, which begins {}",
        lower(of_attempts(explanation, job.retry_count + 1)),
        job.state,
        goes_on(explanation)
    );
    if let Some(failing) = &explanation.failing {
        let _ = write!(text, "; the last one failed{}: {}", on_worker(failing), error(failing));
    }
    text
}

fn signal(explanation: &Explanation) -> String {
    let job = &explanation.view.job;
    let Some(Wait::Signal { name, .. }) = &job.wait else { return String::new() };
    let mut text = format!(
        "Waits in state {:?} for the signal {}, {}{}",
        job.state,
        quoted(name),
        so_far(explanation),
        deadline(explanation)
    );
    let misfits = job.signals.iter().filter(|signal| signal.name == *name).count();
    let others = job.signals.len() - misfits;
    if misfits > 0 {
        let came = count(misfits, "signal of this name does", "signals of this name do");
        let _ = write!(text, "; {came} not meet the state's condition");
    }
    if others > 0 {
        let _ = write!(
            text,
            "; {} kept",
            count(others, "signal of another name is", "signals of other names are")
        );
    }
    text
}

fn children(explanation: &Explanation, counts: &ChildCounts, first: Option<&str>) -> String {
    let job = &explanation.view.job;
    let waits = format!("in state {:?}, {}", job.state, so_far(explanation));
    if job.status == JobStatus::WaitingForChild {
        return match first {
            Some(child) => format!("Waits {waits}, for the end of its child job {child}"),
            None if counts.started == 0 => format!("Waits {waits}, for its child job to be started"),
            None => format!("Waits {waits}: its child job has ended, and its end is being taken up"),
        };
    }
    let ChildCounts { total, started, running, failed, .. } = *counts;
    let ended = started.saturating_sub(running);
    let mut text = format!(
        "Waits {waits}, for {}: {ended} have ended, {running} run",
        count(total as usize, "branch", "branches")
    );
    if started < total {
        let _ = write!(text, ", {} not started yet", count((total - started) as usize, "is", "are"));
    }
    if failed > 0 {
        let _ = write!(text, "; {failed} failed");
        if let Some(plan) = counts.plan {
            let _ = write!(text, ", and {} may", plan.tolerated);
        }
    }
    text
}

fn awaited_keys(explanation: &Explanation, scope: KeyScope, keys: &[AwaitedKey]) -> String {
    let what = match scope {
        KeyScope::Job => "itself".to_owned(),
        KeyScope::Task => format!("the task of state {:?}", state(explanation)),
    };
    let taken = keys.iter().filter(|key| !key.has_room);
    let taken: Vec<String> = taken.map(|key| taken_key(key, explanation.at)).collect();
    let why = match taken.is_empty() {
        true => "there is room, and it is being stored".to_owned(),
        false => taken.join("; "),
    };
    format!("Waits for a key for {what}, {}: {why}", so_far(explanation))
}

fn taken_key(key: &AwaitedKey, now: Timestamp) -> String {
    let mut text = match key.share.limit {
        KeyLimit::Concurrency(limit) => {
            let held = count(key.held as usize, "holds", "hold");
            let first = key.holders.first().map(|job| format!(" (the first is job {job})"));
            format!("{held} {:?} of {limit} at once{}", key.share.key, first.unwrap_or_default())
        }
        KeyLimit::Rate(rate) => format!(
            "{} may start with {:?} in {}{}",
            rate.count,
            key.share.key,
            span(rate.per),
            key.next_token_at.map_or_else(String::new, |at| format!(", the next one {}", by(at, now)))
        ),
    };
    let ahead = match key.ahead {
        0 => "; it is the next in line".to_owned(),
        ahead => format!(
            "; {} before it in a line of {}",
            count(ahead as usize, "other is", "others are"),
            key.waiting
        ),
    };
    text.push_str(&ahead);
    text
}

fn ended(explanation: &Explanation) -> String {
    let job = &explanation.view.job;
    let took = span(explanation.at.saturating_since(job.created_at));
    let what = match job.status {
        JobStatus::Finished => return format!("Finished in state {:?} after {took}", job.state),
        JobStatus::Cancelled => "Cancelled",
        JobStatus::Quarantined => "Quarantined",
        _ => "Failed",
    };
    let mut text = format!("{what} in state {:?} after {took}", job.state);
    let Some(failing) = &explanation.failing else { return text };
    if job.status == JobStatus::Cancelled {
        let _ = write!(text, ": {}", cut(&failing.error.message));
        return text;
    }
    if failing.state != job.state {
        let _ = write!(text, ", because state {:?} failed", failing.state);
    }
    if let Some(attempt) = failing.attempt {
        let _ = write!(text, " at attempt {attempt}");
    }
    let _ = write!(text, "{}: {}", on_worker(failing), error(failing));
    text
}

// ---- Pieces ----

fn state(explanation: &Explanation) -> &str {
    &explanation.view.job.state
}

/// `attempt 2 of 4`, as a beginning of a sentence.
fn of_attempts(explanation: &Explanation, number: u32) -> String {
    match explanation.attempts_max {
        Some(max) => format!("Attempt {number} of {max}"),
        None => format!("Attempt {number}"),
    }
}

fn lower(mut text: String) -> String {
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

fn so_far(explanation: &Explanation) -> String {
    format!("for {} so far", span(explanation.at.saturating_since(explanation.since)))
}

/// When the wait is over that has no other end.
fn goes_on(explanation: &Explanation) -> String {
    explanation.until().map_or_else(|| "at once".to_owned(), |until| by(until, explanation.at))
}

fn deadline(explanation: &Explanation) -> String {
    match explanation.until() {
        Some(until) => format!("; its time is up {}", by(until, explanation.at)),
        None => "; there is no deadline".to_owned(),
    }
}

/// `in 4.2s (at 2026-01-18T06:05:04Z)`, or `now`.
fn by(time: Timestamp, now: Timestamp) -> String {
    if time <= now {
        return "now".to_owned();
    }
    format!("in {} (at {})", span(time.saturating_since(now)), moment(time))
}

/// `2026-01-18T06:05:04Z`: to the second.
fn moment(time: Timestamp) -> String {
    let to_the_second = jiff::Timestamp::from_microsecond(time.as_micros()).map(|time| format!("{time:.0}"));
    to_the_second.unwrap_or_else(|_| time.to_string())
}

fn on_worker(failing: &Failing) -> String {
    failing.worker_id.as_ref().map_or_else(String::new, |worker| format!(" on worker {}", quoted(worker)))
}

fn error(failing: &Failing) -> String {
    format!("{}: {}", failing.error.code, cut(&failing.error.message))
}

/// A text from outside: on one line, and not longer than a sentence bears.
fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(MESSAGE_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim_end_matches('.')
        .to_owned()
}

fn quoted(name: &str) -> String {
    let shown = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
    format!("{shown:?}")
}

fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// At most two units, the larger ones: `850ms`, `4.2s`, `3m 12s`, `5h 2m`, `3d 4h`.
fn span(span: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let (seconds, ms) = (span.as_secs(), span.subsec_millis());
    match seconds {
        0 => format!("{ms}ms"),
        1..MINUTE => format!("{seconds}.{}s", ms / 100),
        MINUTE..HOUR => format!("{}m {}s", seconds / MINUTE, seconds % MINUTE),
        HOUR..DAY => format!("{}h {}m", seconds / HOUR, seconds % HOUR / MINUTE),
        DAY.. => format!("{}d {}h", seconds / DAY, seconds % DAY / HOUR),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::{next_steps, samples::sample},
        *,
    };
    use crate::conductor::Reason;

    #[test]
    fn every_reason_has_its_sentence_and_its_place_in_the_documentation() {
        let documentation = include_str!("../../../../docs/explain.md");
        let said = Reason::ALL.iter().map(|&reason| {
            let explanation = sample(reason);
            assert_eq!(explanation.reason(), reason, "the sample is one of it");
            (reason.as_str(), summary(&explanation))
        });
        let rows: Vec<String> =
            said.map(|(reason, sentence)| format!("| `{reason}` | {sentence} |")).collect();
        insta::assert_snapshot!(rows.join("\n"));
        for row in rows {
            assert!(documentation.contains(&row), "docs/explain.md does not show: {row}");
        }
    }

    #[test]
    fn a_function_is_nobody_elses_to_serve() {
        let mut explanation = sample(Reason::NoWorker);
        let job = Arc::make_mut(&mut explanation.view.job);
        if let Some(attempt) = &mut job.attempt {
            attempt.task_type = Arc::from("code:resize");
        }
        let said = summary(&explanation);
        let waits =
            "Waits for a process that has the function \"resize\", for 3m 3s so far: no process has it; ";
        assert!(said.starts_with(waits), "{said}");
        let steps = next_steps(&explanation);
        let first = (steps[0].action, steps[0].command.as_str());
        assert_eq!(first, ("start_process", "Functions::new().add(\"resize\", …)"));
    }

    #[test]
    fn a_full_disk_and_a_long_queue_are_told_beside_the_reason() {
        let mut explanation = sample(Reason::WorkersFull);
        explanation.storage_full = true;
        if let Situation::Worker(standing) = &mut explanation.situation {
            standing.position.at_least = true;
            standing.workers.at_least = true;
        }
        let sentence = summary(&explanation);
        for part in ["more than 17 tasks are before it", "at least 2 full", "the orchestrator's disk is full"]
        {
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        for (ms, text) in
            [(0, "0ms"), (850, "850ms"), (4_250, "4.2s"), (192_000, "3m 12s"), (273_600_000, "3d 4h")]
        {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }
}
