//! A job's history as people read it: state by state, with how long each took, and what happened in it in words.

use std::{fmt::Write as _, time::Duration};

use anstyle::{AnsiColor, Style};
use avtomatika_proto::v1::HistoryEntry;
use jiff::Timestamp;

use super::{
    text::clean,
    time::{between, exact, to_wire},
};
use crate::span::Span;

/// Columns of the bar that stands for all the time there was.
const BAR: usize = 24;

/// Columns in which the time since the start stands.
const CLOCK: usize = 10;

/// What happened between the entering of a state and the next.
struct Visit<'a> {
    state: &'a str,
    entries: &'a [HistoryEntry],
    took: Duration,
}

/// The history, oldest first. `now` is the end of what has no end yet.
pub fn page(entries: &[HistoryEntry], now: Timestamp) -> String {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return String::new() };
    let ended = has_ended(last);
    let end = if ended { last.at } else { Some(to_wire(now)) };
    let total = between(first.at.as_ref(), end.as_ref()).map_or(Duration::ZERO, |span| span.0);
    let visits = visits(entries, end.as_ref());
    let width = visits.iter().map(|visit| clean(visit.state).chars().count()).max().unwrap_or(0);
    let so_far = if ended { "" } else { " so far" };
    let mut page = format!("Accepted {}, {}{so_far}\n", exact(first.at.as_ref()), Span(total));
    for visit in visits {
        let _ = writeln!(page, "\n{}", heading(&visit, width, total));
        for entry in visit.entries {
            let since = between(first.at.as_ref(), entry.at.as_ref())
                .map_or(String::new(), |span| format!("+{span}"));
            let style = style(entry);
            let words = clean(&words(entry)).into_owned();
            let _ = writeln!(page, "{since:>CLOCK$}  {style}{words}{style:#}");
        }
    }
    page
}

fn has_ended(entry: &HistoryEntry) -> bool {
    matches!(entry.event.as_str(), "job_finished" | "job_failed" | "job_cancelled" | "job_quarantined")
}

/// The history cut where states are entered. What came before the first belongs to it.
fn visits<'a>(entries: &'a [HistoryEntry], end: Option<&prost_types::Timestamp>) -> Vec<Visit<'a>> {
    let entered = |entry: &HistoryEntry| entry.event == "state_entered";
    let mut cuts: Vec<usize> = (0..entries.len()).filter(|&at| entered(&entries[at])).skip(1).collect();
    cuts.push(entries.len());
    let mut from = 0;
    let visit = |to: usize| {
        let visit = &entries[from..to];
        let left = entries.get(to).map_or(end, |next| next.at.as_ref());
        let took = between(visit.first().and_then(|first| first.at.as_ref()), left);
        let state = visit.iter().rev().find(|entry| entered(entry)).or(visit.last());
        from = to;
        Visit {
            state: state.map_or("", |entry| &entry.state),
            entries: visit,
            took: took.map_or(Duration::ZERO, |span| span.0),
        }
    };
    cuts.into_iter().map(visit).collect()
}

/// The state, how long the job was in it, and which share of all that was.
fn heading(visit: &Visit<'_>, width: usize, total: Duration) -> String {
    let share = if total.is_zero() { 0.0 } else { visit.took.as_secs_f64() / total.as_secs_f64() };
    let share = share.clamp(0.0, 1.0);
    let filled = (share * BAR as f64).round() as usize;
    let bar = "█".repeat(filled) + &"░".repeat(BAR - filled);
    let bold = Style::new().bold();
    let (state, took) = (clean(visit.state), Span(visit.took).to_string());
    format!("{bold}{state:<width$}{bold:#}  {took:>8}  {bar} {:>3.0}%", share * 100.0)
}

fn style(entry: &HistoryEntry) -> Style {
    let colour = match entry.event.as_str() {
        "job_finished" | "task_succeeded" => AnsiColor::Green,
        "job_failed" | "task_failed" | "task_timed_out" => AnsiColor::Red,
        "worker_lost" | "job_quarantined" | "retry_scheduled" => AnsiColor::Yellow,
        "job_retried" | "state_skipped" | "job_migrated" | "approval_decided" => AnsiColor::Cyan,
        _ => return Style::new(),
    };
    colour.on_default()
}

