//! One job that maps over many items, beside as many jobs of one task.

use std::time::{Duration, Instant};

use avtomatika_proto::v1::{JobStatus, SubmitJobRequest};

use crate::{
    Figures, Goal, Size,
    load::{connect, data, fill},
    process::{FAN_OUT, Orchestrator},
    progress,
    report::Table,
    turns::{Turns, in_turns},
    worker::{Tally, Workers},
};

const ABOUT: &str = "\
A worker with 256 slots answers each task at once. In turns, some thousand jobs of one task are submitted over four
streams, and one job that maps over as many items is submitted and waited for. Medians of five rounds, after one that
warms up.";

const ITEMS: u64 = 10_000;
const ITEM_BYTES: usize = 64;
const SLOTS: u32 = 256;

/// How long one map may take; far beyond any goal.
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("map", ABOUT);
    let items = size.of(ITEMS);
    progress(&format!("map: {items} items"));
    let orchestrator = Orchestrator::start(&size.dir).await;
    let tally = Tally::new();
    let _workers = Workers::connect(&orchestrator.url(), 1, SLOTS, &tally).await;
    let url = orchestrator.url();
    let Turns { usual: single, other: map, .. } = in_turns(
        async || items as f64 / singles_take(&url, &tally, items).await.as_secs_f64(),
        async || items as f64 / map_takes(&url, items).await.as_secs_f64(),
    )
    .await;
    figures.add("jobs of one task, jobs/s", single, 0, Goal::None);
    figures.add(format!("one job that maps over {items} items, items/s"), map, 0, Goal::None);
    figures.add("ratio", map / single, 2, Goal::AtLeast(1.0));
    figures.0
}

/// How long so many jobs of one task take, from the first submission until the last result is durable.
async fn singles_take(url: &str, tally: &Tally, jobs: u64) -> Duration {
    let (started, target) = (Instant::now(), tally.done() + jobs);
    fill(url, jobs, &data(ITEM_BYTES)).await;
    tally.until_done(target).await;
    started.elapsed()
}

/// How long one job takes that maps over so many items, from its submission until its end is told.
async fn map_takes(url: &str, items: u64) -> Duration {
    let item = "x".repeat(ITEM_BYTES);
    let items: Vec<&str> = (0..items).map(|_| &*item).collect();
    let request = SubmitJobRequest {
        blueprint: FAN_OUT.into(),
        initial_data: serde_json::json!({ "items": items }).to_string(),
        wait: Some(prost_types::Duration { seconds: PATIENCE.as_secs() as i64, nanos: 0 }),
        ..Default::default()
    };
    let mut jobs = connect(url).await;
    let started = Instant::now();
    let answer = jobs.submit_job(request).await.expect("the job is accepted").into_inner();
    let took = started.elapsed();
    assert_eq!(answer.job.map(|job| job.status()), Some(JobStatus::Finished), "every branch succeeds");
    took
}
