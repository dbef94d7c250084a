//! What is wrong with requests of REST: B01 to B30, B35 and B36.

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;
use serde_json::json;

use super::{Sent, get, post, refuses, unharmed};
use crate::support::{ALICE, BOB, Server, WORKER};

const RAW: &str = "/api/jobs/test";
const WRAPPED: &str = "/api/v1/jobs/test";
const BY_NAME: &str = "/api/v1/jobs";
const UNKNOWN_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[tokio::test]
async fn b01_to_b17_bodies() {
    let server = Server::start().await;
    let nested = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    let utf16: Vec<u8> = "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut rows = Vec::new();
    for (number, body, words) in [
        ("B01", b"".to_vec(), "line 1 column 0"),
        ("B01", b"  \n".to_vec(), "line 2 column 0"),
        ("B02", b"{\"a\":".to_vec(), "line 1 column 5"),
        ("B02", b"{\"a\": 1,}".to_vec(), "line 1 column 9"),
        ("B02", b"{} {}".to_vec(), "trailing characters"),
        ("B07", b"{\"a\":1,\"a\":2}".to_vec(), "\"a\" stands twice"),
        ("B07", b"{\"b\":[{\"a\":1,\"\\u0061\":2}]}".to_vec(), "\"a\" stands twice"),
        ("B08", nested(128).into(), "recursion limit"),
        ("B08", nested(100_000).into(), "recursion limit"),
        ("B08", format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000)).into(), "recursion limit"),
        ("B13", b"{\"a\":\"\xff\"}".to_vec(), "not UTF-8 at byte 6"),
        ("B14", b"{\"a\":\"\\ud800\"}".to_vec(), "line 1 column"),
        ("B16", b"{\"a\":1e400}".to_vec(), "out of range"),
        ("B16", b"{\"a\":NaN}".to_vec(), "line 1 column 6"),
        ("B16", b"{\"a\":-Infinity}".to_vec(), "line 1 column"),
        ("B16", b"{\"a\":01}".to_vec(), "line 1 column"),
        ("B17", b"\xef\xbb\xbf{}".to_vec(), "line 1 column 1"),
        ("B17", [b"\xff\xfe".to_vec(), utf16.clone()].concat(), "not UTF-8 at byte 0"),
        ("B17", utf16, "line 1 column"),
    ] {
        rows.push((number, post(RAW, body.clone()), 400, "INVALID_JSON", words));
        if !body.trim_ascii().is_empty() && number != "B17" {
            let wrapped = [b"{\"initial_data\":", body.as_slice(), b"}"].concat();
            rows.push((number, post(WRAPPED, wrapped), 400, "INVALID_JSON", ""));
        }
    }
    for body in ["[]", "7", "\"x\"", "null", "true"] {
        rows.push(("B04", post(RAW, body), 400, "INVALID_JSON", "expected a JSON object"));
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX - 7));
    assert_eq!(large.len(), PAYLOAD_BYTES_MAX + 1);
    rows.push(("B09", post(RAW, large.clone()), 413, "PAYLOAD_TOO_LARGE", "limit of 1048576 bytes"));
    let wrapped = format!("{{\"initial_data\":{large}}}");
    rows.push(("B09", post(WRAPPED, wrapped), 413, "PAYLOAD_TOO_LARGE", "limit of 1048576 bytes"));
    // It is not unpacked, and not mistaken for bad JSON either.
    for coding in ["gzip", "br", "identity, gzip", "x\u{1}y"] {
        let packed = post(RAW, b"\x1f\x8b\x08\0\0\0\0\0".to_vec()).header("content-encoding", coding);
        match coding.contains('\u{1}') {
            true => assert_eq!(packed.to(&server).await.status, 400, "B32"),
            false => rows.push(("B12", packed, 415, "UNSUPPORTED_MEDIA_TYPE", "content-encoding")),
        }
    }
    refuses(&server, rows).await;
    unharmed(&server).await;
}

