//! REST: the table of what may go wrong, and the endpoints when it does not.

use std::time::Duration;

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{ALICE, BOB, Server, WORKER, read_to_end};

/// More than the limit and what the sockets of both sides can hold.
const SOCKET_BUFFERS_MAX: usize = 64 << 20;

const UNKNOWN_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Every path that asks for a client's token, and some that nobody serves.
const CLIENT_PATHS: [(&str, &str); 26] = [
    ("POST", "/api/jobs/test"),
    ("POST", "/api/v1/jobs/test"),
    ("POST", "/api/jobs"),
    ("POST", "/api/v1/jobs"),
    ("GET", "/api/jobs"),
    ("GET", "/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057"),
    ("GET", "/api/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057/history"),
    ("GET", "/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057/events"),
    ("POST", "/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057/cancel"),
    ("POST", "/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057/signal"),
    ("POST", "/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057/decide"),
    ("POST", "/api/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057/approve"),
    ("POST", "/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057/retry"),
    ("POST", "/api/jobs/01890a5d-ac96-774b-bcce-b302099a8057/skip"),
    ("POST", "/api/jobs/repair"),
    ("GET", "/api/workers"),
    ("GET", "/api/blueprints"),
    ("GET", "/api/blueprints/test_workflow"),
    ("GET", "/api/blueprints/test_workflow/graph"),
    ("GET", "/api/dashboard"),
    ("DELETE", "/api/jobs"),
    ("GET", "/api"),
    ("GET", "/api/"),
    ("GET", "/api/nothing"),
    ("POST", "/api/v1/nothing"),
    ("PATCH", "/api/v7/jobs"),
];

#[tokio::test]
async fn a_stranger_learns_nothing_on_any_path_of_clients() {
    let server = Server::start().await;
    for (method, path) in CLIENT_PATHS {
        let answer = server.send(method, path, &[], "").await;
        assert_eq!((answer.status, answer.error().as_str()), (401, "Missing X-Avtomatika-Token header"));
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        // A worker's token in a client's place is as wrong as any other.
        for token in ["wrong", WORKER] {
            for header in ["x-avtomatika-token", "x-client-token"] {
                let answer = server.send(method, path, &[(header, token)], "").await;
                assert_eq!((answer.status, answer.error().as_str()), (401, "Unauthorized: Invalid token"));
                assert_eq!(answer.text("code"), "INVALID_TOKEN");
            }
        }
    }
    assert!(server.jobs_of(ALICE).await.is_empty());
}

