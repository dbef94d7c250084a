//! What the reading commands show, as a table and as JSON.

use std::collections::HashMap;

use avtomatika_proto::v1::*;
use insta::assert_snapshot;

use crate::server::{JOB_ID, Script, Server, at, hours_ago, job};

#[test]
fn get_shows_a_job() {
    let server = Server::start(Script { jobs: vec![job(JobStatus::Running)], ..Script::default() });
    assert_snapshot!("get_running_table", server.run(&["get", JOB_ID]));
    assert_snapshot!("get_running_json", server.run(&["get", JOB_ID, "-o", "json"]));
}

#[test]
fn get_shows_how_a_job_ended() {
    let finished = Server::start(Script { jobs: vec![job(JobStatus::Finished)], ..Script::default() });
    assert_snapshot!("get_finished_table", finished.run(&["get", JOB_ID]));
    assert_snapshot!("get_finished_json", finished.run(&["get", JOB_ID, "-o", "json"]));
    let failed = Server::start(Script { jobs: vec![job(JobStatus::Failed)], ..Script::default() });
    assert_snapshot!("get_failed_table", failed.run(&["get", JOB_ID]));
}

/// Jobs whose ages read the same whenever the test runs.
fn jobs_of_some_age() -> Vec<Job> {
    [JobStatus::Running, JobStatus::WaitingForWorker, JobStatus::Failed, JobStatus::Finished]
        .into_iter()
        .zip(1..)
        .map(|(status, hours)| Job {
            id: format!("01890a5d-ac96-774b-bcce-b30209900{hours:03}"),
            created_at: hours_ago(hours),
            updated_at: hours_ago(hours - 1),
            ..job(status)
        })
        .collect()
}

#[test]
fn list_shows_a_job_a_line() {
    let server = Server::start(Script { jobs: jobs_of_some_age(), ..Script::default() });
    // "30m ago" for the newest update may turn into "31m ago" on the way; the rest stands for hours.
    let shown = server.run(&["list"]).to_string().replace("31m ago", "30m ago");
    assert_snapshot!("list_table", shown);
}

#[test]
fn list_as_json_is_one_array_however_many_pages_there_are() {
    let jobs: Vec<_> = (0..7).map(|n| Job { priority: n, ..job(JobStatus::Finished) }).collect();
    let server = Server::start(Script { jobs, page_limit: 3, ..Script::default() });
    let answer = server.run(&["list", "--all", "-o", "json"]);
    let array: Vec<serde_json::Value> = serde_json::from_str(&answer.stdout).expect("is an array");
    assert_eq!(
        array.iter().map(|job| job["priority"].as_i64().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 6]
    );
    assert_eq!(server.heard(|heard| heard.listed.len()), 3);
}

#[test]
fn list_stops_at_its_limit_and_says_that_there_is_more() {
    let server =
        Server::start(Script { jobs: vec![job(JobStatus::Finished); 7], page_limit: 3, ..Script::default() });
    let answer = server.run(&["list", "--limit", "5"]);
    assert_eq!(answer.stdout.lines().count(), 1 + 5, "{answer}");
    assert_eq!(answer.stderr, "There are more; use --limit or --all.\n");
    let exact = server.run(&["list", "--limit", "7"]);
    assert_eq!(exact.stderr, "");
}

#[test]
fn an_empty_list_is_an_empty_answer_and_a_word_beside_it() {
    let server = Server::start(Script::default());
    assert_snapshot!("list_empty_table", server.run(&["list"]));
    assert_eq!(server.run(&["list", "-o", "json"]).stdout, "[]\n");
    assert_eq!(server.run(&["workers", "-o", "json"]).stdout, "[]\n");
    assert_eq!(server.run(&["workers"]).stderr, "No worker is connected.\n");
    assert_eq!(server.run(&["blueprints"]).stderr, "The orchestrator serves no blueprint.\n");
}

#[test]
fn list_sends_its_filters() {
    let server = Server::start(Script::default());
    server.run(&[
        "list",
        "-s",
        "failed,quarantined",
        "-b",
        "test_workflow",
        "-l",
        "team=billing",
        "-l",
        "note=a=b",
        "--since",
        "2026-01-31T12:00:00Z",
        "-n",
        "50",
    ]);
    let request = server.heard(|heard| heard.listed[0].clone());
    assert_eq!(
        request,
        ListJobsRequest {
            statuses: vec![JobStatus::Failed.into(), JobStatus::Quarantined.into()],
            blueprint: "test_workflow".into(),
            labels: HashMap::from([("team".into(), "billing".into()), ("note".into(), "a=b".into())]),
            created_after: at(0),
            created_before: None,
            page_size: 50,
            cursor: String::new(),
        }
    );
}