/// What happened, in words: what, on which worker, for how long, why, and who wanted it.
fn words(entry: &HistoryEntry) -> String {
    let mut words = what(entry);
    let held = matches!(
        entry.event.as_str(),
        "task_succeeded"
            | "task_failed"
            | "task_timed_out"
            | "task_cancelled"
            | "task_returned"
            | "worker_lost"
    );
    if held && !entry.worker_id.is_empty() {
        let _ = write!(words, " on {}", entry.worker_id);
    }
    if held && let Some(span) = span(entry) {
        let _ = write!(words, " after {span}");
    }
    match (entry.error_code.as_str(), entry.error_message.as_str()) {
        ("", "") => {}
        ("", text) | (text, "") => drop(write!(words, ": {text}")),
        (code, message) => drop(write!(words, ": {code}: {message}")),
    }
    if !entry.by.is_empty() {
        let _ = write!(words, ", by {}", entry.by);
    }
    let is_reason = matches!(
        entry.event.as_str(),
        "approval_decided" | "job_retried" | "state_skipped" | "job_migrated" | "job_cancelled"
    );
    if is_reason && !entry.detail.is_empty() {
        let _ = write!(words, ": {}", entry.detail);
    }
    words
}

fn what(entry: &HistoryEntry) -> String {
    let HistoryEntry { attempt, outcome, detail, from_state, .. } = entry;
    let within = span(entry).map_or(String::new(), |span| format!(", within {span}"));
    match entry.event.as_str() {
        "job_accepted" => "accepted".to_owned(),
        "state_entered" => match (from_state.as_str(), outcome.as_str()) {
            ("", _) => format!("{} entered", entry.state),
            (from, "") => format!("{from} → {}", entry.state),
            (from, outcome) => format!("{from} → {} on {outcome}", entry.state),
        },
        "task_ready" => format!("attempt {attempt} is ready for a worker"),
        "task_succeeded" if outcome == "success" || outcome.is_empty() => {
            format!("attempt {attempt} succeeded")
        }
        "task_succeeded" => format!("attempt {attempt} ended as {outcome}"),
        "task_failed" if *attempt == 0 => "the task failed before it could be handed out".to_owned(),
        "task_failed" => format!("attempt {attempt} failed"),
        "task_timed_out" if entry.worker_id.is_empty() => {
            format!("attempt {attempt} found no worker in time")
        }
        "task_timed_out" => format!("attempt {attempt} took too long"),
        "task_cancelled" => format!("attempt {attempt} was given up"),
        "task_returned" => format!("attempt {attempt} was given back, because its worker stops,"),
        "worker_lost" => format!("attempt {attempt} was lost with its worker,"),
        "checkpoint_saved" => format!("attempt {attempt} saved how far it is"),
        "retry_scheduled" => match span(entry) {
            Some(span) => format!("attempt {attempt} follows in {span}"),
            None => format!("attempt {attempt} follows"),
        },
        "wait_started" if detail.is_empty() => match span(entry) {
            Some(span) => format!("waits for {span}"),
            None => "waits".to_owned(),
        },
        "wait_started" if is_about_keys(entry) => format!("waits for {detail}"),
        "wait_started" => format!("waits for the signal {detail}{within}"),
        "wait_ended" if outcome.is_empty() => "the wait is over".to_owned(),
        "wait_ended" => "what it waited for did not come in time".to_owned(),
        "signal_kept" => format!("the signal {detail} came and is kept"),
        "signal_received" => format!("the signal {detail} is taken"),
        "approval_requested" if detail.is_empty() => format!("a human is asked{within}"),
        "approval_requested" => format!("a human is asked{within}: {detail}"),
        "approval_decided" => format!("decided: {outcome}"),
        "children_started" => format!("children started: {detail}"),
        "children_ended" => format!("children ended: {detail}"),
        "job_retried" => "started again".to_owned(),
        "state_skipped" => format!("skipped with {outcome}"),
        "job_migrated" => "moved to another version".to_owned(),
        "job_cancelled" => "the job was cancelled".to_owned(),
        "job_finished" => "the job finished".to_owned(),
        "job_failed" => "the job failed".to_owned(),
        "job_quarantined" => "the job was quarantined".to_owned(),
        // Of a newer orchestrator.
        other if detail.is_empty() => other.replace('_', " "),
        other => format!("{}: {detail}", other.replace('_', " ")),
    }
}

/// Whether what is waited for is keys (`key "k2"`, or several of these) and not a signal. The name of a signal that a blueprint
/// spells out has neither spaces nor quotes. One that is computed may have any, and then only a deadline tells it from keys, which are
/// waited for without one.
fn is_about_keys(entry: &HistoryEntry) -> bool {
    entry.detail.starts_with("key \"") && entry.detail.ends_with('"') && entry.duration.is_none()
}

