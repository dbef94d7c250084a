//! The page: what is on it, and that it is what `docs/operating.md` says.

use std::collections::{BTreeMap, BTreeSet};

use avtomatika_proto::JobId;

use super::*;
use crate::{
    conductor::{Measures, QueueMeasure},
    store::{StoreMeasures, conformance::Samples},
    time::Timestamp,
};

fn name(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn attempt(end: AttemptEnd) -> Tally {
    let held_for = Some(Duration::from_millis(20));
    let attempt = Some(EndedAttempt { task_type: name("resize"), end, held_for });
    Tally { moves: 2, retries: 1, attempt }
}

fn measures() -> Measures {
    let queue = QueueMeasure { ready: 7, oldest_age: Duration::from_secs(3), workers: 2 };
    Measures {
        open_jobs: BTreeMap::from([(JobStatus::Running, 2)]),
        resting_jobs: 4,
        queues: BTreeMap::from([(name("resize"), queue)]),
        running_tasks: 2,
        sessions: BTreeMap::from([("idle", 1), ("expected", 5)]),
        free_slots: 3,
        undelivered_notices: 3,
        ..Measures::default()
    }
}

/// Figures to which everything has happened once.
fn lively() -> Metrics {
    let metrics = Metrics::new();
    let mut job = Samples::new(1).job("acme");
    job.blueprint = name("test_workflow");
    job.status = JobStatus::Finished;
    metrics.job_submitted(&job.blueprint);
    metrics.job_deduplicated();
    metrics.changed(&job, &attempt(AttemptEnd::Success));
    metrics.pruned(7);
    for adopted in [false, true] {
        let waited = Duration::from_millis(1);
        metrics.handed(&Handed {
            job_id: JobId::from_bytes([1; 16]),
            task_type: name("resize"),
            waited,
            adopted,
        });
    }
    metrics.result_applied();
    metrics.result_refused("duplicate");
    metrics.worker_lost();
    metrics.webhook_attempt("delivered");
    metrics.schedule_due("made");
    metrics.committed(3, Duration::from_millis(2));
    metrics.connection_refused();
    metrics.http_request(404);
    metrics.grpc_request(Code::NotFound);
    metrics.request_refused(ErrorCode::JobNotFound);
    let store = StoreMeasures { journal_capacity_bytes: 16, ..StoreMeasures::default() };
    metrics.read_process();
    metrics.set_present(&Present {
        measures: Some(measures()),
        store: Some(store),
        mailbox: 9,
        untold: 6,
        storage_full: true,
    });
    metrics
}

#[test]
fn what_happened_is_on_the_page() {
    let page = lively().render();
    for line in [
        "avtomatika_jobs_submitted_total{blueprint=\"test_workflow\"} 1",
        "avtomatika_jobs_deduplicated_total 1",
        "avtomatika_job_transitions_total{blueprint=\"test_workflow\"} 2",
        "avtomatika_jobs_ended_total{blueprint=\"test_workflow\",status=\"finished\"} 1",
        "avtomatika_jobs_ended_total{blueprint=\"test_workflow\",status=\"failed\"} 0",
        "avtomatika_jobs_pruned_total 7",
        "avtomatika_task_attempts_total{task_type=\"resize\",outcome=\"success\"} 1",
        "avtomatika_task_attempts_total{task_type=\"resize\",outcome=\"lost\"} 0",
        "avtomatika_task_retries_total{task_type=\"resize\"} 1",
        "avtomatika_task_run_seconds_count{task_type=\"resize\"} 1",
        "avtomatika_task_dispatch_seconds_count{task_type=\"resize\"} 1",
        "avtomatika_tasks_adopted_total 1",
        "avtomatika_results_refused_total{reason=\"duplicate\"} 1",
        "avtomatika_schedule_due_total{outcome=\"made\"} 1",
        "avtomatika_webhook_attempts_total{outcome=\"delivered\"} 1",
        "avtomatika_commit_seconds_count 1",
        "avtomatika_commit_batch_size_sum 3.0",
        "avtomatika_requests_total{protocol=\"http\",class=\"4xx\"} 1",
        "avtomatika_requests_total{protocol=\"grpc\",class=\"caller_error\"} 1",
        "avtomatika_requests_refused_total{code=\"JOB_NOT_FOUND\"} 1",
        "avtomatika_jobs{status=\"running\"} 2",
        "avtomatika_jobs{status=\"pending\"} 0",
        "avtomatika_tasks_ready{task_type=\"resize\"} 7",
        "avtomatika_tasks_ready_oldest_age_seconds{task_type=\"resize\"} 3.0",
        "avtomatika_task_type_workers{task_type=\"resize\"} 2",
        "avtomatika_sessions{state=\"expected\"} 5",
        "avtomatika_workers_connected 1",
        "avtomatika_worker_slots{state=\"free\"} 3",
        "avtomatika_webhooks_pending 3",
        "avtomatika_storage_full 1",
        "avtomatika_mailbox_requests 9",
        "avtomatika_jobs_untold_total 6",
        "avtomatika_webhook_attempts_total{outcome=\"retried\"} 0",
        "avtomatika_journal_capacity_bytes 16",
        "# EOF",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[test]
fn what_is_no_more_reads_as_none_and_what_was_not_measured_stays() {
    let metrics = lively();
    metrics.set_present(&Present { measures: Some(Measures::default()), ..Present::default() });
    let page = metrics.render();
    assert!(page.contains("avtomatika_tasks_ready{task_type=\"resize\"} 0\n"), "{page}");
    assert!(page.contains("avtomatika_conductor_responsive 1\n"));
    metrics.set_present(&Present { measures: Some(measures()), ..Present::default() });
    metrics.set_present(&Present::default());
    let page = metrics.render();
    assert!(page.contains("avtomatika_tasks_ready{task_type=\"resize\"} 7\n"));
    assert!(page.contains("avtomatika_conductor_responsive 0\n"));
}

#[test]
fn no_caller_can_grow_the_page() {
    let metrics = lively();
    for n in 0..2_000 {
        metrics.job_submitted(&name(&format!("blueprint-{n}")));
        metrics.changed(
            &Samples::new(1).job("acme"),
            &Tally {
                attempt: Some(EndedAttempt {
                    task_type: name(&format!("type-{n}")),
                    end: AttemptEnd::Custom,
                    held_for: None,
                }),
                ..Tally::default()
            },
        );
    }
    // Names that only workers know.
    let queues = (0..2_000)
        .map(|n| (name(&format!("made-up-{n}")), QueueMeasure { workers: 1, ..QueueMeasure::default() }));
    let announced = Measures { queues: queues.collect(), ..Measures::default() };
    metrics.set_present(&Present { measures: Some(announced), ..Present::default() });
    let page = metrics.render();
    let series = |start: &str| page.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(series("avtomatika_jobs_submitted_total{"), NAMES_MAX + 1);
    assert_eq!(series("avtomatika_task_retries_total{"), NAMES_MAX + 1);
    assert!(page.contains("avtomatika_jobs_submitted_total{blueprint=\"other\"} 1801\n"), "{page}");
    assert!(!page.contains("made-up"));
}

#[test]
fn the_present_is_measured_once_for_many_readers() {
    let metrics = Metrics::new();
    assert!(metrics.may_measure());
    assert!(!metrics.may_measure(), "somebody does");
    metrics.measured();
    assert!(!metrics.may_measure(), "the figures are fresh");
}

#[test]
fn every_status_has_a_class() {
    let metrics = Metrics::new();
    for status in [0, 99, 100, 599, 600, u16::MAX] {
        metrics.http_request(status);
    }
}

#[test]
fn a_decision_adds_what_its_entries_say() {
    use crate::engine::{Attempt, HistoryEvent};
    let mut samples = Samples::new(1);
    let mut job = samples.job("acme");
    job.attempt = Some(Attempt {
        task_id: avtomatika_proto::TaskId::from_random(1),
        task_type: name("resize"),
        needs: None,
        number: 1,
        ready_at: Timestamp::default(),
    });
    let entry = |event, outcome: Option<&str>, from: Option<&str>| crate::engine::HistoryEntry {
        sequence: 0,
        at: Timestamp::default(),
        event,
        state: name("init"),
        from_state: from.map(Arc::from),
        outcome: outcome.map(Arc::from),
        task_id: None,
        attempt: None,
        worker_id: None,
        error: None,
        duration: None,
        by: None,
        detail: None,
    };
    let entries = [
        entry(HistoryEvent::JobAccepted, None, None),
        entry(HistoryEvent::StateEntered, None, None),
        entry(HistoryEvent::TaskSucceeded, Some("needs_review"), None),
        entry(HistoryEvent::StateEntered, None, Some("init")),
    ];
    let tally = Tally::of(&job, &entries);
    assert_eq!((tally.moves, tally.retries), (1, 0));
    assert_eq!(tally.attempt.unwrap().end, AttemptEnd::Custom);
    let entries = [
        entry(HistoryEvent::TaskFailed, Some("failure"), None),
        entry(HistoryEvent::RetryScheduled, None, None),
    ];
    let tally = Tally::of(&job, &entries);
    assert_eq!((tally.retries, tally.attempt.unwrap().end), (1, AttemptEnd::Failure));
}

/// Name on the page, type and labels of everything that is there.
fn families(page: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    let mut current = (String::new(), String::new());
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let suffix = match kind {
                "counter" => "_total",
                _ => "",
            };
            current = (format!("{name}{suffix}"), kind.to_owned());
            families.insert(current.0.clone(), (current.1.clone(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'))
                .map_or("", |(labels, _)| labels);
            let keys = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(key, _)| key);
            let family: &mut (String, BTreeSet<String>) = families.get_mut(&current.0).unwrap();
            family.1.extend(keys.filter(|key| *key != "le").map(str::to_owned));
        }
    }
    families
}

#[test]
fn the_table_in_the_documents_is_what_the_page_shows() {
    let metrics = lively();
    let mut shown = families(&metrics.render());
    for name in metrics.names() {
        let is_shown = shown.keys().any(|shown| shown == name || shown.starts_with(&format!("{name}_")));
        assert!(is_shown, "{name} is registered, and this test does not touch it");
    }
    let document = include_str!("../../../docs/operating.md");
    for line in
        document.lines().filter(|line| line.starts_with("| `avtomatika_") || line.starts_with("| `process_"))
    {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, meaning, _] = cells[..] else { panic!("{line}: not four cells") };
        let name = name.trim_matches('`');
        let (found_kind, found_labels) = shown.remove(name).unwrap_or_else(|| panic!("nothing shows {name}"));
        assert_eq!(kind, found_kind, "{name}");
        let labels: BTreeSet<String> = labels
            .split(", ")
            .filter(|label| !label.is_empty())
            .map(|label| label.trim_matches('`').to_owned())
            .collect();
        assert_eq!(labels, found_labels, "{name}");
        assert!(meaning.len() > 10, "{name} is not explained");
    }
    assert!(shown.is_empty(), "docs/operating.md does not tell of {:?}", shown.keys());
}
