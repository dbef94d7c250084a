//! Schedules over real sockets: they make jobs, workers do them, and whoever owns them sees them.

use avtomatika_orchestrator::schedule::{Known, parse};
use avtomatika_proto::v1::{JobStatus, ListSchedulesRequest, admin_service_client::AdminServiceClient};
use avtomatika_worker::builtin;
use serde_json::{Value, json};
use tonic::{Request, transport::Channel};

use crate::{
    jobs::cli,
    stack::{CLIENT_TOKEN, OTHER_CLIENT_TOKEN, RunningWorker, Stack, in_time},
};

fn set(stack: &Stack, text: &str) {
    let known = Known { blueprints: &["test_workflow"], clients: &["acme", "globex"] };
    stack.schedules.replace(parse("schedules.toml", text, known).unwrap());
}

const EVERY_SECOND: &str = "
[tick]
blueprint = 'test_workflow'
client = 'acme'
initial_data = { input = 'tick' }
labels = { team = 'a' }
interval = '1s'
";

/// The schedule's jobs, oldest first.
async fn jobs(stack: &Stack) -> Vec<Value> {
    let (status, page) = stack.get("/api/jobs?label=schedule:tick&limit=1000").await;
    assert_eq!(status, 200);
    let mut jobs = page["jobs"].as_array().unwrap().clone();
    jobs.reverse();
    jobs
}

async fn until_there_are(stack: &Stack, count: usize) -> Vec<Value> {
    in_time(async {
        loop {
            let jobs = jobs(stack).await;
            if jobs.len() >= count {
                return jobs;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_schedule_makes_jobs_that_workers_finish_through_a_restart() {
    let mut stack = Stack::start().await;
    set(&stack, EVERY_SECOND);
    until_there_are(&stack, 1).await;
    stack.stop().await;
    stack.start_again().await;
    let worker = stack.worker("demo").handler("process_data", builtin::process_data());
    let _worker = RunningWorker::start(worker).await;
    let made = until_there_are(&stack, 3).await;

    let mut due: Vec<&str> = made.iter().map(|job| job["labels"]["due_at"].as_str().unwrap()).collect();
    due.dedup();
    assert_eq!(due.len(), made.len(), "one for each due time: {due:?}");
    assert!(due.is_sorted());
    let job_id = made[0]["id"].as_str().unwrap();
    let job = stack.grpc().await.until(job_id, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(job.labels["team"], "a");
    assert!(job.state_history.contains("TICK"), "{}", job.state_history);
}

async fn admin(stack: &Stack) -> AdminServiceClient<Channel> {
    AdminServiceClient::connect(stack.url.clone()).await.unwrap()
}

fn asked_by(token: &'static str) -> Request<ListSchedulesRequest> {
    let mut request = Request::new(ListSchedulesRequest {});
    request.metadata_mut().insert("x-avtomatika-token", token.parse().unwrap());
    request
}

#[tokio::test]
async fn a_client_sees_its_own_schedules_and_when_they_are_due() {
    let stack = Stack::start().await;
    let other = EVERY_SECOND.replace("tick", "others").replace("acme", "globex");
    set(&stack, &format!("{EVERY_SECOND}overlap = 'skip'\ntime_zone = 'Europe/Berlin'\n{other}"));
    // Nobody does the first job, so that the next due time finds it open.
    let schedule = in_time(async {
        loop {
            let (status, listed) = stack.get("/api/schedules").await;
            assert_eq!((status, listed.as_array().unwrap().len()), (200, 1));
            if listed[0]["last_skip"]["reason"] == "overlap" {
                return listed[0].clone();
            }
        }
    })
    .await;
    assert_eq!(schedule["name"], "tick");
    assert_eq!(schedule["timing"], "every 1s");
    assert_eq!((&schedule["on_missed"], &schedule["overlap"]), (&json!("once"), &json!("skip")));
    let first = jobs(&stack).await.remove(0);
    assert_eq!(schedule["last_run"]["job_id"], first["id"]);
    assert_eq!(schedule["last_run"]["due_at"], first["labels"]["due_at"]);
    let next = schedule["next"].as_array().unwrap();
    assert_eq!(next.len(), 3);
    assert!(next[0].as_str() > schedule["last_skip"]["due_at"].as_str());

    let mut admin = admin(&stack).await;
    for (token, name, zone) in
        [(CLIENT_TOKEN, "tick", "Europe/Berlin"), (OTHER_CLIENT_TOKEN, "others", "UTC")]
    {
        let listed = in_time(admin.list_schedules(asked_by(token))).await.unwrap().into_inner().schedules;
        let names: Vec<(&str, &str)> =
            listed.iter().map(|schedule| (schedule.name.as_str(), schedule.time_zone.as_str())).collect();
        assert_eq!(names, [(name, zone)]);
    }
}

#[tokio::test]
async fn every_kind_of_rule_is_listed_with_its_next_times() {
    let stack = Stack::start().await;
    let example = include_str!("../../examples/schedules.toml").replace("\"default\"", "\"acme\"");
    set(&stack, &example);
    let (status, listed) = stack.get("/api/schedules").await;
    assert_eq!(status, 200, "{listed}");
    let (_, page) = cli(&stack, &["schedules"]).await;
    for (name, zone, times_of_day) in [
        // At three in Berlin; told in UTC, in winter and in summer.
        ("nightly-report", "Europe/Berlin", &["T02:00:00", "T01:00:00"][..]),
        ("office-hours", "Europe/Berlin", &[":00:00", ":15:00", ":30:00", ":45:00"]),
        ("poll", "UTC", &[":00", ":30"]),
        ("cleanup", "UTC", &["T22:30:00"]),
        ("invoices", "UTC", &["T06:00:00"]),
    ] {
        let schedule = listed.as_array().unwrap().iter().find(|schedule| schedule["name"] == name).unwrap();
        assert_eq!(schedule["time_zone"], zone, "{schedule}");
        let next: Vec<&str> =
            schedule["next"].as_array().unwrap().iter().map(|time| time.as_str().unwrap()).collect();
        // One that is switched off has none.
        assert_eq!(next.len(), if name == "invoices" { 0 } else { 3 }, "{schedule}");
        for time in next {
            assert!(times_of_day.iter().any(|of_day| time[..19].ends_with(of_day)), "{name}: {time}");
        }
        assert!(page.contains(name), "{page}");
    }
}
