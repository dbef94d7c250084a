//! The story, and the search.

use avtomatika_proto::v1::{
    self, job_service_client::JobServiceClient, worker_service_client::WorkerServiceClient,
};
use avtomatika_worker::{TaskContext, TaskError, Worker};
use serde_json::{Value, json};
use tonic::Request;

use super::{
    house::{House, PAYLOAD, SECRETS, secret, spellings},
    receiver::Receiver,
};

const ACME: &str = "a client's token";
const ROOT: &str = "an admin's token";
const INLINE: &str = "a token among the settings";
const WORKERS: &str = "a worker's token";
const STRUCK: &str = "a token that was struck";
const GUESS: &str = "a guess at a token";

/// Not a test: the process of a worker, which [`House::start_worker`] starts.
#[test]
#[ignore = "a part of the test below"]
fn a_worker_of_the_story() {
    let Ok(token) = std::env::var("AVTOMATIKA_TOKEN") else { return };
    tracing_subscriber::fmt().with_env_filter("debug").with_writer(std::io::stderr).init();
    let url = std::env::var("AVTOMATIKA_ORCHESTRATOR").unwrap();
    let worker = Worker::builder(url).token(token).worker_id("w-1").slots(2);
    let worker = worker.handle("work", echo).build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(worker.run_until(async {
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap().recv().await;
    }));
    eprintln!("ended: {ended:?}");
}

async fn echo(params: Value, _: TaskContext) -> Result<Value, TaskError> {
    Ok(params)
}

/// Everything that can be asked with a token, in every place where a token may stand, also the wrong ones.
fn ask_everything(house: &mut House, job: &str) {
    let job = |below: &str| format!("/api/jobs/{job}{below}");
    let asked = [
        ("GET", "/api/jobs".to_owned()),
        ("GET", job("")),
        ("GET", job("/history")),
        ("GET", job("/explain")),
        ("GET", job("/graph")),
        ("GET", job("/webhooks")),
        ("GET", "/api/workers".to_owned()),
        ("GET", "/api/schedules".to_owned()),
        ("GET", "/api/blueprints".to_owned()),
        ("GET", "/api/dashboard".to_owned()),
        ("GET", "/api/nothing".to_owned()),
        ("POST", "/api/jobs/repair".to_owned()),
        ("DELETE", "/api/jobs".to_owned()),
        ("GET", "/_public/metrics".to_owned()),
        ("GET", "/_public/status".to_owned()),
    ];
    // Each by somebody who may, by somebody who may more, and by a stranger. (Six hundred strangers in a minute are told something else.)
    for (method, path) in &asked {
        for token in [ACME, ROOT, GUESS] {
            house.by(token, method, path, "");
        }
    }
    // One of them with every token in every place.
    let path = job("");
    for (_, token) in SECRETS {
        let (bearer, basic) = (format!("Bearer {token}"), format!("Basic {token}"));
        for headers in [
            &[("x-avtomatika-token", token)][..],
            &[("authorization", &bearer)],
            &[("authorization", &basic)],
            &[("x-worker-token", token)],
            &[("x-client-token", token), ("x-client-token", token)],
            &[("x-avtomatika-token", token), ("x-avtomatika-client", "acme")],
        ] {
            house.send("GET", &path, headers, "");
        }
    }
    // A body that was meant as a header, and the other way round.
    for (_, token) in SECRETS {
        house.by(ACME, "POST", "/api/v1/jobs", &json!({"token": token}).to_string());
        house.send(
            "POST",
            "/api/work",
            &[("x-avtomatika-token", secret(ACME)), ("idempotency-key", "\u{1}")],
            token,
        );
    }
}

/// The same over gRPC: what statuses say.
async fn ask_by_grpc(url: &str) -> String {
    let mut said = String::new();
    let mut jobs = JobServiceClient::connect(url.to_owned()).await.unwrap();
    let mut workers = WorkerServiceClient::connect(url.to_owned()).await.unwrap();
    for (_, token) in SECRETS {
        for header in ["x-avtomatika-token", "x-worker-token"] {
            let mut list = Request::new(v1::ListJobsRequest::default());
            list.metadata_mut().insert(header, token.parse().unwrap());
            said += &format!("{:?}", jobs.list_jobs(list).await);
            let mut register =
                Request::new(v1::RegisterWorkerRequest { worker_id: "x".into(), ..Default::default() });
            register.metadata_mut().insert(header, token.parse().unwrap());
            said += &format!("{:?}", workers.register_worker(register).await);
        }
    }
    said
}

fn job_of((status, answer): (u16, Value)) -> String {
    assert_eq!(status, 202, "{answer}");
    answer["job_id"].as_str().unwrap().to_owned()
}

