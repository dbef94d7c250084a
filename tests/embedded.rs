//! The example of an orchestrator inside a program of one's own does what it shows.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use avtomatika_orchestrator::{
    engine::JobStatus,
    store::{Store as _, memory::MemoryStore},
};

#[path = "../examples/embedded.rs"]
mod embedded;

#[test]
fn the_example_runs() {
    embedded::main().unwrap();
}

#[tokio::test]
async fn its_jobs_are_in_the_store_and_take_the_way_that_their_data_say() {
    let store = Arc::new(MemoryStore::default());
    for (text, status, gathered) in [
        ("one two", JobStatus::Finished, r#"{"words":2,"checksum":700}"#),
        (
            &"word ".repeat(1001),
            JobStatus::Finished,
            r#"{"words":1001,"note":"a long text of 1001 words","checksum":476476}"#,
        ),
        ("", JobStatus::Failed, "{}"),
    ] {
        let job = embedded::run(store.clone(), text).await.unwrap().job;
        assert_eq!((job.status, job.state_history.as_str()), (status, gathered));
        assert_eq!(store.load(job.id).unwrap().unwrap().status, status, "it is as durable as the store");
    }
}
