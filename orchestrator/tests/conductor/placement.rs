//! Whose task goes next, and to whom.

use super::*;

/// Turns that may pass while a task is being read. Where all are in memory, none is; elsewhere it depends on how busy the machine is.
const MAY_PASS: usize = if in_memory() { 0 } else { 20 };

/// By how many turns the shares of two clients may be off for the same reason.
const MAY_SLIP: usize = if in_memory() { 0 } else { 1 };

/// So many jobs of this client, one after the other.
async fn submit_of(conductor: &Conductor, client: &str, count: usize) {
    for _ in 0..count {
        conductor.submit(&Arc::from(client), request()).await.expect("accepted");
    }
}

/// Whose the next tasks are, each reported before the next one is taken.
async fn served(conductor: &Conductor, worker: &mut Worker, count: usize) -> Vec<String> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let task = worker.task().await;
        clients.push(task.offer.client.to_string());
        worker.report(&task).await;
    }
    // Whatever was decided for the last report is durable when this answers.
    conductor.stats().await.expect("it runs");
    clients
}

#[tokio::test]
async fn one_clients_many_jobs_do_not_delay_anothers_one_nor_do_they_after_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let before = start(Faulty::over(store.clone())).conductor;
    submit_of(&before, "many", 200).await;
    submit_of(&before, "one", 1).await;
    submit_of(&before, "two", 2).await;
    // The first conductor is simply forgotten, as a crash would.
    let after = start(Faulty::over(store)).conductor;
    let mut worker = Worker::join(&after, "w1", 1).await;
    let order = served(&after, &mut worker, 9 + MAY_PASS).await;
    // Each of them among the first turns.
    let last = |client: &str| order.iter().rposition(|served| served == client);
    assert!(last("one").is_some_and(|turn| turn <= 4 + MAY_PASS), "{order:?}");
    assert!(last("two").is_some_and(|turn| turn <= 7 + MAY_PASS), "{order:?}");
    assert_eq!(order.iter().filter(|served| *served == "two").count(), 2, "{order:?}");
    submit_of(&after, "late", 1).await;
    let order = served(&after, &mut worker, 5 + MAY_PASS).await;
    assert!(order.iter().any(|served| served == "late"), "{order:?}");
}

#[tokio::test]
async fn a_client_of_three_times_the_weight_gets_three_turns_for_one() {
    let conductor = start(Faulty::new()).conductor;
    let heavy = Terms { weight: 3, ..Terms::default() };
    conductor.tenancy().replace(Arc::new(Tenants::new([(Arc::from("heavy"), Arc::new(heavy))])));
    submit_of(&conductor, "light", 40).await;
    submit_of(&conductor, "heavy", 40).await;
    let mut worker = Worker::join(&conductor, "w1", 1).await;
    let order = served(&conductor, &mut worker, 40).await;
    let turns = order.iter().filter(|client| *client == "heavy").count();
    assert!((28 - MAY_SLIP..=32 + MAY_SLIP).contains(&turns), "{turns} of 40: {order:?}");
    // The weights of a reload hold from the next turn on.
    conductor.tenancy().replace(Arc::default());
    let order = served(&conductor, &mut worker, 16).await;
    let turns = order.iter().filter(|client| *client == "heavy").count();
    assert!((6 - MAY_SLIP..=10 + MAY_SLIP).contains(&turns), "{turns} of 16: {order:?}");
}

#[tokio::test]
async fn what_is_held_against_a_worker_outlives_a_restart_and_what_is_taken_back_does_not() {
    let (store, clock) = (Arc::new(MemoryStore::default()), ManualClock::new());
    let start = || start_at(Faulty::over(store.clone()), Arc::new(clock.clone())).conductor;
    let reputation = async |conductor: &Conductor| conductor.workers().await.unwrap()[0].reputation;
    // What is to be stored is stored with what else there is, some seconds later.
    let until_stored = async |conductor: &Conductor, is_held: bool| {
        clock.advance(Duration::from_secs(10));
        while store.sessions().unwrap()[0].reproach.is_some() != is_held {
            conductor.stats().await.unwrap();
        }
    };
    let before = start();
    let mut worker = Worker::join(&before, "w1", 1).await;
    submit(&before).await;
    let task = worker.task().await;
    let error = JobError { code: Arc::from("PERMANENT_ERROR"), message: Arc::from("broken") };
    let result = WorkerResult {
        task_id: task.offer.task_id,
        job_id: None,
        outcome: Arc::from("failure"),
        data: Json::empty(),
        error: Some(error),
        checkpoint: None,
    };
    worker.stream.tell(FromWorker::Results(vec![result])).await;
    assert_eq!(worker.verdict().await, Verdict::Applied);
    until_stored(&before, true).await;

    let after = start();
    let worker = Worker::open(&after, worker.session_id, vec![], 1).await;
    let held = reputation(&after).await;
    assert!((0.95..0.951).contains(&held), "{held}");
    after.restore_worker("w1").await.unwrap();
    until_stored(&after, false).await;

    let last = start();
    let _worker = Worker::open(&last, worker.session_id, vec![], 1).await;
    assert_eq!(reputation(&last).await, 1.0);
}

#[tokio::test]
async fn a_worker_that_is_lost_again_and_again_is_set_aside_in_its_next_session() {
    let conductor = start_at(Faulty::new(), Arc::new(ManualClock::new())).conductor;
    let mut steady = Worker::join(&conductor, "steady", 0).await;
    for _ in 0..10 {
        let mut crashing = Worker::join(&conductor, "crashing", 1).await;
        let job_id = submit(&conductor).await;
        assert_eq!(crashing.task().await.offer.job_id, job_id);
        crashing.stream.tell(FromWorker::Ended).await;
        conductor.cancel(&acme(), job_id, None).await.unwrap();
    }
    let _back = Worker::join(&conductor, "crashing", 1).await;
    let job_id = submit(&conductor).await;
    let workers = conductor.workers().await.unwrap();
    let crashing = workers.iter().find(|worker| &*worker.worker.worker_id == "crashing").unwrap();
    assert_eq!((crashing.status, crashing.running_tasks), (WorkerStatus::SetAside, 0));
    steady.stream.tell(FromWorker::Credits(1)).await;
    assert_eq!(steady.task().await.offer.job_id, job_id);
}
