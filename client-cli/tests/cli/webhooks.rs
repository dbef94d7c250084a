//! What `avtomatika webhooks` shows and asks for.

use avtomatika_proto::v1::*;
use insta::assert_snapshot;

use crate::server::{JOB_ID, Script, Server, at, job};

fn messages() -> Vec<WebhookMessage> {
    let message = |number: u32, status: WebhookStatus| WebhookMessage {
        id: format!("msg_{JOB_ID}_{number}"),
        r#type: "job.failed".into(),
        url: "https://example.com/hooks".into(),
        at: at(0),
        status: status.into(),
        attempts: 3,
        attempted_at: at(20_000),
        ..WebhookMessage::default()
    };
    vec![
        WebhookMessage {
            r#type: "job.approval_requested".into(),
            attempts: 0,
            attempted_at: None,
            ..message(2, WebhookStatus::Obsolete)
        },
        WebhookMessage {
            http_status: 410,
            problem: "the receiver answered 410 Gone".into(),
            ..message(5, WebhookStatus::Failed)
        },
        WebhookMessage {
            http_status: 503,
            problem: "the receiver answered 503 Service Unavailable".into(),
            due_at: at(40_000),
            give_up_at: at(86_400_000),
            ..message(7, WebhookStatus::Pending)
        },
        WebhookMessage { http_status: 204, ..message(9, WebhookStatus::Delivered) },
    ]
}

fn server(webhooks: Vec<WebhookMessage>) -> Server {
    Server::start(Script { jobs: vec![job(JobStatus::Failed)], webhooks, ..Script::default() })
}

#[test]
fn webhooks_are_shown_a_message_a_line() {
    let server = server(messages());
    assert_snapshot!("webhooks_table", server.run(&["webhooks", JOB_ID]));
    assert_snapshot!("webhooks_json", server.run(&["webhooks", JOB_ID, "-o", "json"]));
}

#[test]
fn messages_are_sent_again_by_name_or_all_that_failed() {
    let server = server(messages());
    let named = format!("msg_{JOB_ID}_9");
    let answer = server.run(&["webhooks", "redeliver", JOB_ID, &named]);
    assert_eq!(answer.code, 0, "{answer}");
    assert!(answer.stdout.contains(&named), "{answer}");
    let answer = server.run(&["webhooks", "redeliver", JOB_ID, "-o", "json"]);
    assert_eq!(answer.code, 0, "{answer}");
    let asked = server.heard(|heard| heard.redelivered.clone());
    let webhook_ids: Vec<&str> = asked.iter().map(|request| &*request.webhook_id).collect();
    assert_eq!(webhook_ids, [&*named, ""]);
}

#[test]
fn nothing_to_show_is_an_empty_answer_and_a_word_beside_it() {
    let server = server(Vec::new());
    let answer = server.run(&["webhooks", JOB_ID]);
    assert_eq!((&*answer.stdout, &*answer.stderr), ("", "The job has told no webhook anything.\n"));
    assert_eq!(server.run(&["webhooks", JOB_ID, "-o", "json"]).stdout, "[]\n");
    let answer = server.run(&["webhooks", "redeliver", JOB_ID]);
    assert_eq!(answer.stderr, "No message about this job has failed.\n");
}

#[test]
fn a_job_is_needed_and_one_that_is_not_there_is_said_to_be_missing() {
    let server = server(Vec::new());
    assert_eq!(server.run(&["webhooks"]).code, 2);
    assert_eq!(server.run(&["webhooks", "redeliver"]).code, 2);
    let other = "01890a5d-ac96-774b-bcce-b302099a8058";
    let answer = server.run(&["webhooks", other]);
    assert_eq!(answer.code, server.run(&["get", other]).code, "{answer}");
}