/// A job that asks, and tells a webhook.
fn ask(house: &mut House, webhook: &str) -> String {
    let body = json!({"webhook_url": webhook, "initial_data": {"text": PAYLOAD}}).to_string();
    job_of(house.by(ACME, "POST", "/api/v1/ask", &body))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_i16_no_secret_is_in_anything_that_processes_say_answer_or_write_down() {
    let mut house = House::new();
    let mut receiver = Receiver::start().await;
    let webhook = receiver.url(&format!("/hooks/{0}?key={0}", secret("what a webhook's URL holds")));
    let orchestrator = house.start();
    let payload = json!({"text": PAYLOAD}).to_string();

    // Workers: one that is turned away, one that works.
    let stranger = house.start_worker(secret(GUESS));
    stranger.until("nvalid token");
    stranger.kill();
    let worker = house.start_worker(secret(WORKERS));
    let worked = job_of(house.by(ACME, "POST", "/api/work", &payload));
    house.until(ACME, &worked, "finished");
    let broken = job_of(house.by(INLINE, "POST", "/api/break", &payload));
    let broken = house.until(INLINE, &broken, "failed")["id"].as_str().unwrap().to_owned();
    house.by(INLINE, "POST", &format!("/api/jobs/{broken}/retry"), "{}");

    // Approvals, with the wrong token and with the right one, in the body and in the URL.
    let mut approvals = Vec::new();
    for in_body in [true, false] {
        let job = ask(&mut house, &webhook);
        let message = receiver.next().await;
        let token = message.json()["data"]["approval"]["token"].as_str().unwrap().to_owned();
        let path = format!("/_public/webhooks/approval/{job}");
        for token in [secret(GUESS), &token, &token] {
            let (path, body) = match in_body {
                true => (path.clone(), json!({"decision": "approved", "token": token})),
                false => (format!("{path}?token={token}"), json!({"decision": "approved"})),
            };
            house.send("POST", &path, &[], &body.to_string());
        }
        house.until(ACME, &job, "finished");
        receiver.next().await;
        approvals.push(token);
    }
    let unanswered = ask(&mut house, &webhook);
    let asked = receiver.next().await.json();
    let open_token = asked["data"]["approval"]["token"].as_str().unwrap().to_owned();

    ask_everything(&mut house, &worked);
    ask_everything(&mut house, &unanswered);
    house.answered += &ask_by_grpc(&house.url()).await;

    // The quota is used up, a token is struck, a mistake is made.
    while house.by(ACME, "POST", "/api/work", &payload).0 == 202 {}
    house.by(STRUCK, "GET", "/api/jobs", "");
    house.write_access(false);
    house.by(ROOT, "POST", "/api/reload", "");
    assert_eq!(house.by(STRUCK, "GET", "/api/jobs", "").0, 401);
    let sound = std::fs::read_to_string(house.path("clients.toml")).unwrap();
    let mistaken =
        format!("[acme]\ntoken = \"{0}\"\ntoken_sha256 = \"{0}\"\n{0} = 1\nplan = {0}\n", secret(ACME));
    std::fs::write(house.path("clients.toml"), &mistaken).unwrap();
    assert_eq!(house.by(ROOT, "POST", "/api/reload", "").0, 422);
    orchestrator.signal("-HUP");
    orchestrator.until("stay as they are");
    house.by(ROOT, "POST", "/api/reload", r#"{"dry_run": true}"#);

    // A start with that mistake, a drain, a kill, a restart.
    orchestrator.signal("-TERM");
    orchestrator.wait();
    let orchestrator = house.start_refused();
    orchestrator.wait();
    std::fs::write(house.path("clients.toml"), sound).unwrap();
    let orchestrator = house.start();
    house.until(ACME, &unanswered, "waiting_for_human");
    orchestrator.kill();
    let orchestrator = house.start();
    ask_everything(&mut house, &unanswered);
    worker.signal("-TERM");
    worker.wait();
    orchestrator.signal("-TERM");
    orchestrator.wait();

    search(&house, &approvals, &open_token);
}

fn search(house: &House, approvals: &[String], open_token: &str) {
    let written = house.written();
    let texts = |kind: &str| {
        written.iter().filter(|(name, _)| name.contains(kind)).map(|(_, text)| text.len()).sum::<usize>()
    };
    // It is no use to search where nothing is.
    for kind in ["/log-", "/data/", "audit.jsonl"] {
        assert!(texts(kind) > 1000, "{kind}: {} bytes", texts(kind));
    }
    let answered = house.answered.as_str();
    let places = written.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    // The settings are what it all began with.
    let places = places.filter(|(name, _)| !name.ends_with(".toml"));
    let everywhere: Vec<(&str, &str)> = places.chain([("what was answered", answered)]).collect();
    let is_log = |place: &str| place.contains("/log-") || place.contains("audit.jsonl");
    for (what, secret) in SECRETS {
        for spelling in spellings(secret) {
            for (place, text) in &everywhere {
                // A webhook's URL is the client's own: it stands in the job and in the store, and nowhere else.
                let is_at_home = what == "what a webhook's URL holds" && !is_log(place);
                assert!(is_at_home || !text.contains(&spelling), "{what} stands in {place}, as {spelling:?}");
            }
        }
    }
    // Tokens of approvals are in the store, which compares them, and so is what the client's jobs hold.
    for secret in approvals.iter().map(String::as_str).chain([open_token, PAYLOAD]) {
        for spelling in spellings(secret) {
            for (place, text) in everywhere.iter().filter(|(place, _)| is_log(place)) {
                assert!(!text.contains(&spelling), "{spelling:?} stands in {place}");
            }
        }
    }
    // An open one is shown to the job's owner, who asks for the job, and to nobody else. One that was used is worth nothing, and gone.
    for token in approvals {
        assert!(!answered.contains(token.as_str()), "a used token was answered");
    }
    for who in house.answers_with(open_token) {
        // An admin asked in its name.
        assert!(who == ACME || who == ROOT, "the token of an open approval was answered to {who}");
    }
    assert!(answered.contains(open_token) && answered.contains(PAYLOAD));
}
