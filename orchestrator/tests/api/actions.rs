//! What is done to jobs that are there: signals, decisions, repair; by REST and by gRPC, and with the token of an approval.

use avtomatika_proto::{ErrorCode, v1};
use serde_json::{Value, json};

use crate::{
    grpc::{Caller, error},
    support::{ALICE, BOB, Server},
};

const UNKNOWN_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

impl Server {
    /// A job of Alice's with this input, as it stands when nothing moves any more.
    async fn job_of(&self, blueprint: &str, initial_data: Value) -> String {
        let body =
            json!({ "blueprint": blueprint, "initial_data": initial_data, "labels": { "of": "test" } });
        self.post("/api/v1/jobs", &body.to_string()).await.text("job_id")
    }

    async fn act(&self, id: &str, verb: &str, body: &Value) -> (u16, Value) {
        let answer = self.post(&format!("/api/jobs/{id}/{verb}"), &body.to_string()).await;
        (answer.status, answer.json())
    }

    async fn shown(&self, id: &str) -> Value {
        self.get(&format!("/api/jobs/{id}")).await.json()
    }

    async fn by_token(&self, id: &str, body: &Value) -> (u16, Value) {
        let path = format!("/_public/webhooks/approval/{id}");
        let answer = self.send("POST", &path, &[], &body.to_string()).await;
        (answer.status, answer.json())
    }

    /// What happened to the job, in short.
    async fn told(&self, id: &str) -> Vec<String> {
        let history = self.get(&format!("/api/jobs/{id}/history")).await.json();
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("-").to_owned();
        let line = |entry: &Value| ["event", "outcome", "by", "detail"].map(|key| text(entry, key)).join(" ");
        history["history"].as_array().unwrap().iter().map(line).collect()
    }
}

/// What a refusal says.
fn refusal(body: &Value) -> (&str, &str) {
    (body["code"].as_str().unwrap_or_default(), body["error"].as_str().unwrap_or_default())
}

fn token_of(job: &Value) -> String {
    job["waiting_for"]["approval"]["token"].as_str().unwrap_or_else(|| panic!("no token in {job}")).to_owned()
}

