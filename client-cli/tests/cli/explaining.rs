//! What `explain` shows: the sentence, the facts, what can be done.

use avtomatika_proto::v1::{explanation::Detail, *};
use insta::assert_snapshot;

use crate::server::{JOB_ID, Script, Server, at, job};

fn explained(status: JobStatus, explanation: Explanation) -> Server {
    Server::start(Script { jobs: vec![job(status)], explanation, ..Script::default() })
}

#[test]
fn a_job_that_waits_for_a_full_worker() {
    let nearest = NearestWorker {
        worker_id: "imaging-1".into(),
        lacks: "free_slot".into(),
        held_tasks: 4,
        slots: 4,
        ..Default::default()
    };
    let queue = QueueDetail {
        task_type: "resize".into(),
        queue_length: 20_000,
        ahead: 4096,
        ahead_at_least: true,
        dispatch_deadline: at(60_000),
        connected_workers: 3,
        serving_workers: 2,
        full_workers: 1,
        draining_workers: 1,
        nearest: Some(nearest),
        ..Default::default()
    };
    let step = NextStep {
        action: "cancel".into(),
        what: "end the job".into(),
        command: format!("avtomatika cancel {JOB_ID}"),
    };
    let server = explained(
        JobStatus::WaitingForWorker,
        Explanation {
            reason: ExplanationReason::WorkersFull.into(),
            summary: "Waits for a worker that serves \"resize\".\u{1b}[31m".into(),
            since: at(10),
            until: at(60_000),
            attempts_max: 4,
            detail: Some(Detail::Queue(queue)),
            next_steps: vec![step],
            ..Default::default()
        },
    );
    assert_snapshot!("explain_queue_table", server.run(&["explain", JOB_ID]));
    assert_snapshot!("explain_queue_json", server.run(&["explain", JOB_ID, "-o", "json"]));
}

#[test]
fn a_job_that_failed() {
    let failure = LastFailure {
        state: "init".into(),
        attempt: 4,
        worker_id: "worker-1".into(),
        error_code: "TRANSIENT_ERROR".into(),
        error_message: "the disk\nis on fire".into(),
        at: at(1_200),
    };
    let server = explained(
        JobStatus::Failed,
        Explanation {
            reason: ExplanationReason::Failed.into(),
            summary: "Failed in state \"failed\" after 1.2s.".into(),
            since: at(1_250),
            last_failure: Some(failure),
            ..Default::default()
        },
    );
    assert_snapshot!("explain_failed_table", server.run(&["explain", JOB_ID]));
    assert_snapshot!("explain_failed_json", server.run(&["explain", JOB_ID, "-o", "json"]));
}

#[test]
fn children_humans_and_signals() {
    let children = ChildrenDetail {
        total: 100,
        started: 10,
        ended: 6,
        failed: 1,
        max_parallel: 4,
        tolerated: 5,
        running_job_ids: vec!["01890a5d-ac96-774b-bcce-b302099a8058".into()],
    };
    let approval = ApprovalDetail {
        message: "Refund 40?".into(),
        decisions: vec!["approved".into(), "rejected".into()],
    };
    let kept = vec![
        KeptSignal { name: "paid".into(), at: at(20), same_name: true },
        KeptSignal { name: "other".into(), at: at(30), same_name: false },
    ];
    let event = EventDetail { name: "paid".into(), kept };
    let mut pages = String::new();
    for (status, reason, detail) in [
        (JobStatus::WaitingForParallel, ExplanationReason::Branches, Detail::Children(children)),
        (JobStatus::WaitingForHuman, ExplanationReason::Human, Detail::Approval(approval)),
        (JobStatus::WaitingForEvent, ExplanationReason::Event, Detail::Event(event)),
    ] {
        let explanation = Explanation {
            reason: reason.into(),
            summary: "Waits.".into(),
            since: at(10),
            detail: Some(detail),
            ..Default::default()
        };
        let server = explained(status, explanation);
        for format in ["table", "json"] {
            pages += &server.run(&["explain", JOB_ID, "-o", format]).stdout;
            pages += "\n";
        }
    }
    assert_snapshot!("explain_waits", pages);
}