fn span(entry: &HistoryEntry) -> Option<Span> {
    entry.duration.and_then(|span| Duration::try_from(span).ok()).map(Span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(second: i64, event: &str, state: &str) -> HistoryEntry {
        HistoryEntry {
            at: Some(prost_types::Timestamp { seconds: 1_769_860_800 + second, nanos: 0 }),
            event: event.into(),
            state: state.into(),
            ..Default::default()
        }
    }

    #[test]
    fn every_event_is_told_with_its_cause_its_worker_and_who_wanted_it() {
        type Change = fn(&mut HistoryEntry);
        let of = |change: Change, event: &str| {
            let mut entry = entry(0, event, "init");
            entry.attempt = 2;
            change(&mut entry);
            words(&entry)
        };
        fn seconds(seconds: i64) -> Option<prost_types::Duration> {
            Some(prost_types::Duration { seconds, nanos: 0 })
        }
        let cases: [(&str, Change, &str); 16] = [
            ("task_ready", |_| {}, "attempt 2 is ready for a worker"),
            (
                "task_succeeded",
                |e| (e.worker_id, e.duration) = ("w1".into(), seconds(3)),
                "attempt 2 succeeded on w1 after 3.0s",
            ),
            ("task_succeeded", |e| e.outcome = "needs_review".into(), "attempt 2 ended as needs_review"),
            (
                "task_failed",
                |e| (e.error_code, e.error_message) = ("X".into(), "no".into()),
                "attempt 2 failed: X: no",
            ),
            ("task_timed_out", |_| {}, "attempt 2 found no worker in time"),
            ("worker_lost", |e| e.worker_id = "w1".into(), "attempt 2 was lost with its worker, on w1"),
            (
                "wait_started",
                |e| (e.detail, e.duration) = ("paid".into(), seconds(60)),
                "waits for the signal paid, within 1m 0s",
            ),
            ("wait_started", |e| e.detail = "key".into(), "waits for the signal key"),
            ("wait_started", |e| e.detail = r#"key "k2""#.into(), r#"waits for key "k2""#),
            (
                "wait_started",
                |e| e.detail = r#"key "report:acme", key "mail""#.into(),
                r#"waits for key "report:acme", key "mail""#,
            ),
            (
                "wait_started",
                |e| (e.detail, e.duration) = (r#"key "k2""#.into(), seconds(60)),
                r#"waits for the signal key "k2", within 1m 0s"#,
            ),
            ("wait_ended", |e| e.outcome = "timeout".into(), "what it waited for did not come in time"),
            (
                "approval_decided",
                |e| (e.outcome, e.by, e.detail) = ("approved".into(), "anna".into(), "in the budget".into()),
                "decided: approved, by anna: in the budget",
            ),
            (
                "job_retried",
                |e| (e.by, e.detail) = ("acme".into(), "the disk is mended".into()),
                "started again, by acme: the disk is mended",
            ),
            (
                "state_entered",
                |e| (e.from_state, e.outcome) = ("before".into(), "success".into()),
                "before → init on success",
            ),
            ("of_a_newer_time", |e| e.detail = "something".into(), "of a newer time: something"),
        ];
        for (event, change, expected) in cases {
            assert_eq!(of(change, event), expected);
        }
    }

    #[test]
    fn a_job_that_goes_on_is_shown_up_to_now_and_cannot_command_the_terminal() {
        let mut fetch = entry(0, "state_entered", "fetch\u{1b}[2J");
        fetch.sequence = 1;
        let moved = HistoryEntry { from_state: "fetch".into(), ..entry(30, "state_entered", "wait") };
        let entries = [entry(0, "job_accepted", "fetch"), fetch, moved];
        let now = Timestamp::from_second(1_769_860_800 + 40).expect("is a time");
        let shown = anstream::adapter::strip_str(&page(&entries, now)).to_string();
        assert_eq!(
            shown,
            "Accepted 2026-01-31T12:00:00.000Z, 40.0s so far\n\n\
             fetch[2J     30.0s  ██████████████████░░░░░░  75%\n      +0ms  accepted\n      +0ms  fetch[2J entered\n\n\
             wait         10.0s  ██████░░░░░░░░░░░░░░░░░░  25%\n    +30.0s  fetch → wait\n"
        );
        assert_eq!(page(&[], now), "");
    }
}