#[tokio::test]
async fn input_that_does_not_fit_its_schema_is_refused_with_its_place() {
    let server = Server::start().await;
    let (missing, odd) = (r#"{"lines": []}"#, r#"{"order": "A-1", "lines": [{"count": 2}, {"count": 0}]}"#);
    for (body, error) in [
        (missing, r#"initial_data: "order" is a required property"#),
        (odd, "initial_data/lines/1/count: the value is less than the minimum of 1; it is 0"),
    ] {
        for (path, body) in [
            ("/api/jobs/checked", body.to_owned()),
            ("/api/v1/jobs", format!(r#"{{"blueprint": "checked", "initial_data": {body}}}"#)),
        ] {
            let answer = server.post(path, &body).await;
            assert_eq!((answer.status, answer.error().as_str()), (400, error), "{path}");
            assert_eq!(answer.text("code"), "INPUT_INVALID");
        }
    }
    assert!(server.jobs_of(ALICE).await.is_empty(), "nothing was stored");
    let answer = server.post("/api/jobs/checked", r#"{"order": "A-1", "lines": [{"count": 2}]}"#).await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn a_token_may_come_in_three_headers() {
    let server = Server::start().await;
    let bearer = format!("Bearer {ALICE}");
    for header in [("x-avtomatika-token", ALICE), ("x-client-token", ALICE), ("authorization", &bearer)] {
        assert_eq!(server.send("GET", "/api/jobs", &[header], "").await.status, 200, "{header:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_with_its_place() {
    let server = Server::start().await;
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for (body, found) in [
        ("", "line 1 column 0"),
        ("{\"a\":", "line 1 column 5"),
        ("{\"a\": 1,}", "line 1 column 9"),
        ("[]", "an array"),
        ("7", "a number"),
        ("\"x\"", "a string"),
        ("null", "null"),
        ("{} {}", "trailing characters"),
        ("{\"a\": \"\\ud800\"}", "line 1 column"),
        ("{\"a\": 1e400}", "out of range"),
        ("\u{feff}{}", "line 1 column 1"),
        ("{\"a\":1,\"a\":2}", "\"a\" stands twice"),
        ("{\"b\":[{\"a\":1,\"a\":2}]}", "\"a\" stands twice"),
        (&deep, "recursion limit"),
    ] {
        let answer = server.post("/api/jobs/test", body).await;
        assert_eq!((answer.status, answer.error().as_str()), (400, "Invalid JSON body"), "{body}");
        assert!(answer.text("hint").contains(found), "{body}: {}", answer.text("hint"));
        for path in ["/api/v1/jobs/test", "/api/v1/jobs"] {
            let body = match body {
                // As good as absent there.
                "null" => continue,
                "" => String::new(),
                body => format!("{{\"blueprint\":\"instant\",\"initial_data\":{body}}}"),
            };
            let answer = server.post(path, &body).await;
            assert_eq!((answer.status, answer.error().as_str()), (400, "Invalid JSON body"), "{body}");
        }
    }
    let stream = b"POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: alice-token\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{\"a\":\"\xff\"}";
    let answer = read_to_end(&mut server.connect(stream).await).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("not UTF-8 at byte 6"), "{answer}");
    assert!(server.jobs_of(ALICE).await.is_empty());
}

#[tokio::test]
async fn a_field_that_cannot_be_meant_is_refused_by_name() {
    let server = Server::start().await;
    for (body, status, message, hint) in [
        (json!({"pririty": 1}), 400, "Invalid JSON body", "did you mean \"priority\"?"),
        (json!({"priority": 300}), 400, "priority is 300; it may be -100 to 100", ""),
        (json!({"labels": {"a b": "x"}}), 400, "the label key \"a b\" is not", ""),
        (json!({"labels": {"a": "x\u{1b}[31m"}}), 400, "the value of the label a has", ""),
        (json!({"dispatch_timeout": "soon"}), 400, "dispatch_timeout is", ""),
        (json!({"result_timeout": 0}), 400, "result_timeout is 0; it must be more", "Leave it out"),
        (json!({"result_timeout": "400d"}), 400, "result_timeout is longer than the limit of 366 days", ""),
        (json!({"webhook_url": "http://x"}), 409, "This orchestrator has no secret", "Leave webhook_url out"),
        (json!({"webhook_url": 7}), 400, "webhook_url is \"7\"; expected a text", ""),
        (json!({"blueprint": "instant"}), 400, "blueprint stands in the body", "post to /api/v1/jobs"),
    ] {
        let answer = server.post("/api/v1/jobs/test", &body.to_string()).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.error().starts_with(message), "{body}: {}", answer.error());
        assert!(answer.text("hint").contains(hint), "{body}: {}", answer.text("hint"));
    }
    for (path, message) in [
        ("/api/jobs/test?wait=301s", "wait is longer than the limit of 300 seconds"),
        ("/api/jobs/test?wait=soon", "wait is \"soon\": expected a span of time"),
        ("/api/jobs/test?wiat=1s", "unknown query parameter \"wiat\"; did you mean \"wait\"?"),
    ] {
        let answer = server.post(path, "{}").await;
        assert_eq!(answer.status, 400);
        assert!(answer.error().starts_with(message), "{path}: {}", answer.error());
    }
    let long = "k".repeat(256);
    for key in ["", long.as_str()] {
        let headers = [("x-avtomatika-token", ALICE), ("idempotency-key", key)];
        let answer = server.send("POST", "/api/jobs/test", &headers, "{}").await;
        assert_eq!(answer.status, 400, "{key}");
        assert!(answer.error().starts_with("the idempotency key is not 1 to 255"), "{}", answer.error());
    }
    assert!(server.jobs_of(ALICE).await.is_empty());
}

#[tokio::test]
async fn a_body_is_accepted_up_to_its_limit_and_read_no_further() {
    let server = Server::start().await;
    let body = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    assert_eq!(server.post("/api/jobs/test", &body(PAYLOAD_BYTES_MAX)).await.status, 202);
    let wrapped = format!("{{\"initial_data\":{}}}", body(PAYLOAD_BYTES_MAX));
    assert_eq!(server.post("/api/v1/jobs/test", &wrapped).await.status, 202);

    // One byte more, announced: refused before any byte of it has come.
    let head = "POST /api/jobs/test HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: alice-token\r\n";
    for length in [PAYLOAD_BYTES_MAX + 1, 10 << 30] {
        let request = format!("{head}content-length: {length}\r\n\r\n");
        let answer = read_to_end(&mut server.connect(request.as_bytes()).await).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("larger than the limit of 1048576 bytes"), "{answer}");
    }

    // Without a length, chunk after chunk: refused at the limit, whatever else would come.
    let mut stream = server.connect(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await;
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while stream.write_all(&chunk).await.is_ok() {
        sent += 0x10000;
        assert!(sent < SOCKET_BUFFERS_MAX, "the body is still being read after {sent} bytes");
    }
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    // A wrapped payload over the limit, in an envelope that is not.
    let wrapped = format!("{{\"initial_data\":{}}}", body(PAYLOAD_BYTES_MAX + 1));
    assert_eq!(server.post("/api/v1/jobs/test", &wrapped).await.status, 413);
    assert_eq!(server.jobs_of(ALICE).await.len(), 2);
}

#[tokio::test]
async fn a_job_that_is_not_ones_own_cannot_be_told_from_one_that_is_not_there() {
    let server = Server::start().await;
    let foreign = server.by(BOB, "POST", "/api/jobs/test", "{}").await.text("job_id");
    for (method, below) in [("GET", ""), ("GET", "/history"), ("GET", "/events"), ("POST", "/cancel")] {
        let mut answers = Vec::new();
        for id in [&foreign, UNKNOWN_ID, "test", "%00", "..%2f..%2fetc", &UNKNOWN_ID.to_uppercase()] {
            let answer = server.by(ALICE, method, &format!("/api/jobs/{id}{below}"), "").await;
            assert_eq!((answer.status, answer.error().as_str()), (404, "Job not found"), "{id}{below}");
            answers.push(answer.body);
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "byte for byte the same");
    }
    assert_eq!(
        server.by(BOB, "GET", &format!("/api/jobs/{foreign}"), "").await.text("status"),
        "waiting_for_worker"
    );
    assert!(server.jobs_of(ALICE).await.is_empty());
}

#[tokio::test]
async fn what_is_not_served_is_answered_with_what_is() {
    let server = Server::start().await;
    for (method, path) in [
        ("GET", "/api/nothing"),
        ("POST", "/api/jobs/xyz"),
        ("POST", "/api/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057"),
        ("GET", "/api/v2/jobs"),
    ] {
        let answer = server.by(ALICE, method, path, "").await;
        assert_eq!((answer.status, answer.text("code").as_str()), (404, "ENDPOINT_NOT_FOUND"), "{path}");
        assert!(answer.text("hint").contains("POST /api/jobs/test"), "{path}");
    }
    let answer = server.send("GET", "/nothing", &[], "").await;
    assert_eq!(answer.status, 404);
    assert!(answer.text("hint").contains("/_public/status") && !answer.text("hint").contains("/jobs/test"));

    let answer = server.post("/api/v1/jobs", r#"{"blueprint": "nope"}"#).await;
    assert_eq!((answer.status, answer.text("code").as_str()), (404, "BLUEPRINT_NOT_FOUND"));
    assert!(
        answer.text("hint").contains("ask, checked, family, fragile, instant, listen, named, test_workflow"),
        "{}",
        answer.text("hint")
    );
    let answer = server.post("/api/v1/jobs", "{}").await;
    assert_eq!((answer.status, answer.error().as_str()), (400, "blueprint is missing"));
    let answer = server.get("/api/blueprints/nope").await;
    assert_eq!((answer.status, answer.error().as_str()), (404, "Blueprint not found: \"nope\""));

    for (method, path, allow) in [
        ("DELETE", "/api/jobs/test", "GET, HEAD, POST"),
        ("PUT", "/api/jobs", "GET, HEAD, POST"),
        ("POST", "/api/workers", "GET, HEAD"),
        ("GET", "/api/jobs/x/cancel", "POST"),
        ("POST", "/_public/status", "GET, HEAD"),
    ] {
        let answer = server.by(ALICE, method, path, "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
        assert_eq!(answer.text("code"), "METHOD_NOT_ALLOWED");
    }
    assert!(server.jobs_of(ALICE).await.is_empty());
}

#[tokio::test]
async fn a_repeated_key_is_the_first_job_again_or_a_conflict() {
    let server = Server::start().await;
    let post = async |token: &'static str, path: &str, body: &str| {
        server
            .send("POST", path, &[("x-avtomatika-token", token), ("idempotency-key", "order 1")], body)
            .await
    };
    let first = post(ALICE, "/api/jobs/test", r#"{"a": 1}"#).await;
    assert_eq!(first.status, 202);
    let again = post(ALICE, "/api/jobs/test", r#"{"a": 1}"#).await;
    assert_eq!((again.status, again.text("job_id")), (202, first.text("job_id")));
    for (path, body) in [("/api/jobs/test", r#"{"a": 2}"#), ("/api/jobs/instant", r#"{"a": 1}"#)] {
        let other = post(ALICE, path, body).await;
        assert_eq!((other.status, other.text("code").as_str()), (409, "IDEMPOTENCY_CONFLICT"));
    }
    // Keys of different clients never meet.
    let foreign = post(BOB, "/api/jobs/test", r#"{"a": 2}"#).await;
    assert_eq!(foreign.status, 202);
    assert_ne!(foreign.text("job_id"), first.text("job_id"));
    assert_eq!(server.jobs_of(ALICE).await, [first.text("job_id")]);
}

#[tokio::test]
async fn a_job_is_cancelled_once() {
    let server = Server::start().await;
    let id = server.post("/api/jobs/test", "{}").await.text("job_id");
    let path = format!("/api/jobs/{id}/cancel");
    let answer = server.post(&path, r#"{"raison": "x"}"#).await;
    assert_eq!((answer.status, answer.error().as_str()), (400, "Invalid JSON body"));
    let answer = server.post(&path, r#"{"reason": "changed my mind"}"#).await;
    assert_eq!((answer.status, answer.text("status").as_str()), (200, "cancelled"));
    let answer = server.post(&path, "").await;
    assert_eq!((answer.status, answer.text("code").as_str()), (409, "JOB_TERMINAL"));
    assert!(answer.error().contains("cancelled"), "{}", answer.error());

    let id = server.post("/api/jobs/instant", r#"{"input": 1}"#).await.text("job_id");
    let answer = server.post(&format!("/api/v1/jobs/{id}/cancel"), "").await;
    assert_eq!(answer.status, 409);
    assert!(answer.error().contains("finished"), "{}", answer.error());
}

#[tokio::test]
async fn a_job_is_accepted_and_shown_as_the_seed_shows_it() {
    let server = Server::start().await;
    let accepted = server.post("/api/jobs/instant", r#"{ "input": 1.50, "n": 9007199254740993 }"#).await;
    let id = accepted.text("job_id");
    assert_eq!(accepted.status, 202);
    assert_eq!(accepted.body, format!("{{\"status\":\"accepted\",\"job_id\":\"{id}\"}}"));
    assert_eq!(accepted.header("location"), format!("/api/jobs/{id}"));
    assert_eq!(accepted.header("content-type"), "application/json; charset=utf-8");

    for path in [format!("/api/jobs/{id}"), format!("/api/v1/jobs/{id}")] {
        let job = server.get(&path).await;
        assert_eq!(job.status, 200);
        let begin = format!(
            "{{\"id\":\"{id}\",\"blueprint_name\":\"instant\",\"current_state\":\"completed\",\
             \"initial_data\":{{ \"input\": 1.50, \"n\": 9007199254740993 }},\"state_history\":{{\"seen\":1.50}},\
             \"status\":\"finished\",\"result\":null,\"error_message\":null,"
        );
        assert!(job.body.starts_with(&begin), "{}", job.body);
        assert!(!job.body.contains(ALICE));
    }
    let some = server.get(&format!("/api/jobs/{id}?fields=status,id")).await;
    assert_eq!(some.body, format!("{{\"id\":\"{id}\",\"status\":\"finished\"}}"));
    let wrong = server.get(&format!("/api/jobs/{id}?fields=stauts")).await;
    assert_eq!(
        (wrong.status, wrong.error().as_str()),
        (400, "a job has no field \"stauts\"; did you mean \"status\"?")
    );

    let history = server.get(&format!("/api/jobs/{id}/history")).await.json();
    assert_eq!(history["history"][0]["event"], "job_accepted");
    assert_eq!(history["next_cursor"], json!(null));
    let first = server.get(&format!("/api/jobs/{id}/history?limit=1")).await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = server.get(&format!("/api/jobs/{id}/history?limit=1&cursor={cursor}")).await.json();
    assert_eq!(second["history"][0]["sequence"], 1);
}

#[tokio::test]
async fn a_wait_answers_with_the_end_or_with_the_acceptance() {
    let server = Server::start().await;
    let prefer = [("x-avtomatika-token", ALICE), ("prefer", "wait=30")];
    let done = server.send("POST", "/api/jobs/instant", &prefer, r#"{"input": 1}"#).await;
    assert_eq!((done.status, done.text("status").as_str()), (200, "finished"));
    let done = server.post("/api/v1/jobs?wait=30s", r#"{"blueprint": "named"}"#).await;
    assert_eq!((done.status, done.text("status").as_str()), (200, "failed"));
    let waits = server.post("/api/jobs/test?wait=1ms", "{}").await;
    assert_eq!((waits.status, waits.text("status").as_str()), (202, "accepted"));
}

#[tokio::test]
async fn a_body_that_is_the_input_itself_has_its_start_in_the_path() {
    let server = Server::start().await;
    for path in ["/api/jobs/instant?delay=10m", "/api/jobs/instant?start_at=2999-01-01T00:00:00Z"] {
        let answer = server.post(path, r#"{"delay": "1s"}"#).await;
        if path.contains("2999") {
            let refused = (answer.status, answer.text("error"));
            assert_eq!(refused, (400, "start_at is further ahead than the limit of 366 days".to_owned()));
            continue;
        }
        let job = server.get(&format!("/api/jobs/{}", answer.text("job_id"))).await.json();
        assert_eq!(
            (&job["status"], &job["initial_data"]),
            (&json!("waiting_for_timer"), &json!({"delay": "1s"}))
        );
        assert!(job["start_at"].is_string() && job["start_at"] == job["resumes_at"]);
    }
    for path in [
        "/api/jobs/instant?delay=10m&start_at=2026-01-01T00:00:00Z",
        "/api/jobs/instant?delay=soon",
        "/api/jobs/instant?start_at=tomorrow",
        "/api/v1/jobs/instant?delay=10m",
    ] {
        assert_eq!(server.post(path, "{}").await.text("code"), "INVALID_ARGUMENT", "{path}");
    }
}

#[tokio::test]
async fn a_listing_shows_ones_own_jobs_newest_first_page_by_page() {
    let server = Server::start().await;
    server.by(BOB, "POST", "/api/jobs/test", "{}").await;
    let mut ids = Vec::new();
    for team in ["a", "b", "a"] {
        let body = json!({"blueprint": "test_workflow", "labels": {"team": team}});
        ids.push(server.post("/api/v1/jobs", &body.to_string()).await.text("job_id"));
    }
    let instant = server.post("/api/jobs/instant", r#"{"input": 1}"#).await.text("job_id");
    let listed = async |query: &str| {
        let page = server.get(&format!("/api/jobs?{query}")).await.json();
        let ids: Vec<String> = page["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, page["next_cursor"].as_str().map(ToOwned::to_owned))
    };
    assert_eq!(listed("").await.0, [&instant, &ids[2], &ids[1], &ids[0]].map(Clone::clone));
    assert_eq!(listed("status=finished,failed").await.0, std::slice::from_ref(&instant));
    assert_eq!(listed("blueprint=test_workflow&label=team:a").await.0, [ids[2].clone(), ids[0].clone()]);
    assert_eq!(listed("created_before=2001-01-01T00:00:00Z").await.0, [""; 0]);
    let mut seen = Vec::new();
    let mut query = "limit=3".to_owned();
    loop {
        let (page, next) = listed(&query).await;
        seen.extend(page);
        match next {
            Some(cursor) => query = format!("limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 4);
    assert_eq!(server.get("/api/jobs?cursor=tampered").await.status, 400);
    assert_eq!(server.get("/api/jobs?limit=0").await.status, 400);
}

#[tokio::test]
async fn events_follow_a_job_to_its_end() {
    let server = Server::start().await;
    let id = server.post("/api/jobs/test", "{\n\"a\": 1\r\n}").await.text("job_id");
    let path = format!("/api/jobs/{id}/events");
    let events = server.get(&path);
    let cancel = async {
        // Whichever comes first, the watch shows the job as it is and ends with it.
        server.post(&format!("/api/jobs/{id}/cancel"), "").await
    };
    let (events, _) = tokio::join!(events, cancel);
    assert_eq!((events.status, events.header("content-type")), (200, "text/event-stream"));
    let last = events.body.trim_end().rsplit("\n\n").next().unwrap();
    let data = last.strip_prefix("event: job\ndata: ").unwrap_or_else(|| panic!("{last}"));
    let job: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!((job["id"].as_str(), job["status"].as_str()), (Some(id.as_str()), Some("cancelled")));
}

#[tokio::test]
async fn operators_see_workers_blueprints_and_counts() {
    let server = Server::start().await;
    assert_eq!(server.get("/api/workers").await.body, "[]");
    let blueprints = server.get("/api/v1/blueprints").await.json();
    let names: Vec<&str> =
        blueprints.as_array().unwrap().iter().map(|blueprint| blueprint["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ask", "checked", "family", "fragile", "instant", "listen", "named", "test_workflow"]);
    let blueprint = server.get("/api/blueprints/test_workflow").await.json();
    assert_eq!(blueprint["definition"]["blueprint"], "test_workflow");
    let graph = server.get("/api/blueprints/test_workflow/graph").await;
    assert_eq!(graph.header("content-type"), "text/vnd.graphviz; charset=utf-8");
    assert!(graph.body.starts_with("digraph"), "{}", graph.body);
    server.post("/api/jobs/test", "{}").await;
    let dashboard = server.get("/api/dashboard").await.json();
    assert_eq!(dashboard["workers"], json!({"total": 0}));
    assert_eq!(dashboard["jobs"]["queued"], 1);
    assert_eq!(dashboard["jobs"]["waiting_for_worker"], 1);
    let metrics = server.send("GET", "/_public/metrics", &[], "").await;
    assert!(metrics.body.contains("avtomatika_jobs_submitted_total{blueprint=\"test_workflow\"} 1\n"));
    assert!(metrics.body.contains("avtomatika_jobs{status=\"waiting_for_worker\"} 1\n"));
}

#[tokio::test]
async fn probes_ask_for_no_token_and_head_says_what_get_would() {
    let server = Server::start().await;
    let status = server.send("GET", "/_public/status", &[], "").await;
    assert_eq!((status.status, status.body.as_str()), (200, "{\"status\":\"ok\"}"));
    for path in ["/_public/status", "/_public/metrics", "/healthz", "/readyz"] {
        assert_eq!(server.send("GET", path, &[], "").await.status, 200, "{path}");
    }
    let head = server.send("HEAD", "/_public/status", &[], "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, "15", ""));
    assert_eq!(server.by(ALICE, "HEAD", "/api/jobs", "").await.status, 200);
    assert_eq!(server.by(ALICE, "HEAD", &format!("/api/jobs/{UNKNOWN_ID}"), "").await.status, 404);
}

#[tokio::test]
async fn a_full_disk_is_said_by_name_and_reads_go_on() {
    let server = Server::start().await;
    let id = server.post("/api/jobs/test", "{}").await.text("job_id");
    server.store.set_full(true);
    let answer = server.post("/api/jobs/test", "{}").await;
    assert_eq!((answer.status, answer.text("code").as_str()), (507, "STORAGE_FULL"));
    assert_eq!(answer.header("retry-after"), "30");
    assert_eq!(server.get(&format!("/api/jobs/{id}")).await.status, 200);
    server.store.set_full(false);
    assert_eq!(server.post("/api/jobs/test", "{}").await.status, 202);
    assert_eq!(server.jobs_of(ALICE).await.len(), 2);
}

#[tokio::test]
async fn more_open_jobs_than_allowed_are_refused_for_now() {
    let server = Server::start().await;
    for _ in 0..100 {
        assert_eq!(server.post("/api/jobs/test", "{}").await.status, 202);
    }
    let answer = server.post("/api/jobs/test", "{}").await;
    assert_eq!((answer.status, answer.text("code").as_str()), (429, "TOO_MANY_OPEN_JOBS"));
    assert_eq!(answer.header("retry-after"), "5");
    // What ends at once needs no place, but cannot know so before it was decided.
    assert_eq!(server.post("/api/jobs/instant", "{}").await.status, 429);
}

#[tokio::test]
async fn a_stop_ends_events_and_answers_what_is_under_way() {
    let server = Server::start_with(Duration::from_secs(60)).await;
    let id = server.post("/api/jobs/test", "{}").await.text("job_id");
    let request = format!(
        "GET /api/jobs/{id}/events HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: {ALICE}\r\n\r\n"
    );
    let mut events = server.connect(request.as_bytes()).await;
    let mut begun = [0; 15];
    events.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200 OK");
    server.stop();
    let rest = read_to_end(&mut events).await;
    assert!(rest.contains("\"status\":\"waiting_for_worker\""), "{rest}");
    assert!(rest.contains("event: error\ndata: {\"error\":"), "{rest}");
    server.stopped().await;
}
