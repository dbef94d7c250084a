//! Functions of the process, on a disk that is full when they end.

use avtomatika_orchestrator::{
    Parts, assemble,
    blueprint::{
        Blueprint,
        builder::{code, finished},
    },
    functions::{Call, Functions},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test]
async fn the_result_of_a_function_is_told_until_it_is_durable() {
    let store = Faulty::new();
    let definition = Blueprint::builder("called")
        .start("call", code("held").on("success", "done"))
        .state("done", finished())
        .build()
        .unwrap();
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let calls = Arc::new(AtomicU32::new(0));
    let held = {
        let (begun, release, calls) = (begun.clone(), release.clone(), calls.clone());
        move |_: serde_json::Value, _: Call| {
            calls.fetch_add(1, Ordering::SeqCst);
            begun.notify_one();
            let release = release.clone();
            async move {
                release.notified().await;
                Ok(())
            }
        }
    };
    let parts = Parts { definitions: vec![definition], ..Parts::new(store.clone()).unwrap() };
    let app = assemble(parts).unwrap().with_functions(Functions::new().add("held", held)).unwrap();
    let conductor = app.conductor().clone();
    let stop = CancellationToken::new();
    let ran = tokio::spawn(app.run(stop.clone()));
    let called = SubmitRequest::of("called", Json::empty());
    let job_id = conductor.submit(&acme(), called).await.unwrap().job_id;
    begun.notified().await;
    store.full.store(true, Ordering::SeqCst);
    release.notify_one();
    while store.refused.load(Ordering::SeqCst) == 0 {
        conductor.stats().await.unwrap();
    }
    store.full.store(false, Ordering::SeqCst);
    assert_eq!(end_of(&conductor, job_id).await, JobStatus::Finished);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "the result was kept, and not made again");
    stop.cancel();
    ran.await.unwrap().unwrap();
}
