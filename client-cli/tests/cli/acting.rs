//! What is done to jobs that are there: signals, decisions, repair.

use avtomatika_proto::v1::{repair_jobs_request::Action, waiting_for::What, *};
use insta::assert_snapshot;

use crate::server::{JOB_ID, Script, Server, at, job};

/// A job that asks whether to pay.
fn asking() -> Job {
    let approval = WaitingForApproval {
        message: "pay 700 EUR?".into(),
        token: "0123456789abcdef0123456789abcdef".into(),
        since: at(100),
        deadline: at(3_600_100),
        decisions: vec!["approved".into(), "escalated".into(), "rejected".into()],
    };
    Job {
        waiting_for: Some(WaitingFor { what: Some(What::Approval(approval)) }),
        resumes_at: at(3_600_100),
        ..job(JobStatus::WaitingForHuman)
    }
}

fn waiting_for(status: JobStatus, what: What) -> Job {
    Job { waiting_for: Some(WaitingFor { what: Some(what) }), ..job(status) }
}

#[test]
fn get_shows_what_a_job_asks_and_the_commands_that_decide() {
    let server = Server::start(Script { jobs: vec![asking()], ..Script::default() });
    assert_snapshot!("get_asking_table", server.run(&["get", JOB_ID]));
    assert_snapshot!("get_asking_json", server.run(&["get", JOB_ID, "-o", "json"]));
}

#[test]
fn get_shows_what_else_a_job_waits_for() {
    let signal = WaitingForSignal { name: "paid: 4711".into(), since: at(0), deadline: None };
    let children = WaitingForChildren { total: 10, ended: 3, failed: 1, since: at(0) };
    for (job, words) in [
        (waiting_for(JobStatus::WaitingForEvent, What::Signal(signal)), "waits for the signal paid: 4711"),
        (
            waiting_for(JobStatus::WaitingForParallel, What::Children(children)),
            "3 of 10 children ended, 1 failed",
        ),
    ] {
        let server = Server::start(Script { jobs: vec![job], ..Script::default() });
        assert!(server.run(&["get", JOB_ID]).stdout.contains(words), "{words}");
        assert!(server.run(&["list"]).stdout.contains(words), "{words}");
    }
    let quarantined = Server::start(Script { jobs: vec![job(JobStatus::Quarantined)], ..Script::default() });
    let shown = quarantined.run(&["get", JOB_ID]).stdout;
    assert!(
        shown.contains("Failed in") && shown.contains(&format!("\n  avtomatika retry {JOB_ID}\n")),
        "{shown}"
    );
}

#[test]
fn a_signal_is_sent_as_it_was_given() {
    let server = Server::start(Script { jobs: vec![job(JobStatus::WaitingForEvent)], ..Script::default() });
    let args = ["signal", JOB_ID, "paid", "--data", "{\"amount\": 1.50}", "--id", "invoice 7"];
    let answer = server.run(&args);
    assert_eq!(answer.code, 0, "{answer}");
    assert_eq!(
        answer.stdout,
        format!("Job {JOB_ID} has the signal; it is waiting_for_event, and waits for one still.\n")
    );
    let again = server.run(&args);
    assert_eq!(
        (again.code, again.stderr.as_str()),
        (0, "A signal with this id came before; nothing has changed.\n")
    );
    let request = server.heard(|heard| heard.signalled[0].clone());
    assert_eq!(
        request,
        SignalJobRequest {
            job_id: JOB_ID.into(),
            name: "paid".into(),
            id: "invoice 7".into(),
            data: "{\"amount\": 1.50}".into(),
        }
    );
}

#[test]
fn a_decision_is_sent_for_the_question_that_was_asked() {
    let server = Server::start(Script { jobs: vec![asking()], ..Script::default() });
    let answer = server.run(&["approve", JOB_ID, "--comment", "fine", "--by", "anna"]);
    assert_eq!(
        (answer.code, answer.stdout),
        (0, format!("Job {JOB_ID}: approved; it is waiting_for_worker.\n"))
    );
    server.run(&["approve", JOB_ID, "--decision", "escalated", "--data", "{\"to\":\"board\"}"]);
    let json = server.run(&["reject", JOB_ID, "-o", "json"]).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["status"], "waiting_for_worker");
    let decided = server.heard(|heard| heard.decided.clone());
    let of = |request: &DecideApprovalRequest| (request.decision.clone(), request.data.clone());
    assert_eq!(
        decided.iter().map(of).collect::<Vec<_>>(),
        [
            ("approved".to_owned(), "{}".to_owned()),
            ("escalated".to_owned(), "{\"to\":\"board\"}".to_owned()),
            ("rejected".to_owned(), "{}".to_owned())
        ]
    );
    assert_eq!((decided[0].comment.as_str(), decided[0].by.as_str()), ("fine", "anna"));
    assert!(decided.iter().all(|request| request.token == "0123456789abcdef0123456789abcdef"));
}

#[test]
fn a_repetition_under_its_key_is_told_as_such() {
    let server = Server::start(Script { jobs: vec![job(JobStatus::Quarantined)], ..Script::default() });
    let retry = ["retry", JOB_ID, "--idempotency-key", "ticket 7"];
    assert_eq!(server.run(&retry).stderr, "");
    let again = server.run(&retry);
    let said = "This was done before under the same key; nothing has changed.\n";
    assert_eq!((again.code, again.stderr.as_str()), (0, said));
    assert_eq!(server.heard(|heard| heard.retried[0].idempotency_key.clone()), "ticket 7");
    let many = server.run(&["skip", "--all", "--outcome", "success", "--idempotency-key", "ticket 7"]);
    assert_eq!(many.code, 2, "{many}");
}