fn history() -> Vec<HistoryEntry> {
    let entry = |ms, event: &str| HistoryEntry { at: at(ms), event: event.into(), ..HistoryEntry::default() };
    let of_task = |ms, event: &str, attempt| HistoryEntry {
        state: "init".into(),
        task_id: "5f0c7a1e-8a57-4c59-9d3b-1f5a54b1c0de".into(),
        attempt,
        worker_id: "worker-1".into(),
        ..entry(ms, event)
    };
    let mut entries = vec![
        entry(0, "job_accepted"),
        HistoryEntry { state: "init".into(), ..entry(0, "state_entered") },
        HistoryEntry { worker_id: String::new(), ..of_task(1, "task_ready", 1) },
        HistoryEntry {
            error_code: "TRANSIENT_ERROR".into(),
            error_message: "connection reset".into(),
            duration: Some(prost_types::Duration { seconds: 0, nanos: 240_000_000 }),
            ..of_task(250, "task_failed", 1)
        },
        HistoryEntry {
            duration: Some(prost_types::Duration { seconds: 61, nanos: 0 }),
            ..of_task(62_500, "task_succeeded", 2)
        },
        HistoryEntry {
            state: "completed".into(),
            from_state: "init".into(),
            outcome: "success".into(),
            ..entry(62_500, "state_entered")
        },
        HistoryEntry { state: "completed".into(), ..entry(62_500, "job_finished") },
    ];
    for (sequence, entry) in (0..).zip(&mut entries) {
        entry.sequence = sequence;
    }
    entries
}

#[test]
fn history_is_a_timeline() {
    let script = Script { jobs: vec![job(JobStatus::Finished)], history: history(), ..Script::default() };
    let server = Server::start(script);
    assert_snapshot!("history_table", server.run(&["history", JOB_ID]));
    assert_snapshot!("history_json", server.run(&["history", JOB_ID, "-o", "json"]));
}

#[test]
fn workers_show_who_is_connected_and_how_busy() {
    let worker = |id: &str, status: WorkerStatus, running| WorkerInfo {
        worker_id: id.into(),
        worker_type: "cpu".into(),
        supported_tasks: vec!["process_data".into(), "resize".into()],
        max_concurrent_tasks: 4,
        status: status.into(),
        running_tasks: running,
        load: f64::from(running) / 4.0,
        labels: HashMap::from([("zone".into(), "a".into())]),
        resources: HashMap::from([("memory_gib".into(), 16.0)]),
        hostname: "host-1".into(),
        sdk_version: "rust/0.1.0".into(),
        connected_at: hours_ago(3),
        hot_cache: vec!["model-7".into()],
        reputation: 1.0,
        ..WorkerInfo::default()
    };
    let workers = vec![worker("worker-1", WorkerStatus::Busy, 3), worker("w2", WorkerStatus::Idle, 0)];
    let server = Server::start(Script { workers, ..Script::default() });
    assert_snapshot!("workers_table", server.run(&["workers"]));
    let restored = server.run(&["workers", "restore", "w2"]);
    assert_eq!(restored.stdout, "Worker w2 is idle; nothing is held against it.\n");
    let drained = server.run(&["workers", "drain", "worker-1"]);
    assert_eq!(
        drained.stdout,
        "Worker worker-1 gets no more tasks; it ends when the 3 that it holds are done.\n"
    );
    let idle = server.run(&["workers", "drain", "w2"]);
    assert_eq!(idle.stdout, "Worker w2 gets no more tasks; it holds none and ends.\n");
    let unknown = server.run(&["workers", "drain", "w3"]);
    assert!(unknown.stderr.contains("Worker not found: \"w3\""), "{}", unknown.stderr);
    assert!(unknown.code == 12 && unknown.stderr.contains("`avtomatika workers`"), "{unknown}");
    let unknown = server.run(&["workers", "restore", "w3"]);
    assert!(
        unknown.stdout.is_empty() && unknown.stderr.contains("Worker not found: \"w3\""),
        "{}",
        unknown.stderr
    );
    let json: Vec<serde_json::Value> =
        serde_json::from_str(&server.run(&["workers", "-o", "json"]).stdout).expect("is an array");
    assert_eq!(json[0]["status"], "busy");
    assert_eq!(json[1]["resources"]["memory_gib"], 16.0);
}

/// At a due time of the spring of 2026, when Berlin's clocks go forward between the first and the second.
fn schedule(name: &str) -> ScheduleInfo {
    let time = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
    ScheduleInfo {
        name: name.into(),
        blueprint: "report".into(),
        timing: "daily at 03:00 Europe/Berlin".into(),
        time_zone: "Europe/Berlin".into(),
        enabled: true,
        on_missed: "once".into(),
        overlap: "skip".into(),
        labels: HashMap::from([("team".into(), "billing".into())]),
        priority: 3,
        next: vec![time(1_774_663_200), time(1_774_746_000), time(1_774_832_400)],
        last_run: Some(ScheduledRun { due_at: Some(time(1_774_576_800)), job_id: JOB_ID.into() }),
        last_skip: Some(ScheduledSkip { due_at: Some(time(1_774_490_400)), reason: "overlap".into() }),
        trouble: String::new(),
    }
}