const VERBS: [(&str, &str); 6] = [
    ("signal", r#"{"name": "paid"}"#),
    ("decide", r#"{"decision": "approved"}"#),
    ("approve", ""),
    ("reject", ""),
    ("retry", ""),
    ("skip", r#"{"outcome": "success"}"#),
];

#[tokio::test]
async fn nobody_can_do_anything_to_a_job_that_is_not_his_own_or_tell_it_from_none() {
    let server = Server::start().await;
    for blueprint in ["ask", "listen", "fragile"] {
        let id = server.job_of(blueprint, json!({ "amount": 1 })).await;
        let before = server.shown(&id).await;
        for (verb, body) in VERBS {
            let of_alice = server.by(BOB, "POST", &format!("/api/jobs/{id}/{verb}"), body).await;
            let of_nobody = server.by(BOB, "POST", &format!("/api/v1/jobs/{UNKNOWN_ID}/{verb}"), body).await;
            assert_eq!((of_alice.status, of_alice.error().as_str()), (404, "Job not found"), "{verb}");
            assert_eq!((of_alice.status, &of_alice.body), (of_nobody.status, &of_nobody.body), "{verb}");
        }
        let repaired = server.by(BOB, "POST", "/api/jobs/repair", r#"{"retry": {}}"#).await;
        assert_eq!(repaired.json()["count"], 0);
        assert_eq!(server.shown(&id).await, before, "{blueprint}");
    }
    // By gRPC the same.
    let id = server.job_of("ask", json!({ "amount": 1 })).await;
    let bob = Caller::new(&server, BOB).await;
    let mut jobs = bob.jobs();
    let (signal, skip) = (
        |id: &str| v1::SignalJobRequest { job_id: id.into(), name: "paid".into(), ..Default::default() },
        |id: &str| v1::SkipJobRequest {
            job_id: id.into(),
            action: Some(v1::SkipAction { outcome: "success".into(), ..Default::default() }),
            idempotency_key: String::new(),
        },
    );
    let decide = |id: &str| v1::DecideApprovalRequest {
        job_id: id.into(),
        decision: "approved".into(),
        ..Default::default()
    };
    let retry = |id: &str| v1::RetryJobRequest { job_id: id.into(), ..Default::default() };
    for id in [id.as_str(), UNKNOWN_ID, "nonsense"] {
        for status in [
            jobs.signal_job(bob.request(signal(id))).await.unwrap_err(),
            jobs.decide_approval(bob.request(decide(id))).await.unwrap_err(),
            jobs.retry_job(bob.request(retry(id))).await.unwrap_err(),
            jobs.skip_job(bob.request(skip(id))).await.unwrap_err(),
        ] {
            assert_eq!((error(&status), status.message()), (ErrorCode::JobNotFound, "Job not found"), "{id}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_name() {
    let server = Server::start().await;
    let asking = server.job_of("ask", json!({ "amount": 1 })).await;
    let listening = server.job_of("listen", json!({ "amount": 1 })).await;
    let failed = server.job_of("fragile", json!({})).await;
    let finished = server.job_of("instant", json!({ "input": 1 })).await;
    let ready = server.job_of("test_workflow", json!({})).await;
    for (id, verb, body, status, code, words) in [
        (&listening, "signal", json!({}), 400, "INVALID_ARGUMENT", "name is missing"),
        (
            &listening,
            "signal",
            json!({ "name": "paid", "data": 7 }),
            400,
            "INVALID_JSON",
            "Invalid JSON body",
        ),
        (&listening, "signal", json!({ "nmae": "paid" }), 400, "INVALID_JSON", "Invalid JSON body"),
        (
            &finished,
            "signal",
            json!({ "name": "paid" }),
            409,
            "JOB_TERMINAL",
            "The job has ended already: it is finished",
        ),
        (&asking, "decide", json!({}), 400, "INVALID_ARGUMENT", "decision is required in body"),
        (
            &asking,
            "decide",
            json!({ "decision": "later" }),
            400,
            "OUTCOME_UNKNOWN",
            "State \"ask\" has no transition \"later\"",
        ),
        // Only time decides that it is too late.
        (
            &asking,
            "decide",
            json!({ "decision": "timeout" }),
            400,
            "OUTCOME_UNKNOWN",
            "State \"ask\" has no transition",
        ),
        (
            &asking,
            "approve",
            json!({ "token": "0" }),
            409,
            "APPROVAL_NOT_FOUND",
            "The token is not that of the job's present",
        ),
        (
            &listening,
            "approve",
            json!({}),
            409,
            "APPROVAL_NOT_FOUND",
            "Nobody is asked to decide: the job is waiting_for_event",
        ),
        (&finished, "approve", json!({}), 409, "JOB_TERMINAL", "The job has ended already: it is finished"),
        (
            &finished,
            "retry",
            json!({}),
            409,
            "NOT_REPAIRABLE",
            "Only a failed or quarantined job can be repaired: this one is finished",
        ),
        (
            &ready,
            "retry",
            json!({}),
            409,
            "NOT_REPAIRABLE",
            "Only a failed or quarantined job can be repaired: this one is waiting_for_worker",
        ),
        (
            &failed,
            "retry",
            json!({ "state": "nowhere" }),
            400,
            "STATE_NOT_FOUND",
            "Blueprint \"fragile\" has no state \"",
        ),
        (
            &failed,
            "retry",
            json!({ "initial_data": {}, "initial_data_patch": {} }),
            400,
            "INVALID_ARGUMENT",
            "initial_data and initial_data_patch exclude",
        ),
        (
            &failed,
            "retry",
            json!({ "reason": "x".repeat(1001) }),
            400,
            "INVALID_ARGUMENT",
            "reason has 1001 characters",
        ),
        (&failed, "skip", json!({}), 400, "INVALID_ARGUMENT", "outcome is missing"),
        (
            &failed,
            "skip",
            json!({ "outcome": "no way" }),
            400,
            "INVALID_ARGUMENT",
            "outcome is \"no way\", not 1 to 64",
        ),
        (
            &ready,
            "skip",
            json!({ "outcome": "unheard" }),
            400,
            "OUTCOME_UNKNOWN",
            "State \"init\" has no transition \"unheard\"",
        ),
        (
            &finished,
            "skip",
            json!({ "outcome": "success" }),
            409,
            "NOT_REPAIRABLE",
            "Only a failed or quarantined",
        ),
    ] {
        let (found, body) = server.act(id, verb, &body).await;
        let (found_code, text) = refusal(&body);
        assert_eq!((found, found_code), (status, code), "{verb}: {body}");
        assert!(text.starts_with(words), "{verb}: {text}");
    }
    // What stands in no state yet, and what does not stand in its state alone.
    let later = json!({ "blueprint": "test_workflow", "delay": "1h" }).to_string();
    let later = server.post("/api/v1/jobs", &later).await.json()["job_id"].as_str().unwrap().to_owned();
    let (status, refused) = server.act(&later, "skip", &json!({ "outcome": "success" })).await;
    assert_eq!(
        (status, refusal(&refused)),
        (
            400,
            (
                "OUTCOME_UNKNOWN",
                "The job has not started yet, so that it stands in no state that could be skipped"
            )
        )
    );
    assert_eq!(refused["hint"], "Wait until it starts, or cancel it.");
    // The hint says what there is to choose.
    let (_, refused) = server.act(&asking, "decide", &json!({ "decision": "later" })).await;
    assert_eq!(refused["hint"], "Choose one of: approved, rejected.");
    let (_, refused) = server.act(&ready, "skip", &json!({ "outcome": "unheard" })).await;
    assert_eq!(refused["hint"], "Choose one of: failure, success.");

    for (body, words) in [
        (json!({}), "say either retry or skip"),
        (json!({ "retry": {}, "skip": { "outcome": "x" } }), "say either retry or skip"),
        (
            json!({ "retry": {}, "filter": { "status": ["finished"] } }),
            "a job that is finished cannot be repaired",
        ),
        (
            json!({ "retry": {}, "filter": { "status": ["faild"] } }),
            "\"faild\" is not a status; did you mean \"failed\"?",
        ),
        (json!({ "retry": {}, "limit": 1001 }), "one call repairs at most 1000 jobs, 1001 were asked for"),
        (json!({ "retry": {}, "cursor": "zzz" }), "the cursor is not one that this listing gave out"),
        (
            json!({ "retry": {}, "filter": { "created_after": "monday" } }),
            "created_after is \"monday\", which is no time",
        ),
        (json!({ "skip": {} }), "outcome is missing"),
    ] {
        let answer = server.post("/api/jobs/repair", &body.to_string()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.error().starts_with(words), "{body}: {}", answer.error());
    }
    assert_eq!(server.told(&failed).await.len(), 3, "nothing has happened");
}

#[tokio::test]
async fn a_signal_lets_a_job_go_on_when_it_fits_and_is_kept_when_it_does_not() {
    let server = Server::start().await;
    let id = server.job_of("listen", json!({ "amount": 10 })).await;
    let job = server.shown(&id).await;
    assert_eq!(job["status"], "waiting_for_event");
    assert_eq!(job["waiting_for"]["signal"]["name"], "paid");
    assert_eq!(job["waiting_for"]["signal"]["deadline"], job["resumes_at"]);

    let (status, job) = server.act(&id, "signal", &json!({ "name": "paid", "data": { "amount": 3 } })).await;
    assert_eq!((status, &job["status"]), (200, &json!("waiting_for_event")));
    let (_, job) = server.act(&id, "signal", &json!({ "name": "other" })).await;
    assert_eq!(job["status"], "waiting_for_event");
    let paid = json!({ "name": "paid", "id": "invoice 7", "data": { "amount": 10, "how": "cash" } });
    let (_, job) = server.act(&id, "signal", &paid).await;
    assert_eq!((&job["status"], &job["outcome"]), (&json!("finished"), &json!("received")));
    assert_eq!(job["state_history"], json!({ "amount": 10, "how": "cash" }));

    // The answer was lost, the sender comes again: that is no error, and nothing happens.
    let (status, again) = server.act(&id, "signal", &paid).await;
    assert_eq!((status, again), (200, job));
    let (status, _) = server.act(&id, "signal", &json!({ "name": "paid", "id": "invoice 8" })).await;
    assert_eq!(status, 409);
    let told = server.told(&id).await;
    let of_signals: Vec<&str> =
        told.iter().map(String::as_str).filter(|line| line.starts_with("signal")).collect();
    assert_eq!(of_signals, ["signal_kept - - paid", "signal_kept - - other", "signal_received - - paid"]);
}

#[tokio::test]
async fn a_job_keeps_so_many_signals_and_says_when_it_keeps_no_more() {
    let server = Server::start().await;
    let id = server.job_of("test_workflow", json!({})).await;
    for n in 0..32 {
        let (status, _) =
            server.act(&id, "signal", &json!({ "name": format!("s{n}"), "id": format!("{n}") })).await;
        assert_eq!(status, 200, "{n}");
    }
    let answer = server.post(&format!("/api/jobs/{id}/signal"), r#"{"name": "one more"}"#).await;
    assert_eq!((answer.status, answer.text("code").as_str()), (429, "TOO_MANY_SIGNALS"));
    assert_eq!(answer.header("retry-after"), "5");
    // One that is kept already needs no room.
    let (status, _) = server.act(&id, "signal", &json!({ "name": "s31", "id": "31" })).await;
    assert_eq!(status, 200);

    let caller = Caller::new(&server, ALICE).await;
    let signal = v1::SignalJobRequest { job_id: id, name: "s0".into(), id: "0".into(), data: String::new() };
    let answer = caller.jobs().signal_job(caller.request(signal)).await.unwrap().into_inner();
    assert!(answer.deduplicated);
}

#[tokio::test]
async fn the_owner_sees_what_is_asked_and_decides() {
    let server = Server::start().await;
    let id = server.job_of("ask", json!({ "amount": 700 })).await;
    let job = server.shown(&id).await;
    let approval = &job["waiting_for"]["approval"];
    assert_eq!((&job["status"], &approval["message"]), (&json!("waiting_for_human"), &json!("pay 700 EUR?")));
    assert_eq!(
        (&approval["decisions"], &approval["deadline"]),
        (&json!(["approved", "rejected"]), &job["resumes_at"])
    );
    let explained = server.get(&format!("/api/jobs/{id}/explain")).await;
    assert_eq!(explained.json()["approval"]["decisions"], approval["decisions"]);
    let token = token_of(&job);
    assert_eq!(token.len(), 32);

    let approve = json!({ "comment": "looks right", "by": "anna", "data": { "note": "n" }, "token": token });
    let (status, job) = server.act(&id, "approve", &approve).await;
    assert_eq!((status, &job["current_state"], &job["outcome"]), (200, &json!("again"), &json!("approved")));
    // Sent twice, it does not decide the next one.
    let (status, refused) = server.act(&id, "approve", &approve).await;
    assert_eq!((status, refusal(&refused).0), (409, "APPROVAL_NOT_FOUND"));
    let (_, job) = server.act(&id, "decide", &json!({ "decision": "approved" })).await;
    assert_eq!(
        (&job["status"], &job["result"]),
        (&json!("finished"), &json!({ "by": "alice", "note": "n" }))
    );
    let told = server.told(&id).await;
    assert!(told.contains(&"approval_decided approved anna looks right".to_owned()), "{told:?}");
    assert!(told.contains(&"approval_decided approved alice -".to_owned()), "{told:?}");

    let id = server.job_of("ask", json!({ "amount": 700 })).await;
    let (_, job) = server.act(&id, "reject", &json!({})).await;
    assert_eq!((&job["status"], &job["outcome"]), (&json!("failed"), &json!("rejected")));
}

#[tokio::test]
async fn the_token_of_an_approval_is_shown_to_its_owner_who_asks_and_nowhere_else() {
    let server = Server::start().await;
    let id = server.job_of("ask", json!({ "amount": 1 })).await;
    let token = token_of(&server.shown(&id).await);
    let caller = Caller::new(&server, ALICE).await;
    let mut jobs = caller.jobs();
    let get = v1::GetJobRequest { job_id: id.clone() };
    let own = jobs.get_job(caller.request(get)).await.unwrap().into_inner();
    assert!(format!("{own:?}").contains(&token));

    let listed = jobs.list_jobs(caller.request(v1::ListJobsRequest::default())).await.unwrap().into_inner();
    let watch = v1::WatchJobRequest { job_id: id.clone() };
    let watched = jobs.watch_job(caller.request(watch)).await.unwrap().into_inner().message().await.unwrap();
    let history = v1::GetJobHistoryRequest { job_id: id.clone(), ..Default::default() };
    let history = jobs.get_job_history(caller.request(history)).await.unwrap().into_inner();
    let signal = v1::SignalJobRequest { job_id: id.clone(), name: "x".into(), ..Default::default() };
    let signalled = jobs.signal_job(caller.request(signal)).await.unwrap().into_inner();
    let mut events = server
        .connect(
            format!(
                "GET /api/jobs/{id}/events HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {ALICE}\r\n\r\n"
            )
            .as_bytes(),
        )
        .await;
    let mut heard = String::new();
    while !heard.contains("waiting_for") {
        let mut bytes = [0; 4096];
        let len = tokio::io::AsyncReadExt::read(&mut events, &mut bytes).await.unwrap();
        assert!(len > 0, "{heard}");
        heard += &String::from_utf8_lossy(&bytes[..len]);
    }
    for (place, text) in [
        ("a list", format!("{listed:?}")),
        ("a watch", format!("{watched:?}")),
        ("a history", format!("{history:?}")),
        ("an answer", format!("{signalled:?}")),
        ("a list", server.get("/api/jobs").await.body),
        ("a history", server.get(&format!("/api/jobs/{id}/history")).await.body),
        ("an answer", server.act(&id, "signal", &json!({ "name": "y" })).await.1.to_string()),
        ("events", heard),
    ] {
        assert!(text.contains(&id) || place == "a history", "{place}");
        assert!(!text.contains(&token), "{place} shows the token");
    }
}

#[tokio::test]
async fn whoever_has_the_token_decides_once_and_learns_nothing_without_it() {
    let server = Server::start().await;
    let id = server.job_of("ask", json!({ "amount": 1 })).await;
    let listening = server.job_of("listen", json!({ "amount": 1 })).await;
    let token = token_of(&server.shown(&id).await);
    let wrong = "0".repeat(32);
    let nothing = server.by_token(UNKNOWN_ID, &json!({ "decision": "approved", "token": token })).await;
    assert_eq!((nothing.0, refusal(&nothing.1)), (404, ("JOB_NOT_FOUND", "Job not found")));
    // Wrong, of another kind of job, of no job at all: the same to the letter.
    for (id, token) in [
        (&id, wrong.as_str()),
        (&id, "x"),
        (&listening, token.as_str()),
        (&"nonsense".to_owned(), token.as_str()),
    ] {
        for decision in ["approved", "nonsense"] {
            assert_eq!(server.by_token(id, &json!({ "decision": decision, "token": token })).await, nothing);
        }
    }
    assert_eq!(server.shown(&id).await["status"], "waiting_for_human");

    // As the Python system words it.
    let (status, body) = server.by_token(&id, &json!({ "token": token })).await;
    assert_eq!((status, refusal(&body).1), (400, "decision is required in body"));
    let (status, body) = server.by_token(&id, &json!({ "decision": "approved" })).await;
    assert_eq!((status, refusal(&body)), (401, ("MISSING_TOKEN", "Missing approval token")));
    let (status, body) = server.by_token(&id, &json!({ "decision": "later", "token": token })).await;
    assert_eq!((status, refusal(&body).0), (400, "OUTCOME_UNKNOWN"));

    let decide = json!({ "decision": "approved", "token": token, "comment": "fine", "by": "alice", "data": { "note": "n" } });
    let (status, body) = server.by_token(&id, &decide).await;
    assert_eq!((status, body), (200, json!({ "status": "approval_received", "job_id": id })));
    assert_eq!(server.by_token(&id, &decide).await, nothing, "once");
    assert_eq!(server.shown(&id).await["current_state"], "again", "and not the next one");
    let told = server.told(&id).await;
    assert!(told.contains(&"approval_decided approved alice (by token) fine".to_owned()), "{told:?}");

    // In a header, or where the Python system has it: each approval has its own.
    let next = token_of(&server.shown(&id).await);
    assert_ne!(next, token);
    let path = format!("/_public/webhooks/approval/{id}");
    let body = r#"{"decision": "approved"}"#;
    assert_eq!(server.send("POST", &path, &[("x-approval-token", &token)], body).await.status, 404);
    assert_eq!(server.send("POST", &path, &[("x-approval-token", &next)], body).await.status, 200);
    assert_eq!(server.shown(&id).await["status"], "finished");
    assert_eq!(server.send("POST", &path, &[("x-approval-token", &next)], body).await.status, 404);

    let id = server.job_of("ask", json!({ "amount": 1 })).await;
    let token = token_of(&server.shown(&id).await);
    let path = format!("/_public/webhooks/approval/{id}?token={token}");
    assert_eq!(server.send("POST", &path, &[], r#"{"decision": "rejected"}"#).await.status, 200);
    assert_eq!(server.shown(&id).await["status"], "failed");

    // The owner's own token does as well, and no other client's.
    let id = server.job_of("ask", json!({ "amount": 1 })).await;
    let path = format!("/_public/webhooks/approval/{id}");
    let by =
        async |client: &str| server.send("POST", &path, &[("x-client-token", client)], body).await.status;
    assert_eq!((by("stranger").await, by(BOB).await, by(ALICE).await), (401, 404, 200));
    assert_eq!(server.send("GET", &path, &[], "").await.header("allow"), "POST");
}

#[tokio::test]
async fn a_failed_job_is_started_again_with_other_data() {
    let server = Server::start().await;
    let id = server.job_of("fragile", json!({ "b": 1 })).await;
    let job = server.shown(&id).await;
    assert_eq!((&job["status"], &job["failed_state"]), (&json!("failed"), &json!("add")));
    assert_eq!(job["error_code"], "EXPRESSION_ERROR");

    let (status, job) = server.act(&id, "retry", &json!({})).await;
    assert_eq!((status, &job["status"]), (200, &json!("failed")), "nothing was mended");
    let retry = json!({
        "initial_data_patch": { "a": 1, "b": null }, "state_history_patch": { "note": "n" }, "reason": "a was missing"
    });
    let (_, job) = server.act(&id, "retry", &retry).await;
    assert_eq!((&job["status"], &job["initial_data"]), (&json!("finished"), &json!({ "a": 1 })));
    assert_eq!(job["state_history"], json!({ "note": "n", "sum": 2 }));
    let told = server.told(&id).await;
    assert!(told.contains(&"job_retried - alice a was missing".to_owned()), "{told:?}");

    let id = server.job_of("fragile", json!({ "b": 1 })).await;
    let retry = json!({ "state": "add", "initial_data": { "a": 1.50 } });
    let (_, job) = server.act(&id, "retry", &retry).await;
    assert_eq!((&job["initial_data"], &job["state_history"]), (&json!({ "a": 1.5 }), &json!({ "sum": 2.5 })));

    // Edited data has the rules and the limits of all data.
    let id = server.job_of("fragile", json!({ "b": 1 })).await;
    let (status, refused) = server.act(&id, "retry", &json!({ "initial_data_patch": { "a": "x" } })).await;
    assert_eq!((status, refusal(&refused).0), (400, "INPUT_INVALID"));
    assert!(refusal(&refused).1.contains("initial_data/a"), "{refused}");
    let id = server.job_of("fragile", json!({ "b": "x".repeat(600_000) })).await;
    let retry = json!({ "initial_data_patch": { "c": "x".repeat(600_000) } });
    let (status, refused) = server.act(&id, "retry", &retry).await;
    assert_eq!((status, refusal(&refused).0), (413, "PAYLOAD_TOO_LARGE"));
}

#[tokio::test]
async fn a_state_is_skipped_with_the_outcome_that_somebody_says() {
    let server = Server::start().await;
    let id = server.job_of("test_workflow", json!({})).await;
    let skip = json!({ "outcome": "success", "data": { "by": "hand" }, "reason": "done by hand" });
    let (status, job) = server.act(&id, "skip", &skip).await;
    assert_eq!((status, &job["status"]), (200, &json!("finished")));
    assert_eq!((&job["outcome"], &job["result"]), (&json!("success"), &json!({ "by": "hand" })));
    let told = server.told(&id).await;
    assert!(told.contains(&"state_skipped success alice done by hand".to_owned()), "{told:?}");

    // A failed job goes on behind the state that failed.
    let id = server.job_of("fragile", json!({})).await;
    let (_, job) = server.act(&id, "skip", &json!({ "outcome": "success", "data": { "sum": 0 } })).await;
    assert_eq!((&job["status"], &job["state_history"]), (&json!("finished"), &json!({ "sum": 0 })));
}

#[tokio::test]
async fn what_is_repeated_under_its_key_is_done_once() {
    let server = Server::start().await;
    let id = server.job_of("fragile", json!({ "b": 1 })).await;
    let act = async |verb: &str, key: &str, body: Value| {
        let path = format!("/api/jobs/{id}/{verb}");
        let headers = [("x-avtomatika-token", ALICE), ("idempotency-key", key)];
        let answer = server.send("POST", &path, &headers, &body.to_string()).await;
        (answer.status, answer.json())
    };
    let times =
        async |event: &str| server.told(&id).await.iter().filter(|told| told.starts_with(event)).count();

    let (status, first) = act("retry", "ticket 7", json!({})).await;
    assert_eq!((status, &first["status"]), (200, &json!("failed")), "nothing was mended");
    assert_eq!(act("retry", "ticket 7", json!({})).await, (200, first));
    assert_eq!(times("job_retried").await, 1);
    for (verb, body) in
        [("retry", json!({ "initial_data_patch": { "a": 1 } })), ("skip", json!({ "outcome": "success" }))]
    {
        let (status, refused) = act(verb, "ticket 7", body).await;
        assert_eq!((status, refusal(&refused).0), (409, "IDEMPOTENCY_CONFLICT"));
    }
    let (status, refused) = act("retry", "ключ", json!({})).await;
    assert_eq!((status, refusal(&refused).0), (400, "INVALID_ARGUMENT"));

    // By gRPC it is the same key, and it is known although the job has ended well.
    let skip = json!({ "outcome": "success", "data": { "sum": 0 } });
    let (status, finished) = act("skip", "ticket 8", skip).await;
    assert_eq!((status, &finished["status"]), (200, &json!("finished")));
    let action =
        v1::SkipAction { outcome: "success".into(), data: r#"{"sum":0}"#.into(), reason: String::new() };
    let again =
        v1::SkipJobRequest { job_id: id.clone(), action: Some(action), idempotency_key: "ticket 8".into() };
    let caller = Caller::new(&server, ALICE).await;
    let answer = caller.jobs().skip_job(caller.request(again)).await.unwrap().into_inner();
    assert!(answer.deduplicated);
    assert_eq!(answer.job.unwrap().status(), v1::JobStatus::Finished);
    assert_eq!(times("state_skipped").await, 1);
}

#[tokio::test]
async fn a_signal_may_have_its_id_in_the_header() {
    let server = Server::start().await;
    let id = server.job_of("listen", json!({ "amount": 10 })).await;
    let path = format!("/api/jobs/{id}/signal");
    for _ in 0..2 {
        let headers = [("x-avtomatika-token", ALICE), ("idempotency-key", "invoice 7")];
        let answer = server.send("POST", &path, &headers, r#"{"name": "other"}"#).await;
        assert_eq!(answer.status, 200);
    }
    server.act(&id, "signal", &json!({ "name": "other", "id": "invoice 7" })).await;
    let kept = server.told(&id).await.iter().filter(|told| told.starts_with("signal_kept")).count();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn many_jobs_are_repaired_at_once_and_first_it_is_said_which() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(server.job_of("fragile", json!({ "n": n })).await);
    }
    ids.reverse();
    let other = server.job_of("ask", json!({ "amount": 1 })).await;
    server.act(&other, "reject", &json!({})).await;
    let repair = async |body: Value| server.post("/api/jobs/repair", &body.to_string()).await.json();
    let filter = json!({
        "blueprint": "fragile", "status": ["failed", "quarantined"], "labels": { "of": "test" },
        "failed_state": "add", "error_code": "EXPRESSION_ERROR", "created_after": "2020-01-01T00:00:00Z",
    });

    let dry = repair(json!({ "filter": filter, "retry": {}, "dry_run": true })).await;
    assert_eq!((&dry["count"], &dry["job_ids"], &dry["next_cursor"]), (&json!(5), &json!(ids), &Value::Null));
    assert_eq!(server.shown(&ids[0]).await["status"], "failed");
    for nothing in [
        json!({ "failed_state": "completed" }),
        json!({ "error_code": "DISK" }),
        json!({ "status": ["quarantined"] }),
        json!({ "labels": { "of": "life" } }),
        json!({ "created_before": "2020-01-01T00:00:00Z" }),
    ] {
        assert_eq!(repair(json!({ "filter": nothing, "retry": {} })).await["count"], 0, "{nothing}");
    }

    // Those that fail again at once are not met again.
    let useless = repair(json!({ "filter": filter, "retry": {}, "limit": 2 })).await;
    assert_eq!((&useless["count"], &useless["job_ids"]), (&json!(2), &json!(ids[..2])));
    let retry = json!({ "initial_data_patch": { "a": 1 }, "reason": "mended" });
    let rest = repair(json!({ "filter": filter, "retry": retry, "cursor": useless["next_cursor"] })).await;
    assert_eq!(
        (&rest["count"], &rest["job_ids"], &rest["next_cursor"]),
        (&json!(3), &json!(ids[2..]), &Value::Null)
    );
    for (id, status) in ids.iter().zip(["failed", "failed", "finished", "finished", "finished"]) {
        assert_eq!(server.shown(id).await["status"], status);
    }
    let told = server.told(&ids[4]).await;
    assert!(told.contains(&"job_retried - alice mended".to_owned()), "{told:?}");

    // What does not fit a job is said of that job, and holds up no other.
    let asking = server.job_of("ask", json!({ "amount": 1 })).await;
    server.act(&asking, "reject", &json!({})).await;
    let skip = repair(json!({ "skip": { "outcome": "approved" }, "dry_run": true })).await;
    assert_eq!(skip["count"], 4, "{skip}");
    let dry = repair(json!({ "retry": { "state": "ask" }, "dry_run": true })).await;
    assert_eq!((&dry["count"], &dry["refused_count"]), (&json!(2), &json!(2)), "{dry}");
    let retry = repair(json!({ "retry": { "state": "ask" } })).await;
    assert_eq!((&retry["count"], &retry["refused_count"]), (&json!(2), &json!(2)), "{retry}");
    assert_eq!(retry["job_ids"], json!([asking, other]));
    let refusals: Vec<_> =
        [0, 1].map(|at| &retry["refusals"][at]).map(|one| (&one["job_id"], &one["code"])).into();
    let code = json!("STATE_NOT_FOUND");
    assert_eq!(refusals, [(&json!(ids[0]), &code), (&json!(ids[1]), &code)]);
    assert_eq!(server.shown(&other).await["status"], "waiting_for_human");
}

#[tokio::test]
async fn repair_opens_no_more_jobs_than_may_be_open() {
    let server = Server::start().await;
    let mut failed = Vec::new();
    for _ in 0..3 {
        let id = server.job_of("ask", json!({ "amount": 1 })).await;
        server.act(&id, "reject", &json!({})).await;
        failed.push(id);
    }
    for _ in 0..98 {
        server.job_of("test_workflow", json!({})).await;
    }
    let repair = async |body: Value| server.post("/api/jobs/repair", &body.to_string()).await;
    let all = repair(json!({ "retry": { "state": "ask" } })).await.json();
    assert_eq!((&all["count"], &all["refused_count"]), (&json!(2), &json!(0)), "{all}");
    assert_eq!(all["stopped_by"]["code"], "TOO_MANY_OPEN_JOBS");
    let full = repair(json!({ "retry": { "state": "ask" } })).await;
    assert_eq!((full.status, full.text("code").as_str()), (429, "TOO_MANY_OPEN_JOBS"));
    let (status, refused) = server.act(&failed[0], "retry", &json!({ "state": "ask" })).await;
    assert_eq!((status, refusal(&refused).0), (429, "TOO_MANY_OPEN_JOBS"));
    // There is room again, and the cursor leads to the one that was left.
    server.act(&failed[2], "reject", &json!({})).await;
    let rest = repair(json!({ "retry": { "state": "ask" }, "cursor": all["next_cursor"] })).await.json();
    assert_eq!((&rest["count"], &rest["job_ids"]), (&json!(1), &json!([failed[0]])), "{rest}");
}
