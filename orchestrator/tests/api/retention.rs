//! What clients see of jobs that ended long ago.

use std::{sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    engine::JobStatus,
    store::{Batch, Store, conformance::Samples, memory::MemoryStore},
};

use crate::support::{ALICE, Server};

#[tokio::test]
async fn a_job_that_ended_long_ago_is_not_found_and_the_others_are() {
    // The samples were created years ago.
    let (store, mut samples) = (Arc::new(MemoryStore::new()), Samples::new(1));
    let (ended, open) = (samples.job("alice"), samples.job("alice"));
    let moved = samples.moved(&ended, JobStatus::Finished);
    let writes = vec![samples.insert_as(&ended, "order-7"), samples.insert(&open), samples.update(&moved)];
    store.commit(&Batch { writes }).unwrap();

    let server = Server::start_over(store.clone(), Duration::from_secs(5)).await;
    let young = server.post("/api/jobs/instant?wait=10s", r#"{"input": 1}"#).await.text("id");
    let path = format!("/api/jobs/{}", ended.id);
    while !server.get("/_public/metrics").await.body.contains("avtomatika_jobs_pruned_total 1\n") {
        tokio::task::yield_now().await;
    }
    for path in [path.clone(), format!("{path}/history"), format!("{path}/events")] {
        let answer = server.get(&path).await;
        assert_eq!((answer.status, answer.text("code").as_str()), (404, "JOB_NOT_FOUND"), "{path}");
    }
    assert_eq!(server.jobs_of(ALICE).await, [young, open.id.to_string()]);
    server.stop();
    server.stopped().await;
    assert_eq!(Arc::strong_count(&store), 1, "the chore has let go of the store, too");
}