#[test]
fn one_job_is_retried_or_skipped_as_it_was_said() {
    let server = Server::start(Script { jobs: vec![job(JobStatus::Quarantined)], ..Script::default() });
    let retried = server.run(&[
        "retry",
        JOB_ID,
        "--state",
        "init",
        "--data",
        "{\"a\":1}",
        "--history",
        "{\"b\":null}",
        "--reason",
        "mended",
    ]);
    assert_eq!(
        (retried.code, retried.stdout),
        (0, format!("Job {JOB_ID} started again; it is waiting_for_worker.\n"))
    );
    server.run(&["retry", JOB_ID, "--data", "{\"a\":1}", "--replace"]);
    let skipped = server.run(&["skip", JOB_ID, "--outcome", "success", "--reason", "by hand"]);
    assert_eq!(
        (skipped.code, skipped.stdout),
        (0, format!("Job {JOB_ID} goes on; it is waiting_for_worker.\n"))
    );
    let (patched, replaced) = server.heard(|heard| (heard.retried[0].clone(), heard.retried[1].clone()));
    assert_eq!(
        patched.action.unwrap(),
        RetryAction {
            state: "init".into(),
            initial_data: String::new(),
            initial_data_patch: "{\"a\":1}".into(),
            state_history_patch: "{\"b\":null}".into(),
            reason: "mended".into(),
        }
    );
    assert_eq!(replaced.action.unwrap().initial_data, "{\"a\":1}");
    let skip = server.heard(|heard| heard.skipped[0].clone()).action.unwrap();
    assert_eq!(
        (skip.outcome.as_str(), skip.data.as_str(), skip.reason.as_str()),
        ("success", "{}", "by hand")
    );
}

fn repaired(count: u32, next_cursor: &str) -> RepairJobsResponse {
    let job_ids = (0..count).map(|n| format!("01890a5d-ac96-774b-bcce-b30209900{n:03}")).collect();
    RepairJobsResponse { count, job_ids, next_cursor: next_cursor.into(), ..RepairJobsResponse::default() }
}

#[test]
fn many_jobs_are_repaired_call_after_call() {
    let refused = RepairJobsResponse {
        refused_count: 1,
        refusals: vec![RepairRefusal {
            job_id: JOB_ID.into(),
            code: "STATE_NOT_FOUND".into(),
            message: "Blueprint \"b\" has no such state".into(),
        }],
        ..repaired(3, "")
    };
    let server = Server::start(Script { repairs: vec![repaired(2, "c"), refused], ..Script::default() });
    let args = [
        "retry",
        "--status",
        "failed,quarantined",
        "-b",
        "b",
        "-l",
        "team=a",
        "--failed-state",
        "init",
        "--error-code",
        "DISK",
        "--since",
        "2026-01-31T12:00:00Z",
    ];
    assert_snapshot!("retry_many_table", server.run(&args));
    let [first, second] = server.heard(|heard| [0, 1].map(|at| heard.repaired[at].clone()));
    let filter = first.filter.clone().unwrap();
    assert_eq!(filter.statuses, [JobStatus::Failed, JobStatus::Quarantined].map(i32::from));
    assert_eq!((filter.blueprint.as_str(), filter.labels["team"].as_str()), ("b", "a"));
    assert_eq!((filter.failed_state.as_str(), filter.error_code.as_str()), ("init", "DISK"));
    assert_eq!(filter.created_after, at(0));
    assert!(matches!(first.action, Some(Action::Retry(_))) && !first.dry_run && first.cursor.is_empty());
    assert_eq!(second, RepairJobsRequest { cursor: "c".into(), ..first });
}

#[test]
fn a_dry_run_says_how_many_and_which() {
    let script = || Script { repairs: vec![repaired(2, "")], ..Script::default() };
    let server = Server::start(script());
    assert_snapshot!(
        "skip_dry_run_table",
        server.run(&["skip", "--all", "--outcome", "success", "--dry-run"])
    );
    assert!(server.heard(|heard| heard.repaired[0].dry_run));
    let server = Server::start(script());
    let json = server.run(&["retry", "--all", "--dry-run", "-o", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("is an object");
    assert_eq!(
        (&json["count"], &json["dry_run"], json["job_ids"].as_array().unwrap().len()),
        (&2.into(), &true.into(), 2)
    );
}

#[test]
fn what_stops_a_repair_early_is_told_and_ends_with_14() {
    let stopped = RepairJobsResponse {
        stopped_by: Some(SubmitJobError {
            code: "TOO_MANY_OPEN_JOBS".into(),
            message: "100 jobs are open".into(),
            ..SubmitJobError::default()
        }),
        ..repaired(1, "c")
    };
    let server = Server::start(Script { repairs: vec![stopped], ..Script::default() });
    let answer = server.run(&["retry", "--all"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (14, "1 job started again.\n"));
    assert!(answer.stderr.starts_with("Stopped early: 100 jobs are open (TOO_MANY_OPEN_JOBS)."), "{answer}");
}