/// Items of an array are not taken for the fields of an object in their order.
#[tokio::test]
async fn b04_an_array_is_no_object_wherever_one_is_asked_for() {
    let server = Server::start().await;
    let of_a_job = |verb| format!("/api/jobs/{UNKNOWN_ID}/{verb}");
    let mut rows = Vec::new();
    for (path, body) in [
        (of_a_job("cancel"), "[\"why\"]"),
        (of_a_job("signal"), "[\"go\",null,null]"),
        (of_a_job("signal"), " \n[]"),
        (of_a_job("decide"), "[\"approved\",null,null,null,null]"),
        (of_a_job("approve"), "[null,null,null,null,null]"),
        (of_a_job("reject"), "[null,null,null,null,null]"),
        (of_a_job("retry"), "[null,null,null,null,null]"),
        (of_a_job("skip"), "[null,null,null]"),
        ("/api/jobs/repair".into(), "[{},{},null,true,1,null]"),
        ("/api/jobs/repair".into(), "{\"retry\":[null,null,null,null,null],\"dry_run\":true}"),
        ("/api/jobs/repair".into(), "{\"skip\":[null,null,null],\"dry_run\":true}"),
        ("/api/jobs/repair".into(), "{\"filter\":[[],null,{}],\"retry\":{},\"dry_run\":true}"),
        ("/api/reload".into(), "[true]"),
        ("/api/blueprints/test_workflow/migrate".into(), "[]"),
        ("/api/blueprints/test_workflow/migrate".into(), "[1,0,{},false,true,\"\"]"),
        (format!("/_public/webhooks/approval/{UNKNOWN_ID}"), "[\"approved\",null,null,null,\"token\"]"),
        (WRAPPED.into(), "[]"),
        (BY_NAME.into(), "[\"test_workflow\"]"),
    ] {
        rows.push(("B04", post(path, body), 400, "INVALID_JSON", "expected a JSON object"));
    }
    for body in ["7", "null", "\"go\""] {
        rows.push(("B04", post(of_a_job("signal"), body), 400, "INVALID_JSON", "expected a JSON object"));
    }
    rows.push(("B06", post(of_a_job("signal"), "{\"nmae\":\"go\"}"), 400, "INVALID_JSON", "line 1 column 7"));
    refuses(&server, rows).await;
    unharmed(&server).await;
}

#[tokio::test]
async fn b03_b12_b15_b16_what_looks_odd_and_can_be_meant_is_kept_byte_for_byte() {
    let server = Server::start().await;
    let odd = r#"{"n":18446744073709551616,"z":-0,"f":0.1000000000000000055511151231257827,"nul":"\u0000","e":1E+2}"#;
    for (number, sent) in [
        ("B03", post(RAW, odd)),
        ("B03", post(RAW, odd).header("content-type", "text/plain")),
        ("B03", post(RAW, odd).header("content-type", "application/x-www-form-urlencoded")),
        ("B12", post(RAW, odd).header("content-encoding", "identity")),
    ] {
        let accepted = sent.to(&server).await;
        assert_eq!(accepted.status, 202, "{number}: {accepted:?}");
        let job = server.get(&format!("/api/jobs/{}", accepted.text("job_id"))).await;
        assert!(job.body.contains(&format!("\"initial_data\":{odd},")), "B15, B16: {}", job.body);
    }
}