#[test]
fn schedules_show_when_they_are_due_in_their_own_time_zone() {
    let stopped = ScheduleInfo {
        timing: "every 30s".into(),
        time_zone: "UTC".into(),
        enabled: false,
        next: Vec::new(),
        last_run: None,
        last_skip: None,
        ..schedule("poll")
    };
    let stuck = ScheduleInfo {
        last_skip: None,
        trouble: "The orchestrator's disk is full".into(),
        ..schedule("stuck")
    };
    let schedules = vec![schedule("nightly"), stopped, stuck];
    let server = Server::start(Script { schedules, ..Script::default() });
    assert_snapshot!("schedules_table", server.run(&["schedules"]));
    assert_snapshot!("schedules_json", server.run(&["schedules", "-o", "json"]));
    let none = Server::start(Script::default());
    assert_eq!(none.run(&["schedules"]).stderr, "No schedule makes jobs of yours.\n");
}

fn blueprint() -> GetBlueprintResponse {
    GetBlueprintResponse {
        blueprint: Some(BlueprintInfo {
            name: "test_workflow".into(),
            version: 3,
            endpoint: "/jobs/test".into(),
            start_state: "init".into(),
            states: vec!["init".into(), "completed".into(), "failed".into()],
            task_types: vec!["process_data".into()],
        }),
        definition: r#"{"blueprint":"test_workflow","states":{"init":{"start":true}}}"#.into(),
        graph_dot: "digraph test_workflow {\n  init -> completed [label=success]\n}\n".into(),
        graph: "what was asked for\n".into(),
    }
}

#[test]
fn blueprints_are_listed_shown_and_drawn() {
    let server = Server::start(Script { blueprints: vec![blueprint()], ..Script::default() });
    assert_snapshot!("blueprints_table", server.run(&["blueprints"]));
    assert_snapshot!("blueprints_json", server.run(&["blueprints", "-o", "json"]));
    assert_snapshot!("blueprint_show_table", server.run(&["blueprint", "show", "test_workflow"]));
    assert_snapshot!(
        "blueprint_show_json",
        server.run(&["blueprint", "show", "test_workflow", "-o", "json"])
    );
    assert_eq!(server.run(&["blueprint", "graph", "test_workflow"]).stdout, "what was asked for\n");
}

#[test]
fn a_jobs_path_is_drawn_in_the_form_that_was_asked_for() {
    let server = Server::start(Script { jobs: vec![job(JobStatus::Finished)], ..Script::default() });
    for (form, shown) in [("dot", "Dot"), ("mermaid", "Mermaid"), ("svg", "Svg")] {
        let drawn = server.run(&["graph", JOB_ID, "--format", form]);
        assert_eq!(drawn.stdout, format!("a graph as {shown}\n"), "{drawn}");
        let json = server.run(&["graph", JOB_ID, "--format", form, "-o", "json"]).stdout;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["format"], form);
    }
    assert_eq!(server.run(&["graph", JOB_ID]).stdout, "a graph as Dot\n");
}

#[test]
fn stats_count_everything() {
    let stats = GetStatsResponse {
        jobs: HashMap::from([("running".into(), 2), ("finished".into(), 4711)]),
        connected_workers: 2,
        ready_tasks: HashMap::from([("resize".into(), 7), ("process_data".into(), 1)]),
        running_tasks: 3,
        started_at: hours_ago(5),
        server_version: "0.1.0".into(),
        store: "sqlite".into(),
    };
    let server = Server::start(Script { stats, ..Script::default() });
    assert_snapshot!("stats_table", server.run(&["stats"]));
    let json: serde_json::Value =
        serde_json::from_str(&server.run(&["stats", "-o", "json"]).stdout).expect("is an object");
    assert_eq!(json["jobs"]["finished"], 4711);
    assert_eq!(json["ready_tasks"]["resize"], 7);
}

#[test]
fn cancel_ends_a_job_and_passes_the_reason_on() {
    let server = Server::start(Script { jobs: vec![job(JobStatus::Running)], ..Script::default() });
    let answer = server.run(&["cancel", JOB_ID, "--reason", "ordered twice"]);
    assert_eq!((answer.code, answer.stdout), (0, format!("Job {JOB_ID} cancelled.\n")));
    let request = server.heard(|heard| heard.cancelled[0].clone());
    assert_eq!(request, CancelJobRequest { job_id: JOB_ID.into(), reason: "ordered twice".into() });
    let json = server.run(&["cancel", JOB_ID, "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["status"], "cancelled");
}