#[tokio::test]
async fn b04_to_b06_b24_to_b28_fields() {
    let server = Server::start().await;
    let many =
        |count: usize| (0..count).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>();
    let invalid = |number, body: serde_json::Value, words| {
        (number, post(WRAPPED, body.to_string()), 400, "INVALID_ARGUMENT", words)
    };
    let rows = [
        (
            "B04",
            post(BY_NAME, "{\"blueprint\":7}"),
            400,
            "INVALID_ARGUMENT",
            "blueprint is \"7\"; expected a text",
        ),
        invalid("B04", json!({"priority": "high"}), "expected a whole number"),
        invalid("B04", json!({"priority": 1.5}), "priority is \"1.5\""),
        invalid("B04", json!({"labels": ["a"]}), "labels: expected a JSON object"),
        invalid("B04", json!({"labels": {"a": 1}}), "expected an object of texts"),
        ("B04", post(WRAPPED, "{\"initial_data\":[]}"), 400, "INVALID_JSON", "expected a JSON object"),
        ("B05", post(BY_NAME, "{}"), 400, "INVALID_ARGUMENT", "blueprint is missing"),
        ("B05", post(BY_NAME, "{\"blueprint\":\"\"}"), 400, "INVALID_ARGUMENT", "blueprint is missing"),
        ("B06", post(WRAPPED, "{\"pririty\":1}"), 400, "INVALID_JSON", "did you mean \"priority\"?"),
        ("B06", post(format!("{RAW}?wiat=1s"), "{}"), 400, "INVALID_ARGUMENT", "did you mean \"wait\"?"),
        ("B07", post(WRAPPED, "{\"priority\":1,\"priority\":2}"), 400, "INVALID_JSON", "stands twice"),
        ("B07", post(WRAPPED, r#"{"labels":{"a":"1","a":"2"}}"#), 400, "INVALID_ARGUMENT", "stands twice"),
        ("B24", post(BY_NAME, "{\"blueprint\":\"nope\"}"), 404, "BLUEPRINT_NOT_FOUND", "test_workflow"),
        ("B24", get("/api/blueprints/nope"), 404, "BLUEPRINT_NOT_FOUND", "\"nope\""),
        (
            "B25",
            post("/api/jobs/checked", "{}"),
            400,
            "INPUT_INVALID",
            "initial_data: \"order\" is a required",
        ),
        (
            "B25",
            post("/api/jobs/checked", r#"{"order":"A","lines":[{"count":2},{"count":0}]}"#),
            400,
            "INPUT_INVALID",
            "initial_data/lines/1/count: the value is less than the minimum of 1",
        ),
        invalid("B26", json!({"start_at": "9999-01-01T00:00:00Z"}), "start_at is further ahead than"),
        invalid("B26", json!({"start_at": "2026-12-24T18:00:00"}), "expected a time such as"),
        invalid("B26", json!({"start_at": "2026-13-24T18:00:00Z"}), "expected a time such as"),
        invalid("B26", json!({"start_at": "-999999-01-01T00:00:00Z"}), "expected a time such as"),
        invalid("B26", json!({"result_timeout": -1}), "result_timeout is \"-1\": expected a span of time"),
        invalid("B26", json!({"result_timeout": 0}), "result_timeout is 0; it must be more"),
        invalid("B26", json!({"dispatch_timeout": "1e99s"}), "expected a span of time"),
        invalid("B26", json!({"dispatch_timeout": 1e300}), "dispatch_timeout is"),
        invalid("B26", json!({"result_timeout": "400d"}), "longer than the limit of 366 days"),
        invalid("B27", json!({"priority": 300}), "priority is 300; it may be -100 to 100"),
        invalid("B27", json!({"priority": i64::MIN}), "priority is -9223372036854775808"),
        ("B27", post(WRAPPED, "{\"priority\":18446744073709551616}"), 400, "INVALID_ARGUMENT", "priority is"),
        invalid("B27", json!({"labels": many(33)}), "there are 33 labels, the limit is 32"),
        invalid(
            "B27",
            json!({"labels": {"a": "x".repeat(60_000)}}),
            "the value of the label a has more than 255",
        ),
        invalid("B27", json!({"labels": {"x".repeat(64): "v"}}), "the label key"),
        invalid("B27", json!({"labels": {"a": "x\ny"}}), "a control character"),
        invalid("B27", json!({"labels": {"a": "x\u{1b}[31m"}}), "a control character"),
        invalid("B27", json!({"labels": {"a\u{202e}b": "x"}}), "the label key"),
        ("B28", post(WRAPPED, r#"{"webhook_url":"http://x"}"#), 409, "WEBHOOKS_OFF", "Leave webhook_url out"),
        invalid("B28", json!({"webhook_url": 7}), "webhook_url is \"7\"; expected a text"),
    ];
    refuses(&server, rows).await;
    unharmed(&server).await;
    // A start that has passed is a start now.
    for start_at in ["1970-01-01T00:00:00Z", "2016-12-31T23:59:60Z"] {
        let body = json!({"start_at": start_at}).to_string();
        let answer = post("/api/v1/jobs/instant", body).to(&server).await;
        let job = server.get(&format!("/api/jobs/{}", answer.text("job_id"))).await;
        assert_eq!(job.text("status"), "failed", "B26: it has run, and misses its input: {job:?}");
    }
}

#[tokio::test]
async fn b18_to_b22_paths_and_what_stands_behind_them() {
    let server = Server::start().await;
    let theirs = server.by(BOB, "POST", RAW, "{}").await.text("job_id");
    let canonical = UNKNOWN_ID.to_owned();
    let mut bodies = Vec::new();
    for (number, id) in [
        ("B18", "..%2f..%2fetc".to_owned()),
        ("B18", "x".repeat(10_000)),
        ("B18", "%00".to_owned()),
        ("B18", theirs.to_uppercase()),
        ("B18", format!("%7B{theirs}%7D")),
        ("B18", theirs.replace('-', "")),
        ("B18", format!("urn:uuid:{theirs}")),
        ("B19", canonical),
        ("B19", theirs.clone()),
    ] {
        for (method, below) in [("GET", ""), ("GET", "/history"), ("GET", "/explain"), ("POST", "/cancel")] {
            let answer = Sent::new(method, format!("/api/jobs/{id}{below}")).to(&server).await;
            assert_eq!(
                (answer.status, answer.text("code").as_str()),
                (404, "JOB_NOT_FOUND"),
                "{number} {id:.60}{below}"
            );
            bodies.push(answer.body);
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "B19: byte for byte the same");

    let foreign_cursor = {
        server.by(BOB, "POST", RAW, "{}").await;
        let page = server.by(BOB, "GET", "/api/jobs?limit=1", "").await.json();
        page["next_cursor"].as_str().unwrap().to_owned()
    };
    let rows = [
        ("B20", Sent::new("DELETE", RAW), 405, "METHOD_NOT_ALLOWED", "GET, HEAD, POST"),
        ("B20", Sent::new("BREW", "/api/workers"), 405, "METHOD_NOT_ALLOWED", "GET, HEAD"),
        ("B20", Sent::new("POST", "/_public/status"), 405, "METHOD_NOT_ALLOWED", "GET, HEAD"),
        ("B21", get("/api/nothing"), 404, "ENDPOINT_NOT_FOUND", "POST /api/jobs/test"),
        ("B21", get("/nothing").stranger(), 404, "ENDPOINT_NOT_FOUND", "/_public/status"),
        ("B21", get(format!("/api/{}", "x".repeat(10_000))), 404, "ENDPOINT_NOT_FOUND", ""),
        ("B22", get("/api/jobs?limit=10&limit=20"), 400, "INVALID_ARGUMENT", "limit stands there twice"),
        ("B22", get("/api/jobs?limit=0"), 400, "INVALID_ARGUMENT", "limit is \"0\""),
        ("B22", get("/api/jobs?limit=-1"), 400, "INVALID_ARGUMENT", "limit is \"-1\""),
        ("B22", get("/api/jobs?limit=1000000000"), 400, "INVALID_ARGUMENT", "at most 1000 entries"),
        ("B22", get("/api/jobs?limit=99999999999999999999"), 400, "INVALID_ARGUMENT", "limit is"),
        (
            "B22",
            get("/api/jobs?cursor=tampered"),
            400,
            "INVALID_ARGUMENT",
            "not one that this listing gave out",
        ),
        ("B22", get(format!("/api/jobs?cursor={foreign_cursor}x")), 400, "INVALID_ARGUMENT", "cursor"),
        ("B22", get("/api/jobs?cursor=%FF%00"), 400, "INVALID_ARGUMENT", ""),
        ("B22", get("/api/jobs?status=runing"), 400, "INVALID_ARGUMENT", "did you mean \"running\"?"),
    ];
    refuses(&server, rows).await;
    // The cursor of another client is a place in a list: in one's own there is nothing of the other's.
    let page = server.get(&format!("/api/jobs?cursor={foreign_cursor}")).await;
    assert_eq!(page.json()["jobs"], json!([]), "B22");
    let answer = Sent::new("DELETE", RAW).to(&server).await;
    assert_eq!(answer.header("allow"), "GET, HEAD, POST", "B20");
    unharmed(&server).await;
}

#[tokio::test]
async fn b23_idempotency_keys() {
    let server = Server::start().await;
    let keyed = |key: &str, body: &str| post(RAW, body).header("idempotency-key", key);
    let words = "the idempotency key is not 1 to 255 printable ASCII characters";
    refuses(
        &server,
        [
            ("B23", keyed("", "{}"), 400, "INVALID_ARGUMENT", words),
            ("B23", keyed(&"k".repeat(300), "{}"), 400, "INVALID_ARGUMENT", words),
            ("B23", keyed("a\tb", "{}"), 400, "INVALID_ARGUMENT", words),
            ("B23", keyed("schlüssel", "{}"), 400, "INVALID_ARGUMENT", "not printable ASCII"),
            (
                "B23",
                keyed("a", "{}").header("idempotency-key", "b"),
                400,
                "INVALID_ARGUMENT",
                "more than once",
            ),
        ],
    )
    .await;
    unharmed(&server).await;
    assert_eq!(keyed("k", "{\"a\":1}").to(&server).await.status, 202);
    refuses(&server, [("B23", keyed("k", "{\"a\":2}"), 409, "IDEMPOTENCY_CONFLICT", "key")]).await;
    // In flight at the same time, whoever comes second gets the first one's job.
    let same = keyed("twins", "{\"a\":1}");
    let (one, other) = tokio::join!(same.to(&server), same.to(&server));
    assert_eq!((one.status, one.text("job_id")), (202, other.text("job_id")));
    assert_eq!(server.jobs_of(ALICE).await.len(), 2);
}

#[tokio::test]
async fn b29_b30_credentials() {
    let server = Server::start().await;
    let basic = "Basic YWxpY2U6dG9rZW4=";
    let nobody = || get("/api/jobs").stranger();
    let missing = |sent| ("B29", sent, 401, "MISSING_TOKEN", "Missing X-Avtomatika-Token header");
    let wrong = |sent| ("B29", sent, 401, "INVALID_TOKEN", "Unauthorized: Invalid token");
    refuses(
        &server,
        [
            missing(nobody()),
            missing(nobody().header("authorization", "Bearer")),
            missing(nobody().header("authorization", "Bearer ")),
            missing(nobody().header("authorization", basic)),
            missing(nobody().header("authorization", "Béarer x")),
            wrong(nobody().header("authorization", format!("Bearer {ALICE}x"))),
            wrong(nobody().header("authorization", format!("Bearer {}", ALICE.to_uppercase()))),
            wrong(nobody().header("authorization", format!("Bearer {}", "x".repeat(60_000)))),
            wrong(nobody().header("x-avtomatika-token", ALICE).header("x-avtomatika-token", ALICE)),
            wrong(nobody().header("authorization", "Bearer a").header("authorization", "Bearer b")),
            wrong(nobody().header("x-avtomatika-token", "\u{e9}")),
            // Known, and in the wrong place.
            wrong(nobody().header("x-avtomatika-token", WORKER)),
            (
                "B30",
                get("/api/jobs").header("x-avtomatika-client", "bob"),
                403,
                "PERMISSION_DENIED",
                "This call asks for the role \"admin\"",
            ),
        ],
    )
    .await;
    let answer = nobody().to(&server).await;
    assert_eq!(answer.header("www-authenticate"), "Bearer", "B29");
    unharmed(&server).await;
}

#[tokio::test]
async fn b35_b36_jobs_that_ended_and_streams_of_events() {
    let server = Server::start().await;
    let id = server.post(RAW, "{}").await.text("job_id");
    let cancel = post(format!("/api/jobs/{id}/cancel"), "");
    assert_eq!(cancel.to(&server).await.text("status"), "cancelled");
    let ended = server.post("/api/jobs/instant", r#"{"input":1}"#).await.text("job_id");
    let events = format!("/api/jobs/{id}/events");
    refuses(
        &server,
        [
            ("B35", cancel, 409, "JOB_TERMINAL", "cancelled"),
            ("B35", post(format!("/api/jobs/{ended}/cancel"), ""), 409, "JOB_TERMINAL", "finished"),
            ("B36", get(format!("{events}?since=1")), 400, "INVALID_ARGUMENT", "This endpoint takes none"),
            ("B36", post(format!("{RAW}?wait=1000000000"), "{}"), 400, "INVALID_ARGUMENT", "wait is longer"),
            (
                "B36",
                post(RAW, "{}").header("prefer", "wait=1000000000"),
                400,
                "INVALID_ARGUMENT",
                "wait is longer",
            ),
        ],
    )
    .await;
    // Events have no ids to go on from: whoever comes again gets the job as it is.
    let again = get(events).header("last-event-id", "gar\"bage").to(&server).await;
    assert_eq!((again.status, again.body.matches("event: job").count()), (200, 1), "B36: {again:?}");
}
